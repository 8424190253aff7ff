//! The kinds of objects that make up a running bridge.

use kube::api::{ApiResource, GroupVersionKind};
use strum::VariantArray;

/// The kinds of objects that make up a running bridge, in the order in which they are applied. Pods are made by the Deployment: they
/// are looked at, never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::Display, VariantArray)]
#[expect(
    missing_docs,
    reason = "the names of Kubernetes, OpenShift, cert-manager and the Prometheus operator"
)]
pub enum Kind {
    ServiceAccount,
    ClusterRoleBinding,
    ConfigMap,
    Service,
    NetworkPolicy,
    PodDisruptionBudget,
    Ingress,
    Route,
    Certificate,
    ServiceMonitor,
    PrometheusRule,
    Deployment,
    Pod,
}

impl Kind {
    /// Every kind that is watched.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::VARIANTS.iter().copied()
    }

    /// Every kind that is written.
    pub fn written() -> impl Iterator<Item = Self> {
        Self::all().filter(|kind| *kind != Self::Pod)
    }

    /// Group, version and plural.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::ServiceAccount => ("", "v1", "serviceaccounts"),
            Self::ClusterRoleBinding => ("rbac.authorization.k8s.io", "v1", "clusterrolebindings"),
            Self::ConfigMap => ("", "v1", "configmaps"),
            Self::Service => ("", "v1", "services"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "networkpolicies"),
            Self::PodDisruptionBudget => ("policy", "v1", "poddisruptionbudgets"),
            Self::Ingress => ("networking.k8s.io", "v1", "ingresses"),
            Self::Route => ("route.openshift.io", "v1", "routes"),
            Self::Certificate => ("cert-manager.io", "v1", "certificates"),
            Self::ServiceMonitor => ("monitoring.coreos.com", "v1", "servicemonitors"),
            Self::PrometheusRule => ("monitoring.coreos.com", "v1", "prometheusrules"),
            Self::Deployment => ("apps", "v1", "deployments"),
            Self::Pod => ("", "v1", "pods"),
        }
    }

    /// As requests name it.
    pub fn resource(self) -> ApiResource {
        let (group, version, plural) = self.names();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &self.to_string()), plural)
    }

    /// As errors name it: `routes.route.openshift.io`.
    pub fn plural(self) -> String {
        match self.names() {
            ("", _, plural) => plural.to_owned(),
            (group, _, plural) => format!("{plural}.{group}"),
        }
    }

    /// Whether a cluster without this kind is a normal one.
    pub fn is_optional(self) -> bool {
        matches!(
            self,
            Self::Route | Self::Certificate | Self::ServiceMonitor | Self::PrometheusRule
        )
    }

    /// Whether its objects live in a namespace.
    pub fn is_namespaced(self) -> bool {
        self != Self::ClusterRoleBinding
    }
}
