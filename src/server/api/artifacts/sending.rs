//! A body on its way to a machine: at its pace, and with a line in the log about how it ended.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt as _;
use poem::Body;

use crate::boot::artifact::ArtifactKind;
use crate::boot::environment::Environment;
use crate::server::context::Pacing;
use crate::server::metrics::{CacheResult, Metrics, Outcome};
use crate::server::pace::Pace;
use crate::server::sendfile::Parts;
use crate::server::transfer;

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
    pub environment: Arc<Environment>,
    pub client: String,
    pub length: Option<u64>,
    pub head: bool,
    pub sent: u64,
    pub failure: Option<String>,
    pub started: Instant,
    pub metrics: Arc<Metrics>,
}

impl TransferLog {
    fn around(
        mut self,
        stream: impl futures::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static,
    ) -> impl futures::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static {
        stream.inspect(move |piece| self.note(piece))
    }

    fn note(&mut self, piece: &std::io::Result<bytes::Bytes>) {
        match piece {
            Ok(piece) => self.sent += piece.len() as u64,
            Err(error) => self.failure = Some(error.to_string()),
        }
    }
}

impl Drop for TransferLog {
    fn drop(&mut self) {
        let outcome = match (&self.failure, self.length) {
            (Some(_), _) => Outcome::Broken,
            (None, Some(length)) if self.sent < length => Outcome::Left,
            _ => Outcome::Complete,
        };
        let seconds = self.started.elapsed().as_secs_f64();
        let (artifact, environment, client) = (self.kind.as_str(), &self.environment.name, &self.client);
        if self.head {
            tracing::info!(artifact, %environment, client, "headers served");
            return;
        }
        self.metrics.transfer(self.kind, outcome, self.sent);
        match (&self.failure, outcome) {
            (Some(failure), _) => {
                tracing::warn!(artifact, %environment, client, bytes = self.sent, seconds, "transfer cut: {failure}");
            }
            (None, Outcome::Left) => {
                tracing::info!(artifact, %environment, client, bytes = self.sent, seconds, "transfer left by the client");
            }
            _ => tracing::info!(artifact, %environment, client, bytes = self.sent, seconds, "artifact served"),
        }
    }
}
