//! OLM v1 as an administrator meets it: its two controllers as processes. They pull images from registries, as they do in a cluster.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bundle::documents;
use super::control_plane::ControlPlane;
use super::free_port;
use super::process::Leashed;

const SYSTEM: &str = "olmv1-system";
/// Puts a token where a pod has its own, and becomes the command behind it.
const IN_A_POD: &str = r#"mount -t tmpfs run /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && cp "$1" /run/secrets/kubernetes.io/serviceaccount/token && shift && exec "$@""#;

/// A running OLM v1; it goes with this value.
pub struct OlmV1 {
    folder: TempDir,
    _controllers: [Leashed; 2],
}

impl OlmV1 {
    /// Starts it with the programs of `tools`; what it knows of registries stands below `home`.
    pub fn start(plane: &ControlPlane, tools: &Path, home: &Path) -> Self {
        plane.load_crds(&tools.join("crds"));
        let folder = tempfile::Builder::new().prefix("olm-v1-").tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        plane.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}).to_string());
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "olm", "namespace": SYSTEM}});
        plane.apply(&account.to_string());
        let token = plane.kubectl(&["create", "token", "olm", "-n", SYSTEM], None).unwrap();
        fs::write(file("token"), token.trim()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap().pem();
        fs::create_dir(file("authorities")).unwrap();
        fs::write(file("authorities/ca.crt"), &certificate).unwrap();
        fs::write(file("tls.crt"), &certificate).unwrap();
        fs::write(file("tls.key"), key.serialize_pem()).unwrap();

        let start = |program: &str, arguments: &[String]| {
            let log = File::create(file(&format!("{program}.log"))).unwrap();
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "--propagation", "private", "bash", "-c", IN_A_POD, "pod"])
                .arg(file("token"))
                .arg(tools.join(program))
                .args(arguments)
                .arg(format!("--system-namespace={SYSTEM}"))
                .arg(format!("--health-probe-bind-address=127.0.0.1:{}", free_port()))
                .env("KUBECONFIG", plane.kubeconfig())
                .env("HOME", home)
                .stdout(log.try_clone().unwrap())
                .stderr(log);
            Leashed::spawn(&mut command, folder.path()).unwrap()
        };
        let (webhook, served) = (free_port(), format!("127.0.0.1:{}", free_port()));
        let catalogd = start(
            "catalogd",
            &[
                format!("--cache-dir={}", file("catalogs")),
                format!("--tls-cert={}", file("tls.crt")),
                format!("--tls-key={}", file("tls.key")),
                format!("--catalogs-server-addr={served}"),
                format!("--external-address={served}"),
                format!("--webhook-server-port={webhook}"),
                format!("--metrics-bind-address=127.0.0.1:{}", free_port()),
            ],
        );
        let operator_controller = start(
            "operator-controller",
            &[
                format!("--cache-path={}", file("bundles")),
                format!("--catalogd-cas-dir={}", file("authorities")),
            ],
        );
        // It gives every catalog the label that extensions select it by. A Service has no way to a process beside the cluster.
        let mut hook = documents(&fs::read_to_string(tools.join("webhook.yaml")).unwrap()).remove(0);
        let client = &mut hook["webhooks"][0]["clientConfig"];
        let path = client["service"]["path"].as_str().unwrap();
        let authority = k8s_openapi::ByteString(certificate.into_bytes());
        *client = json!({"url": format!("https://127.0.0.1:{webhook}{path}"), "caBundle": authority});
        plane.apply(&hook.to_string());
        Self {
            folder,
            _controllers: [catalogd, operator_controller],
        }
    }
}

/// Whether a condition of an object is true.
pub fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let mut found = conditions.into_iter().flatten();
    found.any(|found| found["type"] == condition && found["status"] == "True")
}

impl Drop for OlmV1 {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for program in ["catalogd", "operator-controller"] {
                let log = fs::read_to_string(self.folder.path().join(format!("{program}.log"))).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("last lines of {program}:");
                tail.iter()
                    .rev()
                    .for_each(|line| eprintln!("  {}", line.chars().take(600).collect::<String>()));
            }
        }
    }
}
