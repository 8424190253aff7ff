//! Probes: live is not ready.

use std::sync::Arc;

use crate::server::context::Context;
use poem_openapi::payload::{Json, PlainText};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::Tag;

/// Probes for the platform the server runs on.
pub struct HealthApi {
    context: Arc<Context>,
}

/// Whether the server can answer machines.
#[derive(Debug, Object)]
#[oai(example)]
struct Readiness {
    /// Whether every source listed everything at least once and the server is not about to end.
    ready: bool,
    /// What is missing, each with the reason if one is known.
    missing: Vec<String>,
}

impl Example for Readiness {
    fn example() -> Self {
        Self {
            ready: false,
            missing: vec!["BareMetalHost: first list not complete".to_owned()],
        }
    }
}

#[derive(ApiResponse)]
enum LivenessResponse {
    /// Alive
    #[oai(status = 200)]
    Alive(PlainText<&'static str>),
}

#[derive(ApiResponse)]
enum ReadinessResponse {
    /// Ready
    #[oai(status = 200)]
    Ready(Json<Readiness>),
    /// Something is missing, and named
    #[oai(status = 503)]
    NotReady(Json<Readiness>),
}

impl HealthApi {
    /// The group.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

#[OpenApi(tag = "Tag::Health")]
impl HealthApi {
    /// Is the process alive?
    ///
    /// The path that the Python bridge had; the same as `/livez`.
    #[oai(path = "/healthz", method = "get", operation_id = "healthz")]
    async fn healthz(&self) -> LivenessResponse {
        LivenessResponse::Alive(PlainText("ok\n"))
    }

    /// Is the process alive?
    #[oai(path = "/livez", method = "get", operation_id = "livez")]
    async fn livez(&self) -> LivenessResponse {
        LivenessResponse::Alive(PlainText("ok\n"))
    }

    /// Can machines be answered?
    ///
    /// Not before every kind was listed once: until then no MAC address is "unknown". Names what is missing.
    #[oai(path = "/readyz", method = "get", operation_id = "readyz")]
    async fn readyz(&self) -> ReadinessResponse {
        let missing = self.context.not_ready();
        let body = Json(Readiness {
            ready: missing.is_empty(),
            missing,
        });
        match body.ready {
            true => ReadinessResponse::Ready(body),
            false => ReadinessResponse::NotReady(body),
        }
    }
}
