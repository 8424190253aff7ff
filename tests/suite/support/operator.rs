//! `ipxe-bridge operator` as a process of its own, under its own ServiceAccount with the role that is shipped.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::bridge::{command, eventually};
use super::control_plane::{CRDS, ControlPlane};
use super::process::Leashed;

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
/// Namespace of the operator, and of bridges that name none.
pub const NAMESPACE: &str = "ipxe-bridge-system";
/// What the operator is told to be the bridge's image.
pub const IMAGE: &str = "registry.example.com/ipxe-bridge:test";

/// A running operator.
pub struct Operator {
    process: Leashed,
    folder: TempDir,
}

impl Operator {
    /// Installs definitions and roles, and starts an operator.
    pub async fn start(plane: &ControlPlane) -> Self {
        install(plane);
        Self::again(plane).await
    }

    /// Starts an operator where everything is installed.
    pub async fn again(plane: &ControlPlane) -> Self {
        Self::with(plane, &[]).await
    }

    /// Starts an operator with further flags where everything is installed.
    pub async fn with(plane: &ControlPlane, arguments: &[&str]) -> Self {
        let kubeconfig = plane.service_account_kubeconfig(NAMESPACE, "ipxe-bridge-operator");
        Self::by(&kubeconfig, arguments).await
    }

    /// Starts an operator with a kubeconfig of its own.
    pub async fn by(kubeconfig: &Path, arguments: &[&str]) -> Self {
        Self::started(kubeconfig, arguments, &[]).await
    }

    /// The same with variables set.
    pub async fn started(kubeconfig: &Path, arguments: &[&str], variables: &[(&str, String)]) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let folder = tempfile::Builder::new().prefix("operator-").tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = command(&[
            "operator",
            "--host",
            "127.0.0.1",
            "--health-port",
            "0",
            "--namespace",
            NAMESPACE,
        ]);
        command
            .args(arguments)
            .args(["--image", IMAGE, "--log-format", "json", "--log-level", "debug"])
            .env("KUBECONFIG", kubeconfig)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log));
        let process = Leashed::spawn(&mut command, folder.path()).unwrap();
        let operator = Self { process, folder };
        eventually("the operator is ready", Duration::from_secs(60), async || {
            let log = operator.log();
            log.contains("probes and metrics are at") && operator.get("/readyz").await.is_some_and(|(status, _)| status == 200)
        })
        .await;
        operator
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Status and text of one of its pages.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let log = self.log();
        let address = log.split_once("probes and metrics are at ")?.1.split('"').next()?.to_owned();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("{address}{path}")).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Sends it a signal: `TERM`, `STOP`, `CONT`, `KILL`.
    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let sent = std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Whether it leads, as its metrics say.
    pub async fn leads(&self) -> bool {
        let page = self.get("/metrics").await;
        page.is_some_and(|(_, text)| text.contains("\nipxe_bridge_operator_leading 1"))
    }

    /// How many objects it has written so far.
    pub async fn writes(&self) -> u64 {
        let (_, text) = self.get("/metrics").await.unwrap();
        let samples = text
            .lines()
            .filter(|line| line.starts_with("ipxe_bridge_operator_writes_total{"));
        samples
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("last lines of the operator's log:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// Definitions, roles, and the operator's account, as they are shipped.
pub fn install(plane: &ControlPlane) {
    plane.load_crds(&Path::new(CONFIG).join("crd/bases"));
    for file in [
        "manager/namespace.yaml",
        "rbac/account.yaml",
        "rbac/server.yaml",
        "rbac/operator.yaml",
        "rbac/lease.yaml",
    ] {
        plane.apply(&fs::read_to_string(Path::new(CONFIG).join(file)).unwrap());
    }
}

/// A control plane with the neighbours' definitions and an operator, for all tests that need nothing else.
pub struct Site {
    pub plane: ControlPlane,
    _operator: Operator,
}

impl Site {
    /// `None` when the machine has no tools for it.
    pub async fn shared() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<Site>> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async {
                let plane = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap()?;
                plane.load_crds(Path::new(CRDS));
                let operator = Operator::start(&plane).await;
                Some(Self {
                    plane,
                    _operator: operator,
                })
            })
            .await
            .as_ref()
    }
}

/// Asks as administrator.
impl ControlPlane {
    /// Creates or changes a bridge.
    pub fn bridge(&self, name: &str, spec: Value) {
        let bridge =
            json!({"apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeBridge", "metadata": {"name": name}, "spec": spec});
        self.apply(&bridge.to_string());
    }

    /// An object as JSON; null if it is not there.
    pub fn object(&self, kind: &str, namespace: &str, name: &str) -> Value {
        let found = self.kubectl(
            &["get", kind, name, "-n", namespace, "-o", "json", "--show-managed-fields"],
            None,
        );
        found.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
    }

    /// A condition of a bridge: status, reason, message.
    pub fn condition(&self, bridge: &str, type_: &str) -> [String; 3] {
        let bridge = self.object("ipxb", "default", bridge);
        let conditions = bridge["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions
            .iter()
            .find(|condition| condition["type"] == type_)
            .cloned()
            .unwrap_or_default();
        ["status", "reason", "message"].map(|field| found[field].as_str().unwrap_or_default().to_owned())
    }

    /// Writes a status as its controller would.
    pub fn status(&self, kind: &str, namespace: &str, name: &str, status: Value) {
        let patch = json!({"status": status}).to_string();
        let arguments = [
            "patch",
            kind,
            name,
            "-n",
            namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ];
        self.kubectl(&arguments, None).unwrap();
    }
}
