//! Boots that several replicas have a part in.

use reqwest::Method;
use serde_json::Value;

use super::{MAC, SECOND, SECRET, boots, files, keys};
use crate::support::bridge::eventually;
use crate::support::free_port;
use crate::support::site::Site;

#[tokio::test]
async fn a_boot_is_one_whichever_replica_its_files_come_from() {
    let site = Site::start().await;
    let keys = keys("1", SECRET, 3600);
    let folder = keys.path().to_str().unwrap();
    let ports = [free_port(), free_port()].map(|port| port.to_string());
    let peers = format!("127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]);
    let arguments = |port: usize| ["--boot-keys", folder, "--peers", &peers, "--metrics-port", &ports[port]];
    let (one, two) = (site.bridge(&arguments(0)).await, site.bridge(&arguments(1)).await);
    let [kernel, initrd, rootfs] = files(&one.script(MAC).await);
    let begun = &boots(&one, MAC).await[0];
    assert_eq!(begun["outcome"], "Running");
    assert_eq!(begun["environment"], "a/lab");
    assert_eq!(begun["reason"], "BareMetalHost a/n1 wants InfraEnv a/lab");
    assert_eq!(two.get(&kernel).await.status, 200);
    let initrd = one.get(&initrd).await.body.len() as u64;
    assert_eq!(two.ask(Method::HEAD, &rootfs, &[]).await.status, 200);
    assert!(
        boots(&two, MAC).await[0]["outcome"] == "Running",
        "a HEAD is no root file system"
    );
    assert_eq!(two.get(&rootfs).await.status, 200);
    eventually("both know of it", SECOND * 5, async || {
        boots(&two, MAC).await[0]["outcome"] == "Complete"
    })
    .await;
    let steps = |boot: &Value| -> Vec<(String, u64)> {
        let steps = boot["steps"].as_array().unwrap().iter();
        steps
            .map(|step| (step["kind"].as_str().unwrap().to_owned(), step["bytes"].as_u64().unwrap()))
            .collect()
    };
    let all = [("kernel", 300_000), ("initrd", initrd), ("rootfs", 3_000_000)].map(|(kind, bytes)| (kind.to_owned(), bytes));
    eventually("each knows all of it", SECOND * 10, async || {
        let (first, second) = (boots(&one, MAC).await, boots(&two, MAC).await);
        first == second && first.len() == 1 && steps(&first[0]) == all
    })
    .await;
    let first = boots(&one, MAC).await;
    assert_eq!(
        (&first[0]["outcome"], &first[0]["environment"]),
        (&Value::from("Complete"), &Value::from("a/lab"))
    );
    for (bridge, line) in [(&one, "script served"), (&two, "artifact served")] {
        let log = bridge.log();
        let line = log.lines().find(|text| text.contains(line)).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&line["trace_id"], &line["mac"]),
            (&first[0]["trace"], &Value::from(MAC)),
            "{line}"
        );
    }
    let complete = "ipxe_bridge_boots_total{outcome=\"Complete\"}";
    eventually("it is counted by one", SECOND * 15, async || {
        one.metrics().await.contains(&format!("{complete} 1\n"))
    })
    .await;
    assert!(two.metrics().await.contains(&format!("{complete} 0\n")));
    // One that starts later learns what the others remember.
    let late = site.bridge(&["--peers", &peers]).await;
    eventually("it was told", SECOND * 10, async || boots(&late, MAC).await == first).await;
}

#[tokio::test]
async fn a_replica_that_ends_tells_the_others_of_its_downloads_to_their_end() {
    let site = Site::start().await;
    let ports = [free_port(), free_port()].map(|port| port.to_string());
    let peers = format!("127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]);
    let arguments = |port: usize| {
        [
            "--connection-rate-limit",
            "500k",
            "--peers",
            &peers,
            "--metrics-port",
            &ports[port],
        ]
    };
    let (mut one, two) = (site.bridge(&arguments(0)).await, site.bridge(&arguments(1)).await);
    let [_, _, rootfs] = files(&one.script(MAC).await);
    let download = one.send(Method::GET, &rootfs, &[]).await;
    let bytes = async || {
        let boots = boots(&two, MAC).await;
        boots
            .first()
            .and_then(|boot| boot["steps"][0]["bytes"].as_u64())
            .unwrap_or_default()
    };
    one.terminate();
    let fetched = tokio::spawn(async { download.bytes().await.unwrap().len() });
    let last = std::sync::atomic::AtomicU64::new(0);
    eventually("the other one sees it move while it ends", SECOND * 10, async || {
        let now = bytes().await;
        let before = last.swap(now, std::sync::atomic::Ordering::Relaxed);
        before > 0 && now > before
    })
    .await;
    assert_eq!(fetched.await.unwrap(), 3_000_000);
    assert!(one.ended(SECOND * 10).await.success());
    assert_eq!(boots(&two, MAC).await[0]["outcome"], "Complete");
}
