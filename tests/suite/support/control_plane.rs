//! A real etcd and kube-apiserver on loopback: CRD validation, RBAC, server-side apply and watches as a cluster has them.
//!
//! There is no controller manager: nothing collects garbage, a deleted namespace stays `Terminating`, and each ServiceAccount,
//! `default` among them, exists only when a test creates it.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use super::process::Leashed;
use super::{free_port, require, tools};

/// Generous: on a loaded machine the API server takes several times its usual four seconds.
const START_LIMIT: Duration = Duration::from_secs(90);

/// The CRDs of the neighbours that the bridge reads.
pub const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/crds");

/// A control plane; its processes and files go with it.
pub struct ControlPlane {
    // Dropped in this order: the API server before its store, the files last.
    apiserver: Mutex<Option<Leashed>>,
    _etcd: Leashed,
    tools: PathBuf,
    etcd_port: u16,
    port: u16,
    dir: TempDir,
}

impl ControlPlane {
    /// The control plane that all tests share, each in namespaces of its own; `None` when the machine has no tools for it. The
    /// CRDs of the neighbours are loaded.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<ControlPlane>> = OnceLock::new();
        SHARED
            .get_or_init(|| {
                let plane = Self::start()?;
                plane.load_crds(Path::new(CRDS));
                Some(plane)
            })
            .as_ref()
    }

    /// A control plane of one's own, for tests that stop its API server; `None` when the machine has no tools for it.
    pub fn start() -> Option<Self> {
        let tools = require("a Kubernetes control plane", tools("control-plane"))?;
        let dir = tempfile::Builder::new().prefix("control-plane-").tempdir().unwrap();
        write_certificates(dir.path());

        let etcd_port = free_port();
        let url = format!("http://127.0.0.1:{etcd_port}");
        let etcd = Leashed::spawn(
            logged(Command::new(tools.join("etcd")), dir.path(), "etcd")
                .arg("--data-dir")
                .arg(dir.path().join("etcd"))
                .args(["--listen-client-urls", &url])
                .args(["--advertise-client-urls", &url])
                .args(["--listen-peer-urls", "http://127.0.0.1:0"])
                .arg("--unsafe-no-fsync"),
            dir.path(),
        )
        .unwrap();

        let plane = Self {
            apiserver: Mutex::new(None),
            _etcd: etcd,
            tools,
            etcd_port,
            port: free_port(),
            dir,
        };
        plane.write_kubeconfig(
            &plane.kubeconfig(),
            &format!(
                "client-certificate: {0}/admin.crt, client-key: {0}/admin.key",
                plane.dir.path().display()
            ),
        );
        plane.start_apiserver();
        Some(plane)
    }

    /// Starts the API server on the port and the data that it had before, and waits until it is ready.
    pub fn start_apiserver(&self) {
        let started = Instant::now();
        // It retries a missing etcd only after seconds; etcd listens within a fraction of one.
        self.wait(started, "etcd", || TcpStream::connect(("127.0.0.1", self.etcd_port)).is_ok());
        let file = |name: &str| self.dir.path().join(name);
        let mut running = self.apiserver.lock().unwrap();
        assert!(running.is_none(), "the API server runs already");
        let mut command = logged(
            Command::new(self.tools.join("kube-apiserver")),
            self.dir.path(),
            "kube-apiserver",
        );
        command
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .arg(format!("--secure-port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg("--cert-dir")
            .arg(file("generated"))
            .arg("--tls-cert-file")
            .arg(file("server.crt"))
            .arg("--tls-private-key-file")
            .arg(file("server.key"))
            .arg("--client-ca-file")
            .arg(file("ca.crt"))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg("--service-account-key-file")
            .arg(file("service-account.pub"))
            .arg("--service-account-signing-key-file")
            .arg(file("service-account.key"))
            .arg("--service-cluster-ip-range=10.0.0.0/24")
            .arg("--authorization-mode=RBAC")
            .arg("--allow-privileged=true");
        let apiserver = running.insert(Leashed::spawn(&mut command, self.dir.path()).unwrap());
        self.wait(started, "kube-apiserver", || {
            if let Some(status) = apiserver.ended() {
                panic!("kube-apiserver ended with {status}\n{}", self.log_tail("kube-apiserver"));
            }
            TcpStream::connect(("127.0.0.1", self.port)).is_ok() && self.kubectl(&["get", "--raw", "/readyz"], None).is_ok()
        });
    }

    /// Kills the API server: from here on connections to it are refused.
    pub fn stop_apiserver(&self) {
        let stopped = self.apiserver.lock().unwrap().take();
        assert!(stopped.is_some(), "the API server does not run");
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts what makes ReplicaSets, Pods and EndpointSlices, and removes what has lost its owner; `None` without the tool for it.
    pub fn start_controllers(&self) -> Option<Leashed> {
        let program = self.tools.join("kube-controller-manager");
        require(
            "a kube-controller-manager",
            program
                .exists()
                .then_some(())
                .ok_or_else(|| format!("{} is missing", program.display())),
        )?;
        let file = |name: &str| self.dir.path().join(name);
        let controllers = "deployment-controller,replicaset-controller,garbage-collector-controller,endpointslice-controller,namespace-controller,\
             serviceaccount-controller,root-ca-certificate-publisher-controller,disruption-controller";
        let mut command = logged(Command::new(program), self.dir.path(), "kube-controller-manager");
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--root-ca-file")
            .arg(file("ca.crt"))
            .arg("--service-account-private-key-file")
            .arg(file("service-account.key"))
            .arg(format!("--controllers={controllers}"))
            .args([
                "--leader-elect=false",
                "--secure-port=0",
                "--use-service-account-credentials=false",
            ]);
        Some(Leashed::spawn(&mut command, self.dir.path()).unwrap())
    }

    /// A kubeconfig that may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// A kubeconfig with a fresh token of an existing ServiceAccount: for the code under test, so that a missing right shows.
    pub fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.kubectl(&["create", "token", name, "-n", namespace], None).unwrap();
        let path = self.dir.path().join(format!("{namespace}.{name}.kubeconfig"));
        self.write_kubeconfig(&path, &format!("token: {}", token.trim()));
        path
    }

    /// An administrator's client. It belongs to the runtime of the test that asks.
    pub async fn client(&self) -> kube::Client {
        self.client_from(&self.kubeconfig()).await
    }

    /// A client with the rights of this kubeconfig.
    pub async fn client_from(&self, kubeconfig: &Path) -> kube::Client {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// Runs kubectl as administrator: its output, or what it complained about.
    pub fn kubectl(&self, args: &[&str], stdin: Option<&str>) -> Result<String, String> {
        let mut command = Command::new(self.tools.join("kubectl"));
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.dir.path().join("kubectl-cache"))
            .args(args)
            .stdin(Stdio::null());
        if let Some(text) = stdin {
            // A file, not a pipe: nobody has to write while kubectl answers.
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.rewind().unwrap();
            command.stdin(file);
        }
        let output = command.output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Applies the objects of a YAML text.
    pub fn apply(&self, yaml: &str) {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        if let Err(e) = self.kubectl(&args, Some(yaml)) {
            panic!("{e}\nwhile applying\n{yaml}");
        }
    }

    /// Loads the CRDs of a file or folder and waits until the API server serves them.
    pub fn load_crds(&self, path: &Path) {
        let path = path.to_str().unwrap();
        self.kubectl(&["apply", "--server-side", "-f", path], None).unwrap();
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "-f", path];
        // A definition that has no conditions yet is an error to kubectl, not something to wait for.
        let started = Instant::now();
        while let Err(error) = self.kubectl(&wait, None) {
            assert!(started.elapsed() < START_LIMIT, "{error}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn wait(&self, started: Instant, program: &str, mut ready: impl FnMut() -> bool) {
        while !ready() {
            assert!(
                started.elapsed() < START_LIMIT,
                "{program} is not ready after {START_LIMIT:?}\n{}",
                self.log_tail(program)
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn log_tail(&self, program: &str) -> String {
        let log = fs::read(self.dir.path().join(format!("{program}.log"))).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(6_000)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    fn write_kubeconfig(&self, path: &Path, user: &str) {
        let ca = self.dir.path().join("ca.crt");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: {ca}}}}}]\n\
             users: [{{name: test, user: {{{user}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n",
            port = self.port,
            ca = ca.display(),
        );
        fs::write(path, text).unwrap();
    }
}

/// The command with its output in `PROGRAM.log`, continued when the program is started again.
fn logged(mut command: Command, dir: &Path, program: &str) -> Command {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join(format!("{program}.log")))
        .unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    command
}

/// Certificates of the server and of an administrator under a CA of their own, and the key that signs ServiceAccount tokens.
fn write_certificates(dir: &Path) {
    let write = |name: &str, text: String| fs::write(dir.join(name), text).unwrap();
    let named = |names: &[&str], common_name: &str| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params
    };

    let mut ca = named(&[], "test-ca");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca_key = KeyPair::generate().unwrap();
    write("ca.crt", ca.self_signed(&ca_key).unwrap().pem());
    let issuer = Issuer::new(ca, ca_key);

    let mut server = named(
        &["127.0.0.1", "localhost", "kubernetes.default.svc", super::node::GATEWAY],
        "kube-apiserver",
    );
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut admin = named(&[], "admin");
    admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (name, params) in [("server", server), ("admin", admin)] {
        let key = KeyPair::generate().unwrap();
        write(&format!("{name}.crt"), params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }

    let key = KeyPair::generate().unwrap();
    write("service-account.key", key.serialize_pem());
    write("service-account.pub", key.public_key_pem());
}
