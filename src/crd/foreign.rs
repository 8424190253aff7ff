//! InfraEnv, BareMetalHost and Agent: only the fields that are read, all of them optional.
//!
//! Upstream's schemas differ between versions, and one object of an unexpected shape must not end the watch of all others. So a spec
//! or status that does not fit becomes an error of that one object, and everything not named here is dropped while it is read.
//!
//! Sources: assisted-service `api/v1beta1/{infraenv,agent}_types.go`, baremetal-operator
//! `apis/metal3.io/v1alpha1/baremetalhost_types.go`.

use std::borrow::Cow;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// A kind of somebody else's API.
pub trait Kind: Clone + Debug + Send + Sync + 'static {
    /// API group.
    const GROUP: &'static str;
    /// API version.
    const VERSION: &'static str;
    /// Kind.
    const KIND: &'static str;
    /// Plural, as in paths.
    const PLURAL: &'static str;
    /// The fields of `spec` that are read.
    type Spec: DeserializeOwned + Default + Clone + Debug + Send + Sync;
    /// The fields of `status` that are read.
    type Status: DeserializeOwned + Default + Clone + Debug + Send + Sync;
}

/// An object of a kind, as it comes from the API server.
#[derive(Debug, Clone, Deserialize)]
#[serde(bound = "")]
pub struct Object<K: Kind> {
    /// Standard metadata, without what the bridge never needs.
    pub metadata: ObjectMeta,
    /// The spec, or what does not fit about it.
    #[serde(default)]
    pub spec: Lenient<K::Spec>,
    /// The status, or what does not fit about it.
    #[serde(default)]
    pub status: Lenient<K::Status>,
}

/// The same object read strictly: the first thing that does not fit is an error with its place in the text.
#[derive(Debug, Clone, Deserialize)]
#[serde(bound = "")]
pub struct StrictObject<K: Kind> {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// The spec.
    #[serde(default)]
    pub spec: K::Spec,
    /// The status.
    #[serde(default)]
    pub status: K::Status,
}

/// A value, or the reason why it could not be read.
#[derive(Debug, Clone)]
pub struct Lenient<T>(pub Result<T, String>);

impl<T: Default> Default for Lenient<T> {
    fn default() -> Self {
        Self(Ok(T::default()))
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(
            T::deserialize(value).map_err(|error| without_values(&error.to_string())),
        ))
    }
}

/// The words of a parser without the values it quotes: they may be addresses with tokens.
pub fn without_values(message: &str) -> String {
    if message.contains("://") || message.contains("api_key") {
        let start: String = message
            .split([':', '"', '`'])
            .next()
            .unwrap_or_default()
            .chars()
            .take(40)
            .collect();
        return format!("{start} (the text is not shown, it may hold a token)");
    }
    message.to_owned()
}

impl<K: Kind> kube::Resource for Object<K> {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        K::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        K::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Label of a BareMetalHost or Agent that names its InfraEnv, in the same namespace.
pub const INFRA_ENV_LABEL: &str = "infraenvs.agent-install.openshift.io";
/// Label of the InfraEnv that serves machines which nothing else names.
pub const DEFAULT_LABEL: &str = "pxe-bridge-default.infraenvs.agent-install.openshift.io";
/// Annotation of an InfraEnv whose image starts Ironic's agent in place of the assisted one.
pub const IRONIC_ANNOTATION: &str = "infraenv.agent-install.openshift.io/enable-ironic-agent";

/// `InfraEnv` of the Assisted Service.
#[derive(Debug, Clone)]
pub struct InfraEnv;

impl Kind for InfraEnv {
    const GROUP: &'static str = "agent-install.openshift.io";
    const VERSION: &'static str = "v1beta1";
    const KIND: &'static str = "InfraEnv";
    const PLURAL: &'static str = "infraenvs";
    type Spec = InfraEnvSpec;
    type Status = InfraEnvStatus;
}

/// What is read of an InfraEnv's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InfraEnvSpec {
    /// `DiscoveryImageAlways` or `BootOrderControl`.
    pub ipxe_script_type: Option<String>,
}

/// What is read of an InfraEnv's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InfraEnvStatus {
    /// Addresses of the artifacts; empty texts until the image was made.
    pub boot_artifacts: BootArtifacts,
    /// Conditions; `ImageCreated` is the one of interest.
    pub conditions: Vec<ForeignCondition>,
}

/// `status.bootArtifacts`; absent and empty mean the same.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BootArtifacts {
    /// Kernel.
    pub kernel: Option<String>,
    /// Initial RAM disk.
    pub initrd: Option<String>,
    /// Root file system.
    pub rootfs: Option<String>,
    /// iPXE script.
    pub ipxe_script: Option<String>,
}

/// A condition of somebody else's object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ForeignCondition {
    /// Type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// CamelCase reason.
    pub reason: String,
}

/// `Namespace` of Kubernetes.
#[derive(Debug, Clone)]
pub struct Namespace;

impl Kind for Namespace {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Namespace";
    const PLURAL: &'static str = "namespaces";
    type Spec = Unread;
    type Status = Unread;
}

/// `BareMetalHost` of Metal3.
#[derive(Debug, Clone)]
pub struct BareMetalHost;

impl Kind for BareMetalHost {
    const GROUP: &'static str = "metal3.io";
    const VERSION: &'static str = "v1alpha1";
    const KIND: &'static str = "BareMetalHost";
    const PLURAL: &'static str = "baremetalhosts";
    type Spec = BareMetalHostSpec;
    type Status = Unread;
}

/// What is read of a BareMetalHost's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct BareMetalHostSpec {
    /// Network card it boots from. The schema's pattern is not anchored, so this may be any text around an address.
    #[serde(rename = "bootMACAddress")]
    pub boot_mac_address: Option<String>,
}

/// A part of an object of which nothing is read.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Unread {}

/// `Agent` of the Assisted Service.
#[derive(Debug, Clone)]
pub struct Agent;

impl Kind for Agent {
    const GROUP: &'static str = "agent-install.openshift.io";
    const VERSION: &'static str = "v1beta1";
    const KIND: &'static str = "Agent";
    const PLURAL: &'static str = "agents";
    type Spec = Unread;
    type Status = AgentStatus;
}

/// What is read of an Agent's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentStatus {
    /// Raw state.
    pub debug_info: AgentDebugInfo,
    /// Progress of the installation.
    pub progress: AgentProgress,
    /// Hardware.
    pub inventory: AgentInventory,
}

/// `status.debugInfo`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AgentDebugInfo {
    /// For example `installing-in-progress`.
    pub state: Option<String>,
}

/// `status.progress`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentProgress {
    /// For example `Writing image to disk`.
    pub current_stage: Option<String>,
}

/// `status.inventory`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AgentInventory {
    /// Network cards.
    pub interfaces: Vec<AgentInterface>,
}

/// One of `status.inventory.interfaces`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentInterface {
    /// MAC address.
    pub mac_address: Option<String>,
}
