//! The operator against a real kube-apiserver, under its own ServiceAccount with the role that is shipped.

mod admission;
mod argo;
mod boot_keys;
mod builders;
mod faults;
mod fields;
mod leadership;
mod lifecycle;
mod netboot;
mod pods;
mod rights;
mod scale;
mod statuses;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::bridge::eventually;
use crate::support::control_plane::ControlPlane;
use crate::support::operator::{IMAGE, NAMESPACE, Operator, Site};

/// What a change may take on a machine that runs all tests at once.
const SOON: Duration = Duration::from_secs(15);

/// Waits for an object.
async fn there(plane: &ControlPlane, kind: &str, namespace: &str, name: &str) -> Value {
    eventually(&format!("{kind} {name} is there"), SOON, async || {
        !plane.object(kind, namespace, name).is_null()
    })
    .await;
    plane.object(kind, namespace, name)
}

/// Waits until an object is gone.
async fn gone(plane: &ControlPlane, kind: &str, namespace: &str, name: &str) {
    eventually(&format!("{kind} {name} is gone"), SOON, async || {
        plane.object(kind, namespace, name).is_null()
    })
    .await;
}

/// Waits until an object is as wanted.
async fn becomes(plane: &ControlPlane, kind: &str, namespace: &str, name: &str, pointer: &str, expected: &Value) {
    eventually(&format!("{kind} {name}: {pointer} is {expected}"), SOON, async || {
        plane.object(kind, namespace, name).pointer(pointer).unwrap_or(&Value::Null) == expected
    })
    .await;
}

/// Waits until a condition has this status, reason, and text in its message.
async fn says(plane: &ControlPlane, bridge: &str, type_: &str, status: &str, reason: &str, text: &str) {
    let mut last = Default::default();
    let start = std::time::Instant::now();
    while start.elapsed() < SOON {
        last = plane.condition(bridge, type_);
        if last[0] == status && last[1] == reason && last[2].contains(text) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{bridge}: {type_} is {last:?}, expected {status} {reason} with {text:?}");
}

/// Says of a Deployment what its controller would say when all pods are ready.
fn all_pods_ready(plane: &ControlPlane, namespace: &str, name: &str) {
    let deployment = plane.object("deployment", namespace, name);
    let (generation, replicas) = (&deployment["metadata"]["generation"], &deployment["spec"]["replicas"]);
    let status = json!({
        "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas,
    });
    plane.status("deployment", namespace, name, status);
}

/// A definition of a kind of somebody else, without any rule for its objects.
fn definition(kind: &str, plural: &str, group: &str, version: &str) -> String {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural}, "versions": [{
            "name": version, "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        }]},
    })
    .to_string()
}
