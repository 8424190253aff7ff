//! From a plan to objects. Pure: the same plan gives the same objects, to the byte.

mod access;
mod certificate;
mod config_map;
mod deployment;
mod monitoring;
mod netboot;
mod network;
mod service;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

use super::kind::Kind;
use super::name;
use super::plan::Plan;

/// An object as it is wanted: exactly the fields that the operator owns.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, if it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The object itself, with `apiVersion` and `kind`.
    pub object: Value,
}

/// Everything that a plan wants.
///
/// # Errors
///
/// None that depend on the plan: only if an object cannot be written as JSON.
pub fn build(plan: &Plan) -> Result<Vec<Desired>, serde_json::Error> {
    let mut all = vec![
        desired(Kind::ServiceAccount, &access::service_account(plan))?,
        desired(Kind::ClusterRoleBinding, &access::cluster_role_binding(plan))?,
        desired(Kind::Service, &service::service(plan))?,
        desired(Kind::Service, &service::peers_service(plan))?,
    ];
    for config_map in config_map::config_maps(plan) {
        all.push(desired(Kind::ConfigMap, &config_map)?);
    }
    if plan.spec.network_policy.mode.is_on() {
        all.push(desired(Kind::NetworkPolicy, &network::network_policy(plan))?);
    }
    if plan.spec.pod_disruption_budget.mode.is_on() {
        all.push(desired(Kind::PodDisruptionBudget, &deployment::disruption_budget(plan))?);
    }
    if let Some(ingress) = &plan.spec.ingress {
        all.push(desired(Kind::Ingress, &network::ingress(plan, ingress))?);
    }
    if let Some(route) = plan.route {
        all.push(desired(Kind::Route, &network::route(plan, route))?);
    }
    if plan.certificate
        && let Some(certificate) = certificate::certificate(plan)
    {
        all.push(desired(Kind::Certificate, &certificate)?);
    }
    if plan.service_monitor {
        all.push(desired(Kind::Service, &service::metrics_service(plan))?);
        all.push(desired(Kind::ServiceMonitor, &service::service_monitor(plan))?);
    }
    if plan.prometheus_rule {
        all.push(desired(Kind::PrometheusRule, &monitoring::prometheus_rule(plan))?);
    }
    if plan.spec.telemetry.grafana_dashboards.is_on() {
        all.push(desired(Kind::ConfigMap, &monitoring::dashboards(plan)?)?);
    }
    all.push(desired(Kind::Deployment, &deployment::deployment(plan))?);
    // Without an address there is nothing to send machines to.
    if let Some(netboot) = plan.spec.netboot.as_ref().filter(|netboot| netboot.enabled) {
        all.push(desired(Kind::ServiceAccount, &netboot::service_account(plan))?);
        if let Some(uri) = &plan.uri {
            all.push(desired(Kind::Deployment, &netboot::deployment(plan, netboot, uri))?);
        }
    }
    Ok(all)
}

fn desired(kind: Kind, object: &impl Serialize) -> Result<Desired, serde_json::Error> {
    let object = serde_json::to_value(object)?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(Desired {
        kind,
        namespace: text(&object["metadata"]["namespace"]),
        name: text(&object["metadata"]["name"]).unwrap_or_default(),
        object,
    })
}

/// Metadata of a namespaced object of the bridge.
fn metadata(plan: &Plan, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(plan.namespace.clone()),
        labels: Some(name::labels(&plan.bridge)),
        owner_references: Some(vec![plan.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// The same with annotations; none are not written.
pub(super) fn annotated(plan: &Plan, name: String, annotations: std::collections::BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..metadata(plan, name)
    }
}
