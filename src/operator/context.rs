//! What every reconciliation may use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Asks pods what they count.
    pub counter: Counter,
    /// Publishes Events; one for the process, since it holds what keeps them from being repeated.
    pub recorder: Recorder,
    /// What the operator counts.
    pub metrics: Arc<Metrics>,
    /// Failures in a row, per bridge.
    pub failures: Failures,
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
