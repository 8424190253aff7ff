//! How far a machine's installation is, by its Agents.

use crate::boot::inventory::Inventory;
use crate::boot::mac::MacAddr;

/// What the Agents say about a machine; each with the sentence for the reason.
pub enum Progressed {
    /// There is no Agent API.
    NoAgentApi,
    /// No Agent names it, and not every Agent could be read.
    Unsure(String),
    /// Its disk is to boot.
    FromDisk(String),
    /// Its environment is to boot.
    Discovery(String),
    /// Its Agents disagree.
    Disputed(String),
}

impl Inventory {
    /// How far the machine's installation is, by the Agents of its host's namespace; for a machine without a host, of any namespace.
    pub fn progress(&self, mac: MacAddr, namespace: Option<&str>) -> Progressed {
        let Some(agents) = self.agents(mac) else {
            return Progressed::NoAgentApi;
        };
        let agents: Vec<_> = agents
            .iter()
            .filter(|agent| namespace.is_none_or(|namespace| agent.name.namespace() == namespace))
            .collect();
        let Some(newest) = agents.first() else {
            return match self.unreadable_agents(namespace) {
                true => Progressed::Unsure("no Agent has this MAC address, but not every Agent could be read".to_owned()),
                false => Progressed::Discovery("no Agent has this MAC address".to_owned()),
            };
        };
        let why = format!("Agent {} is in {}", newest.name, newest.progress);
        let from_disk = newest.progress.boots_from_disk();
        if agents.iter().any(|agent| agent.progress.boots_from_disk() != from_disk) {
            let all: Vec<String> = agents
                .iter()
                .map(|agent| format!("{} ({})", agent.name, agent.progress))
                .collect();
            return Progressed::Disputed(format!(
                "Agents {} have this MAC address and disagree whether its disk is to boot",
                all.join(" and ")
            ));
        }
        match from_disk {
            true => Progressed::FromDisk(why),
            false => Progressed::Discovery(why),
        }
    }
}
