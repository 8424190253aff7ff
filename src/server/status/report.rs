//! Writes what became of overrides, and tells of changes in Events.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::boot::name::ObjectName;
use crate::boot::standing::{Reason, Standing};
use crate::crd::host_override::{IpxeHostOverride, IpxeHostOverrideStatus};
use crate::server::metrics::Metrics;
use crate::server::snapshot::{Published, Snapshot};

use super::claims::{self, Claim};
use super::{Live, PAUSE, Reports, Tallies, api, describe, is_conflict, is_not_found, merge, write};

/// How often it is looked whether there is anything to write; also bounds how late `expiresAt` shows.
const TICK: Duration = Duration::from_secs(1);
/// Pause between two objects: bounds the writes of a server to 20 a second.
const BETWEEN: Duration = Duration::from_millis(50);
/// How often a write is tried anew at once when somebody else was first.
const TRIES: usize = 4;

/// Writes statuses until the end, and then once more: what was served is to be said.
pub async fn follow(
    client: Client,
    snapshot: Arc<Snapshot>,
    reports: Arc<Reports>,
    claims: mpsc::Receiver<Claim>,
    metrics: Arc<Metrics>,
    end: CancellationToken,
) {
    let writer = Writer {
        recorder: Recorder::new(client.clone(), "ipxe-bridge".into()),
        client: client.clone(),
        reports,
        metrics,
    };
    let claims = end.run_until_cancelled(claims::serve(client, claims));
    tokio::join!(claims, writer.run(&snapshot, &end));
}

struct Writer {
    client: Client,
    recorder: Recorder,
    reports: Arc<Reports>,
    metrics: Arc<Metrics>,
}

/// What was written about an override, and when.
struct Written {
    standing: Standing,
    at: Instant,
}

impl Written {
    fn now(standing: &Standing) -> Self {
        Self {
            standing: standing.clone(),
            at: Instant::now(),
        }
    }
}

/// What became of all overrides, worked out anew only when it can have changed.
#[derive(Default)]
struct Known {
    published: Option<Arc<Published>>,
    at: i64,
    standings: BTreeMap<ObjectName, Standing>,
}

impl Known {
    fn update(&mut self, published: Arc<Published>, now: i64) {
        let is_same = self.published.as_ref().is_some_and(|last| Arc::ptr_eq(last, &published));
        if !is_same || published.inventory.ends_within(self.at, now) {
            self.standings = published.inventory.standings(now);
        }
        (self.published, self.at) = (Some(published), now);
    }
}

impl Writer {
    async fn run(&self, snapshot: &Snapshot, end: &CancellationToken) {
        let mut written: HashMap<ObjectName, Written> = HashMap::new();
        let mut known = Known::default();
        let mut failing = false;
        let mut last_time = false;
        while !last_time {
            last_time = end.run_until_cancelled(sleep(TICK)).await.is_none();
            // What may be out of date is not reported.
            let Some(published) = snapshot.ready().ok().filter(|published| published.stale_for().is_none()) else {
                continue;
            };
            known.update(published, Timestamp::now().as_second());
            written.retain(|name, _| known.standings.contains_key(name));
            for (name, standing) in &known.standings {
                let last = written.get(name);
                let is_new = last.is_none_or(|last| last.standing != *standing);
                let is_due = last_time || last.is_none_or(|last| last.at.elapsed() >= PAUSE);
                let counts = is_due && self.reports.is_waiting(name);
                if !is_new && !counts {
                    continue;
                }
                match self.report(name, standing).await {
                    Ok(true) => {
                        failing = false;
                        written.insert(name.clone(), Written::now(standing));
                    }
                    Ok(false) => {}
                    Err(error) => {
                        self.metrics.status_write(false);
                        let why = describe(&error);
                        if is_refused(&error) {
                            // The same status would be refused again; the others may be fine.
                            tracing::warn!(object = %name, "the status of an override is not accepted: {why}");
                            written.insert(name.clone(), Written::now(standing));
                            continue;
                        }
                        // Once, not once a second.
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(object = %name, "the status of overrides cannot be written: {why}");
                        }
                        break;
                    }
                }
                sleep(BETWEEN).await;
            }
        }
    }

    /// Brings one status up to date. Whether that was possible: an object that is newer than what is known of it comes later.
    async fn report(&self, name: &ObjectName, standing: &Standing) -> kube::Result<bool> {
        let tallies = self.reports.take(name);
        let result = self.try_report(name, standing, &tallies).await;
        if !tallies.is_empty() && !matches!(result, Ok(true)) {
            self.reports.put_back(name, tallies);
        }
        result
    }

    async fn try_report(&self, name: &ObjectName, standing: &Standing, tallies: &Tallies) -> kube::Result<bool> {
        for _ in 0..TRIES {
            let live = match api(&self.client, name).get(name.name()).await {
                Ok(live) => live,
                Err(error) if is_not_found(&error) => return Ok(true),
                Err(error) => return Err(error),
            };
            let Ok(old) = live.status.0.clone() else {
                return Ok(true);
            };
            if live.metadata.generation != Some(standing.generation) {
                return Ok(false);
            }
            let new = merge::reported(&old, standing, tallies, Timestamp::now());
            if new == old {
                return Ok(true);
            }
            match write(&self.client, name, &live, &new).await {
                Ok(_) => {
                    self.metrics.status_write(true);
                    self.tell(&live, &old, standing).await;
                    return Ok(true);
                }
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Events for what changed with this write; nobody else wrote it.
    async fn tell(&self, live: &Live, old: &IpxeHostOverrideStatus, standing: &Standing) {
        let before = |type_: &str| {
            let condition = old.conditions.iter().find(|condition| condition.type_ == type_);
            condition.map(|condition| condition.reason.clone())
        };
        for (type_, verdict, tells) in [
            ("Ready", &standing.ready, true),
            (
                "Conflicted",
                &standing.conflicted,
                standing.conflicted.holds && standing.conflicted.reason != standing.ready.reason,
            ),
        ] {
            if !tells || before(type_) == Some(verdict.reason.to_string()) {
                continue;
            }
            let is_normal = matches!(verdict.reason, Reason::Serving | Reason::Expired | Reason::Exhausted);
            let event = Event {
                type_: if is_normal { EventType::Normal } else { EventType::Warning },
                reason: verdict.reason.to_string(),
                note: Some(verdict.message.chars().take(1000).collect()),
                action: "Report".to_owned(),
                secondary: None,
            };
            let mut reference = IpxeHostOverride::new("", Default::default()).object_ref(&());
            reference.name.clone_from(&live.metadata.name);
            reference.namespace.clone_from(&live.metadata.namespace);
            reference.uid.clone_from(&live.metadata.uid);
            reference.resource_version.clone_from(&live.metadata.resource_version);
            if let Err(error) = self.recorder.publish(&event, &reference).await {
                tracing::debug!(object = ?reference.name, "an Event cannot be written: {}", describe(&error));
            }
        }
    }
}

/// Whether the API server looked at what was written and does not want it.
fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 413 | 422))
}
