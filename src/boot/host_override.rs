//! Overrides: what a person declared for single machines, before everything else.

use std::collections::BTreeMap;

use super::content::ContentKey;
use super::kernel_arguments::ArgumentEdits;
use super::local_disk::LocalDisk;
use super::mac::MacAddr;
use super::name::ObjectName;
use super::selector::Selector;

/// An `IpxeHostOverride` as the bridge sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct HostOverride {
    /// Namespace and name.
    pub name: ObjectName,
    /// The UID that the cluster gave it; empty outside of one.
    pub uid: String,
    /// The generation of its spec; 0 where nothing counts them.
    pub generation: i64,
    /// Creation time in seconds since 1970; older objects win conflicts where a winner is wanted.
    pub created: i64,
    /// Higher wins.
    pub priority: i32,
    /// The machines it is for.
    pub machines: Machines,
    /// What they boot; `None` leaves that to the other rules.
    pub action: Option<Action>,
    /// Whether variables in its script are replaced.
    pub templating: bool,
    /// Changes to the kernel's command line of the environment that boots.
    pub arguments: ArgumentEdits,
    /// From this second since 1970 on it counts no more.
    pub expires: Option<i64>,
    /// How often each machine boots it.
    pub boot_limit: Option<u32>,
    /// How often each machine was served it, as far as is known.
    pub served: BTreeMap<MacAddr, u32>,
}

/// The machines an override is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Machines {
    /// Named one by one.
    Macs(Vec<MacAddr>),
    /// The BareMetalHosts of the override's namespace with such labels.
    Hosts(Selector),
}

/// What an override makes a machine boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A script.
    Script(String),
    /// A script that a ConfigMap or Secret of the override's namespace holds.
    ScriptFrom(ContentKey),
    /// Another server's script or program.
    Chain(String),
    /// An environment of the override's namespace.
    Environment(ObjectName),
    /// The machine's disk, by this method or the bridge's.
    LocalDisk(Option<LocalDisk>),
    /// Nothing that can be known, for this reason. Its machines wait: it may have been made to protect them.
    Unusable(String),
}

impl HostOverride {
    /// Whether its time is over.
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether a machine was served it as often as it may.
    pub fn is_used_up(&self, mac: MacAddr) -> bool {
        let served = self.served.get(&mac).copied().unwrap_or_default();
        self.boot_limit.is_some_and(|limit| served >= limit)
    }
}
