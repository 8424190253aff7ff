//! An answer before it is sent, and its body on the way out.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};

use super::content::{Blob, CHUNK, Content};
use super::fault::{Flow, Stop};
use super::pace::Pace;
use super::request_log::Entry;

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How often a second a slowed body sends.
const TICKS: u64 = 20;

/// hyper drops what it has not written when a body fails, so the last bytes before a cut get this long to leave.
const FLUSH: Duration = Duration::from_millis(50);

/// Status, headers and the part of a blob that makes the body.
#[derive(Debug)]
pub struct Reply {
    response: Response<()>,
    blob: Option<Blob>,
    range: Range<u64>,
}

impl Reply {
    /// No body.
    pub fn empty(status: StatusCode) -> Self {
        let mut response = Response::new(());
        *response.status_mut() = status;
        Self {
            response,
            blob: None,
            range: 0..0,
        }
    }

    /// A part of a blob.
    pub fn part(status: StatusCode, blob: Blob, range: Range<u64>) -> Self {
        Self {
            blob: Some(blob),
            range,
            ..Self::empty(status)
        }
    }

    /// These bytes with this type.
    pub fn bytes(status: StatusCode, media_type: &str, bytes: impl Into<Bytes>) -> Self {
        match Blob::join([Content::bytes(bytes)]) {
            Ok(blob) => {
                let length = blob.length();
                Self::part(status, blob, 0..length).with(header::CONTENT_TYPE, media_type)
            }
            Err(_) => Self::empty(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// An error as Go's `http.Error` writes it.
    pub fn text(status: StatusCode, message: &str) -> Self {
        Self::bytes(status, "text/plain; charset=utf-8", format!("{message}\n")).with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// The same with one more header; a value that is none is left out.
    pub fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.response.headers_mut().insert(name, value);
        }
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Which bytes a success sends; `None` if it is no success with a body.
    pub fn sends(&self, method: &Method) -> Option<&Range<u64>> {
        let body = self.blob.is_some() && *method != Method::HEAD;
        (body && self.status().is_success()).then_some(&self.range)
    }

    /// The answer as hyper takes it. `new_build` is called when the flow says that the build changes; `link` is shared with other answers.
    pub fn response(
        mut self,
        method: &Method,
        flow: Flow,
        link: Option<Arc<Pace>>,
        log: Arc<Entry>,
        new_build: impl Fn() + Send + 'static,
    ) -> Response<Body> {
        let length = self.range.end - self.range.start;
        // A HEAD of an error has no length either, as recorded.
        let stated = self.blob.is_some() || *method != Method::HEAD;
        if stated && self.status() != StatusCode::NOT_MODIFIED {
            let length = length.saturating_add_signed(flow.length_off_by);
            self.response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        let body = match self.blob {
            Some(blob) if *method != Method::HEAD => streamed(blob, self.range, flow, link, log, new_build),
            _ => Empty::new().map_err(|never| match never {}).boxed_unsync(),
        };
        self.response.map(|()| body)
    }
}

/// A body without an end.
pub fn endless(log: Arc<Entry>) -> Body {
    let stream = futures::stream::repeat(Bytes::from_static(&[b'#'; 4096])).map(move |bytes| {
        log.sent(bytes.len());
        Ok(Frame::data(bytes))
    });
    StreamBody::new(stream).boxed_unsync()
}

/// A body that reads on only when the client has taken what was read before.
fn streamed(
    blob: Blob,
    range: Range<u64>,
    flow: Flow,
    link: Option<Arc<Pace>>,
    log: Arc<Entry>,
    new_build: impl Fn() + Send + 'static,
) -> Body {
    let stop = flow.stop;
    let own = flow.rate.map(|rate| Arc::new(Pace::new(rate)));
    let end = stop.map_or(range.end, |(position, _)| position.min(range.end));
    let steps = futures::stream::try_unfold(range.start, move |position| {
        let blob = blob.clone();
        let log = log.clone();
        let paces = [own.clone(), link.clone()];
        async move {
            if position >= end {
                return Ok(None);
            }
            let mut limit = CHUNK.min(end - position);
            if let Some(rate) = flow.rate {
                limit = limit.min(rate.div_ceil(TICKS));
            }
            for pace in paces.into_iter().flatten() {
                pace.pass(limit).await;
            }
            let bytes = blob.read(position, limit).await?;
            if bytes.is_empty() {
                return Err(io::Error::other("content became shorter"));
            }
            log.sent(bytes.len());
            let next = position + bytes.len() as u64;
            Ok(Some((Frame::data(bytes), next)))
        }
    });
    let last = futures::stream::once(async move {
        match stop {
            None => return None,
            Some((_, Stop::Stall)) => futures::future::pending().await,
            Some((_, Stop::Cut)) => {}
            Some((_, Stop::ChangeBuild)) => new_build(),
        }
        tokio::time::sleep(FLUSH).await;
        Some(Err(io::Error::other("cut on purpose")))
    })
    .filter_map(futures::future::ready);
    StreamBody::new(steps.chain(last)).boxed_unsync()
}
