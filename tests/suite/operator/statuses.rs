//! What a person sees: conditions, address, Events.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_pods_is_told() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    let name = "told-ipxe-bridge";
    plane.bridge("told", json!({"uri": "http://boot.example.com"}));
    there(plane, "deployment", NAMESPACE, name).await;
    says(plane, "told", "Ready", "False", "RollingOut", "").await;
    says(plane, "told", "Available", "False", "NoReadyPods", "no pod answers machines").await;
    all_pods_ready(plane, NAMESPACE, name);
    says(
        plane,
        "told",
        "Ready",
        "True",
        "AsExpected",
        "machines boot by http://boot.example.com/boot.ipxe",
    )
    .await;
    for (type_, status) in [
        ("Available", "True"),
        ("Progressing", "False"),
        ("Degraded", "False"),
        ("Stalled", "False"),
    ] {
        assert_eq!(plane.condition("told", type_)[0], status, "{type_}");
    }
    let bridge = plane.object("ipxb", "default", "told");
    let status = &bridge["status"];
    assert_eq!(
        (
            &status["observedGeneration"],
            &status["uri"],
            &status["replicas"],
            &status["readyReplicas"]
        ),
        (&json!(1), &json!("http://boot.example.com"), &json!(2), &json!(2))
    );
    let shown = plane.kubectl(&["get", "ipxb", "told"], None).unwrap();
    let line: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line[..5], ["told", "True", "AsExpected", "http://boot.example.com", "2"]);

    // A pod that cannot start: the old ones serve, and the cause is told.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "told-new", "namespace": NAMESPACE, "labels": {
            "app.kubernetes.io/instance": "told", "app.kubernetes.io/managed-by": "ipxe-bridge-operator"}},
        // The namespace enforces Pod Security's "restricted".
        "spec": plane.object("deployment", NAMESPACE, name)["spec"]["template"]["spec"],
    });
    plane.apply(&pod.to_string());
    let container = |state: Value, last: Value| {
        let status = json!({"phase": "Pending", "containerStatuses": [{
            "name": "server", "image": "x", "imageID": "", "ready": false, "restartCount": 1, "state": state, "lastState": last}]});
        plane.status("pod", NAMESPACE, "told-new", status);
    };
    container(
        json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\""}}),
        json!({}),
    );
    says(
        plane,
        "told",
        "Degraded",
        "True",
        "PodsFailing",
        "pod told-new cannot start: ImagePullBackOff: Back-off pulling image",
    )
    .await;
    assert_eq!(plane.condition("told", "Available")[0], "True");
    assert_eq!(plane.condition("told", "Stalled")[0], "False");
    container(
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}),
        json!({"terminated": {"exitCode": 1, "message": "some log\nerror: the certificate /etc/x holds no PEM certificate\n"}}),
    );
    let cause = "CrashLoopBackOff: error: the certificate /etc/x holds no PEM certificate";
    says(plane, "told", "Degraded", "True", "PodsFailing", cause).await;
    plane
        .kubectl(
            &["delete", "pod", "told-new", "-n", NAMESPACE, "--force", "--grace-period=0"],
            None,
        )
        .unwrap();
    says(plane, "told", "Ready", "True", "AsExpected", "").await;

    let stuck = json!({"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}], "updatedReplicas": 1});
    plane.status("deployment", NAMESPACE, name, stuck);
    says(
        plane,
        "told",
        "Degraded",
        "True",
        "RolloutStuck",
        "1 of 2 are new, 2 of 2 are ready",
    )
    .await;
    plane.bridge("told", json!({"uri": "http://boot.example.com", "replicas": 0}));
    becomes(plane, "deployment", NAMESPACE, name, "/spec/replicas", &json!(0)).await;
    plane.status("deployment", NAMESPACE, name, json!({"conditions": []}));
    all_pods_ready(plane, NAMESPACE, name);
    says(plane, "told", "Ready", "False", "ScaledToZero", "no pods are wanted").await;

    // One Event for each change of the summary, none in between.
    let events = plane
        .kubectl(
            &[
                "get",
                "events",
                "-n",
                "default",
                "-o",
                "json",
                "--field-selector",
                "involvedObject.name=told",
            ],
            None,
        )
        .unwrap();
    let events: Value = serde_json::from_str(&events).unwrap();
    let reasons: Vec<&str> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["reason"].as_str().unwrap())
        .collect();
    for reason in ["RollingOut", "AsExpected", "PodsFailing", "RolloutStuck", "ScaledToZero"] {
        assert!(reasons.contains(&reason), "{reasons:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_is_told_as_soon_as_there_is_one() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    let name = "where-ipxe-bridge";
    plane.bridge("where", json!({}));
    there(plane, "route", NAMESPACE, name).await;
    all_pods_ready(plane, NAMESPACE, name);
    says(
        plane,
        "where",
        "Ready",
        "False",
        "AddressPending",
        "waiting for the router to take the Route",
    )
    .await;
    let admitted = |status: &str, message: &str| {
        let ingress = json!({"host": "boot.apps.example.com", "routerName": "default", "conditions": [{"type": "Admitted", "status": status, "message": message}]});
        plane.status("route", NAMESPACE, name, json!({"ingress": [ingress]}));
    };
    admitted("False", "route other already exposes boot.apps.example.com");
    says(
        plane,
        "where",
        "Degraded",
        "True",
        "RouteRefused",
        "route other already exposes boot.apps.example.com",
    )
    .await;
    admitted("True", "");
    becomes(
        plane,
        "ipxb",
        NAMESPACE,
        "where",
        "/status/uri",
        &json!("http://boot.apps.example.com"),
    )
    .await;
    eventually("the pods are told", SOON, async || {
        plane
            .object("deployment", NAMESPACE, name)
            .to_string()
            .contains("--uri=http://boot.apps.example.com")
    })
    .await;

    plane.bridge("where", json!({"service": {"type": "LoadBalancer"}}));
    gone(plane, "route", NAMESPACE, name).await;
    says(plane, "where", "Progressing", "True", "RollingOut", "").await;
    all_pods_ready(plane, NAMESPACE, name);
    says(
        plane,
        "where",
        "Ready",
        "False",
        "AddressPending",
        "waiting for the load balancer",
    )
    .await;
    plane.status(
        "service",
        NAMESPACE,
        name,
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}),
    );
    becomes(
        plane,
        "ipxb",
        NAMESPACE,
        "where",
        "/status/uri",
        &json!("http://192.0.2.9:9876"),
    )
    .await;
    says(plane, "where", "Ready", "True", "AsExpected", "").await;
    plane.bridge("where", json!({"service": {"type": "NodePort"}}));
    says(plane, "where", "Ready", "False", "UriMissing", "set spec.uri").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pod_is_asked_what_it_counts() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    // An address of this machine that no other test listens on, in place of a pod's.
    let address = "127.0.0.77";
    let site = crate::support::site::Site::start().await;
    let folder = site.path().to_str().unwrap().to_owned();
    // A folder that nobody can make.
    let cache = ["--cache-dir", "/dev/null/cache"];
    let arguments = [
        &["--manifests", &folder, "--host", address, "--metrics-port", "9877"][..],
        &cache,
    ]
    .concat();
    let bridge = crate::support::bridge::Bridge::start_with(&arguments, &[]).await;
    bridge.wait_ready().await;

    plane.bridge("counts", json!({"uri": "http://x"}));
    let name = "counts-ipxe-bridge";
    there(plane, "deployment", NAMESPACE, name).await;
    let template = &plane.object("deployment", NAMESPACE, name)["spec"]["template"];
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
        "metadata": {"name": "counts-1", "namespace": NAMESPACE, "labels": template["metadata"]["labels"]},
    });
    plane.apply(&pod.to_string());
    let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [{"type": "Ready", "status": "True"}]});
    plane.status("pod", NAMESPACE, "counts-1", status);
    all_pods_ready(plane, NAMESPACE, name);
    becomes(plane, "ipxb", NAMESPACE, "counts", "/status/environments", &json!(2)).await;
    let status = plane.object("ipxb", "default", "counts")["status"].clone();
    assert_eq!(
        (&status["hosts"], &status["overrides"], &status["conflicts"]),
        (&json!(2), &json!(0), &json!(0))
    );
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    says(
        plane,
        "counts",
        "Degraded",
        "True",
        "CacheTrouble",
        "GET /cache of the bridge says why",
    )
    .await;
    says(plane, "counts", "Ready", "True", "AsExpected", "").await;
    says(plane, "counts", "Stalled", "False", "AsExpected", "").await;
    plane
        .kubectl(
            &["delete", "pod", "counts-1", "-n", NAMESPACE, "--force", "--grace-period=0"],
            None,
        )
        .unwrap();
}
