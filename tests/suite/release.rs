//! What `make release` writes: one version, everywhere, and a line of upgrades.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::bundle::findings;
use crate::support::bundle;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CSV: &str = "bundle/manifests/ipxe-bridge-operator.clusterserviceversion.yaml";

/// A copy of every file that a release touches or is made from.
fn copy() -> TempDir {
    let folder = tempfile::Builder::new().prefix("release-").tempdir().unwrap();
    let parts = [
        "Cargo.toml",
        "Cargo.lock",
        "CHANGELOG.md",
        "Containerfile",
        "README.md",
        "config",
        "deploy",
        "docs",
    ];
    let copied = Command::new("cp")
        .arg("-a")
        .args(parts)
        .arg(folder.path())
        .current_dir(ROOT)
        .status();
    assert!(copied.unwrap().success());
    git(folder.path(), &["init", "-q"]);
    git(folder.path(), &["add", "-A"]);
    git(folder.path(), &["commit", "-q", "-m", "A tree"]);
    folder
}

fn git(folder: &Path, arguments: &[&str]) {
    let who = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com"];
    let status = Command::new("git").args(who).args(arguments).current_dir(folder).status();
    assert!(status.unwrap().success(), "{arguments:?}");
}

/// Prepares a release in a copy: what it says, or why it refuses.
fn release(folder: &Path, version: &str) -> Result<String, String> {
    let output = Command::new("bash")
        .arg(folder.join("deploy/release.sh"))
        .arg(version)
        .env("PREPARE_ONLY", "1")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

fn news(folder: &Path) {
    let path = folder.join("CHANGELOG.md");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replacen("## Unreleased\n", "## Unreleased\n\n### Added\n\n- Something.\n", 1),
    )
    .unwrap();
}

fn csv(folder: &Path, version: &str) -> Option<Value> {
    let objects = bundle::rendered(folder.join("config/manifests").to_str().unwrap())?;
    let mut files = bundle::files(&objects, version);
    assert_eq!(findings(&files, version), [""; 0]);
    // The bridge without the operator is the same.
    let server = fs::read_to_string(folder.join("deploy/server.yaml")).unwrap();
    assert!(server.contains(&format!("image: {}\n", bundle::image(&objects))), "{server}");
    Some(bundle::documents(&files.remove(CSV).unwrap()).remove(0))
}

#[test]
fn a_release_has_one_version_everywhere_and_goes_on_from_the_one_before() {
    let folder = copy();
    let root = folder.path();
    for (version, message) in [
        ("0.0.1", "0.0.1 is older than"),
        ("v99.1.0", "expected a version such as 0.2.0"),
        ("99.1", "expected a version such as 0.2.0"),
        ("", "expected a version such as 0.2.0"),
        ("099.1.0", "expected a version such as 0.2.0"),
        ("99.1.00", "expected a version such as 0.2.0"),
        ("9999999999.1.0", "expected a version such as 0.2.0"),
        ("sha256:a1", "expected a version such as 0.2.0"),
    ] {
        assert!(release(root, version).unwrap_err().contains(message), "{version}");
    }
    let digest = format!("sha256:{}", "a1".repeat(32));
    let changes = root.join("CHANGELOG.md");
    let before = fs::read_to_string(&changes).unwrap();
    for heading in ["## Unreleased \n", "## Unreleased\r\n", "## Unreleased\n\n## Unreleased\n"] {
        fs::write(&changes, before.replacen("## Unreleased\n", heading, 1)).unwrap();
        assert!(
            release(root, "99.1.0").unwrap_err().contains("must have one line"),
            "{heading:?}"
        );
    }
    fs::write(&changes, before).unwrap();
    // A first release may have no changes yet in this tree, when the last one was just made.
    news(root);
    release(root, "99.1.0").unwrap();
    for version in ["99.1.0", "99.2.0"] {
        let said = release(root, version).unwrap_err();
        assert!(said.contains("99.1.0 is prepared and has no tag v99.1.0"), "{said}");
    }
    git(root, &["tag", "v99.1.0"]);
    for version in ["99.1.0", &digest] {
        let said = release(root, version).unwrap_err();
        assert!(said.contains("99.1.0 is released already"), "{said}");
    }
    assert!(release(root, "99.2.0").unwrap_err().contains("nothing to release"));
    news(root);
    release(root, "99.2.0").unwrap();
    for file in [
        "Cargo.toml",
        "Cargo.lock",
        "CHANGELOG.md",
        "Containerfile",
        "README.md",
        "deploy/server.yaml",
        "docs/install.md",
        "config/manager/kustomization.yaml",
    ] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert!(text.contains("99.2.0"), "{file}");
        assert!(file == "CHANGELOG.md" || !text.contains("99.1.0"), "{file}");
    }
    let Some(made) = csv(root, "99.2.0") else {
        return;
    };
    assert_eq!(made["spec"]["replaces"], "ipxe-bridge-operator.v99.1.0");
    let range = || {
        let changes = fs::read_to_string(root.join("CHANGELOG.md")).unwrap();
        let first = changes
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .next_back()
            .unwrap();
        format!(">={} <99.2.0", first.split(' ').next().unwrap())
    };
    assert_eq!(
        made["metadata"]["annotations"]["olm.skipRange"],
        range(),
        "from the first release on"
    );
    assert_eq!(
        made["spec"]["relatedImages"][0]["image"],
        "quay.io/ipxe-bridge/ipxe-bridge:99.2.0"
    );
    let offline = "features.operators.openshift.io/disconnected";
    assert_eq!(made["metadata"]["annotations"][offline], "false");

    // Pushed, and named by its digest.
    release(root, &digest).unwrap();
    let made = csv(root, "99.2.0").unwrap();
    assert_eq!(
        made["spec"]["relatedImages"][0]["image"],
        format!("quay.io/ipxe-bridge/ipxe-bridge@{digest}")
    );
    assert_eq!(made["metadata"]["annotations"][offline], "true");

    // The next release begins with a tag again.
    git(root, &["tag", "v99.2.0"]);
    news(root);
    release(root, "99.3.0").unwrap();
    let made = csv(root, "99.3.0").unwrap();
    assert_eq!(
        made["spec"]["relatedImages"][0]["image"],
        "quay.io/ipxe-bridge/ipxe-bridge:99.3.0"
    );
    assert_eq!(made["spec"]["replaces"], "ipxe-bridge-operator.v99.2.0");
}

#[test]
fn every_file_states_the_version_of_cargo_toml() {
    let version = env!("CARGO_PKG_VERSION");
    let image = "image: quay.io/ipxe-bridge/ipxe-bridge";
    let tagged = format!("{image}:{version}\n");
    for (file, place) in [
        ("Containerfile", format!("ARG VERSION={version}\n")),
        ("README.md", format!("/ipxe-bridge/raw/v{version}/")),
        ("docs/install.md", format!("git clone --branch v{version} ")),
        ("deploy/server.yaml", tagged.clone()),
    ] {
        // Once it is pushed the image is named by its digest.
        let text = read(file).replace(&format!("{image}@sha256:"), &tagged);
        assert!(text.contains(&place), "{file} has no {place:?}: make release VERSION=x.y.z");
    }
}

#[test]
fn every_image_of_the_files_for_users_is_in_the_list_for_mirrors() {
    let list = read("deploy/disconnected/images.txt");
    let list: BTreeSet<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    let files = [
        "deploy/install.yaml",
        "deploy/server.yaml",
        "deploy/catalog/install.yaml",
        "deploy/catalog/ipxe-bridge-operator/catalog.yaml",
        "deploy/olm-v1/install.yaml",
    ];
    let texts = files.map(read);
    let named: BTreeSet<&str> = texts
        .iter()
        .flat_map(|text| text.split(|sign: char| sign.is_whitespace() || sign == '"' || sign == ','))
        .filter(|word| word.starts_with("quay.io/ipxe-bridge/"))
        .collect();
    assert_eq!(named, list, "left: deploy, right: deploy/disconnected/images.txt");
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).unwrap()
}
