//! Many bridges, a quiet minute, and kinds that appear after the operator.

use std::collections::BTreeMap;
use std::time::Instant;

use super::*;

const MANY: usize = 100;

/// What the API server has answered since it started: how many requests of each sort.
fn requests(plane: &ControlPlane) -> BTreeMap<String, u64> {
    let metrics = plane.kubectl(&["get", "--raw", "/metrics"], None).unwrap();
    let samples = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("apiserver_request_total")?.rsplit_once(' '));
    samples
        .map(|(labels, count)| (labels.to_owned(), count.parse::<f64>().unwrap() as u64))
        .collect()
}

/// Writes that were answered in between. The API server renews its own leases, and looks after the Endpoints of its own Service.
fn writes(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<String> {
    let is_write = |labels: &str| {
        ["POST", "PUT", "PATCH", "APPLY", "DELETE"]
            .iter()
            .any(|verb| labels.contains(&format!("verb=\"{verb}\"")))
    };
    let is_own = |labels: &str| {
        ["leases", "endpoints"]
            .iter()
            .any(|own| labels.contains(&format!("resource=\"{own}\"")))
    };
    let more = after
        .iter()
        .filter(|(labels, count)| before.get(*labels).copied().unwrap_or(0) < **count);
    more.map(|(labels, _)| labels.clone())
        .filter(|labels| is_write(labels) && !is_own(labels))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_bridges_converge_and_then_nothing_is_written() {
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    let operator = Operator::start(&plane).await;
    let total = || requests(&plane).values().sum::<u64>();
    let before = total();
    let list: Vec<Value> = (0..MANY)
        .map(|n| {
            json!({"apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeBridge", "metadata": {"name": format!("b{n}")},
                   "spec": {"uri": "http://boot.example.com"}})
        })
        .collect();
    let start = Instant::now();
    plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": list}).to_string());
    let created = start.elapsed();
    eventually("all have a status", Duration::from_secs(30), async || {
        let paths = "jsonpath={.items[*].status.observedGeneration}";
        let seen = plane.kubectl(&["get", "ipxb", "-o", paths], None).unwrap();
        seen.split_whitespace().count() == MANY
    })
    .await;
    let took = start.elapsed();
    let deployments = plane
        .kubectl(&["get", "deployments", "-n", NAMESPACE, "-o", "name"], None)
        .unwrap();
    assert_eq!(deployments.lines().count(), MANY);
    let each = (total() - before) / MANY as u64;
    println!("{MANY} bridges converged {took:?} after the first was sent (kubectl took {created:?}), {each} requests each");
    assert!(each < 60, "{each} requests for each bridge");

    // Whatever the first minute still brings: watches start, children report.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, own) = (requests(&plane), operator.writes().await);
    let quiet = Duration::from_secs(65);
    tokio::time::sleep(quiet).await;
    assert_eq!(operator.writes().await - own, 0, "the operator wrote in a quiet minute");
    assert_eq!(
        writes(&before, &requests(&plane)),
        [""; 0],
        "the API server saw writes in a quiet minute"
    );

    // A kind that appears after the operator.
    assert!(operator.get("/readyz").await.unwrap().0 == 200);
    plane.bridge(
        "late",
        json!({"uri": "http://x", "telemetry": {"serviceMonitor": {"mode": "Enabled"}}}),
    );
    says(
        &plane,
        "late",
        "Degraded",
        "True",
        "ApiMissing",
        "this cluster has no servicemonitors.monitoring.coreos.com",
    )
    .await;
    plane.apply(&definition(
        "ServiceMonitor",
        "servicemonitors",
        "monitoring.coreos.com",
        "v1",
    ));
    there(&plane, "servicemonitors", NAMESPACE, "late-ipxe-bridge").await;
    says(&plane, "late", "Degraded", "False", "AsExpected", "").await;
    there(&plane, "servicemonitors", NAMESPACE, "b7-ipxe-bridge").await;
    plane
        .kubectl(&["delete", "crd", "servicemonitors.monitoring.coreos.com"], None)
        .unwrap();
    says(
        &plane,
        "late",
        "Degraded",
        "True",
        "ApiMissing",
        "servicemonitors.monitoring.coreos.com",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_of_a_newer_version_does_not_stop_the_others() {
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    let operator = Operator::start(&plane).await;
    let policies = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/bootPolicy/enum/-";
    let newer = json!([{"op": "add", "path": policies, "value": "FromTheFuture"}]).to_string();
    let definition = "ipxebridges.ipxe-bridge.io";
    plane
        .kubectl(&["patch", "crd", definition, "--type=json", "-p", &newer], None)
        .unwrap();
    eventually("the definition counts", SOON, async || {
        let bridge = json!({"apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeBridge", "metadata": {"name": "newer"}, "spec": {"bootPolicy": "FromTheFuture"}});
        plane.kubectl(&["apply", "-f", "-"], Some(&bridge.to_string())).is_ok()
    })
    .await;
    eventually("it is named", SOON, async || {
        operator
            .log()
            .contains("IpxeBridge newer is left as it is, this version cannot read it")
    })
    .await;
    plane.bridge("older", json!({}));
    there(&plane, "deployment", NAMESPACE, "older-ipxe-bridge").await;
    operator.signal("TERM");
    // Nor does it stop one that starts with it there.
    let _operator = Operator::again(&plane).await;
    plane.bridge("another", json!({}));
    there(&plane, "deployment", NAMESPACE, "another-ipxe-bridge").await;
}
