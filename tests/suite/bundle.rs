//! The bundle for OperatorHub: what its official validators, the scorecard and our own rules say to it, and that each of them can say no.

mod rules;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::olm::Edge;
use crate::support::bundle::{self, documents};
use crate::support::{require, tools};
pub use rules::findings;
use rules::{ANNOTATIONS, CSV, Files};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const SCORECARD: &str = "bundle/tests/scorecard/config.yaml";
/// The release whose removed APIs count.
const KUBERNETES: &str = "1.36.0";

/// The committed bundle.
fn committed() -> Files {
    fn read(folder: &Path, below: &str, files: &mut Files) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{below}/{}", path.file_name().unwrap().to_str().unwrap());
            match path.is_dir() {
                true => read(&path, &name, files),
                false => _ = files.insert(name, fs::read_to_string(&path).unwrap()),
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = fs::read_to_string(root.join("bundle.Dockerfile")).unwrap();
    let mut files = BTreeMap::from([("bundle.Dockerfile".to_owned(), dockerfile)]);
    read(&root.join("bundle"), "bundle", &mut files);
    files
}

/// The bundle with one value of one file changed; null takes it away.
fn with(file: &str, pointer: &str, value: &Value) -> Files {
    let mut files = committed();
    let mut document = documents(&files[file]).remove(0);
    let (above, name) = pointer.rsplit_once('/').unwrap();
    let name = name.replace("~1", "/");
    let parent = document.pointer_mut(above).unwrap_or_else(|| panic!("{above} is not there"));
    match (parent, value) {
        (Value::Object(fields), Value::Null) => _ = fields.remove(&name),
        (Value::Array(items), Value::Null) => _ = items.remove(name.parse::<usize>().unwrap()),
        (Value::Array(items), value) => items[name.parse::<usize>().unwrap()] = value.clone(),
        (parent, value) => parent[name] = value.clone(),
    }
    files.insert(file.to_owned(), serde_saphyr::to_string(&document).unwrap());
    files
}

/// The bundle with one value of its ClusterServiceVersion changed.
fn csv(pointer: &str, value: Value) -> Files {
    with(CSV, pointer, &value)
}

/// What the official validators say.
fn verify(verify: &Path, files: &Files) -> String {
    let folder = written(files);
    let output = Command::new(verify.join("verify"))
        .arg(folder.path().join("bundle"))
        .arg(KUBERNETES)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + std::str::from_utf8(&output.stderr).unwrap();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

fn written(files: &Files) -> TempDir {
    let folder = tempfile::Builder::new().prefix("bundle-").tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn the_official_validators_have_nothing_to_say() {
    let Some(tools) = require("the programs around OLM", tools("olm")) else {
        return;
    };
    assert_eq!(verify(&tools, &committed()), "");
    // They are awake: each of them finds what is wrong for it.
    let manifest = |text: &str| {
        let mut files = committed();
        files.insert("bundle/manifests/more.yaml".to_owned(), text.to_owned());
        files
    };
    let account = manifest("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: ipxe-bridge-operator}\n");
    let budget = "kind: PodDisruptionBudget\nmetadata: {name: x}\nspec: {maxUnavailable: 0}\n";
    let removed = budget.replace("maxUnavailable: 0", "maxUnavailable: 1");
    let mut lost = committed();
    lost.remove("bundle/manifests/ipxehostoverrides.ipxe-bridge.io.yaml").unwrap();
    let mut missed = Vec::new();
    let definition = "bundle/manifests/ipxebridges.ipxe-bridge.io.yaml";
    for (files, message) in [
        (account, "ipxe-bridge-operator"),
        (manifest(&format!("apiVersion: policy/v1\n{budget}")), "maxUnavailable"),
        (manifest(&format!("apiVersion: policy/v1beta1\n{removed}")), "1.25"),
        (
            manifest("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n"),
            "not supported type",
        ),
        (
            with(
                ANNOTATIONS,
                "/annotations/operators.operatorframework.io.bundle.mediatype.v1",
                &json!("x"),
            ),
            "mediatype",
        ),
        (lost, "IpxeHostOverride"),
        (csv("/spec/minKubeVersion", json!("1.30")), "1.30"),
        (csv("/spec/icon", Value::Null), "Icon not specified"),
        (csv("/metadata/annotations/capabilities", json!("Everything")), "Everything"),
        (csv("/metadata/annotations/categories", json!("Boot")), "Boot"),
        (csv("/spec/links/0/url", json!("://")), "Links url"),
        (csv("/metadata/annotations/alm-examples", json!("{}")), "decoding example"),
        (csv("/spec/relatedImages/0/image", json!("A B")), "A B"),
        (
            csv(
                "/spec/install/spec/deployments/0/spec/template/spec/containers/0/resources",
                json!({}),
            ),
            "resource",
        ),
        (csv("/metadata/name", json!("ipxe-bridge-operator-0.1.0")), "0.1.0"),
        (
            with(
                ANNOTATIONS,
                "/annotations/operators.operatorframework.io.bundle.channels.v1",
                &json!("alpha"),
            ),
            "channel",
        ),
        (with(definition, "/spec/scope", &json!("Nowhere")), "scope"),
        (with(SCORECARD, "/stages/0/tests/0/picture", &json!("x")), "picture"),
        (with(SCORECARD, "/kind", &json!("Scorecard")), "the scorecard's file is a"),
    ] {
        let said = verify(&tools, &files);
        if said.is_empty() || !said.contains(message) {
            missed.push(format!("expected {message:?}: {said:?}"));
        }
    }
    assert_eq!(missed, [""; 0]);
}

#[test]
fn our_own_rules_find_nothing_and_each_of_them_can() {
    assert_eq!(findings(&committed(), VERSION), [""; 0]);
    let container = "/spec/install/spec/deployments/0/spec/template/spec/containers/0";
    let mut monitor = committed();
    let text = "apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: x, namespace: y}\n";
    monitor.insert("bundle/manifests/monitor.yaml".to_owned(), text.to_owned());
    let mut depends = committed();
    depends.insert(
        "bundle/metadata/dependencies.yaml".to_owned(),
        "dependencies: []\n".to_owned(),
    );
    let digest = format!("quay.io/a/b@sha256:{}", "0".repeat(64));
    let annotation = |name: &str, value: Value| csv(&format!("/metadata/annotations/{}", name.replace('/', "~1")), value);
    let feature = |name: &str, value: Value| annotation(&format!("features.operators.openshift.io/{name}"), value);
    let everything = json!({"apiGroups": ["*"], "resources": ["x"], "verbs": ["get"]});
    let bind = json!({"apiGroups": [""], "resources": ["clusterroles"], "verbs": ["bind"]});
    let rule = "/spec/install/spec/clusterPermissions/0/rules/0";
    let mut missed = Vec::new();
    let owned = "/spec/customresourcedefinitions/owned";
    for (files, message) in [
        (csv("/spec/version", json!("9.9.9")), "the CSV is not ipxe-bridge-operator.v"),
        (
            with(ANNOTATIONS, "/annotations/more", &json!("x")),
            "bundle.Dockerfile has other labels",
        ),
        (
            with(
                ANNOTATIONS,
                "/annotations/operators.operatorframework.io.bundle.package.v1",
                &json!("x"),
            ),
            "another package",
        ),
        (csv("/spec/displayName", json!("x")), "displayName"),
        (csv("/spec/description", json!("x")), "explains nothing"),
        (csv("/spec/description", json!("x".repeat(900))), "no \"## First steps\""),
        (csv("/spec/provider/name", json!("x")), "provider"),
        (csv("/spec/keywords", json!([])), "no keywords"),
        (csv("/spec/maintainers", json!([])), "no maintainers"),
        (csv("/spec/links", json!([])), "no links"),
        (csv("/spec/icon/0/base64data", json!("????")), "the icon is not one SVG"),
        (annotation("containerImage", json!("ipxe-bridge")), "containerImage"),
        (annotation("createdAt", json!("today")), "createdAt"),
        (annotation("repository", json!("git@x")), "repository"),
        (annotation("support", Value::Null), "annotation support is missing"),
        (annotation("description", Value::Null), "annotation description is missing"),
        (annotation("capabilities", Value::Null), "annotation capabilities is missing"),
        (annotation("categories", Value::Null), "annotation categories is missing"),
        (feature("proxy-aware", json!("maybe")), "feature proxy-aware is neither"),
        (
            csv("/metadata/labels/operatorframework.io~1arch.arm64", Value::Null),
            "arch.arm64",
        ),
        (
            csv("/metadata/labels/operatorframework.io~1os.linux", Value::Null),
            "os.linux",
        ),
        (
            annotation("operatorframework.io/suggested-namespace", Value::Null),
            "no namespace is suggested",
        ),
        (csv("/spec/installModes/0/supported", json!(true)), "only AllNamespaces"),
        (csv("/spec/minKubeVersion", json!("1.31.0")), "do not fit each other"),
        (depends, "OLM v1 refuses dependencies"),
        (monitor.clone(), "a ServiceMonitor in the bundle"),
        (monitor, "a ServiceMonitor with a namespace"),
        (csv(&format!("{owned}/0"), Value::Null), "IpxeBridge is not owned"),
        (csv(&format!("{owned}/0/resources"), json!([])), "IpxeBridge has no resources"),
        (
            csv(&format!("{owned}/0/resources"), json!([{"kind": "Pod"}])),
            "IpxeBridge does not say that it has to do with Secrets",
        ),
        (
            csv(&format!("{owned}/1/description"), Value::Null),
            "IpxeHostOverride has no description",
        ),
        (
            csv(&format!("{owned}/0/specDescriptors/0"), Value::Null),
            "IpxeBridge.spec.access has no descriptor",
        ),
        (
            csv(&format!("{owned}/0/statusDescriptors"), json!([])),
            "IpxeBridge.status.uri has no descriptor",
        ),
        (
            csv(&format!("{owned}/0/specDescriptors"), json!([])),
            "IpxeBridge.spec.service.type has no descriptor",
        ),
        (
            csv(&format!("{owned}/1/specDescriptors"), json!([])),
            "IpxeHostOverride.spec.kernelArguments.replace[0].with has no descriptor",
        ),
        (annotation("alm-examples", json!("[]")), "IpxeHostOverride has no example"),
        (csv("/spec/relatedImages", json!([])), "relatedImages are {}"),
        (
            csv(&format!("{owned}/0/resources/0/name"), json!("serviceaccounts")),
            "IpxeBridge has to do with \"serviceaccounts\"",
        ),
        (
            csv("/spec/relatedImages/0/image", json!("x:latest")),
            "an image is not REGISTRY",
        ),
        (
            csv("/spec/relatedImages/0/image", json!(digest)),
            "disconnected is true if and only if",
        ),
        (csv(rule, everything), "a right to everything"),
        (csv(rule, bind), "a right to every role"),
        (csv(&format!("{container}/name"), json!("x")), "not called manager"),
        (csv(&format!("{container}/resources"), json!({})), "requests no CPU"),
        (
            csv(&format!("{container}/resources/limits"), Value::Null),
            "memory has no limit",
        ),
        (
            csv(&format!("{container}/securityContext/runAsUser"), json!(1)),
            "OpenShift chooses the user",
        ),
        (
            csv(&format!("{container}/securityContext/readOnlyRootFilesystem"), Value::Null),
            "not restricted",
        ),
        (csv(&format!("{container}/livenessProbe"), Value::Null), "no livenessProbe"),
    ] {
        let found = findings(&files, VERSION);
        if !found.iter().any(|found| found.contains(message)) {
            missed.push(format!("expected {message:?}: {found:?}"));
        }
    }
    assert_eq!(missed, [""; 0]);
}

#[test]
fn the_scorecard_passes() {
    let Some(tools) = require("the programs around OLM", tools("olm")) else {
        return;
    };
    let is_root = rustix::process::geteuid().is_root();
    let root = is_root
        .then_some(())
        .ok_or_else(|| "the scorecard reads its bundle from /bundle, which takes chroot".to_owned());
    if require("root", root).is_none() {
        return;
    }
    // The program reads from one fixed folder.
    let state = |files: &Files, test: &str| {
        let folder = written(files);
        fs::copy(tools.join("scorecard-test"), folder.path().join("scorecard-test")).unwrap();
        let output = Command::new("chroot")
            .arg(folder.path())
            .args(["/scorecard-test", test])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let result: Value =
            serde_json::from_str(&said).unwrap_or_else(|_| panic!("{test}: {said}{}", String::from_utf8_lossy(&output.stderr)));
        result["results"][0].clone()
    };
    let config = documents(&committed()[SCORECARD]).remove(0);
    let tests = config["stages"][0]["tests"].as_array().unwrap().clone();
    assert_eq!(tests.len(), 6);
    for test in &tests {
        let name = test["entrypoint"][1].as_str().unwrap();
        let result = state(&committed(), name);
        assert!(result["state"] == "pass" && result["errors"].is_null(), "{name}: {result}");
    }
    // They are awake, but for one: an example without a spec is only suggested to have one.
    let example = r#"[{"apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeBridge", "metadata": {"name": "x"}, "spec": {"colour": "blue"}}]"#;
    let owned = "/spec/customresourcedefinitions/owned/0";
    for (files, test) in [
        (csv("/spec/minKubeVersion", json!("1.30")), "olm-bundle-validation"),
        (
            csv("/metadata/annotations/alm-examples", json!(example)),
            "olm-crds-have-validation",
        ),
        (csv(&format!("{owned}/resources"), json!([])), "olm-crds-have-resources"),
        (csv(&format!("{owned}/specDescriptors"), json!([])), "olm-spec-descriptors"),
        (csv(owned, Value::Null), "olm-status-descriptors"),
    ] {
        assert_eq!(state(&files, test)["state"], "fail", "{test}");
    }
}

#[test]
fn the_catalog_is_valid_and_holds_the_bundle() {
    let Some(tools) = require("the programs around OLM", tools("olm")) else {
        return;
    };
    let folder = written(&committed());
    let catalog = bundle::catalog(&tools, &[folder.path()]);
    let validated = Command::new(tools.join("opm"))
        .arg("validate")
        .arg(catalog.path())
        .output()
        .unwrap();
    assert!(validated.status.success(), "{}", String::from_utf8_lossy(&validated.stderr));
    // As the next release makes it: what its one bundle replaces is not there any more.
    let Some(objects) = bundle::rendered("config/manifests") else {
        return;
    };
    let next = written(&bundle::files(
        &crate::olm::next(&objects, Edge::Replaces).0,
        crate::olm::NEXT,
    ));
    let next = bundle::catalog(&tools, &[next.path()]);
    let text = fs::read_to_string(next.path().join("catalog.yaml")).unwrap();
    assert!(text.contains(&format!("replaces: ipxe-bridge-operator.v{VERSION}")), "{text}");
    let validated = Command::new(tools.join("opm"))
        .arg("validate")
        .arg(next.path())
        .output()
        .unwrap();
    assert!(validated.status.success(), "{}", String::from_utf8_lossy(&validated.stderr));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let published = Command::new(tools.join("opm"))
        .arg("validate")
        .arg(root.join("deploy/catalog/ipxe-bridge-operator"))
        .output()
        .unwrap();
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    // It is awake.
    let file = catalog.path().join("catalog.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("schema: olm.package", "schema: olm.parcel")).unwrap();
    assert!(
        !Command::new(tools.join("opm"))
            .arg("validate")
            .arg(catalog.path())
            .output()
            .unwrap()
            .status
            .success()
    );
}
