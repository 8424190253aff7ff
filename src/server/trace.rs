//! Trace context of requests: from the signed id of a boot, or from a client that has one. A machine never sends any.

use http::HeaderMap;
use jiff::Timestamp;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::boot::mac::MacAddr;

use super::boot_id::{BootId, random};

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Puts the span of a request where it belongs: into the trace of its boot, or below the span that a client names (`traceparent`).
pub fn adopt(span: &Span, boot: Option<&BootId>, headers: &HeaderMap) {
    let parent = match boot {
        Some(id) => opentelemetry::Context::new().with_remote_span_context(context_of(id)),
        None if headers.contains_key("traceparent") => TraceContextPropagator::new().extract(&Headers(headers)),
        None => return,
    };
    // Fails only where nothing collects spans.
    let _ = span.set_parent(parent);
}

fn context_of(id: &BootId) -> SpanContext {
    let flags = if id.is_sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    let (trace, span) = (TraceId::from_bytes(id.trace), SpanId::from_bytes(id.span));
    SpanContext::new(trace, span, flags, true, TraceState::default())
}

/// The context of a span; `None` where nothing collects spans.
pub fn context(span: &Span) -> Option<SpanContext> {
    let context = span.context();
    let found = context.span().span_context().clone();
    found.is_valid().then_some(found)
}

/// The id of a boot that begins with the request of the present span.
pub fn begin_boot(mac: MacAddr, now: Timestamp) -> BootId {
    let issued = u32::try_from(now.as_second()).unwrap_or(0);
    match context(&Span::current()) {
        Some(context) => BootId {
            mac,
            trace: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
            is_sampled: context.is_sampled(),
            issued,
        },
        // The timeline needs one too.
        None => BootId {
            mac,
            trace: random(),
            span: random(),
            is_sampled: false,
            issued,
        },
    }
}
