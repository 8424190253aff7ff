//! What the operator counts, named `ipxe_bridge_operator_…`.

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;

use crate::build_info;

use super::kind::Kind;

type Labels = [(&'static str, String); 1];

/// What the operator counts.
#[derive(Debug, Default)]
pub struct Metrics {
    reconciliations: Family<Labels, Counter>,
    writes: Family<Labels, Counter>,
    /// 1 while this process is the one that writes.
    pub leading: Gauge,
}

impl Metrics {
    /// A bridge was looked at.
    pub fn reconciled(&self, outcome: &str) {
        self.reconciliations.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// An object was written or removed.
    pub fn wrote(&self, kind: Kind) {
        self.writes.get_or_create(&[("kind", kind.to_string())]).inc();
    }

    /// A key of boots was made or removed.
    pub fn wrote_boot_keys(&self) {
        self.writes.get_or_create(&[("kind", "Secret".to_owned())]).inc();
    }

    /// A bridge's status was written.
    pub fn wrote_status(&self) {
        self.writes.get_or_create(&[("kind", "IpxeBridge".to_owned())]).inc();
    }

    /// Everything that is counted.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("ipxe_bridge_operator");
        build_info::register(&mut registry);
        let outcomes = "Bridges looked at, by outcome";
        registry.register("reconciliations", outcomes, self.reconciliations.clone());
        registry.register("writes", "Objects written or removed, by kind", self.writes.clone());
        registry.register("leading", "1 while this process is the one that writes", self.leading.clone());
        registry
    }
}
