//! A small site: a sample upstream with environments of its own, and the manifests that name them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::bridge::{Bridge, write};
use crate::upstream_service::{Content, EnvironmentSpec, HostSpec, Options, Target, Upstream};

/// What must never appear in any output.
pub const TOKEN_MARKER: &str = "TOKENMARKER";

/// A sample upstream and a folder of manifests.
pub struct Site {
    pub upstream: Upstream,
    folder: TempDir,
}

/// The id of an environment at the sample upstream: any text of that shape will do.
pub fn id(namespace: &str, name: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in format!("{namespace}/{name}").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    format!("00000000-0000-4000-8000-{:012x}", hash & 0xffff_ffff_ffff)
}

/// An environment with a token that tests look for.
pub fn environment(namespace: &str, name: &str) -> EnvironmentSpec {
    EnvironmentSpec {
        id: id(namespace, name),
        token: format!("eyJhbGciOiJFUzI1NiJ9.{TOKEN_MARKER}{namespace}{name}.SIGNATURE"),
        version: "4.16".to_owned(),
        arch: "x86_64".to_owned(),
        ..EnvironmentSpec::default()
    }
}

/// A host as upstream keeps it.
pub fn registered(name: &str, mac: &str, state: &str, stage: &str) -> HostSpec {
    HostSpec {
        id: format!("host-{name}"),
        macs: vec![mac.to_owned()],
        state: state.to_owned(),
        stage: stage.to_owned(),
    }
}

impl Site {
    /// Environments `a/lab` (default) and `b/lab` (boot order control), hosts `a/n1` and `b/n2`, small artifacts.
    pub async fn start() -> Self {
        let site = Self::with(Options {
            kernel: Content::random(300_000, 1),
            initrd: Content::random(400_000, 2),
            rootfs: Content::random(3_000_000, 3),
            ..Options::default()
        })
        .await;
        site.environment(
            "a",
            "lab",
            "pxe-bridge-default.infraenvs.agent-install.openshift.io: 'true'",
            false,
        );
        site.environment("b", "lab", "{}", true);
        site.host("a", "n1", "52:54:00:cc:00:01", Some("lab"));
        site.host("b", "n2", "52:54:00:cc:00:02", Some("lab"));
        site
    }

    /// An upstream as given and an empty folder.
    pub async fn with(options: Options) -> Self {
        Self {
            upstream: Upstream::start(options).await.unwrap(),
            folder: tempfile::Builder::new().prefix("site-").tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A server on the folder, ready.
    pub async fn bridge(&self, arguments: &[&str]) -> Bridge {
        let folder = self.path().to_str().unwrap().to_owned();
        let mut all = vec!["--manifests", &folder];
        all.extend(arguments);
        Bridge::ready(&all).await
    }

    pub fn write(&self, file: &str, text: &str) -> PathBuf {
        write(&self.path().join(file), text)
    }

    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.path().join(file)).unwrap();
    }

    /// An environment at the upstream, and its InfraEnv.
    pub fn environment(&self, namespace: &str, name: &str, labels: &str, boot_order_control: bool) {
        let spec = EnvironmentSpec {
            boot_order_control,
            ..environment(namespace, name)
        };
        self.upstream.set_environment(spec);
        self.write(
            &format!("env-{namespace}-{name}.yaml"),
            &self.infra_env(namespace, name, labels, boot_order_control),
        );
    }

    pub fn infra_env(&self, namespace: &str, name: &str, labels: &str, boot_order_control: bool) -> String {
        let script_type = if boot_order_control {
            "BootOrderControl"
        } else {
            "DiscoveryImageAlways"
        };
        let url = |target| self.upstream.url_of(&id(namespace, name), target).unwrap();
        format!(
            "apiVersion: agent-install.openshift.io/v1beta1\nkind: InfraEnv\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels:\n    \
             {labels}\nspec:\n  ipxeScriptType: {script_type}\nstatus:\n  bootArtifacts:\n    kernel: {}\n    initrd: {}\n    rootfs: {}\n    ipxeScript: {}\n",
            url(Target::Kernel),
            url(Target::Initrd),
            url(Target::Rootfs),
            url(Target::Script),
        )
    }

    pub fn host(&self, namespace: &str, name: &str, mac: &str, environment: Option<&str>) {
        self.write(
            &format!("host-{namespace}-{name}.yaml"),
            &bare_metal_host(namespace, name, mac, environment),
        );
    }

    pub fn agent(&self, namespace: &str, name: &str, mac: &str, state: &str, stage: &str) {
        self.write(
            &format!("agent-{namespace}-{name}.yaml"),
            &agent(namespace, name, mac, state, stage),
        );
    }
}

pub fn bare_metal_host(namespace: &str, name: &str, mac: &str, environment: Option<&str>) -> String {
    let mut text =
        format!("apiVersion: metal3.io/v1alpha1\nkind: BareMetalHost\nmetadata:\n  name: {name}\n  namespace: {namespace}\n");
    if let Some(environment) = environment {
        writeln!(text, "  labels:\n    infraenvs.agent-install.openshift.io: {environment}").unwrap();
    }
    writeln!(text, "spec:\n  online: true\n  bootMACAddress: '{mac}'").unwrap();
    text
}

pub fn agent(namespace: &str, name: &str, mac: &str, state: &str, stage: &str) -> String {
    format!(
        "apiVersion: agent-install.openshift.io/v1beta1\nkind: Agent\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n  approved: false\n  \
         role: ''\nstatus:\n  debugInfo:\n    state: {state}\n  progress:\n    currentStage: {stage}\n  inventory:\n    interfaces:\n    - macAddress: {mac}\n      flags: []\n      ipV4Addresses: []\n      ipV6Addresses: []\n"
    )
}
