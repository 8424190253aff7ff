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
