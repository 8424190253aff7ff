//! The rules, in the order in which they are asked.

use std::sync::Arc;

use super::progress::Progressed;
use super::{Ask, Boot, ByOverride, Decision, Filled, Rule, Step};
use crate::boot::artifact::shown;
use crate::boot::host_override::{Action, HostOverride};
use crate::boot::inventory::{Claim, Inventory};
use crate::boot::kernel_arguments::ArgumentEdits;
use crate::boot::mac::MacAddr;
use crate::boot::name::ObjectName;
use crate::boot::policy::{BootPolicy, Policy, UnknownHosts};
use crate::boot::precedence::Fate;
use crate::boot::template::Template;

/// The steps so far.
struct Trail {
    mac: MacAddr,
    arguments: ArgumentEdits,
    by_override: Option<ByOverride>,
    steps: Vec<Step>,
}

impl Trail {
    fn pass(&mut self, rule: Rule, detail: impl Into<String>) {
        self.note(rule, false, detail);
    }

    fn note(&mut self, rule: Rule, applied: bool, detail: impl Into<String>) {
        self.steps.push(Step {
            rule,
            applied,
            detail: detail.into(),
        });
    }

    fn end(mut self, rule: Rule, detail: impl Into<String>, boot: Boot) -> Decision {
        self.note(rule, true, detail);
        self.decide(boot)
    }

    fn decide(self, boot: Boot) -> Decision {
        let by = self.steps.last().map(|step| step.rule);
        let takes_part = match boot {
            Boot::Environment(..) => true,
            // Its arguments are for environments only, and the boot policy overrules it.
            _ => by == Some(Rule::Override) && !matches!(boot, Boot::NotYet(_)),
        };
        Decision {
            mac: self.mac,
            boot,
            arguments: self.arguments,
            by_override: self.by_override.filter(|_| takes_part),
            steps: self.steps,
        }
    }
}

impl Inventory {
    /// What a machine with several cards boots: the decision for the first card that something names, otherwise for the card it boots
    /// from.
    pub fn decide_for_machine(&self, mac: MacAddr, cards: &[MacAddr], policy: Policy, now: i64) -> Decision {
        let first = self.decide(mac, policy, now);
        let mut others = cards.iter().map(|card| self.decide(*card, policy, now));
        let named = match first.is_known() {
            true => first,
            false => others.find(Decision::is_known).unwrap_or(first),
        };
        self.unless_finished(named, cards, policy)
    }

    /// Sends a machine to its disk whose Agent reported another card than the one that names it: a card was added or exchanged. The
    /// machine itself says which cards it has, so this only ever moves it away from an environment.
    fn unless_finished(&self, mut decision: Decision, cards: &[MacAddr], policy: Policy) -> Decision {
        let own_agents = self.agents(decision.mac).unwrap_or_default();
        if policy.boot != BootPolicy::UntilInstalled || !matches!(decision.boot, Boot::Environment(..)) || !own_agents.is_empty() {
            return decision;
        }
        let by_card = cards.iter().map(|card| (card, self.progress(*card, None)));
        let elsewhere = by_card.into_iter().find_map(|(card, progress)| match progress {
            Progressed::FromDisk(why) => Some((
                format!("UntilInstalled: {why} by its card {card}, so its disk boots"),
                Boot::LocalDisk(None),
            )),
            Progressed::Disputed(why) => Some((why.clone(), Boot::Stop(why))),
            Progressed::NoAgentApi | Progressed::Unsure(_) | Progressed::Discovery(_) => None,
        });
        if let Some((detail, boot)) = elsewhere {
            decision.boot = boot;
            decision.by_override = None;
            decision.steps.push(Step {
                rule: Rule::BootPolicy,
                applied: true,
                detail,
            });
        }
        decision
    }

    /// What this MAC address boots at this second since 1970. The same inventory, policy and time always give the same answer.
    pub fn decide(&self, mac: MacAddr, policy: Policy, now: i64) -> Decision {
        let mut trail = Trail {
            mac,
            arguments: ArgumentEdits::default(),
            by_override: None,
            steps: Vec::with_capacity(6),
        };

        if let Some(host_override) = self.override_for(mac, now, &mut trail) {
            let detail = format!("IpxeHostOverride {}", host_override.name);
            if !host_override.arguments.is_empty() {
                trail.note(
                    Rule::Override,
                    true,
                    format!("{detail} changes kernel arguments: {}", host_override.arguments),
                );
                trail.arguments = host_override.arguments.clone();
            }
            trail.by_override = Some(ByOverride {
                name: host_override.name.clone(),
                generation: host_override.generation,
                limit: host_override.boot_limit,
            });
            let script = |text: &str| self.own_script(mac, text, host_override.templating);
            let (said, boot) = match &host_override.action {
                None => (String::new(), None),
                Some(Action::Script(text)) => ("has a script".to_owned(), Some(script(text))),
                Some(Action::ScriptFrom(place)) => (
                    format!("has the script {:?} of {}", place.key, place.content),
                    Some(self.content(place).and_then(|text| script(text))),
                ),
                Some(Action::Chain(url)) => {
                    let to = url::Url::parse(url).map_or_else(|_| "another server".to_owned(), |url| shown(&url).to_string());
                    (format!("hands over to {to}"), Some(Ok(Boot::Chain(url.as_str().into()))))
                }
                Some(Action::LocalDisk(method)) => ("wants the disk".to_owned(), Some(Ok(Boot::LocalDisk(*method)))),
                Some(Action::Unusable(cause)) => ("cannot be used".to_owned(), Some(Err(cause.clone()))),
                Some(Action::Environment(name)) => {
                    let detail = format!("{detail} wants InfraEnv {name}");
                    return self.environment_boots(trail, Rule::Override, detail, name, None, policy);
                }
            };
            match boot {
                None => {}
                Some(Ok(boot)) => return trail.end(Rule::Override, format!("{detail} {said}"), boot),
                // It may have been made to protect the machine: what would boot without it may be the very thing to prevent.
                Some(Err(why)) => {
                    let why = format!("{detail} {said}: {why}");
                    return trail.end(Rule::Override, why.clone(), Boot::NotYet(why));
                }
            }
        }

        match self.claim(mac) {
            Claim::Disputed(hosts) => {
                let names: Vec<String> = hosts
                    .iter()
                    .map(|host| match &host.environment {
                        Some(environment) => format!("{} (wants {environment})", host.name),
                        None => host.name.to_string(),
                    })
                    .collect();
                let detail = format!("BareMetalHosts {} have this MAC address", names.join(" and "));
                return trail.end(Rule::BareMetalHost, detail.clone(), Boot::Stop(detail));
            }
            Claim::One(host) => {
                if let Some(name) = &host.environment {
                    let detail = format!("BareMetalHost {} wants InfraEnv {}", host.name, name);
                    return self.environment_boots(trail, Rule::BareMetalHost, detail, name, Some(host.name.namespace()), policy);
                }
            }
            Claim::None => {}
        }
        trail.pass(
            Rule::BareMetalHost,
            match self.hosts(mac) {
                [] => "no BareMetalHost has this boot MAC address".to_owned(),
                [host, ..] => format!("BareMetalHost {} has no InfraEnv label", host.name),
            },
        );

        match self.host_files(mac) {
            [] => trail.pass(Rule::HostFile, "no file is named after this MAC address"),
            [first, rest @ ..] if rest.iter().all(|file| file.script == first.script) => {
                return trail.end(Rule::HostFile, format!("file {}", first.file), Boot::File(first.clone()));
            }
            files => {
                let names: Vec<&str> = files.iter().map(|file| file.file.as_str()).collect();
                let detail = format!("files {} differ and all name this MAC address", names.join(" and "));
                return trail.end(Rule::HostFile, detail.clone(), Boot::Stop(detail));
            }
        }

        if let Some(environment) = self.default_environment() {
            let detail = format!("InfraEnv {} is the default environment", environment.name);
            return self.environment_boots(trail, Rule::DefaultEnvironment, detail, &environment.name, None, policy);
        }
        trail.pass(Rule::DefaultEnvironment, "no InfraEnv is labelled as default");

        let detail = format!(
            "nothing names this MAC address, the policy for unknown hosts is {}",
            policy.unknown
        );
        let boot = match policy.unknown {
            UnknownHosts::Shell => Boot::Shell,
            UnknownHosts::LocalDisk => Boot::LocalDisk(None),
            UnknownHosts::NotFound => Boot::Nothing,
            UnknownHosts::Wait => Boot::NotYet("the machine is not known yet".to_owned()),
        };
        trail.end(Rule::UnknownHost, detail, boot)
    }

    /// The override that counts, if one does.
    fn override_for(&self, mac: MacAddr, now: i64, trail: &mut Trail) -> Option<&HostOverride> {
        let mut counts = None;
        let fates = self.fates(mac, now);
        if fates.is_empty() {
            trail.pass(Rule::Override, "no override is for this MAC address");
        }
        for (host_override, fate) in fates {
            let name = &host_override.name;
            match fate {
                Fate::Counts => counts = Some(host_override.as_ref()),
                Fate::Expired => trail.pass(Rule::Override, format!("IpxeHostOverride {name} has expired")),
                Fate::UsedUp => trail.pass(
                    Rule::Override,
                    format!("IpxeHostOverride {name} was booted as often as its bootLimit says"),
                ),
                Fate::Tied(names) if names.first() == Some(name) => {
                    let names: Vec<String> = names.iter().map(ObjectName::to_string).collect();
                    let names = names.join(" and ");
                    trail.pass(
                        Rule::Override,
                        format!("IpxeHostOverrides {names} have the same priority, so none counts"),
                    );
                }
                Fate::Tied(_) => {}
                Fate::Behind(first) => trail.pass(Rule::Override, format!("IpxeHostOverride {name} comes after {first}")),
            }
        }
        counts
    }

    /// A script of an override: as it is, or with what is known of the machine for its variables.
    fn own_script(&self, mac: MacAddr, script: &str, templating: bool) -> Result<Boot, String> {
        if !templating {
            return Ok(Boot::Script(script.into()));
        }
        let template = Template::parse(script).map_err(|error| error.to_string())?;
        let host = self.hosts(mac).first().map(|host| host.name.clone());
        let named = match self.claim(mac) {
            Claim::One(host) => host.environment.as_ref().and_then(|name| self.environment(name)),
            Claim::None => self.default_environment(),
            Claim::Disputed(_) => None,
        };
        let environment = named.map(|environment| environment.name.clone());
        template.check(host.is_some(), environment.is_some())?;
        Ok(Boot::Template(Arc::new(Filled {
            template,
            host,
            environment,
        })))
    }

    /// The environment is known by name: is it there, is it ready, and does the disk boot instead?
    fn environment_boots(
        &self,
        mut trail: Trail,
        rule: Rule,
        detail: String,
        name: &ObjectName,
        namespace: Option<&str>,
        policy: Policy,
    ) -> Decision {
        let Some(environment) = self.environment(name) else {
            let awaited = format!("InfraEnv {name} does not exist");
            return trail.end(rule, format!("{detail}, which does not exist"), Boot::NotYet(awaited));
        };
        trail.note(rule, true, detail);

        let ask = match policy.boot {
            BootPolicy::Always => {
                trail.note(Rule::BootPolicy, true, "Always: the environment boots");
                Ask::ForEnvironment
            }
            BootPolicy::Upstream => {
                trail.note(Rule::BootPolicy, true, "Upstream: the service is asked with the MAC address");
                Ask::ForHost
            }
            BootPolicy::UntilInstalled => match self.progress(trail.mac, namespace) {
                Progressed::NoAgentApi => {
                    trail.note(
                        Rule::BootPolicy,
                        true,
                        "UntilInstalled: there are no Agents to read, the service is asked with the MAC address",
                    );
                    Ask::ForHost
                }
                Progressed::Unsure(why) => {
                    trail.note(
                        Rule::BootPolicy,
                        true,
                        format!("UntilInstalled: {why}, so the service is asked with the MAC address"),
                    );
                    Ask::ForHost
                }
                Progressed::FromDisk(why) => {
                    return trail.end(
                        Rule::BootPolicy,
                        format!("UntilInstalled: {why}, so its disk boots"),
                        Boot::LocalDisk(None),
                    );
                }
                Progressed::Disputed(why) => {
                    return trail.end(Rule::BootPolicy, why.clone(), Boot::Stop(why));
                }
                Progressed::Discovery(why) if environment.boot_order_control => {
                    trail.note(
                        Rule::BootPolicy,
                        true,
                        format!("UntilInstalled: {why}, and the environment's boot order control has the last word"),
                    );
                    Ask::ForHost
                }
                Progressed::Discovery(why) => {
                    trail.note(
                        Rule::BootPolicy,
                        true,
                        format!("UntilInstalled: {why}, so the environment boots"),
                    );
                    Ask::ForEnvironment
                }
            },
        };

        let missing = environment.artifacts.missing();
        let boot = match missing.is_empty() {
            true => Boot::Environment(environment.clone(), ask),
            false => {
                let kinds: Vec<&str> = missing.iter().map(|kind| kind.as_str()).collect();
                Boot::NotYet(format!("InfraEnv {name} has no {} yet", kinds.join(", ")))
            }
        };
        trail.decide(boot)
    }
}
