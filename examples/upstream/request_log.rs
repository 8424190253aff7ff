//! What was asked, for tests that count requests and look at what a client sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use http::{HeaderMap, Method, header};

use super::fault::Target;

/// More are not kept: the program may run for long.
const LIMIT: usize = 10_000;

/// One request and how it was answered.
#[derive(Debug, Clone)]
pub struct RequestLog {
    /// The method.
    pub method: Method,
    /// Path and query as they were sent, token included.
    pub path_and_query: String,
    /// What it was for, if it is something that faults apply to.
    pub target: Option<Target>,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `If-Range` header.
    pub if_range: Option<String>,
    /// All headers of the request.
    pub headers: HeaderMap,
    /// The status of the answer; 0 while there is none.
    pub status: u16,
    /// How many bytes of the body went out so far.
    pub sent: u64,
}

/// A request in the making, shared with the body that is still being sent.
#[derive(Debug)]
pub struct Entry {
    method: Method,
    path_and_query: String,
    target: Option<Target>,
    headers: HeaderMap,
    status: AtomicU16,
    sent: AtomicU64,
}

impl Entry {
    /// A request that has not been answered yet.
    pub fn new(method: Method, path_and_query: String, target: Option<Target>, headers: HeaderMap) -> Self {
        Self {
            method,
            path_and_query,
            target,
            headers,
            status: AtomicU16::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// The status of its answer is known.
    pub fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// More bytes of the body are on their way.
    pub fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn snapshot(&self) -> RequestLog {
        let text = |name| {
            let value = self.headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        RequestLog {
            method: self.method.clone(),
            path_and_query: self.path_and_query.clone(),
            target: self.target,
            range: text(header::RANGE),
            if_range: text(header::IF_RANGE),
            headers: self.headers.clone(),
            status: self.status.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
        }
    }
}

/// The latest requests, in the order in which they came.
#[derive(Debug, Default)]
pub struct Requests {
    entries: VecDeque<Arc<Entry>>,
}

impl Requests {
    /// Adds a request and forgets the oldest if there are too many.
    pub fn push(&mut self, entry: Arc<Entry>) {
        if self.entries.len() == LIMIT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// All of them as they are now.
    pub fn snapshot(&self) -> Vec<RequestLog> {
        self.entries.iter().map(|entry| entry.snapshot()).collect()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
