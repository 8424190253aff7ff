//! The command line of the pods: every setting of a spec that the server has a flag for. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;

use crate::crd::bridge::{IpxeBridgeSpec, Netboot, NetbootAnswer, NetbootProxyDhcp, NetbootQuirk, NetbootTftp};

use super::name;
use super::plan::{Plan, object_name};
use super::reason::{Finding, Reason};

/// Port for plain HTTP in the pods.
pub const HTTP_PORT: i32 = 9876;
/// Port for HTTPS in the pods.
pub const HTTPS_PORT: i32 = 9443;
/// Port for metrics in the pods.
pub const METRICS_PORT: i32 = 9877;
/// Port for boot programs on a node of the boot network.
pub const NETBOOT_PROGRAMS_PORT: i32 = 9879;
/// Port for probes and metrics there.
pub const NETBOOT_METRICS_PORT: i32 = 9880;
/// How long downloads may go on after the pod was told to end.
pub const DRAIN_SECONDS: i64 = 300;

/// Folder of the certificate.
pub const TLS_FOLDER: &str = "/etc/ipxe-bridge/tls";
/// Folder of certificates to trust for upstream.
pub const CA_FOLDER: &str = "/etc/ipxe-bridge/upstream-ca";
/// Folder of the artifact cache.
pub const CACHE_FOLDER: &str = "/var/cache/ipxe-bridge";
/// Folder of the keys that sign the ids of boots.
pub const BOOT_KEYS_FOLDER: &str = "/etc/ipxe-bridge/boot-keys";
/// Folder of scripts of single machines.
pub const HOST_FILES_FOLDER: &str = "/etc/ipxe-bridge/host-files";

/// Folder of boot programs that the image does not hold.
pub const BOOT_PROGRAMS_FOLDER: &str = "/boot-programs";
/// Folder of the certificate by which the pod on the boot network trusts the bridge.
pub const BRIDGE_CA_FOLDER: &str = "/etc/ipxe-bridge/bridge-ca";

/// Everything behind the program's name, for the pod on the boot network.
pub fn netboot_arguments(plan: &Plan, netboot: &Netboot, uri: &str) -> Vec<String> {
    let mut list = vec!["netboot".to_owned()];
    let mut flag = |name: &str, value: &str| list.push(format!("--{name}={value}"));
    flag("log-format", "json");
    flag("log-level", &plan.spec.telemetry.log_level.to_string());
    let further = netboot.interfaces.iter().map(|interface| &interface.0);
    for interface in netboot.interface.iter().chain(further) {
        flag("interface", interface);
    }
    flag("bridge", uri);
    // The Service is nearer than what machines go through, and needs no certificate.
    if plan.plain_http() {
        let (service, port) = (object_name(plan), plan.spec.service.port);
        flag("bridge-query", &format!("http://{service}.{}.svc:{port}", plan.namespace));
    } else {
        flag("bridge-ca", BRIDGE_CA_FOLDER);
    }
    flag(
        "answer",
        if netboot.answer == NetbootAnswer::All {
            "all"
        } else {
            "known"
        },
    );
    flag(
        "proxy-dhcp",
        match netboot.proxy_dhcp {
            NetbootProxyDhcp::Full => "full",
            NetbootProxyDhcp::Port4011 => "port-4011",
            NetbootProxyDhcp::Off => "off",
        },
    );
    flag(
        "tftp",
        match netboot.tftp {
            NetbootTftp::Enabled => "on",
            NetbootTftp::SinglePort => "single-port",
            NetbootTftp::Disabled => "off",
        },
    );
    for (name, networks) in [("relay", &netboot.relays), ("client", &netboot.clients)] {
        networks.iter().for_each(|network| flag(name, &network.0));
    }
    for quirk in &netboot.quirks {
        flag(
            "quirk",
            match quirk {
                NetbootQuirk::UefiAtOnce => "uefi-at-once",
                NetbootQuirk::BiosAsks => "bios-asks",
                NetbootQuirk::HeaderOnly => "header-only",
                NetbootQuirk::NoMachineId => "no-machine-id",
                NetbootQuirk::NativeDrivers => "native-drivers",
            },
        );
    }
    flag("programs-port", &NETBOOT_PROGRAMS_PORT.to_string());
    flag("metrics-port", &NETBOOT_METRICS_PORT.to_string());
    if let Some(programs) = &netboot.boot_programs {
        let path = programs.path.as_ref().map(|path| format!("/{path}")).unwrap_or_default();
        flag("boot-programs", &format!("{BOOT_PROGRAMS_FOLDER}{path}"));
    }
    if netboot.dry_run {
        list.push("--dry-run".to_owned());
    }
    list
}

/// Everything behind the program's name.
pub fn arguments(plan: &Plan) -> Vec<String> {
    let spec = &plan.spec;
    let mut list = vec!["server".to_owned()];
    let mut flag = |name: &str, value: &str| list.push(format!("--{name}={value}"));
    flag("log-format", "json");
    flag("log-level", &spec.telemetry.log_level.to_string());
    flag("metrics-port", &METRICS_PORT.to_string());
    flag("drain-timeout", &format!("{DRAIN_SECONDS}s"));
    match (plan.tls_secret.is_some(), plan.plain_http()) {
        (false, _) => flag("port", &HTTP_PORT.to_string()),
        (true, true) => {
            flag("port", &HTTP_PORT.to_string());
            flag("tls-port", &HTTPS_PORT.to_string());
        }
        (true, false) => flag("port", &HTTPS_PORT.to_string()),
    }
    if plan.tls_secret.is_some() {
        flag("tls-cert", &format!("{TLS_FOLDER}/tls.crt"));
        flag("tls-key", &format!("{TLS_FOLDER}/tls.key"));
    }
    if let Some(uri) = &plan.server_uri {
        flag("uri", uri);
    }
    flag("boot-keys", BOOT_KEYS_FOLDER);
    flag(
        "peers",
        &format!("{}.{}.svc:{METRICS_PORT}", name::peers(&plan.bridge), plan.namespace),
    );
    flag("loop-timing", &spec.loop_timing);
    flag("unknown-hosts", &spec.unknown_hosts.to_string());
    flag("boot-policy", &spec.boot_policy.to_string());
    if let Some(method) = spec.local_disk.as_ref().and_then(|disk| disk.method) {
        flag("local-disk", &method.to_string());
    }
    if let Some(edits) = &spec.kernel_arguments {
        let words = |arguments: &[crate::crd::host_override::Argument]| {
            arguments
                .iter()
                .map(|argument| argument.0.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        };
        if !edits.remove.is_empty() {
            flag("kernel-arguments-removed", &words(&edits.remove));
        }
        if !edits.replace.is_empty() {
            let pairs = edits
                .replace
                .iter()
                .flat_map(|pair| [pair.argument.clone(), pair.with.clone()]);
            flag("kernel-arguments-replaced", &words(&pairs.collect::<Vec<_>>()));
        }
        if !edits.append.is_empty() {
            flag("kernel-arguments", &words(&edits.append));
        }
    }
    for file in ca_files(plan) {
        flag("upstream-ca", &format!("{CA_FOLDER}/{file}"));
    }
    for moved in &spec.upstream.host_overrides {
        flag("upstream-host", &format!("{}={}", moved.host, moved.address));
    }
    let environments = &spec.environments;
    if let Some(selector) = environments
        .namespace_selector
        .as_ref()
        .and_then(|selector| text(selector).ok())
    {
        flag("namespace-selector", &selector);
    }
    if let Some(selector) = environments.selector.as_ref().and_then(|selector| text(selector).ok()) {
        flag("environment-selector", &selector);
    }
    if let Some(default) = &environments.default {
        flag("default-environment", &format!("{}/{}", default.namespace, default.name));
    }
    let trusted: Vec<&str> = spec.access.override_namespaces.iter().map(|name| name.0.as_str()).collect();
    if !trusted.is_empty() {
        flag("override-namespaces", &trusted.join(","));
    }
    flag("equal-overrides", &spec.access.equal_overrides.to_string());
    if spec.cache.mode.is_on() {
        flag("cache-dir", CACHE_FOLDER);
        flag("cache-size", &spec.cache.size);
        if spec.cache.prefetch.is_on() {
            list.push("--prefetch".to_owned());
        }
    }
    let mut flag = |name: &str, value: &str| list.push(format!("--{name}={value}"));
    if spec.host_config.is_some() {
        flag("host-files", HOST_FILES_FOLDER);
    }
    if spec.telemetry.boot_events.is_on() {
        list.push("--boot-events".to_owned());
    }
    if spec.access.script_proxy.is_on() {
        list.push("--script-proxy".to_owned());
    }
    list
}

/// Below [`CA_FOLDER`]: the key of each ConfigMap in a folder of its own.
pub fn ca_files(plan: &Plan) -> Vec<String> {
    ca_sources(plan)
        .into_iter()
        .map(|(name, key)| format!("{name}/{key}"))
        .collect()
}

/// ConfigMaps with certificates to trust for upstream, and the key in each.
pub fn ca_sources(plan: &Plan) -> Vec<(String, String)> {
    let upstream = &plan.spec.upstream;
    let own = upstream
        .ca_bundles
        .iter()
        .map(|bundle| (bundle.name.clone(), bundle.key.clone()));
    let cluster = upstream
        .cluster_ca_bundle
        .is_on()
        .then(|| (name::cluster_ca(&plan.bridge), name::CLUSTER_CA_KEY.to_owned()));
    let service = upstream
        .service_ca_bundle
        .is_on()
        .then(|| (name::service_ca(&plan.bridge), name::SERVICE_CA_KEY.to_owned()));
    own.chain(cluster).chain(service).collect()
}

/// A label selector as text: `a=b,c in (d,e)`.
fn text(selector: &LabelSelector) -> Result<String, String> {
    let selector: Selector = selector
        .clone()
        .try_into()
        .map_err(|error: kube::core::ParseExpressionError| error.to_string())?;
    Ok(selector.to_string())
}

/// What the schema cannot check.
pub fn invalid(spec: &IpxeBridgeSpec) -> Option<Finding> {
    let environments = &spec.environments;
    [
        ("namespaceSelector", &environments.namespace_selector),
        ("selector", &environments.selector),
    ]
    .into_iter()
    .find_map(|(field, selector)| {
        let error = text(selector.as_ref()?).err()?;
        Some(Finding::new(
            Reason::InvalidSpec,
            format!("spec.environments.{field}: {error}"),
        ))
    })
}
