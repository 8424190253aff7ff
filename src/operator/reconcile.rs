//! One bridge from what is to what is wanted: the steps in order, nothing else.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use tracing::Instrument as _;

use crate::crd::bridge::IpxeBridge;

use super::apply::apply;
use super::build::build;
use super::context::Context;
use super::error::{Error, chain};
use super::kind::Kind;
use super::name;
use super::observe::observe;
use super::plan::Plan;
use super::report::{self, Facts};
use super::trace;

/// Longest time for one bridge; even with an API server that takes two seconds for each answer it is enough.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a bridge is looked at that nobody touches: what its pods count is reported by no watch.
const RESYNC: Duration = Duration::from_secs(60);
/// Pause after a failure; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Fewer failures in a row than this are no news.
const TROUBLE: u32 = 5;

/// A bridge as the API server has it. One that cannot be read, since a newer version wrote it, must not end the watch of all others.
pub type Stored = DeserializeGuard<IpxeBridge>;

/// Brings one bridge to its spec, and says how far that went.
///
/// # Errors
///
/// Where the API server failed in a way that goes away by itself. What a person has to mend is no error but a condition.
pub async fn reconcile(stored: Arc<Stored>, ctx: Arc<Context>) -> Result<Action, Error> {
    let bridge = match &stored.0 {
        Ok(bridge) => Arc::new(bridge.clone()),
        Err(error) => {
            let name = stored.name_any();
            tracing::error!(
                bridge = name,
                "IpxeBridge {name} is left as it is, this version cannot read it: {error}"
            );
            ctx.metrics.reconciled("unreadable");
            return Ok(Action::await_change());
        }
    };
    // Its objects go with it: they name it as their owner.
    if bridge.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let span = trace::reconciliation(&bridge.name_any());
    let result = tokio::time::timeout(LIMIT, converge(&bridge, &ctx).instrument(span.clone()))
        .await
        .unwrap_or(Err(Error::Timeout));
    if let Err(error) = &result
        && !matches!(error, Error::NotListed(_))
    {
        span.record("otel.status_code", "ERROR");
        span.record("error.message", chain(error));
    }
    match &result {
        Ok(()) => ctx.metrics.reconciled("ok"),
        Err(error) => ctx.metrics.reconciled(error.label()),
    }
    result?;
    ctx.failures.none(&bridge.name_any());
    Ok(Action::requeue(RESYNC))
}

async fn converge(bridge: &Arc<IpxeBridge>, ctx: &Context) -> Result<(), Error> {
    let observed = observe(bridge, ctx).await?;
    let plan = Plan::new(bridge, &ctx.settings, &observed);
    let desired = build(&plan)?;
    let outcome = apply(&plan, desired, ctx).await;

    let (known, passing): (Vec<_>, Vec<_>) = outcome.errors.into_iter().partition(|error| error.finding().is_some());
    // What goes away by itself is no news: the status stays until it did.
    if let Some(error) = passing.into_iter().next() {
        return Err(error);
    }
    let deployment = |name: String| {
        let found = ctx.children.get(Kind::Deployment, Some(&plan.namespace), &name);
        found.and_then(|deployment| serde_json::to_value(&*deployment).ok())
    };
    let (netboot, deployment) = (
        deployment(name::netboot(&plan.bridge)),
        deployment(name::object(&plan.bridge)),
    );
    let all_pods = ctx.children.of(Kind::Pod, &plan.bridge);
    let in_namespace = all_pods
        .iter()
        .filter(|pod| pod.namespace().as_ref() == Some(&plan.namespace));
    let (on_boot_network, servers): (Vec<_>, Vec<_>) = in_namespace.partition(|pod| name::is_netboot(pod.labels()));
    // Only servers count what is in the inventory, but any of them may be unable to start.
    let servers: Vec<_> = values(servers).collect();
    let counts = ctx.counter.ask(&servers).await;
    let pods: Vec<_> = servers.into_iter().chain(values(on_boot_network)).collect();
    let facts = Facts {
        plan: &plan,
        findings: known.iter().filter_map(Error::finding).collect(),
        deployment: deployment.as_ref(),
        netboot: netboot.as_ref(),
        counts,
        pods: &pods,
    };
    let status = report::status(&facts, bridge.status.as_ref(), bridge.metadata.generation, Timestamp::now());
    report::write(bridge, &status, ctx).await
}

fn values(pods: Vec<&Arc<DynamicObject>>) -> impl Iterator<Item = serde_json::Value> {
    pods.into_iter().filter_map(|pod| serde_json::to_value(&**pod).ok())
}

/// When a bridge that failed is looked at again. Called once for each failure.
pub fn after_failure(stored: Arc<Stored>, error: &Error, ctx: Arc<Context>) -> Action {
    if let Error::NotListed(_) = error {
        return Action::requeue(FIRST_PAUSE);
    }
    let name = stored.name_any();
    let failures = ctx.failures.more(&name);
    tracing::warn!(bridge = name, failures, "IpxeBridge {name}: {}", chain(error));
    if failures >= TROUBLE
        && let Ok(bridge) = stored.0.clone().map(Arc::new)
        && let Some(status) = report::troubled(bridge.status.as_ref(), &chain(error), Timestamp::now())
    {
        // If this fails too, the next failure tries again.
        tokio::spawn(async move { report::write(&bridge, &status, &ctx).await });
    }
    Action::requeue(pause(failures))
}

fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
    doubled.min(LONGEST_PAUSE)
}
