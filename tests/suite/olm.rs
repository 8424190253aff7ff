//! Installed by the Operator Lifecycle Manager: from a catalog to a bridge that is ready, to the next version, and away again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::install::{nothing_is_left, remove};
use crate::support::bridge::eventually;
use crate::support::bundle::{self, PACKAGE};
use crate::support::control_plane::{CRDS, ControlPlane};
use crate::support::node::Node;
use crate::support::olm::Olm;
use crate::support::operator::NAMESPACE;

const SECOND: Duration = Duration::from_secs(1);
const VERSION: &str = env!("CARGO_PKG_VERSION");
const BETWEEN: &str = "98.0.0";
pub const NEXT: &str = "99.0.0";
const LACKING: &str = "99.0.1";
const CSV: &str = "bundle/manifests/ipxe-bridge-operator.clusterserviceversion.yaml";

pub fn written(files: &BTreeMap<String, String>) -> TempDir {
    let folder = tempfile::Builder::new().prefix("bundle-").tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// How a catalog leads from the installed version to the next one. A release writes both.
#[derive(Clone, Copy)]
pub enum Edge {
    /// The next one replaces it.
    Replaces,
    /// The next one replaces one that is not there any more, and skips all between.
    SkipRange,
}

/// A next version: another image, a line to the installed version, and a definition with one more field.
pub fn next(objects: &[Value], edge: Edge) -> (Vec<Value>, String) {
    let (now, next) = (bundle::image(objects), format!("quay.io/ipxe-bridge/ipxe-bridge:{NEXT}"));
    let text = serde_json::to_string(objects).unwrap().replace(&now, &next);
    let mut objects: Vec<Value> = serde_json::from_str(&text).unwrap();
    for object in &mut objects {
        if object["kind"] == "ClusterServiceVersion" {
            let before = match edge {
                Edge::Replaces => VERSION,
                Edge::SkipRange => BETWEEN,
            };
            object["spec"]["replaces"] = json!(format!("{PACKAGE}.v{before}"));
            if let Edge::SkipRange = edge {
                object["metadata"]["annotations"]["olm.skipRange"] = json!(format!(">={VERSION} <{NEXT}"));
            }
        }
        if object["metadata"]["name"] == "ipxebridges.ipxe-bridge.io" {
            let fields = &mut object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
            fields["colour"] = json!({"type": "string", "description": "A field of the next version."});
        }
    }
    (objects, next)
}

/// The bundle without a right that the operator needs.
fn without_a_right(files: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut files = files.clone();
    let mut csv = bundle::documents(&files[CSV]).remove(0);
    let rules = &mut csv["spec"]["install"]["spec"]["clusterPermissions"][0]["rules"];
    let of_deployments = rules
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .find(|rule| rule["resources"][0] == "deployments")
        .unwrap();
    of_deployments["verbs"]
        .as_array_mut()
        .unwrap()
        .retain(|verb| verb != "create");
    files.insert(CSV.to_owned(), serde_saphyr::to_string(&csv).unwrap());
    files
}

/// Waits until a bridge is ready; gives it the address that a load balancer would.
pub async fn ready(plane: &ControlPlane, name: &str) {
    let service = format!("{name}-ipxe-bridge");
    eventually(&format!("{name} has a Service"), SECOND * 60, async || {
        !plane.object("service", NAMESPACE, &service).is_null()
    })
    .await;
    plane.status(
        "service",
        NAMESPACE,
        &service,
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}),
    );
    let is_ready = async || {
        let bridge = plane.object("ipxb", "", name);
        let is_current = bridge["status"]["observedGeneration"] == bridge["metadata"]["generation"];
        is_current && plane.condition(name, "Ready")[0] == "True"
    };
    eventually(&format!("{name} is ready"), SECOND * 90, is_ready).await;
    let bridge = plane.object("ipxb", "", name);
    assert_eq!(bridge["status"]["uri"], "http://192.0.2.7:9876");
}

/// Images of the pods of an instance.
pub fn images(plane: &ControlPlane, selector: &str) -> Vec<String> {
    let arguments = [
        "get",
        "pods",
        "-n",
        NAMESPACE,
        "-l",
        selector,
        "-o",
        "jsonpath={.items[*].spec.containers[0].image}",
    ];
    let images = plane.kubectl(&arguments, None).unwrap();
    images.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_installs_upgrades_and_leaves_everything_behind_that_users_made() {
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    let Some(_controllers) = plane.start_controllers() else {
        return;
    };
    let Some(objects) = bundle::rendered("config/manifests") else {
        return;
    };
    let program = Path::new(env!("CARGO_BIN_EXE_ipxe-bridge"));
    let (now_image, (next_objects, next_image)) = (bundle::image(&objects), next(&objects, Edge::SkipRange));
    let Some(_node) = Node::start(&plane, &[(&now_image, program), (&next_image, program)]).await else {
        return;
    };
    plane.load_crds(Path::new(CRDS));
    let Some(mut olm) = Olm::start(&plane) else {
        return;
    };
    let files = bundle::files(&objects, VERSION);
    let now = written(&files);
    let newer = written(&bundle::files(&next_objects, NEXT));

    // An administrator clicks on Install.
    let start = Instant::now();
    olm.serve(&[now.path()]).await;
    olm.subscribe();
    olm.succeeded(VERSION).await;
    println!("installed {:?} after the Subscription", start.elapsed());
    let deployment = plane.object("deployment", NAMESPACE, PACKAGE);
    assert_eq!(deployment["metadata"]["labels"]["olm.owner"], format!("{PACKAGE}.v{VERSION}"));
    assert_eq!(deployment["status"]["readyReplicas"], 2);
    let pods = plane.kubectl(
        &[
            "get",
            "pods",
            "-n",
            NAMESPACE,
            "-o",
            "jsonpath={.items[*].spec.serviceAccountName}",
        ],
        None,
    );
    assert_eq!(pods.unwrap(), format!("{PACKAGE} {PACKAGE}"));

    // The objects that the catalog offers, as they are.
    plane.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}}).to_string());
    let csv = olm.csv(VERSION);
    let examples: Vec<Value> = serde_json::from_str(csv["metadata"]["annotations"]["alm-examples"].as_str().unwrap()).unwrap();
    assert!(examples.len() >= 2);
    for example in &examples {
        let said = plane.kubectl(&["apply", "--validate=strict", "-f", "-"], Some(&example.to_string()));
        said.unwrap_or_else(|error| panic!("{example}: {error}"));
    }
    ready(&plane, "main").await;
    println!("an example is ready {:?} after the Subscription", start.elapsed());
    let before = plane.object("ipxb", "", "main");
    let pod = "-l=app.kubernetes.io/instance=main";
    let address = plane
        .kubectl(
            &["get", "pods", "-n", NAMESPACE, pod, "-o", "jsonpath={.items[0].status.podIP}"],
            None,
        )
        .unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let script = client
        .get(format!("http://{address}:9876/ipxe-mac-boot/52-54-00-5a-00-02"))
        .send()
        .await
        .unwrap();
    let script = script.text().await.unwrap();
    assert!(script.contains("IpxeHostOverride lab/server-2-repair"), "{script}");

    // Two releases later the catalog has the newest version and no other.
    olm.serve(&[newer.path()]).await;
    olm.succeeded(NEXT).await;
    eventually("the version before is gone", SECOND * 60, async || olm.csv(VERSION).is_null()).await;
    eventually("operator and bridge run the new image", SECOND * 90, async || {
        let operators = images(&plane, "app.kubernetes.io/component=operator");
        let bridges = images(&plane, "app.kubernetes.io/instance=main");
        [operators, bridges]
            .iter()
            .all(|images| *images == [next_image.as_str(), next_image.as_str()])
    })
    .await;
    ready(&plane, "main").await;
    let after = plane.object("ipxb", "", "main");
    assert_eq!(
        (&after["metadata"]["uid"], &after["spec"]),
        (&before["metadata"]["uid"], &before["spec"])
    );
    plane
        .kubectl(
            &["patch", "ipxb", "main", "--type=merge", "-p", r#"{"spec":{"colour":"blue"}}"#],
            None,
        )
        .unwrap();
    assert_eq!(plane.object("ipxb", "", "main")["spec"]["colour"], "blue");
    // A field that this program does not know, as one that was there before meets it, is nothing to it.
    ready(&plane, "main").await;
    println!("upgraded {:?} after the Subscription", start.elapsed());

    // A catalog that has only the older version does not bring it back.
    olm.serve(&[now.path()]).await;
    let head = |name: &str| {
        let subscription = plane.object("subscription.operators.coreos.com", NAMESPACE, PACKAGE);
        subscription["status"]["currentCSV"] == format!("{PACKAGE}.v{name}")
            && subscription["status"]["installedCSV"] == subscription["status"]["currentCSV"]
    };
    olm.read().await;
    // Whatever follows from it follows within a second.
    tokio::time::sleep(SECOND * 3).await;
    assert!(head(NEXT) && olm.csv(VERSION).is_null());
    assert_eq!(olm.csv(NEXT)["status"]["phase"], "Succeeded");

    // Away with it, by the page: what users made stays, and machines go on booting.
    remove(&plane, &[" subscription.operators.coreos.com", " csv "]);
    eventually("the operator is gone", SECOND * 60, async || {
        plane.object("deployment", NAMESPACE, PACKAGE).is_null()
            && images(&plane, "app.kubernetes.io/component=operator").is_empty()
    })
    .await;
    for example in &examples {
        let (kind, meta) = (example["kind"].as_str().unwrap(), &example["metadata"]);
        let namespace = meta["namespace"].as_str().unwrap_or_default();
        assert!(
            !plane.object(kind, namespace, meta["name"].as_str().unwrap()).is_null(),
            "{example} is gone"
        );
    }
    assert_eq!(images(&plane, "app.kubernetes.io/instance=main").len(), 2);
    assert!(
        !plane.object("clusterrole", "", "ipxe-bridge-server").is_null(),
        "pods that go on need their role"
    );

    // A bundle that lacks a right: OLM cannot know, the bridge's status says which one.
    let lacking = written(&without_a_right(&bundle::files(&objects, LACKING)));
    olm.serve(&[lacking.path()]).await;
    olm.subscribe();
    olm.succeeded(LACKING).await;
    plane.bridge("other", json!({"uri": "http://boot.example.com"}));
    eventually("the missing right is told", SECOND * 60, async || {
        let [status, reason, message] = plane.condition("other", "Degraded");
        status == "True" && reason == "Forbidden" && message.contains("deployments")
    })
    .await;
    assert_eq!(plane.condition("other", "Ready")[0], "False");

    // Away with everything.
    remove(
        &plane,
        &[
            " ipxb ",
            " pod -A ",
            " subscription.operators.coreos.com",
            " csv ",
            "deploy/catalog/",
            " crd ",
            " clusterrole,",
            " operators.operators.coreos.com",
        ],
    );
    nothing_is_left(&plane).await;
    println!("all of it took {:?}", start.elapsed());
}
