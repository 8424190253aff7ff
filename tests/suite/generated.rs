//! Committed files that are made from the code equal what the code makes now.

use std::fs;
use std::path::Path;

use crate::support::bridge::command;

#[test]
fn the_custom_resource_definitions_are_current() {
    let output = command(&["crd"]).output().unwrap();
    let now = String::from_utf8(output.stdout).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/crd/ipxehostoverrides.ipxe-bridge.io.yaml");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &now).unwrap();
    }
    assert!(
        output.status.success() && fs::read_to_string(&path).unwrap() == now,
        "config/crd is not current: make generate"
    );
}

#[test]
fn the_openapi_document_is_current() {
    let output = command(&["openapi"]).output().unwrap();
    assert!(output.status.success());
    let now = String::from_utf8(output.stdout).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &now).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == now,
        "docs/openapi.json is not current: make generate"
    );

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
