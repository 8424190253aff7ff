//! Services, and who reads the metrics.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{annotated, metadata};
use crate::crd::bridge::Tls;
use crate::operator::arguments::METRICS_PORT;
use crate::operator::name;
use crate::operator::plan::{Plan, object_name};

/// OpenShift puts a certificate for the Service's name into the Secret that this annotation names.
const SERVING_CERTIFICATE: &str = "service.beta.openshift.io/serving-cert-secret-name";
/// Only the Service for Prometheus has it.
const ENDPOINT_LABEL: &str = "ipxe-bridge.io/endpoint";

fn port(name: &str, number: i32, node_port: Option<i32>) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        node_port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}

/// The Service in front of the pods.
pub fn service(plan: &Plan) -> Service {
    let wanted = &plan.spec.service;
    let mut ports = Vec::new();
    if plan.plain_http() {
        ports.push(port("http", wanted.port, wanted.node_port));
    }
    if plan.tls_secret.is_some() {
        let node_port = wanted.node_port.filter(|_| !plan.plain_http());
        ports.push(port("https", wanted.https_port, node_port));
    }
    let mut annotations = wanted.annotations.clone();
    let is_served = |tls: &Tls| tls.service_serving.is_some();
    if let (Some(_), Some(secret)) = (plan.spec.tls.as_ref().filter(|tls| is_served(tls)), &plan.tls_secret) {
        annotations.insert(SERVING_CERTIFICATE.to_owned(), secret.clone());
    }
    Service {
        metadata: annotated(plan, object_name(plan), annotations),
        spec: Some(ServiceSpec {
            type_: Some(wanted.type_.to_string()),
            selector: Some(name::selector(&plan.bridge)),
            ports: Some(ports),
            load_balancer_class: wanted.load_balancer_class.clone(),
            external_traffic_policy: wanted.external_traffic_policy.map(|policy| policy.to_string()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// A Service of its own for the metrics: they are not for those who reach the other one.
pub fn metrics_service(plan: &Plan) -> Service {
    let mut meta = metadata(plan, name::metrics(&plan.bridge));
    meta.labels
        .get_or_insert_default()
        .insert(ENDPOINT_LABEL.to_owned(), "metrics".to_owned());
    Service {
        metadata: meta,
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(name::selector(&plan.bridge)),
            ports: Some(vec![port("metrics", METRICS_PORT, None)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// By its name the pods find each other, ready or not: what one of them saw of a boot the others are to know.
pub fn peers_service(plan: &Plan) -> Service {
    Service {
        metadata: metadata(plan, name::peers(&plan.bridge)),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(name::selector(&plan.bridge)),
            ports: Some(vec![port("metrics", METRICS_PORT, None)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Has Prometheus read the metrics of every pod.
pub fn service_monitor(plan: &Plan) -> Value {
    let mut meta = metadata(plan, object_name(plan));
    let labels = meta.labels.get_or_insert_default();
    labels.extend(plan.spec.telemetry.service_monitor.labels.clone());
    let mut selected = name::selector(&plan.bridge);
    selected.insert(ENDPOINT_LABEL.to_owned(), "metrics".to_owned());
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": meta,
        "spec": {
            "selector": {"matchLabels": selected},
            "endpoints": [{"port": "metrics", "path": "/metrics", "interval": "30s"}],
        },
    })
}
