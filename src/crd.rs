//! Kinds of the cluster: those that the bridge reads, and its own.

pub mod bridge;
pub mod foreign;
pub mod host_override;
mod schema;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// The definitions of the bridge's own kinds.
pub fn all() -> Vec<CustomResourceDefinition> {
    [bridge::IpxeBridge::crd(), host_override::IpxeHostOverride::crd()]
        .map(schema::finish)
        .into()
}
