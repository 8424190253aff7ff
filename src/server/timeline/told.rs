//! A boot as one server tells it to another. No clock.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::boot::artifact::ArtifactKind;
use crate::boot::mac::MacAddr;
use crate::server::metrics::CacheResult;

use super::Script;
use super::boot::{Boot, End, Part, Step};

/// What a server saw itself of a boot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    mac: String,
    trace: [u8; 16],
    is_sampled: bool,
    begun: Timestamp,
    script: Option<Script>,
    steps: Vec<ToldStep>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ToldStep {
    number: u64,
    kind: String,
    client: String,
    first: u64,
    length: Option<u64>,
    is_tail: bool,
    cache: Option<String>,
    begun: Timestamp,
    bytes: u64,
    moved: i64,
    end: Option<(String, Timestamp)>,
}

impl Told {
    /// What was seen here: not what others told.
    pub(super) fn of(boot: &Boot) -> Option<Self> {
        let steps: Vec<_> = boot
            .steps
            .iter()
            .filter(|step| step.origin.is_none())
            .map(|step| ToldStep::of(step))
            .collect();
        let script = boot.script.as_deref().filter(|_| boot.is_own).cloned();
        (script.is_some() || !steps.is_empty()).then(|| Self {
            mac: boot.mac.to_string(),
            trace: boot.trace,
            is_sampled: boot.is_sampled,
            begun: boot.begun,
            script,
            steps,
        })
    }

    /// A boot of which nothing is known here; `None` if it makes no sense.
    pub(super) fn boot(&self) -> Option<Boot> {
        let mac: MacAddr = self.mac.parse().ok()?;
        Some(Boot::heard(mac, self.trace, self.is_sampled, self.begun))
    }

    /// The script, if the other gave it.
    pub(super) fn script(&self) -> Option<&Script> {
        self.script.as_ref()
    }

    /// When the other gave the script, or saw the first file.
    pub(super) fn begun(&self) -> Timestamp {
        self.begun
    }

    /// Files that the other sent; what makes no sense is left out.
    pub(super) fn steps(&self, process: &str) -> impl Iterator<Item = Step> {
        self.steps.iter().filter_map(|step| step.step(process))
    }
}

impl ToldStep {
    fn of(step: &Step) -> Self {
        Self {
            number: step.number,
            kind: step.kind.to_string(),
            client: step.client.clone(),
            first: step.part.first,
            length: step.part.length,
            is_tail: step.part.is_tail,
            cache: step.cache.map(|cache| cache.to_string()),
            begun: step.begun,
            bytes: step.bytes(),
            moved: step.last_sign(),
            end: step.ended().map(|(end, at)| (end.to_string(), at)),
        }
    }

    fn step(&self, process: &str) -> Option<Step> {
        let kind: ArtifactKind = self.kind.parse().ok()?;
        let cache: Option<CacheResult> = self.cache.as_deref().map(str::parse).transpose().ok()?;
        let part = Part {
            first: self.first,
            length: self.length,
            is_tail: self.is_tail,
        };
        let step = Step::new(kind, self.client.clone(), part, cache, self.begun).of(process, self.number);
        let moved = Timestamp::from_second(self.moved).ok()?;
        step.sent(self.bytes, moved);
        if let Some((end, at)) = &self.end {
            step.end(end.parse::<End>().ok()?, *at);
        }
        Some(step)
    }
}
