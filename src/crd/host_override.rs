//! `IpxeHostOverride`: what single machines boot, declared as YAML. The comments on fields are what users read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::foreign::{Kind, Unread};

/// What single machines boot, before every other rule.
///
/// An override names machines by MAC address, or by the labels of their BareMetalHosts, and says what they boot or how the kernel's
/// command line of their environment changes. It never reaches a machine that a BareMetalHost of another namespace owns.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "ipxe-bridge.io",
    version = "v1alpha1",
    kind = "IpxeHostOverride",
    plural = "ipxehostoverrides",
    shortname = "ipxo",
    category = "ipxe",
    namespaced,
    doc = "What single machines boot, before every other rule."
)]
#[kube(printcolumn(name = "Machines", type_ = "string", json_path = ".spec.macAddresses"))]
#[kube(printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"))]
#[kube(printcolumn = r#"{"name":"Expires", "type":"string", "jsonPath":".spec.expiresAt"}"#)]
#[kube(printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#)]
#[x_kube(
    validation = Rule::new("(has(self.macAddresses) && size(self.macAddresses) > 0) != has(self.hostSelector)").message(
        "say which machines: either macAddresses with at least one address, or hostSelector"
    ),
    validation = Rule::new("[has(self.script), has(self.chain), has(self.infraEnv), has(self.localDisk)].filter(given, given).size() <= 1").message(
        "say one thing to boot: only one of script, chain, infraEnv and localDisk"
    ),
    validation = Rule::new("has(self.script) || has(self.chain) || has(self.infraEnv) || has(self.localDisk) || has(self.kernelArguments)").message(
        "say what to do: script, chain, infraEnv, localDisk or kernelArguments"
    ),
    validation = Rule::new("!has(self.kernelArguments) || !(has(self.script) || has(self.chain) || has(self.localDisk))").message(
        "kernelArguments change the command line of an environment: they cannot go with script, chain or localDisk"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IpxeHostOverrideSpec {
    /// MAC addresses of the machines, with colons, hyphens, dots or bare: `52:54:00:cc:00:01`. Either this or `hostSelector`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub mac_addresses: Vec<MacText>,
    /// Labels of the machines' BareMetalHosts in the override's own namespace. Either this or `macAddresses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_selector: Option<LabelSelector>,
    /// An iPXE script, served unchanged. At most 64 KiB, beginning with `#!ipxe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    #[x_kube(validation = Rule::new("bytes(self).size() <= 65536").message("a script has at most 64 KiB: hand over to a longer one with chain"))]
    pub script: Option<String>,
    /// Address of another server's script or program that the machine is handed over to: `http://boot.example.com/menu.ipxe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(https?|tftp)://[!-~]+$') && !self.contains('${')").message(
        "write an http, https or tftp address without blanks and without ${ }, such as http://boot.example.com/menu.ipxe"
    ))]
    pub chain: Option<String>,
    /// An InfraEnv of the override's own namespace, in place of the one that the BareMetalHost's label names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra_env: Option<InfraEnvRef>,
    /// The machine's own disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_disk: Option<LocalDiskSpec>,
    /// Changes to the kernel's command line of the environment that boots, after the environment's and the bridge's own arguments:
    /// arguments are removed, then replaced, then appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_arguments: Option<KernelArgumentsSpec>,
    /// Of several overrides for one machine the one with the highest priority counts. Of equal ones none counts.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// When the override ends by itself: `2027-01-31T18:00:00Z`. The object stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// A MAC address as people write it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[schemars(inline)]
pub struct MacText(
    #[schemars(
        length(max = 17),
        regex(
            pattern = r"^([0-9a-fA-F]{2}((:[0-9a-fA-F]{2}){5}|(-[0-9a-fA-F]{2}){5})|[0-9a-fA-F]{4}(\.[0-9a-fA-F]{4}){2}|[0-9a-fA-F]{12})$"
        )
    )]
    pub String,
);

/// An InfraEnv of the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct InfraEnvRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// How a machine is sent to its own disk.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct LocalDiskSpec {
    /// The way to the disk; without it the bridge's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LocalDiskMethod")]
    pub method: Option<LocalDiskMethod>,
}

/// Ways to a machine's disk. `Platform`: UEFI goes on in the firmware's boot order, BIOS starts the first disk. `Exit`: back to the
/// firmware on both. `Sanboot`: the first disk on both. `NotFound`: no script at all.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, strum::Display)]
#[expect(missing_docs, reason = "described as a whole, as the schema shows it")]
pub enum LocalDiskMethod {
    Platform,
    Exit,
    Sanboot,
    NotFound,
}

/// Changes to a kernel's command line.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("(has(self.remove) && size(self.remove) > 0) || (has(self.replace) && size(self.replace) > 0) || (has(self.append) && size(self.append) > 0)").message(
        "say what changes: remove, replace or append"
    )
)]
pub struct KernelArgumentsSpec {
    /// Arguments to take away, by key (`console`: every one of them) or as a whole (`console=tty1`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub remove: Vec<Argument>,
    /// Arguments to exchange where they stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub replace: Vec<Replacement>,
    /// Arguments to put at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub append: Vec<Argument>,
}

/// One kernel argument, such as `console=ttyS0,115200n8`. iPXE has no quoting, so it holds no blanks and nothing that iPXE reads as
/// syntax: not `&&`, `||` or `;`, no `${`, no `#` at the start, no `\` at the end.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[schemars(inline)]
pub struct Argument(
    #[schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = [{
        "rule": "!(self in ['&&', '||', ';']) && !self.contains('${') && !self.startsWith('#') && !self.endsWith('\\\\') && self.matches('^[^[:cntrl:][:space:]\\\\p{Z}\\\\x{85}]*$')",
        "message": "write one kernel argument without blanks; iPXE would read &&, ||, ;, ${ }, a # at the start and a backslash at the end as syntax"
    }]))]
    pub String,
);

/// An argument and what takes its place.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct Replacement {
    /// The argument to exchange, by key (`console`) or as a whole (`console=tty1`).
    pub argument: Argument,
    /// The argument in its place.
    pub with: Argument,
}

/// The kind, for the watch.
#[derive(Debug, Clone)]
pub struct HostOverrideKind;

impl Kind for HostOverrideKind {
    const GROUP: &'static str = "ipxe-bridge.io";
    const VERSION: &'static str = "v1alpha1";
    const KIND: &'static str = "IpxeHostOverride";
    const PLURAL: &'static str = "ipxehostoverrides";
    type Spec = IpxeHostOverrideSpec;
    type Status = Unread;
}
