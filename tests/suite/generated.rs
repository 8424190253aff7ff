//! Committed files that are made from the code equal what the code makes now.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::bridge::command;
use crate::support::{bundle, require, tools};

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn the_custom_resource_definitions_and_the_install_are_current() {
    let output = command(&["crd"]).output().unwrap();
    assert!(output.status.success());
    let all = String::from_utf8(output.stdout).unwrap();
    for text in all.split("---\n").filter(|text| !text.is_empty()) {
        let name = text.split_once("metadata:\n  name: ").unwrap().1.lines().next().unwrap();
        current(&format!("config/crd/bases/{name}.yaml"), &format!("---\n{text}"));
    }
    // Not tests of their own: they read what was written just now.
    the_plain_install_is_current();
    the_bundle_is_current();
}

/// Fails if a committed file is not this text; with `UPDATE` in the environment writes it.
pub fn current(path: &str, now: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, now).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == now, "{path} is not current: make generate");
}

fn the_plain_install_is_current() {
    let Some(tools) = require("kubectl", tools("control-plane")) else {
        return;
    };
    let output = Command::new(tools.join("kubectl"))
        .args(["kustomize", concat!(env!("CARGO_MANIFEST_DIR"), "/config/default")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let head = "# Definitions, roles and operator. Made from config/default by make generate: kubectl apply --server-side -f deploy/install.yaml\n";
    let now = head.to_owned() + std::str::from_utf8(&output.stdout).unwrap();
    current("deploy/install.yaml", &now);
    // The operator's own image is that of the bridges, and there is no other.
    let images: Vec<&str> = now
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image: ").or(line.trim().strip_prefix("value: ")))
        .collect();
    assert_eq!(images.len(), 2, "{images:?}");
    assert_eq!(images[0], images[1]);
    assert!(
        images[0].contains("@sha256:") || images[0].ends_with(&format!(":{VERSION}")),
        "{images:?}"
    );
}

fn the_bundle_is_current() {
    let Some(objects) = bundle::rendered("config/manifests") else {
        return;
    };
    let files = bundle::files(&objects, VERSION);
    if std::env::var_os("UPDATE").is_some() {
        // What is no longer made goes.
        let _ = fs::remove_dir_all(Path::new(env!("CARGO_MANIFEST_DIR")).join("bundle"));
    }
    for (path, text) in &files {
        current(path, text);
    }
    let committed = files_below(Path::new("bundle"));
    let made: BTreeSet<String> = files.into_keys().filter(|path| path.starts_with("bundle/")).collect();
    assert_eq!(committed, made, "left: files in bundle, right: what make bundle makes");
}

/// Files of a folder of the repository and below.
fn files_below(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let entries = entries.map(|entry| folder.join(entry.unwrap().file_name()));
    entries
        .flat_map(|path| match Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).is_dir() {
            true => files_below(&path),
            false => BTreeSet::from([path.to_str().unwrap().to_owned()]),
        })
        .collect()
}

#[test]
fn argo_cds_config_map_holds_the_health_script() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/argocd");
    let config_map = fs::read_to_string(root.join("argocd-cm.yaml")).unwrap();
    let config_map: serde_json::Value = serde_saphyr::from_str(&config_map).unwrap();
    let script = fs::read_to_string(root.join("ipxebridge-health.lua")).unwrap();
    assert_eq!(
        config_map["data"]["resource.customizations.health.ipxe-bridge.io_IpxeBridge"],
        script.as_str()
    );
}

#[test]
fn the_openapi_document_is_current() {
    let output = command(&["openapi"]).output().unwrap();
    assert!(output.status.success());
    let now = String::from_utf8(output.stdout).unwrap();
    current("docs/openapi.json", &now);

    let document: serde_json::Value = serde_json::from_str(&now).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    for path in [
        "/",
        "/healthz",
        "/livez",
        "/readyz",
        "/boot.ipxe",
        "/autoexec.ipxe",
        "/ipxe-boot",
        "/ipxe-mac-boot/{mac}",
        "/ipxe-mac-proxy/{mac}",
        "/inventory",
        "/explain/{mac}",
        "/boot-artifacts/{kind}/{name}",
        "/boot-artifacts/{kind}/{namespace}/{name}",
    ] {
        assert!(document["paths"][path]["get"].is_object(), "{path} is not documented");
    }
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(
                    parameter["description"].is_string(),
                    "{method} {path}: {} is not described",
                    parameter["name"]
                );
                let has_example = parameter["schema"]["example"].is_string() || parameter["in"] == "header";
                assert!(has_example, "{method} {path}: {} has no example", parameter["name"]);
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(
                    response["description"].as_str().is_some_and(|text| !text.is_empty()),
                    "{method} {path} {status}"
                );
            }
        }
    }
}

/// Walks a schema: every list says how it is merged, every field what it is.
fn check(schema: &serde_json::Value, place: &str) {
    if schema["type"] == "array" {
        assert!(
            schema["x-kubernetes-list-type"].is_string(),
            "{place} does not say how it is merged"
        );
        check(&schema["items"], &format!("{place}[]"));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        let is_described = property["description"].as_str().is_some_and(|text| text.len() > 5);
        assert!(
            is_described || ["apiVersion", "kind", "metadata"].contains(&name.as_str()),
            "{place} is not described"
        );
        check(property, &place);
    }
}

#[test]
fn definitions_are_manuals() {
    for definition in ipxe_bridge::crd::all() {
        let definition = serde_json::to_value(definition).unwrap();
        let names = &definition["spec"]["names"];
        assert_eq!(names["categories"], serde_json::json!(["ipxe"]));
        for version in definition["spec"]["versions"].as_array().unwrap() {
            assert!(version["subresources"]["status"].is_object(), "{names}");
            let kind = names["kind"].as_str().unwrap();
            for part in ["spec", "status"] {
                check(
                    &version["schema"]["openAPIV3Schema"]["properties"][part],
                    &format!("{kind}.{part}"),
                );
            }
        }
    }
}
