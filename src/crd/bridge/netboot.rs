//! The boot network of a bridge: ProxyDHCP, TFTP and boot programs in a pod of their own.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// ProxyDHCP, TFTP and boot programs on the network of a node: machines boot without a change to the site's DHCP server. The pod has the
/// node's own network, so its namespace must allow that (Pod Security `privileged`; on OpenShift an SCC, see docs/network.md).
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.enabled || size(self.interfaces) > 0 || has(self.interface)").message(
    "say with interface which network card of the node the machines are behind, such as eth1"
))]
pub struct Netboot {
    /// Whether it runs. Only one pod of a segment is needed, and two do no harm.
    #[serde(default)]
    pub enabled: bool,
    /// Network interface of the node that the machines are behind, such as `eth1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[^\s/,]+$"))]
    pub interface: Option<String>,
    /// Further interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub interfaces: Vec<InterfaceName>,
    /// Labels that a node must have: the node that is on the boot network.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pod puts up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Which machines are answered. `Known`: those that a BareMetalHost, an override or a host file names. `All`: every machine that boots
    /// from the network.
    #[serde(default)]
    pub answer: NetbootAnswer,
    /// Answers no DHCP packet, and logs what it would answer. Programs are there to be fetched all the same.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether ProxyDHCP listens on ports 67 and 4011 (`Full`), on 4011 only, for a node that has a DHCP server already (`Port4011`), or not
    /// at all (`"Off"`, in quotes: YAML reads a bare one as false): then the site's DHCP server names the boot programs.
    #[serde(default)]
    pub proxy_dhcp: NetbootProxyDhcp,
    /// How boot programs are sent by TFTP: from a port of its own for each transfer (`Enabled`), all from port 69 (`SinglePort`), for networks
    /// that translate addresses, or not at all (`Disabled`).
    #[serde(default)]
    pub tftp: NetbootTftp,
    /// Networks whose DHCP relays are answered, such as `10.1.0.0/16`. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub relays: Vec<Ipv4Network>,
    /// Networks whose machines may fetch boot programs. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub clients: Vec<Ipv4Network>,
    /// For firmware that needs something else, see docs/network.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub quirks: Vec<NetbootQuirk>,
    /// Where boot programs come from. Default: Debian's iPXE, which the bridge's image holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_programs: Option<BootPrograms>,
}

/// Name of a network interface of a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceName(#[schemars(length(min = 1, max = 15), regex(pattern = r"^[^\s/,]+$"))] pub String);

/// `Known`: machines that something names. `All`: every machine that boots from the network.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, strum::VariantArray)]
#[expect(missing_docs, reason = "described as a whole, as the schema shows it")]
pub enum NetbootAnswer {
    #[default]
    Known,
    All,
}

/// `Full`: ports 67 and 4011. `Port4011`: that port only. `Off`: none.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, strum::VariantArray)]
#[expect(missing_docs, reason = "described as a whole, as the schema shows it")]
pub enum NetbootProxyDhcp {
    #[default]
    Full,
    Port4011,
    Off,
}

/// `Enabled`: a port for each transfer. `SinglePort`: port 69 for all. `Disabled`: none.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, strum::VariantArray)]
#[expect(missing_docs, reason = "described as a whole, as the schema shows it")]
pub enum NetbootTftp {
    #[default]
    Enabled,
    SinglePort,
    Disabled,
}

/// `UefiAtOnce`: UEFI is told to use the boot file at once. `BiosAsks`: BIOS is not told so. `HeaderOnly`: the file is not in option 67.
/// `NoMachineId`: option 97 is not sent back. `NativeDrivers`: iPXE with network drivers of its own.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray)]
#[expect(missing_docs, reason = "described as a whole, as the schema shows it")]
pub enum NetbootQuirk {
    UefiAtOnce,
    BiosAsks,
    HeaderOnly,
    NoMachineId,
    NativeDrivers,
}

/// An IPv4 network, such as `10.1.0.0/16`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipv4Network(
    #[schemars(
        length(max = 18),
        regex(
            pattern = r"^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])/(3[0-2]|[12]?[0-9])$"
        )
    )]
    pub String,
);

/// A folder of boot programs, as iPXE's release archive or a distribution's package has them: an image or a volume.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.image) != has(self.claimName)").message("say one of image and claimName"))]
pub struct BootPrograms {
    /// An image that holds them in its root or in `path`. It is mounted, never run, which Kubernetes can do from 1.35 on (before with the
    /// feature gate ImageVolume).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\s]+$"))]
    pub image: Option<String>,
    /// Name of a PersistentVolumeClaim of the bridge's namespace that holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub claim_name: Option<String>,
    /// Folder inside of it. Default: its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9_][-A-Za-z0-9_./]*$"))]
    pub path: Option<String>,
}
