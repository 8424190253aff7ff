//! What the user sees: conditions from what came out, then one patch and one Event, and neither if nothing changed.

mod pods;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use crate::crd::bridge::{IpxeBridge, IpxeBridgeStatus, condition_types};

use super::context::Context;
use super::counts::Counts;
use super::error::Error;
use super::name;
use super::plan::Plan;
use super::reason::{Finding, Reason};
use super::trace;

/// A condition shows no more than this; an Event holds at most 1 kB.
const MAX_MESSAGE: usize = 900;

const CACHE_TROUBLE: &str =
    "a pod cannot use its artifact cache and fetches each machine's files for it alone: GET /cache of the bridge says why";

/// What a status is made of.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What is to run.
    pub plan: &'a Plan,
    /// What stands against it, beside the plan's own findings.
    pub findings: Vec<Finding>,
    /// The Deployment as it is now.
    pub deployment: Option<&'a Value>,
    /// The Deployment on the boot network.
    pub netboot: Option<&'a Value>,
    /// Its pods.
    pub pods: &'a [Value],
    /// What they count.
    pub counts: Option<Counts>,
}

/// The status, given the last one. Pure.
pub fn status(facts: &Facts, last: Option<&IpxeBridgeStatus>, generation: Option<i64>, now: Timestamp) -> IpxeBridgeStatus {
    let plan = facts.plan;
    let rollout = pods::Rollout::of(facts.deployment, plan.can_run());
    let mut findings: Vec<Finding> = plan.findings.iter().chain(&facts.findings).cloned().collect();
    findings.extend(facts.netboot.and_then(pods::refused));
    findings.extend(facts.pods.iter().find_map(pods::failure));
    findings.extend(
        rollout
            .stuck
            .clone()
            .map(|message| Finding::new(Reason::RolloutStuck, message)),
    );
    if facts
        .counts
        .as_ref()
        .is_some_and(|counts| counts.cache_enabled == Some(false))
    {
        findings.push(Finding::new(Reason::CacheTrouble, CACHE_TROUBLE));
    }
    let verdicts = verdicts(plan, &findings, &rollout);
    let last = last.cloned().unwrap_or_default();
    let counts = match &facts.counts {
        Some(counts) => counts.clone(),
        // One pod that did not answer in time is no news.
        None if rollout.ready > 0 => Counts {
            version: last.version.clone(),
            environments: last.environments,
            hosts: last.hosts,
            overrides: last.overrides,
            conflicts: last.conflicts,
            cache_enabled: None,
        },
        None => Counts::default(),
    };
    IpxeBridgeStatus {
        observed_generation: generation,
        conditions: merge(&last.conditions, verdicts, generation, now),
        uri: plan.uri.clone(),
        namespace: Some(plan.namespace.clone()),
        replicas: Some(rollout.replicas),
        ready_replicas: Some(rollout.ready),
        environments: counts.environments,
        hosts: counts.hosts,
        overrides: counts.overrides,
        conflicts: counts.conflicts,
        version: counts.version,
    }
}

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    type_: &'static str,
    is_true: bool,
    finding: Finding,
}

fn verdicts(plan: &Plan, findings: &[Finding], rollout: &pods::Rollout) -> Vec<Verdict> {
    let verdict = |type_, is_true, finding| Verdict { type_, is_true, finding };
    let is_waiting = |finding: &&Finding| matches!(finding.reason, Reason::Waiting | Reason::AddressPending);
    let waiting = |reason| findings.iter().find(|finding| finding.reason == reason).cloned();
    let unaddressed = findings.iter().find(|finding| finding.reason == Reason::UriMissing);
    let broken = findings
        .iter()
        .find(|finding| !is_waiting(finding) && finding.reason != Reason::UriMissing);
    let stalled = findings.iter().find(|finding| finding.needs_person());

    let available = rollout.availability();
    let rolling = rollout
        .moving
        .clone()
        .map(|message| Finding::new(Reason::RollingOut, message));
    // Pods that wait for a certificate are more than pods on their way, an address that is to come is less.
    let progress = waiting(Reason::Waiting)
        .or(rolling)
        .or_else(|| waiting(Reason::AddressPending));
    let as_expected = |message: String| Finding::new(Reason::AsExpected, message);
    // Machines boot without a cache.
    let broken_for_machines = broken.filter(|finding| finding.reason != Reason::CacheTrouble);
    let (is_ready, summary) = match (broken_for_machines, &progress, &available, unaddressed) {
        (Some(finding), ..) => (false, finding.clone()),
        (None, Some(finding), ..) => (false, finding.clone()),
        (None, None, (false, finding), _) => (false, finding.clone()),
        (None, None, _, Some(finding)) => (false, finding.clone()),
        (None, None, ..) => {
            let uri = plan.uri.as_deref().unwrap_or_default();
            (true, as_expected(format!("machines boot by {uri}/boot.ipxe")))
        }
    };
    let settled = || as_expected("nothing is on its way".to_owned());
    let sound = || as_expected("everything is as the spec wants it".to_owned());
    let alone = || as_expected("nobody has to do anything".to_owned());
    vec![
        verdict(condition_types::READY, is_ready, summary),
        verdict(condition_types::AVAILABLE, available.0, available.1),
        verdict(
            condition_types::PROGRESSING,
            progress.is_some(),
            progress.unwrap_or_else(settled),
        ),
        verdict(
            condition_types::DEGRADED,
            broken.is_some(),
            broken.cloned().unwrap_or_else(sound),
        ),
        verdict(
            condition_types::STALLED,
            stalled.is_some(),
            stalled.cloned().unwrap_or_else(alone),
        ),
    ]
}

/// New conditions; the time of a transition moves only when the status flips.
fn merge(last: &[Condition], verdicts: Vec<Verdict>, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    // The API keeps whole seconds: what was not written exactly would differ from what is read.
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let condition = |verdict: Verdict| {
        let status = if verdict.is_true { "True" } else { "False" }.to_owned();
        let same = last.iter().find(|last| last.type_ == verdict.type_ && last.status == status);
        Condition {
            last_transition_time: same.map_or_else(|| now.clone(), |last| last.last_transition_time.clone()),
            message: verdict.finding.message.chars().take(MAX_MESSAGE).collect(),
            observed_generation: generation,
            reason: verdict.finding.reason.to_string(),
            status,
            type_: verdict.type_.to_owned(),
        }
    };
    verdicts.into_iter().map(condition).collect()
}

/// The last status with one thing changed: the API server fails again and again. What the pods do is as little known as before.
pub fn troubled(last: Option<&IpxeBridgeStatus>, why: &str, now: Timestamp) -> Option<IpxeBridgeStatus> {
    let last = last?;
    let finding = Finding::new(
        Reason::ApiServerTrouble,
        format!("the API server fails again and again: {why}"),
    );
    let broken = [(condition_types::READY, false), (condition_types::DEGRADED, true)];
    let verdicts = broken.map(|(type_, is_true)| Verdict {
        type_,
        is_true,
        finding: finding.clone(),
    });
    let mut changed = merge(&last.conditions, verdicts.into(), last.observed_generation, now);
    let mut conditions = last.conditions.clone();
    for condition in &mut conditions {
        if let Some(index) = changed.iter().position(|changed| changed.type_ == condition.type_) {
            *condition = changed.swap_remove(index);
        }
    }
    Some(IpxeBridgeStatus {
        conditions,
        ..last.clone()
    })
}

/// Writes the status and publishes an Event; neither if nothing changed.
///
/// # Errors
///
/// If the status cannot be written. A lost Event is only logged.
pub async fn write(bridge: &Arc<IpxeBridge>, new: &IpxeBridgeStatus, ctx: &Context) -> Result<(), Error> {
    if bridge.status.as_ref() == Some(new) {
        return Ok(());
    }
    let name = bridge.name_any();
    let patch = json!({
        "apiVersion": IpxeBridge::api_version(&()),
        "kind": IpxeBridge::kind(&()),
        "metadata": {"name": name, "uid": bridge.uid()},
        "status": new,
    });
    let parameters = PatchParams::apply(name::STATUS_MANAGER).force();
    let (api, patch) = (Api::<IpxeBridge>::all(ctx.client.clone()), Patch::Apply(patch));
    let what = format!("the status of IpxeBridge {name}");
    match trace::write("write", &what, api.patch_status(&name, &parameters, &patch)).await {
        Ok(_) => ctx.metrics.wrote_status(),
        // It was deleted meanwhile, and maybe made anew.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(()),
        Err(error) => return Err(Error::api("write the status of", format!("IpxeBridge {name}"))(error)),
    }
    if let Some(event) = event(bridge.status.as_ref(), new)
        && let Err(error) = ctx.recorder.publish(&event, &bridge.object_ref(&())).await
    {
        tracing::warn!("the Event of IpxeBridge {name} was not published: {error}");
    }
    Ok(())
}

/// An Event where the summary changed.
fn event(last: Option<&IpxeBridgeStatus>, new: &IpxeBridgeStatus) -> Option<Event> {
    let of = |status: &IpxeBridgeStatus, type_: &str| status.conditions.iter().find(|condition| condition.type_ == type_).cloned();
    let ready = of(new, condition_types::READY)?;
    let before = last.and_then(|last| of(last, condition_types::READY));
    if before.is_some_and(|before| (&before.status, &before.reason) == (&ready.status, &ready.reason)) {
        return None;
    }
    let is_degraded = of(new, condition_types::DEGRADED).is_some_and(|condition| condition.status == "True");
    Some(Event {
        type_: if is_degraded { EventType::Warning } else { EventType::Normal },
        reason: ready.reason,
        note: Some(ready.message),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}
