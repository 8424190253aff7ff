//! The page for Prometheus: counters as they are, gauges as of now.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use poem::{
    EndpointExt, Request, Response, Route, handler,
    web::{Data, Json, Query},
};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::{family::Family, gauge::Gauge};
use prometheus_client::registry::{Registry, Unit};
use serde::Deserialize;

use crate::boot::standing::Reason;
use crate::build_info;
use crate::server::context::Context;
use crate::server::peers;
use crate::server::timeline::Outcome;

/// The page for Prometheus.
pub fn endpoint(context: Arc<Context>) -> super::App {
    let route = Route::new()
        .at("/metrics", poem::get(page))
        .at(peers::PATH, poem::get(boots_seen_here))
        .data(context);
    Arc::new(poem::endpoint::ToDynEndpoint(route.map_to_response()))
}

#[handler]
fn page(request: &Request, Data(context): Data<&Arc<Context>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &registry(context)) {
        Ok(()) if wants_older_form(request.header(http::header::ACCEPT)) => Response::builder()
            .content_type("text/plain; version=0.0.4; charset=utf-8")
            .body(older_form(&text)),
        Ok(()) => Response::builder()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            Response::builder().status(http::StatusCode::INTERNAL_SERVER_ERROR).finish()
        }
    }
}

/// What other replicas ask for.
#[derive(Debug, Deserialize)]
struct Since {
    #[serde(default)]
    since: i64,
}

#[handler]
fn boots_seen_here(Query(asked): Query<Since>, Data(context): Data<&Arc<Context>>) -> Json<peers::Seen> {
    Json(peers::seen(context, asked.since))
}

/// Whether a client takes Prometheus' own text format and not OpenMetrics.
fn wants_older_form(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| accept.contains("text/plain") && !accept.contains("openmetrics"))
}

/// The same in the text format 0.0.4, which names counters in full, and knows no units, exemplars and end.
fn older_form(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF");
    let mut counters = std::collections::HashSet::new();
    for line in text.lines() {
        counters.extend(line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")));
    }
    let older = lines.map(|line| match line.strip_prefix("# ").and_then(|rest| rest.split_once(' ')) {
        Some((word, rest)) => match rest.split_once(' ') {
            Some((name, rest)) if counters.contains(name) => format!("# {word} {name}_total {rest}\n"),
            _ => format!("{line}\n"),
        },
        None => format!("{}\n", line.split(" # {").next().unwrap_or(line)),
    });
    older.collect()
}

/// Counters as they are, gauges as of now.
fn registry(context: &Context) -> Registry {
    let mut registry = Registry::with_prefix("ipxe_bridge");
    context.metrics.register(&mut registry);
    context.upstream.register(&mut registry);

    build_info::register(&mut registry);

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
    if let Some(cache) = &context.cache {
        let (used, size) = cache.bytes();
        let help = "1 while the cache does its work, 0 while files are passed through or cannot be kept";
        gauge("cache_enabled", help, usize::from(cache.trouble().is_none()));
        let mut bytes = |name: &str, help: &str, bytes: u64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            registry.register_with_unit(name, help, Unit::Bytes, gauge);
        };
        bytes("cache_used", "Bytes that the cache holds", used);
        bytes("cache_size", "Bytes that the cache may hold", size);
    }
    let mut gauge = |name: &str, help: &str, value: usize| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    let (mut running, mut stalled, now) = (0, 0, jiff::Timestamp::now());
    // Each boot by one server only.
    context.timeline.each(now, |boot, outcome| match outcome {
        Outcome::Running if boot.is_own => running += 1,
        Outcome::Stalled if boot.is_own && boot.is_in_progress(outcome, now) => stalled += 1,
        _ => {}
    });
    gauge("boots_running", "Machines that boot now", running);
    let help = "Machines whose last boot stands still, and moved within the last hour";
    gauge("boots_stalled", help, stalled);
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
        let overrides = Family::<[(&'static str, String); 1], Gauge>::default();
        let _ = overrides.get_or_create(&[("reason", Reason::Serving.to_string())]);
        for standing in inventory.standings(jiff::Timestamp::now().as_second()).into_values() {
            overrides
                .get_or_create(&[("reason", standing.ready.reason.to_string())])
                .inc();
        }
        registry.register(
            "overrides",
            "IpxeHostOverrides in the inventory, by the reason of their condition Ready",
            overrides,
        );
        let age = Gauge::<f64, AtomicU64>::default();
        age.set(published.stale_for().map_or(0.0, |age| age.as_secs_f64()));
        let help = "Time for which the inventory may have missed changes; 0 while it is current";
        registry.register_with_unit("inventory_age", help, Unit::Seconds, age);
    }
    registry
}
