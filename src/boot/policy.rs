//! Settings of a bridge that take part in every decision.

use strum::{Display, EnumString, VariantNames};

/// Settings of a bridge that take part in every decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// When a known machine is handed its own disk.
    pub boot: BootPolicy,
    /// What a machine gets that nothing names.
    pub unknown: UnknownHosts,
}

/// When a machine boots its own disk instead of its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Display, EnumString, VariantNames)]
#[strum(ascii_case_insensitive)]
pub enum BootPolicy {
    /// From the reboot stage of its installation on: read from its Agent, or asked from upstream where there is no Agent API.
    #[default]
    UntilInstalled,
    /// Never: the environment always boots.
    Always,
    /// When upstream, asked with the MAC address, answers so.
    Upstream,
}

/// What a machine gets that no override, host, file or default environment names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Display, EnumString, VariantNames)]
#[strum(ascii_case_insensitive)]
pub enum UnknownHosts {
    /// A script that opens iPXE's shell.
    #[default]
    Shell,
    /// Its own disk.
    LocalDisk,
    /// Status 404.
    NotFound,
    /// Status 503 with `Retry-After`: iPXE asks again until the machine is known.
    Wait,
}
