//! A file answered the way Go's `http.ServeContent` does it: conditions, ranges, dates.
//!
//! The image service leaves all of that to the Go library (assisted-image-service `internal/handlers/boot_artifacts.go`,
//! `initrd.go`), so its habits are the habits of the upstream. Several ranges at once are answered with the whole file, which HTTP
//! allows; the Go library would send `multipart/byteranges`.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::content::Blob;
use super::reply::Reply;

/// A file to be sent.
#[derive(Debug)]
pub struct Download {
    /// Its bytes.
    pub blob: Blob,
    /// When they changed last.
    pub modified: SystemTime,
    /// What `Content-Disposition` says.
    pub disposition: String,
    /// What `Content-Type` says.
    pub media_type: &'static str,
}

impl Download {
    /// The answer to a request with these headers.
    pub fn answer(self, method: &Method, headers: &HeaderMap) -> Reply {
        let whole = 0..self.blob.length();
        let modified = httpdate::fmt_http_date(self.modified);
        let basic = |reply: Reply| {
            reply
                .with(header::CONTENT_DISPOSITION, &self.disposition)
                .with(header::LAST_MODIFIED, &modified)
        };
        let verdict = if matches!(*method, Method::GET | Method::HEAD) {
            precondition(headers, self.modified)
        } else {
            None
        };
        if let Some(status) = verdict {
            return basic(Reply::empty(status));
        }
        let wanted = if range_is_valid(method, headers, self.modified) {
            wanted(headers, whole.end)
        } else {
            Ok(None)
        };
        let (status, range) = match wanted {
            Ok(None) => (StatusCode::OK, whole.clone()),
            Ok(Some(range)) => (StatusCode::PARTIAL_CONTENT, range),
            Err(Unsatisfiable { message, beyond }) => {
                let reply =
                    Reply::text(StatusCode::RANGE_NOT_SATISFIABLE, message).with(header::CONTENT_DISPOSITION, &self.disposition);
                return match beyond {
                    true => reply.with(header::CONTENT_RANGE, &format!("bytes */{}", whole.end)),
                    false => reply,
                };
            }
        };
        let mut reply = basic(Reply::part(status, self.blob.clone(), range.clone()))
            .with(header::ACCEPT_RANGES, "bytes")
            .with(header::CONTENT_TYPE, self.media_type);
        if status == StatusCode::PARTIAL_CONTENT {
            let place = format!("bytes {}-{}/{}", range.start, range.end - 1, whole.end);
            reply = reply.with(header::CONTENT_RANGE, &place);
        }
        reply
    }
}

/// 304 or 412, if a condition of the request asks for it. There are no entity tags, so only `*` ever matches one.
fn precondition(headers: &HeaderMap, modified: SystemTime) -> Option<StatusCode> {
    let tags = |name: HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    match tags(header::IF_MATCH) {
        Some(b"*") => {}
        Some(_) => return Some(StatusCode::PRECONDITION_FAILED),
        None => {
            if date(headers, header::IF_UNMODIFIED_SINCE).is_some_and(|since| seconds(modified) > seconds(since)) {
                return Some(StatusCode::PRECONDITION_FAILED);
            }
        }
    }
    match tags(header::IF_NONE_MATCH) {
        Some(b"*") => return Some(StatusCode::NOT_MODIFIED),
        Some(_) => {}
        None => {
            if date(headers, header::IF_MODIFIED_SINCE).is_some_and(|since| seconds(modified) <= seconds(since)) {
                return Some(StatusCode::NOT_MODIFIED);
            }
        }
    }
    None
}

/// Whether the `Range` header counts: not when `If-Range` names another date, or an entity tag.
fn range_is_valid(method: &Method, headers: &HeaderMap, modified: SystemTime) -> bool {
    if !headers.contains_key(header::IF_RANGE) || !matches!(*method, Method::GET | Method::HEAD) {
        return true;
    }
    date(headers, header::IF_RANGE).is_some_and(|known| seconds(known) == seconds(modified))
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let text = headers.get(name)?.to_str().ok()?;
    httpdate::parse_http_date(text).ok()
}

/// HTTP dates know no fractions.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or(0)
}

/// A `Range` header that gets 416.
#[derive(Debug)]
struct Unsatisfiable {
    message: &'static str,
    /// Whether the ranges are beyond the end, rather than no ranges at all.
    beyond: bool,
}

/// The one range to send; `None` for the whole.
fn wanted(headers: &HeaderMap, size: u64) -> Result<Option<Range<u64>>, Unsatisfiable> {
    let malformed = || Unsatisfiable {
        message: "invalid range",
        beyond: false,
    };
    let Some(value) = headers.get(header::RANGE) else {
        return Ok(None);
    };
    let list = value
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("bytes="))
        .ok_or_else(malformed)?;
    let mut ranges = Vec::new();
    let mut beyond = false;
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (first, last) = item.split_once('-').ok_or_else(malformed)?;
        match one(first.trim(), last.trim(), size).ok_or_else(malformed)? {
            Some(range) => ranges.push(range),
            None => beyond = true,
        }
    }
    match ranges.as_slice() {
        [] if beyond && size > 0 => Err(Unsatisfiable {
            message: "invalid range: failed to overlap",
            beyond: true,
        }),
        [range] if !range.is_empty() => Ok(Some(range.clone())),
        _ => Ok(None),
    }
}

/// One range: `None` if it is malformed, `Some(None)` if it begins beyond the end.
fn one(first: &str, last: &str, size: u64) -> Option<Option<Range<u64>>> {
    if first.is_empty() {
        let suffix: u64 = last.parse().ok()?;
        return Some(Some(size - suffix.min(size)..size));
    }
    let start: u64 = first.parse().ok()?;
    if start >= size {
        return Some(None);
    }
    if last.is_empty() {
        return Some(Some(start..size));
    }
    let end: u64 = last.parse().ok()?;
    (start <= end).then(|| Some(start..end.saturating_add(1).min(size)))
}
