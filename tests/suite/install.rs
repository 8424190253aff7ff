//! The installation page, as a new user follows it: each of its commands in turn, with pods that really run.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::olm::ready;
use crate::support::bundle;
use crate::support::control_plane::{CRDS, ControlPlane};
use crate::support::node::Node;
use crate::support::{require, tools};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const FIRST_BRIDGE: &str = " -f config/samples/bridge.yaml";

/// The commands of a page that begin so.
pub fn commands(page: &str, begin: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(ROOT).join(page)).unwrap();
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
    lines.filter(|line| line.starts_with(begin)).map(str::to_owned).collect()
}

/// Runs those of the page's commands that remove something, or wait until it is gone, and have one of these words.
pub fn remove(plane: &ControlPlane, words: &[&str]) {
    let mut lines = commands("docs/install.md", "kubectl ");
    lines.retain(|line| line.starts_with("kubectl delete") || line.contains("--for=delete"));
    for word in words {
        assert!(
            lines.iter().any(|line| line.contains(word)),
            "no command of the page has {word}"
        );
    }
    for line in lines.iter().filter(|line| words.iter().any(|word| line.contains(word))) {
        let arguments: Vec<&str> = line.split(' ').skip(1).chain(["--timeout=120s"]).collect();
        plane
            .kubectl(&arguments, None)
            .unwrap_or_else(|said| panic!("{line}: {said}"));
    }
}

/// Kind and name of every object of ours that a cluster has, whoever made it.
fn ours(plane: &ControlPlane) -> Result<Vec<String>, String> {
    let kinds = plane.kubectl(&["api-resources", "--verbs=list", "-o", "name"], None)?;
    // Events outlive what they tell of.
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events") && *kind != "componentstatuses")
        .collect();
    let objects = plane.kubectl(&["get", "-A", "-o", "name", &kinds.join(",")], None)?;
    let named = objects.lines().filter(|name| name.contains("ipxe"));
    Ok(named.map(str::to_owned).collect())
}

/// Waits until a cluster has nothing of ours any more; what the garbage collector removes goes a little later.
pub async fn nothing_is_left(plane: &ControlPlane) {
    let start = Instant::now();
    loop {
        let left = ours(plane);
        if left.as_ref().is_ok_and(Vec::is_empty) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(90), "left: {left:#?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_installation_page_works_and_nothing_is_left_in_the_end() {
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    let Some(_controllers) = plane.start_controllers() else {
        return;
    };
    let (Some(control_plane), Some(olm)) = (
        require("kubectl", tools("control-plane")),
        require("the programs around OLM", tools("olm")),
    ) else {
        return;
    };
    let Some(objects) = bundle::rendered("config/default") else {
        return;
    };
    let program = Path::new(env!("CARGO_BIN_EXE_ipxe-bridge"));
    let image = bundle::image(&objects);
    let mirrored = image.replacen("quay.io/", "registry.example.com:5000/", 1);
    let Some(_node) = Node::start(&plane, &[(&image, program), (&mirrored, program)]).await else {
        return;
    };
    plane.load_crds(Path::new(CRDS));
    for project in std::fs::read_dir(olm.join("crds")).unwrap() {
        plane.load_crds(&project.unwrap().path());
    }
    plane.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "olm"}}).to_string());

    let commands = commands("docs/install.md", "kubectl ");
    assert!(commands.len() >= 28, "{commands:?}");
    assert!(commands.iter().any(|line| line.ends_with(FIRST_BRIDGE)), "{commands:?}");
    let run = |line: &str| {
        let path = format!("{}:/usr/bin:/bin", control_plane.display());
        let mut command = Command::new("timeout");
        command
            .args(["120", "bash", "-c", line])
            .env("PATH", path)
            .env("KUBECONFIG", plane.kubeconfig())
            .current_dir(ROOT);
        command.output().unwrap()
    };
    for line in &commands {
        if line == "kubectl delete ipxb --all" {
            let there = ours(&plane).unwrap();
            assert!(there.len() > 40, "{there:#?}");
        }
        let output = tokio::task::block_in_place(|| run(line));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let stuck = || {
            let all = plane.kubectl(&["get", "namespaces,crds", "-o", "json"], None).unwrap();
            let all: serde_json::Value = serde_json::from_str(&all).unwrap();
            let leaving = all["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|object| !object["metadata"]["deletionTimestamp"].is_null());
            leaving
                .map(|object| format!("{} {}\n", object["metadata"]["name"], object["status"]["conditions"]))
                .collect::<String>()
        };
        assert!(output.status.success(), "{line}: {said}{}", stuck());
        assert!(!said.contains("Warning"), "{line}: {said}");
        if line.ends_with(FIRST_BRIDGE) {
            ready(&plane, "main").await;
        }
    }
    nothing_is_left(&plane).await;

    // In two words, as the page says too.
    for line in ["make deploy", "make undeploy"] {
        let output = tokio::task::block_in_place(|| run(line));
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    nothing_is_left(&plane).await;
}
