//! The ConfigMaps and Secrets that a bridge's pods mount, some of them made by others.

use crate::crd::bridge::IpxeBridgeSpec;

use super::name;

/// A ConfigMap or Secret of the bridge's namespace that its pods mount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// ConfigMap or Secret.
    pub kind: Store,
    /// Its name.
    pub name: String,
    /// The key that must be there; `None` if that is not known or all are used.
    pub key: Option<String>,
    /// Which program fills it, if it is no person.
    pub maker: Option<&'static str>,
}

/// What holds data for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
#[expect(missing_docs, reason = "the names of Kubernetes")]
pub enum Store {
    ConfigMap,
    Secret,
}

/// Everything that the pods of the bridge of this name mount.
pub fn references(bridge: &str, spec: &IpxeBridgeSpec) -> Vec<Reference> {
    let config_map = |name: String, key: Option<&str>, maker| Reference {
        kind: Store::ConfigMap,
        name,
        key: key.map(str::to_owned),
        maker,
    };
    let mut found: Vec<_> = tls_secret(bridge, spec).into_iter().collect();
    for bundle in &spec.upstream.ca_bundles {
        found.push(config_map(bundle.name.clone(), Some(&bundle.key), None));
    }
    if spec.upstream.cluster_ca_bundle.is_on() {
        found.push(config_map(
            name::cluster_ca(bridge),
            Some(name::CLUSTER_CA_KEY),
            Some("OpenShift"),
        ));
    }
    if spec.upstream.service_ca_bundle.is_on() {
        found.push(config_map(
            name::service_ca(bridge),
            Some(name::SERVICE_CA_KEY),
            Some("OpenShift"),
        ));
    }
    if let Some(host_config) = &spec.host_config {
        found.push(config_map(host_config.config_map_name.clone(), None, None));
    }
    found
}

/// The Secret with the pods' certificate.
pub fn tls_secret(bridge: &str, spec: &IpxeBridgeSpec) -> Option<Reference> {
    let tls = spec.tls.as_ref()?;
    let (name, maker) = match (&tls.secret_name, &tls.cert_manager) {
        (Some(secret), _) => (secret.clone(), None),
        (None, Some(_)) => (name::tls_secret(bridge), Some("cert-manager")),
        (None, None) => (name::tls_secret(bridge), Some("OpenShift")),
    };
    Some(Reference {
        kind: Store::Secret,
        name,
        key: None,
        maker,
    })
}
