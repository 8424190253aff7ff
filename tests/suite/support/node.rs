//! A small node: runs Pods as processes, each in network, mount and host-name namespaces of its own.
//!
//! What a kubelet does that matters to the bridge is done for real: the container's own command, arguments and variables, a random user, a
//! read-only root, volumes of ConfigMaps, Secrets and tokens that follow their source, probes, `preStop`, SIGTERM, the grace period. There
//! is no image: a name stands for a program. Needs root.

mod container;
mod network;
mod pod;
mod volumes;

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Binding, Node as NodeObject, Pod};
use kube::api::PostParams;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::control_plane::ControlPlane;
use super::require;
use network::Network;
pub use network::{GATEWAY, Namespace};

/// The file of names of Services, in the node's folder.
const HOSTS: &str = "hosts";

/// The node's name.
const NAME: &str = "node-1";

/// There is one network, so there is one node at a time: tests that want one wait for each other.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A running node; its pods go with it.
pub struct Node {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
    _one: tokio::sync::MutexGuard<'static, ()>,
}

/// What all pods of the node use.
struct Shared {
    client: Client,
    /// Port of the API server, on the gateway as on loopback.
    api_port: u16,
    images: HashMap<String, PathBuf>,
    folder: TempDir,
    network: Network,
    /// Process ids by pod name.
    running: Mutex<BTreeMap<String, u32>>,
}

impl Node {
    /// A node for a control plane; images are names of programs.
    /// Gives `None` where a test may not make namespaces.
    pub async fn start(plane: &ControlPlane, images: &[(&str, &Path)]) -> Option<Self> {
        let is_root = rustix::process::geteuid().is_root();
        require(
            "root",
            is_root
                .then_some(())
                .ok_or_else(|| "pods run in namespaces of their own".to_owned()),
        )?;
        let one = ONE.lock().await;
        let client = plane.client().await;
        let object = json!({"metadata": {"name": NAME, "labels": {"kubernetes.io/hostname": NAME}}});
        let nodes: Api<NodeObject> = Api::all(client.clone());
        nodes
            .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap();
        let network = Network::new();
        network.forward(plane.port());
        let folder = tempfile::Builder::new().prefix("node-").tempdir().unwrap();
        std::fs::write(folder.path().join(HOSTS), "127.0.0.1 localhost\n").unwrap();
        let shared = Arc::new(Shared {
            client,
            api_port: plane.port(),
            images: images
                .iter()
                .map(|(name, path)| ((*name).to_owned(), path.to_path_buf()))
                .collect(),
            folder,
            network,
            running: Mutex::default(),
        });
        let task = tokio::spawn(follow(shared.clone()));
        Some(Self { shared, task, _one: one })
    }

    /// Makes a port of loopback reachable for pods, at [`GATEWAY`].
    pub fn forward(&self, port: u16) {
        self.shared.network.forward(port);
    }

    /// Tells pods the name of a Service, as the cluster's DNS would.
    pub fn name(&self, name: &str, address: &str) {
        let line = format!("{address} {name}\n");
        let mut file = std::fs::File::options()
            .append(true)
            .open(self.shared.folder.path().join(HOSTS))
            .unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }

    /// The node's own network: pods that ask for it are there.
    pub fn own_network(&self) -> Arc<Namespace> {
        self.shared.network.own()
    }

    /// A machine on the network that the pods are on.
    pub fn machine(&self) -> Namespace {
        self.shared.network.namespace()
    }

    /// Kills a pod's process, as the kernel would when memory is short.
    pub fn kill(&self, pod: &str) {
        let pid = self.shared.running.lock().unwrap()[pod];
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// What a pod printed.
    pub fn log(&self, pod: &str) -> String {
        std::fs::read_to_string(self.shared.folder.path().join(format!("{pod}.log"))).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
        if std::thread::panicking() {
            for pod in self.shared.running.lock().unwrap().keys() {
                let log = self.log(pod);
                let tail: Vec<&str> = log.lines().rev().take(8).collect();
                eprintln!("last lines of pod {pod}:");
                tail.iter()
                    .rev()
                    .for_each(|line| eprintln!("  {}", line.chars().take(300).collect::<String>()));
            }
        }
    }
}

/// Takes every pod that has no node, and runs it.
async fn follow(shared: Arc<Shared>) {
    let pods: Api<Pod> = Api::all(shared.client.clone());
    let mut running: HashMap<String, tokio::sync::watch::Sender<Pod>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut events = watcher::watcher(pods, watcher::Config::default()).boxed();
    loop {
        let Ok(event) = events.try_next().await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let Some(event) = event else { return };
        match event {
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                let (uid, name) = (pod.uid().unwrap(), pod.name_any());
                let spec = pod.spec.as_ref().unwrap();
                if spec.node_name.is_none() {
                    bind(&shared, &pod, &name).await;
                } else if let Some(updates) = running.get(&uid) {
                    updates.send_replace(pod);
                } else {
                    let (updates, pod) = tokio::sync::watch::channel(pod);
                    running.insert(uid, updates);
                    tasks.spawn(pod::run(shared.clone(), pod));
                }
            }
            watcher::Event::Delete(pod) => _ = running.remove(&pod.uid().unwrap()),
            watcher::Event::Init | watcher::Event::InitDone => {}
        }
    }
}

async fn bind(shared: &Shared, pod: &Pod, name: &str) {
    let pods: Api<Pod> = Api::namespaced(shared.client.clone(), &pod.namespace().unwrap());
    let binding: Binding =
        serde_json::from_value(json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": NAME}})).unwrap();
    // Bound already, or gone: another event tells.
    let _ = pods
        .create_subresource::<_, serde_json::Value>("binding", name, &PostParams::default(), &binding)
        .await;
}
