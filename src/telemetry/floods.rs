//! A flood of requests is no flood of the log: of the same line about the same machine only so many are written, and then how many were not.
//!
//! Invariant: bounded in memory, whatever is logged; nothing at level `debug` and below is held back, since somebody asked for all of it.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::{Debug, Write as _};
use std::hash::{Hash, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of one kind about one machine: so many at once, then so many a second.
const OF_ONE: Rate = Rate {
    burst: 30.0,
    second: 0.5,
};
/// Lines of one kind in all. Ten thousand machines that boot within a minute stay below it.
const OF_ALL: Rate = Rate {
    burst: 2000.0,
    second: 200.0,
};
/// Machines that are told apart; beyond that all begin anew.
const MACHINES: usize = 10_000;
/// How often it is said how many lines were left out.
const REPORT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: f64,
    second: f64,
}

/// What is left of a rate.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    since: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self {
            left: rate.burst,
            since: now,
        }
    }

    fn admit(&mut self, rate: Rate, now: Instant) -> bool {
        let grown = now.saturating_duration_since(self.since).as_secs_f64() * rate.second;
        self.left = (self.left + grown).min(rate.burst);
        self.since = now;
        let is_admitted = self.left >= 1.0;
        if is_admitted {
            self.left -= 1.0;
        }
        is_admitted
    }
}

#[derive(Debug, Default)]
struct Buckets {
    of_all: HashMap<u64, Bucket>,
    of_one: HashMap<(u64, u64), Bucket>,
    left_out: u64,
}

impl Buckets {
    /// Whether a line is written.
    fn admit(&mut self, kind: u64, machine: Option<u64>, now: Instant) -> bool {
        if self.of_one.len() >= MACHINES {
            self.of_one.clear();
        }
        let one = machine.is_none_or(|machine| {
            let bucket = self.of_one.entry((kind, machine));
            bucket.or_insert_with(|| Bucket::full(OF_ONE, now)).admit(OF_ONE, now)
        });
        let all = self.of_all.entry(kind).or_insert_with(|| Bucket::full(OF_ALL, now));
        let is_admitted = one && all.admit(OF_ALL, now);
        self.left_out += u64::from(!is_admitted);
        is_admitted
    }
}

/// Holds back what is too much.
#[derive(Debug, Clone, Default)]
pub struct Floods(Arc<Mutex<Buckets>>);

impl Floods {
    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says from time to time how many lines were left out. The thread ends with the process.
    pub fn report(&self) {
        let floods = self.clone();
        let report = move || loop {
            std::thread::sleep(REPORT);
            let lines = std::mem::take(&mut floods.lock().left_out);
            if lines > 0 {
                tracing::warn!(
                    lines,
                    "lines were left out of the log: too many of the same kind; the metrics count everything"
                );
            }
        };
        let started = std::thread::Builder::new().name("log-floods".to_owned()).spawn(report);
        if let Err(error) = started {
            tracing::warn!(%error, "it is not said when lines are left out of the log");
        }
    }
}

impl<S: Subscriber> Filter<S> for Floods {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        // What is always enabled is not asked for again, and then `event_enabled` is out of step with the other layers.
        Interest::sometimes()
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut machine = Machine::default();
        event.record(&mut machine);
        let machine = machine.mac.or(machine.client);
        self.lock().admit(hashed(&metadata.callsite()), machine, Instant::now())
    }
}

fn hashed(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Which machine a line is about: by its MAC address, or by the address of its connection.
#[derive(Debug, Default)]
struct Machine {
    mac: Option<u64>,
    client: Option<u64>,
}

impl Visit for Machine {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if matches!(field.name(), "mac" | "client") {
            let mut text = String::new();
            // Writing to a String cannot fail.
            let _ = write!(text, "{value:?}");
            self.record_str(field, &text);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "mac" => self.mac = Some(hashed(value)),
            "client" => self.client = Some(hashed(value)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_is_held_back_and_the_others_are_not() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let written = (0..1000).filter(|_| buckets.admit(7, Some(1), start)).count();
        assert_eq!((written, buckets.left_out), (30, 970));
        assert!(buckets.admit(7, Some(2), start));
        assert!(
            buckets.admit(7, Some(1), start + Duration::from_secs(2)),
            "after a while it is written again"
        );
    }

    #[test]
    fn a_flood_of_invented_machines_is_held_back_and_takes_no_memory() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let written = (0..100_000).filter(|machine| buckets.admit(7, Some(*machine), start)).count();
        assert_eq!(written, 2000);
        assert!(buckets.of_one.len() <= MACHINES);
    }
}
