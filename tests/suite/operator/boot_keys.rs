//! The Secret with the keys that sign the ids of boots, and traces of what the operator does.

use super::*;
use crate::support::collector::Collector;

const NAME: &str = "keys-ipxe-bridge-boot-keys";

fn entries(secret: &Value) -> Vec<String> {
    secret["data"]
        .as_object()
        .map(|data| data.keys().cloned().collect())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_has_a_secret_of_keys_that_are_exchanged_with_an_overlap() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    plane.bridge("keys", json!({"uri": "http://boot.example.com"}));
    let made = there(plane, "secret", NAMESPACE, NAME).await;
    assert_eq!(made["metadata"]["ownerReferences"][0]["name"], "keys");
    let [first] = &entries(&made)[..] else {
        panic!("one key: {made}")
    };
    there(plane, "deployment", NAMESPACE, "keys-ipxe-bridge").await;

    // A month later.
    let old = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(31 * 24);
    let patch = |annotation: &str| {
        let patch = json!({"metadata": {"annotations": {"ipxe-bridge.io/boot-keys": annotation}}}).to_string();
        let arguments = ["patch", "secret", NAME, "-n", NAMESPACE, "--type=merge", "-p", &patch];
        plane.kubectl(&arguments, None).unwrap();
    };
    let look_again = |count: i32| plane.bridge("keys", json!({"uri": "http://boot.example.com", "replicas": count}));
    let name = format!("key-{}", old.as_second());
    let renamed = json!({"data": {name.as_str(): &made["data"][first], first.as_str(): null}}).to_string();
    plane
        .kubectl(
            &["patch", "secret", NAME, "-n", NAMESPACE, "--type=merge", "-p", &renamed],
            None,
        )
        .unwrap();
    patch(&old.to_string());
    look_again(3);
    eventually("a second key", SOON, async || {
        entries(&plane.object("secret", NAMESPACE, NAME)).len() == 2
    })
    .await;
    let both = plane.object("secret", NAMESPACE, NAME);
    assert_eq!(both["data"][&name], made["data"][first], "the old one is as it was");

    // Three days later.
    let times = both["metadata"]["annotations"]["ipxe-bridge.io/boot-keys"].as_str().unwrap();
    let [_, second] = times.split(' ').collect::<Vec<_>>()[..] else {
        panic!("two times: {times}")
    };
    let second: jiff::Timestamp = second.parse().unwrap();
    let earlier = second - jiff::SignedDuration::from_hours(72);
    patch(&format!("{old} {earlier}"));
    look_again(1);
    eventually("the first key goes", SOON, async || {
        entries(&plane.object("secret", NAMESPACE, NAME)) == [format!("key-{}", second.as_second())]
    })
    .await;

    // Whoever removes it gets another one; what is not the bridge's is left alone.
    plane.kubectl(&["delete", "secret", NAME, "-n", NAMESPACE], None).unwrap();
    look_again(2);
    there(plane, "secret", NAMESPACE, NAME).await;
    let foreign = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys-taken-ipxe-bridge-boot-keys, namespace: ipxe-bridge-system}\nstringData: {a: b}\n";
    plane.apply(foreign);
    plane.bridge("keys-taken", json!({"uri": "http://boot.example.com"}));
    says(
        plane,
        "keys-taken",
        "Degraded",
        "True",
        "NameTaken",
        "Secret keys-taken-ipxe-bridge-boot-keys",
    )
    .await;
    assert_eq!(
        entries(&plane.object("secret", NAMESPACE, "keys-taken-ipxe-bridge-boot-keys")),
        ["a"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconciliation_that_changes_something_is_a_trace_and_one_that_does_not_is_none() {
    let Some(collector) = Collector::start().await else { return };
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    crate::support::operator::install(&plane);
    let kubeconfig = plane.service_account_kubeconfig(NAMESPACE, "ipxe-bridge-operator");
    let operator = Operator::started(&kubeconfig, &[], &collector.variables("grpc")).await;
    plane.bridge("lab", json!({"uri": "http://boot.example.com"}));
    let writes = |spans: &[crate::support::collector::Span], name: &str| spans.iter().filter(|span| span.name == name).count();
    let spans = collector
        .until("the first trace", |spans| {
            writes(spans, "apply Deployment lab-ipxe-bridge") > 0 && writes(spans, "reconcile IpxeBridge lab") > 0
        })
        .await;
    let apply = spans
        .iter()
        .find(|span| span.name == "apply Deployment lab-ipxe-bridge")
        .unwrap();
    let parent = spans.iter().find(|span| span.id == apply.parent).unwrap();
    assert_eq!(
        (parent.name.as_str(), parent.get("ipxe_bridge.bridge")),
        ("reconcile IpxeBridge lab", "lab")
    );
    assert!(
        spans
            .iter()
            .any(|span| span.name == "create Secret lab-ipxe-bridge-boot-keys" && span.parent == parent.id)
    );
    assert_eq!(parent.resource["service.name"], "ipxe-bridge");

    // What is woken up by its own writes finds nothing to do; then somebody changes something.
    let reconciled = async || {
        let (_, text) = operator.get("/metrics").await.unwrap();
        let line = text
            .lines()
            .find(|line| line.contains("_reconciliations_total{outcome=\"ok\"}"))
            .unwrap_or("0")
            .to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let (before, told) = (reconciled().await, collector.spans().len());
    plane
        .kubectl(&["annotate", "deployment", "lab-ipxe-bridge", "-n", NAMESPACE, "a=b"], None)
        .unwrap();
    eventually("it was looked at", SOON, async || reconciled().await > before).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(collector.spans().len(), told, "{:#?}", &collector.spans()[told..]);
    plane
        .kubectl(&["delete", "service", "lab-ipxe-bridge", "-n", NAMESPACE], None)
        .unwrap();
    collector
        .until("it comes back", |spans| writes(spans, "apply Service lab-ipxe-bridge") == 2)
        .await;
}
