//! The inventory: environments, hosts, agents and host files joined into one immutable value that answers by MAC address.
//!
//! Conflicts and skipped objects are part of the value: nothing that was left out is left out silently.

mod conflicts;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::agent::Agent;
use super::content::{Content, ContentKey, ContentName};
use super::environment::{Environment, Host};
use super::host_file::HostFile;
use super::host_override::{Action, HostOverride, Machines};
use super::mac::MacAddr;
use super::name::ObjectName;
use super::precedence::{EqualOverrides, Fate, fates};

pub(super) use conflicts::Claim;
pub use conflicts::Conflict;

/// What was read from the cluster or the files, before it is joined.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// All InfraEnvs.
    pub environments: Vec<Arc<Environment>>,
    /// All BareMetalHosts with a usable boot MAC address.
    pub hosts: Vec<Arc<Host>>,
    /// All Agents; `None` where there is no Agent API, which is not the same as no agents.
    pub agents: Option<Vec<Arc<Agent>>>,
    /// All files of the host-files directory.
    pub host_files: Vec<Arc<HostFile>>,
    /// All overrides.
    pub overrides: Vec<Arc<HostOverride>>,
    /// ConfigMaps and Secrets that overrides take their scripts from.
    pub contents: Vec<Arc<Content>>,
    /// Boots of overrides that were counted elsewhere than in their status.
    pub counted: BTreeMap<ObjectName, BTreeMap<MacAddr, u32>>,
    /// Namespaces whose overrides may reach machines of other namespaces.
    pub trusted_namespaces: Vec<String>,
    /// What counts of overrides with the same priority.
    pub equal_overrides: EqualOverrides,
    /// Objects and files that could not be used.
    pub skipped: Vec<Skipped>,
}

/// An object or file that could not be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// `BareMetalHost`, `InfraEnv`, `Agent`, `file`, …
    pub kind: String,
    /// `namespace/name`, or file and line.
    pub object: String,
    /// What is wrong and what would be right.
    pub cause: String,
}

/// Everything the bridge knows, by MAC address; replaced as a whole, never changed.
#[derive(Debug, Default)]
pub struct Inventory {
    environments: BTreeMap<ObjectName, Arc<Environment>>,
    hosts: HashMap<MacAddr, Vec<Arc<Host>>>,
    agents: Option<HashMap<MacAddr, Vec<Arc<Agent>>>>,
    host_files: HashMap<MacAddr, Vec<Arc<HostFile>>>,
    overrides: HashMap<MacAddr, Vec<Arc<HostOverride>>>,
    /// Every override, with the machines that it reaches and those that it must not have.
    declared: BTreeMap<ObjectName, Reach>,
    equal_overrides: EqualOverrides,
    contents: HashMap<ContentName, Arc<Content>>,
    defaults: Vec<Arc<Environment>>,
    conflicts: Vec<Conflict>,
    skipped: Vec<Skipped>,
}

/// An override and its machines.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The override.
    pub host_override: Arc<HostOverride>,
    /// The machines it is for.
    pub machines: Vec<MacAddr>,
    /// Machines it names that a BareMetalHost of another namespace owns, each with that host.
    pub foreign: Vec<(MacAddr, ObjectName)>,
}

/// Why a name without a namespace finds no environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupError {
    /// None is called so.
    Unknown,
    /// Several namespaces use the name.
    Ambiguous(Vec<ObjectName>),
}

impl Inventory {
    /// Joins what was read. The result does not depend on the order of the lists.
    pub fn join(observed: Observed) -> Self {
        let mut inventory = Self {
            environments: observed
                .environments
                .into_iter()
                .map(|environment| (environment.name.clone(), environment))
                .collect(),
            hosts: by_mac(observed.hosts, |host| vec![host.mac]),
            agents: observed.agents.map(|agents| by_mac(agents, |agent| agent.macs.clone())),
            host_files: by_mac(observed.host_files, |file| vec![file.mac]),
            equal_overrides: observed.equal_overrides,
            contents: observed
                .contents
                .into_iter()
                .map(|content| (content.name.clone(), content))
                .collect(),
            skipped: observed.skipped,
            ..Self::default()
        };
        // Oldest first, then by name: the first of each list counts, whatever order the objects arrived in.
        for hosts in inventory.hosts.values_mut() {
            hosts.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        }
        for files in inventory.host_files.values_mut() {
            files.sort_by(|a, b| a.file.cmp(&b.file));
        }
        // Newest first, as the assisted controller itself picks an Agent for a host.
        for agents in inventory.agents.iter_mut().flat_map(HashMap::values_mut) {
            agents.sort_by(|a, b| (b.created, &a.name).cmp(&(a.created, &b.name)));
        }
        inventory.defaults = inventory.environments.values().filter(|e| e.is_default).cloned().collect();
        inventory
            .defaults
            .sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        // After the sorting: it names the oldest owner.
        let counted = |host_override: Arc<HostOverride>| match observed.counted.get(&host_override.name) {
            Some(served) => Arc::new(HostOverride {
                served: served.clone(),
                ..HostOverride::clone(&host_override)
            }),
            None => host_override,
        };
        let overrides = observed.overrides.into_iter().map(counted).collect();
        inventory.apply_overrides(overrides, &observed.trusted_namespaces);
        inventory.skipped.sort();
        inventory.conflicts = inventory.find_conflicts();
        inventory.conflicts.sort();
        inventory
    }

    /// Sorts the overrides by the machines they are for. One that is for a machine of another namespace does not get it: a BareMetalHost
    /// says to whom a machine belongs.
    fn apply_overrides(&mut self, overrides: Vec<Arc<HostOverride>>, trusted: &[String]) {
        for host_override in overrides {
            let namespace = host_override.name.namespace();
            let is_trusted = trusted.iter().any(|trusted| trusted == namespace);
            let mut reach = Reach {
                host_override: host_override.clone(),
                machines: Vec::new(),
                foreign: Vec::new(),
            };
            for mac in self.machines(&host_override) {
                let owner = self.hosts(mac).iter().find(|host| host.name.namespace() != namespace);
                match owner.filter(|_| !is_trusted) {
                    Some(owner) => reach.foreign.push((mac, owner.name.clone())),
                    None => reach.machines.push(mac),
                }
            }
            for mac in &reach.machines {
                self.overrides.entry(*mac).or_default().push(host_override.clone());
            }
            self.declared.insert(host_override.name.clone(), reach);
        }
        for overrides in self.overrides.values_mut() {
            overrides.sort_by(|a, b| (b.priority, a.created, &a.name).cmp(&(a.priority, b.created, &b.name)));
        }
    }

    /// The MAC addresses that an override is for, in order.
    fn machines(&self, host_override: &HostOverride) -> Vec<MacAddr> {
        let mut machines: Vec<MacAddr> = match &host_override.machines {
            Machines::Macs(macs) => macs.clone(),
            Machines::Hosts(selector) => {
                let hosts = self.hosts.values().flatten();
                let own = hosts.filter(|host| host.name.namespace() == host_override.name.namespace());
                own.filter(|host| selector.matches(&host.labels))
                    .map(|host| host.mac)
                    .collect()
            }
        };
        machines.sort();
        machines.dedup();
        machines
    }

    /// The overrides for this MAC address, highest priority first, then the oldest.
    pub fn overrides(&self, mac: MacAddr) -> &[Arc<HostOverride>] {
        self.overrides.get(&mac).map_or(&[], Vec::as_slice)
    }

    /// What becomes of each override for this MAC address at this second since 1970.
    pub fn fates(&self, mac: MacAddr, now: i64) -> Vec<(&Arc<HostOverride>, Fate)> {
        fates(self.overrides(mac), mac, now, self.equal_overrides)
    }

    /// Every override and its machines, by namespace and name.
    pub fn all_overrides(&self) -> &BTreeMap<ObjectName, Reach> {
        &self.declared
    }

    /// The ConfigMaps and Secrets that overrides take scripts from, in order.
    pub fn wanted_contents(&self) -> Vec<ContentName> {
        let wanted = self.declared.values().filter_map(|reach| match &reach.host_override.action {
            Some(Action::ScriptFrom(place)) => Some(place.content.clone()),
            _ => None,
        });
        let mut wanted: Vec<ContentName> = wanted.collect();
        wanted.sort();
        wanted.dedup();
        wanted
    }

    /// A script that a ConfigMap or Secret holds, or why it is not known.
    pub fn content(&self, place: &ContentKey) -> Result<&Arc<str>, String> {
        match self.contents.get(&place.content) {
            Some(content) => content.text(&place.key),
            None => Err(format!("{} was not found yet", place.content)),
        }
    }

    /// The hosts with this boot MAC address, oldest first.
    pub fn hosts(&self, mac: MacAddr) -> &[Arc<Host>] {
        self.hosts.get(&mac).map_or(&[], Vec::as_slice)
    }

    /// The host files for this MAC address, by file name.
    pub fn host_files(&self, mac: MacAddr) -> &[Arc<HostFile>] {
        self.host_files.get(&mac).map_or(&[], Vec::as_slice)
    }

    /// The Agents that reported this MAC address, newest first; `None` where there is no Agent API.
    pub fn agents(&self, mac: MacAddr) -> Option<&[Arc<Agent>]> {
        let agents = self.agents.as_ref()?;
        Some(agents.get(&mac).map_or(&[], Vec::as_slice))
    }

    /// Whether Agents of a namespace, or of any, could not be read: then the absence of one says nothing. A file that could not be read
    /// may hold Agents too.
    pub fn unreadable_agents(&self, namespace: Option<&str>) -> bool {
        self.skipped.iter().any(|skipped| match skipped.kind.as_str() {
            "Agent" => namespace.is_none_or(|namespace| skipped.object.split('/').next() == Some(namespace)),
            "file" => true,
            _ => false,
        })
    }

    /// Every environment, by namespace and name.
    pub fn environments(&self) -> impl ExactSizeIterator<Item = &Arc<Environment>> {
        self.environments.values()
    }

    /// One environment.
    pub fn environment(&self, name: &ObjectName) -> Option<&Arc<Environment>> {
        self.environments.get(name)
    }

    /// The one environment with this name in whatever namespace.
    pub fn environment_named(&self, name: &str) -> Result<&Arc<Environment>, LookupError> {
        let found: Vec<_> = self.environments.values().filter(|e| e.name.name() == name).collect();
        match found.as_slice() {
            [] => Err(LookupError::Unknown),
            [one] => Ok(one),
            several => Err(LookupError::Ambiguous(several.iter().map(|e| e.name.clone()).collect())),
        }
    }

    /// The default environment that counts.
    pub fn default_environment(&self) -> Option<&Arc<Environment>> {
        self.defaults.first()
    }

    /// Every host, by namespace and name.
    pub fn all_hosts(&self) -> Vec<&Arc<Host>> {
        let mut hosts: Vec<_> = self.hosts.values().flatten().collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        hosts
    }

    /// Every host file, by file name.
    pub fn all_host_files(&self) -> Vec<&Arc<HostFile>> {
        let mut files: Vec<_> = self.host_files.values().flatten().collect();
        files.sort_by(|a, b| a.file.cmp(&b.file));
        files
    }

    /// MAC addresses that something other than the default or the policy for unknown hosts answers, in order.
    pub fn known_macs(&self) -> Vec<MacAddr> {
        let mut macs: Vec<MacAddr> = self
            .hosts
            .keys()
            .filter(|mac| !matches!(self.claim(**mac), Claim::None))
            .chain(self.host_files.keys())
            .chain(self.overrides.keys())
            .copied()
            .collect();
        macs.sort();
        macs.dedup();
        macs
    }

    /// How many hosts there are.
    pub fn host_count(&self) -> usize {
        self.hosts.values().map(Vec::len).sum()
    }

    /// Objects that claim the same thing, in a stable order.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// What could not be used, in a stable order.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

fn by_mac<T>(values: Vec<Arc<T>>, macs: impl Fn(&T) -> Vec<MacAddr>) -> HashMap<MacAddr, Vec<Arc<T>>> {
    let mut map: HashMap<MacAddr, Vec<Arc<T>>> = HashMap::with_capacity(values.len());
    for value in values {
        for mac in macs(&value) {
            map.entry(mac).or_default().push(value.clone());
        }
    }
    map
}
