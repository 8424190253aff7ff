//! One artifact on its way from upstream to a machine: status and headers first, then a stream that survives a broken upstream.
//!
//! Invariants: an answer never holds bytes of two builds; a body is never shorter than its announced length without the connection
//! being cut; nothing is held in memory beyond the piece on its way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use opentelemetry::trace::SpanContext;
use reqwest::Response;
use tokio::time::Instant;

use crate::boot::artifact::{ArtifactKind, UpstreamUrl};

use super::boot_id::BootId;
use super::cache::reader::Reader;
use super::sendfile::{MAX_PART, Parts};
use super::upstream::{Admission, Upstream, UpstreamError, describe};
use super::validator::{ByteRange, ContentRange, Validator};

/// How often a broken transfer is taken up again without progress in between.
const RESUMES: u32 = 4;
/// The same for one on which many machines wait: about a minute if connections are refused.
const RESUMES_OF_FILL: u32 = 10;
/// How long after the last byte a broken transfer is still taken up again. With the silence of a last attempt this stays below the two
/// minutes for which iPXE 2.0 waits for a byte of a body (iPXE, commit 88c3e68df).
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that count as progress: an upstream that breaks off after every few must not keep a machine busy for hours.
const PROGRESS: u64 = 64 * 1024;
/// Pause before the first of them; doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Bytes after which a body lets others have their turn: a client that takes all at once would occupy a thread for tens of milliseconds
/// (the runtime's own limit counts operations, and one of ours moves a lot), and scripts would wait.
const TURN: usize = 2 << 20;

/// What a client wants of an artifact.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only headers.
    pub head: bool,
    /// A part of it.
    pub range: Option<ByteRange>,
    /// The part only if it is still this build, otherwise all of it.
    pub if_range: Option<Validator>,
    /// Nothing if it is still this build.
    pub if_none_match: Option<Validator>,
    /// Nothing if it is not newer.
    pub if_modified_since: Option<HeaderValue>,
}

/// What the client gets.
#[derive(Debug)]
pub enum Answer {
    /// 200 or 206 with a body, which is empty for HEAD.
    Content(Box<Content>),
    /// 304.
    NotModified(Option<Validator>),
    /// 416; the whole length if upstream told it.
    RangeNotSatisfiable(Option<u64>),
}

/// A transfer that has begun.
#[derive(Debug)]
pub struct Content {
    /// The part, if it is one.
    pub part: Option<ContentRange>,
    /// Bytes of the body.
    pub length: Option<u64>,
    /// Which build it is.
    pub validator: Option<Validator>,
    /// Type that upstream gives it.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: Body,
}

/// Where the bytes of a body come from.
#[derive(Debug)]
pub enum Body {
    /// From upstream, as they are sent on.
    Upstream(Transfer),
    /// From the cache, which may still be getting them.
    Held(Reader),
}

/// A body on its way from upstream.
#[derive(Debug)]
pub struct Transfer {
    upstream: Arc<Upstream>,
    url: UpstreamUrl,
    /// Absent before the first piece of a rest.
    response: Option<Response>,
    /// The place among all transfers from upstream.
    admission: Option<Admission>,
    /// Position of the next byte within the artifact.
    next: u64,
    /// Position behind the last byte; `None` if upstream did not say.
    end: Option<u64>,
    /// What must still be true of the artifact to go on after a break; `None` if it cannot go on.
    resume: Option<Validator>,
    failures: u32,
    resumes: u32,
    /// When the last bytes came.
    latest: Instant,
    /// Where the transfer was last begun or taken up again.
    begun: u64,
    /// The boot for which it is sent, for the log.
    boot: Option<Box<BootId>>,
}

/// Asks upstream for an artifact.
pub async fn open(
    upstream: &Arc<Upstream>,
    kind: ArtifactKind,
    url: &UpstreamUrl,
    wanted: &Wanted,
) -> Result<Answer, UpstreamError> {
    let method = if wanted.head { Method::HEAD } else { Method::GET };
    // Parts of an initrd would come from different bodies, and its date says nothing about them: always the whole, as it is now.
    let mut headers = HeaderMap::new();
    if kind.repeatable() {
        if let Some(range) = wanted.range.filter(|_| !wanted.head) {
            headers.insert(header::RANGE, range.header());
            if let Some(if_range) = &wanted.if_range {
                headers.insert(header::IF_RANGE, if_range.header());
            }
        }
        match (&wanted.if_none_match, &wanted.if_modified_since) {
            (Some(validator), _) => validator.if_none_match(&mut headers),
            (None, Some(since)) => _ = headers.insert(header::IF_MODIFIED_SINCE, since.clone()),
            (None, None) => {}
        }
    }
    let admission = match wanted.head {
        true => None,
        false => Some(upstream.admit().await?),
    };
    let response = upstream.send(method.clone(), url, headers).await?;
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        // Nobody asked for it, and iPXE would take the encoded bytes for the artifact.
        return Err(UpstreamError::Contradiction("an encoding that was not asked for"));
    }
    let validator = if kind.repeatable() {
        Validator::of_response(response.headers())
    } else {
        None
    };
    let number = |name: HeaderName| response.headers().get(name)?.to_str().ok()?.parse::<u64>().ok();
    let (part, start) = match response.status() {
        StatusCode::OK => (None, 0),
        StatusCode::PARTIAL_CONTENT => {
            let part = ContentRange::of(response.headers()).ok_or(UpstreamError::Contradiction("a part without its range"))?;
            if wanted
                .range
                .is_none_or(|range| range.within(part.total) != Some((part.first, part.last)))
            {
                return Err(UpstreamError::Contradiction("another part than asked for"));
            }
            if let Some(Validator::Date(_, Some(length))) = wanted.if_range
                && length != part.total
            {
                // The date is the same and the length is not: another build, so all of it.
                let whole = Wanted {
                    range: None,
                    ..wanted.clone()
                };
                drop((response, admission));
                return Box::pin(open(upstream, kind, url, &whole)).await;
            }
            (Some(part), part.first)
        }
        StatusCode::NOT_MODIFIED => {
            // To upstream a tag of ours is a date, and "not newer" is not "the same": a build that was rolled back is another one.
            let same = match (&wanted.if_none_match, &validator) {
                (Some(Validator::Date(wanted, _)), Some(Validator::Date(now, _))) => wanted == now,
                _ => wanted.if_none_match.is_some() || wanted.if_modified_since.is_some(),
            };
            if same {
                return Ok(Answer::NotModified(validator));
            }
            if wanted.if_none_match.is_none() {
                return Err(UpstreamError::Contradiction(
                    "\"not modified\" to a request without a condition",
                ));
            }
            let unconditional = Wanted {
                if_none_match: None,
                if_modified_since: None,
                ..wanted.clone()
            };
            drop((response, admission));
            return Box::pin(open(upstream, kind, url, &unconditional)).await;
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            return Ok(Answer::RangeNotSatisfiable(ContentRange::unsatisfied_total(
                response.headers(),
            )));
        }
        status => return Err(UpstreamError::Status(status.as_u16())),
    };
    let length = number(header::CONTENT_LENGTH);
    let is_chunked = response.headers().contains_key(header::TRANSFER_ENCODING);
    if length.is_none() && !is_chunked && !wanted.head {
        // It would end with the connection, and a broken one would look complete.
        return Err(UpstreamError::Contradiction("a body without a length"));
    }
    let end = part.map(|part| part.last + 1).or(length);
    if length.zip(end).is_some_and(|(length, end)| start + length != end) {
        return Err(UpstreamError::Contradiction("a length that does not fit the range"));
    }
    Ok(Answer::Content(Box::new(Content {
        part,
        length: end.map(|end| end - start),
        content_type: response.headers().get(header::CONTENT_TYPE).cloned(),
        body: Body::Upstream(Transfer {
            upstream: upstream.clone(),
            url: url.clone(),
            response: Some(response),
            admission,
            next: start,
            end,
            resume: validator.clone(),
            failures: 0,
            resumes: RESUMES,
            latest: Instant::now(),
            begun: start,
            boot: None,
        }),
        validator,
    })))
}

impl Body {
    /// The span that fills the cache with it, if one does, and if spans are collected.
    pub fn fill(&self) -> Option<SpanContext> {
        match self {
            Self::Upstream(_) => None,
            Self::Held(reader) => reader.fill(),
        }
    }

    /// Says for which boot it is sent.
    pub fn belongs_to(&mut self, id: Option<&BootId>) {
        if let Self::Upstream(transfer) = self {
            transfer.boot = id.copied().map(Box::new);
        }
    }

    /// The pieces of the body as they come, none larger than this where that can be chosen. An error cuts the connection: it is the only
    /// way to tell the machine. With a queue of parts some pieces may be stand-ins for parts of a file.
    pub fn into_stream(self, at_most: Option<usize>, parts: Option<Parts>) -> impl Stream<Item = io::Result<Bytes>> + Send {
        let at_most = at_most.unwrap_or(MAX_PART);
        futures::stream::unfold(Some((self, parts, 0)), move |body| async move {
            let (mut body, parts, mut in_turn) = body?;
            if in_turn >= TURN {
                tokio::task::yield_now().await;
                in_turn = 0;
            }
            let piece = match &mut body {
                Self::Upstream(transfer) => transfer.piece().await,
                Self::Held(reader) => reader.piece(at_most, parts.as_ref()).await,
            };
            match piece {
                Ok(Some(piece)) => {
                    in_turn += piece.len();
                    Some((Ok(piece), Some((body, parts, in_turn))))
                }
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

impl Transfer {
    /// The rest of a build of which a client has the beginning.
    pub fn rest(upstream: Arc<Upstream>, url: UpstreamUrl, build: Validator, (next, end): (u64, u64)) -> Self {
        Self {
            upstream,
            url,
            response: None,
            admission: None,
            next,
            end: Some(end),
            resume: Some(build),
            failures: 0,
            resumes: RESUMES,
            latest: Instant::now(),
            begun: next,
            boot: None,
        }
    }

    /// The same with the patience that many machines need.
    pub fn for_many(self) -> Self {
        Self {
            resumes: RESUMES_OF_FILL,
            ..self
        }
    }

    /// The next bytes as they come; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the rest cannot be had, or is that of another build.
    pub async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        if self.response.is_none() {
            self.admission = Some(self.upstream.admit().await.map_err(io::Error::other)?);
            self.ask_for_rest().await?;
        }
        loop {
            let Some(response) = &mut self.response else {
                return Err(io::Error::other("upstream gave no answer"));
            };
            let broken = match response.chunk().await {
                Ok(Some(piece)) => {
                    self.next += piece.len() as u64;
                    self.latest = Instant::now();
                    if self.end.is_some_and(|end| self.next > end) {
                        return Err(io::Error::other("upstream sent more than it announced"));
                    }
                    if self.next - self.begun >= PROGRESS {
                        self.failures = 0;
                    }
                    return Ok(Some(piece));
                }
                Ok(None) if self.end.is_none_or(|end| self.next == end) => return Ok(None),
                Ok(None) => "it ended too early".to_owned(),
                Err(error) => describe(&error),
            };
            self.take_up_again(broken).await?;
        }
    }

    /// Goes on where the transfer broke, if it is still the same build.
    async fn take_up_again(&mut self, broken: String) -> io::Result<()> {
        self.pause(&broken).await?;
        self.ask_for_rest().await
    }

    async fn pause(&mut self, broken: &str) -> io::Result<()> {
        if self.resume.is_none() || self.end.is_none() {
            return Err(io::Error::other(format!(
                "upstream broke off ({broken}) and this kind of artifact cannot be resumed"
            )));
        }
        if self.failures == self.resumes {
            return Err(io::Error::other(format!(
                "upstream broke off {} times in a row: {broken}",
                self.resumes + 1
            )));
        }
        if self.latest.elapsed() >= PATIENCE {
            return Err(io::Error::other(format!(
                "upstream sent nothing for {} seconds: {broken}",
                self.latest.elapsed().as_secs()
            )));
        }
        tokio::time::sleep((FIRST_PAUSE * (1 << self.failures)).min(LONGEST_PAUSE)).await;
        self.failures += 1;
        let told = self.boot.as_ref().map(|id| (id.mac.to_string(), id.trace_text()));
        let (mac, trace_id) = told.unzip();
        tracing::info!(
            at = self.next,
            broken,
            mac,
            trace_id,
            "upstream broke off, the transfer is taken up again"
        );
        Ok(())
    }

    async fn ask_for_rest(&mut self) -> io::Result<()> {
        let (Some(validator), Some(end)) = (self.resume.clone(), self.end) else {
            return Err(io::Error::other("this kind of artifact cannot be resumed"));
        };
        loop {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, ByteRange::from_to(self.next, end - 1).header());
            headers.insert(header::IF_RANGE, validator.header());
            let response = match self.upstream.send(Method::GET, &self.url, headers).await {
                Ok(response) => response,
                Err(error) => {
                    self.pause(&error.to_string()).await?;
                    continue;
                }
            };
            if response.status().is_server_error() {
                self.pause(&format!("status {}", response.status().as_u16())).await?;
                continue;
            }
            let part = ContentRange::of(response.headers());
            let same_part = part.is_some_and(|part| part.first == self.next && part.last + 1 == end);
            let same_build = Validator::of_response(response.headers()).is_some_and(|now| now == validator);
            let is_encoded = response.headers().contains_key(header::CONTENT_ENCODING);
            if response.status() != StatusCode::PARTIAL_CONTENT || !same_part || !same_build || is_encoded {
                return Err(io::Error::other("upstream has another build now, the rest would not fit"));
            }
            self.response = Some(response);
            self.begun = self.next;
            return Ok(());
        }
    }
}
