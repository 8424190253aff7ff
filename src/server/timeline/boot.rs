//! One boot of one machine, and what came of it. No clock: the time is told.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use strum::{Display, EnumString, VariantArray};

use crate::boot::artifact::ArtifactKind;
use crate::boot::mac::MacAddr;
use crate::server::boot_id::BootId;
use crate::server::cache::store::hex;
use crate::server::metrics::CacheResult;

use super::{STEPS, Script, Told};

/// A transfer of which no byte was taken for so long, in seconds, stands still.
const STALL: i64 = 60;
/// A machine between two files may be unpacking, or waiting for its network.
const PATIENCE: i64 = 180;
/// Who stood still for so long was turned off, or boots something else by now.
const LOST: i64 = 3600;

/// Numbers of steps.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// One boot of one machine.
#[derive(Debug, Clone)]
pub struct Boot {
    /// The machine.
    pub mac: MacAddr,
    /// Its trace.
    pub trace: [u8; 16],
    /// Whether the trace is collected.
    pub is_sampled: bool,
    /// When the script was given.
    pub begun: Timestamp,
    /// The script; `None` if another replica gave it.
    pub script: Option<Arc<Script>>,
    /// Files that were fetched, in their order.
    pub steps: VecDeque<Arc<Step>>,
    /// Whether this server gave the script.
    pub is_own: bool,
    /// The last outcome that was counted.
    pub(super) settled: Option<Outcome>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, EnumString)]
pub enum End {
    /// Every byte was sent.
    Complete,
    /// The machine left.
    Left,
    /// The bridge or upstream could not go on.
    Broken,
    /// Upstream gave an error before the first byte.
    Refused,
}

/// What came of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Display, VariantArray)]
pub enum Outcome {
    /// It is on its way.
    Running,
    /// The machine has its root file system.
    Complete,
    /// The machine broke off, or asked anew.
    Aborted,
    /// Nothing moves, and nothing more was asked for.
    Stalled,
    /// It was sent to its own disk.
    LocalDisk,
    /// It got a script of which the bridge sees nothing further.
    Script,
}

/// Which bytes of a file an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// Position of the first byte.
    pub first: u64,
    /// Bytes of the answer, where that is known.
    pub length: Option<u64>,
    /// Whether it has the last byte of the file.
    pub is_tail: bool,
}

/// A file on its way to a machine.
#[derive(Debug)]
pub struct Step {
    /// The server that tells of it; `None` if it is this one.
    pub origin: Option<String>,
    /// Its number among those of the server.
    pub number: u64,
    /// Which.
    pub kind: ArtifactKind,
    /// Address of the connection.
    pub client: String,
    /// Which bytes of it.
    pub part: Part,
    /// What the cache had to do with it.
    pub cache: Option<CacheResult>,
    /// When it began.
    pub begun: Timestamp,
    bytes: AtomicU64,
    moved: AtomicI64,
    end: OnceLock<(End, Timestamp)>,
}

impl Step {
    /// One that begins now.
    pub fn new(kind: ArtifactKind, client: String, part: Part, cache: Option<CacheResult>, now: Timestamp) -> Self {
        Self {
            origin: None,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            kind,
            client,
            part,
            cache,
            begun: now,
            bytes: AtomicU64::new(0),
            moved: AtomicI64::new(now.as_second()),
            end: OnceLock::new(),
        }
    }

    /// The same, as another server tells of it.
    pub(super) fn of(self, process: &str, number: u64) -> Self {
        Self {
            origin: Some(process.to_owned()),
            number,
            ..self
        }
    }

    /// Further bytes were handed to the connection.
    pub fn sent(&self, bytes: u64, now: Timestamp) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.moved.store(now.as_second(), Ordering::Relaxed);
    }

    /// It is over.
    pub fn end(&self, end: End, now: Timestamp) {
        // Only the first end counts.
        let _ = self.end.set((end, now));
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How and when it ended.
    pub fn ended(&self) -> Option<(End, Timestamp)> {
        self.end.get().copied()
    }

    /// The last sign of life, in seconds since 1970.
    pub(super) fn last_sign(&self) -> i64 {
        let ended = self.end.get().map_or(i64::MIN, |(_, at)| at.as_second());
        self.moved.load(Ordering::Relaxed).max(ended)
    }
}

impl Boot {
    pub(super) fn new(id: &BootId, script: Option<Script>, now: Timestamp) -> Self {
        Self {
            mac: id.mac,
            trace: id.trace,
            is_sampled: id.is_sampled,
            begun: now,
            is_own: script.is_some(),
            script: script.map(Arc::new),
            steps: VecDeque::new(),
            settled: None,
        }
    }

    /// One that another server tells of.
    pub(super) fn heard(mac: MacAddr, trace: [u8; 16], is_sampled: bool, begun: Timestamp) -> Self {
        Self {
            mac,
            trace,
            is_sampled,
            begun,
            script: None,
            steps: VecDeque::new(),
            is_own: false,
            settled: None,
        }
    }

    /// Takes what another server tells; whether any of it is new.
    pub(super) fn hear(&mut self, process: &str, told: &Told) -> bool {
        let mut is_news = false;
        if let Some(script) = told.script().filter(|_| self.script.is_none()) {
            self.script = Some(Arc::new(script.clone()));
            self.begun = told.begun();
            is_news = true;
        }
        for step in told.steps(process) {
            let is_same = |known: &&mut Arc<Step>| known.origin == step.origin && known.number == step.number;
            // It had to go for later ones.
            let has_gone = self.steps.len() == STEPS && self.steps.front().is_some_and(|first| step.begun <= first.begun);
            match self.steps.iter_mut().find(is_same) {
                Some(known) if (known.bytes(), known.ended()) == (step.bytes(), step.ended()) => {}
                Some(known) => {
                    *known = Arc::new(step);
                    is_news = true;
                }
                None if has_gone => {}
                None => {
                    self.add(Arc::new(step));
                    is_news = true;
                }
            }
        }
        is_news
    }

    pub(super) fn add(&mut self, step: Arc<Step>) {
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        let place = self.steps.iter().take_while(|other| other.begun <= step.begun).count();
        self.steps.insert(place, step);
    }

    /// A file could not be sent. However often the machine asks for it again meanwhile, it is one step.
    pub(super) fn refuse(&mut self, step: Step, now: Timestamp) {
        let is_same = |last: &&mut Arc<Step>| {
            last.kind == step.kind && last.origin.is_none() && matches!(last.ended(), Some((End::Refused, _)))
        };
        step.end(End::Refused, now);
        match self.steps.back_mut().filter(is_same) {
            Some(last) => {
                *last = Arc::new(Step {
                    number: last.number,
                    begun: last.begun,
                    ..step
                });
            }
            None => self.add(Arc::new(step)),
        }
    }

    /// Its trace as text.
    pub fn trace_text(&self) -> String {
        hex(&self.trace)
    }

    /// How much it takes to remember it.
    pub(super) fn entries(&self) -> usize {
        1 + self.steps.len()
    }

    /// The last sign of life, in seconds since 1970.
    pub fn last_sign(&self) -> i64 {
        let steps = self.steps.iter().map(|step| step.last_sign());
        steps.max().unwrap_or(i64::MIN).max(self.begun.as_second())
    }

    /// Whether a file is on its way.
    pub fn is_open(&self) -> bool {
        self.steps.iter().any(|step| step.ended().is_none())
    }

    /// Whether it goes on, or stands still and did not for long.
    pub fn is_in_progress(&self, outcome: Outcome, now: Timestamp) -> bool {
        match outcome {
            Outcome::Running => true,
            Outcome::Stalled => now.as_second() - self.last_sign() <= LOST,
            _ => false,
        }
    }

    /// Differs from what it was before, unless only time went by.
    pub fn fingerprint(&self, outcome: Outcome) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.trace, outcome, self.script.is_some()).hash(&mut hasher);
        for step in &self.steps {
            (&step.origin, step.number, step.bytes(), step.ended()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// What came of it so far.
    pub fn outcome(&self, now: Timestamp) -> Outcome {
        match self.script.as_ref().map(|script| &*script.boots) {
            None | Some("Environment") => {}
            Some("LocalDisk") => return Outcome::LocalDisk,
            Some(_) => return Outcome::Script,
        }
        let has_rootfs = self
            .steps
            .iter()
            .any(|step| step.kind == ArtifactKind::Rootfs && step.part.is_tail && matches!(step.ended(), Some((End::Complete, _))));
        if has_rootfs {
            return Outcome::Complete;
        }
        let quiet = now.as_second() - self.last_sign();
        let last_end = self.steps.back().and_then(|step| step.ended());
        match (self.is_open(), last_end) {
            (true, _) if quiet <= STALL => Outcome::Running,
            (true, _) => Outcome::Stalled,
            (false, _) if quiet <= PATIENCE => Outcome::Running,
            (false, Some((End::Left | End::Broken | End::Refused, _))) => Outcome::Aborted,
            (false, _) => Outcome::Stalled,
        }
    }
}
