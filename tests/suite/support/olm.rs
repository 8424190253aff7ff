//! The Operator Lifecycle Manager (v0) as an administrator meets it: its two controllers and a catalog, each as a process, no image anywhere.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::bridge::eventually;
use super::bundle::{PACKAGE, catalog, documents};
use super::control_plane::ControlPlane;
use super::operator::NAMESPACE;
use super::process::Leashed;
use super::{free_port, require, tools};

const OLM: &str = "olm";
const CATALOG: &str = "ipxe-bridge";

/// A running OLM; it goes with this value.
pub struct Olm<'p> {
    plane: &'p ControlPlane,
    tools: PathBuf,
    folder: TempDir,
    port: u16,
    served: Option<(Leashed, TempDir)>,
    _controllers: [Leashed; 2],
}

impl<'p> Olm<'p> {
    /// `None` when the machine has no tools for it.
    pub fn start(plane: &'p ControlPlane) -> Option<Self> {
        let tools = require("the programs around OLM", tools("olm"))?;
        plane.load_crds(&tools.join("crds/operator-lifecycle-manager"));
        for namespace in [OLM, NAMESPACE] {
            plane.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string());
        }
        let folder = tempfile::Builder::new().prefix("olm-").tempdir().unwrap();
        let start = |program: &str, arguments: &[&str]| {
            let log = File::create(folder.path().join(format!("{program}.log"))).unwrap();
            let mut command = Command::new(tools.join(program));
            command
                .args(arguments)
                .env("KUBECONFIG", plane.kubeconfig())
                // With it both would stop at objects without OLM's labels.
                .env_remove("CI")
                .stdout(log.try_clone().unwrap())
                .stderr(log);
            Leashed::spawn(&mut command, folder.path()).unwrap()
        };
        let kubeconfig = plane.kubeconfig();
        let controllers = [
            start("catalog", &["--kubeconfig", kubeconfig.to_str().unwrap(), "--namespace", OLM]),
            start("olm", &[]),
        ];
        Some(Self {
            plane,
            tools,
            folder,
            port: free_port(),
            served: None,
            _controllers: controllers,
        })
    }

    /// Serves a catalog of bundles, the newest last, in place of the one before, and waits until OLM has noticed.
    pub async fn serve(&mut self, bundles: &[&Path]) {
        let connection = || self.plane.object("catalogsource", OLM, CATALOG)["status"]["connectionState"].clone();
        let before = connection();
        self.served = None;
        let catalog = catalog(&self.tools, bundles);
        let log = File::create(self.folder.path().join("opm.log")).unwrap();
        let mut command = Command::new(self.tools.join("opm"));
        command
            .arg("serve")
            .arg(catalog.path())
            .args(["-p", &self.port.to_string(), "--pprof-addr=", "-t"])
            .arg(self.folder.path().join("termination"))
            .current_dir(self.folder.path())
            // Its cache goes with the folder.
            .env("TMPDIR", self.folder.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let process = Leashed::spawn(&mut command, self.folder.path()).unwrap();
        self.served = Some((process, catalog));
        let mut source = shipped().remove(0);
        source["spec"] = json!({"sourceType": "grpc", "address": format!("127.0.0.1:{}", self.port)});
        self.plane.apply(&source.to_string());
        eventually("OLM is connected to the catalog", Duration::from_secs(60), async || {
            let now = connection();
            now["lastObservedState"] == "READY" && now["lastConnect"] != before["lastConnect"]
        })
        .await;
    }

    /// Waits until OLM has read the catalog that is served now.
    pub async fn read(&self) {
        eventually("OLM has read the catalog", Duration::from_secs(60), async || {
            let log = fs::read_to_string(self.folder.path().join("opm.log")).unwrap_or_default();
            log.lines()
                .any(|line| line.contains("finished call") && line.contains("ListBundles"))
        })
        .await;
    }

    /// Applies what the installation page says, which is what a click on Install makes; the catalog is the one that is served.
    pub fn subscribe(&self) {
        for object in &shipped()[1..] {
            self.plane.apply(&object.to_string());
        }
    }

    /// Waits until a version is installed and running.
    pub async fn succeeded(&self, version: &str) {
        eventually(
            &format!("{PACKAGE} {version} is installed"),
            Duration::from_secs(120),
            async || self.csv(version)["status"]["phase"] == "Succeeded",
        )
        .await;
    }

    /// The ClusterServiceVersion of a version.
    pub fn csv(&self, version: &str) -> Value {
        self.plane.object("csv", NAMESPACE, &format!("{PACKAGE}.v{version}"))
    }
}

/// The objects of `deploy/catalog/install.yaml`, the CatalogSource first.
fn shipped() -> Vec<Value> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/catalog/install.yaml")).unwrap();
    let objects = documents(&text);
    assert_eq!(objects[0]["kind"], "CatalogSource");
    objects
}

impl Drop for Olm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for program in ["opm", "catalog", "olm"] {
                let log = fs::read_to_string(self.folder.path().join(format!("{program}.log"))).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(12).collect();
                eprintln!("last lines of {program}:");
                tail.iter()
                    .rev()
                    .for_each(|line| eprintln!("  {}", line.chars().take(400).collect::<String>()));
            }
        }
    }
}
