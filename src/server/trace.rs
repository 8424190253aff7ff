//! Trace context of requests: from the signed id of a boot, or from a client that has one. A machine never sends any.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use jiff::Timestamp;
use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::boot::mac::MacAddr;
use crate::boot::way::Way;

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

/// What happened to a machine before it asked for its script, as events of the script's span, each at its own time.
pub fn tell_way(span: &Span, way: Option<&Way>) {
    let Some(way) = way else { return };
    let at = |milliseconds: i64| UNIX_EPOCH + Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    span.add_event_with_timestamp("told by DHCP what to fetch", at(way.told), Vec::new());
    if let Some(program) = &way.program {
        let asked = way.told + i64::from(program.after);
        let attributes = vec![
            KeyValue::new("ipxe_bridge.protocol", program.by.to_string()),
            KeyValue::new("ipxe_bridge.bytes", i64::try_from(program.bytes).unwrap_or(i64::MAX)),
        ];
        span.add_event_with_timestamp("asks for its boot program", at(asked), attributes);
        if let Some(took) = program.took {
            span.add_event_with_timestamp("has its boot program", at(asked + i64::from(took)), Vec::new());
        }
    }
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
