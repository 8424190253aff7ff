//! Events on the BareMetalHost or override of a machine about how its boot ended, where that is wanted.
//!
//! Invariant: whatever machines do, so many Events a minute and no more; a boot never waits for one.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder};
use tokio::sync::mpsc;

use crate::boot::inventory::Inventory;
use crate::boot::mac::MacAddr;

use super::timeline::{Boot, End, Outcome};

/// Events that wait; more are left out.
const QUEUE: usize = 64;
/// Pause between two Events: sixty a minute.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause between two Events of one machine, in seconds.
const MACHINE_PAUSE: i64 = 60;
/// Machines of which it is known when the last one was.
const MACHINES: usize = 4096;

/// An Event and the object that it is about.
pub struct Note {
    reference: ObjectReference,
    event: Event,
}

impl std::fmt::Debug for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &self.reference.name;
        f.debug_struct("Note")
            .field("of", name)
            .field("reason", &self.event.reason)
            .finish()
    }
}

/// Where boots that ended are told.
#[derive(Debug)]
pub struct Notes {
    queue: mpsc::Sender<Note>,
    last: HashMap<MacAddr, i64>,
}

impl Notes {
    /// The two ends of it.
    pub fn new() -> (Self, mpsc::Receiver<Note>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let last = HashMap::new();
        (Self { queue, last }, receiver)
    }

    /// A boot came to an end.
    pub fn tell(&mut self, inventory: &Inventory, boot: &Boot, outcome: Outcome, now: Timestamp) {
        let (Some(event), Some(reference)) = (event(boot, outcome), object(inventory, boot)) else {
            return;
        };
        let now = now.as_second();
        if self.last.len() >= MACHINES {
            self.last.retain(|_, last| now - *last < MACHINE_PAUSE);
        }
        let is_too_soon = self.last.get(&boot.mac).is_some_and(|last| now - last < MACHINE_PAUSE);
        if is_too_soon || self.last.len() >= MACHINES || self.queue.try_send(Note { reference, event }).is_err() {
            tracing::debug!(mac = %boot.mac, %outcome, "no Event about this boot: there were too many");
            return;
        }
        self.last.insert(boot.mac, now);
    }
}

/// Writes Events, one after the other, for ever.
pub async fn follow(client: Client, mut notes: mpsc::Receiver<Note>) {
    while let Some(Note { reference, event }) = notes.recv().await {
        // One that lasts would take a second boot for the first one again, and repeat what was said then.
        let recorder = Recorder::new(client.clone(), "ipxe-bridge".into());
        if let Err(error) = recorder.publish(&event, &reference).await {
            tracing::warn!(object = ?reference.name, %error, "an Event about a boot cannot be written");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is worth an Event: that a machine got its system, or that it did not.
fn event(boot: &Boot, outcome: Outcome) -> Option<Event> {
    let (type_, reason, what) = match outcome {
        Outcome::Complete => (EventType::Normal, "Booted", "has its root file system"),
        Outcome::Aborted => (EventType::Warning, "BootAborted", "broke off its boot"),
        Outcome::Stalled => (EventType::Warning, "BootStalled", "stands still in its boot"),
        Outcome::Running | Outcome::LocalDisk | Outcome::Script => return None,
    };
    let environment = boot
        .script
        .as_ref()
        .and_then(|script| script.environment.as_deref())
        .unwrap_or("none");
    let step = boot.steps.back().map_or_else(
        || "it fetched nothing".to_owned(),
        |step| match step.part.length {
            _ if matches!(step.ended(), Some((End::Refused, _))) => format!("its {} was refused", step.kind),
            Some(length) => format!("last it fetched {} of {length} bytes of its {}", step.bytes(), step.kind),
            None => format!("last it fetched {} bytes of its {}", step.bytes(), step.kind),
        },
    );
    Some(Event {
        type_,
        reason: reason.to_owned(),
        note: Some(format!(
            "{} {what}: InfraEnv {environment}, {step}; trace {}",
            boot.mac,
            boot.trace_text()
        )),
        action: "Boot".to_owned(),
        secondary: None,
    })
}

/// The override that decided, or else the machine's BareMetalHost if there is only one.
fn object(inventory: &Inventory, boot: &Boot) -> Option<ObjectReference> {
    let reference = |api_version: &str, kind: &str, name: &crate::boot::name::ObjectName, uid: &str| {
        (!uid.is_empty()).then(|| ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
            namespace: Some(name.namespace().to_owned()),
            name: Some(name.name().to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        })
    };
    let decided = boot.script.as_ref().and_then(|script| script.by_override.as_deref());
    let mut overrides = inventory.overrides(boot.mac).iter();
    if let Some(of) = overrides.find(|of| decided == Some(of.name.to_string().as_str())) {
        return reference("ipxe-bridge.io/v1alpha1", "IpxeHostOverride", &of.name, &of.uid);
    }
    match inventory.hosts(boot.mac) {
        [host] => reference("metal3.io/v1alpha1", "BareMetalHost", &host.name, &host.uid),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::environment::Host;
    use crate::boot::host_override::{HostOverride, Machines};
    use crate::boot::inventory::Observed;
    use crate::boot::kernel_arguments::ArgumentEdits;
    use crate::boot::name::ObjectName;
    use crate::server::boot_id::{BootId, random};
    use crate::server::timeline::{Script, Timeline};
    use std::sync::Arc;

    #[test]
    fn a_machine_that_boots_again_and_again_has_one_event_a_minute() {
        let mac: MacAddr = "52:54:00:cc:00:01".parse().expect("valid");
        let host = Host {
            name: ObjectName::new("lab", "n1").expect("valid"),
            uid: "u".to_owned(),
            created: 0,
            mac,
            labels: [].into(),
            environment: None,
        };
        let declared = |name: &str, priority| HostOverride {
            name: ObjectName::new("lab", name).expect("valid"),
            uid: name.to_owned(),
            generation: 1,
            created: 0,
            priority,
            machines: Machines::Macs(vec![mac]),
            action: None,
            templating: false,
            arguments: ArgumentEdits::default(),
            expires: None,
            boot_limit: None,
            served: [].into(),
        };
        let inventory = Inventory::join(Observed {
            hosts: vec![Arc::new(host)],
            overrides: [("first", 2), ("second", 1)]
                .map(|(name, priority)| Arc::new(declared(name, priority)))
                .into(),
            ..Observed::default()
        });
        let timeline = Timeline::default();
        let id = BootId {
            mac,
            trace: random(),
            span: random(),
            is_sampled: false,
            issued: 0,
        };
        let at = |second| Timestamp::from_second(second).expect("valid");
        let script = Script {
            boots: "Environment".into(),
            environment: Some("lab/discovery".to_owned()),
            rule: "BareMetalHost".to_owned(),
            by_override: None,
            reason: String::new(),
            client: String::new(),
            way: None,
        };
        timeline.script(&id, script.clone(), at(0));
        let (mut boot, _) = timeline.of(mac, at(0)).remove(0);
        let (mut notes, mut queue) = Notes::new();
        for second in 0..120 {
            notes.tell(&inventory, &boot, Outcome::Stalled, at(second));
        }
        notes.tell(&inventory, &boot, Outcome::LocalDisk, at(1000));
        let written: Vec<Note> = std::iter::from_fn(|| queue.try_recv().ok()).collect();
        assert_eq!(written.len(), 2);
        assert_eq!(written[0].reference.name.as_deref(), Some("n1"));
        let note = written[0].event.note.clone().unwrap_or_default();
        assert!(
            note.starts_with("52:54:00:cc:00:01 stands still in its boot: InfraEnv lab/discovery, it fetched nothing; trace "),
            "{note}"
        );

        // Of several overrides for a machine it is the one that decided.
        let by = |name: &str| {
            boot.script = Some(Arc::new(Script {
                rule: "Override".to_owned(),
                by_override: Some(format!("lab/{name}")),
                ..script.clone()
            }));
            object(&inventory, &boot).and_then(|found| found.kind.zip(found.name))
        };
        let named = ["first", "second", "gone"].map(by);
        let of = |kind: &str, name: &str| Some((kind.to_owned(), name.to_owned()));
        assert_eq!(
            named,
            [
                of("IpxeHostOverride", "first"),
                of("IpxeHostOverride", "second"),
                of("BareMetalHost", "n1")
            ]
        );
    }
}
