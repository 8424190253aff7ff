//! What every reconciliation may use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use kube::runtime::events::Recorder;

use super::children::Children;
use super::counts::Counter;
use super::metrics::Metrics;
use super::plan::Settings;

/// What every reconciliation may use.
pub struct Context {
    /// The cluster.
    pub client: Client,
    /// What the operator itself contributes.
    pub settings: Settings,
    /// What the operator made, as the cluster has it now.
    pub children: Arc<Children>,
    /// What was applied last.
    pub memory: Memory,
    /// Asks pods what they count.
    pub counter: Counter,
    /// Publishes Events; one for the process, since it holds what keeps them from being repeated.
    pub recorder: Recorder,
    /// What the operator counts.
    pub metrics: Arc<Metrics>,
    /// Failures in a row, per bridge.
    pub failures: Failures,
}

/// What was applied last, by the object's UID: what was wanted, and which fields the operator owned afterwards.
///
/// Whoever changes or removes one of these fields takes it over from the operator (server-side apply keeps account of that), so as long
/// as both are the same there is nothing to write. It is lost with the process: the next one applies everything once, which changes
/// nothing.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Applied>>);

/// What was wanted, and what was owned afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Digest of the object as it was wanted.
    pub wanted: String,
    /// Digest of the fields that the operator owned then.
    pub owned: String,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Applied>> {
        // Every change is a single assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this was applied and still is as it was then.
    pub fn knows(&self, uid: &str, applied: &Applied) -> bool {
        self.lock().get(uid) == Some(applied)
    }

    /// This was applied.
    pub fn keep(&self, uid: String, applied: Applied) {
        self.lock().insert(uid, applied);
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }
}

/// Failures in a row, per bridge.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<String, u32>>);

impl Failures {
    /// One more; how many there are now.
    pub fn more(&self, bridge: &str) -> u32 {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(bridge.to_owned()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// It worked.
    pub fn none(&self, bridge: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(bridge);
    }
}
