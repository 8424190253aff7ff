//! Ranges and validators of RFC 9110, as far as an artifact needs them. Pure.
//!
//! Upstream's kernel and rootfs have a `Last-Modified` and no `ETag`, and only the date tells two builds of the same length apart. The
//! bridge makes an entity tag of date and length, from which it reads the date again when a client comes back with it: no state.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderValue};

/// One range of bytes as a client asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=FIRST-` or `bytes=FIRST-LAST`.
    From(u64, Option<u64>),
    /// `bytes=-COUNT`: the last bytes.
    Last(u64),
}

impl ByteRange {
    /// From a position to a position, both included.
    pub fn from_to(first: u64, last: u64) -> Self {
        Self::From(first, Some(last))
    }

    /// Reads a `Range` header. Several ranges, other units and anything malformed are `None`: a server may ignore them and send the
    /// whole (RFC 9110, 14.2).
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
        let number = |text: &str| -> Option<u64> { text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())? };
        match (first, last) {
            ("", count) => Some(Self::Last(number(count)?)),
            (first, "") => Some(Self::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// First and last position within `total` bytes; `None` if there are none.
    pub fn within(self, total: u64) -> Option<(u64, u64)> {
        match self {
            Self::From(first, last) => (first < total).then(|| (first, last.unwrap_or(u64::MAX).min(total - 1))),
            Self::Last(count) => (count > 0 && total > 0).then(|| (total.saturating_sub(count), total - 1)),
        }
    }

    /// The `Range` header.
    pub fn header(self) -> HeaderValue {
        ascii(match self {
            Self::From(first, None) => format!("bytes={first}-"),
            Self::From(first, Some(last)) => format!("bytes={first}-{last}"),
            Self::Last(count) => format!("bytes=-{count}"),
        })
    }
}

/// A `Content-Range` of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// Position of the first byte.
    pub first: u64,
    /// Position of the last byte.
    pub last: u64,
    /// Length of the whole.
    pub total: u64,
}

impl ContentRange {
    /// Reads it from the headers of a 206; `None` if it is missing or contradicts itself.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let (range, total) = Self::halves(headers)?;
        let (first, last) = range.split_once('-')?;
        let range = Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
            total: total.parse().ok()?,
        };
        (range.first <= range.last && range.last < range.total).then_some(range)
    }

    /// The whole length that a 416 tells (`bytes */N`).
    pub fn unsatisfied_total(headers: &HeaderMap) -> Option<u64> {
        match Self::halves(headers)? {
            ("*", total) => total.parse().ok(),
            _ => None,
        }
    }

    fn halves(headers: &HeaderMap) -> Option<(&str, &str)> {
        let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
        text.strip_prefix("bytes ")?.split_once('/')
    }

    /// The header's text.
    pub fn text(self) -> String {
        format!("bytes {}-{}/{}", self.first, self.last, self.total)
    }
}

/// What tells one build of an artifact from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validator {
    /// A strong entity tag of upstream's.
    Tag(HeaderValue),
    /// Upstream's date, and the length if it is known.
    Date(SystemTime, Option<u64>),
}

impl Validator {
    /// The validator of an answer: a strong `ETag`, otherwise `Last-Modified`.
    pub fn of_response(headers: &HeaderMap) -> Option<Self> {
        if let Some(tag) = headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) {
            return Some(Self::Tag(tag.clone()));
        }
        let date = httpdate::parse_http_date(headers.get(header::LAST_MODIFIED)?.to_str().ok()?).ok()?;
        let length = match ContentRange::of(headers) {
            Some(part) => Some(part.total),
            None => headers
                .get(header::CONTENT_LENGTH)
                .and_then(|length| length.to_str().ok()?.parse().ok()),
        };
        Some(Self::Date(date, length))
    }

    /// Reads an `If-Range` or `If-None-Match` header of a client; `None` if it names no build this bridge can have sent.
    pub fn of_client(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(date) = httpdate::parse_http_date(text) {
            return Some(Self::Date(date, None));
        }
        let tag = text.strip_prefix('"')?.strip_suffix('"')?;
        let ours = tag.split_once('-').and_then(|(date, length)| {
            let seconds = u64::from_str_radix(date, 16).ok()?;
            let length = u64::from_str_radix(length, 16).ok()?;
            let date = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
            // A date beyond the year 9999 has no HTTP form.
            (seconds < 253_402_300_800).then_some(Self::Date(date, Some(length)))
        });
        ours.or_else(|| HeaderValue::from_str(text).ok().map(Self::Tag))
    }

    /// Whether a client that names this has the build.
    pub fn names(&self, build: &Self) -> bool {
        match (self, build) {
            (Self::Date(named, None), Self::Date(date, _)) => named == date,
            (named, build) => named == build,
        }
    }

    /// For a request to upstream: an `If-Range` header.
    pub fn header(&self) -> HeaderValue {
        match self {
            Self::Tag(tag) => tag.clone(),
            Self::Date(date, _) => ascii(httpdate::fmt_http_date(*date)),
        }
    }

    /// For a request to upstream: the header that asks for an answer only if the build is another one.
    pub fn if_none_match(&self, headers: &mut HeaderMap) {
        let name = match self {
            Self::Tag(_) => header::IF_NONE_MATCH,
            Self::Date(..) => header::IF_MODIFIED_SINCE,
        };
        headers.insert(name, self.header());
    }

    /// For the client: the entity tag.
    pub fn entity_tag(&self) -> Option<String> {
        match self {
            Self::Tag(tag) => tag.to_str().ok().map(str::to_owned),
            Self::Date(date, length) => {
                let seconds = date.duration_since(UNIX_EPOCH).ok()?.as_secs();
                length.map(|length| format!("\"{seconds:x}-{length:x}\""))
            }
        }
    }

    /// For the client: the date.
    pub fn last_modified(&self) -> Option<String> {
        match self {
            Self::Tag(_) => None,
            Self::Date(date, _) => Some(httpdate::fmt_http_date(*date)),
        }
    }
}

/// A header value of text that was just made of digits, letters and fixed punctuation.
fn ascii(text: String) -> HeaderValue {
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_wants() {
        for (text, range) in [
            ("bytes=0-0", Some(ByteRange::From(0, Some(0)))),
            ("bytes=5-9", Some(ByteRange::From(5, Some(9)))),
            ("bytes=5-", Some(ByteRange::From(5, None))),
            ("bytes=-5", Some(ByteRange::Last(5))),
            ("bytes=9-5", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("bytes=a-b", None),
            ("lines=1-2", None),
            ("foo", None),
            ("bytes=99999999999999999999-", None),
        ] {
            assert_eq!(ByteRange::parse(text), range, "{text}");
        }
        assert_eq!(ByteRange::From(5, Some(99)).within(10), Some((5, 9)));
        assert_eq!(ByteRange::From(10, None).within(10), None);
        assert_eq!(ByteRange::Last(99).within(10), Some((0, 9)));
        assert_eq!(ByteRange::Last(0).within(10), None);
    }

    #[test]
    fn a_tag_made_of_a_date_gives_the_date_back() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::LAST_MODIFIED,
            HeaderValue::from_static("Mon, 23 Nov 2026 22:50:00 GMT"),
        );
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("105910784"));
        let validator = Validator::of_response(&headers).expect("a date");
        let tag = validator.entity_tag().expect("a tag");
        assert_eq!(Validator::of_client(&tag), Some(validator.clone()));
        assert_eq!(validator.header(), "Mon, 23 Nov 2026 22:50:00 GMT");
        assert_eq!(
            Validator::of_client("\"other\""),
            Some(Validator::Tag(HeaderValue::from_static("\"other\"")))
        );
        for text in ["W/\"x\"", "*", "", "x", "\"ffffffffffffffff-1\""] {
            assert!(!matches!(Validator::of_client(text), Some(Validator::Date(..))), "{text}");
        }
    }
}
