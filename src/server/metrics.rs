//! What is counted while requests are answered, named `ipxe_bridge_…`; never a MAC address, a name or a path in a label.

use std::time::SystemTime;

use prometheus_client::metrics::{counter::Counter, exemplar::HistogramWithExemplars, family::Family, gauge::Gauge};
use prometheus_client::registry::{Registry, Unit};
use strum::{Display, EnumString, VariantArray as _};

use crate::boot::artifact::ArtifactKind;

use super::cache::store::hex;
use super::timeline::Outcome as BootOutcome;

type Labels<const N: usize> = [(&'static str, String); N];
/// Seconds, with a trace for each bucket.
type Durations = HistogramWithExemplars<Labels<1>>;

/// Everything that is counted while requests are answered.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<Labels<3>, Counter>,
    scripts: Family<Labels<2>, Counter>,
    transfers: Family<Labels<2>, Counter>,
    bytes: Family<Labels<2>, Counter>,
    status_writes: Family<Labels<1>, Counter>,
    cache_answers: Family<Labels<2>, Counter>,
    cache_fills: Family<Labels<1>, Counter>,
    cache_evictions: Counter,
    cache_damages: Counter,
    boots: Family<Labels<1>, Counter>,
    watch_failures: Family<Labels<1>, Counter>,
    boot_seconds: Family<Labels<1>, Durations, fn() -> Durations>,
    transfer_seconds: Family<Labels<2>, Durations, fn() -> Durations>,
    /// Open connections.
    pub connections: Gauge,
    /// When the server's certificate ends, in seconds since 1970; 0 without one.
    pub certificate_end: Gauge,
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[strum(serialize_all = "lowercase")]
pub enum Outcome {
    /// Every byte was sent.
    Complete,
    /// Upstream broke it.
    Broken,
    /// The client left.
    Left,
    /// Upstream gave an error before the first byte.
    Refused,
}

/// What the cache had to do with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum CacheResult {
    /// The bytes were there.
    Hit,
    /// The bytes are on their way into the cache.
    Fill,
    /// The bytes were there, and upstream cannot be asked whether they are current.
    Stale,
    /// The bytes are not kept.
    Pass,
}

/// Seconds: a script takes milliseconds, a root file system on a slow line an hour.
fn seconds() -> Durations {
    let bounds = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
    Durations::new(bounds.into_iter())
}

fn of_artifact(kind: ArtifactKind, cache: Option<CacheResult>) -> Labels<2> {
    let cache = cache.map_or_else(|| "none".to_owned(), |cache| cache.to_string());
    [("kind", kind.as_str().to_owned()), ("cache", cache)]
}

/// Where a trace is collected, the label by which it is found (OpenMetrics, "Exemplars").
fn exemplar(trace: Option<[u8; 16]>) -> Option<Labels<1>> {
    Some([("trace_id", hex(&trace?))])
}

impl Default for Metrics {
    fn default() -> Self {
        let boots = Family::<Labels<1>, Counter>::default();
        let boot_seconds = Family::new_with_constructor(seconds as fn() -> Durations);
        // A rate of what is not there would be nothing, where none is meant.
        for outcome in BootOutcome::VARIANTS
            .iter()
            .filter(|outcome| **outcome != BootOutcome::Running)
        {
            let labels = [("outcome", outcome.to_string())];
            let _ = (boots.get_or_create(&labels), boot_seconds.get_or_create(&labels));
        }
        Self {
            requests: Family::default(),
            scripts: Family::default(),
            transfers: Family::default(),
            bytes: Family::default(),
            status_writes: Family::default(),
            cache_answers: Family::default(),
            cache_fills: Family::default(),
            cache_evictions: Counter::default(),
            cache_damages: Counter::default(),
            boots,
            boot_seconds,
            transfer_seconds: Family::new_with_constructor(seconds as fn() -> Durations),
            watch_failures: Family::default(),
            connections: Gauge::default(),
            certificate_end: Gauge::default(),
        }
    }
}

/// How fills end, in the label `outcome`.
const FILLS: [&str; 4] = ["complete", "upstream", "disk", "no_room"];

impl Metrics {
    /// A request was answered; the operation is its id in the API document.
    pub fn request(&self, method: &str, operation: &str, status: u16) {
        let method = if matches!(method, "GET" | "HEAD") { method } else { "other" };
        let labels = [
            ("method", method.to_owned()),
            ("operation", operation.to_owned()),
            ("status", status.to_string()),
        ];
        self.requests.get_or_create(&labels).inc();
    }

    /// A machine asked for its script.
    pub fn script(&self, rule: &str, served: bool) {
        let labels = [("rule", rule.to_owned()), ("served", served.to_string())];
        self.scripts.get_or_create(&labels).inc();
    }

    /// A transfer ended.
    pub fn transfer(&self, kind: ArtifactKind, outcome: Outcome, cache: Option<CacheResult>, bytes: u64) {
        let labels = [("kind", kind.as_str().to_owned()), ("outcome", outcome.to_string())];
        self.transfers.get_or_create(&labels).inc();
        self.bytes.get_or_create(&of_artifact(kind, cache)).inc_by(bytes);
    }

    /// An artifact was asked for where there is a cache.
    pub fn cache_answer(&self, kind: ArtifactKind, result: CacheResult) {
        let labels = [("kind", kind.as_str().to_owned()), ("result", result.to_string())];
        self.cache_answers.get_or_create(&labels).inc();
    }

    /// A fill ended, or could not begin: one of `FILLS`.
    pub fn cache_fill(&self, outcome: &'static str) {
        self.cache_fills.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// A file went for others.
    pub fn cache_eviction(&self) {
        self.cache_evictions.inc();
    }

    /// A file was found damaged.
    pub fn cache_damage(&self) {
        self.cache_damages.inc();
    }

    /// A transfer of an artifact took so long.
    pub fn transfer_took(&self, kind: ArtifactKind, cache: Option<CacheResult>, seconds: f64, trace: Option<[u8; 16]>) {
        let transfers = self.transfer_seconds.get_or_create(&of_artifact(kind, cache));
        transfers.observe(seconds, exemplar(trace), Some(SystemTime::now()));
    }

    /// A watch of the cluster failed.
    pub fn watch_failed(&self, kind: &str) {
        self.watch_failures.get_or_create(&[("kind", kind.to_owned())]).inc();
    }

    /// A boot came to an end, or to a standstill, after so many seconds.
    pub fn boot(&self, outcome: BootOutcome, seconds: i64, trace: Option<[u8; 16]>) {
        let labels = [("outcome", outcome.to_string())];
        self.boots.get_or_create(&labels).inc();
        let boots = self.boot_seconds.get_or_create(&labels);
        boots.observe(seconds as f64, exemplar(trace), Some(SystemTime::now()));
    }

    /// The status of an override was written, or could not be.
    pub fn status_write(&self, written: bool) {
        self.status_writes.get_or_create(&[("written", written.to_string())]).inc();
    }

    /// Names everything that is counted.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Answered requests", self.requests.clone());
        registry.register(
            "scripts",
            "Scripts asked for by machines, by the rule that decided",
            self.scripts.clone(),
        );
        registry.register("transfers", "Artifact transfers by how they ended", self.transfers.clone());
        registry.register_with_unit("artifact_sent", "Bytes of artifacts sent", Unit::Bytes, self.bytes.clone());
        // There before the first write, so that an alert has something to compare with.
        for written in [true, false] {
            let _ = self.status_writes.get_or_create(&[("written", written.to_string())]);
        }
        registry.register(
            "override_status_writes",
            "Writes of the status of overrides, without those of a bootLimit",
            self.status_writes.clone(),
        );
        registry.register(
            "cache_answers",
            "Answers with a kernel or rootfs where there is a cache, by what it had to do with them",
            self.cache_answers.clone(),
        );
        for outcome in FILLS {
            let _ = self.cache_fills.get_or_create(&[("outcome", outcome.to_owned())]);
        }
        registry.register(
            "cache_fills",
            "Fetches into the cache by how they ended",
            self.cache_fills.clone(),
        );
        registry.register(
            "cache_evictions",
            "Files that went from the cache for others",
            self.cache_evictions.clone(),
        );
        registry.register(
            "cache_damaged_files",
            "Files of the cache that were found damaged after a start",
            self.cache_damages.clone(),
        );
        for kind in ["InfraEnv", "BareMetalHost", "Agent", "IpxeHostOverride"] {
            let _ = self.watch_failures.get_or_create(&[("kind", kind.to_owned())]);
        }
        registry.register(
            "watch_failures",
            "Watches of the cluster that failed and were started again",
            self.watch_failures.clone(),
        );
        registry.register("boots", "Boots that came to an end, or to a standstill", self.boots.clone());
        registry.register_with_unit(
            "boot_duration",
            "From the script to the last sign of life of boots that came to an end",
            Unit::Seconds,
            self.boot_seconds.clone(),
        );
        registry.register_with_unit(
            "transfer_duration",
            "Time that transfers of artifacts took, from the head of the answer to its last byte",
            Unit::Seconds,
            self.transfer_seconds.clone(),
        );
        registry.register("connections", "Open connections", self.connections.clone());
        if self.certificate_end.get() > 0 {
            registry.register_with_unit(
                "certificate_expiry_timestamp",
                "When the certificate of the server ends, in seconds since 1970",
                Unit::Seconds,
                self.certificate_end.clone(),
            );
        }
    }
}
