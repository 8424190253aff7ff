//! Several operators: one of them works, whatever happens to it.

use std::time::Instant;

use super::*;
use crate::support::operator::install;

const SECOND: Duration = Duration::from_secs(1);
const SHORT: [&str; 2] = ["--lease-duration", "3s"];

async fn leads(operator: &Operator, within: Duration, what: &str) -> Duration {
    let start = Instant::now();
    eventually(what, within, async || operator.leads().await).await;
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_operator_works_at_a_time_and_the_next_takes_over() {
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    install(&plane);
    let first = Operator::with(&plane, &SHORT).await;
    leads(&first, SECOND * 10, "the first leads").await;
    let second = Operator::with(&plane, &SHORT).await;
    let third = Operator::with(&plane, &SHORT).await;
    plane.bridge("lab", json!({}));
    there(&plane, "deployment", NAMESPACE, "lab-ipxe-bridge").await;
    assert!(!second.leads().await && !third.leads().await && first.writes().await > 0);

    // Told to end, it gives the lease back at once.
    first.signal("TERM");
    let start = Instant::now();
    let next = loop {
        if second.leads().await {
            break [&second, &third];
        }
        if third.leads().await {
            break [&third, &second];
        }
        assert!(start.elapsed() < SECOND * 2, "nobody leads after {:?}", start.elapsed());
    };
    println!("another operator led {:?} after the signal", start.elapsed());
    let [leader, standby] = next;
    assert!(!standby.leads().await);
    let lease = plane.object("lease", NAMESPACE, "ipxe-bridge-operator");
    assert_eq!(lease["spec"]["leaseTransitions"], 1, "{lease}");

    // Frozen past its lease, it must not write when it wakes up, whatever it was about to do.
    plane.bridge("lab", json!({"replicas": 3}));
    becomes(
        &plane,
        "deployment",
        NAMESPACE,
        "lab-ipxe-bridge",
        "/spec/replicas",
        &json!(3),
    )
    .await;
    leader.signal("STOP");
    plane.bridge("lab", json!({"replicas": 4}));
    let took = leads(standby, SECOND * 8, "the standby takes over").await;
    println!("a frozen leader was replaced after {took:?} with a lease of 3 s");
    becomes(
        &plane,
        "deployment",
        NAMESPACE,
        "lab-ipxe-bridge",
        "/spec/replicas",
        &json!(4),
    )
    .await;
    plane.bridge("lab", json!({"replicas": 5}));
    becomes(
        &plane,
        "deployment",
        NAMESPACE,
        "lab-ipxe-bridge",
        "/spec/replicas",
        &json!(5),
    )
    .await;
    let manager = plane.object("deployment", NAMESPACE, "lab-ipxe-bridge")["metadata"]["resourceVersion"].clone();
    leader.signal("CONT");
    eventually("the frozen one notices", SECOND * 5, async || {
        leader.log().contains("the lease was lost, another may lead")
    })
    .await;
    tokio::time::sleep(SECOND * 2).await;
    assert!(!leader.leads().await && standby.leads().await);
    let now = plane.object("deployment", NAMESPACE, "lab-ipxe-bridge");
    assert_eq!(
        (&now["metadata"]["resourceVersion"], &now["spec"]["replicas"]),
        (&manager, &json!(5))
    );

    // Killed, it is replaced when its lease has run out.
    standby.signal("KILL");
    let took = leads(leader, SECOND * 8, "the one that was frozen leads again").await;
    println!("a killed leader was replaced after {took:?}");
    plane.bridge("lab", json!({"replicas": 6}));
    becomes(
        &plane,
        "deployment",
        NAMESPACE,
        "lab-ipxe-bridge",
        "/spec/replicas",
        &json!(6),
    )
    .await;

    // Without an API server nobody leads for longer than the lease, and afterwards somebody does.
    plane.stop_apiserver();
    eventually("it stops in time", SECOND * 4, async || !leader.leads().await).await;
    plane.start_apiserver();
    leads(leader, SECOND * 15, "it leads again").await;
    plane.bridge("lab", json!({"replicas": 7}));
    becomes(
        &plane,
        "deployment",
        NAMESPACE,
        "lab-ipxe-bridge",
        "/spec/replicas",
        &json!(7),
    )
    .await;
}
