//! Boots in progress and the timeline of a machine, as a page shows them.

use jiff::Timestamp;

use crate::boot::artifact::ArtifactKind;
use crate::boot::mac::MacAddr;
use crate::server::api::boots::{BootView, FetchView};
use crate::server::timeline::{Outcome, Timeline};

use super::overview::{SHOWN, Shown};

/// What a boot loads, in this order.
const KINDS: [ArtifactKind; 3] = [ArtifactKind::Kernel, ArtifactKind::Initrd, ArtifactKind::Rootfs];

/// A boot with its bars.
#[derive(Debug)]
pub struct Progress {
    /// For links: `52-54-00-cc-00-01`.
    pub hyphenated: String,
    /// What is known of it.
    pub boot: BootView,
    /// One for each kind of file.
    pub bars: Vec<Bar>,
}

/// How much of a file was sent.
#[derive(Debug)]
pub struct Bar {
    /// Which file.
    pub kind: &'static str,
    /// Bytes so far, if there can be any.
    pub bytes: Option<u64>,
    /// Bytes in all, where that is known.
    pub length: Option<u64>,
    /// The same for people.
    pub text: String,
}

/// Boots that go on or came to a standstill lately, each with the latest sign of life first. Half of the places are for those that stand
/// still, so that a rack that is switched on does not hide the machine that is looked for, nor they the rack.
pub fn in_progress(timeline: &Timeline, now: Timestamp) -> Shown<Progress> {
    let boots = timeline.last(now, usize::MAX, |boot, outcome| boot.is_in_progress(outcome, now));
    let (running, stalled): (Vec<_>, Vec<_>) = boots.into_iter().partition(|(_, outcome)| *outcome == Outcome::Running);
    let (first, others) = stalled.split_at(stalled.len().min(SHOWN / 2));
    let ordered: Vec<_> = first.iter().chain(&running).chain(others).collect();
    Shown::of(
        ordered
            .into_iter()
            .map(|boot| Progress::of(boot.0.mac, BootView::of(boot, now))),
    )
}

/// The last boots of a machine, the latest first.
pub fn of_machine(timeline: &Timeline, mac: MacAddr, now: Timestamp) -> Vec<Progress> {
    let boots = timeline.of(mac, now);
    boots.iter().map(|boot| Progress::of(mac, BootView::of(boot, now))).collect()
}

impl Progress {
    fn of(mac: MacAddr, boot: BootView) -> Self {
        Self {
            hyphenated: mac.hyphenated(),
            bars: KINDS.iter().map(|kind| Bar::of(kind.as_str(), &boot.steps)).collect(),
            boot,
        }
    }

    /// One without a machine, for the script of the page to fill in.
    pub fn blank() -> Self {
        Self {
            hyphenated: String::new(),
            boot: BootView::default(),
            bars: KINDS.iter().map(|kind| Bar::of(kind.as_str(), &[])).collect(),
        }
    }
}

impl Bar {
    /// What counts is the last time that the machine asked for it.
    fn of(kind: &'static str, steps: &[FetchView]) -> Self {
        let last = steps.iter().rfind(|step| step.kind == kind);
        Self {
            kind,
            bytes: last.filter(|step| !step.is_refused()).map(|step| step.bytes),
            length: last.and_then(|step| step.length),
            text: last.map_or_else(|| "not asked for yet".to_owned(), amount),
        }
    }
}

/// `12.0 of 60.3 MiB, Running`.
pub fn amount(step: &FetchView) -> String {
    if step.is_refused() {
        return "asked for, refused".to_owned();
    }
    let sent = mib(step.bytes);
    match step.length {
        Some(length) => format!("{sent} of {} MiB, {}", mib(length), step.state),
        None => format!("{sent} MiB, {}", step.state),
    }
}

/// Bytes in MiB, with tenths.
fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// `2026-11-24T10:00:00.123Z` for people.
pub fn second(time: &str) -> String {
    format!("{} UTC", time.get(..19).unwrap_or(time).replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::boot_id::{BootId, random};
    use crate::server::timeline::Script;

    #[test]
    fn a_machine_that_stands_still_is_not_hidden_by_a_rack_that_boots() {
        let timeline = Timeline::default();
        let at = |second| Timestamp::from_second(second).expect("valid");
        let begin = |number: u8, second| {
            let id = BootId {
                mac: MacAddr::from_octets([0x52, 0x54, 0, 0, 0, number]).expect("unicast"),
                trace: random(),
                span: random(),
                is_sampled: false,
                issued: 0,
            };
            let script = Script {
                boots: "Environment".into(),
                environment: None,
                rule: "BareMetalHost".to_owned(),
                by_override: None,
                reason: String::new(),
                client: String::new(),
                way: None,
            };
            timeline.script(&id, script, at(second));
        };
        begin(0, 1000);
        (1..=60).for_each(|number| begin(number, 1600));
        let shown = in_progress(&timeline, at(1610));
        assert_eq!((shown.total, shown.items.len()), (61, SHOWN));
        assert_eq!(shown.items[0].hyphenated, "52-54-00-00-00-00");
    }
}
