//! `IpxeBridge`: a running bridge, declared as YAML. The comments on fields are what users read.

mod cache;
mod exposure;
mod netboot;
mod pods;
mod reading;
mod status;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cache::{Cache, VolumeClaim};
pub use exposure::{
    CertManager, Ingress, IngressTls, InsecurePolicy, IssuerKind, IssuerRef, Route, RouteTermination, Service, ServiceServing,
    ServiceType, Tls, TrafficPolicy,
};
pub use netboot::{BootPrograms, InterfaceName, Ipv4Network, Netboot, NetbootAnswer, NetbootProxyDhcp, NetbootQuirk, NetbootTftp};
pub use pods::{DisruptionBudget, EnvVar, Monitor, NetworkPolicy, PullPolicy, SecretRef, Telemetry};
pub use reading::{
    Access, CaBundle, EnvironmentRef, Environments, EqualOverrides, HostConfig, HostOverride, LogLevel, NamespaceName, Upstream,
};
pub use status::{IpxeBridgeStatus, condition_types};

use super::host_override::{KernelArgumentsSpec, LocalDiskSpec};

/// How one bridge runs, how machines reach it, and what it answers. Every field is optional: an empty spec is a bridge with two pods.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "ipxe-bridge.io",
    version = "v1alpha1",
    kind = "IpxeBridge",
    plural = "ipxebridges",
    shortname = "ipxb",
    category = "ipxe",
    status = "IpxeBridgeStatus",
    doc = "A running bridge: it boots bare metal from the network as BareMetalHosts and InfraEnvs say."
)]
#[kube(printcolumn = r#"{"name":"Ready", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#)]
#[kube(printcolumn = r#"{"name":"Reason", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#)]
#[kube(printcolumn = r#"{"name":"URI", "type":"string", "jsonPath":".status.uri"}"#)]
#[kube(printcolumn = r#"{"name":"Pods", "type":"integer", "jsonPath":".status.readyReplicas"}"#)]
#[kube(printcolumn = r#"{"name":"Hosts", "type":"integer", "jsonPath":".status.hosts"}"#)]
#[kube(printcolumn = r#"{"name":"Conflicts", "type":"integer", "jsonPath":".status.conflicts"}"#)]
#[kube(printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#)]
#[kube(printcolumn = r#"{"name":"Namespace", "type":"string", "jsonPath":".status.namespace", "priority":1}"#)]
#[kube(printcolumn = r#"{"name":"Environments", "type":"integer", "jsonPath":".status.environments", "priority":1}"#)]
#[kube(printcolumn = r#"{"name":"Version", "type":"string", "jsonPath":".status.version", "priority":1}"#)]
#[kube(
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "choose a name of at most 40 lower-case letters, digits and hyphens that begins with a letter: Services are named after it"
    )
)]
#[x_kube(
    validation = Rule::new("has(self.namespace) == has(oldSelf.namespace)").message(
        "namespace cannot be added or taken away later: delete the bridge and create it again in the other namespace"
    ),
    validation = Rule::new("!has(self.route.termination) || !(self.route.termination in ['Reencrypt', 'Passthrough']) || has(self.tls)").message(
        "route.termination Reencrypt and Passthrough end TLS in the pods: say with tls where their certificate comes from, or write Edge or None"
    ),
    validation = Rule::new("!has(self.tls) || self.tls.plainHttp != 'Disabled' || !has(self.route.termination) || self.route.termination in ['Reencrypt', 'Passthrough']").message(
        "with tls.plainHttp Disabled the pods have no plain port: write route.termination Reencrypt or Passthrough"
    ),
    validation = Rule::new("!has(self.cache.persistentVolumeClaim) || (has(self.replicas) && self.replicas <= 1)").message(
        "only one pod can use cache.persistentVolumeClaim: write replicas 1, or leave it out so that each pod has a cache of its own"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IpxeBridgeSpec {
    /// Namespace of the pods and everything around them. It must exist. Default: the operator's own. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "namespace cannot be changed: delete the bridge and create it again in the other namespace"
    ))]
    pub namespace: Option<String>,
    /// Address under which machines reach the bridge: `http://boot.example.com:9876`. Scripts name it. Default: found from the Route, the
    /// Ingress or the load balancer; the one in use is in `status.uri`. Short ones are better: DHCP has room for 95 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[-A-Za-z0-9._~:/%\\\\[\\\\]]+$')").message(
        "write an http or https address without user name, query and fragment, such as http://boot.example.com:9876"
    ))]
    pub uri: Option<String>,

    /// Number of pods. Default: 2, until something else sets the Deployment's replicas, such as an autoscaler, which is then left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: Option<i32>,
    /// Container image of the bridge. Default: the one that belongs to the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\s]+$"))]
    pub image: Option<String>,
    /// When the image is pulled. Default: as Kubernetes has it, `IfNotPresent` unless the image's tag is `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PullPolicy")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets of the bridge's namespace with credentials for the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<SecretRef>,
    /// CPU and memory of the container. Default: requests of 100m and 128Mi, a memory limit of 512Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods put up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Which nodes and neighbours the pods want or avoid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How the pods spread over nodes and zones. Default: evenly over nodes and over zones where that is possible. A constraint without a
    /// `labelSelector` counts the pods of this bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// Name of a PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Further variables of the container, such as `HTTPS_PROXY` and `NO_PROXY`. Settings of the bridge have fields of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,

    /// The Service in front of the pods.
    #[serde(default)]
    pub service: Service,
    /// An OpenShift Route to the bridge.
    #[serde(default)]
    pub route: Route,
    /// An Ingress to the bridge, for clusters without Routes. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// HTTPS of the pods. Default: plain HTTP only, which every iPXE can speak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// How often the bridge re-reads what reports no changes, such as upstream's scripts: `90s`, `5m`. At least `1s`.
    #[serde(default = "loop_timing")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"))]
    #[x_kube(validation = Rule::new("self != '' && duration(self) >= duration('1s')").message("write a time of at least one second, such as 90s or 5m"))]
    pub loop_timing: String,
    /// The Assisted Service that scripts and files come from.
    #[serde(default)]
    pub upstream: Upstream,
    /// Which InfraEnvs this bridge serves.
    #[serde(default)]
    pub environments: Environments,
    /// What a machine gets that nothing names. `Shell`: iPXE's shell. `LocalDisk`: its disk. `NotFound`: status 404. `Wait`: it asks again
    /// until something names it.
    #[serde(default)]
    pub unknown_hosts: UnknownHosts,
    /// When a machine boots its own disk in place of its environment. `UntilInstalled`: once its installation has reached the reboot.
    /// `Always`: never, the environment always boots. `Upstream`: when the Assisted Service says so.
    #[serde(default)]
    pub boot_policy: BootPolicy,
    /// Changes to the kernel's command line in every environment's script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_arguments: Option<KernelArgumentsSpec>,
    /// How a machine is sent to its own disk. Default: method `Platform`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_disk: Option<LocalDiskSpec>,
    /// Where the pods keep kernels and root file systems, so that each is fetched once however many machines boot.
    #[serde(default)]
    pub cache: Cache,
    /// Scripts of single machines, as the Python bridge had them. IpxeHostOverrides can do more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_config: Option<HostConfig>,
    /// What the bridge gives to whom, beyond the usual.
    #[serde(default)]
    pub access: Access,

    /// ProxyDHCP, TFTP and boot programs for machines that boot from the network. Default: none of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netboot: Option<Netboot>,

    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Who may connect to the pods.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
    /// How many pods may be away while nodes are drained.
    #[serde(default)]
    pub pod_disruption_budget: DisruptionBudget,
}

fn loop_timing() -> String {
    "90s".to_owned()
}

/// What a machine gets that nothing names.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::VariantArray)]
#[expect(missing_docs, reason = "described as a whole, as the schema shows it")]
pub enum UnknownHosts {
    #[default]
    Shell,
    LocalDisk,
    NotFound,
    Wait,
}

/// When a machine boots its own disk in place of its environment.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::VariantArray)]
#[expect(missing_docs, reason = "described as a whole, as the schema shows it")]
pub enum BootPolicy {
    #[default]
    UntilInstalled,
    Always,
    Upstream,
}

/// `Enabled` or `Disabled`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "described as a whole, as the schema shows it")]
pub enum Switch {
    Enabled,
    Disabled,
}

impl Switch {
    /// For the schema's defaults.
    pub(super) fn enabled() -> Self {
        Self::Enabled
    }

    /// For the schema's defaults.
    pub(super) fn disabled() -> Self {
        Self::Disabled
    }

    /// Whether it is on.
    pub fn is_on(self) -> bool {
        self == Self::Enabled
    }
}

/// `Auto`: where the cluster has the API for it. `Enabled`: wanted, and a cluster without the API is an error. `Disabled`: never.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "described as a whole, as the schema shows it")]
pub enum Mode {
    #[default]
    Auto,
    Enabled,
    Disabled,
}
