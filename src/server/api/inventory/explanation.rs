//! A decision as the API shows it, and as `ipxe-bridge explain` prints it.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use poem_openapi::Object;
use poem_openapi::types::Example;

use crate::boot::artifact::PublicUrl;
use crate::boot::decision::{Boot, Decision};
use crate::boot::inventory::Inventory;
use crate::boot::kernel_arguments::{self, ArgumentEdits};
use crate::boot::policy::Policy;
use crate::server::context::Context;

/// Why a machine boots what it boots.
#[derive(Debug, Object)]
#[oai(example, skip_serializing_if_is_none)]
pub struct Explanation {
    /// The machine.
    pub mac: String,
    /// What it boots: `Environment`, `Script`, `Chain`, `File`, `LocalDisk`, `Shell`, `Nothing`, `NotYet` or `Stop`.
    pub boot: String,
    /// The environment, if one boots.
    pub environment: Option<String>,
    /// Every rule in order; the last one decided.
    pub steps: Vec<StepView>,
    /// Every object that has to do with the machine, whether it counts or not.
    pub objects: Vec<ObjectView>,
    /// The settings that take part in every decision.
    pub policy: PolicyView,
    /// Changes to the kernel's command line, in the order in which they are made; empty unless an environment boots.
    pub kernel_arguments: Vec<ArgumentsView>,
    /// The kernel's command line as the script has it, each argument with its origin; empty unless an environment boots.
    pub command_line: Vec<ArgumentView>,
    /// What upstream answered, if it had the last word.
    pub upstream: Option<String>,
    /// The exact script that the machine would get now.
    pub script: Option<String>,
    /// Why there is no script, if there is none.
    pub problem: Option<String>,
}

/// An object that has to do with a machine.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ObjectView {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; absent where it is not from a cluster.
    pub uid: Option<String>,
    /// What it says about the machine, or what became of it.
    pub detail: String,
    /// Of an Agent: the state of its installation.
    pub state: Option<String>,
    /// Of an Agent: the stage of its installation.
    pub stage: Option<String>,
}

/// The settings that take part in every decision.
#[derive(Debug, Object)]
pub struct PolicyView {
    /// `UntilInstalled`, `Always` or `Upstream`.
    pub boot: String,
    /// `Shell`, `LocalDisk`, `NotFound` or `Wait`.
    pub unknown_hosts: String,
}

/// One change of a kernel's command line.
#[derive(Debug, Object)]
pub struct ArgumentsView {
    /// Who makes it.
    pub origin: String,
    /// What it does.
    pub change: String,
}

/// One argument of a kernel's command line.
#[derive(Debug, Object)]
pub struct ArgumentView {
    /// The argument.
    pub argument: String,
    /// Who it comes from.
    pub origin: String,
}

/// One rule and what came of it.
#[derive(Debug, Object)]
pub struct StepView {
    /// The rule.
    pub rule: String,
    /// Whether it applied.
    pub applied: bool,
    /// What was found.
    pub detail: String,
}

/// What an explanation is made from.
#[derive(Debug)]
pub struct Explained<'a> {
    /// What the bridge knows.
    pub inventory: &'a Inventory,
    /// The decision.
    pub decision: &'a Decision,
    /// The settings that take part in it.
    pub policy: Policy,
    /// The bridge's own changes to the kernel's command line.
    pub of_bridge: &'a ArgumentEdits,
    /// Seconds since 1970.
    pub now: i64,
}

impl<'a> Explained<'a> {
    fn by(context: &'a Context, inventory: &'a Inventory, decision: &'a Decision) -> Self {
        Self {
            inventory,
            decision,
            policy: context.settings.policy,
            of_bridge: &context.settings.kernel_arguments,
            now: Timestamp::now().as_second(),
        }
    }

    fn of_override(&self) -> Option<String> {
        let by = self
            .decision
            .by_override
            .as_ref()
            .filter(|_| !self.decision.arguments.is_empty());
        by.map(|by| format!("IpxeHostOverride {}", by.name))
    }

    /// The environment's own line comes first, then the bridge's changes, then the override's.
    fn changes(&self) -> Vec<ArgumentsView> {
        let Boot::Environment(environment, _) = &self.decision.boot else {
            return Vec::new();
        };
        let view = |origin: String, change: String| ArgumentsView { origin, change };
        let own = view(format!("InfraEnv {}", environment.name), "the line in its script".to_owned());
        let of_bridge = (!self.of_bridge.is_empty()).then(|| view("--kernel-arguments".to_owned(), self.of_bridge.to_string()));
        let of_override = self.of_override().map(|by| view(by, self.decision.arguments.to_string()));
        [Some(own), of_bridge, of_override].into_iter().flatten().collect()
    }

    fn command_line(&self, script: Option<&str>) -> Vec<ArgumentView> {
        let (Boot::Environment(environment, _), Some(script)) = (&self.decision.boot, script) else {
            return Vec::new();
        };
        let line = script.lines().find(|line| line.starts_with("kernel ")).unwrap_or_default();
        let (line, _) = line.split_once(" || ").unwrap_or((line, ""));
        // `kernel`, its options, its address.
        let arguments = kernel_arguments::arguments(line)
            .skip_while(|word| !word.contains("/boot-artifacts/"))
            .skip(1);
        let origin = |argument: &str| match self.of_override() {
            Some(by) if self.decision.arguments.gives(argument) => by,
            _ if self.of_bridge.gives(argument) => "--kernel-arguments".to_owned(),
            _ => format!("InfraEnv {}", environment.name),
        };
        arguments
            .map(|argument| ArgumentView {
                argument: argument.to_owned(),
                origin: origin(argument),
            })
            .collect()
    }

    fn objects(&self) -> Vec<ObjectView> {
        let mac = self.decision.mac;
        let view = |kind: &str, name: &crate::boot::name::ObjectName, uid: &str, detail: String| ObjectView {
            kind: kind.to_owned(),
            namespace: name.namespace().to_owned(),
            name: name.name().to_owned(),
            uid: (!uid.is_empty()).then(|| uid.to_owned()),
            detail,
            state: None,
            stage: None,
        };
        let fates = self.inventory.fates(mac, self.now).into_iter();
        let overrides = fates.map(|(of, fate)| view("IpxeHostOverride", &of.name, &of.uid, fate.to_string()));
        let hosts = self.inventory.hosts(mac);
        let of_hosts = hosts.iter().map(|host| {
            let detail = match &host.environment {
                Some(environment) => format!("wants InfraEnv {environment}"),
                None => "has no InfraEnv label".to_owned(),
            };
            view("BareMetalHost", &host.name, &host.uid, detail)
        });
        let mut named: Vec<_> = hosts.iter().filter_map(|host| host.environment.as_ref()).collect();
        if let Boot::Environment(environment, _) = &self.decision.boot {
            named.push(&environment.name);
        }
        named.sort();
        named.dedup();
        let environments = named.into_iter().filter_map(|name| self.inventory.environment(name));
        let environments = environments.map(|environment| {
            let detail = match &self.decision.boot {
                Boot::Environment(boots, _) if boots.name == environment.name => "boots",
                _ => "does not boot",
            };
            view("InfraEnv", &environment.name, &environment.uid, detail.to_owned())
        });
        let agents = self.inventory.agents(mac).unwrap_or_default().iter().map(|agent| {
            let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            ObjectView {
                state: filled(&agent.progress.state),
                stage: filled(&agent.progress.stage),
                ..view("Agent", &agent.name, &agent.uid, agent.progress.to_string())
            }
        });
        overrides.chain(of_hosts).chain(environments).chain(agents).collect()
    }

    /// With the script that it leads to, what upstream said, and why there is no script.
    pub fn view(&self, script: Option<String>, upstream: Option<String>, problem: Option<String>) -> Explanation {
        let decision = self.decision;
        let environment = match &decision.boot {
            Boot::Environment(environment, _) => Some(environment.name.to_string()),
            _ => None,
        };
        let step = |step: &crate::boot::decision::Step| StepView {
            rule: step.rule.to_string(),
            applied: step.applied,
            detail: step.detail.clone(),
        };
        Explanation {
            mac: decision.mac.to_string(),
            boot: decision.boot.name().to_owned(),
            environment,
            steps: decision.steps.iter().map(step).collect(),
            objects: self.objects(),
            policy: PolicyView {
                boot: self.policy.boot.to_string(),
                unknown_hosts: self.policy.unknown.to_string(),
            },
            kernel_arguments: self.changes(),
            command_line: self.command_line(script.as_deref().filter(|_| upstream.is_none())),
            upstream,
            script,
            problem,
        }
    }
}

impl Explanation {
    /// Of a decision, with the script it leads to now, for which upstream may have to be asked.
    pub async fn ask(context: &Context, inventory: &Inventory, decision: &Decision, bridge: &PublicUrl) -> Self {
        let explained = Explained::by(context, inventory, decision);
        match context.answer(inventory, decision, bridge, None).await {
            Ok(answer) => explained.view(Some(answer.script), answer.upstream, None),
            Err(trouble) => explained.view(None, None, Some(trouble.problem().detail)),
        }
    }

    /// Of a decision whose script is not known, for this reason.
    pub fn without_script(context: &Context, inventory: &Inventory, decision: &Decision, problem: String) -> Self {
        Explained::by(context, inventory, decision).view(None, None, Some(problem))
    }
}

/// For a person.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.environment {
            Some(environment) if self.upstream.is_none() => writeln!(f, "{} boots {} {environment}", self.mac, self.boot)?,
            _ => writeln!(f, "{} boots {}", self.mac, self.boot)?,
        }
        writeln!(f, "\nRules, in order:")?;
        for step in &self.steps {
            writeln!(f, "  {} {}: {}", if step.applied { "+" } else { "-" }, step.rule, step.detail)?;
        }
        if let Some(upstream) = &self.upstream {
            writeln!(f, "  + upstream: {upstream}")?;
        }
        writeln!(
            f,
            "\nPolicies: {}; unknown hosts: {}",
            self.policy.boot, self.policy.unknown_hosts
        )?;
        if !self.objects.is_empty() {
            writeln!(f, "\nObjects:")?;
        }
        for object in &self.objects {
            write!(f, "  {} {}/{}", object.kind, object.namespace, object.name)?;
            if let Some(uid) = &object.uid {
                write!(f, " ({uid})")?;
            }
            writeln!(f, ": {}", object.detail)?;
        }
        if !self.kernel_arguments.is_empty() {
            writeln!(f, "\nKernel's command line:")?;
        }
        for change in &self.kernel_arguments {
            writeln!(f, "  {}: {}", change.origin, change.change)?;
        }
        let widest = self
            .command_line
            .iter()
            .map(|argument| argument.argument.len())
            .filter(|width| *width < 60)
            .max();
        for argument in &self.command_line {
            writeln!(
                f,
                "    {:width$}  {}",
                argument.argument,
                argument.origin,
                width = widest.unwrap_or_default()
            )?;
        }
        match (&self.script, &self.problem) {
            (Some(script), _) => write!(f, "\nScript:\n{}", indented(script)),
            (None, problem) => writeln!(f, "\nNo script: {}", problem.as_deref().unwrap_or("none is known")),
        }
    }
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        // Writing to a String cannot fail.
        let _ = writeln!(all, "  {line}");
        all
    })
}

impl Example for Explanation {
    fn example() -> Self {
        let step = |rule: &str, applied, detail: &str| StepView {
            rule: rule.to_owned(),
            applied,
            detail: detail.to_owned(),
        };
        let object = |kind: &str, name: &str, uid: &str, detail: &str| ObjectView {
            kind: kind.to_owned(),
            namespace: "lab".to_owned(),
            name: name.to_owned(),
            uid: Some(uid.to_owned()),
            detail: detail.to_owned(),
            state: None,
            stage: None,
        };
        Self {
            mac: "52:54:00:cc:00:01".to_owned(),
            boot: "LocalDisk".to_owned(),
            environment: None,
            steps: vec![
                step("Override", false, "no override names this MAC address"),
                step(
                    "BareMetalHost",
                    true,
                    "BareMetalHost lab/server-1 wants InfraEnv lab/discovery",
                ),
                step(
                    "BootPolicy",
                    true,
                    "UntilInstalled: Agent lab/1d0c52b4 is in state installed, so its disk boots",
                ),
            ],
            objects: vec![
                object(
                    "BareMetalHost",
                    "server-1",
                    "7e1b4a52-93c6-4c0e-8a6d-0f2b9d5c1e33",
                    "wants InfraEnv lab/discovery",
                ),
                ObjectView {
                    state: Some("installed".to_owned()),
                    stage: Some("Done".to_owned()),
                    ..object(
                        "Agent",
                        "1d0c52b4",
                        "c6a0f2de-5b0b-4b57-8f0f-6f1f3a7d9b10",
                        "state installed, stage Done",
                    )
                },
            ],
            policy: PolicyView {
                boot: "UntilInstalled".to_owned(),
                unknown_hosts: "Shell".to_owned(),
            },
            kernel_arguments: vec![],
            command_line: vec![],
            upstream: None,
            script: Some("#!ipxe\nexit 1\n".to_owned()),
            problem: None,
        }
    }
}
