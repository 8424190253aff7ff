//! What a bridge reads and whom it answers: upstream, environments, host files, access.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Switch;

/// The Assisted Service that scripts and files come from.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// ConfigMaps of the bridge's namespace with certificates (PEM) to trust beside the system's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name", "key"]))]
    pub ca_bundles: Vec<CaBundle>,
    /// `Enabled`: trust what OpenShift's cluster-wide proxy configuration trusts. It puts its bundle into a ConfigMap that is made for it.
    #[serde(default = "Switch::disabled")]
    pub cluster_ca_bundle: Switch,
    /// `Enabled`: trust OpenShift's own signer of Services, for addresses inside the cluster.
    #[serde(default = "Switch::disabled")]
    pub service_ca_bundle: Switch,
    /// Other addresses for hosts of the Assisted Service, such as its Service inside the cluster in place of its Route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"]))]
    pub host_overrides: Vec<HostOverride>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            ca_bundles: Vec::new(),
            cluster_ca_bundle: Switch::Disabled,
            service_ca_bundle: Switch::Disabled,
            host_overrides: Vec::new(),
        }
    }
}

/// A ConfigMap with certificates.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct CaBundle {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key that holds them.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

fn ca_key() -> String {
    "ca-bundle.crt".to_owned()
}

/// Another address for a host.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
pub struct HostOverride {
    /// The host as InfraEnvs name it: `assisted-image-service-multicluster-engine.apps.example.com`.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub host: String,
    /// Where it is asked instead, without a path: `https://assisted-image-service.multicluster-engine.svc:8080`.
    #[schemars(length(max = 300))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?$')").message(
        "write an http or https address without a path, such as https://assisted-image-service.multicluster-engine.svc:8080"
    ))]
    pub address: String,
}

/// Which InfraEnvs a bridge serves.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Environments {
    /// Labels of the namespaces whose InfraEnvs, BareMetalHosts, Agents and overrides are read. Default: all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Labels of the InfraEnvs that are served. Default: all of the namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// The InfraEnv for machines that nothing else names. Default: the one with the label
    /// `pxe-bridge-default.infraenvs.agent-install.openshift.io: "true"`, which this replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<EnvironmentRef>,
}

/// An InfraEnv.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct EnvironmentRef {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// Scripts of single machines.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HostConfig {
    /// ConfigMap of the bridge's namespace. Each key is a MAC address with hyphens (`52-54-00-cc-00-01`), its value an iPXE script.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub config_map_name: String,
}

/// What the bridge gives to whom, beyond the usual.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Namespaces whose IpxeHostOverrides may reach machines that a BareMetalHost of another namespace owns. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub override_namespaces: Vec<NamespaceName>,
    /// What counts of several IpxeHostOverrides with the same priority for one machine. `None`: none of them, and the contradiction is
    /// told. `Oldest`: the oldest.
    #[serde(default)]
    pub equal_overrides: EqualOverrides,
    /// `Enabled`: upstream's unchanged scripts at `/ipxe-mac-proxy/MAC`. They hold a token of the environment that does not expire.
    #[serde(default = "Switch::disabled")]
    pub script_proxy: Switch,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            override_namespaces: Vec::new(),
            equal_overrides: EqualOverrides::None,
            script_proxy: Switch::Disabled,
        }
    }
}

/// What counts of several overrides with the same priority.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
#[expect(missing_docs, reason = "described at the field")]
pub enum EqualOverrides {
    #[default]
    None,
    Oldest,
}

/// Name of a namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[schemars(inline)]
pub struct NamespaceName(#[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))] pub String);

/// Levels of the log.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
#[expect(missing_docs, reason = "described at the field")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}
