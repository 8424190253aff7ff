//! The pod on the boot network as it really runs: refused until its namespace allows the node's network, answering machines, mended, taken away.

use std::process::Command;

use super::*;
use crate::support::node::Namespace;
use crate::support::pxe::{boot_files, discover, inside};

/// Stands for an image that holds boot programs, and the folder inside of it.
pub const PROGRAMS: (&str, &str) = ("boot-programs:trixie", "usr/lib/ipxe");

const NAME: &str = "lab-ipxe-bridge-netboot";
const LABEL: &str = "app.kubernetes.io/component=netboot,app.kubernetes.io/instance=lab";

/// A machine beside the node, and the node's own network.
struct Segment {
    node: std::sync::Arc<Namespace>,
    machine: Namespace,
}

impl Segment {
    /// What a machine is told to fetch, and by whom.
    async fn told(&self, mac: [u8; 6]) -> Vec<(String, String)> {
        let namespace = self.machine.path();
        let asked = tokio::task::spawn_blocking(move || inside(&namespace, move || discover(mac)).join().unwrap());
        let answers = asked.await.unwrap();
        let servers = answers
            .iter()
            .map(|answer| answer[20..24].iter().map(u8::to_string).collect::<Vec<_>>().join("."));
        boot_files(&answers).into_iter().zip(servers).collect()
    }

    /// A file of the node's, fetched as a machine fetches it.
    fn fetch(&self, url: &str) -> Vec<u8> {
        let arguments = ["netns", "exec", &self.machine.name, "curl", "-sSf", "--max-time", "20", url];
        let output = Command::new("ip").args(arguments).output().unwrap();
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

/// With a bridge `lab` that is ready and knows [`MAC`], and a spec of it to go on from.
pub async fn machines_are_answered(plane: &ControlPlane, node: &Node, server: &str, spec: &Value, programs: &Path) {
    node.name(&format!("lab-ipxe-bridge.{NAMESPACE}.svc"), server);
    let segment = Segment {
        node: node.own_network(),
        machine: node.machine(),
    };
    let known = [0x52, 0x54, 0, 0xb0, 0, 1];
    let with = |netboot: Value| {
        let mut spec = spec.clone();
        spec["netboot"] = netboot;
        spec
    };
    let netboot = json!({"enabled": true, "interface": "eth0", "bootPrograms": {"image": PROGRAMS.0, "path": PROGRAMS.1}});
    plane.bridge("lab", with(netboot));
    says(plane, "lab", "Degraded", "True", "NetbootRefused", "violates PodSecurity").await;
    let label = "pod-security.kubernetes.io/enforce=privileged";
    plane
        .kubectl(&["label", "namespace", NAMESPACE, "--overwrite", label], None)
        .unwrap();
    // The pauses between a ReplicaSet's attempts grow: a new one tries at once.
    let delete = ["delete", "deployment", NAME, "-n", NAMESPACE];
    plane.kubectl(&delete, None).unwrap();
    let is_ready = async || {
        let deployment = plane.object("deployment", NAMESPACE, NAME);
        deployment["status"]["readyReplicas"] == 1 && plane.condition("lab", "Ready")[0] == "True"
    };
    eventually("the pod on the boot network is ready", SECOND * 60, is_ready).await;

    let address = segment.node.address.clone();
    assert_eq!(
        segment.told(known).await,
        [("undionly.kpxe".to_owned(), address.clone())],
        "{}",
        node.log(&pods(plane, LABEL)[0])
    );
    assert!(segment.told([0x52, 0x54, 0, 0xff, 0, 1]).await.is_empty());
    for (url, name) in [
        (format!("tftp://{address}/undionly.kpxe"), "undionly.kpxe"),
        (
            format!("http://{address}:9879/boot-programs/ipxe-arm64.efi"),
            "ipxe-arm64.efi",
        ),
    ] {
        assert!(segment.fetch(&url) == std::fs::read(programs.join(PROGRAMS.1).join(name)).unwrap());
    }
    let log = node.log(&pods(plane, LABEL)[0]);
    for said in [
        "ProxyDHCP on ports 67 and 4011",
        "boot programs in /boot-programs/usr/lib/ipxe: bios undionly.kpxe",
        "the bridge does not know it",
        "iPXE is sent to http://boot.example.com/boot.ipxe",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }

    // Somebody removes it: another pod answers.
    let before = pods(plane, LABEL);
    plane.kubectl(&delete, None).unwrap();
    eventually("another pod is ready", SECOND * 60, async || {
        is_ready().await && pods(plane, LABEL).iter().all(|pod| !before.contains(pod))
    })
    .await;
    assert_eq!(segment.told(known).await.len(), 1);

    plane.bridge("lab", with(json!({"enabled": false, "interface": "eth0"})));
    eventually("nobody answers any more", SECOND * 60, async || pods(plane, LABEL).is_empty()).await;
    assert!(segment.told(known).await.is_empty());
    gone(plane, "deployment", NAMESPACE, NAME).await;
    gone(plane, "serviceaccount", NAMESPACE, NAME).await;
}
