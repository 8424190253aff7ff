//! Which bytes of a held build a request is to get, and whether they come soon enough.

use std::time::Duration;

use crate::server::transfer::Wanted;
use crate::server::validator::{ContentRange, Validator};

use super::held::{Build, Held, Progress};

/// A range that the fill reaches within this time waits for it, a later one is fetched by itself.
const AHEAD: Duration = Duration::from_secs(5);
/// Before this nothing is known of a fill's speed.
const SPEED_KNOWN: Duration = Duration::from_secs(1);

/// Waits until a position can be read, or says that this would take too long.
pub async fn will_reach(held: &Held, position: u64) -> bool {
    let mut news = held.watch();
    loop {
        let Progress::Filling(bytes) = *news.borrow_and_update() else {
            return true;
        };
        if position <= bytes {
            return true;
        }
        let age = held.since.elapsed();
        let seconds = (position - bytes) as f64 * age.as_secs_f64() / bytes.max(1) as f64;
        if age > SPEED_KNOWN && seconds > AHEAD.as_secs_f64() {
            return false;
        }
        let _ = tokio::time::timeout(Duration::from_millis(250), news.changed()).await;
    }
}

/// What of a build a request is to get.
#[derive(Debug, PartialEq, Eq)]
pub enum Chosen {
    /// 304.
    NotModified,
    /// 416.
    Unsatisfiable,
    /// All of it.
    Whole,
    /// A part of it.
    Part(ContentRange),
}

/// RFC 9110, 13.2.2: conditions first, then the range.
pub fn choose(wanted: &Wanted, build: &Build) -> Chosen {
    let is_known = match (&wanted.if_none_match, &wanted.if_modified_since, &build.validator) {
        (Some(known), _, validator) => known.names(validator),
        (None, Some(since), Validator::Date(date, _)) => {
            let since = since.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
            since.is_some_and(|since| *date <= since)
        }
        _ => false,
    };
    if is_known {
        return Chosen::NotModified;
    }
    let is_meant = wanted.if_range.as_ref().is_none_or(|named| named.names(&build.validator));
    match wanted.range.filter(|_| is_meant && !wanted.head) {
        None => Chosen::Whole,
        Some(range) => match range.within(build.length) {
            None => Chosen::Unsatisfiable,
            Some((first, last)) => Chosen::Part(ContentRange {
                first,
                last,
                total: build.length,
            }),
        },
    }
}
