//! The last boots of each machine: the script, the files that were fetched for it, and what came of it. With what other replicas tell.
//!
//! Invariants: bounded, whatever asks; a file counts for a machine only if its address holds a signed id.

mod boot;
#[cfg(test)]
mod tests;
mod told;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::boot::mac::MacAddr;
use crate::boot::way::Way;

use super::boot_id::BootId;

pub use boot::{Boot, End, Outcome, Part, Step};
pub use told::Told;

/// Boots and files that are remembered in all, about 400 bytes each. Who was seen last stays.
const ENTRIES: usize = 100_000;
/// Boots of one machine.
const BOOTS: usize = 8;
/// Files of one boot; a machine that tries again and again does not grow.
const STEPS: usize = 48;

/// What a script was and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// What boots: `Environment`, `LocalDisk`, …
    pub boots: Cow<'static, str>,
    /// The environment, if one boots.
    pub environment: Option<String>,
    /// The rule that decided.
    pub rule: String,
    /// The override that decided, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_override: Option<String>,
    /// Why.
    pub reason: String,
    /// Address of the connection that asked.
    pub client: String,
    /// How the machine came, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
}

/// The last boots of each machine.
#[derive(Debug, Default)]
pub struct Timeline {
    memory: Mutex<Memory>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Memory {
    machines: HashMap<MacAddr, VecDeque<Boot>>,
    /// Boots and files of all of them.
    entries: usize,
}

impl Memory {
    fn add(&mut self, boot: Boot) {
        self.entries += boot.entries();
        let boots = self.machines.entry(boot.mac).or_default();
        // The last one first; what another replica tells may have happened before.
        let place = boots.iter().take_while(|other| other.begun > boot.begun).count();
        boots.insert(place, boot);
        if boots.len() > BOOTS {
            self.entries -= boots.pop_back().map_or(0, |oldest| oldest.entries());
        }
        if self.entries > ENTRIES {
            self.forget();
        }
    }

    /// Several at once, so that a flood does not look through all of them for each. Machines that fetched nothing go first: a script costs
    /// whoever invents addresses nothing.
    fn forget(&mut self) {
        let rank = |boots: &VecDeque<Boot>| boots.front().map(|boot| (!boot.steps.is_empty(), boot.last_sign()));
        let mut ranks: Vec<_> = self.machines.iter().map(|(mac, boots)| (rank(boots), *mac)).collect();
        ranks.sort_unstable();
        for (_, mac) in ranks {
            if self.entries <= ENTRIES - ENTRIES / 16 {
                return;
            }
            let gone = self.machines.remove(&mac).unwrap_or_default();
            self.entries -= gone.iter().map(Boot::entries).sum::<usize>();
        }
    }
}

impl Timeline {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of new boots and steps, and of their ends; not of every byte.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// A machine got a script.
    pub fn script(&self, id: &BootId, script: Script, now: Timestamp) {
        self.lock().add(Boot::new(id, Some(script), now));
        self.changes.send_replace(());
    }

    /// A machine fetches a file, for a boot that may have begun at another replica.
    pub fn step(&self, id: &BootId, step: Step, now: Timestamp) -> Arc<Step> {
        let step = Arc::new(step);
        self.note(id, now, |boot| boot.add(step.clone()));
        step
    }

    /// A machine asked for a file that upstream would not give.
    pub fn refused(&self, id: &BootId, step: Step, now: Timestamp) {
        self.note(id, now, |boot| boot.refuse(step, now));
    }

    fn note(&self, id: &BootId, now: Timestamp, change: impl FnOnce(&mut Boot)) {
        let mut memory = self.lock();
        let boots = memory.machines.get_mut(&id.mac);
        match boots.and_then(|boots| boots.iter_mut().find(|boot| boot.trace == id.trace)) {
            Some(boot) => {
                let before = boot.entries();
                change(boot);
                let more = boot.entries() - before;
                memory.entries += more;
            }
            None => {
                let mut boot = Boot::new(id, None, now);
                change(&mut boot);
                memory.add(boot);
            }
        }
        drop(memory);
        self.changes.send_replace(());
    }

    /// Everything that was seen here itself, of boots of which something moved since then.
    pub fn tell(&self, since: i64) -> Vec<Told> {
        let memory = self.lock();
        let boots = memory.machines.values().flatten();
        boots.filter(|boot| boot.last_sign() >= since).filter_map(Told::of).collect()
    }

    /// Another server tells what it saw.
    pub fn hear(&self, process: &str, told: Vec<Told>) {
        let mut is_news = false;
        for told in told {
            let Some(new) = told.boot() else { continue };
            let (mac, trace) = (new.mac, new.trace);
            let mut memory = self.lock();
            let known = |boot: &Boot| boot.trace == trace;
            if !memory.machines.get(&mac).is_some_and(|boots| boots.iter().any(known)) {
                memory.add(new);
            }
            let boots = memory.machines.get_mut(&mac);
            let Some(boot) = boots.and_then(|boots| boots.iter_mut().find(|boot| known(boot))) else {
                continue;
            };
            let before = boot.entries();
            is_news |= boot.hear(process, &told);
            let after = boot.entries();
            memory.entries = memory.entries + after - before;
        }
        if is_news {
            self.changes.send_replace(());
        }
    }

    /// Another server is gone, and with it what it was sending.
    pub fn lost(&self, process: &str, now: Timestamp) {
        let memory = self.lock();
        let steps = memory.machines.values().flatten().flat_map(|boot| &boot.steps);
        for step in steps.filter(|step| step.origin.as_deref() == Some(process)) {
            step.end(End::Broken, now);
        }
        drop(memory);
        self.changes.send_replace(());
    }

    /// A step ended.
    pub fn ended(&self) {
        self.changes.send_replace(());
    }

    /// The boots of a machine, the last one first, each with what came of it.
    pub fn of(&self, mac: MacAddr, now: Timestamp) -> Vec<(Boot, Outcome)> {
        let memory = self.lock();
        let boots = memory.machines.get(&mac).into_iter().flatten().enumerate();
        boots.map(|(index, boot)| (boot.clone(), judged(index, boot, now))).collect()
    }

    /// Looks at the last boot of each machine, in no order. Nothing is copied, and everybody else waits meanwhile.
    pub fn each(&self, now: Timestamp, mut look: impl FnMut(&Boot, Outcome)) {
        let memory = self.lock();
        let last = memory.machines.values().filter_map(VecDeque::front);
        last.for_each(|boot| look(boot, boot.outcome(now)));
    }

    /// Those of the last boot of each machine that are wanted, the latest sign of life first, and so many at most.
    pub fn last(&self, now: Timestamp, most: usize, mut wanted: impl FnMut(&Boot, Outcome) -> bool) -> Vec<(Boot, Outcome)> {
        let memory = self.lock();
        let last = memory.machines.values().filter_map(VecDeque::front);
        let mut last: Vec<(&Boot, Outcome)> = last.map(|boot| (boot, boot.outcome(now))).collect();
        last.retain(|(boot, outcome)| wanted(boot, *outcome));
        last.sort_by_cached_key(|(boot, _)| Reverse(boot.last_sign()));
        last.truncate(most);
        last.into_iter().map(|(boot, outcome)| (boot.clone(), outcome)).collect()
    }

    /// Boots that came to an end since the last call, only by the server that gave the script. One that was given up and then went on
    /// comes again, with its other end.
    pub fn settle(&self, now: Timestamp) -> Vec<(Boot, Outcome)> {
        let mut settled = Vec::new();
        for boots in self.lock().machines.values_mut() {
            for (index, boot) in boots.iter_mut().enumerate().filter(|(_, boot)| boot.is_own) {
                let outcome = judged(index, boot, now);
                // That a machine asks anew says nothing new of a boot that was given up already.
                let is_known = boot.settled == Some(outcome) || boot.settled.is_some() && outcome == Outcome::Aborted && index > 0;
                if outcome != Outcome::Running && !is_known {
                    boot.settled = Some(outcome);
                    settled.push((boot.clone(), outcome));
                }
            }
        }
        settled
    }
}

/// A machine that asked anew has given up what it did before.
fn judged(index: usize, boot: &Boot, now: Timestamp) -> Outcome {
    match boot.outcome(now) {
        Outcome::Running | Outcome::Stalled if index > 0 => Outcome::Aborted,
        outcome => outcome,
    }
}
