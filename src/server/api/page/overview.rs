//! How the bridge is doing: what needs attention first, then environments and facts.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::boot::environment::Environment;
use crate::boot::inventory::Inventory;
use crate::boot::name::ObjectName;
use crate::server::context::Context;
use crate::server::snapshot::{Published, SourceState};

/// How many items of a kind are shown; the rest is in the inventory.
pub const SHOWN: usize = 50;

/// A certificate that ends within so many seconds needs attention: a week, as in the alert.
const CERTIFICATE_WARNING: i64 = 7 * 24 * 3600;

/// How the bridge is doing.
#[derive(Debug)]
pub struct Overview {
    /// What a person should look at, the worst first. No group is empty.
    pub attention: Vec<Group>,
    /// Every environment.
    pub environments: Shown<EnvironmentRow>,
    /// The rest, each with its name.
    pub facts: Vec<(&'static str, String)>,
}

/// The first items of many.
#[derive(Debug)]
pub struct Shown<T> {
    /// The first of them.
    pub items: Vec<T>,
    /// How many there are in all.
    pub total: usize,
}

/// Things of one kind that need attention.
#[derive(Debug)]
pub struct Group {
    /// Of which kind.
    pub title: &'static str,
    /// The first of them.
    pub items: Vec<Item>,
    /// How many there are in all.
    pub total: usize,
}

/// One thing that needs attention.
#[derive(Debug)]
pub struct Item {
    /// What.
    pub what: String,
    /// What about it.
    pub detail: String,
}

/// An environment.
#[derive(Debug)]
pub struct EnvironmentRow {
    /// Namespace and name.
    pub name: ObjectName,
    /// Whether it serves machines that nothing else names.
    pub is_default: bool,
    /// Hosts that name it.
    pub hosts: usize,
    /// Whether it can boot, and what else there is to know.
    pub state: String,
    /// Whether it cannot boot, or should not be trusted.
    pub is_trouble: bool,
}

impl<T> Shown<T> {
    /// The first of them, and how many there are.
    pub fn of(all: impl ExactSizeIterator<Item = T>) -> Self {
        Self {
            total: all.len(),
            items: all.take(SHOWN).collect(),
        }
    }

    /// How many are not shown.
    pub fn hidden(&self) -> usize {
        self.total - self.items.len()
    }
}

impl Group {
    fn of(title: &'static str, all: impl ExactSizeIterator<Item = Item>) -> Option<Self> {
        let Shown { items, total } = Shown::of(all);
        (total > 0).then_some(Self { title, items, total })
    }

    /// How many are not shown.
    pub fn hidden(&self) -> usize {
        self.total - self.items.len()
    }
}

impl Overview {
    /// As of now.
    pub fn of(context: &Context, published: &Published) -> Self {
        let inventory = &published.inventory;
        Self {
            attention: attention(context, published),
            environments: environments(inventory),
            facts: facts(context, published),
        }
    }
}

fn attention(context: &Context, published: &Published) -> Vec<Group> {
    let inventory = &published.inventory;
    let conflicts = inventory.conflicts().iter().map(|conflict| Item {
        what: conflict.subject.clone(),
        detail: format!("claimed by {}: {}", conflict.objects.join(", "), conflict.outcome),
    });
    let skipped = inventory.skipped().iter().map(|skipped| Item {
        what: format!("{} {}", skipped.kind, skipped.object),
        detail: skipped.cause.clone(),
    });
    // A label with a mistake in it is no error for anybody else.
    let hosts = inventory.all_hosts().into_iter();
    let lost: Vec<Item> = hosts
        .filter_map(|host| {
            let environment = host
                .environment
                .as_ref()
                .filter(|name| inventory.environment(name).is_none())?;
            Some(Item {
                what: format!("BareMetalHost {}", host.name),
                detail: format!("names InfraEnv {environment}, which does not exist"),
            })
        })
        .collect();
    let unmade = inventory.environments().filter_map(|environment| {
        let state = trouble(environment);
        (!state.is_empty()).then(|| Item {
            what: format!("InfraEnv {}", environment.name),
            detail: state.join("; "),
        })
    });
    let unmade: Vec<Item> = unmade.collect();
    let behind: Vec<Item> = published
        .sources()
        .iter()
        .filter_map(|source| {
            let (since, why) = source.behind.as_ref()?;
            let detail = format!("may have missed changes for {} s: {why}", since.elapsed().as_secs());
            Some(Item {
                what: source.name.clone(),
                detail,
            })
        })
        .collect();
    let cache = context.cache.as_ref().and_then(|cache| cache.trouble());
    let cache: Vec<Item> = cache
        .map(|why| Item {
            what: "Files are passed through, or cannot be kept".to_owned(),
            detail: why,
        })
        .into_iter()
        .collect();
    let end = context.metrics.certificate_end.get();
    let is_ending = end > 0 && end - Timestamp::now().as_second() < CERTIFICATE_WARNING;
    let certificate = is_ending.then(|| Item {
        what: "The certificate of this server".to_owned(),
        detail: format!("ends {}", day(end)),
    });
    [
        Group::of("Conflicts", conflicts),
        Group::of("Skipped objects", skipped),
        Group::of("Hosts without their environment", lost.into_iter()),
        Group::of("Environments", unmade.into_iter()),
        Group::of("Sources that are behind", behind.into_iter()),
        Group::of("Cache", cache.into_iter()),
        Group::of("Certificate", certificate.into_iter()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn environments(inventory: &Inventory) -> Shown<EnvironmentRow> {
    let mut hosts: HashMap<&ObjectName, usize> = HashMap::new();
    for name in inventory.all_hosts().iter().filter_map(|host| host.environment.as_ref()) {
        *hosts.entry(name).or_default() += 1;
    }
    let default = inventory.default_environment().map(|environment| &environment.name);
    Shown::of(inventory.environments().map(|environment| {
        let mut state = trouble(environment);
        let is_trouble = !state.is_empty();
        if environment.artifacts.missing().is_empty() {
            state.insert(0, "can boot".to_owned());
        }
        if environment.boot_order_control {
            state.push("the service is asked for each host".to_owned());
        }
        EnvironmentRow {
            name: environment.name.clone(),
            is_default: default == Some(&environment.name),
            hosts: hosts.get(&environment.name).copied().unwrap_or_default(),
            is_trouble,
            state: state.join("; "),
        }
    }))
}

/// What is not as it should be about an environment.
fn trouble(environment: &Environment) -> Vec<String> {
    let missing: Vec<&str> = environment.artifacts.missing().iter().map(|kind| kind.as_str()).collect();
    let missing = (!missing.is_empty()).then(|| format!("has no {} yet", missing.join(", ")));
    missing.into_iter().chain(environment.warnings.iter().cloned()).collect()
}

fn facts(context: &Context, published: &Published) -> Vec<(&'static str, String)> {
    let inventory = &published.inventory;
    let age = published.stale_for();
    let (absent, present): (Vec<_>, Vec<_>) = published.sources().iter().partition(|source| source.absent);
    let names = |sources: Vec<&SourceState>| {
        sources
            .iter()
            .map(|source| source.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut facts = vec![
        (
            "Inventory",
            age.map_or("current".to_owned(), |age| {
                format!("may have missed changes for {} s", age.as_secs())
            }),
        ),
        ("Read from", names(present)),
    ];
    if !absent.is_empty() {
        facts.push(("Not in this cluster", names(absent)));
    }
    facts.extend([
        ("BareMetalHosts", inventory.host_count().to_string()),
        ("Overrides", inventory.all_overrides().len().to_string()),
        ("Host files", inventory.all_host_files().len().to_string()),
        ("Unknown hosts", context.settings.policy.unknown.to_string()),
        ("Boot policy", context.settings.policy.boot.to_string()),
        (
            "Cache",
            context.cache.as_ref().map_or("none".to_owned(), |cache| {
                let (used, size) = cache.bytes();
                format!("{} of {} used", gib(used), gib(size))
            }),
        ),
        ("Open connections", context.metrics.connections.get().to_string()),
    ]);
    if context.metrics.certificate_end.get() > 0 {
        facts.push(("Certificate until", day(context.metrics.certificate_end.get())));
    }
    facts
}

/// A second since 1970 for a person.
fn day(second: i64) -> String {
    Timestamp::from_second(second).map_or_else(|_| "at no time".to_owned(), |time| time.strftime("%F %R UTC").to_string())
}

/// Bytes for a person: tenths of a GiB.
fn gib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1 << 30);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}
