//! Ways to the pods: NetworkPolicy, Ingress, Route.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec, IngressTLS,
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec, ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{annotated, metadata};
use crate::crd::bridge::{self, RouteTermination};
use crate::operator::name;
use crate::operator::plan::{Plan, RoutePlan, object_name};

/// Machines are anywhere, Prometheus is in the cluster, nobody else has business with a pod.
pub fn network_policy(plan: &Plan) -> NetworkPolicy {
    let ports = |names: &[&str]| {
        let port = |name: &&str| NetworkPolicyPort {
            port: Some(IntOrString::String((*name).to_owned())),
            protocol: Some("TCP".to_owned()),
            end_port: None,
        };
        Some(names.iter().map(port).collect())
    };
    let machines = match (plan.plain_http(), plan.tls_secret.is_some()) {
        (_, false) => ports(&["http"]),
        (true, true) => ports(&["http", "https"]),
        (false, true) => ports(&["https"]),
    };
    NetworkPolicy {
        metadata: metadata(plan, object_name(plan)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(name::selector(&plan.bridge)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                NetworkPolicyIngressRule {
                    ports: machines,
                    from: None,
                },
                NetworkPolicyIngressRule {
                    ports: ports(&["metrics"]),
                    from: Some(vec![NetworkPolicyPeer {
                        namespace_selector: Some(LabelSelector::default()),
                        ..NetworkPolicyPeer::default()
                    }]),
                },
            ]),
            egress: None,
        }),
    }
}

/// An Ingress for every path of its host.
pub fn ingress(plan: &Plan, wanted: &bridge::Ingress) -> Ingress {
    let port = if plan.plain_http() { "http" } else { "https" };
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: object_name(plan),
            port: Some(ServiceBackendPort {
                name: Some(port.to_owned()),
                number: None,
            }),
        }),
        resource: None,
    };
    Ingress {
        metadata: annotated(plan, object_name(plan), wanted.annotations.clone()),
        spec: Some(IngressSpec {
            ingress_class_name: wanted.class_name.clone(),
            rules: Some(vec![IngressRule {
                host: Some(wanted.host.clone()),
                http: Some(HTTPIngressRuleValue {
                    paths: vec![HTTPIngressPath {
                        backend,
                        path: Some("/".to_owned()),
                        path_type: "Prefix".to_owned(),
                    }],
                }),
            }]),
            tls: wanted.tls.as_ref().map(|tls| {
                vec![IngressTLS {
                    hosts: Some(vec![wanted.host.clone()]),
                    secret_name: tls.secret_name.clone(),
                }]
            }),
            ..IngressSpec::default()
        }),
        status: None,
    }
}

/// OpenShift's router gives up on a server that sends no byte for 30 s: too soon for an initrd that is made on request.
const ROUTER_TIMEOUT: (&str, &str) = ("haproxy.router.openshift.io/timeout", "5m");

/// A Route.
pub fn route(plan: &Plan, wanted: RoutePlan) -> Value {
    let termination = match wanted.termination {
        RouteTermination::None => None,
        RouteTermination::Edge => Some("edge"),
        RouteTermination::Reencrypt => Some("reencrypt"),
        RouteTermination::Passthrough => Some("passthrough"),
    };
    let encrypted = matches!(
        wanted.termination,
        RouteTermination::Reencrypt | RouteTermination::Passthrough
    );
    let mut annotations = plan.spec.route.annotations.clone();
    let (key, value) = ROUTER_TIMEOUT;
    annotations.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    let mut spec = json!({
        "to": {"kind": "Service", "name": object_name(plan), "weight": 100},
        "port": {"targetPort": if encrypted { "https" } else { "http" }},
        "wildcardPolicy": "None",
    });
    if let Some(host) = &plan.spec.route.host {
        spec["host"] = json!(host);
    }
    if let Some(termination) = termination {
        spec["tls"] = json!({
            "termination": termination,
            "insecureEdgeTerminationPolicy": wanted.insecure.map(|policy| policy.to_string()),
        });
    }
    json!({
        "apiVersion": "route.openshift.io/v1",
        "kind": "Route",
        "metadata": annotated(plan, object_name(plan), annotations),
        "spec": spec,
    })
}
