//! The inventory and the decision as the API shows them.

use std::collections::BTreeMap;

use poem_openapi::Object;
use poem_openapi::types::Example;

use crate::boot::artifact::ArtifactKind;
use crate::boot::environment::Environment;
use crate::boot::inventory::{Inventory, Reach};
use crate::server::snapshot::{Published, SourceState};

use super::super::example;

/// Everything the bridge knows.
#[derive(Debug, Object)]
#[oai(example)]
pub struct InventoryView {
    /// Seconds for which changes may have been missed; 0 while every source is current.
    age_seconds: u64,
    /// Where it comes from.
    sources: Vec<SourceView>,
    /// The environments and their hosts.
    environments: Vec<EnvironmentView>,
    /// Hosts that name no environment, or one that does not exist.
    other_hosts: Vec<HostView>,
    /// The overrides and the machines they reach.
    overrides: Vec<OverrideView>,
    /// MAC addresses that have a host file.
    host_files: Vec<HostFileView>,
    /// Objects that claim the same thing.
    conflicts: Vec<ConflictView>,
    /// Objects and files that could not be used.
    skipped: Vec<SkippedView>,
}

/// A source of the inventory.
#[derive(Debug, Object)]
struct SourceView {
    /// What it is, for example `BareMetalHost`.
    name: String,
    /// `current`, `waiting` (never listed), `behind` (may miss changes) or `absent` (no such API here).
    state: String,
    /// Seconds since it fell behind.
    age_seconds: Option<u64>,
    /// Why it fell behind.
    cause: Option<String>,
}

/// An InfraEnv.
#[derive(Debug, Object)]
struct EnvironmentView {
    /// Namespace of the InfraEnv.
    namespace: String,
    /// Name of the InfraEnv.
    name: String,
    /// Whether it serves machines that nothing else names.
    default: bool,
    /// Whether upstream is asked for every single machine.
    boot_order_control: bool,
    /// Kinds of artifact that upstream has made.
    artifacts: Vec<String>,
    /// What a person should know before trusting it.
    warnings: Vec<String>,
    /// The hosts that name it.
    hosts: Vec<HostView>,
}

/// A BareMetalHost.
#[derive(Debug, Object)]
struct HostView {
    /// Namespace of the BareMetalHost.
    namespace: String,
    /// Name of the BareMetalHost.
    name: String,
    /// Its boot MAC address.
    mac: String,
    /// The environment that its label names.
    environment: Option<String>,
}

/// An IpxeHostOverride.
#[derive(Debug, Object)]
struct OverrideView {
    /// Namespace of the override.
    namespace: String,
    /// Name of the override.
    name: String,
    /// Higher wins.
    priority: i32,
    /// The machines it reaches.
    macs: Vec<String>,
    /// Whether at least one machine boots it.
    ready: bool,
    /// Why, for programs: `Serving`, `Expired`, `Exhausted` and others.
    reason: String,
    /// Why, for people.
    message: String,
    /// How often each machine boots it.
    boot_limit: Option<u32>,
    /// Likely mistakes in its script, which is served all the same.
    warnings: Vec<String>,
}

impl OverrideView {
    fn of(inventory: &Inventory, reach: &Reach) -> Self {
        let host_override = &reach.host_override;
        let ready = inventory.standing(reach, jiff::Timestamp::now().as_second()).ready;
        Self {
            namespace: host_override.name.namespace().to_owned(),
            name: host_override.name.name().to_owned(),
            priority: host_override.priority,
            macs: reach.machines.iter().map(ToString::to_string).collect(),
            ready: ready.holds,
            reason: ready.reason.to_string(),
            message: ready.message,
            boot_limit: host_override.boot_limit,
            warnings: inventory.script_mistakes(reach),
        }
    }
}

/// A file of the host-files directory.
#[derive(Debug, Object)]
struct HostFileView {
    /// The machine.
    mac: String,
    /// The file's name.
    file: String,
}

/// Objects that claim the same thing.
#[derive(Debug, Object)]
struct ConflictView {
    /// What they claim.
    subject: String,
    /// Who claims it, the one that counts first.
    objects: Vec<String>,
    /// What happens because of it.
    outcome: String,
}

/// Something that could not be used.
#[derive(Debug, Object)]
struct SkippedView {
    /// Kind of the object, or `file`.
    kind: String,
    /// `namespace/name`, or file and line.
    object: String,
    /// What is wrong and what would be right.
    cause: String,
}

impl InventoryView {
    /// What is published, sorted for reading.
    pub fn of(published: &Published) -> Self {
        let inventory = &published.inventory;
        let mut hosts = HostsByEnvironment::new(inventory);
        Self {
            age_seconds: published.stale_for().map_or(0, |age| age.as_secs()),
            sources: published.sources().iter().map(SourceView::from).collect(),
            environments: inventory.environments().map(|e| environment(e, hosts.take(e))).collect(),
            other_hosts: hosts.rest(),
            overrides: inventory
                .all_overrides()
                .values()
                .map(|reach| OverrideView::of(inventory, reach))
                .collect(),
            host_files: inventory
                .all_host_files()
                .iter()
                .map(|file| HostFileView {
                    mac: file.mac.to_string(),
                    file: file.file.clone(),
                })
                .collect(),
            conflicts: inventory
                .conflicts()
                .iter()
                .map(|conflict| ConflictView {
                    subject: conflict.subject.clone(),
                    objects: conflict.objects.clone(),
                    outcome: conflict.outcome.clone(),
                })
                .collect(),
            skipped: inventory
                .skipped()
                .iter()
                .map(|skipped| SkippedView {
                    kind: skipped.kind.clone(),
                    object: skipped.object.clone(),
                    cause: skipped.cause.clone(),
                })
                .collect(),
        }
    }
}

impl Example for InventoryView {
    fn example() -> Self {
        let host = HostView {
            namespace: example::namespace(),
            name: "server-1".to_owned(),
            mac: "52:54:00:cc:00:01".to_owned(),
            environment: Some("lab/discovery".to_owned()),
        };
        Self {
            age_seconds: 0,
            sources: vec![SourceView {
                name: "BareMetalHost".to_owned(),
                state: "current".to_owned(),
                age_seconds: None,
                cause: None,
            }],
            environments: vec![EnvironmentView {
                namespace: example::namespace(),
                name: example::environment(),
                default: true,
                boot_order_control: false,
                artifacts: ArtifactKind::ALL.map(|kind| kind.as_str().to_owned()).into(),
                warnings: vec![],
                hosts: vec![host],
            }],
            other_hosts: vec![],
            overrides: vec![],
            host_files: vec![],
            conflicts: vec![],
            skipped: vec![SkippedView {
                kind: "BareMetalHost".to_owned(),
                object: "lab/server-2".to_owned(),
                cause: "spec.bootMACAddress: \"zz\" is not a MAC address".to_owned(),
            }],
        }
    }
}

impl From<&SourceState> for SourceView {
    fn from(source: &SourceState) -> Self {
        let state = match (source.absent, source.listed, &source.behind) {
            (true, _, _) => "absent",
            (_, false, _) => "waiting",
            (_, true, Some(_)) => "behind",
            (_, true, None) => "current",
        };
        Self {
            name: source.name.clone(),
            state: state.to_owned(),
            age_seconds: source.behind.as_ref().map(|(since, _)| since.elapsed().as_secs()),
            cause: source.behind.as_ref().map(|(_, why)| why.clone()),
        }
    }
}

fn environment(environment: &Environment, hosts: Vec<HostView>) -> EnvironmentView {
    let made = ArtifactKind::ALL
        .iter()
        .filter(|kind| environment.artifacts.get(**kind).is_some());
    EnvironmentView {
        namespace: environment.name.namespace().to_owned(),
        name: environment.name.name().to_owned(),
        default: environment.is_default,
        boot_order_control: environment.boot_order_control,
        artifacts: made.map(|kind| kind.as_str().to_owned()).collect(),
        warnings: environment.warnings.clone(),
        hosts,
    }
}

/// Hosts sorted into the environments that they name.
struct HostsByEnvironment(BTreeMap<Option<String>, Vec<HostView>>);

impl HostsByEnvironment {
    fn new(inventory: &Inventory) -> Self {
        let mut sorted: BTreeMap<_, Vec<HostView>> = BTreeMap::new();
        for host in inventory.all_hosts() {
            let environment = host.environment.as_ref().map(ToString::to_string);
            sorted.entry(environment.clone()).or_default().push(HostView {
                namespace: host.name.namespace().to_owned(),
                name: host.name.name().to_owned(),
                mac: host.mac.to_string(),
                environment,
            });
        }
        Self(sorted)
    }

    fn take(&mut self, environment: &Environment) -> Vec<HostView> {
        self.0.remove(&Some(environment.name.to_string())).unwrap_or_default()
    }

    fn rest(self) -> Vec<HostView> {
        self.0.into_values().flatten().collect()
    }
}
