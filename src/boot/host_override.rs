//! Overrides: what a person declared for single machines, before everything else.

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
    /// Creation time in seconds since 1970; older objects win conflicts where a winner is wanted.
    pub created: i64,
    /// Higher wins.
    pub priority: i32,
    /// The machines it is for.
    pub machines: Machines,
    /// What they boot; `None` leaves that to the other rules.
    pub action: Option<Action>,
    /// Changes to the kernel's command line of the environment that boots.
    pub arguments: ArgumentEdits,
    /// From this second since 1970 on it counts no more.
    pub expires: Option<i64>,
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
    /// A script, unchanged.
    Script(String),
    /// Another server's script or program.
    Chain(String),
    /// An environment of the override's namespace.
    Environment(ObjectName),
    /// The machine's disk, by this method or the bridge's.
    LocalDisk(Option<LocalDisk>),
}

impl HostOverride {
    /// Whether its time is over.
    pub fn is_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}
