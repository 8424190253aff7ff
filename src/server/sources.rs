//! Where the inventory comes from: watches, manifests, host files. Each source keeps its last good items, and a rebuild joins all.
//!
//! Invariant: what a source once listed in full is replaced, never cleared and refilled; a source that fails keeps its items.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::boot::agent::Agent;
use crate::boot::content::Content;
use crate::boot::environment::{Environment, Host};
use crate::boot::host_file::HostFile;
use crate::boot::host_override::HostOverride;
use crate::boot::inventory::{Inventory, Observed, Skipped};
use crate::boot::mac::MacAddr;
use crate::boot::name::ObjectName;
use crate::boot::precedence::EqualOverrides;
use crate::crd::foreign::{self, Kind as _};

use super::snapshot::{Published, Snapshot, SourceState};

/// A burst of changes is given this long to end before the inventory is rebuilt.
const COALESCE: Duration = Duration::from_millis(20);

/// One value of a source.
#[derive(Debug, Clone)]
pub enum Item {
    /// An InfraEnv.
    Environment(Arc<Environment>),
    /// A BareMetalHost.
    Host(Arc<Host>),
    /// An Agent.
    Agent(Arc<Agent>),
    /// An override.
    Override(Arc<HostOverride>),
    /// A host file.
    File(Arc<HostFile>),
    /// A namespace that is read, where not all are.
    Namespace(String),
    /// What a ConfigMap or Secret holds.
    Content(Arc<Content>),
    /// Boots of an override that were counted elsewhere than in its status.
    Counted(ObjectName, BTreeMap<MacAddr, u32>),
    /// Something that could not be used.
    Skipped(Skipped),
}

impl Item {
    /// The namespace it belongs to, if to any.
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Environment(environment) => Some(environment.name.namespace()),
            Self::Host(host) => Some(host.name.namespace()),
            Self::Agent(agent) => Some(agent.name.namespace()),
            Self::Override(host_override) => Some(host_override.name.namespace()),
            Self::Counted(name, _) => Some(name.namespace()),
            Self::Skipped(skipped) => skipped.object.split_once('/').map(|(namespace, _)| namespace),
            // They are of no use without an override.
            Self::Content(_) | Self::File(_) | Self::Namespace(_) => None,
        }
    }
}

/// An object of the cluster: what it is worth, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Converted {
    /// Its value, if it has any.
    pub item: Option<Item>,
    /// What is wrong with it.
    pub skipped: Option<Skipped>,
}

/// What every inventory is joined with.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Namespaces whose overrides may reach machines of other namespaces.
    pub trusted_namespaces: Vec<String>,
    /// What counts of overrides with the same priority.
    pub equal_overrides: EqualOverrides,
    /// Whether only objects of the namespaces among the items count.
    pub selects_namespaces: bool,
    /// The environment for machines that nothing else names, in place of those that say so of themselves.
    pub default_environment: Option<ObjectName>,
}

/// All sources of one server.
#[derive(Debug, Default)]
pub struct Sources {
    terms: Terms,
    sources: Mutex<BTreeMap<String, Source>>,
    changed: Notify,
}

/// One source: a watch of one kind, a folder.
#[derive(Debug, Default)]
struct Source {
    items: HashMap<String, Item>,
    /// It listed everything at least once, or there is nothing to list.
    listed: bool,
    /// There is no such API.
    absent: bool,
    /// Since when it may lag behind, and why.
    behind: Option<(Instant, String)>,
}

impl Sources {
    /// No source yet.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Source>> {
        // Every change is a single assignment: a panic in between cannot leave half of one.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Source)) {
        change(self.lock().entry(name.to_owned()).or_default());
        self.changed.notify_one();
    }

    /// Announces a source: until it has listed everything the server is not ready.
    pub fn announce(&self, name: &str) {
        self.change(name, |_| ());
    }

    /// Everything a source has; it is up to date. What can no longer be used keeps its last good value here too.
    pub fn replace(&self, name: &str, mut items: HashMap<String, Item>) {
        self.change(name, |source| {
            let worse: Vec<String> = items
                .iter()
                .filter(|(_, item)| matches!(item, Item::Skipped(_)))
                .map(|(key, _)| key.clone())
                .collect();
            for key in worse {
                let good = source.items.get(&key).filter(|item| !matches!(item, Item::Skipped(_)));
                if let Some(good) = good.cloned()
                    && let Some(note) = items.insert(key.clone(), good)
                {
                    items.insert(self::note(&key), note);
                }
            }
            *source = Source {
                items,
                listed: true,
                ..Source::default()
            };
        });
    }

    /// One value changed or went. One that can no longer be used keeps its last good value, beside the note of what is wrong: a typing
    /// error must not make a machine unknown.
    pub fn set(&self, name: &str, key: String, converted: Converted) {
        self.change(name, |source| {
            let note = note(&key);
            match converted {
                Converted {
                    item: None,
                    skipped: None,
                } => {
                    source.items.remove(&key);
                    source.items.remove(&note);
                }
                Converted { item, skipped } => {
                    if let Some(item) = item {
                        source.items.insert(key, item);
                    }
                    match skipped {
                        Some(skipped) => _ = source.items.insert(note, Item::Skipped(skipped)),
                        None => _ = source.items.remove(&note),
                    }
                }
            }
        });
    }

    /// A source may lag behind from now on; what it has is kept.
    pub fn behind(&self, name: &str, why: String) {
        self.change(name, |source| {
            let since = source.behind.as_ref().map_or_else(Instant::now, |(since, _)| *since);
            source.behind = Some((since, why));
        });
    }

    /// There is no such API: the source is complete and empty. One that had objects keeps them: who removes an API removes its objects
    /// first, one by one, and an API server that is starting may not know it yet.
    pub fn absent(&self, name: &str) {
        self.change(name, |source| {
            if !source.items.is_empty() {
                let since = source.behind.as_ref().map_or_else(Instant::now, |(since, _)| *since);
                source.behind = Some((since, "the API server does not know this kind any more".to_owned()));
                return;
            }
            *source = Source {
                listed: true,
                absent: true,
                ..Source::default()
            };
        });
    }

    /// Everything that the sources have, and how they are doing.
    pub fn observe(&self) -> (Observed, Vec<SourceState>) {
        let sources = self.lock();
        let items = || sources.values().flat_map(|source| source.items.values());
        let mut observed = match self.terms.selects_namespaces {
            true => {
                let selected = items().filter_map(|item| match item {
                    Item::Namespace(name) => Some(name.as_str()),
                    _ => None,
                });
                let selected: HashSet<&str> = selected.collect();
                observed(items().filter(|item| item.namespace().is_none_or(|namespace| selected.contains(namespace))))
            }
            false => observed(items()),
        };
        if let Some(default) = &self.terms.default_environment {
            for environment in &mut observed.environments {
                let is_default = environment.name == *default;
                if environment.is_default != is_default {
                    Arc::make_mut(environment).is_default = is_default;
                }
            }
        }
        observed.trusted_namespaces.clone_from(&self.terms.trusted_namespaces);
        observed.equal_overrides = self.terms.equal_overrides;
        let is_agent_api =
            |(name, source): (&String, &Source)| name.starts_with(foreign::Agent::KIND) && source.listed && !source.absent;
        if sources.iter().any(is_agent_api) {
            observed.agents.get_or_insert_default();
        }
        let state = |(name, source): (&String, &Source)| SourceState {
            name: name.clone(),
            listed: source.listed,
            absent: source.absent,
            behind: source.behind.clone(),
        };
        (observed, sources.iter().map(state).collect())
    }

    /// Rebuilds the inventory after every burst of changes, for ever.
    pub async fn publish_to(&self, snapshot: &Snapshot) {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(COALESCE).await;
            let (observed, sources) = self.observe();
            // Ten thousand hosts take some milliseconds: too long for a thread that serves connections.
            let joined = tokio::task::spawn_blocking(move || Inventory::join(observed)).await;
            match joined {
                Ok(inventory) => snapshot.publish(Published::new(inventory, sources)),
                Err(error) => tracing::error!(%error, "the inventory could not be rebuilt, the last one stays"),
            }
        }
    }
}

/// The key of the note beside a value.
pub(super) fn note(key: &str) -> String {
    format!("{key} (skipped)")
}

/// Items sorted by kind. Agents that are named in files are as good as the API; without any, nothing is known about the progress of
/// machines.
pub fn observed<'a>(items: impl Iterator<Item = &'a Item>) -> Observed {
    let mut observed = Observed::default();
    for item in items {
        match item {
            Item::Environment(environment) => observed.environments.push(environment.clone()),
            Item::Host(host) => observed.hosts.push(host.clone()),
            Item::Agent(agent) => observed.agents.get_or_insert_default().push(agent.clone()),
            Item::Override(host_override) => observed.overrides.push(host_override.clone()),
            Item::Content(content) => observed.contents.push(content.clone()),
            Item::Counted(name, served) => _ = observed.counted.insert(name.clone(), served.clone()),
            Item::Namespace(_) => {}
            Item::File(file) => observed.host_files.push(file.clone()),
            Item::Skipped(skipped) => observed.skipped.push(skipped.clone()),
        }
    }
    observed
}
