//! A real kube-apiserver with the real CRDs; the server runs as its own ServiceAccount with the role that is shipped.

mod admission;
mod events;
mod scale;
mod statuses;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::bridge::{Bridge, eventually};
use crate::support::control_plane::{CRDS, ControlPlane};
use crate::support::site::{Site, agent, bare_metal_host};

const SECOND: Duration = Duration::from_secs(1);
const OWN_CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/crd/bases");
const ROLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/rbac/server.yaml");

fn namespace(plane: &ControlPlane, name: &str) {
    plane.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"));
}

/// Creates an object, and its status by the subresource as its controller would.
fn create_with_status(plane: &ControlPlane, yaml: &str) {
    let object: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    plane.apply(yaml);
    let (kind, meta) = (object["kind"].as_str().unwrap(), &object["metadata"]);
    let patch = json!({"status": object["status"]}).to_string();
    let (namespace, name) = (meta["namespace"].as_str().unwrap(), meta["name"].as_str().unwrap());
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
    plane.kubectl(&arguments, None).unwrap();
}

pub fn create_environment(plane: &ControlPlane, site: &Site, in_namespace: &str, name: &str) {
    create_environment_of(plane, in_namespace, &site.infra_env(in_namespace, name, "{}", false));
}

/// An environment from its YAML.
pub fn create_environment_of(plane: &ControlPlane, in_namespace: &str, yaml: &str) {
    namespace(plane, in_namespace);
    create_with_status(plane, &yaml.replace("spec:\n", "spec:\n  pullSecretRef: {name: pull}\n"));
}

pub fn create_host(plane: &ControlPlane, namespace: &str, name: &str, mac: &str, environment: Option<&str>) {
    plane.apply(&bare_metal_host(namespace, name, mac, environment));
}

/// A ServiceAccount with the shipped role, or without any, and its kubeconfig.
pub fn account(plane: &ControlPlane, in_namespace: &str, with_role: bool) -> String {
    namespace(plane, in_namespace);
    plane.apply(&format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: bridge, namespace: {in_namespace}}}\n"
    ));
    if with_role {
        plane.apply(&std::fs::read_to_string(ROLE).unwrap());
        plane.apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: {in_namespace}-bridge}}\nroleRef: {{apiGroup: \
             rbac.authorization.k8s.io, kind: ClusterRole, name: ipxe-bridge-server}}\nsubjects: [{{kind: ServiceAccount, name: bridge, namespace: \
             {in_namespace}}}]\n"
        ));
    }
    plane
        .service_account_kubeconfig(in_namespace, "bridge")
        .to_str()
        .unwrap()
        .to_owned()
}

/// Runs what blocks on a thread of its own.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_cluster_are_served_within_a_second() {
    let Some(plane) = blocking(ControlPlane::shared).await else {
        return;
    };
    let site = Site::with(Default::default()).await;
    site.environment("watch-a", "lab", "{}", false);
    site.environment("watch-a", "second", "{}", false);
    let kubeconfig = account(plane, "watch-a", true);
    let bridge = Bridge::start_with(&["--namespaces", "watch-a,watch-b"], &[("KUBECONFIG", &kubeconfig)]).await;
    bridge.wait_ready().await;
    let mac = "52:54:00:a0:00:01";
    assert!(bridge.script(mac).await.ends_with("shell\n"));

    create_environment(plane, &site, "watch-a", "lab");
    create_host(plane, "watch-a", "n1", mac, Some("lab"));
    let took = eventually("a new host is served", SECOND, async || {
        bridge.script_has(mac, "kernel/watch-a/lab").await
    })
    .await;
    println!("a new host was served {took:?} after kubectl returned");

    create_environment(plane, &site, "watch-a", "second");
    create_host(plane, "watch-a", "n1", mac, Some("second"));
    eventually("a changed label", SECOND, async || {
        bridge.script_has(mac, "kernel/watch-a/second").await
    })
    .await;

    create_with_status(plane, &agent("watch-a", "agent-1", mac, "installed", "Done"));
    eventually("an agent that is installed", SECOND, async || {
        bridge.script_has(mac, "boots its own disk").await
    })
    .await;
    create_with_status(plane, &agent("watch-a", "agent-1", mac, "known", "Discovering"));
    eventually("an agent that is not", SECOND, async || {
        bridge.script_has(mac, "kernel/watch-a/second").await
    })
    .await;

    // The schema's pattern admits text around the address.
    create_host(plane, "watch-a", "bad", "not 52:54:00:a0:00:02 really", Some("lab"));
    create_host(plane, "watch-a", "good", "52:54:00:a0:00:03", Some("lab"));
    eventually("a bad object stops nobody", SECOND, async || {
        bridge.script_has("52:54:00:a0:00:03", "kernel/watch-a/lab").await
    })
    .await;
    let skipped = bridge.get("/inventory").await.json()["skipped"].clone();
    assert_eq!(skipped[0]["object"], "watch-a/bad", "{skipped}");
    assert!(
        skipped[0]["cause"].as_str().unwrap().starts_with("spec.bootMACAddress: "),
        "{skipped}"
    );

    plane
        .kubectl(&["delete", "baremetalhost", "n1", "-n", "watch-a", "--wait=false"], None)
        .unwrap();
    eventually("a deleted host", SECOND, async || bridge.script_has(mac, "shell").await).await;
    // Another namespace than those that were named is not read.
    create_environment(plane, &site, "watch-a", "lab");
    namespace(plane, "watch-c");
    create_host(plane, "watch-c", "n1", mac, Some("lab"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(bridge.script_has(mac, "shell").await);
    plane
        .kubectl(&["delete", "baremetalhost", "--all", "-n", "watch-a", "--wait=false"], None)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named() {
    let Some(plane) = blocking(ControlPlane::shared).await else {
        return;
    };
    let kubeconfig = account(plane, "no-rights", false);
    let bridge = Bridge::start_with(&[], &[("KUBECONFIG", &kubeconfig)]).await;
    let named = "BareMetalHost: not allowed to list and watch baremetalhosts.metal3.io: the role needs get, list and watch on it";
    eventually("it is", Duration::from_secs(5), async || {
        bridge.get("/readyz").await.text().contains(named)
    })
    .await;
    let answer = bridge.get("/ipxe-mac-boot/52:54:00:a0:00:01").await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.header("retry-after"),
            answer.problem().as_str()
        ),
        (503, "5", "not-ready")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_goes_and_comes_back_disturbs_no_machine() {
    let Some(plane) = blocking(ControlPlane::start).await else {
        return;
    };
    let plane = Arc::new(plane);
    let site = Site::start().await;
    // No Agent API in this cluster, for now: that is a state, not an error.
    for crd in ["infraenvs.agent-install.openshift.io.yaml", "baremetalhosts.metal3.io.yaml"] {
        plane.load_crds(&Path::new(CRDS).join(crd));
    }
    create_environment(&plane, &site, "a", "lab");
    create_host(&plane, "a", "n1", "52:54:00:cc:00:01", Some("lab"));
    let kubeconfig = account(&plane, "a", true);
    let variables = [("KUBECONFIG", kubeconfig.as_str())];
    let bridge = Arc::new(Bridge::start_with(&[], &variables).await);
    bridge.wait_ready().await;
    let inventory = bridge.get("/inventory").await.json();
    assert!(
        inventory["sources"]
            .as_array()
            .unwrap()
            .iter()
            .any(|source| source["name"] == "Agent" && source["state"] == "absent"),
        "{inventory}"
    );

    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (bridge, stop, asked) = (bridge.clone(), stop.clone(), asked.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let script = bridge.script("52:54:00:cc:00:01").await;
                    assert!(script.contains("/boot-artifacts/kernel/a/lab"), "{script}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    plane.stop_apiserver();
    eventually("the age is told", Duration::from_secs(15), async || {
        let answer = bridge.get("/ipxe-mac-boot/52:54:00:cc:00:01").await;
        answer
            .header("ipxe-bridge-inventory-age")
            .parse::<u64>()
            .is_ok_and(|age| age >= 1)
    })
    .await;
    assert_eq!(bridge.get("/readyz").await.status, 200, "it goes on answering");
    assert!(bridge.get("/inventory").await.json()["age_seconds"].as_u64().unwrap() >= 1);
    assert!(!bridge.metrics().await.contains("ipxe_bridge_inventory_age_seconds 0.0"));

    // One that starts meanwhile knows nothing and says so.
    let late = Bridge::start_with(&[], &variables).await;
    let answer = late.get("/ipxe-mac-boot/52:54:00:cc:00:01").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"));
    eventually("what is missing is named", Duration::from_secs(10), async || {
        let ready = late.get("/readyz").await;
        ready.status == 503 && ready.text().contains("BareMetalHost: the API server")
    })
    .await;
    assert_eq!(late.get("/livez").await.status, 200);

    let returning = plane.clone();
    blocking(move || returning.start_apiserver()).await;
    let back = Instant::now();
    eventually("it is current again", Duration::from_secs(20), async || {
        let answer = bridge.get("/ipxe-mac-boot/52:54:00:cc:00:01").await;
        answer.header("ipxe-bridge-inventory-age").is_empty()
    })
    .await;
    println!("current again {:?} after the API server was ready", back.elapsed());
    eventually("the late one is ready", Duration::from_secs(20), async || {
        late.get("/readyz").await.status == 200
    })
    .await;
    create_host(&plane, "a", "n2", "52:54:00:cc:00:02", Some("lab"));
    eventually("changes are seen again", SECOND, async || {
        bridge.script_has("52:54:00:cc:00:02", "kernel/a/lab").await
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("no wrong and no failed script");
    }
    println!(
        "{} scripts were asked for meanwhile, all right",
        asked.load(Ordering::Relaxed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn shipped_yaml_is_accepted_as_it_is() {
    let Some(plane) = blocking(ControlPlane::shared).await else {
        return;
    };
    plane.load_crds(Path::new(OWN_CRDS));
    for file in [
        "config/rbac/server.yaml",
        "deploy/server.yaml",
        "deploy/install.yaml",
        "config/samples/bridge.yaml",
        "config/samples/bridge-openshift.yaml",
        "config/samples/site",
        "config/samples/overrides.yaml",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        for needed in ["ipxe-bridge", "ipxe-bridge-system", "lab", "edge"] {
            namespace(plane, needed);
        }
        let arguments = ["apply", "--dry-run=server", "--validate=strict", "-f", path.to_str().unwrap()];
        let said = plane
            .kubectl(&arguments, None)
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(!said.contains("Warning"), "{file}: {said}");
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/gitops/site");
    let made = plane.kubectl(&["kustomize", folder], None).unwrap();
    // What stands in texts; that of the catalog is indented, as a value of YAML.
    let csv = include_str!("../../config/manifests/bases/ipxe-bridge-operator.clusterserviceversion.yaml");
    let csv: serde_json::Value = serde_saphyr::from_str(csv).unwrap();
    let texts = [
        (5, include_str!("../../docs/overrides.md")),
        (1, include_str!("../../docs/network.md")),
        (2, include_str!("../../README.md")),
        (1, csv["spec"]["description"].as_str().unwrap()),
    ];
    let mut objects = vec![made.as_str()];
    for (least, text) in texts {
        let found = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let found: Vec<&str> = found.filter(|yaml| yaml.starts_with("apiVersion: ipxe-bridge.io/")).collect();
        assert!(found.len() >= least, "{found:?}");
        objects.extend(found);
    }
    for yaml in objects {
        let said = plane.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", "-"], Some(yaml));
        let said = said.unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert!(!said.contains("Warning"), "{said}");
    }
}
