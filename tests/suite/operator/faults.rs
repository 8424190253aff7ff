//! An API server that is slow, refuses, or is away.

use super::*;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::operator::install;

const SECOND: Duration = Duration::from_secs(1);

/// Whatever the status says of this generation is true of the Deployment.
fn assert_honest(plane: &ControlPlane, name: &str) {
    let bridge = plane.object("ipxebridge", "", name);
    let deployment = plane.object("deployment", NAMESPACE, &format!("{name}-ipxe-bridge"));
    let again = plane.object("ipxebridge", "", name);
    let is_current = bridge["status"]["observedGeneration"] == bridge["metadata"]["generation"];
    if bridge == again && is_current {
        assert_eq!(deployment["spec"]["replicas"], bridge["spec"]["replicas"], "{bridge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_in_trouble_is_waited_for_without_a_storm_and_without_a_lie() {
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    install(&plane);
    let direct = plane.service_account_kubeconfig(NAMESPACE, "ipxe-bridge-operator");
    let proxy = FaultProxy::start(&direct).await;
    let _operator = Operator::by(&proxy.kubeconfig(&direct), &[]).await;
    plane.bridge("lab", json!({"replicas": 1}));
    let replicas = async |expected: i32, within: Duration| {
        let start = std::time::Instant::now();
        while plane.object("deployment", NAMESPACE, "lab-ipxe-bridge")["spec"]["replicas"] != expected {
            assert!(start.elapsed() < within, "not {expected} replicas within {within:?}");
            assert_honest(&plane, "lab");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    replicas(1, SOON).await;
    let faults = [
        Fault::Delay(SECOND * 2),
        Fault::Status(429),
        Fault::Status(409),
        Fault::Status(500),
    ];
    for (count, fault) in (2..).zip(faults) {
        let before = proxy.total();
        proxy.set(fault);
        plane.bridge("lab", json!({"replicas": count}));
        // One in two requests fails: it is only a matter of patience.
        replicas(count, SECOND * 30).await;
        tokio::time::sleep(SECOND * 5).await;
        proxy.set(Fault::None);
        let asked = proxy.total() - before;
        println!("{fault:?}: {asked} requests");
        assert!(asked < 300, "{fault:?}: {asked} requests are a storm");
        eventually("the status follows", SOON, async || {
            let bridge = plane.object("ipxebridge", "", "lab");
            assert_honest(&plane, "lab");
            bridge["status"]["observedGeneration"] == bridge["metadata"]["generation"]
        })
        .await;
    }

    let before = proxy.total();
    proxy.set(Fault::Down);
    plane.bridge("lab", json!({"replicas": 9}));
    for _ in 0..60 {
        tokio::time::sleep(SECOND).await;
        assert_honest(&plane, "lab");
    }
    let asked = proxy.total() - before;
    println!("a minute without an API server: {asked} requests");
    assert!(asked < 2000, "{asked} requests are a storm");
    proxy.set(Fault::None);
    replicas(9, SECOND * 30).await;
}
