//! Everything that can keep a request from its answer. What it looks like to the client is decided in `api/problem.rs`.

use http::StatusCode;

use crate::boot::artifact::UnknownKind;
use crate::boot::mac::MacError;

use super::upstream::UpstreamError;

/// The longest path and query that is looked at, in bytes. iPXE's own are far below.
pub const MAX_TARGET: usize = 8 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The MAC address is none.
    BadMac(MacError),
    /// The kind of artifact is none.
    UnknownKind(UnknownKind),
    /// No such environment.
    UnknownEnvironment(String),
    /// Several environments have this name.
    Ambiguous(String, Vec<String>),
    /// The environment has no such artifact yet.
    NoArtifact(String),
    /// The first full list is not complete.
    NotReady(Vec<String>),
    /// An override with a limit is due and its boot was not counted.
    NotCounted(String, NotCounted),
    /// The machine is to wait.
    NotYet(String),
    /// The machine is to boot what comes next.
    NothingToBoot(String),
    /// Upstream's script is not served.
    ScriptProxyOff,
    /// Upstream gave no usable answer.
    Upstream(UpstreamError),
    /// The range begins behind the end.
    Range(Option<u64>),
    /// The `Host` header cannot be part of an address.
    BadHost,
    /// Too many watch the boots.
    TooManyWatchers,
    /// Path and query are too long.
    TargetTooLong(usize),
    /// No such route, wrong method and the like, as the framework says.
    Framework(StatusCode, String),
}

/// Why a boot was not counted, and so must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCounted {
    /// The machine booted it as often as it may.
    UsedUp,
    /// The count cannot be written.
    Unwritable(String),
}
