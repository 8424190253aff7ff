//! Every field of a spec, there and back, on a cluster that has every kind.

use std::path::Path;

use super::*;
use crate::support::control_plane::CRDS;

/// What of `wanted` an object does not have: what the API server adds does not count.
fn lacks(live: &Value, wanted: &Value, place: &str, found: &mut Vec<String>) {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            for (key, wanted) in wanted {
                // These hold what a test cannot know beforehand.
                if !["uid", "ipxe-bridge.io/config"].contains(&key.as_str()) {
                    lacks(
                        live.get(key).unwrap_or(&Value::Null),
                        wanted,
                        &format!("{place}/{key}"),
                        found,
                    );
                }
            }
        }
        (Value::Array(live), Value::Array(wanted)) if live.len() == wanted.len() => {
            for (index, (live, wanted)) in live.iter().zip(wanted).enumerate() {
                lacks(live, wanted, &format!("{place}/{index}"), found);
            }
        }
        _ if live == wanted => {}
        _ => found.push(format!("{place}: {live}, expected {wanted}")),
    }
}

fn put(plane: &ControlPlane, kind: &str, name: &str, data: Value) {
    let type_ = if kind == "Secret" {
        json!("kubernetes.io/tls")
    } else {
        Value::Null
    };
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "boot"}, "data": data});
    if !type_.is_null() {
        object["type"] = type_;
    }
    plane.apply(&object.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_arrives_and_goes_again() {
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    plane.load_crds(&Path::new(CRDS).join("routes.route.openshift.io.yaml"));
    plane.apply(&definition(
        "ServiceMonitor",
        "servicemonitors",
        "monitoring.coreos.com",
        "v1",
    ));
    plane.apply(&definition(
        "PrometheusRule",
        "prometheusrules",
        "monitoring.coreos.com",
        "v1",
    ));
    plane.apply(&definition("Certificate", "certificates", "cert-manager.io", "v1"));
    plane.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: boot}\n");
    let _operator = Operator::start(&plane).await;
    let spec = super::builders::everything();
    plane.bridge("main", spec.clone());
    there(&plane, "certificate", "boot", "main-ipxe-bridge").await;
    put(
        &plane,
        "Secret",
        "main-ipxe-bridge-tls",
        json!({"tls.crt": "eA==", "tls.key": "eA=="}),
    );
    put(&plane, "ConfigMap", "site-ca", json!({"ca.crt": "x"}));
    put(&plane, "ConfigMap", "machines", json!({"52-54-00-00-00-01": "#!ipxe"}));
    for (name, key) in [("cluster-ca", "ca-bundle.crt"), ("service-ca", "service-ca.crt")] {
        let name = format!("main-ipxe-bridge-{name}");
        there(&plane, "configmap", "boot", &name).await;
        let filled = json!({"data": {key: "x"}}).to_string();
        plane
            .kubectl(
                &["patch", "configmap", &name, "-n", "boot", "--type=merge", "-p", &filled],
                None,
            )
            .unwrap();
    }
    there(&plane, "deployment", "boot", "main-ipxe-bridge").await;
    let golden: Vec<Value> = serde_json::from_str(include_str!("../../data/operator/everything.json")).unwrap();
    for wanted in &golden {
        let (kind, name) = (wanted["kind"].as_str().unwrap(), wanted["metadata"]["name"].as_str().unwrap());
        let mut missing = Vec::new();
        lacks(&there(&plane, kind, "boot", name).await, wanted, "", &mut missing);
        assert!(missing.is_empty(), "{kind} {name}: {missing:#?}");
    }

    // Back again. The schema's defaults are the rest.
    let bare = json!({"namespace": "boot", "image": "x"});
    let (apply, name) = (["replace", "-f", "-"], "main-ipxe-bridge");
    let bridge = json!({"apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeBridge", "metadata": {"name": "main"}, "spec": bare});
    plane.kubectl(&apply, Some(&bridge.to_string())).unwrap();
    for (kind, name) in [
        ("ingress", name),
        ("certificate", name),
        ("configmap", "main-ipxe-bridge-cluster-ca"),
        ("configmap", "main-ipxe-bridge-service-ca"),
    ] {
        gone(&plane, kind, "boot", name).await;
    }
    becomes(&plane, "service", "boot", name, "/spec/type", &json!("ClusterIP")).await;
    becomes(
        &plane,
        "deployment",
        "boot",
        name,
        "/spec/template/spec/containers/0/image",
        &json!("x"),
    )
    .await;
    let pod = plane.object("deployment", "boot", name)["spec"]["template"]["spec"].clone();
    for field in [
        "affinity",
        "nodeSelector",
        "tolerations",
        "imagePullSecrets",
        "priorityClassName",
    ] {
        assert!(pod[field].is_null(), "{field} is left: {}", pod[field]);
    }
    assert_eq!(pod["containers"][0]["env"], Value::Null);
    let volumes: Vec<_> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| &volume["name"])
        .collect();
    assert_eq!(
        volumes,
        ["boot-keys", "cache"],
        "those that a bridge has unless it says otherwise"
    );
    says(&plane, "main", "Degraded", "False", "AsExpected", "").await;
    // What others put there stays.
    for (kind, name) in [
        ("secret", "main-ipxe-bridge-tls"),
        ("configmap", "site-ca"),
        ("configmap", "machines"),
    ] {
        assert!(!plane.object(kind, "boot", name).is_null(), "{kind} {name}");
    }
}
