//! Counters and gauges, named `ipxe_bridge_…`; never a MAC address, a name or a path in a label.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use poem::{EndpointExt, Response, Route, handler, web::Data};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::{Registry, Unit};
use strum::Display;

use crate::boot::artifact::ArtifactKind;

use super::api::Context;

type Labels<const N: usize> = [(&'static str, String); N];

/// Everything that is counted while requests are answered.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Family<Labels<3>, Counter>,
    scripts: Family<Labels<2>, Counter>,
    transfers: Family<Labels<2>, Counter>,
    bytes: Family<Labels<1>, Counter>,
    /// Open connections.
    pub connections: Gauge,
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
    pub fn transfer(&self, kind: ArtifactKind, outcome: Outcome, bytes: u64) {
        let kind = ("kind", kind.as_str().to_owned());
        self.transfers
            .get_or_create(&[kind.clone(), ("outcome", outcome.to_string())])
            .inc();
        self.bytes.get_or_create(&[kind]).inc_by(bytes);
    }
}

/// The page for Prometheus.
pub fn endpoint(context: Arc<Context>) -> super::api::App {
    let route = Route::new().at("/metrics", poem::get(page).data(context));
    Arc::new(poem::endpoint::ToDynEndpoint(route.map_to_response()))
}

#[handler]
fn page(Data(context): Data<&Arc<Context>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &registry(context)) {
        Ok(()) => Response::builder()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            Response::builder().status(http::StatusCode::INTERNAL_SERVER_ERROR).finish()
        }
    }
}

/// Counters as they are, gauges as of now.
fn registry(context: &Context) -> Registry {
    let mut registry = Registry::with_prefix("ipxe_bridge");
    let metrics = &context.metrics;
    registry.register("requests", "Answered requests", metrics.requests.clone());
    registry.register(
        "scripts",
        "Scripts asked for by machines, by the rule that decided",
        metrics.scripts.clone(),
    );
    registry.register("transfers", "Artifact transfers by how they ended", metrics.transfers.clone());
    registry.register_with_unit("artifact_sent", "Bytes of artifacts sent", Unit::Bytes, metrics.bytes.clone());
    registry.register("connections", "Open connections", metrics.connections.clone());

    let build = Family::<Labels<1>, Gauge>::default();
    build
        .get_or_create(&[("version", env!("CARGO_PKG_VERSION").to_owned())])
        .set(1);
    registry.register("build", "Always 1; the version of the program", build);

    let mut gauge = |name: &str, help: &str, value: usize| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    gauge(
        "ready",
        "1 while machines can be answered",
        usize::from(context.not_ready().is_empty()),
    );
    if let Ok(published) = context.snapshot.ready() {
        let inventory = &published.inventory;
        gauge("environments", "InfraEnvs in the inventory", inventory.environments().len());
        gauge("hosts", "BareMetalHosts in the inventory", inventory.host_count());
        gauge("host_files", "Host files in the inventory", inventory.all_host_files().len());
        gauge("conflicts", "Objects that claim the same thing", inventory.conflicts().len());
        gauge(
            "skipped_objects",
            "Objects and files that could not be used",
            inventory.skipped().len(),
        );
        let age = Gauge::<f64, AtomicU64>::default();
        age.set(published.stale_for().map_or(0.0, |age| age.as_secs_f64()));
        let help = "Time for which the inventory may have missed changes; 0 while it is current";
        registry.register_with_unit("inventory_age", help, Unit::Seconds, age);
    }
    registry
}
