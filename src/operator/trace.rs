//! Traces of reconciliations: one for each that changed something or failed, with a span for each write.

use tracing::{Instrument as _, Span, field};

/// The span of a reconciliation. It is exported only once something was written below it, or if it failed (`telemetry.rs`).
pub fn reconciliation(bridge: &str) -> Span {
    tracing::info_span!(
        "reconcile",
        otel.name = %format!("reconcile IpxeBridge {bridge}"),
        otel.status_code = field::Empty,
        error.message = field::Empty,
        ipxe_bridge.bridge = bridge,
        ipxe_bridge.changed = field::Empty,
    )
}

/// A write to the cluster, of which the reconciliation's span then knows.
///
/// # Errors
///
/// Those of the write.
pub async fn write<T>(verb: &str, what: &str, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let reconciliation = Span::current();
    let span = tracing::info_span!(
        "write",
        otel.name = %format!("{verb} {what}"),
        otel.kind = "client",
        otel.status_code = field::Empty,
        error.message = field::Empty,
    );
    let result = request.instrument(span.clone()).await;
    match &result {
        Ok(_) => _ = reconciliation.record("ipxe_bridge.changed", true),
        Err(error) => {
            span.record("otel.status_code", "ERROR");
            span.record("error.message", error.to_string());
        }
    }
    result
}
