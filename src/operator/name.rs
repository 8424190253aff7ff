//! Names, labels and annotations of everything that the operator makes.

use std::collections::BTreeMap;

/// Who owns fields in server-side apply.
pub const MANAGER: &str = "ipxe-bridge-operator";
/// Who owns the fields of a bridge's status.
pub const STATUS_MANAGER: &str = "ipxe-bridge-operator-status";
/// The ClusterRole of the pods, shipped in `config/rbac/server.yaml`.
pub const SERVER_ROLE: &str = "ipxe-bridge-server";

/// Label: which bridge an object is part of.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Label: who made an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
const NAME_LABEL: &str = "app.kubernetes.io/name";
const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
const PART_OF_LABEL: &str = "app.kubernetes.io/part-of";
const VERSION_LABEL: &str = "app.kubernetes.io/version";

/// Annotation of pods: what the ConfigMaps and Secrets held when they were made.
pub const CONFIG_ANNOTATION: &str = "ipxe-bridge.io/config";

/// Annotation of the Secret with the keys of boots: when each was made.
pub const BOOT_KEYS_ANNOTATION: &str = "ipxe-bridge.io/boot-keys";

/// Key of the bundle that OpenShift's network operator injects.
pub const CLUSTER_CA_KEY: &str = "ca-bundle.crt";
/// Key of the bundle that OpenShift's service CA operator injects.
pub const SERVICE_CA_KEY: &str = "service-ca.crt";

/// Name of most objects of a bridge; at most 52 characters, as a bridge's name has at most 40.
pub fn object(bridge: &str) -> String {
    format!("{bridge}-ipxe-bridge")
}

/// Everything on the boot network; at most 60 characters.
pub fn netboot(bridge: &str) -> String {
    format!("{}-netboot", object(bridge))
}

/// The Service that Prometheus reads through.
pub fn metrics(bridge: &str) -> String {
    format!("{}-metrics", object(bridge))
}

/// The Service without an address of its own, by whose name the pods find each other.
pub fn peers(bridge: &str) -> String {
    format!("{}-peers", object(bridge))
}

/// The ConfigMap with dashboards for Grafana.
pub fn dashboards(bridge: &str) -> String {
    format!("{}-dashboards", object(bridge))
}

/// The Secret that cert-manager or OpenShift puts a certificate into.
pub fn tls_secret(bridge: &str) -> String {
    format!("{}-tls", object(bridge))
}

/// The Secret with the keys that sign the ids of boots.
pub fn boot_keys(bridge: &str) -> String {
    format!("{}-boot-keys", object(bridge))
}

/// The ConfigMap that OpenShift puts the cluster's trusted certificates into.
pub fn cluster_ca(bridge: &str) -> String {
    format!("{}-cluster-ca", object(bridge))
}

/// The ConfigMap that OpenShift puts its signer of Services into.
pub fn service_ca(bridge: &str) -> String {
    format!("{}-service-ca", object(bridge))
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Labels of every object of a bridge.
pub fn labels(bridge: &str) -> BTreeMap<String, String> {
    map(&[
        (NAME_LABEL, "ipxe-bridge"),
        (INSTANCE_LABEL, bridge),
        (COMPONENT_LABEL, "server"),
        (PART_OF_LABEL, "ipxe-bridge"),
        (MANAGED_BY_LABEL, MANAGER),
        (VERSION_LABEL, env!("CARGO_PKG_VERSION")),
    ])
}

/// Labels by which the pods of a bridge are found. A Deployment never lets them change.
pub fn selector(bridge: &str) -> BTreeMap<String, String> {
    map(&[
        (NAME_LABEL, "ipxe-bridge"),
        (INSTANCE_LABEL, bridge),
        (MANAGED_BY_LABEL, MANAGER),
    ])
}

/// Labels of what is on the boot network. By its name it is none of the pods that the Service leads to.
pub fn netboot_labels(bridge: &str) -> BTreeMap<String, String> {
    let mut labels = labels(bridge);
    labels.extend(map(&[(NAME_LABEL, "ipxe-bridge-netboot"), (COMPONENT_LABEL, "netboot")]));
    labels
}

/// Labels by which the pod on the boot network is found.
pub fn netboot_selector(bridge: &str) -> BTreeMap<String, String> {
    let mut selector = selector(bridge);
    selector.extend(map(&[(NAME_LABEL, "ipxe-bridge-netboot")]));
    selector
}

/// Whether a pod is the one on the boot network.
pub fn is_netboot(labels: &BTreeMap<String, String>) -> bool {
    labels.get(NAME_LABEL).is_some_and(|name| name == "ipxe-bridge-netboot")
}

/// Selects everything that the operator made.
pub fn made_by_operator() -> String {
    format!("{MANAGED_BY_LABEL}={MANAGER}")
}
