//! What the operator says about a bridge.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Types of the conditions of a bridge.
pub mod condition_types {
    /// Summary: machines can boot through the bridge, and everything is as the spec wants it.
    pub const READY: &str = "Ready";
    /// At least one pod answers machines.
    pub const AVAILABLE: &str = "Available";
    /// The cluster is on its way to what the spec wants.
    pub const PROGRESSING: &str = "Progressing";
    /// Something is not as the spec wants it.
    pub const DEGRADED: &str = "Degraded";
    /// Nothing will change until a person does something (kstatus takes this for failed).
    pub const STALLED: &str = "Stalled";
}

/// What the operator says about a bridge.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IpxeBridgeStatus {
    /// Generation of the spec that all of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` sums up the others: `Available` (a pod answers machines), `Progressing` (on the way to what the spec wants), `Degraded`
    /// (something is not as the spec wants it), `Stalled` (a person has to do something). Reasons are explained in docs/operations.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Address for machines: `http://boot.example.com:9876`. Their DHCP server names `/boot.ipxe` below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Namespace of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Pods that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Pods that answer machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// InfraEnvs, as a running pod counts them; asked for once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environments: Option<i64>,
    /// BareMetalHosts, as a running pod counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<i64>,
    /// IpxeHostOverrides, as a running pod counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<i64>,
    /// Things that several objects claim, as a running pod counts them; `/inventory` of the bridge names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflicts: Option<i64>,
    /// Version of the bridge that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}
