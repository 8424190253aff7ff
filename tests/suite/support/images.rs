//! Images without a container engine: a store that buildah fills, and registries on loopback that hold copies.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::Leashed;
use super::{free_port, require, tools};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// An image store; it goes with this value.
pub struct Store {
    folder: TempDir,
}

impl Store {
    /// An empty one; `None` on a machine that cannot build images.
    pub fn new() -> Option<Self> {
        let is_root = rustix::process::geteuid().is_root();
        let root = is_root
            .then_some(())
            .ok_or_else(|| "images are unpacked with their owners".to_owned());
        require("root", root)?;
        require("buildah", tools("image"))?;
        Some(Self {
            folder: tempfile::Builder::new().prefix("image-").tempdir().unwrap(),
        })
    }

    /// A folder beside the images.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs buildah in the repository: its output.
    pub fn buildah(&self, arguments: &[&str]) -> String {
        let folder = |name: &str| self.folder().join(name);
        let output = Command::new("buildah")
            .args(["--storage-driver", "vfs", "--root"])
            .arg(folder("store"))
            .arg("--runroot")
            .arg(folder("run"))
            .args(arguments)
            .env("HOME", self.folder())
            .env("BUILDAH_ISOLATION", "chroot")
            .current_dir(ROOT)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The image of operator and bridges, with the program of the tests in place of what the Containerfile's first stage builds.
    pub fn build_program(&self, tag: &str) {
        let stage = self.folder().join("stage");
        let laid = Command::new("bash")
            .arg(Path::new(ROOT).join("deploy/image/files.sh"))
            .arg(stage.join("image"))
            .arg(env!("CARGO_BIN_EXE_ipxe-bridge"))
            .output()
            .unwrap();
        assert!(laid.status.success(), "{}", String::from_utf8_lossy(&laid.stderr));
        let stage = format!("build={}", stage.display());
        let revision = ["--build-arg", "REVISION=0123456789abcdef"];
        self.buildah(
            &[
                &["build", "--build-context", &stage, "-t", tag, "-f", "Containerfile"],
                &revision[..],
                &["."],
            ]
            .concat(),
        );
    }

    /// What containers' tools that have this store's folder as home know of registries.
    pub fn registries(&self, text: &str) {
        let folder = self.folder().join(".config/containers");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("registries.conf"), text).unwrap();
    }
}

/// A registry on loopback, empty at first; it goes with this value.
pub struct Registry {
    port: u16,
    _process: Leashed,
    _folder: TempDir,
}

impl Registry {
    /// Starts the registry among the programs around OLM v1.
    pub fn start(tools: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("registry-").tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let port = free_port();
        let mut command = Command::new(tools.join("registry"));
        command
            .args(["-port", &port.to_string()])
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let process = Leashed::spawn(&mut command, folder.path()).unwrap();
        let started = Instant::now();
        while TcpStream::connect(("localhost", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "the registry does not listen");
            thread::sleep(Duration::from_millis(50));
        }
        Self {
            port,
            _process: process,
            _folder: folder,
        }
    }

    /// Its name in references of images.
    pub fn name(&self) -> String {
        format!("localhost:{}", self.port)
    }
}
