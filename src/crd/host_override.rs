//! `IpxeHostOverride`: what single machines boot, declared as YAML. The comments on fields are what users read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::foreign::Kind;

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
    status = "IpxeHostOverrideStatus",
    doc = "What single machines boot, before every other rule."
)]
#[kube(printcolumn = r#"{"name":"Ready", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#)]
#[kube(printcolumn = r#"{"name":"Reason", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#)]
#[kube(printcolumn = r#"{"name":"Machines", "type":"integer", "jsonPath":".status.machineCount"}"#)]
#[kube(printcolumn = r#"{"name":"Served", "type":"integer", "jsonPath":".status.served"}"#)]
#[kube(printcolumn = r#"{"name":"Last", "type":"date", "jsonPath":".status.lastServed"}"#)]
#[kube(printcolumn = r#"{"name":"Addresses", "type":"string", "jsonPath":".spec.macAddresses", "priority":1}"#)]
#[kube(printcolumn = r#"{"name":"Priority", "type":"integer", "jsonPath":".spec.priority", "priority":1}"#)]
#[kube(printcolumn = r#"{"name":"Limit", "type":"integer", "jsonPath":".spec.bootLimit", "priority":1}"#)]
#[kube(printcolumn = r#"{"name":"Expires", "type":"string", "jsonPath":".spec.expiresAt", "priority":1}"#)]
#[kube(
    printcolumn = r#"{"name":"Message", "type":"string", "jsonPath":".status.conditions[?(@.type==\"Ready\")].message", "priority":1}"#
)]
#[kube(printcolumn = r#"{"name":"Age", "type":"date", "jsonPath":".metadata.creationTimestamp"}"#)]
#[x_kube(
    validation = Rule::new("(has(self.macAddresses) && size(self.macAddresses) > 0) != has(self.hostSelector)").message(
        "say which machines: either macAddresses with at least one address, or hostSelector"
    ),
    validation = Rule::new("[has(self.script), has(self.scriptFrom), has(self.chain), has(self.infraEnv), has(self.localDisk)].filter(given, given).size() <= 1").message(
        "say one thing to boot: only one of script, scriptFrom, chain, infraEnv and localDisk"
    ),
    validation = Rule::new("has(self.script) || has(self.scriptFrom) || has(self.chain) || has(self.infraEnv) || has(self.localDisk) || has(self.kernelArguments)").message(
        "say what to do: script, scriptFrom, chain, infraEnv, localDisk or kernelArguments"
    ),
    validation = Rule::new("!has(self.kernelArguments) || !(has(self.script) || has(self.scriptFrom) || has(self.chain) || has(self.localDisk))").message(
        "kernelArguments change the command line of an environment: they cannot go with script, scriptFrom, chain or localDisk"
    ),
    validation = Rule::new("!has(self.templating) || !self.templating || has(self.script) || has(self.scriptFrom)").message(
        "templating is for script and scriptFrom only: remove it here"
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
    /// A key of a ConfigMap or Secret of the override's own namespace that holds the script; changes are followed. The bridge reads it
    /// only if a Role of that namespace lets its ServiceAccount get, list and watch the object by name. While it cannot be read the
    /// machines wait: they do not get what they would boot without the override.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_from: Option<ScriptFrom>,
    /// Whether `{{ mac }}`, `{{ bridge }}`, `{{ environment.kernel }}` and the like in the script are replaced. Without it nothing is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub templating: bool,
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
    /// Each machine boots it so often, then it steps aside: `1` is boot once. Every script that is sent counts, also one that is lost on
    /// its way. To let it boot again raise the number, or delete and create the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub boot_limit: Option<u32>,
    /// Of several overrides for one machine the one with the highest priority counts. Of equal ones none counts, unless the bridge is
    /// told that the oldest does.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// When the override ends by itself: `2027-01-31T18:00:00Z`. The object stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// A MAC address as people write it. The second digit is even: an odd one means a group of machines (IEEE 802, multicast).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[schemars(inline)]
pub struct MacText(
    #[schemars(
        length(max = 17),
        regex(
            pattern = r"^[0-9a-fA-F][02468aceACE]((:[0-9a-fA-F]{2}){5}|(-[0-9a-fA-F]{2}){5}|[0-9a-fA-F]{2}(\.[0-9a-fA-F]{4}){2}|[0-9a-fA-F]{10})$"
        )
    )]
    pub String,
);

/// Where a script is kept: exactly one of the two.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.configMapKeyRef) != has(self.secretKeyRef)").message(
        "say where the script is: either configMapKeyRef or secretKeyRef"
    )
)]
pub struct ScriptFrom {
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}

/// A key of an object of the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct KeyRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in it, such as `rescue.ipxe`.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

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
    ),
    validation = Rule::new("!has(self.remove) || self.remove.all(argument, !argument.matches('^(initrd|coreos[.]live[.]rootfs_url)(=.*)?$'))").message(
        "initrd and coreos.live.rootfs_url cannot be removed: the machine could not boot without them"
    ),
    validation = Rule::new("!has(self.replace) || self.replace.all(pair, !pair.argument.matches('^(initrd|coreos[.]live[.]rootfs_url)(=.*)?$'))").message(
        "initrd and coreos.live.rootfs_url cannot be replaced: the machine could not boot without them"
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

/// What became of an override, as the bridge that serves it reports.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct IpxeHostOverrideStatus {
    /// The generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`: it can be used. `Ready`: at least one machine boots it. `Conflicted`: another object claims the same machine.
    /// `Warning`: its script has a likely mistake, and is served all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many machines it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_count: Option<i64>,
    /// These machines, at most 1000 of them, and how often each was served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["macAddress"]))]
    pub machines: Vec<MachineStatus>,
    /// How often it was served to machines in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served: Option<i64>,
    /// When it was served last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_served: Option<Time>,
    /// The network address it was served to last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_address: Option<String>,
}

/// A machine of an override.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// Its MAC address, in lower case with colons.
    pub mac_address: String,
    /// How often it was served.
    #[serde(default)]
    pub served: u32,
    /// When it was served last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_served: Option<Time>,
    /// The network address it was served to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_address: Option<String>,
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
    type Status = IpxeHostOverrideStatus;
}
