//! The pod on the boot network: made, mended, taken away, and refused where the cluster does not let it have the node's network.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_boot_networks_pod_is_made_mended_and_taken_away() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    let name = "booting-ipxe-bridge-netboot";
    let spec = |netboot: Value| json!({"uri": "http://boot.example.com", "netboot": netboot});
    plane.bridge(
        "booting",
        spec(json!({"enabled": true, "interface": "eth1", "nodeSelector": {"rack": "r1"}})),
    );
    let deployment = there(plane, "deployment", NAMESPACE, name).await;
    there(plane, "serviceaccount", NAMESPACE, name).await;
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(
        (&pod["hostNetwork"], &pod["nodeSelector"]),
        (&json!(true), &json!({"rack": "r1"}))
    );
    let capabilities = &pod["containers"][0]["securityContext"]["capabilities"];
    assert_eq!(capabilities, &json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}));

    // The Service leads to servers only, never to what is on the boot network.
    let service = plane.object("service", NAMESPACE, "booting-ipxe-bridge");
    let selector = service["spec"]["selector"].as_object().unwrap();
    let labels = deployment["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
    assert!(
        selector.iter().any(|(key, value)| labels.get(key) != Some(value)),
        "{selector:?} {labels:?}"
    );

    let meddled = json!({"spec": {"template": {"spec": {"nodeSelector": {"rack": "r2"}}}}}).to_string();
    plane
        .kubectl(
            &["patch", "deployment", name, "-n", NAMESPACE, "--type=merge", "-p", &meddled],
            None,
        )
        .unwrap();
    becomes(
        plane,
        "deployment",
        NAMESPACE,
        name,
        "/spec/template/spec/nodeSelector/rack",
        &json!("r1"),
    )
    .await;
    plane
        .kubectl(&["delete", "deployment", name, "-n", NAMESPACE, "--wait=false"], None)
        .unwrap();
    there(plane, "deployment", NAMESPACE, name).await;

    // As OpenShift says it when no SCC lets the pod have what it needs; then somebody has applied one.
    let constraint = "pods \"booting-ipxe-bridge-netboot-\" is forbidden: unable to validate against any security context constraint: [provider \
        \"restricted-v2\": Forbidden: not usable by user or serviceaccount, provider restricted-v2: .spec.securityContext.hostNetwork: Invalid value: true]";
    let failed = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": constraint}]);
    plane.status("deployment", NAMESPACE, name, json!({"conditions": failed}));
    for told in [
        "unable to validate against any security context constraint",
        "deploy/openshift/netboot-scc.yaml",
    ] {
        says(plane, "booting", "Degraded", "True", "NetbootRefused", told).await;
    }
    plane.status("deployment", NAMESPACE, name, json!({"conditions": []}));
    says(plane, "booting", "Stalled", "False", "AsExpected", "").await;

    plane.bridge("booting", spec(json!({"enabled": false, "interface": "eth1"})));
    gone(plane, "deployment", NAMESPACE, name).await;
    gone(plane, "serviceaccount", NAMESPACE, name).await;
    assert!(!plane.object("deployment", NAMESPACE, "booting-ipxe-bridge").is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_refuses_the_nodes_network_is_told() {
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    let Some(_controllers) = plane.start_controllers() else {
        return;
    };
    let namespace =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: strict, labels: {pod-security.kubernetes.io/enforce: restricted}}\n";
    plane.apply(namespace);
    let _operator = Operator::start(&plane).await;
    let netboot = json!({"enabled": true, "interface": "eth1"});
    plane.bridge(
        "main",
        json!({"uri": "http://boot.example.com", "namespace": "strict", "netboot": netboot}),
    );
    let told = "violates PodSecurity \"restricted:latest\": host namespaces (hostNetwork=true)";
    says(&plane, "main", "Degraded", "True", "NetbootRefused", told).await;
    says(
        &plane,
        "main",
        "Stalled",
        "True",
        "NetbootRefused",
        "pod-security.kubernetes.io/enforce=privileged",
    )
    .await;
    // What the label says is done: it heals.
    plane
        .kubectl(
            &[
                "label",
                "namespace",
                "strict",
                "--overwrite",
                "pod-security.kubernetes.io/enforce=privileged",
            ],
            None,
        )
        .unwrap();
    plane
        .kubectl(
            &[
                "delete",
                "deployment",
                "main-ipxe-bridge-netboot",
                "-n",
                "strict",
                "--wait=false",
            ],
            None,
        )
        .unwrap();
    says(&plane, "main", "Stalled", "False", "AsExpected", "").await;
    // Why it is better a namespace of the bridge's own: whose file says otherwise stops at it.
    let again = plane.kubectl(&["apply", "--server-side", "-f", "-"], Some(namespace));
    assert!(again.unwrap_err().contains("conflict with \"kubectl-label\""));
}
