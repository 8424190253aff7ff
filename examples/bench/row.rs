//! A row of the table: something to be measured, what it is compared with, and how good it is to be.

use std::rc::Rc;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use crate::lab::Lab;

/// Who is measured first: everything else is a peer.
pub const BRIDGE: &str = "bridge";

/// Names of metrics with their values, described by [`describe`].
pub type Figures = Vec<(&'static str, f64)>;

/// A row of the table.
pub struct Row {
    /// As `ROWS=` takes it.
    pub name: String,
    /// What is measured, for the table.
    pub what: String,
    /// What is to be reached.
    pub targets: Vec<Target>,
    /// Programs without which it cannot be measured at all; peers that can be left out are not among them.
    pub needs: &'static [&'static str],
    /// Prepares it.
    pub start: Start,
}

/// Starts what a row needs: files, upstream, servers that stay for all its rounds.
pub type Start = Box<dyn Fn(Rc<Lab>) -> LocalBoxFuture<'static, Result<Box<dyn Scenario>>>>;

/// A row that is ready to be measured.
pub trait Scenario {
    /// Who is measured in each round, one after the other; the bridge first. Peers that are not there are left out.
    fn subjects(&self) -> Vec<&'static str>;

    /// One measurement. A wrong answer is an error, not a figure.
    fn measure<'s>(&'s mut self, subject: &'static str) -> LocalBoxFuture<'s, Result<Figures>>;
}

/// What is to be reached.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The metric.
    pub metric: &'static str,
    /// Divided by the peer's figure of the same round; `None` for the figure itself.
    pub peer: Option<&'static str>,
    /// Where it is met.
    pub bound: Bound,
}

/// Where a target is met.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Target {
    /// Relative to a peer.
    pub fn to_peer(metric: &'static str, peer: &'static str, bound: Bound) -> Self {
        let peer = Some(peer);
        Self { metric, peer, bound }
    }

    /// By itself.
    pub fn alone(metric: &'static str, bound: Bound) -> Self {
        Self {
            metric,
            peer: None,
            bound,
        }
    }
}

impl Bound {
    /// Whether a value is within it.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

/// What a metric is, and its unit; every metric of every row is here.
pub fn describe(metric: &str) -> Option<(&'static str, &'static str)> {
    Some(match metric {
        "throughput" => ("throughput", "GB/s"),
        "cpu" => ("CPU of the server per GB", "s/GB"),
        "load-cpu" => ("CPU of the load program per GB", "s/GB"),
        "all-cpu" => ("CPU of server and load program per GB", "s/GB"),
        "time" => ("time until all are done", "s"),
        "first-byte" => ("first byte, slowest client", "s"),
        "fetched" => ("upstream bytes ÷ object", "×"),
        "requests" => ("requests", "1/s"),
        "request-cpu" => ("CPU of the server per request", "µs"),
        "request-load-cpu" => ("CPU of the load program per request", "µs"),
        "p50" => ("median latency", "ms"),
        "p99" => ("p99 latency", "ms"),
        "samples" => ("requests measured", ""),
        "memory" => ("RSS", "MB"),
        "memory-above-idle" => ("RSS above idle", "MB"),
        "peak-memory" => ("peak RSS", "MB"),
        "change-p50" => ("change to served script, median", "ms"),
        "change-p99" => ("change to served script, p99", "ms"),
        "rebuild" => ("rebuild of the inventory", "ms"),
        "failed" => ("failed or wrong answers", ""),
        _ => return None,
    })
}
