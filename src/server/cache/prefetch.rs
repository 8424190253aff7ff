//! Fetches what environments name before a machine asks, so that the first one is as fast as the others. One file at a time, and never
//! at the cost of what another environment needs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::boot::artifact::ArtifactKind;
use crate::boot::inventory::Inventory;
use crate::server::snapshot::Snapshot;

use super::Cache;
use super::find::{Errand, Found};
use super::held::Progress;
use super::store::Key;

/// Follows the inventory, for ever. Every period upstream is asked whether it has new builds.
pub async fn follow(cache: Arc<Cache>, snapshot: Arc<Snapshot>, period: Duration) {
    let mut changes = snapshot.subscribe();
    let mut failed = HashSet::new();
    loop {
        let errands = snapshot
            .ready()
            .map(|published| errands(&published.inventory))
            .unwrap_or_default();
        failed.retain(|key| errands.iter().any(|errand| errand.key == *key));
        for errand in errands {
            let (key, label) = (errand.key.clone(), errand.url.label());
            match cache.prefetch(errand).await {
                Ok(()) => _ = failed.remove(&key),
                Err(why) if failed.insert(key) => tracing::warn!(source = label, why, "not fetched ahead; it is tried again"),
                Err(_) => {}
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(period) => {}
        }
    }
}

/// What all environments need, each once; none of it is given up for another.
fn errands(inventory: &Inventory) -> Vec<Errand> {
    let mut errands: Vec<Errand> = Vec::new();
    for environment in inventory.environments() {
        for kind in [ArtifactKind::Kernel, ArtifactKind::Rootfs] {
            let urls = &environment.artifacts;
            let errand = urls.get(kind).map(|url| Errand::new(kind, url, urls));
            errands.extend(errand.filter(|errand| errands.iter().all(|other| other.key != errand.key)));
        }
    }
    let to_stay: Arc<HashSet<Key>> = Arc::new(errands.iter().map(|errand| errand.key.clone()).collect());
    for errand in &mut errands {
        errand.to_stay = to_stay.clone();
    }
    errands
}

impl Cache {
    /// Has an artifact in the cache, and waits until it is there.
    async fn prefetch(self: &Arc<Self>, errand: Errand) -> Result<(), String> {
        let found = match self.present(&errand) {
            Some(held) => held,
            None => match self.find(errand).await {
                Ok(Found::Held(held, _)) => held,
                Ok(Found::Nothing) => return Err(self.trouble().unwrap_or_else(|| "there is no room for it".to_owned())),
                Err(error) => return Err(error.to_string()),
            },
        };
        let mut news = found.watch();
        loop {
            match &*news.borrow_and_update() {
                Progress::Filling(_) => {}
                Progress::Failed(failure) => return Err(failure.to_string()),
                Progress::Complete | Progress::Unverified => return Ok(()),
            }
            if news.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}
