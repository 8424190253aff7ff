//! What became of an override, for the person who wrote it.

use std::collections::BTreeMap;

use strum::{Display, VariantArray};

use super::host_override::{Action, Machines};
use super::inventory::{Inventory, Reach};
use super::mac::MacAddr;
use super::name::ObjectName;
use super::precedence::Fate;
use super::script_check;
use super::template::Template;

/// What became of an override.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The generation of the spec it is about.
    pub generation: i64,
    /// The machines it is for.
    pub machines: Vec<MacAddr>,
    /// Whether it can be used.
    pub accepted: Verdict,
    /// Whether at least one machine boots it.
    pub ready: Verdict,
    /// Whether another object claims the same machine.
    pub conflicted: Verdict,
    /// Whether its script has a likely mistake.
    pub warning: Verdict,
}

/// Yes or no, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Yes or no.
    pub holds: bool,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

/// Reasons of an override's conditions. `docs/overrides.md` says what to do about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, VariantArray)]
pub enum Reason {
    /// It can be used.
    Accepted,
    /// It cannot be used.
    Invalid,
    /// Machines boot it.
    Serving,
    /// No machine is meant by it.
    NoMachine,
    /// Its machines belong to another namespace.
    OtherNamespace,
    /// Its time is over.
    Expired,
    /// Every machine booted it as often as it may.
    Exhausted,
    /// Others have the same priority for its machines.
    EqualPriority,
    /// Others come before it for its machines.
    Overruled,
    /// The script cannot be read.
    ScriptMissing,
    /// The script has a variable that is none.
    ScriptInvalid,
    /// The environment does not exist.
    EnvironmentMissing,
    /// Nobody else claims its machines.
    NoConflict,
    /// The script has a likely mistake.
    ScriptMistakes,
    /// There is nothing to say.
    NoMistakes,
}

impl Verdict {
    fn new(holds: bool, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            holds,
            reason,
            message: message.into(),
        }
    }
}

/// How many of an override's machines have which fate.
#[derive(Debug, Default)]
struct Fates {
    counts: usize,
    used_up: usize,
    tied: Vec<(MacAddr, Vec<ObjectName>)>,
    behind: Vec<ObjectName>,
}

impl Inventory {
    /// What became of every override at this second since 1970.
    pub fn standings(&self, now: i64) -> BTreeMap<ObjectName, Standing> {
        let all = self.all_overrides().iter();
        all.map(|(name, reach)| (name.clone(), self.standing(reach, now))).collect()
    }

    /// Whether an override ends after the first of these seconds since 1970, and not after the second.
    pub fn ends_within(&self, after: i64, until: i64) -> bool {
        let mut ends = self.all_overrides().values().filter_map(|reach| reach.host_override.expires);
        ends.any(|end| after < end && end <= until)
    }

    /// What became of one override at this second since 1970.
    pub fn standing(&self, reach: &Reach, now: i64) -> Standing {
        let host_override = &reach.host_override;
        let fates = self.fates_of(reach, now);
        Standing {
            generation: host_override.generation,
            machines: reach.machines.clone(),
            accepted: match &host_override.action {
                Some(Action::Unusable(cause)) => Verdict::new(false, Reason::Invalid, cause),
                _ => Verdict::new(true, Reason::Accepted, "it can be used"),
            },
            ready: self.ready(reach, &fates, now),
            conflicted: conflicted(reach, &fates),
            warning: self.warning(reach),
        }
    }

    fn fates_of(&self, reach: &Reach, now: i64) -> Fates {
        let mut fates = Fates::default();
        for mac in &reach.machines {
            let of_machine = self.fates(*mac, now);
            let own = of_machine
                .into_iter()
                .find(|(other, _)| other.name == reach.host_override.name);
            match own.map(|(_, fate)| fate) {
                Some(Fate::Counts) => fates.counts += 1,
                Some(Fate::UsedUp) => fates.used_up += 1,
                Some(Fate::Tied(names)) => fates.tied.push((*mac, names)),
                Some(Fate::Behind(name)) => fates.behind.push(name),
                Some(Fate::Expired) | None => {}
            }
        }
        fates
    }

    fn ready(&self, reach: &Reach, fates: &Fates, now: i64) -> Verdict {
        let host_override = &reach.host_override;
        let no = |reason, message: String| Verdict::new(false, reason, message);
        if host_override.is_expired(now) {
            return no(Reason::Expired, "expiresAt is over: it is not served any more".to_owned());
        }
        if let Some((reason, cause)) = self.unservable(reach) {
            return no(reason, format!("{cause}; its machines wait"));
        }
        let all = reach.machines.len();
        match (&host_override.machines, reach.foreign.as_slice()) {
            (_, [(mac, owner), ..]) if all == 0 => {
                let message = format!(
                    "{mac} belongs to BareMetalHost {owner}, and the bridge lets this namespace reach no machine of others"
                );
                return no(Reason::OtherNamespace, message);
            }
            (Machines::Hosts(_), _) if all == 0 => {
                return no(
                    Reason::NoMachine,
                    "no BareMetalHost of this namespace has such labels".to_owned(),
                );
            }
            _ => {}
        }
        if fates.counts > 0 {
            let used_up = match fates.used_up {
                0 => String::new(),
                some => format!(", {some} did as often as they may"),
            };
            let message = format!("{} of {all} machines boot it{used_up}", fates.counts);
            return Verdict::new(true, Reason::Serving, message);
        }
        match (fates.tied.as_slice(), fates.behind.as_slice()) {
            ([(mac, names), ..], _) => no(Reason::EqualPriority, tie(*mac, names)),
            ([], [first, ..]) => no(
                Reason::Overruled,
                format!("IpxeHostOverride {first} has a higher priority or is older"),
            ),
            ([], []) => no(
                Reason::Exhausted,
                "every machine booted it as often as bootLimit says".to_owned(),
            ),
        }
    }

    /// Why machines that it counts for cannot be answered.
    fn unservable(&self, reach: &Reach) -> Option<(Reason, String)> {
        let host_override = &reach.host_override;
        let script = match host_override.action.as_ref()? {
            Action::Unusable(cause) => return Some((Reason::Invalid, cause.clone())),
            Action::Environment(name) => {
                let missing = self.environment(name).is_none();
                return missing.then(|| (Reason::EnvironmentMissing, format!("InfraEnv {name} does not exist")));
            }
            Action::ScriptFrom(place) => match self.content(place) {
                Ok(script) => script.as_ref(),
                Err(why) => return Some((Reason::ScriptMissing, why)),
            },
            Action::Script(script) => script.as_str(),
            Action::Chain(_) | Action::LocalDisk(_) => return None,
        };
        match Template::parse(script) {
            Err(error) if host_override.templating => Some((Reason::ScriptInvalid, format!("its script, {error}"))),
            _ => None,
        }
    }

    /// Whether what an override names is there, or what is missing.
    pub fn servable(&self, reach: &Reach) -> Result<(), String> {
        match self.unservable(reach) {
            // That was told when the object was read.
            None | Some((Reason::Invalid, _)) => Ok(()),
            Some((_, cause)) => Err(cause),
        }
    }

    fn warning(&self, reach: &Reach) -> Verdict {
        let mistakes = self.script_mistakes(reach);
        match mistakes.is_empty() {
            true => Verdict::new(false, Reason::NoMistakes, "no likely mistake was found"),
            false => Verdict::new(
                true,
                Reason::ScriptMistakes,
                format!("{}; it is served all the same", mistakes.join("; ")),
            ),
        }
    }

    /// Likely mistakes in an override's script.
    pub fn script_mistakes(&self, reach: &Reach) -> Vec<String> {
        match &reach.host_override.action {
            Some(Action::Script(script)) => script_check::mistakes(script),
            Some(Action::ScriptFrom(place)) => self
                .content(place)
                .map(|script| script_check::mistakes(script))
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }
}

fn conflicted(reach: &Reach, fates: &Fates) -> Verdict {
    match (fates.tied.as_slice(), reach.foreign.as_slice()) {
        ([(mac, names), ..], _) => Verdict::new(true, Reason::EqualPriority, tie(*mac, names)),
        ([], [(mac, owner), ..]) => {
            let message = format!("{mac} belongs to BareMetalHost {owner} of another namespace");
            Verdict::new(true, Reason::OtherNamespace, message)
        }
        ([], []) => Verdict::new(false, Reason::NoConflict, "no other object claims its machines"),
    }
}

fn tie(mac: MacAddr, names: &[ObjectName]) -> String {
    let names: Vec<String> = names.iter().map(ObjectName::to_string).collect();
    format!(
        "{} have the same priority for {mac}: none of them counts",
        names.join(" and ")
    )
}
