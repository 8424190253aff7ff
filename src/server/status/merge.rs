//! A status made of the last one and what is new. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::boot::mac::MacAddr;
use crate::boot::standing::{Standing, Verdict};
use crate::crd::host_override::{IpxeHostOverrideStatus, MachineStatus};

use super::{MOST_MACHINES, Tallies, Tally};

/// Longest message of a condition (`metav1.Condition`), in characters.
const MOST_MESSAGE: usize = 32_768;

/// The status after a report. Machines that are no longer meant go, except those with a count, which a limit still needs.
pub fn reported(old: &IpxeHostOverrideStatus, standing: &Standing, tallies: &Tallies, now: Timestamp) -> IpxeHostOverrideStatus {
    let mut status = old.clone();
    status.observed_generation = Some(standing.generation);
    for (type_, verdict) in [
        ("Accepted", &standing.accepted),
        ("Ready", &standing.ready),
        ("Conflicted", &standing.conflicted),
        ("Warning", &standing.warning),
    ] {
        set_condition(&mut status.conditions, type_, verdict, standing.generation, now);
    }
    status.machine_count = Some(i64::try_from(standing.machines.len()).unwrap_or(i64::MAX));
    let is_meant = |machine: &MachineStatus| machine.mac_address.parse().is_ok_and(|mac| standing.machines.contains(&mac));
    status.machines.retain(|machine| machine.served > 0 || is_meant(machine));
    for mac in &standing.machines {
        entry(&mut status, *mac);
    }
    for (mac, tally) in tallies {
        count(&mut status, *mac, tally);
    }
    status.machines.sort_by(|a, b| a.mac_address.cmp(&b.mac_address));
    status
}

/// Counts times that a machine was served; whether there was a place for it. The sum counts all the same.
pub fn count(status: &mut IpxeHostOverrideStatus, mac: MacAddr, tally: &Tally) -> bool {
    status.served = Some(status.served.unwrap_or_default().saturating_add(i64::from(tally.count)));
    if status.last_served.as_ref().is_none_or(|last| last.0 <= tally.last) {
        status.last_served = Some(Time(seconds(tally.last)));
        status.last_address = Some(tally.address.clone());
    }
    // A machine that was served is worth more than one that is only meant.
    let is_known = served(status, mac) > 0;
    let idle = status.machines.iter().rposition(|machine| machine.served == 0);
    if let Some(idle) = idle.filter(|_| !is_known && status.machines.len() >= MOST_MACHINES) {
        status.machines.remove(idle);
    }
    let Some(machine) = entry(status, mac) else {
        return false;
    };
    machine.served = machine.served.saturating_add(tally.count);
    machine.last_served = Some(Time(seconds(tally.last)));
    machine.last_address = Some(tally.address.clone());
    true
}

/// How often a machine was served.
pub fn served(status: &IpxeHostOverrideStatus, mac: MacAddr) -> u32 {
    let text = mac.to_string();
    status
        .machines
        .iter()
        .find(|machine| machine.mac_address == text)
        .map_or(0, |machine| machine.served)
}

/// The entry of a machine, made if there is a place left.
fn entry(status: &mut IpxeHostOverrideStatus, mac: MacAddr) -> Option<&mut MachineStatus> {
    let text = mac.to_string();
    let place = status.machines.iter().position(|machine| machine.mac_address == text);
    let place = match place {
        Some(place) => place,
        None if status.machines.len() < MOST_MACHINES => {
            status.machines.push(MachineStatus {
                mac_address: text,
                ..MachineStatus::default()
            });
            status.machines.len() - 1
        }
        None => return None,
    };
    status.machines.get_mut(place)
}

fn set_condition(conditions: &mut Vec<Condition>, type_: &str, verdict: &Verdict, generation: i64, now: Timestamp) {
    let old = conditions.iter().position(|condition| condition.type_ == type_);
    let status = if verdict.holds { "True" } else { "False" };
    let since = old
        .map(|place| &conditions[place])
        .filter(|old| old.status == status)
        .map(|old| old.last_transition_time.clone());
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.to_string(),
        message: verdict.message.chars().take(MOST_MESSAGE).collect(),
        observed_generation: Some(generation),
        last_transition_time: since.unwrap_or_else(|| Time(seconds(now))),
    };
    match old {
        Some(place) => conditions[place] = condition,
        None => conditions.push(condition),
    }
}

/// The API server keeps whole seconds.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::standing::Reason;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn mac(number: usize) -> MacAddr {
        format!("52:54:00:00:{:02x}:{:02x}", number / 256, number % 256)
            .parse()
            .expect("valid")
    }

    fn standing(machines: usize, ready: bool) -> Standing {
        let verdict = |holds| Verdict {
            holds,
            reason: Reason::Serving,
            message: "m".to_owned(),
        };
        Standing {
            generation: 3,
            machines: (0..machines).map(mac).collect(),
            accepted: verdict(true),
            ready: verdict(ready),
            conflicted: verdict(false),
            warning: verdict(false),
        }
    }

    fn tally(second: i64) -> Tally {
        Tally {
            count: 2,
            last: Timestamp::from_second(second).expect("valid"),
            address: format!("10.0.0.{second}"),
        }
    }

    #[test]
    fn a_report_without_news_changes_nothing() {
        let first = reported(
            &IpxeHostOverrideStatus::default(),
            &standing(2, true),
            &[(mac(1), tally(5))].into(),
            NOW,
        );
        assert_eq!(
            (first.served, served(&first, mac(1)), served(&first, mac(0))),
            (Some(2), 2, 0)
        );
        let later = NOW + std::time::Duration::from_secs(60);
        assert_eq!(reported(&first, &standing(2, true), &Tallies::new(), later), first);
        // Only what turned has a new time, and an older tally does not become the last one.
        let turned = reported(&first, &standing(1, false), &[(mac(1), tally(4))].into(), later);
        let times: Vec<i64> = turned
            .conditions
            .iter()
            .map(|c| c.last_transition_time.0.as_second())
            .collect();
        assert_eq!(times, [0, 60, 0, 0]);
        assert_eq!((turned.last_address.as_deref(), turned.served), (Some("10.0.0.5"), Some(4)));
        assert_eq!(
            served(&turned, mac(1)),
            4,
            "a count stays when its machine is no longer meant"
        );
    }

    #[test]
    fn counts_have_places_before_machines_that_were_never_served() {
        let mut status = reported(
            &IpxeHostOverrideStatus::default(),
            &standing(1500, true),
            &Tallies::new(),
            NOW,
        );
        assert_eq!((status.machines.len(), status.machine_count), (MOST_MACHINES, Some(1500)));
        for number in 500..1500 {
            assert!(count(&mut status, mac(number), &tally(1)), "{number}");
        }
        assert!(!count(&mut status, mac(0), &tally(1)), "all places hold counts");
        let status = reported(&status, &standing(1500, true), &Tallies::new(), NOW);
        assert!((500..1500).all(|number| served(&status, mac(number)) == 2));
    }
}
