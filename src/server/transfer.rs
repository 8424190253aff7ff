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
use reqwest::Response;

use crate::boot::artifact::{ArtifactKind, UpstreamUrl};

use super::upstream::{Upstream, UpstreamError, describe};
use super::validator::{ByteRange, ContentRange, Validator};

/// How often a broken transfer is taken up again without progress in between.
const RESUMES: u32 = 4;
/// Bytes that count as progress: an upstream that breaks off after every few must not keep a machine busy for hours.
const PROGRESS: u64 = 64 * 1024;
/// Pause before the first of them; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

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
    pub body: Transfer,
}

/// The body of a transfer.
#[derive(Debug)]
pub struct Transfer {
    upstream: Arc<Upstream>,
    url: UpstreamUrl,
    response: Response,
    /// Position of the next byte within the artifact.
    next: u64,
    /// Position behind the last byte; `None` if upstream did not say.
    end: Option<u64>,
    /// What must still be true of the artifact to go on after a break; `None` if it cannot go on.
    resume: Option<Validator>,
    failures: u32,
    /// Where the transfer was last begun or taken up again.
    begun: u64,
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
        body: Transfer {
            upstream: upstream.clone(),
            url: url.clone(),
            response,
            next: start,
            end,
            resume: validator.clone(),
            failures: 0,
            begun: start,
        },
        validator,
    })))
}

impl Transfer {
    /// The pieces of the body as they come. An error cuts the connection: it is the only way to tell the machine.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::unfold(Some(self), |transfer| async {
            let mut transfer = transfer?;
            match transfer.piece().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(transfer))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let broken = match self.response.chunk().await {
                Ok(Some(piece)) => {
                    self.next += piece.len() as u64;
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
    async fn take_up_again(&mut self, mut broken: String) -> io::Result<()> {
        let (Some(validator), Some(end)) = (self.resume.clone(), self.end) else {
            return Err(io::Error::other(format!(
                "upstream broke off ({broken}) and this kind of artifact cannot be resumed"
            )));
        };
        loop {
            if self.failures == RESUMES {
                return Err(io::Error::other(format!(
                    "upstream broke off {} times in a row: {broken}",
                    RESUMES + 1
                )));
            }
            tokio::time::sleep(FIRST_PAUSE * (1 << self.failures)).await;
            self.failures += 1;
            tracing::info!(at = self.next, broken, "upstream broke off, the transfer is taken up again");
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, ByteRange::from_to(self.next, end - 1).header());
            headers.insert(header::IF_RANGE, validator.header());
            let response = match self.upstream.send(Method::GET, &self.url, headers).await {
                Ok(response) => response,
                Err(error) => {
                    broken = error.to_string();
                    continue;
                }
            };
            if response.status().is_server_error() {
                broken = format!("status {}", response.status().as_u16());
                continue;
            }
            let part = ContentRange::of(response.headers());
            let same_part = part.is_some_and(|part| part.first == self.next && part.last + 1 == end);
            let same_build = Validator::of_response(response.headers()).is_some_and(|now| now == validator);
            let is_encoded = response.headers().contains_key(header::CONTENT_ENCODING);
            if response.status() != StatusCode::PARTIAL_CONTENT || !same_part || !same_build || is_encoded {
                return Err(io::Error::other("upstream has another build now, the rest would not fit"));
            }
            self.response = response;
            self.begun = self.next;
            return Ok(());
        }
    }
}
