//! Bad input, contradictions and an upstream in trouble: each has its answer, and nothing else is disturbed.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::bridge::eventually;
use crate::support::site::{Site, id};
use crate::upstream_service::{Fault, Target};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn trouble_upstream_makes_machines_ask_again() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    let mac = "/ipxe-mac-boot/52:54:00:cc:00:01";
    let mut cases = vec![
        (Fault::Status(401), 503, "upstream-unavailable"),
        (Fault::Status(500), 503, "upstream-unavailable"),
        (Fault::Status(503), 503, "upstream-unavailable"),
        (Fault::CutAfter(100), 503, "upstream-unavailable"),
        (
            Fault::Redirect("http://127.0.0.1:1/elsewhere".to_owned()),
            502,
            "upstream-redirect",
        ),
        (Fault::Body("<html>no</html>".into()), 502, "upstream-script"),
        (Fault::Body("#!ipxe\nshell\n".into()), 502, "upstream-script"),
        (Fault::Body(vec![b'#'; 1024 * 1024 + 1].into()), 502, "upstream-script"),
        (Fault::Endless, 502, "upstream-script"),
    ];
    for (fault, status, problem) in cases.drain(..) {
        let name = format!("{fault:?}").chars().take(60).collect::<String>();
        site.upstream.set_fault(Target::Script, Some(fault), None);
        let answer = bridge.get(mac).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (status, problem),
            "{name}: {}",
            answer.text()
        );
        assert_eq!(answer.header("retry-after"), "5", "{name}");
    }
    site.upstream.set_fault(Target::Script, None, None);
    assert_eq!(bridge.get(mac).await.status, 200, "it heals by itself");

    site.upstream.delete_environment(&id("a", "lab"));
    assert_eq!(bridge.get(mac).await.status, 503, "a foreign 404 is not the disk");
}

#[tokio::test]
async fn bad_input_gets_a_status_a_sentence_and_a_type() {
    let site = Site::start().await;
    site.host("a", "lost", "52:54:00:cc:00:09", Some("nowhere"));
    site.write("empty.yaml", "apiVersion: agent-install.openshift.io/v1beta1\nkind: InfraEnv\nmetadata: {name: empty, namespace: a}\nstatus: {bootArtifacts: {kernel: '', initrd: '', rootfs: '', ipxeScript: ''}}\n");
    site.host("a", "early", "52:54:00:cc:00:0a", Some("empty"));
    let bridge = site.bridge(&[]).await;
    let long = format!("/ipxe-mac-boot/{}", "a".repeat(9000));
    for (path, status, problem, detail) in [
        (
            "/ipxe-mac-boot/zz",
            400,
            "bad-mac-address",
            "expected twelve hexadecimal digits",
        ),
        (
            "/ipxe-mac-boot/ff:ff:ff:ff:ff:ff",
            400,
            "bad-mac-address",
            "not the broadcast address",
        ),
        ("/explain/zz", 400, "bad-mac-address", "expected twelve"),
        ("/ipxe-mac-proxy/zz", 400, "bad-mac-address", "expected twelve"),
        ("/ipxe-mac-proxy/52:54:00:cc:00:01", 403, "script-proxy-off", "--script-proxy"),
        (
            "/ipxe-mac-boot/52:54:00:cc:00:09",
            503,
            "not-yet",
            "InfraEnv a/nowhere does not exist",
        ),
        (
            "/ipxe-mac-boot/52:54:00:cc:00:0a",
            503,
            "not-yet",
            "InfraEnv a/empty has no ipxeScript, kernel, initrd, rootfs yet",
        ),
        (
            "/boot-artifacts/iso/a/lab",
            404,
            "unknown-artifact-kind",
            "expected kernel, initrd, rootfs or ipxeScript",
        ),
        (
            "/boot-artifacts/kernel/a/nowhere",
            404,
            "unknown-environment",
            "there is no InfraEnv a/nowhere",
        ),
        (
            "/boot-artifacts/kernel/a/..%2f..%2fetc",
            404,
            "unknown-environment",
            "there is no InfraEnv",
        ),
        (
            "/boot-artifacts/kernel/nowhere",
            404,
            "unknown-environment",
            "there is no InfraEnv nowhere",
        ),
        ("/boot-artifacts/kernel/lab", 409, "ambiguous-environment", "a/lab or b/lab"),
        (
            "/boot-artifacts/kernel/a/empty",
            503,
            "artifact-not-made",
            "InfraEnv a/empty has no kernel yet",
        ),
        ("/nothing/here", 404, "no-such-route", "/openapi.json"),
        (&long, 414, "target-too-long", "expected at most 8192"),
    ] {
        let answer = bridge.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (status, problem),
            "{path}: {}",
            answer.text()
        );
        assert!(answer.detail().contains(detail), "{path}: {}", answer.detail());
        assert_eq!(answer.header("retry-after").is_empty(), status != 503, "{path}");
    }
    let candidates = bridge.get("/boot-artifacts/kernel/lab").await.json()["candidates"].clone();
    assert_eq!(candidates, json!(["a/lab", "b/lab"]));
    for path in [
        "/",
        "/inventory",
        "/boot-artifacts/kernel/a/lab",
        "/ipxe-mac-boot/52:54:00:cc:00:01",
    ] {
        let answer = bridge.ask(Method::POST, path, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (405, "method-not-allowed"),
            "{path}"
        );
    }
    let answer = bridge
        .ask(Method::GET, "/ipxe-mac-boot/52:54:00:cc:00:01", &[("host", "x${y}")])
        .await;
    assert!(answer.status.as_u16() == 400, "{}", answer.text());
    // Nothing else was disturbed.
    assert_eq!(bridge.get("/ipxe-mac-boot/52:54:00:cc:00:01").await.status, 200);
}

#[tokio::test]
async fn two_hosts_with_one_address_are_refused_or_agree() {
    let site = Site::start().await;
    site.host("b", "twin", "52:54:00:CC:00:01", Some("lab"));
    let bridge = site.bridge(&[]).await;
    let script = bridge.script("52:54:00:cc:00:01").await;
    assert!(
        script.contains("a person must decide: BareMetalHosts a/n1 (wants a/lab) and b/twin (wants b/lab)"),
        "{script}"
    );
    let inventory = bridge.get("/inventory").await.json();
    assert_eq!(
        inventory["conflicts"][0]["objects"],
        json!(["BareMetalHost a/n1", "BareMetalHost b/twin"]),
        "{inventory}"
    );
    assert!(bridge.metrics().await.contains("ipxe_bridge_conflicts 1\n"));
    assert_eq!(
        bridge.get("/ipxe-mac-boot/52:54:00:cc:00:02").await.status,
        200,
        "others are not disturbed"
    );

    site.remove("host-b-twin.yaml");
    site.host("a", "twin", "52:54:00:CC:00:01", Some("lab"));
    eventually("hosts that agree are no danger", SECOND, async || {
        bridge
            .script_has("52:54:00:cc:00:01", "BareMetalHost a/n1 wants InfraEnv a/lab")
            .await
    })
    .await;
    site.environment(
        "b",
        "other",
        "pxe-bridge-default.infraenvs.agent-install.openshift.io: 'true'",
        false,
    );
    eventually("two defaults are a conflict", SECOND, async || {
        bridge.get("/inventory").await.text().contains("a/lab counts: the oldest")
    })
    .await;
}
