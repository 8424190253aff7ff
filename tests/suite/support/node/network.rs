//! One bridge, and a network namespace with an address for each pod.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::net::{TcpListener, TcpStream};

/// The host, as pods see it.
pub const GATEWAY: &str = "10.213.0.1";
const BRIDGE: &str = "ipxbnode";

/// The network of one node.
pub struct Network {
    last: AtomicU8,
    forwards: std::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>,
    /// The node's own network, for pods that have it.
    own: OnceLock<Arc<Namespace>>,
}

/// A pod's namespace; it goes with the value.
pub struct Namespace {
    pub name: String,
    pub address: String,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Network {
    /// Makes the bridge; what a killed run left behind goes first.
    pub fn new() -> Self {
        sweep();
        ip(&format!("link add {BRIDGE} type bridge"));
        ip(&format!("addr add {GATEWAY}/24 dev {BRIDGE}"));
        ip(&format!("link set {BRIDGE} up"));
        Self {
            last: AtomicU8::new(1),
            forwards: std::sync::Mutex::default(),
            own: OnceLock::new(),
        }
    }

    /// A namespace with an address of its own.
    pub fn namespace(&self) -> Namespace {
        // A test has fewer pods than that; an address is not used twice, as a late packet might reach the wrong one.
        let number = self.last.fetch_add(1, Ordering::SeqCst) + 1;
        let namespace = Namespace {
            name: format!("{BRIDGE}-{number}"),
            address: format!("10.213.0.{number}"),
        };
        let name = &namespace.name;
        ip(&format!("netns add {name}"));
        ip(&format!("link add {BRIDGE}{number} type veth peer name eth0 netns {name}"));
        ip(&format!("link set {BRIDGE}{number} master {BRIDGE} up"));
        ip(&format!("-n {name} addr add {}/24 dev eth0", namespace.address));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} link set lo up"));
        namespace
    }

    /// The node's own network, which is not this machine's: its ports are free.
    pub fn own(&self) -> Arc<Namespace> {
        self.own.get_or_init(|| Arc::new(self.namespace())).clone()
    }

    /// Makes a port of loopback reachable for pods.
    pub fn forward(&self, port: u16) {
        let listener = std::net::TcpListener::bind((GATEWAY, port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                tokio::spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        });
        self.forwards.lock().unwrap().push(task);
    }
}

impl Namespace {
    /// Where its file is.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.forwards.lock().unwrap().iter().for_each(tokio::task::JoinHandle::abort);
        sweep();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Removes everything that bears the node's name.
fn sweep() {
    let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
    for line in String::from_utf8_lossy(&list.stdout).lines() {
        let name = line.split(' ').next().unwrap();
        if name.starts_with(BRIDGE) {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
    // A namespace lives on for minutes while a connection of it is being closed, and with it this end of its cable.
    let list = Command::new("ip").args(["-o", "link"]).output().unwrap();
    for line in String::from_utf8_lossy(&list.stdout).lines() {
        let name = line.split(' ').nth(1).unwrap().split(['@', ':']).next().unwrap();
        if name.starts_with(BRIDGE) {
            let _ = Command::new("ip").args(["link", "del", name]).output();
        }
    }
}
