//! Brings the cluster to what is wanted: server-side apply of what differs, removal of what is no longer wanted, nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use super::boot_keys;
use super::build::Desired;
use super::children::Applied;
use super::context::Context;
use super::digest;
use super::error::Error;
use super::kind::Kind;
use super::name;
use super::plan::{Plan, Presence};
use super::trace;

/// Requests at once for one bridge.
const AT_ONCE: usize = 4;

/// What came of it. One object that is refused does not keep the others from being applied.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What failed.
    pub errors: Vec<Error>,
}

/// Applies everything, the Deployment last, then removes what is no longer wanted.
pub async fn apply(plan: &Plan, desired: Vec<Desired>, ctx: &Context) -> Outcome {
    let kinds = ctx.children.kinds();
    let is_there = |kind: Kind| kinds.get(&kind) == Some(&Presence::Present);
    let wanted: BTreeSet<(Kind, String)> = desired.iter().map(|object| (object.kind, object.name.clone())).collect();
    let (deployments, others): (Vec<_>, Vec<_>) = desired
        .into_iter()
        .filter(|object| is_there(object.kind))
        .partition(|object| object.kind == Kind::Deployment);
    let mut errors = apply_all(plan, others, ctx).await;
    errors.extend(boot_keys::ensure(plan, ctx).await.err());
    // Pods that cannot start are not asked for: those that run stay.
    if plan.can_run() {
        errors.extend(apply_all(plan, deployments, ctx).await);
    }
    errors.extend(prune(plan, &wanted, ctx).await);
    Outcome { errors }
}

async fn apply_all(plan: &Plan, desired: Vec<Desired>, ctx: &Context) -> Vec<Error> {
    let results = futures::stream::iter(desired)
        .map(|object| apply_one(plan, object, ctx))
        .buffer_unordered(AT_ONCE);
    results.filter_map(|result| async { result.err() }).collect().await
}

async fn apply_one(plan: &Plan, desired: Desired, ctx: &Context) -> Result<(), Error> {
    let Desired {
        kind,
        namespace,
        name,
        object,
    } = desired;
    let wanted = digest::of(&object);
    let live = ctx.children.get(kind, namespace.as_deref(), &name);
    let applied = |object: &DynamicObject| Applied {
        uid: object.uid(),
        wanted: wanted.clone(),
        owned: owned(object),
    };
    if let Some(live) = &live
        && ctx.children.knows(kind, live, &applied(live))
    {
        return Ok(());
    }
    let what = format!("{kind} {name}");
    let api = api(kind, namespace.as_deref(), ctx);
    let live = match live {
        Some(live) => Some(live),
        // It may be there without the labels by which it is watched.
        None => api
            .get_opt(&name)
            .await
            .map_err(Error::api("read", what.clone()))?
            .map(Arc::new),
    };
    if live.is_some_and(|live| !is_owned(&live, plan)) {
        return Err(Error::Taken(what));
    }
    let parameters = PatchParams::apply(name::MANAGER).force();
    let patch = Patch::Apply(&object);
    let written = trace::write("apply", &what, api.patch(&name, &parameters, &patch)).await;
    let written = written.map_err(Error::api("apply", what))?;
    ctx.metrics.wrote(kind);
    ctx.children.keep(kind, &written, applied(&written));
    ctx.children.set(kind, Arc::new(written));
    Ok(())
}

/// Removes what is part of the bridge and not wanted.
async fn prune(plan: &Plan, wanted: &BTreeSet<(Kind, String)>, ctx: &Context) -> Vec<Error> {
    let mut errors = Vec::new();
    for kind in Kind::written() {
        for object in ctx.children.of(kind, &plan.bridge) {
            let name = object.name_any();
            if wanted.contains(&(kind, name.clone())) || !is_owned(&object, plan) || object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            // Not one of the same name that was made meanwhile.
            let parameters = DeleteParams::background().preconditions(Preconditions {
                uid: object.uid(),
                resource_version: None,
            });
            let (api, what) = (api(kind, object.namespace().as_deref(), ctx), format!("{kind} {name}"));
            match trace::write("delete", &what, api.delete(&name, &parameters)).await {
                Ok(_) => ctx.metrics.wrote(kind),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => errors.push(Error::api("delete", what)(error)),
            }
        }
    }
    errors
}

fn api(kind: Kind, namespace: Option<&str>, ctx: &Context) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), namespace, &kind.resource()),
        None => Api::all_with(ctx.client.clone(), &kind.resource()),
    }
}

fn is_owned(object: &DynamicObject, plan: &Plan) -> bool {
    object.owner_references().iter().any(|owner| owner.uid == plan.owner.uid)
}

/// The fields that the operator owns, as the API server keeps account of them.
fn owned(object: &DynamicObject) -> String {
    let is_ours = |manager: Option<&str>, operation: Option<&str>| manager == Some(name::MANAGER) && operation == Some("Apply");
    let fields: Vec<&Value> = object
        .managed_fields()
        .iter()
        .filter(|entry| is_ours(entry.manager.as_deref(), entry.operation.as_deref()))
        .filter_map(|entry| Some(&entry.fields_v1.as_ref()?.0))
        .collect();
    digest::of(&fields)
}
