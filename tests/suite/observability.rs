//! What can be seen of a boot: its files belong to its script on every replica, the timeline tells how far it is.

mod logs;
mod replicas;

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::bridge::{Bridge, command, eventually};
use crate::support::site::Site;
use crate::upstream_service::{Fault, Target};

pub const MAC: &str = "52:54:00:cc:00:01";
const SECOND: Duration = Duration::from_secs(1);

/// A folder with a key that was made so many seconds ago.
pub fn keys(name: &str, secret: &str, age: i64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let since = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(age);
    std::fs::write(folder.path().join(name), format!("{since} {secret}\n")).unwrap();
    folder
}

pub const SECRET: &str = "a key of the tests, with more than 32 characters";

/// Paths of kernel, initrd and rootfs in a script, with their ids.
pub fn files(script: &str) -> [String; 3] {
    ["kernel", "initrd", "rootfs"].map(|kind| {
        let at = script
            .find(&format!("/boot-artifacts/{kind}/"))
            .unwrap_or_else(|| panic!("{kind}: {script}"));
        script[at..].split_whitespace().next().unwrap().to_owned()
    })
}

async fn boots(bridge: &Bridge, mac: &str) -> Vec<Value> {
    let answer = bridge.get(&format!("/boots/{mac}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json().as_array().unwrap().clone()
}

#[tokio::test]
async fn how_a_machine_came_is_handed_on_and_shown_and_decides_nothing() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    let told = jiff::Timestamp::now().as_millisecond() - 12_000;
    let way = format!("{told:x}-t-3100-240-173792");
    let bootstrap = async |query: &str| bridge.get(&format!("/boot.ipxe{query}")).await.text().to_owned();
    let plain = bootstrap("").await;
    assert_eq!(
        bootstrap(&format!("?way={way}")).await,
        plain.replace("/mac:hexhyp} ||", &format!("/mac:hexhyp}}&way={way} ||"))
    );
    for foreign in ["?way=$%7Bnet0/mac%7D", "?way=1%0Aexit", "?way=", "?way=1-t-2"] {
        assert_eq!(bootstrap(foreign).await, plain, "{foreign}");
    }
    let asked = async |way: &str| {
        let script = bridge.get(&format!("/ipxe-mac-boot/{MAC}?nics=&way={way}")).await;
        assert_eq!(script.status, 200);
        boots(&bridge, MAC).await[0]["network"].clone()
    };
    let time = |milliseconds| jiff::Timestamp::from_millisecond(milliseconds).unwrap().to_string();
    let program = json!({"protocol": "TFTP", "begun": time(told + 3100), "milliseconds": 240, "bytes": 173_792});
    assert_eq!(asked(&way).await, json!({"told": time(told), "program": program}));
    assert_eq!(asked(&format!("{told:x}")).await, json!({"told": time(told)}));
    // Of a boot that is long over, or of none.
    let old = format!("{:x}", told - 2 * 3_600_000);
    for nothing in [old.as_str(), "7fffffffffffffff", "1-h-4294967295--9", "x"] {
        assert_eq!(asked(nothing).await, Value::Null, "{nothing}");
    }
}

#[tokio::test]
async fn files_are_sent_with_a_wrong_id_and_without_one_but_count_for_no_boot() {
    let site = Site::start().await;
    let (own, other) = (
        keys("1", SECRET, 3600),
        keys("1", "another key of the tests, of the same length", 3600),
    );
    let bridge = site.bridge(&["--boot-keys", own.path().to_str().unwrap()]).await;
    let stranger = site.bridge(&["--boot-keys", other.path().to_str().unwrap()]).await;
    let [kernel, ..] = files(&stranger.script(MAC).await);
    let (plain, _) = kernel.split_once('?').unwrap();
    for address in [
        kernel.clone(),
        plain.to_owned(),
        format!("{plain}?b="),
        format!("{plain}?b=x"),
        format!("{plain}?b={}", "A".repeat(59)),
        format!("{plain}?b=%00%ff"),
        format!("{plain}?x=1&b"),
    ] {
        let answer = bridge.get(&address).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 300_000), "{address}");
    }
    assert_eq!(bridge.get("/boots").await.json(), serde_json::json!([]));
    // Beside other parameters it is found.
    let [kernel, ..] = files(&bridge.script(MAC).await);
    let address = kernel.replace("?b=", "?x=1&b=");
    assert_eq!(bridge.get(&address).await.status, 200);
    assert_eq!(boots(&bridge, MAC).await[0]["steps"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn keys_are_exchanged_in_a_running_server_and_bad_ones_leave_the_old() {
    let site = Site::start().await;
    let keys = keys("1", SECRET, 7200);
    let folder = keys.path().to_str().unwrap();
    let bridge = site.bridge(&["--boot-keys", folder]).await;
    let [before, ..] = files(&bridge.script(MAC).await);
    let write = |name: &str, text: &str| crate::support::bridge::write(&keys.path().join(name), text);
    let number = |address: &str| address.split_once("?b=").unwrap().1[..1].to_owned();
    let newer = (jiff::Timestamp::now() - jiff::SignedDuration::from_secs(600)).to_string();
    write(
        "2",
        &format!("{newer} another key, which is newer and as long as it has to be\n"),
    );
    eventually("the new one signs", SECOND * 5, async || {
        number(&files(&bridge.script(MAC).await)[0]) != number(&before)
    })
    .await;
    assert_eq!(bridge.get(&before).await.status, 200);
    let steps: usize = boots(&bridge, MAC)
        .await
        .iter()
        .map(|boot| boot["steps"].as_array().unwrap().len())
        .sum();
    assert_eq!(steps, 1, "the old one still verifies");
    for name in ["1", "2"] {
        std::fs::remove_file(keys.path().join(name)).unwrap();
    }
    eventually("an empty folder is told of", SECOND * 5, async || {
        bridge
            .log()
            .contains("the new keys of boots are not used, the old ones go on")
    })
    .await;
    assert_eq!(bridge.get(&before).await.status, 200);
    let empty = site.bridge(&["--boot-keys", folder]).await;
    assert_eq!(empty.get(&files(&empty.script(MAC).await)[0]).await.status, 200);
    assert!(empty.log().contains("holds no key"));
    write(
        "1",
        &format!("{newer} another key, which is newer and as long as it has to be\n"),
    );
    eventually("the first one is taken up", SECOND * 5, async || {
        let [kernel, ..] = files(&empty.script(MAC).await);
        bridge.get(&kernel).await;
        boots(&bridge, MAC).await[0]["steps"].as_array().unwrap().len() == 1
    })
    .await;
    let nowhere = command(&["server", "--manifests", folder, "--boot-keys", "/nowhere", "--port", "0"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&nowhere.stderr);
    assert!(
        !nowhere.status.success() && said.contains("--boot-keys: /nowhere is no folder"),
        "{said}"
    );
}

#[tokio::test]
async fn a_stream_tells_of_a_boot_while_it_goes() {
    let site = Site::start().await;
    let bridge = site.bridge(&["--connection-rate-limit", "1M"]).await;
    assert_eq!(bridge.ask(Method::HEAD, "/boots/stream", &[]).await.status, 200);
    let response = bridge.send(Method::GET, "/boots/stream", &[]).await;
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/event-stream")
    );
    let [_, _, rootfs] = files(&bridge.script(MAC).await);
    let machine = bridge.send(Method::GET, &rootfs, &[]);
    let fetched = async { machine.await.bytes().await.unwrap().len() };
    let told = told(response, |boot| boot["outcome"] == "Complete");
    let (length, seen) = tokio::time::timeout(SECOND * 30, async { tokio::join!(fetched, told) })
        .await
        .unwrap();
    assert_eq!(length, 3_000_000);
    let bytes: Vec<u64> = seen
        .iter()
        .map(|boot| boot["steps"][0]["bytes"].as_u64().unwrap_or_default())
        .collect();
    assert!(
        bytes.len() > 3 && bytes.is_sorted() && bytes.last() == Some(&3_000_000),
        "{bytes:?}"
    );
    assert!(
        seen.iter()
            .all(|boot| boot["mac"] == MAC && boot["steps"][0]["length"].as_u64().is_none_or(|all| all == 3_000_000))
    );
    // Between a page and its stream a boot may end.
    let late = bridge.send(Method::GET, "/boots/stream", &[]).await;
    let late = tokio::time::timeout(SECOND * 5, told_of(late)).await.unwrap();
    assert_eq!((&late["mac"], &late["outcome"]), (&json!(MAC), &json!("Complete")));
}

async fn told_of(response: reqwest::Response) -> Value {
    told(response, |_| true).await.remove(0)
}

/// What a stream tells, up to the boot that was waited for.
async fn told(response: reqwest::Response, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let (mut events, mut seen, mut text) = (response.bytes_stream(), Vec::new(), String::new());
    while !seen.last().is_some_and(&is_last) {
        let piece = events.next().await.expect("it goes on").unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                seen.push(serde_json::from_str::<Value>(data).unwrap());
            }
            text = rest.to_owned();
        }
    }
    seen
}

#[tokio::test]
async fn a_file_that_is_refused_or_left_is_told_as_such() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    let [kernel, initrd, rootfs] = files(&bridge.script(MAC).await);
    site.upstream.set_fault(Target::Kernel, Some(Fault::Status(500)), None);
    site.upstream.set_fault(Target::Rootfs, Some(Fault::Status(500)), None);
    for _ in 0..3 {
        assert_eq!(bridge.get(&kernel).await.status, 503);
    }
    assert_eq!(bridge.ask(Method::HEAD, &rootfs, &[]).await.status, 503);
    let boot = boots(&bridge, MAC).await.remove(0);
    let steps: Vec<_> = boot["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (&step["kind"], &step["state"]))
        .collect();
    assert_eq!(
        steps,
        [(&json!("kernel"), &json!("Refused")), (&json!("rootfs"), &json!("Refused"))],
        "however often it was asked for"
    );
    assert_eq!(boot["outcome"], "Running");
    for page in ["/".to_owned(), format!("/hosts/{MAC}")] {
        assert!(bridge.get(&page).await.text().contains("asked for, refused"), "{page}");
    }
    let log = bridge.log();
    let line = log.lines().find(|line| line.contains("artifact not served")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["mac"], &line["trace_id"]), (&json!(MAC), &boot["trace"]), "{line}");

    // A body of unknown length, of which the machine takes only the beginning.
    site.upstream.set_fault(Target::Initrd, Some(Fault::Endless), None);
    let mut response = bridge.send(Method::GET, &initrd, &[]).await;
    assert!(response.content_length().is_none() && response.chunk().await.unwrap().is_some());
    drop(response);
    eventually("it was left", SECOND * 10, async || {
        boots(&bridge, MAC).await[0]["steps"][2]["state"] == "Left"
    })
    .await;
    let count = |outcome: &str| format!("ipxe_bridge_transfers_total{{kind=\"initrd\",outcome=\"{outcome}\"}}");
    let metrics = bridge.metrics().await;
    assert!(
        metrics.contains(&count("left")) && !metrics.contains(&count("complete")),
        "{metrics}"
    );
}

#[tokio::test]
async fn watchers_are_limited_and_hold_up_no_end() {
    let site = Site::start().await;
    let mut bridge = site.bridge(&[]).await;
    let mut watchers = Vec::new();
    for _ in 0..64 {
        watchers.push(bridge.send(Method::GET, "/boots/stream", &[]).await);
    }
    assert!(watchers.iter().all(|watcher| watcher.status() == 200));
    let refused = bridge.get("/boots/stream").await;
    assert_eq!(
        (refused.status.as_u16(), refused.problem().as_str()),
        (503, "too-many-watchers")
    );
    watchers.pop();
    eventually("a place is free again", SECOND * 10, async || {
        bridge.send(Method::GET, "/boots/stream", &[]).await.status() == 200
    })
    .await;
    bridge.terminate();
    assert!(bridge.ended(SECOND * 5).await.success());
}

#[tokio::test]
async fn a_machine_that_boots_its_disk_and_one_that_nobody_knows_are_told_apart() {
    let site = Site::start().await;
    site.agent("a", "one", MAC, "installed", "Done");
    let bridge = site.bridge(&["--local-disk", "Exit"]).await;
    bridge.script(MAC).await;
    let boot = &boots(&bridge, "5254.00cc.0001").await[0];
    assert_eq!(
        (&boot["outcome"], &boot["rule"]),
        (&Value::from("LocalDisk"), &Value::from("BootPolicy"))
    );
    site.remove("env-a-lab.yaml");
    let bridge = site.bridge(&["--unknown-hosts", "Shell"]).await;
    bridge.script("52:54:00:ff:00:01").await;
    let boot = &boots(&bridge, "52:54:00:ff:00:01").await[0];
    assert_eq!(
        (&boot["outcome"], &boot["boots"]),
        (&Value::from("Script"), &Value::from("Shell"))
    );
    // What was only asked for is no boot.
    let scripts = "ipxe_bridge_scripts_total{rule=\"UnknownHost\",served=\"true\"} 1\n";
    assert!(bridge.metrics().await.contains(scripts));
    bridge.ask(Method::HEAD, "/ipxe-mac-boot/52:54:00:ff:00:02", &[]).await;
    bridge.get("/explain/52:54:00:ff:00:02").await;
    assert!(boots(&bridge, "52:54:00:ff:00:02").await.is_empty());
    assert!(bridge.metrics().await.contains(scripts), "nor is it counted");
    let log = bridge.log();
    let mut served = log.lines().filter(|line| line.contains("script served"));
    assert!(!served.any(|line| line.contains("52:54:00:ff:00:02")), "nor told in the log");
    assert_eq!(bridge.get("/boots/nonsense").await.problem(), "bad-mac-address");
    // The last ones first.
    bridge.script("52:54:00:ff:00:03").await;
    let machines = async |limit: &str| {
        let boots = bridge.get(&format!("/boots{limit}")).await.json();
        let macs: Vec<_> = boots
            .as_array()
            .unwrap()
            .iter()
            .map(|boot| boot["mac"].as_str().unwrap().to_owned())
            .collect();
        macs
    };
    assert_eq!(machines("").await.len(), 2);
    assert_eq!(machines("?limit=1").await.len(), 1);
    assert_eq!(bridge.get("/boots?limit=all").await.status, 400);
}

#[tokio::test]
async fn durations_have_traces_as_examples_and_older_clients_get_the_older_form() {
    let site = Site::start().await;
    let folder = site.path().to_str().unwrap();
    let collector = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")];
    let bridge = Bridge::start_with(&["--manifests", folder], &collector).await;
    bridge.wait_ready().await;
    let [kernel, ..] = files(&bridge.script(MAC).await);
    assert_eq!(bridge.get(&kernel).await.status, 200);
    let trace = boots(&bridge, MAC).await[0]["trace"].as_str().unwrap().to_owned();
    let example = format!(" # {{trace_id=\"{trace}\"}} ");
    eventually("the transfer is counted", SECOND * 5, async || {
        bridge.metrics().await.contains(&example)
    })
    .await;
    let line = bridge.metrics().await;
    let line = line.lines().find(|line| line.contains(&example)).unwrap();
    assert!(line.starts_with("ipxe_bridge_transfer_duration_seconds_bucket{"), "{line}");

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |accept: &str| {
        let request = client.get(format!("{}/metrics", bridge.metrics_url)).header("accept", accept);
        let answer = request.send().await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (kind, answer.text().await.unwrap())
    };
    let (kind, text) = ask("text/plain;version=0.0.4").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    assert!(
        text.contains("# TYPE ipxe_bridge_scripts_total counter\n") && text.contains("\nipxe_bridge_scripts_total{"),
        "{text}"
    );
    assert!(
        !text.contains("# EOF") && !text.contains("# UNIT") && !text.contains(" # {"),
        "{text}"
    );
    let (kind, text) = ask("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1").await;
    assert!(
        kind.starts_with("application/openmetrics-text") && text.ends_with("# EOF\n"),
        "{kind}"
    );
}
