//! A body on its way to a machine: at its pace, and with a line in the log about how it ended.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt as _;
use jiff::Timestamp;
use poem::{Body, Request};
use tracing::field;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::boot::artifact::ArtifactKind;
use crate::boot::environment::Environment;
use crate::server::boot_id::BootId;
use crate::server::context::{Context, Pacing};
use crate::server::metrics::{CacheResult, Outcome};
use crate::server::middleware;
use crate::server::pace::Pace;
use crate::server::sendfile::Parts;
use crate::server::timeline::{End, Part, Step};
use crate::server::trace;
use crate::server::transfer::{self, Content};

/// How a body is sent.
pub(super) struct Sending<'a> {
    pub parts: Option<Parts>,
    pub pacing: &'a Pacing,
    pub result: Option<CacheResult>,
}

impl Sending<'_> {
    pub fn body(&self, body: transfer::Body, log: TransferLog) -> Body {
        let each = self.pacing.each.map(Pace::new).map(Arc::new);
        let paces: Vec<Arc<Pace>> = self.pacing.total.iter().cloned().chain(each).collect();
        let at_most = paces.iter().map(|pace| pace.piece()).min();
        let stream = log.around(body.into_stream(at_most, self.parts.clone()));
        match paces.is_empty() {
            true => Body::from_bytes_stream(stream),
            false => Body::from_bytes_stream(stream.then(move |piece| {
                let (paces, length) = (paces.clone(), piece.as_ref().map_or(0, bytes::Bytes::len));
                async move {
                    for pace in paces {
                        pace.admit(length).await;
                    }
                    piece
                }
            })),
        }
    }
}

/// Says how a transfer ended, whichever way that is: complete, broken by upstream, or left by the client.
pub(super) struct TransferLog {
    pub kind: ArtifactKind,
    environment: Arc<Environment>,
    client: String,
    length: Option<u64>,
    pub head: bool,
    cache: Option<CacheResult>,
    sent: u64,
    /// Whether there was no more to send: of a body of unknown length nothing else tells that it is whole.
    is_whole: bool,
    failure: Option<String>,
    started: Instant,
    context: Arc<Context>,
    /// The boot that it belongs to.
    boot: Option<BootId>,
    /// Its place there; none for HEAD.
    step: Option<Arc<Step>>,
    /// As long as the body, where the request's own span ends with the head. For HEAD it is the request's.
    span: tracing::Span,
}

impl TransferLog {
    pub fn begin(
        context: &Arc<Context>,
        request: &Request,
        (kind, environment): (ArtifactKind, Arc<Environment>),
        content: &Content,
        (head, cache): (bool, Option<CacheResult>),
    ) -> Self {
        let client = middleware::client(request);
        let boot = request.data::<BootId>().copied();
        let step = boot.as_ref().filter(|_| !head).map(|id| {
            let now = Timestamp::now();
            let part = Part {
                first: content.part.map_or(0, |part| part.first),
                length: content.length,
                is_tail: content.part.is_none_or(|part| part.last + 1 == part.total),
            };
            let step = Step::new(kind, client.clone(), part, cache, now);
            context.timeline.step(id, step, now)
        });
        let span = match head {
            true => tracing::Span::current(),
            false => tracing::info_span!(
                "transfer",
                otel.name = %format!("send {kind}"),
                otel.status_code = field::Empty,
                ipxe_bridge.artifact = kind.as_str(),
                ipxe_bridge.environment = %environment.name,
                ipxe_bridge.mac = boot.map(|id| id.mac.to_string()),
                ipxe_bridge.cache = cache.map(|cache| cache.to_string()),
                ipxe_bridge.bytes = field::Empty,
                ipxe_bridge.outcome = field::Empty,
            ),
        };
        if let Some(fill) = content.body.fill().filter(|_| !head) {
            span.add_link(fill);
        }
        Self {
            kind,
            environment,
            client,
            length: content.length,
            head,
            cache,
            sent: 0,
            is_whole: false,
            failure: None,
            started: Instant::now(),
            context: context.clone(),
            boot,
            step,
            span,
        }
    }

    fn around(
        mut self,
        stream: impl futures::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static,
    ) -> impl futures::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static {
        let end = futures::stream::once(std::future::ready(None));
        stream.map(Some).chain(end).filter_map(move |piece| {
            self.note(piece.as_ref());
            std::future::ready(piece)
        })
    }

    /// A piece goes out, or there is none any more.
    fn note(&mut self, piece: Option<&std::io::Result<bytes::Bytes>>) {
        match piece {
            Some(Ok(piece)) => {
                self.sent += piece.len() as u64;
                if let Some(step) = &self.step {
                    step.sent(piece.len() as u64, Timestamp::now());
                }
            }
            Some(Err(error)) => self.failure = Some(error.to_string()),
            None => self.is_whole = true,
        }
    }
}

impl Drop for TransferLog {
    fn drop(&mut self) {
        let outcome = match (&self.failure, self.length) {
            (Some(_), _) => Outcome::Broken,
            (None, Some(length)) if self.sent < length => Outcome::Left,
            (None, None) if !self.is_whole => Outcome::Left,
            _ => Outcome::Complete,
        };
        let seconds = self.started.elapsed().as_secs_f64();
        let (artifact, environment, client) = (self.kind.as_str(), &self.environment.name, &self.client);
        let mac = self.boot.map(|id| id.mac.to_string());
        // What belongs to no boot has a trace of its own, where traces are collected.
        let own_trace = || Some(trace::context(&self.span)?.trace_id().to_string());
        let trace_id = self.boot.map(|id| id.trace_text()).or_else(own_trace);
        if self.head {
            tracing::info!(artifact, %environment, mac, client, trace_id, "headers served");
            return;
        }
        let trace = self.boot.filter(|id| id.is_sampled).map(|id| id.trace);
        self.context.metrics.transfer(self.kind, outcome, self.cache, self.sent);
        self.context.metrics.transfer_took(self.kind, self.cache, seconds, trace);
        self.span.record("ipxe_bridge.bytes", self.sent);
        self.span.record("ipxe_bridge.outcome", outcome.to_string());
        if let Some(failure) = &self.failure {
            self.span.record("otel.status_code", "ERROR");
            self.span.set_attribute("error.message", failure.clone());
        }
        if let Some(step) = &self.step {
            let end = match outcome {
                Outcome::Complete => End::Complete,
                Outcome::Left => End::Left,
                Outcome::Broken => End::Broken,
                Outcome::Refused => End::Refused,
            };
            step.end(end, Timestamp::now());
            self.context.timeline.ended();
        }
        match (&self.failure, outcome) {
            (Some(failure), _) => {
                tracing::warn!(artifact, %environment, mac, client, bytes = self.sent, seconds, trace_id, "transfer cut: {failure}");
            }
            (None, Outcome::Left) => {
                tracing::info!(artifact, %environment, mac, client, bytes = self.sent, seconds, trace_id, "transfer left by the client");
            }
            _ => tracing::info!(artifact, %environment, mac, client, bytes = self.sent, seconds, trace_id, "artifact served"),
        }
    }
}
