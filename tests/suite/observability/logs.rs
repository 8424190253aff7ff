//! What the log says of boots, line by line.

use reqwest::Method;
use serde_json::Value;

use super::{MAC, SECOND, boots, files};
use crate::support::bridge::eventually;
use crate::support::site::Site;
use crate::upstream_service::{Fault, Target};

#[tokio::test]
async fn every_line_of_a_boot_has_its_machine_and_its_trace_in_text_too() {
    let site = Site::start().await;
    let bridge = site.bridge(&["--log-format", "text"]).await;
    let [kernel, _, rootfs] = files(&bridge.script(MAC).await);
    let trace = boots(&bridge, MAC).await[0]["trace"].as_str().unwrap().to_owned();
    assert_eq!(bridge.get(&kernel).await.status, 200);
    assert_eq!(bridge.ask(Method::HEAD, &rootfs, &[]).await.status, 200);
    site.upstream
        .set_fault(Target::Rootfs, Some(Fault::CutAfter(1_000_000)), Some(1));
    assert_eq!(bridge.get(&rootfs).await.body.len(), 3_000_000);
    for what in [
        "script served",
        "headers served",
        "upstream broke off",
        "artifact served artifact=\"kernel\"",
        "artifact served artifact=\"rootfs\"",
    ] {
        eventually(what, SECOND * 5, async || bridge.log().contains(what)).await;
        let log = bridge.log();
        let line = log.lines().find(|line| line.contains(what)).unwrap();
        assert!(
            line.contains(MAC) && line.contains(&format!("trace_id=\"{trace}\"")),
            "{line}"
        );
    }
    site.upstream.set_fault(Target::Script, Some(Fault::Status(500)), None);
    let waiting = "52:54:00:cc:00:02";
    assert_eq!(bridge.get(&format!("/ipxe-mac-boot/{waiting}")).await.status, 503);
    let log = bridge.log();
    let line = log.lines().find(|line| line.contains("no script: ")).unwrap();
    assert!(line.contains(waiting) && line.contains("trace_id=\""), "{line}");
    assert!(boots(&bridge, waiting).await.is_empty(), "it has not begun to boot");
}

#[tokio::test]
async fn a_flood_of_requests_is_no_flood_of_the_log_and_hides_no_other_machine() {
    let site = Site::start().await;
    let bridge = site.bridge(&["--log-level", "info"]).await;
    for _ in 0..500 {
        bridge.script(MAC).await;
        bridge.get("/ipxe-mac-boot/52:54:00:cc:00:02").await;
    }
    bridge.script("52:54:00:cc:00:09").await;
    eventually("it is said how much was left out", SECOND * 15, async || {
        bridge.log().contains("lines were left out of the log")
    })
    .await;
    let log = bridge.log();
    let about = |mac: &str| {
        log.lines()
            .filter(|line| line.contains("script served") && line.contains(mac))
            .count()
    };
    assert!((30..60).contains(&about(MAC)), "{}", about(MAC));
    assert_eq!(about("52:54:00:cc:00:09"), 1);
    let left_out = log.lines().find(|line| line.contains("lines were left out")).unwrap();
    let left_out: Value = serde_json::from_str(left_out).unwrap();
    assert!(left_out["lines"].as_u64().unwrap() > 400, "{left_out}");
}
