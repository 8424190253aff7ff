//! Events about how boots ended, on the objects of the machines.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{OWN_CRDS, account, blocking, create_environment, create_host};
use crate::observability::files;
use crate::support::bridge::{Bridge, eventually};
use crate::support::control_plane::ControlPlane;
use crate::support::site::Site;
use crate::upstream_service::{Content, Options};

/// Events of a namespace about a kind of object: reason, name, note.
fn events(plane: &ControlPlane, namespace: &str, kind: &str) -> Vec<[String; 3]> {
    let found = plane
        .kubectl(&["get", "events.events.k8s.io", "-n", namespace, "-o", "json"], None)
        .unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    let of_kind = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["regarding"]["kind"] == kind);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_kind
        .map(|event| {
            [
                text(&event["reason"]),
                text(&event["regarding"]["name"]),
                text(&event["note"]),
            ]
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_told_that_its_machine_booted_where_that_is_wanted() {
    let Some(plane) = blocking(ControlPlane::shared).await else {
        return;
    };
    let site = Site::with(Options {
        rootfs: Content::random(1_000_000, 3),
        ..Options::default()
    })
    .await;
    let namespace = "boot-events";
    plane.load_crds(Path::new(OWN_CRDS));
    site.environment(namespace, "lab", "{}", false);
    let kubeconfig = account(plane, namespace, true);
    create_environment(plane, &site, namespace, "lab");
    let (told, silent) = ("52:54:00:a7:00:01", "52:54:00:a7:00:02");
    for (name, mac) in [("told", told), ("silent", silent)] {
        create_host(plane, namespace, name, mac, Some("lab"));
    }
    let boot = async |arguments: &[&str], mac: &str| {
        let arguments = [&["--namespaces", namespace], arguments].concat();
        let bridge = Bridge::start_with(&arguments, &[("KUBECONFIG", &kubeconfig)]).await;
        bridge.wait_ready().await;
        for file in files(&bridge.script(mac).await) {
            assert_eq!(bridge.get(&file).await.status, 200);
        }
        eventually("the boot is counted", Duration::from_secs(15), async || {
            bridge
                .metrics()
                .await
                .contains("ipxe_bridge_boots_total{outcome=\"Complete\"} 1\n")
        })
        .await;
        bridge
    };
    let without = boot(&[], silent).await;
    let with = boot(&["--boot-events"], told).await;
    eventually("the Event is there", Duration::from_secs(15), async || {
        !events(plane, namespace, "BareMetalHost").is_empty()
    })
    .await;
    let [[reason, name, note]] = &events(plane, namespace, "BareMetalHost")[..] else {
        panic!("one Event: {:?}", events(plane, namespace, "BareMetalHost"));
    };
    assert_eq!((reason.as_str(), name.as_str()), ("Booted", "told"));
    assert!(note.starts_with(&format!("{told} has its root file system: InfraEnv {namespace}/lab, last it fetched 1000000 of 1000000 bytes of its rootfs; trace ")), "{note}");
    drop(without);

    // One override for several machines: each Event says what it is about, and not what the one before did.
    let machines = ["52:54:00:a7:00:03", "52:54:00:a7:00:04"];
    let of_both = json!({
        "apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeHostOverride", "metadata": {"name": "both", "namespace": namespace},
        "spec": {"macAddresses": machines, "infraEnv": {"name": "lab"}}
    });
    plane.apply(&of_both.to_string());
    for mac in machines {
        eventually("the override is read", Duration::from_secs(5), async || {
            with.get(&format!("/explain/{mac}"))
                .await
                .text()
                .contains("IpxeHostOverride boot-events/both wants")
        })
        .await;
        for file in files(&with.script(mac).await) {
            assert_eq!(with.get(&file).await.status, 200);
        }
    }
    eventually("both are told", Duration::from_secs(20), async || {
        let mut told = events(plane, namespace, "IpxeHostOverride");
        // It has others about its status.
        told.retain(|[reason, ..]| reason == "Booted");
        let is_told = |mac: &&str| told.iter().any(|[_, name, note]| name == "both" && note.starts_with(*mac));
        told.len() == 2 && machines.iter().all(is_told)
    })
    .await;
}
