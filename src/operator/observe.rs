//! Reads what a plan needs to know of the cluster.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::DynamicObject;
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use crate::crd::bridge::IpxeBridge;

use super::address::Addresses;
use super::context::Context;
use super::digest;
use super::error::Error;
use super::kind::Kind;
use super::name;
use super::plan::{Content, Observed, Presence};
use super::reference::{Reference, Store, references};

/// Where the bridge runs.
pub fn namespace<'a>(bridge: &'a IpxeBridge, ctx: &'a Context) -> &'a str {
    bridge.spec.namespace.as_deref().unwrap_or(&ctx.settings.namespace)
}

/// Reads what a plan needs to know of the cluster.
///
/// # Errors
///
/// If a kind that every cluster has is not listed yet, or the API server does not answer.
pub async fn observe(bridge: &IpxeBridge, ctx: &Context) -> Result<Observed, Error> {
    let kinds = ctx.children.kinds();
    if let Some(kind) = Kind::all().find(|kind| !kind.is_optional() && kinds.get(kind) != Some(&Presence::Present)) {
        return Err(Error::NotListed(kind));
    }
    let namespace = namespace(bridge, ctx);
    let child = |kind| ctx.children.get(kind, Some(namespace), &name::object(&bridge.name_any()));
    let (route, service) = (child(Kind::Route), child(Kind::Service));
    let data = |object: &Option<std::sync::Arc<DynamicObject>>| object.as_ref().map(|object| object.data.clone());
    let mut read = BTreeMap::new();
    let mut answers = futures::stream::iter(references(&bridge.name_any(), &bridge.spec))
        .map(|reference| async { (content(ctx, namespace, &reference).await, reference) })
        .buffer_unordered(4);
    while let Some((content, reference)) = answers.next().await {
        read.insert(reference, content?);
    }
    Ok(Observed {
        replicas_are_foreign: child(Kind::Deployment).is_some_and(|deployment| has_foreign_replicas(&deployment)),
        addresses: Addresses::of(data(&route).as_ref(), data(&service).as_ref()),
        references: read,
        kinds,
    })
}

/// What a ConfigMap or Secret holds. Of Secrets only the metadata is read: what is in them is none of the operator's business.
async fn content(ctx: &Context, namespace: &str, reference: &Reference) -> Result<Content, Error> {
    let failed = || Error::api("read", format!("{} {namespace}/{}", reference.kind, reference.name));
    match reference.kind {
        Store::Secret => {
            let api = Api::<Secret>::namespaced(ctx.client.clone(), namespace);
            let found = api.get_metadata_opt(&reference.name).await.map_err(failed())?;
            Ok(found.map_or(Content::Missing, |secret| {
                Content::Version(digest::of(&(secret.uid(), secret.resource_version())))
            }))
        }
        Store::ConfigMap => {
            let api = Api::<ConfigMap>::namespaced(ctx.client.clone(), namespace);
            let Some(found) = api.get_opt(&reference.name).await.map_err(failed())? else {
                return Ok(Content::Missing);
            };
            let filled = |key: &String| {
                found
                    .data
                    .as_ref()
                    .is_some_and(|data| data.get(key).is_some_and(|text| !text.is_empty()))
            };
            match &reference.key {
                Some(key) if !filled(key) => Ok(Content::Empty),
                _ => Ok(Content::Version(digest::of(&(&found.data, &found.binary_data)))),
            }
        }
    }
}

/// Whether something else than the operator set the number of pods: server-side apply keeps account of who owns which field.
fn has_foreign_replicas(deployment: &DynamicObject) -> bool {
    deployment.managed_fields().iter().any(|entry| {
        let fields = entry.fields_v1.as_ref().map_or(&Value::Null, |fields| &fields.0);
        entry.manager.as_deref() != Some(name::MANAGER) && fields["f:spec"].get("f:replicas").is_some()
    })
}
