//! The same pages in a real Chromium.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{SECOND, boot, troubled};
use crate::support::bridge::{Bridge, eventually};
use crate::support::site::{Site, TOKEN_MARKER};
use crate::support::{require, tools};

/// The folder of the browser's driver.
pub fn browser() -> Option<PathBuf> {
    require("a browser", tools("browser"))
}

/// Runs the driver of the browser on a bridge; what it prints.
pub async fn drive(bridge: &Bridge, arguments: &[&str]) -> Option<Value> {
    let tools = browser()?;
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "300", "node"]);
    command
        .arg(tools.join("drive.mjs"))
        .arg(arguments[0])
        .arg(&bridge.url)
        .args(&arguments[1..]);
    // The sample upstream lives in this very process and must go on.
    let output = tokio::task::spawn_blocking(move || command.stderr(Stdio::inherit()).output());
    let output = output.await.unwrap().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", output.status);
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Nothing on the console, no other origin, nothing that failed.
pub fn nothing_went_wrong(seen: &Value) {
    for what in ["console", "foreign", "failed"] {
        assert_eq!(
            seen[what],
            serde_json::json!([]),
            "{what}: {} {}",
            seen["path"],
            seen["scheme"]
        );
    }
}

#[tokio::test]
async fn a_browser_finds_nothing_wrong_in_light_and_dark_with_scripts_and_without() {
    let site = troubled().await;
    let bridge = site.bridge(&[]).await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    let paths = ["/", "/?q=nothing", "/hosts/52:54:00:cc:00:01", "/hosts/52:54:00:cc:00:05"];
    let arguments = [&["look", folder.to_str().unwrap()], &paths[..]].concat();
    let Some(seen) = drive(&bridge, &arguments).await else {
        return;
    };
    let seen = seen.as_array().unwrap();
    assert_eq!(seen.len(), 4 * paths.len());
    for page in seen {
        nothing_went_wrong(page);
        let place = format!("{} {} scripts: {}", page["path"], page["scheme"], page["scripts"]);
        assert!(page["checks"].as_u64().unwrap() > 20, "{place}: axe did its work");
        assert_eq!(page["violations"], serde_json::json!([]), "{place}");
        assert_eq!(page["overflow"], false, "{place} is wider than the window");
        let html = page["html"].as_str().unwrap();
        assert!(!html.contains(TOKEN_MARKER), "{place}");
    }
    // The same is said with scripts and without, but for what only scripts can do.
    let n = paths.len();
    let text = |index: usize| {
        let text = seen[index]["text"].as_str().unwrap().replace("Copy the script", "");
        // An open stream takes the place of the advice to load the page again.
        let text = text
            .replace("Live.", "")
            .replace("As of now: load the page again to see how it goes on.", "");
        let words: Vec<&str> = text.split("up for").next().unwrap().split_whitespace().collect();
        words.join(" ")
    };
    assert_eq!(text(2), text(n + 2));
    assert!(
        seen[2]["text"].as_str().unwrap().contains("Copy the script")
            && !seen[n + 2]["text"].as_str().unwrap().contains("Copy the script")
    );
}

#[tokio::test]
async fn a_person_with_a_keyboard_finds_a_host_and_copies_its_script() {
    let site = troubled().await;
    let bridge = site.bridge(&[]).await;
    let Some(seen) = drive(&bridge, &["use", "/hosts/52:54:00:cc:00:01", "done"]).await else {
        return;
    };
    nothing_went_wrong(&seen);
    assert_eq!(seen["first"], "Skip to the content");
    assert_eq!(seen["skipped"], "#content");
    assert!(seen["stops"].as_array().unwrap().contains(&"q".into()), "{seen}");
    assert_eq!(seen["found"], serde_json::json!(["a/done"]));
    assert_eq!(seen["told"], "Copied.");
    assert!(seen["copied"].as_str().unwrap().starts_with("#!ipxe\n"), "{seen}");
    assert_eq!(seen["copied"], seen["shown"]);
}

#[tokio::test]
async fn a_page_that_is_open_follows_a_boot_without_being_loaded_anew() {
    let site = Site::start().await;
    // Before a machine waits for it.
    if browser().is_none() {
        return;
    }
    let limited = site.bridge(&["--connection-rate-limit", "1Mi"]).await;
    for (path, mac) in [("/", "52:54:00:cc:00:01"), ("/hosts/52-54-00-ff-00-01", "52:54:00:ff:00:01")] {
        let watched = |bridge: &Bridge| bridge.log().matches("\"path\":\"/boots/stream\"").count();
        let before = watched(&limited);
        let arguments = ["watch", path, "150"];
        let machine = async {
            eventually("the page watches", 120 * SECOND, async || watched(&limited) > before).await;
            boot(&limited, mac).await;
        };
        let (seen, ()) = tokio::join!(drive(&limited, &arguments), machine);
        let Some(seen) = seen else {
            return;
        };
        nothing_went_wrong(&seen);
        assert_eq!(
            (&seen["outcome"], &seen["isSamePage"]),
            (&"Complete".into(), &true.into()),
            "{seen}"
        );
        let values: Vec<f64> = seen["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap())
            .collect();
        let between = values.iter().filter(|value| **value > 1.0 && **value < 3_000_000.0).count();
        assert!(between >= 2, "the bar moves: {values:?}");
        assert_eq!(values.last(), Some(&3_000_000.0), "{values:?}");
    }
}
