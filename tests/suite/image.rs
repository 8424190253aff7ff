//! The image: built from the Containerfile by buildah, looked at, and run as OpenShift runs it. The program in it is the one of the tests: the
//! Containerfile's first stage takes as long as a release build; `make test-image` runs all of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::bridge::eventually;
use crate::support::free_port;
use crate::support::images::Store;
use crate::support::process::Leashed;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// A user of the kind that OpenShift draws for a namespace.
const USER: &str = "1000660000";

/// The root file system of the image, in a store of its own.
struct Image {
    store: Store,
    root: PathBuf,
    config: Value,
}

impl Image {
    fn build() -> Option<Self> {
        let store = Store::new()?;
        store.build_program("ipxe-bridge");
        let inspected = store.buildah(&["inspect", "--type", "image", "ipxe-bridge"]);
        let config = serde_json::from_str::<Value>(&inspected).unwrap()["OCIv1"]["config"].take();
        let container = store.buildah(&["from", "ipxe-bridge"]);
        let root = PathBuf::from(store.buildah(&["mount", container.trim()]).trim());
        Some(Self { store, root, config })
    }

    /// Starts the image's command with arguments, as a user that nobody knows, on a root that cannot be written; `site` is mounted at /site.
    fn run(&self, arguments: &[&str]) -> Leashed {
        let mounts = r#"mount --bind "$1" "$1" && mount --bind -o ro "$2" "$1/site" && mount -o remount,bind,ro "$1" && exec setpriv --no-new-privs chroot --userspec "$3:0" --groups= "$@""#;
        let mounts = mounts.replace("\"$@\"", "\"$1\" \"${@:4}\"");
        fs::create_dir_all(self.root.join("site")).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "bash", "-c", &mounts, "run"])
            .arg(&self.root)
            .arg(Path::new(ROOT).join("config/samples/site"))
            .arg(USER)
            .args(
                self.config["Entrypoint"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|word| word.as_str().unwrap()),
            )
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit());
        Leashed::spawn(&mut command, self.store.folder()).unwrap()
    }
}

/// Every file below a folder, and whether group 0 may read it.
fn files(folder: &Path, below: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}/{}", entry.file_name().to_str().unwrap());
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path(), &path)),
            false => found.push((path, entry.metadata().unwrap().permissions().mode() & 0o040 != 0)),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_holds_the_program_alone_and_answers_as_any_user_on_a_read_only_root() {
    let Some(image) = tokio::task::spawn_blocking(Image::build).await.unwrap() else {
        return;
    };
    let labels = &image.config["Labels"];
    for label in [
        "name",
        "vendor",
        "version",
        "release",
        "summary",
        "description",
        "maintainer",
        "org.opencontainers.image.title",
        "org.opencontainers.image.description",
        "org.opencontainers.image.source",
        "org.opencontainers.image.revision",
        "org.opencontainers.image.licenses",
        "org.opencontainers.image.vendor",
        "org.opencontainers.image.documentation",
    ] {
        assert!(
            labels[label].as_str().is_some_and(|text| !text.is_empty()),
            "label {label} is missing"
        );
    }
    for label in ["version", "org.opencontainers.image.version"] {
        assert_eq!(labels[label], env!("CARGO_PKG_VERSION"), "{label}");
    }
    // Numbers: with a name Kubernetes could not tell that it is not root.
    assert_eq!(image.config["User"], "65532:0");

    let files = files(&image.root, "");
    let programs: BTreeSet<&str> = files
        .iter()
        .map(|(path, _)| path.as_str())
        .filter(|path| !path.starts_with("/licenses/"))
        .map(|path| path.rsplit('/').next().unwrap())
        .collect();
    let loader = programs.iter().find(|name| name.starts_with("ld-linux-")).unwrap();
    let expected = [
        "ca-certificates.crt",
        "ipxe-bridge",
        "ipxe.efi",
        "libc.so.6",
        "libgcc_s.so.1",
        "libm.so.6",
        "snponly.efi",
        "undionly.kpxe",
        loader,
    ];
    assert_eq!(programs, BTreeSet::from(expected));
    assert!(files.iter().all(|(_, readable)| *readable));
    let list = fs::read_to_string(image.root.join("licenses/crates/list")).unwrap();
    for line in list.lines() {
        let (crate_, licence) = line.split_once(": ").unwrap();
        assert!(crate_.contains(" v") && !licence.is_empty(), "{line}");
    }
    assert!(list.lines().any(|line| line.starts_with("kube ")), "{list}");
    let licences = files.iter().filter(|(path, _)| path.starts_with("/licenses/crates/")).count();
    assert!(licences > 200 && image.root.join("licenses/LICENSE").is_file(), "{licences}");

    let (port, metrics) = (free_port().to_string(), free_port().to_string());
    let arguments = [
        "server",
        "--manifests",
        "/site",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--metrics-port",
        &metrics,
    ];
    let running = image.run(&arguments);
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    eventually("the image answers", Duration::from_secs(30), async || {
        let answer = client.get(format!("http://127.0.0.1:{port}/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let script = client
        .get(format!("http://127.0.0.1:{port}/ipxe-mac-boot/52-54-00-5a-00-03"))
        .send()
        .await
        .unwrap();
    assert!(script.text().await.unwrap().contains("boots its own disk"));
    let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert!(line("Uid:").starts_with(USER) && line("Gid:").starts_with('0'), "{status}");
    assert_eq!(
        (line("CapEff:").as_str(), line("NoNewPrivs:").as_str()),
        ("0000000000000000", "1")
    );
    let root = fs::read_to_string(format!("/proc/{}/mountinfo", running.id())).unwrap();
    let root = root.lines().rfind(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.split(' ').nth(5).unwrap().starts_with("ro"), "{root}");
}
