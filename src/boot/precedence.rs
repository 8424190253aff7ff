//! Which of several overrides for one machine counts, and what becomes of the others.

use std::fmt;
use std::sync::Arc;

use strum::{Display, EnumString, VariantNames};

use super::host_override::HostOverride;
use super::mac::MacAddr;
use super::name::ObjectName;

/// What counts when several overrides for one machine have the same priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Display, EnumString, VariantNames)]
#[strum(ascii_case_insensitive)]
pub enum EqualOverrides {
    /// None of them: two people said two things, and which of them is meant is not for the bridge to guess.
    #[default]
    None,
    /// The oldest, then the first by namespace and name.
    Oldest,
}

/// What becomes of an override for one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It counts.
    Counts,
    /// Its time is over.
    Expired,
    /// The machine was served it so often already as it may.
    UsedUp,
    /// These have its priority, so none of them counts.
    Tied(Vec<ObjectName>),
    /// This one comes before it.
    Behind(ObjectName),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counts => f.write_str("counts"),
            Self::Expired => f.write_str("has expired"),
            Self::UsedUp => f.write_str("was booted as often as its bootLimit says"),
            Self::Tied(_) => f.write_str("has the same priority as another, so none counts"),
            Self::Behind(first) => write!(f, "comes after {first}"),
        }
    }
}

/// The fate of each override for a machine at this second since 1970. They must come in order: highest priority first, then the
/// oldest, then by name.
pub fn fates(overrides: &[Arc<HostOverride>], mac: MacAddr, now: i64, equal: EqualOverrides) -> Vec<(&Arc<HostOverride>, Fate)> {
    let mut fates = Vec::with_capacity(overrides.len());
    let mut winner: Option<&ObjectName> = None;
    for same in overrides.chunk_by(|a, b| a.priority == b.priority) {
        let is_over = |host_override: &HostOverride| host_override.is_expired(now) || host_override.is_used_up(mac);
        let alive: Vec<&ObjectName> = same.iter().filter(|o| !is_over(o)).map(|o| &o.name).collect();
        for host_override in same {
            let fate = match (winner, alive.as_slice()) {
                _ if host_override.is_expired(now) => Fate::Expired,
                _ if host_override.is_used_up(mac) => Fate::UsedUp,
                (Some(winner), _) => Fate::Behind(winner.clone()),
                (None, [_, _, ..]) if equal == EqualOverrides::None => Fate::Tied(alive.iter().copied().cloned().collect()),
                (None, _) => {
                    winner = Some(&host_override.name);
                    Fate::Counts
                }
            };
            fates.push((host_override, fate));
        }
    }
    fates
}
