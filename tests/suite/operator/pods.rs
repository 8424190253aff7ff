//! Pods that really run: the shipped operator brings up a bridge, and machines notice nothing of what is done to it.

mod boot_network;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;

use super::*;
use crate::support::bundle;
use crate::support::control_plane::CRDS;
use crate::support::lab::netboot_tools;
use crate::support::node::{GATEWAY, Node};
use crate::support::site as sample;
use crate::upstream_service::{Content, Options};

const SECOND: Duration = Duration::from_secs(1);
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MAC: &str = "52:54:00:b0:00:01";

/// The Service of a bridge, as a kube-proxy sees it: addresses of pods that are ready.
struct Service {
    slices: Api<EndpointSlice>,
    selector: String,
}

impl Service {
    async fn of(plane: &ControlPlane, bridge: &str) -> Self {
        Self {
            slices: Api::namespaced(plane.client().await, NAMESPACE),
            selector: format!("kubernetes.io/service-name={bridge}-ipxe-bridge"),
        }
    }

    async fn addresses(&self) -> Vec<String> {
        let slices = self.slices.list(&ListParams::default().labels(&self.selector)).await.unwrap();
        let mut addresses = Vec::new();
        for slice in slices {
            for endpoint in slice.endpoints {
                if endpoint.conditions.and_then(|conditions| conditions.ready) == Some(true) {
                    addresses.extend(endpoint.addresses);
                }
            }
        }
        addresses
    }
}

/// Machines that boot one after the other while something happens to the pods.
struct Machines {
    stop: Arc<AtomicBool>,
    scripts: Arc<AtomicUsize>,
    downloads: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Machines {
    /// 50 machines ask for scripts in a loop, 6 of them download slowly in between.
    fn start(addresses: &tokio::sync::watch::Receiver<Vec<String>>, length: usize) -> Self {
        let mut machines = Self {
            stop: Arc::default(),
            scripts: Arc::default(),
            downloads: Arc::default(),
            tasks: Vec::new(),
        };
        for number in 0..50_usize {
            let (stop, scripts, downloads) = (machines.stop.clone(), machines.scripts.clone(), machines.downloads.clone());
            let addresses = addresses.clone();
            machines.tasks.push(tokio::spawn(async move {
                // A machine comes with a connection of its own each time.
                let client = reqwest::Client::builder()
                    .no_proxy()
                    .pool_max_idle_per_host(0)
                    .build()
                    .unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let address = {
                        let known = addresses.borrow();
                        known[number % known.len()].clone()
                    };
                    let url = format!("http://{address}:9876");
                    let answer = client.get(format!("{url}/ipxe-mac-boot/{MAC}")).send().await;
                    let answer = answer.unwrap_or_else(|error| panic!("{url}: {error:?}"));
                    let (status, text) = (answer.status(), answer.text().await.unwrap());
                    assert!(
                        status == 200 && text.contains("/boot-artifacts/kernel/lab/discovery"),
                        "{status}: {text}"
                    );
                    scripts.fetch_add(1, Ordering::Relaxed);
                    if number % 8 == 0 {
                        let mut answer = client
                            .get(format!("{url}/boot-artifacts/rootfs/lab/discovery"))
                            .send()
                            .await
                            .unwrap();
                        let mut got = 0;
                        while let Some(chunk) = answer
                            .chunk()
                            .await
                            .unwrap_or_else(|error| panic!("{url}: cut after {got} bytes: {error:?}"))
                        {
                            got += chunk.len();
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        assert_eq!(got, length);
                        downloads.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }));
        }
        machines
    }

    /// Ends them; all must have been served.
    async fn stop(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await
                .unwrap_or_else(|error| panic!("{what}: a machine was not served: {error}"));
        }
        let (scripts, downloads) = (self.scripts.load(Ordering::Relaxed), self.downloads.load(Ordering::Relaxed));
        println!("{what}: {scripts} scripts and {downloads} downloads, none failed");
        assert!(scripts > 100 && downloads > 0);
    }
}

/// Names of the pods of an instance.
fn pods(plane: &ControlPlane, label: &str) -> Vec<String> {
    let arguments = [
        "get",
        "pods",
        "-n",
        NAMESPACE,
        "-l",
        label,
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ];
    let names = plane.kubectl(&arguments, None).unwrap();
    names.split_whitespace().map(str::to_owned).collect()
}

/// Waits until the Deployment runs its newest template only.
async fn rolled(plane: &ControlPlane, within: Duration) {
    let start = Instant::now();
    loop {
        let deployment = plane.object("deployment", NAMESPACE, "lab-ipxe-bridge");
        let (spec, status) = (&deployment["spec"], &deployment["status"]);
        let counts = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
        let is_new = status["observedGeneration"] == deployment["metadata"]["generation"];
        if is_new
            && counts.iter().all(|count| status[count] == spec["replicas"])
            && pods(plane, "app.kubernetes.io/instance=lab").len() == 2
        {
            return;
        }
        assert!(start.elapsed() < within, "not rolled out within {within:?}: {status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_notice_nothing_of_a_roll_out_a_broken_image_or_a_killed_operator() {
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    let Some(_controllers) = plane.start_controllers() else {
        return;
    };
    let program = Path::new(env!("CARGO_BIN_EXE_ipxe-bridge"));
    let Some(objects) = bundle::rendered("config/default") else {
        return;
    };
    let image = bundle::image(&objects);
    let Some(tools) = tokio::task::spawn_blocking(netboot_tools).await.unwrap() else {
        return;
    };
    let programs = tools.join("trixie");
    let images = [
        (image.as_str(), program),
        ("ipxe-bridge:next", program),
        (boot_network::PROGRAMS.0, &programs),
    ];
    let Some(node) = Node::start(&plane, &images).await else {
        return;
    };
    plane.load_crds(Path::new(CRDS));
    plane.apply(&std::fs::read_to_string(Path::new(ROOT).join("deploy/install.yaml")).unwrap());

    // A site whose upstream the pods can reach.
    let length = 3_000_000;
    let site = sample::Site::with(Options {
        rootfs: Content::random(length, 3),
        ..Options::default()
    })
    .await;
    site.environment("lab", "discovery", "{}", false);
    let yaml = site.infra_env("lab", "discovery", "{}", false);
    let port: u16 = yaml
        .split_once("http://127.0.0.1:")
        .unwrap()
        .1
        .split('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    node.forward(port);
    crate::cluster::create_environment_of(&plane, "lab", &yaml.replace("127.0.0.1", GATEWAY));
    crate::cluster::create_host(&plane, "lab", "n1", MAC, Some("discovery"));

    plane.bridge("lab", json!({"uri": "http://boot.example.com"}));
    let start = Instant::now();
    let ready = async |within: Duration| {
        eventually("the bridge is ready", within, async || {
            plane.condition("lab", "Ready")[0] == "True"
        })
        .await;
    };
    ready(SECOND * 90).await;
    println!("operator and bridge were ready {:?} after their objects", start.elapsed());
    let service = Service::of(&plane, "lab").await;
    eventually("the Service has both pods", SECOND * 30, async || {
        service.addresses().await.len() == 2
    })
    .await;
    let (tell, addresses) = tokio::sync::watch::channel(service.addresses().await);
    let proxy = tokio::spawn(async move {
        loop {
            let now = service.addresses().await;
            if !now.is_empty() {
                tell.send_replace(now);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });

    let machines = Machines::start(&addresses, length as usize);
    plane.bridge("lab", json!({"uri": "http://boot.example.com", "loopTiming": "2m"}));
    tokio::time::sleep(SECOND).await;
    rolled(&plane, SECOND * 120).await;
    machines.stop("a roll-out").await;
    ready(SECOND * 10).await;

    // An image that is not there: the old pods go on, and the cause is told.
    let machines = Machines::start(&addresses, length as usize);
    plane.bridge(
        "lab",
        json!({"uri": "http://boot.example.com", "image": "ipxe-bridge:broken"}),
    );
    says(&plane, "lab", "Degraded", "True", "PodsFailing", "ImagePullBackOff").await;
    assert_eq!(plane.condition("lab", "Available")[0], "True");
    // In the middle of the next roll-out the operator that leads is killed.
    let lease = plane.object("lease", NAMESPACE, "ipxe-bridge-operator");
    let holder = lease["spec"]["holderIdentity"]
        .as_str()
        .unwrap()
        .split('_')
        .next()
        .unwrap()
        .to_owned();
    plane.bridge("lab", json!({"uri": "http://boot.example.com", "image": "ipxe-bridge:next"}));
    node.kill(&holder);
    eventually("another operator leads", SECOND * 30, async || {
        let lease = plane.object("lease", NAMESPACE, "ipxe-bridge-operator");
        !lease["spec"]["holderIdentity"].as_str().unwrap().starts_with(&holder)
    })
    .await;
    becomes_image(&plane, "ipxe-bridge:next").await;
    rolled(&plane, SECOND * 120).await;
    machines.stop("a broken image, a killed operator and another roll-out").await;
    ready(SECOND * 15).await;

    // A certificate that is none: pods that have a good one go on with it.
    let tls = json!({"uri": "http://boot.example.com", "image": "ipxe-bridge:next", "tls": {"secretName": "lab-tls", "plainHttp": "Enabled"}});
    let made = rcgen::generate_simple_self_signed(vec!["boot.example.com".to_owned()]).unwrap();
    let certificate = |text: &str| {
        let data = json!({"tls.crt": text, "tls.key": made.signing_key.serialize_pem()});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "lab-tls", "namespace": NAMESPACE}, "stringData": data});
        plane.apply(&secret.to_string());
    };
    certificate(&made.cert.pem());
    let machines = Machines::start(&addresses, length as usize);
    plane.bridge("lab", tls.clone());
    eventually("the certificate is mounted", SECOND * 30, async || {
        plane
            .object("deployment", NAMESPACE, "lab-ipxe-bridge")
            .to_string()
            .contains("--tls-port")
    })
    .await;
    rolled(&plane, SECOND * 120).await;
    let tls_url = format!("https://{}:9443/livez", addresses.borrow()[0]);
    let client = reqwest::Client::builder()
        .no_proxy()
        .danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    assert_eq!(client.get(&tls_url).send().await.unwrap().status(), 200);
    certificate("no certificate");
    says(&plane, "lab", "Degraded", "True", "PodsFailing", "certificate").await;
    assert_eq!(plane.condition("lab", "Available")[0], "True");
    assert_eq!(client.get(&tls_url).send().await.unwrap().status(), 200);
    certificate(&made.cert.pem());
    ready(SECOND * 60).await;
    machines.stop("a certificate, a broken one, and a good one again").await;
    let server = addresses.borrow()[0].clone();
    proxy.abort();

    boot_network::machines_are_answered(&plane, &node, &server, &tls, &programs).await;

    // Nothing of it is left.
    plane.kubectl(&["delete", "ipxebridge", "lab"], None).unwrap();
    let kinds = "serviceaccounts,clusterrolebindings,configmaps,services,networkpolicies,poddisruptionbudgets,deployments,replicasets,pods,endpointslices";
    eventually("everything is collected", SECOND * 60, async || {
        let left = plane.kubectl(
            &["get", kinds, "-A", "-l", "app.kubernetes.io/instance=lab", "-o", "name"],
            None,
        );
        left.unwrap().trim().is_empty()
    })
    .await;
}

async fn becomes_image(plane: &ControlPlane, image: &str) {
    let pointer = "/spec/template/spec/containers/0/image";
    becomes(plane, "deployment", NAMESPACE, "lab-ipxe-bridge", pointer, &json!(image)).await;
}
