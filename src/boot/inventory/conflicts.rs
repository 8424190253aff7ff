//! Objects that claim the same thing, and who wins.

use std::sync::Arc;

use super::Inventory;
use crate::boot::environment::Host;
use crate::boot::mac::MacAddr;
use crate::boot::precedence::EqualOverrides;

/// Objects that claim the same thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// What they claim: a MAC address, or `default environment`.
    pub subject: String,
    /// All claimants, the one that counts first.
    pub objects: Vec<String>,
    /// What happens because of it.
    pub outcome: String,
}

/// Who claims a MAC address with an environment label.
pub(in crate::boot) enum Claim<'a> {
    /// Nobody.
    None,
    /// One host, or several that say the same: the oldest of them.
    One(&'a Arc<Host>),
    /// Several that name different environments.
    Disputed(Vec<&'a Arc<Host>>),
}

impl Inventory {
    /// Everything that several objects claim.
    pub(super) fn find_conflicts(&self) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for (mac, hosts) in self.hosts.iter().filter(|(_, hosts)| hosts.len() > 1) {
            let outcome = match self.claim(*mac) {
                Claim::Disputed(_) => "refused: the machine stops with a message until one object remains".to_owned(),
                Claim::One(host) => format!("{} counts, the others say the same or name no environment", host.name),
                Claim::None => "none of them names an environment".to_owned(),
            };
            conflicts.push(Conflict {
                subject: mac.to_string(),
                objects: hosts.iter().map(|host| format!("BareMetalHost {}", host.name)).collect(),
                outcome,
            });
        }
        for (mac, files) in self.host_files.iter().filter(|(_, files)| files.len() > 1) {
            let same = files.windows(2).all(|pair| pair[0].script == pair[1].script);
            conflicts.push(Conflict {
                subject: mac.to_string(),
                objects: files.iter().map(|file| format!("host file {}", file.file)).collect(),
                outcome: match same {
                    true => "they hold the same script".to_owned(),
                    false => "refused: the machine stops with a message until one file remains".to_owned(),
                },
            });
        }
        for (mac, overrides) in &self.overrides {
            for same in overrides
                .chunk_by(|a, b| a.priority == b.priority)
                .filter(|same| same.len() > 1)
            {
                let counts = match self.equal_overrides {
                    EqualOverrides::None => "none of them counts".to_owned(),
                    EqualOverrides::Oldest => format!("the oldest counts, {}", same[0].name),
                };
                conflicts.push(Conflict {
                    subject: mac.to_string(),
                    objects: same.iter().map(|o| format!("IpxeHostOverride {}", o.name)).collect(),
                    outcome: format!(
                        "all of priority {}: {counts}, as long as more than one is in force",
                        same[0].priority
                    ),
                });
            }
        }
        for (name, reach) in &self.declared {
            for (mac, owner) in &reach.foreign {
                conflicts.push(Conflict {
                    subject: mac.to_string(),
                    objects: vec![format!("BareMetalHost {owner}"), format!("IpxeHostOverride {name}")],
                    outcome: "the override does not get the machine of another namespace".to_owned(),
                });
            }
        }
        if let [first, _, ..] = self.defaults.as_slice() {
            conflicts.push(Conflict {
                subject: "default environment".to_owned(),
                objects: self.defaults.iter().map(|e| format!("InfraEnv {}", e.name)).collect(),
                outcome: format!("{} counts: the oldest, then the first by name", first.name),
            });
        }
        for (mac, agents) in self.agents.iter().flatten() {
            if agents
                .windows(2)
                .any(|pair| pair[0].name.namespace() == pair[1].name.namespace())
            {
                conflicts.push(Conflict {
                    subject: mac.to_string(),
                    objects: agents.iter().map(|agent| format!("Agent {}", agent.name)).collect(),
                    outcome: "the newest counts if all agree whether the disk is to boot, otherwise refused".to_owned(),
                });
            }
        }
        conflicts
    }

    /// Who claims a MAC address with an environment label.
    pub(in crate::boot) fn claim(&self, mac: MacAddr) -> Claim<'_> {
        let claimants: Vec<&Arc<Host>> = self.hosts(mac).iter().filter(|host| host.environment.is_some()).collect();
        match claimants.as_slice() {
            [] => Claim::None,
            [first, rest @ ..] if rest.iter().all(|host| host.environment == first.environment) => Claim::One(first),
            _ => Claim::Disputed(claimants),
        }
    }
}
