//! The last boots of each machine: the script, the files that were fetched for it, and what came of it. With what other replicas tell.
//!
//! Invariants: bounded, whatever asks; a file counts for a machine only if its address holds a signed id.

mod boot;
mod told;

use std::borrow::Cow;
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
        let mut memory = self.lock();
        let boots = memory.machines.get_mut(&id.mac);
        match boots.and_then(|boots| boots.iter_mut().find(|boot| boot.trace == id.trace)) {
            Some(boot) => {
                let before = boot.entries();
                boot.add(step.clone());
                let more = boot.entries() - before;
                memory.entries += more;
            }
            None => {
                let mut boot = Boot::new(id, None, now);
                boot.add(step.clone());
                memory.add(boot);
            }
        }
        drop(memory);
        self.changes.send_replace(());
        step
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

    /// A step ended.
    pub fn ended(&self) {
        self.changes.send_replace(());
    }

    /// The boots of a machine, the last one first, each with what came of it.
    pub fn of(&self, mac: MacAddr, now: Timestamp) -> Vec<(Boot, Outcome)> {
        self.lock()
            .machines
            .get(&mac)
            .map(|boots| judged(boots, now))
            .unwrap_or_default()
    }

    /// The last boot of each machine, the latest sign of life first.
    pub fn last(&self, now: Timestamp) -> Vec<(Boot, Outcome)> {
        let mut last: Vec<(Boot, Outcome)> = self
            .lock()
            .machines
            .values()
            .filter_map(|boots| {
                let boot = boots.front()?;
                Some((boot.clone(), boot.outcome(now)))
            })
            .collect();
        last.sort_by_key(|(boot, _)| std::cmp::Reverse(boot.last_sign()));
        last
    }

    /// Boots that came to an end since the last call, each once, and only by the server that gave the script.
    pub fn settle(&self, now: Timestamp) -> Vec<(Boot, Outcome)> {
        let mut settled = Vec::new();
        for boots in self.lock().machines.values_mut() {
            let judged = judged(boots, now);
            for (boot, (copy, outcome)) in boots.iter_mut().zip(judged) {
                if outcome != Outcome::Running && boot.is_own && !boot.is_settled {
                    boot.is_settled = true;
                    settled.push((copy, outcome));
                }
            }
        }
        settled
    }
}

/// A machine that asked anew has given up what it did before.
fn judged(boots: &VecDeque<Boot>, now: Timestamp) -> Vec<(Boot, Outcome)> {
    boots
        .iter()
        .enumerate()
        .map(|(index, boot)| {
            let outcome = match boot.outcome(now) {
                Outcome::Running | Outcome::Stalled if index > 0 => Outcome::Aborted,
                outcome => outcome,
            };
            (boot.clone(), outcome)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::artifact::ArtifactKind;
    use crate::server::boot_id::random;

    fn begin(kind: ArtifactKind, length: Option<u64>, now: i64) -> Step {
        let part = boot::Part {
            first: 0,
            length,
            is_tail: true,
        };
        Step::new(kind, String::new(), part, None, at(now))
    }

    fn id(number: u32) -> BootId {
        let [_, b, c, d] = number.to_be_bytes();
        BootId {
            mac: MacAddr::from_octets([0x52, 0x54, 0, b, c, d]).expect("unicast"),
            trace: random(),
            span: random(),
            is_sampled: false,
            issued: 0,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("valid")
    }

    fn script(boots: &'static str) -> Script {
        Script {
            boots: boots.into(),
            environment: Some("lab/discovery".to_owned()),
            rule: "BareMetalHost".to_owned(),
            reason: "it wants it".to_owned(),
            client: "192.0.2.1".to_owned(),
            way: None,
        }
    }

    fn outcome(timeline: &Timeline, id: &BootId, now: i64) -> Outcome {
        timeline.of(id.mac, at(now))[0].1
    }

    #[test]
    fn a_boot_is_complete_with_its_root_file_system_and_not_before() {
        let timeline = Timeline::default();
        let id = id(1);
        timeline.script(&id, script("Environment"), at(100));
        assert_eq!(outcome(&timeline, &id, 110), Outcome::Running);
        for kind in [ArtifactKind::Kernel, ArtifactKind::Initrd] {
            let step = timeline.step(&id, begin(kind, Some(10), 110), at(110));
            step.sent(10, at(111));
            step.end(End::Complete, at(111));
        }
        assert_eq!(outcome(&timeline, &id, 120), Outcome::Running);
        let rootfs = timeline.step(&id, begin(ArtifactKind::Rootfs, Some(100), 130), at(130));
        rootfs.sent(50, at(140));
        assert_eq!(outcome(&timeline, &id, 150), Outcome::Running);
        assert_eq!(outcome(&timeline, &id, 140 + 61), Outcome::Stalled, "open, and nothing moves");
        rootfs.sent(50, at(210));
        rootfs.end(End::Complete, at(210));
        assert_eq!(outcome(&timeline, &id, 10_000), Outcome::Complete);
        let settled = timeline.settle(at(220));
        assert!(settled.len() == 1 && settled[0].1 == Outcome::Complete && timeline.settle(at(230)).is_empty());
    }

    #[test]
    fn machines_that_vanish_are_told_apart() {
        let timeline = Timeline::default();
        let (left, silent, disk) = (id(1), id(2), id(3));
        for id in [&left, &silent] {
            timeline.script(id, script("Environment"), at(100));
        }
        timeline.script(&disk, script("LocalDisk"), at(100));
        let step = timeline.step(&left, begin(ArtifactKind::Initrd, Some(10), 110), at(110));
        step.end(End::Left, at(112));
        assert_eq!(outcome(&timeline, &left, 200), Outcome::Running, "it may try again");
        assert_eq!(outcome(&timeline, &left, 112 + 181), Outcome::Aborted);
        assert_eq!(outcome(&timeline, &silent, 100 + 181), Outcome::Stalled);
        assert_eq!(outcome(&timeline, &disk, 100), Outcome::LocalDisk);
        // It asks anew: the boot before is over.
        let again = BootId {
            trace: random(),
            ..silent
        };
        timeline.script(&again, script("Environment"), at(300));
        let boots = timeline.of(silent.mac, at(301));
        assert_eq!([boots[0].1, boots[1].1], [Outcome::Running, Outcome::Aborted]);
    }

    #[test]
    fn memory_is_bounded_and_who_fetched_something_stays() {
        let timeline = Timeline::default();
        let (honest, last) = (id(0), u32::try_from(ENTRIES).expect("small") + 100);
        timeline.script(&honest, script("Environment"), at(0));
        timeline.step(&honest, begin(ArtifactKind::Kernel, None, 0), at(0));
        for number in 1..=last {
            timeline.script(&id(number), script("Environment"), at(i64::from(number)));
        }
        let now = at(i64::from(last));
        let remembered = timeline.last(now).len();
        assert!(remembered <= ENTRIES && remembered > ENTRIES * 9 / 10, "{remembered}");
        assert!(timeline.of(id(1).mac, now).is_empty(), "the oldest went");
        assert!(!timeline.of(honest.mac, now).is_empty() && !timeline.of(id(last).mac, now).is_empty());

        let busy = id(last);
        for round in 0..20 {
            let boot = BootId { trace: random(), ..busy };
            timeline.script(&boot, script("Environment"), now);
            for _ in 0..200 {
                timeline.step(&boot, begin(ArtifactKind::Kernel, None, round), now);
            }
        }
        let boots = timeline.of(busy.mac, now);
        assert!(boots.len() == BOOTS && boots.iter().all(|(boot, _)| boot.steps.len() <= STEPS));
        let memory = timeline.lock();
        let counted: usize = memory.machines.values().flatten().map(Boot::entries).sum();
        assert_eq!(memory.entries, counted);
    }

    #[test]
    fn two_servers_that_tell_each_other_know_the_whole_boot_and_count_it_once() {
        let (one, two) = (Timeline::default(), Timeline::default());
        let id = id(1);
        one.script(&id, script("Environment"), at(100));
        let kernel = one.step(&id, begin(ArtifactKind::Kernel, Some(10), 101), at(101));
        kernel.end(End::Complete, at(102));
        let rootfs = two.step(&id, begin(ArtifactKind::Rootfs, Some(100), 110), at(110));
        rootfs.sent(60, at(111));
        let exchange = || {
            one.hear("two", two.tell(0));
            two.hear("one", one.tell(0));
        };
        exchange();
        for timeline in [&one, &two] {
            let boots = timeline.of(id.mac, at(112));
            let [(boot, Outcome::Running)] = &boots[..] else {
                panic!("one boot that runs: {boots:?}")
            };
            let steps: Vec<_> = boot.steps.iter().map(|step| (step.kind, step.bytes())).collect();
            assert_eq!(steps, [(ArtifactKind::Kernel, 0), (ArtifactKind::Rootfs, 60)]);
            assert_eq!(boot.script.as_ref().map(|script| script.rule.as_str()), Some("BareMetalHost"));
            assert_eq!(boot.begun, at(100));
        }
        rootfs.sent(40, at(120));
        rootfs.end(End::Complete, at(120));
        exchange();
        exchange();
        for timeline in [&one, &two] {
            assert_eq!(outcome(timeline, &id, 400), Outcome::Complete);
            assert_eq!(timeline.of(id.mac, at(400))[0].0.steps.len(), 2, "nothing is told twice");
        }
        assert_eq!((one.settle(at(400)).len(), two.settle(at(400)).len()), (1, 0));
        assert!(one.tell(121).is_empty(), "what is old is not told again");
        for timeline in [&one, &two] {
            let memory = timeline.lock();
            assert_eq!(
                memory.entries,
                memory.machines.values().flatten().map(Boot::entries).sum::<usize>()
            );
        }
    }

    #[test]
    fn a_file_of_a_boot_that_began_elsewhere_is_a_boot_too() {
        let timeline = Timeline::default();
        let id = id(1);
        timeline.step(&id, begin(ArtifactKind::Rootfs, Some(1), 5), at(5));
        let boots = timeline.of(id.mac, at(6));
        assert!(boots[0].0.script.is_none() && boots[0].0.steps.len() == 1);
    }
}
