//! Every file that users apply is taken by a real API server, without a warning, with the neighbours' real definitions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::bundle::documents;
use crate::support::control_plane::{CRDS, ControlPlane};
use crate::support::{require, tools};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What is no object for a cluster, with who reads it instead; `bundle.rs` asks both.
const LEFT: [(&str, &str); 2] = [
    (
        "config/scorecard/bases/config.yaml",
        "the scorecard's file: its own type takes it strictly, as a part of the bundle",
    ),
    (
        "deploy/catalog/ipxe-bridge-operator/catalog.yaml",
        "a catalog's data: opm validates it",
    ),
];

struct Site {
    plane: ControlPlane,
    kustomize: PathBuf,
}

impl Site {
    /// A control plane with all definitions and namespaces that our files name.
    async fn shared() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<Site>> = OnceCell::const_new();
        let start = || {
            let plane = ControlPlane::start()?;
            let tools = require("the programs around OLM", tools("olm"))?;
            plane.load_crds(Path::new(CRDS));
            // The API server warns of a definition only when it is new to it.
            let own = Path::new(ROOT).join("config/crd/bases");
            let arguments = ["apply", "--server-side", "--warnings-as-errors", "-f", own.to_str().unwrap()];
            plane.kubectl(&arguments, None).unwrap();
            plane.load_crds(&own);
            for project in fs::read_dir(tools.join("crds")).unwrap() {
                plane.load_crds(&project.unwrap().path());
            }
            let namespaces = "argocd flux-system ipxe-bridge ipxe-bridge-system lab edge olm openshift-marketplace";
            for name in namespaces.split(' ') {
                plane.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string());
            }
            Some(Self {
                plane,
                kustomize: tools.join("kustomize"),
            })
        };
        SHARED
            .get_or_init(|| async { tokio::task::spawn_blocking(start).await.unwrap() })
            .await
            .as_ref()
    }

    /// What the API server says to objects, on trial and in earnest.
    fn said(&self, objects: &[Value]) -> Result<String, String> {
        let yaml: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        let apply = |way: &str| {
            let arguments = [
                "apply",
                "--server-side",
                way,
                "--validate=strict",
                "--warnings-as-errors",
                "-f",
                "-",
            ];
            self.plane.kubectl(&arguments, Some(&yaml))
        };
        apply("--dry-run=server").and_then(|_| apply("--dry-run=none"))
    }

    fn build(&self, folder: &Path) -> String {
        let output = Command::new(&self.kustomize).arg("build").arg(folder).output().unwrap();
        assert!(
            output.status.success(),
            "{}: {}",
            folder.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Files below some folders that end so, by their path in the repository.
fn below(folders: &[&str], end: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in folders {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            match entry.path().is_dir() {
                true => found.extend(below(&[&path], end)),
                false if path.ends_with(end) => _ = found.insert(path),
                false => {}
            }
        }
    }
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_accepted_strictly_and_without_a_warning() {
    let Some(site) = Site::shared().await else {
        return;
    };
    let (mut refused, mut applied, mut left) = (Vec::new(), 0, BTreeSet::new());
    for path in below(&["config", "deploy", "bundle/manifests"], ".yaml") {
        if path.ends_with("/kustomization.yaml") {
            continue;
        }
        if let Some((name, _)) = LEFT.iter().find(|(name, _)| *name == path) {
            left.insert(*name);
            continue;
        }
        let mut objects = documents(&read(&path));
        for object in &mut objects {
            // Who tries a sample next year finds it at work.
            let end = object["spec"]["expiresAt"].as_str().unwrap_or("9");
            assert!(end > "2090", "{path} ends {end}");
            // The sample site has the ids that its cluster gave.
            object["metadata"].as_object_mut().map(|metadata| metadata.remove("uid"));
        }
        applied += objects.len();
        if let Err(said) = site.said(&objects) {
            refused.push(format!("{path}: {said}"));
        }
    }
    assert_eq!(refused, [""; 0]);
    assert!(applied > 50, "{applied}");
    assert_eq!(
        left,
        LEFT.iter().map(|(name, _)| *name).collect(),
        "left: left out, right: the list of it"
    );
    // They are read strictly.
    let wrong = read("config/samples/bridge.yaml").replace("  service:", "  servise:");
    assert!(site.said(&documents(&wrong)).unwrap_err().contains("servise"));
}

#[test]
fn the_replicas_of_the_bridge_without_an_operator_find_each_other_and_may_share_a_key() {
    let objects = documents(&read("deploy/server.yaml"));
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let deployment = of_kind("Deployment").next().unwrap();
    let (pod, namespace) = (&deployment["spec"]["template"]["spec"], &deployment["metadata"]["namespace"]);
    let server = &pod["containers"][0];
    let flags: Vec<&str> = server["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flag| flag.as_str().unwrap())
        .collect();
    let value = |flag: &str| flags[flags.iter().position(|other| *other == flag).unwrap() + 1];
    assert!(deployment["spec"]["replicas"].as_u64().unwrap() > 1);
    assert!(!server["env"].to_string().contains("BOOT_KEYS") && !server["env"].to_string().contains("PEERS"));

    let mount = &server["volumeMounts"][0];
    assert_eq!(mount["mountPath"], value("--boot-keys"));
    let volume = &pod["volumes"][0];
    assert_eq!(
        (&volume["name"], &volume["secret"]["optional"]),
        (&mount["name"], &json!(true))
    );
    let made = format!(
        "kubectl create secret generic {} -n {} ",
        volume["secret"]["secretName"].as_str().unwrap(),
        namespace.as_str().unwrap()
    );
    assert!(read("deploy/server.yaml").contains(&made), "{made}");

    let peers = of_kind("Service")
        .find(|service| service["spec"]["clusterIP"] == "None")
        .unwrap();
    let (name, port) = (peers["metadata"]["name"].as_str().unwrap(), &peers["spec"]["ports"][0]);
    assert_eq!(
        value("--peers"),
        format!("{name}.{}.svc:{}", namespace.as_str().unwrap(), port["port"])
    );
    assert_eq!(peers["metadata"]["namespace"], *namespace);
    assert_eq!(peers["spec"]["publishNotReadyAddresses"], true, "also those that drain");
    assert_eq!(peers["spec"]["selector"], deployment["spec"]["selector"]["matchLabels"]);
    let ports = server["ports"].as_array().unwrap();
    let target = ports.iter().find(|named| named["name"] == port["targetPort"]).unwrap();
    assert_eq!(target["containerPort"], port["port"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_overlay_is_built_by_kustomize_and_accepted() {
    let Some(site) = Site::shared().await else {
        return;
    };
    let mut built = 0;
    for path in below(&["config", "deploy"], "kustomization.yaml") {
        let Some(folder) = path.strip_suffix("/kustomization.yaml") else {
            continue;
        };
        let text = site.build(&Path::new(ROOT).join(folder));
        built += 1;
        // Inputs of the bundle, which is applied as a whole.
        if ["config/manifests", "config/scorecard"].contains(&folder) {
            continue;
        }
        // A user of this folder says in which namespace with --namespace, or Argo CD and Flux do.
        let mut objects = documents(&text);
        if folder == "deploy/gitops/site" {
            objects
                .iter_mut()
                .for_each(|object| object["metadata"]["namespace"] = json!("lab"));
        }
        site.said(&objects).unwrap_or_else(|said| panic!("{folder}: {said}"));
    }
    assert!(built >= 10, "{built}");
    // Its objects, applied at once, are what the plain file has.
    let text = site.build(&Path::new(ROOT).join("config/default"));
    let install = read("deploy/install.yaml");
    assert_eq!(
        install.split_once('\n').unwrap().1,
        text,
        "left: deploy/install.yaml, right: kustomize build config/default"
    );
    site.plane.apply(&text);
    // The operator alone, as the way back has it, and from a registry of the site's own: always two images, the operator's and the bridges'.
    let images_of = |folder: &str| images(&site.build(&Path::new(ROOT).join(folder)));
    let published = images(&install);
    assert_eq!(images_of("config/manager"), published);
    let mirrored = published
        .iter()
        .map(|image| image.replacen("quay.io/", "registry.example.com:5000/", 1));
    assert_eq!(images_of("deploy/disconnected"), mirrored.collect::<Vec<_>>());
}

#[test]
fn the_sites_script_is_for_the_account_of_the_bridge_that_git_has_too() {
    let find = |path: &str, kind: &str| {
        let objects = documents(&read(path));
        let found = objects.into_iter().find(|object| object["kind"] == kind);
        found.unwrap_or_else(|| panic!("{path} has no {kind}"))
    };
    let bridge = find("deploy/gitops/operator/bridge.yaml", "IpxeBridge");
    let operator = find("deploy/gitops/operator/subscription.yaml", "Subscription");
    assert!(bridge["spec"]["namespace"].is_null());
    let account = ipxe_bridge::operator::name::object(bridge["metadata"]["name"].as_str().unwrap());
    assert_eq!(
        find("deploy/gitops/site/overrides.yaml", "RoleBinding")["subjects"],
        json!([{"kind": "ServiceAccount", "name": account, "namespace": operator["metadata"]["namespace"]}])
    );
}

/// The images of the operator and of its bridges.
fn images(yaml: &str) -> Vec<String> {
    let operator = documents(yaml)
        .into_iter()
        .find(|object| object["kind"] == "Deployment")
        .unwrap();
    let container = &operator["spec"]["template"]["spec"]["containers"][0];
    let variables = container["env"].as_array().unwrap();
    let bridges = variables
        .iter()
        .find(|variable| variable["name"] == "RELATED_IMAGE_IPXE_BRIDGE");
    let images = [&container["image"], &bridges.unwrap()["value"]];
    images.map(|image| image.as_str().unwrap().to_owned()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_installer_of_olm_v1_may_make_and_remove_everything_and_no_more_than_it_needs() {
    let Some(site) = Site::shared().await else {
        return;
    };
    site.plane.apply(&read("deploy/olm-v1/installer.yaml"));
    let account = "--as=system:serviceaccount:ipxe-bridge-system:ipxe-bridge-installer";
    let objects: Vec<Value> = documents(&read("deploy/install.yaml"));
    // OLM v1 makes no namespace.
    let made: String = objects
        .iter()
        .filter(|object| object["kind"] != "Namespace")
        .map(|object| format!("---\n{object}\n"))
        .collect();
    // For a moment as the installer, not as an administrator: the API server lets nobody give away a right that he does not hold.
    let arguments = ["apply", "--server-side", "--force-conflicts", account, "-f", "-"];
    site.plane.kubectl(&arguments, Some(&made)).unwrap();
    for kind in ["deployment", "clusterrole", "clusterrolebinding", "serviceaccount", "crd"] {
        let said = site
            .plane
            .kubectl(&["auth", "can-i", "delete", kind, account, "-n", "ipxe-bridge-system"], None);
        assert_eq!(said.unwrap().trim(), "yes", "{kind}");
    }
    for (verb, kind) in [
        ("delete", "namespaces"),
        ("delete", "secrets"),
        ("create", "pods"),
        ("escalate", "clusterroles"),
    ] {
        let said = site.plane.kubectl(&["auth", "can-i", verb, kind, account, "-A"], None);
        assert!(said.is_err(), "{verb} {kind}");
    }
}
