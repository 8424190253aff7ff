//! The current inventory: when it is ready, how old it is. Readers never wait for a writer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::boot::inventory::Inventory;

/// How a source is doing, for readiness and for people.
#[derive(Debug, Clone)]
pub struct SourceState {
    /// What it is, for example `BareMetalHost`.
    pub name: String,
    /// It listed everything at least once.
    pub listed: bool,
    /// There is no such API in this cluster.
    pub absent: bool,
    /// Since when it may lag behind, and why.
    pub behind: Option<(Instant, String)>,
}

/// The inventory that is served, swapped in one step.
#[derive(Debug, Default)]
pub struct Snapshot {
    current: ArcSwapOption<Published>,
    changes: watch::Sender<()>,
}

/// An inventory and the state of its sources when it was built.
#[derive(Debug)]
pub struct Published {
    /// What the bridge knows.
    pub inventory: Inventory,
    sources: Vec<SourceState>,
}

impl Published {
    /// Puts an inventory together with the state of its sources.
    pub fn new(inventory: Inventory, sources: Vec<SourceState>) -> Self {
        Self { inventory, sources }
    }

    /// The sources and how they are doing.
    pub fn sources(&self) -> &[SourceState] {
        &self.sources
    }

    /// For how long the inventory may have missed changes; `None` while it is current.
    pub fn stale_for(&self) -> Option<Duration> {
        self.sources
            .iter()
            .filter_map(|source| Some(source.behind.as_ref()?.0.elapsed()))
            .max()
    }

    /// What the first full list is still missing of, each with the reason if one is known.
    pub fn missing(&self) -> Vec<String> {
        let unlisted = self.sources.iter().filter(|source| !source.listed);
        unlisted
            .map(|source| match &source.behind {
                Some((_, why)) => format!("{}: {why}", source.name),
                None => format!("{}: first list not complete", source.name),
            })
            .collect()
    }
}

impl Snapshot {
    /// The inventory to serve, or what is missing before there is one: never an incomplete inventory.
    pub fn ready(&self) -> Result<Arc<Published>, Vec<String>> {
        let Some(published) = self.current.load_full() else {
            return Err(vec!["nothing was read yet".to_owned()]);
        };
        let missing = published.missing();
        match missing.is_empty() {
            true => Ok(published),
            false => Err(missing),
        }
    }

    pub(super) fn publish(&self, published: Published) {
        self.current.store(Some(Arc::new(published)));
        self.changes.send_replace(());
    }

    /// Tells of every new inventory.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}
