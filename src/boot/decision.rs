//! The decision: what a MAC address boots, in documented order, with the reason.

use std::sync::Arc;

use strum::Display;

mod progress;
mod rules;

use super::environment::Environment;
use super::host_file::HostFile;
use super::kernel_arguments::ArgumentEdits;
use super::local_disk::LocalDisk;
use super::mac::MacAddr;
use super::name::ObjectName;
use super::template::Template;

/// What a MAC address boots, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The machine.
    pub mac: MacAddr,
    /// What it boots.
    pub boot: Boot,
    /// Changes to the kernel's command line that an override makes.
    pub arguments: ArgumentEdits,
    /// The override that took part in it, if any did.
    pub by_override: Option<ByOverride>,
    /// Every rule that was looked at, in order; the last one decided.
    pub steps: Vec<Step>,
}

/// An override that a machine boots by, or whose arguments its kernel gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByOverride {
    /// Namespace and name.
    pub name: ObjectName,
    /// The generation of its spec.
    pub generation: i64,
    /// How often each machine boots it; what is sent must be counted first.
    pub limit: Option<u32>,
}

/// What a machine boots.
#[derive(Debug, Clone, PartialEq)]
pub enum Boot {
    /// An environment; its script has to be asked from upstream.
    Environment(Arc<Environment>, Ask),
    /// The script of a file, unchanged.
    File(Arc<HostFile>),
    /// A script of an override, unchanged.
    Script(Arc<str>),
    /// A script of an override, whose variables have yet to be replaced.
    Template(Arc<Filled>),
    /// Another server's script or program.
    Chain(Arc<str>),
    /// The machine's own disk, by this method or the bridge's.
    LocalDisk(Option<LocalDisk>),
    /// iPXE's shell.
    Shell,
    /// Nothing: status 404, iPXE goes on to what comes next.
    Nothing,
    /// Not known yet: status 503 with `Retry-After`, iPXE asks again. The text says what is awaited.
    NotYet(String),
    /// A contradiction that a person must solve. The text names what contradicts.
    Stop(String),
}

impl Boot {
    /// The word for it in the API, in logs and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Environment(..) => "Environment",
            Self::File(_) => "File",
            Self::Script(_) | Self::Template(_) => "Script",
            Self::Chain(_) => "Chain",
            Self::LocalDisk(_) => "LocalDisk",
            Self::Shell => "Shell",
            Self::Nothing => "Nothing",
            Self::NotYet(_) => "NotYet",
            Self::Stop(_) => "Stop",
        }
    }
}

/// A script with variables, and what is known of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// The script.
    pub template: Template,
    /// The machine's BareMetalHost.
    pub host: Option<ObjectName>,
    /// The environment it would boot.
    pub environment: Option<ObjectName>,
}

/// How upstream is asked for a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// For the environment: one answer serves all its hosts.
    ForEnvironment,
    /// With the MAC address: upstream says 404 when the disk is to boot.
    ForHost,
}

/// The rules, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
pub enum Rule {
    /// An `IpxeHostOverride` names the machine.
    Override,
    /// A BareMetalHost has this boot MAC address and an InfraEnv label.
    BareMetalHost,
    /// A file of the host-files directory has this name.
    HostFile,
    /// An environment is labelled as default.
    DefaultEnvironment,
    /// Nothing names the machine.
    UnknownHost,
    /// The machine's environment is known; does its disk boot instead?
    BootPolicy,
}

/// One rule and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The rule.
    pub rule: Rule,
    /// Whether it applied.
    pub applied: bool,
    /// What was found, for a person.
    pub detail: String,
}

impl Decision {
    /// The step that decided. Where an environment boots it is the one that named it: the boot policy only let it pass.
    fn decisive(&self) -> Option<&Step> {
        match self.boot {
            Boot::Environment(..) | Boot::NotYet(_) => self.named(),
            _ => self.steps.last(),
        }
    }

    /// The last step that named an environment, a file or a policy for unknown hosts.
    fn named(&self) -> Option<&Step> {
        self.steps
            .iter()
            .rev()
            .find(|step| step.rule != Rule::BootPolicy && step.applied)
    }

    /// What decided, for a person.
    pub fn reason(&self) -> &str {
        self.decisive().map_or("", |step| &step.detail)
    }

    /// The rule that decided.
    pub fn rule(&self) -> Rule {
        self.decisive().map_or(Rule::UnknownHost, |step| step.rule)
    }

    /// What named the environment, whether or not the boot policy sent the machine to its disk.
    pub fn origin(&self) -> &str {
        self.named().map_or("", |step| &step.detail)
    }

    /// Whether something names this very machine, rather than the default or the policy for unknown hosts.
    pub fn is_known(&self) -> bool {
        self.steps
            .iter()
            .any(|step| step.applied && matches!(step.rule, Rule::Override | Rule::BareMetalHost | Rule::HostFile))
    }
}
