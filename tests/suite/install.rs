//! The installation page, as a new user follows it: each of its commands in turn, with pods that really run.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::bundle;
use crate::support::control_plane::{CRDS, ControlPlane};
use crate::support::node::Node;
use crate::support::{require, tools};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The commands of a page that begin so.
pub fn commands(page: &str, begin: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(ROOT).join(page)).unwrap();
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
    lines.filter(|line| line.starts_with(begin)).map(str::to_owned).collect()
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
    let (image, tag) = (
        bundle::image(&objects),
        format!("quay.io/ipxe-bridge/ipxe-bridge:{}", env!("CARGO_PKG_VERSION")),
    );
    let Some(_node) = Node::start(&plane, &[(&image, program), (&tag, program)]).await else {
        return;
    };
    plane.load_crds(Path::new(CRDS));
    for project in std::fs::read_dir(olm.join("crds")).unwrap() {
        plane.load_crds(&project.unwrap().path());
    }
    plane.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "olm"}}).to_string());

    let commands = commands("docs/install.md", "kubectl ");
    assert!(commands.len() >= 14, "{commands:?}");
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
    }
    for (kind, name) in [
        ("crd", "ipxebridges.ipxe-bridge.io"),
        ("crd", "ipxehostoverrides.ipxe-bridge.io"),
        ("namespace", "ipxe-bridge-system"),
        ("clusterrole", "ipxe-bridge-operator"),
        ("clusterrole", "ipxe-bridge-server"),
        ("clusterrolebinding", "ipxe-bridge-operator"),
        ("clusterrolebinding", "main-ipxe-bridge"),
    ] {
        assert!(plane.object(kind, "", name).is_null(), "{kind} {name} is left");
    }
}
