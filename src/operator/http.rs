//! The operator's own probes and metrics.

use std::sync::Arc;

use poem::endpoint::ToDynEndpoint;
use poem::web::Data;
use poem::{EndpointExt as _, Response, Route, handler};
use prometheus_client::encoding::text::encode;

use crate::server::api::App;

use super::children::Children;
use super::kind::Kind;
use super::metrics::Metrics;
use super::plan::Presence;

/// What the pages show.
#[derive(Debug, Default)]
pub struct State {
    /// What the operator counts.
    pub metrics: Arc<Metrics>,
    /// What it watches.
    pub children: Arc<Children>,
}

impl State {
    /// What is missing before bridges can be looked after. One that stands by watches nothing and misses nothing.
    fn missing(&self) -> Vec<String> {
        if self.metrics.leading.get() == 0 {
            return Vec::new();
        }
        let kinds = self.children.kinds();
        let is_missing = |kind: &Kind| !kind.is_optional() && kinds.get(kind) != Some(&Presence::Present);
        Kind::all().filter(is_missing).map(Kind::plural).collect()
    }
}

/// `/livez`, `/readyz` and `/metrics`.
pub fn endpoint(state: Arc<State>) -> App {
    let routes = Route::new()
        .at("/livez", poem::get(livez))
        .at("/readyz", poem::get(readyz))
        .at("/metrics", poem::get(metrics))
        .data(state);
    Arc::new(ToDynEndpoint(routes.map_to_response()))
}

#[handler]
fn livez() -> &'static str {
    "ok\n"
}

#[handler]
fn readyz(Data(state): Data<&Arc<State>>) -> Response {
    let missing = state.missing();
    match missing.is_empty() {
        true => Response::builder().body("ok\n"),
        false => Response::builder()
            .status(http::StatusCode::SERVICE_UNAVAILABLE)
            .body(format!("not listed yet: {}\n", missing.join(", "))),
    }
}

#[handler]
fn metrics(Data(state): Data<&Arc<State>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &state.metrics.registry()) {
        Ok(()) => Response::builder()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            Response::builder().status(http::StatusCode::INTERNAL_SERVER_ERROR).finish()
        }
    }
}
