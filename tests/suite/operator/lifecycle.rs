//! Create, change, delete; what others change.

use super::*;

/// Kind and name of everything that is part of a bridge.
fn children(plane: &ControlPlane, bridge: &str) -> Vec<String> {
    let kinds = "serviceaccounts,clusterrolebindings,configmaps,secrets,services,networkpolicies,poddisruptionbudgets,ingresses,routes,deployments";
    let label = format!("app.kubernetes.io/instance={bridge}");
    let found = plane
        .kubectl(&["get", kinds, "-A", "-l", &label, "-o", "json"], None)
        .unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    let mut names: Vec<String> = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| {
            let owner = &object["metadata"]["ownerReferences"][0];
            assert_eq!(
                (&owner["kind"], &owner["name"]),
                (&json!("IpxeBridge"), &json!(bridge)),
                "{object}"
            );
            format!(
                "{} {}",
                object["kind"].as_str().unwrap(),
                object["metadata"]["name"].as_str().unwrap()
            )
        })
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_becomes_objects_and_a_changed_one_changes_them() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    plane.bridge("life", json!({}));
    there(plane, "deployment", NAMESPACE, "life-ipxe-bridge").await;
    there(plane, "route", NAMESPACE, "life-ipxe-bridge").await;
    let all = [
        "ClusterRoleBinding",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Route",
        "Service",
        "ServiceAccount",
    ];
    let mut expected = all.map(|kind| format!("{kind} life-ipxe-bridge")).to_vec();
    expected.push("Secret life-ipxe-bridge-boot-keys".to_owned());
    expected.push("Service life-ipxe-bridge-peers".to_owned());
    expected.sort();
    assert_eq!(children(plane, "life"), expected);
    let deployment = plane.object("deployment", NAMESPACE, "life-ipxe-bridge");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&deployment["spec"]["replicas"], &container["image"]),
        (&json!(2), &json!(IMAGE))
    );

    plane.bridge(
        "life",
        json!({
            "replicas": 3, "unknownHosts": "Wait", "networkPolicy": {"mode": "Disabled"}, "podDisruptionBudget": {"mode": "Disabled"},
            "ingress": {"host": "boot.example.com"}, "service": {"port": 80}, "upstream": {"serviceCaBundle": "Enabled"},
        }),
    );
    for kind in ["networkpolicy", "poddisruptionbudget", "route"] {
        gone(plane, kind, NAMESPACE, "life-ipxe-bridge").await;
    }
    there(plane, "ingress", NAMESPACE, "life-ipxe-bridge").await;
    becomes(
        plane,
        "service",
        NAMESPACE,
        "life-ipxe-bridge",
        "/spec/ports/0/port",
        &json!(80),
    )
    .await;
    // OpenShift's bundle is not there yet: pods that could not start are not asked for.
    says(
        plane,
        "life",
        "Ready",
        "False",
        "Waiting",
        "waiting until OpenShift has made it",
    )
    .await;
    assert_eq!(
        plane.object("deployment", NAMESPACE, "life-ipxe-bridge")["spec"]["replicas"],
        2
    );
    let bundle = json!({"data": {"service-ca.crt": "certificates"}}).to_string();
    plane
        .kubectl(
            &[
                "patch",
                "configmap",
                "life-ipxe-bridge-service-ca",
                "-n",
                NAMESPACE,
                "--type=merge",
                "-p",
                &bundle,
            ],
            None,
        )
        .unwrap();
    becomes(
        plane,
        "deployment",
        NAMESPACE,
        "life-ipxe-bridge",
        "/spec/replicas",
        &json!(3),
    )
    .await;
    let deployment = plane.object("deployment", NAMESPACE, "life-ipxe-bridge");
    let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(
        arguments.contains("--unknown-hosts=Wait") && arguments.contains("--uri=http://boot.example.com"),
        "{arguments}"
    );
    // What OpenShift put there is not taken away.
    assert_eq!(
        plane.object("configmap", NAMESPACE, "life-ipxe-bridge-service-ca")["data"]["service-ca.crt"],
        "certificates"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_is_mended_and_what_is_theirs_is_left_alone() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    plane.bridge("drift", json!({}));
    let name = "drift-ipxe-bridge";
    there(plane, "deployment", NAMESPACE, name).await;
    there(plane, "route", NAMESPACE, name).await;
    let patch = |kind: &str, patch: Value| {
        let patch = patch.to_string();
        plane
            .kubectl(&["patch", kind, name, "-n", NAMESPACE, "--type=merge", "-p", &patch], None)
            .unwrap();
    };
    // Fields of the operator, of each sort of value.
    patch(
        "service",
        json!({"spec": {"selector": {"app.kubernetes.io/instance": "other"}}}),
    );
    becomes(
        plane,
        "service",
        NAMESPACE,
        name,
        "/spec/selector/app.kubernetes.io~1instance",
        &json!("drift"),
    )
    .await;
    patch(
        "deployment",
        json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 60}}}}),
    );
    let grace = "/spec/template/spec/terminationGracePeriodSeconds";
    becomes(plane, "deployment", NAMESPACE, name, grace, &json!(340)).await;
    patch("networkpolicy", json!({"spec": {"ingress": []}}));
    becomes(
        plane,
        "networkpolicy",
        NAMESPACE,
        name,
        "/spec/ingress/0/ports/0/port",
        &json!("http"),
    )
    .await;
    patch(
        "serviceaccount",
        json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null, "app.kubernetes.io/instance": null}}}),
    );
    let label = "/metadata/labels/app.kubernetes.io~1instance";
    becomes(plane, "serviceaccount", NAMESPACE, name, label, &json!("drift")).await;
    patch("poddisruptionbudget", json!({"metadata": {"ownerReferences": null}}));
    says(
        plane,
        "drift",
        "Degraded",
        "True",
        "NameTaken",
        "PodDisruptionBudget drift-ipxe-bridge is there already",
    )
    .await;
    plane
        .kubectl(&["delete", "poddisruptionbudget", name, "-n", NAMESPACE], None)
        .unwrap();
    says(plane, "drift", "Degraded", "False", "AsExpected", "").await;
    // Whole objects.
    for kind in [
        "service",
        "route",
        "serviceaccount",
        "clusterrolebinding",
        "poddisruptionbudget",
        "networkpolicy",
        "deployment",
    ] {
        let uid = there(plane, kind, NAMESPACE, name).await["metadata"]["uid"].clone();
        plane
            .kubectl(&["delete", kind, name, "-n", NAMESPACE, "--wait=false"], None)
            .unwrap();
        let took = eventually(&format!("{kind} is back"), SOON, async || {
            let object = plane.object(kind, NAMESPACE, name);
            !object.is_null() && object["metadata"]["uid"] != uid
        })
        .await;
        println!("{kind}: back {took:?} after kubectl had deleted it");
    }

    // Fields of others.
    plane
        .kubectl(
            &["annotate", "deployment", name, "-n", NAMESPACE, "example.com/note=mine"],
            None,
        )
        .unwrap();
    plane
        .kubectl(&["scale", "deployment", name, "-n", NAMESPACE, "--replicas=5"], None)
        .unwrap();
    plane.bridge("drift", json!({"unknownHosts": "NotFound"}));
    eventually("the spec was applied", SOON, async || {
        plane
            .object("deployment", NAMESPACE, name)
            .to_string()
            .contains("--unknown-hosts=NotFound")
    })
    .await;
    let deployment = plane.object("deployment", NAMESPACE, name);
    assert_eq!(deployment["spec"]["replicas"], 5);
    assert_eq!(deployment["metadata"]["annotations"]["example.com/note"], "mine");
    // Until the spec says something of its own.
    plane.bridge("drift", json!({"replicas": 1}));
    becomes(plane, "deployment", NAMESPACE, name, "/spec/replicas", &json!(1)).await;
    plane
        .kubectl(&["scale", "deployment", name, "-n", NAMESPACE, "--replicas=5"], None)
        .unwrap();
    becomes(plane, "deployment", NAMESPACE, name, "/spec/replicas", &json!(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_somebody_else_are_not_touched() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    let theirs = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken-ipxe-bridge", "namespace": NAMESPACE}, "spec": {"ports": [{"port": 1}]}});
    plane.apply(&theirs.to_string());
    plane.bridge("taken", json!({}));
    says(
        plane,
        "taken",
        "Degraded",
        "True",
        "NameTaken",
        "Service taken-ipxe-bridge is there already and belongs to somebody else",
    )
    .await;
    says(
        plane,
        "taken",
        "Stalled",
        "True",
        "NameTaken",
        "delete or rename it, or rename the bridge",
    )
    .await;
    assert_eq!(
        plane.object("service", NAMESPACE, "taken-ipxe-bridge")["spec"]["ports"][0]["port"],
        1
    );
    there(plane, "deployment", NAMESPACE, "taken-ipxe-bridge").await;
    plane
        .kubectl(&["delete", "service", "taken-ipxe-bridge", "-n", NAMESPACE], None)
        .unwrap();
    // Nobody watches an object of somebody else: the next look finds it gone.
    plane.kubectl(&["label", "ipxb", "taken", "look=again"], None).unwrap();
    becomes(
        plane,
        "service",
        NAMESPACE,
        "taken-ipxe-bridge",
        "/spec/ports/0/port",
        &json!(9876),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bridges_do_not_touch_each_other() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    for (name, namespace) in [("east", "boot-east"), ("west", "boot-west")] {
        plane.bridge(name, json!({"namespace": namespace}));
        says(plane, name, "Degraded", "True", "NamespaceMissing", namespace).await;
        plane.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n"));
        // Namespaces are not watched.
        plane.kubectl(&["label", "ipxb", name, "look=again"], None).unwrap();
        there(plane, "deployment", namespace, &format!("{name}-ipxe-bridge")).await;
    }
    let of_east = children(plane, "east");
    plane.kubectl(&["delete", "ipxb", "west"], None).unwrap();
    plane.bridge(
        "east",
        json!({"namespace": "boot-east", "networkPolicy": {"mode": "Disabled"}}),
    );
    gone(plane, "networkpolicy", "boot-east", "east-ipxe-bridge").await;
    // Nobody collects garbage here: what is left of the other is as it was.
    assert_eq!(children(plane, "west").len(), of_east.len());
    assert_eq!(children(plane, "east").len(), of_east.len() - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_wait_for_what_they_mount_and_roll_when_it_changes() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    let name = "mounts-ipxe-bridge";
    plane.bridge(
        "mounts",
        json!({"tls": {"secretName": "mounts-tls"}, "hostConfig": {"configMapName": "mounts-hosts"}, "upstream": {"caBundles": [{"name": "mounts-ca"}]}}),
    );
    says(
        plane,
        "mounts",
        "Stalled",
        "True",
        "ReferenceMissing",
        "there is no Secret mounts-tls",
    )
    .await;
    assert!(plane.object("deployment", NAMESPACE, name).is_null());
    let secret = |data: &str| {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "mounts-tls", "namespace": NAMESPACE},
                            "stringData": {"tls.crt": data, "tls.key": data}});
        plane.apply(&secret.to_string());
    };
    let config_map = |name: &str, key: &str, data: &str| {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}, "data": {key: data}});
        plane.apply(&object.to_string());
    };
    secret("one");
    says(
        plane,
        "mounts",
        "Stalled",
        "True",
        "ReferenceMissing",
        "there is no ConfigMap mounts-ca",
    )
    .await;
    config_map("mounts-ca", "wrong", "one");
    says(
        plane,
        "mounts",
        "Stalled",
        "True",
        "ReferenceMissing",
        "ConfigMap mounts-ca has no key ca-bundle.crt",
    )
    .await;
    config_map("mounts-ca", "ca-bundle.crt", "one");
    config_map("mounts-hosts", "52-54-00-00-00-01", "#!ipxe");
    there(plane, "deployment", NAMESPACE, name).await;
    let config = || {
        plane.object("deployment", NAMESPACE, name)["spec"]["template"]["metadata"]["annotations"]["ipxe-bridge.io/config"].clone()
    };
    let mut last = config();
    assert!(last.is_string());
    let changes: [&dyn Fn(); 3] = [
        &|| secret("two"),
        &|| config_map("mounts-ca", "ca-bundle.crt", "two"),
        &|| config_map("mounts-hosts", "52-54-00-00-00-01", "#!ipxe\nshell"),
    ];
    for change in changes {
        change();
        eventually("the pods are to roll", SOON, async || config() != last).await;
        last = config();
    }
    // What is taken away does not take the pods with it.
    let before = plane.object("deployment", NAMESPACE, name)["metadata"]["generation"].clone();
    plane
        .kubectl(&["delete", "secret", "mounts-tls", "-n", NAMESPACE], None)
        .unwrap();
    says(
        plane,
        "mounts",
        "Degraded",
        "True",
        "ReferenceMissing",
        "there is no Secret mounts-tls",
    )
    .await;
    assert_eq!(plane.object("deployment", NAMESPACE, name)["metadata"]["generation"], before);
}
