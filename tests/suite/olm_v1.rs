//! A disconnected site with OLM v1: images are copied to the site's registry as the installation page says, the registry of the Internet is taken
//! away, and the operator is installed, runs a bridge, goes to its next version, and is removed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::install::{commands, nothing_is_left, remove};
use crate::olm::{Edge, NEXT, images as images_of_pods, next, ready, written};
use crate::support::bridge::eventually;
use crate::support::bundle::{self, Entries, PACKAGE, documents};
use crate::support::control_plane::{CRDS, ControlPlane};
use crate::support::images::{Registry, Store};
use crate::support::node::Node;
use crate::support::olm_v1::{OlmV1, is_true};
use crate::support::operator::NAMESPACE;
use crate::support::{require, tools};

const SECOND: Duration = Duration::from_secs(1);
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Where our images are published, and what the documents call the site's registry.
const PUBLISHED: &str = "quay.io/ipxe-bridge";
const SITE: &str = "registry.example.com:5000";
const LIST: &str = "deploy/disconnected/images.txt";
const CATALOG: &str = "deploy/catalog/Dockerfile";

/// The images of the list for mirrors, in its order: operator and bridges, bundle, catalog. By a tag, to be built: a released list has a digest.
fn images() -> Vec<String> {
    let list = fs::read_to_string(Path::new(ROOT).join(LIST)).unwrap();
    list.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| match line.split_once('@') {
            Some((name, _)) => format!("{name}:{}", env!("CARGO_PKG_VERSION")),
            None => line.to_owned(),
        })
        .collect()
}

/// Builds every image as a release does, and publishes it: the references by digest.
fn publish(store: &Store, opm: &Path, registry: &Registry) -> Vec<String> {
    let images = images();
    let [program, bundle, catalog] = images.as_slice() else {
        panic!("{images:?}");
    };
    store.build_program(program);
    store.buildah(&["build", "-t", bundle, "-f", "bundle.Dockerfile", "."]);
    // The base image of catalogs is this program, at this place.
    let text = fs::read_to_string(Path::new(ROOT).join(CATALOG)).unwrap();
    let base = text.lines().rev().find_map(|line| line.strip_prefix("FROM ")).unwrap();
    let container = store.buildah(&["from", "scratch"]);
    store.buildah(&["copy", container.trim(), opm.to_str().unwrap(), "/bin/opm"]);
    store.buildah(&["commit", container.trim(), base]);
    build_catalog(store, catalog, "deploy/catalog");
    images.iter().map(|image| push(store, image, registry)).collect()
}

fn build_catalog(store: &Store, tag: &str, folder: &str) {
    // As the Makefile says it.
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let platform = format!("BUILDPLATFORM=linux/{architecture}");
    store.buildah(&[
        "build",
        "--pull=never",
        "--build-arg",
        &platform,
        "-t",
        tag,
        "-f",
        CATALOG,
        folder,
    ]);
}

/// Pushes an image: its reference by digest.
fn push(store: &Store, image: &str, registry: &Registry) -> String {
    let file = store.folder().join("digest");
    let there = format!("docker://{}/{}", registry.name(), image.split_once('/').unwrap().1);
    store.buildah(&[
        "push",
        "--tls-verify=false",
        "--digestfile",
        file.to_str().unwrap(),
        image,
        &there,
    ]);
    let digest = fs::read_to_string(&file).unwrap();
    format!("{}@{}", image.rsplit_once(':').unwrap().0, digest.trim())
}

/// A bundle of the next version and a catalog with it alone, as a release makes it, in the site's registry: the catalog's name.
fn publish_next(store: &Store, tools: &Path, next: &[Value], registry: &Registry) -> String {
    let [_, bundle, catalog] = images().try_into().unwrap();
    let tagged = |image: &str, tag: &str| format!("{}:{tag}", image.rsplit_once(':').unwrap().0);
    let (bundle, catalog) = (tagged(&bundle, &format!("v{NEXT}")), tagged(&catalog, "next"));
    let files = written(&bundle::files(next, NEXT));
    let folder = |path: &str| files.path().join(path).to_str().unwrap().to_owned();
    store.buildah(&["build", "-t", &bundle, "-f", &folder("bundle.Dockerfile"), &folder("")]);
    let text = bundle::catalog_text(tools, &[files.path()], &Entries::Published);
    fs::create_dir(folder(PACKAGE)).unwrap();
    fs::write(folder(PACKAGE) + "/catalog.yaml", text).unwrap();
    build_catalog(store, &catalog, &folder(""));
    push(store, &bundle, registry);
    push(store, &catalog, registry);
    catalog
}

/// What OpenShift writes to its nodes for `deploy/disconnected/mirror.yaml`, with another registry in place of the sample's.
fn mirrors(registry: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join("deploy/disconnected/mirror.yaml")).unwrap();
    let mut lines = format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n");
    for set in documents(&text) {
        let (field, way) = match set["kind"].as_str().unwrap() {
            "ImageDigestMirrorSet" => ("imageDigestMirrors", "digest-only"),
            "ImageTagMirrorSet" => ("imageTagMirrors", "tag-only"),
            other => panic!("{other}"),
        };
        let mirrors = &set["spec"][field][0];
        assert_eq!(mirrors["source"], PUBLISHED);
        assert_eq!(mirrors["mirrorSourcePolicy"], "NeverContactSource");
        if !lines.contains(PUBLISHED) {
            lines += &format!("[[registry]]\nlocation = \"{PUBLISHED}\"\nblocked = true\n");
        }
        let mirror = mirrors["mirrors"][0].as_str().unwrap().replace(SITE, registry);
        lines += &format!("[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true\npull-from-mirror = \"{way}\"\n");
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_without_the_internet_installs_from_its_own_registry_with_olm_v1_and_nothing_stays() {
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    let Some(_controllers) = plane.start_controllers() else {
        return;
    };
    let (Some(olm), Some(olm_v1), Some(store)) = (
        require("the programs around OLM", tools("olm")),
        require("the programs around OLM v1", tools("olm-v1")),
        Store::new(),
    ) else {
        return;
    };
    let Some(objects) = bundle::rendered("config/manifests") else {
        return;
    };
    let program = Path::new(env!("CARGO_BIN_EXE_ipxe-bridge"));
    let (now_image, (next_objects, next_image)) = (bundle::image(&objects), next(&objects, Edge::Replaces));
    let Some(_node) = Node::start(&plane, &[(&now_image, program), (&next_image, program)]).await else {
        return;
    };
    plane.load_crds(Path::new(CRDS));

    // A machine that reaches both registries copies, with the command of the page.
    let (internet, site) = (Registry::start(&olm_v1), Registry::start(&olm_v1));
    let digests = tokio::task::block_in_place(|| publish(&store, &olm.join("opm"), &internet));
    store.registries(&format!(
        "[[registry]]\nprefix = \"{PUBLISHED}\"\nlocation = \"{}/ipxe-bridge\"\ninsecure = true\n[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
        internet.name(),
        site.name()
    ));
    let copy = commands("docs/install.md", "grep ");
    assert_eq!(copy.len(), 1, "{copy:?}");
    // A released list has digests too.
    let list = store.folder().join("images.txt");
    fs::write(&list, format!("# A list.\n{}\n{}\n", images().join("\n"), digests.join("\n"))).unwrap();
    let copy = copy[0].replace(LIST, list.to_str().unwrap()).replace(SITE, &site.name());
    let copied = tokio::task::block_in_place(|| {
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", &copy])
            .env("HOME", store.folder())
            .current_dir(ROOT)
            .output()
            .unwrap()
    });
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    // From here on there is the site's registry alone.
    drop(internet);
    store.registries(&mirrors(&site.name()));
    for reference in images().iter().chain(&digests) {
        store.buildah(&["pull", "--policy=always", "--quiet", reference]);
    }

    let start = Instant::now();
    let _olm = OlmV1::start(&plane, &olm_v1, store.folder());
    for file in ["installer", "install"] {
        let path = format!("{ROOT}/deploy/olm-v1/{file}.yaml");
        // Until the webhook of OLM listens it takes no catalog.
        eventually(&format!("{file}.yaml is taken"), SECOND * 30, async || {
            plane.kubectl(&["apply", "--server-side", "-f", &path], None).is_ok()
        })
        .await;
    }
    let extension = || plane.object("clusterextension", "", "ipxe-bridge-operator");
    eventually("it is installed", SECOND * 90, async || is_true(&extension(), "Installed")).await;
    println!("installed {:?} after OLM v1 was started", start.elapsed());
    let installed = || extension()["status"]["install"]["bundle"]["version"].clone();
    assert_eq!(installed(), env!("CARGO_PKG_VERSION"));

    // The operator works with the rights that the installer gave it.
    plane.bridge("main", json!({"service": {"type": "LoadBalancer"}}));
    ready(&plane, "main").await;
    println!("a bridge is ready {:?} after OLM v1 was started", start.elapsed());
    let before = plane.object("ipxb", "", "main");

    // OLM v1 goes to the next version if its definitions do nothing to the objects that are there.
    let catalog = tokio::task::block_in_place(|| publish_next(&store, &olm, &next_objects, &site));
    let patch = json!({"spec": {"source": {"image": {"ref": catalog}}}}).to_string();
    let arguments = ["patch", "clustercatalog", "ipxe-bridge", "--type=merge", "-p", &patch];
    plane.kubectl(&arguments, None).unwrap();
    eventually("the next version is installed", SECOND * 90, async || installed() == NEXT).await;
    eventually("the bridge runs the new image", SECOND * 90, async || {
        images_of_pods(&plane, "app.kubernetes.io/instance=main") == [next_image.as_str(), next_image.as_str()]
    })
    .await;
    ready(&plane, "main").await;
    let after = plane.object("ipxb", "", "main");
    assert_eq!(
        (&after["metadata"]["uid"], &after["spec"]),
        (&before["metadata"]["uid"], &before["spec"])
    );
    println!("upgraded {:?} after OLM v1 was started", start.elapsed());

    // Removed in the order of the page: nothing is left.
    plane.kubectl(&["delete", "ipxb", "main"], None).unwrap();
    for kind in ["deployment", "service"] {
        eventually(&format!("the bridge's {kind} is gone"), SECOND * 90, async || {
            plane.object(kind, NAMESPACE, "main-ipxe-bridge").is_null()
        })
        .await;
    }
    remove(&plane, &[" clusterextension "]);
    eventually("what the bundle brought is gone", SECOND * 90, async || {
        let left = plane.kubectl(&["get", "crd,clusterrole", "-o", "name"], None).unwrap();
        let mut of_bundle = left.lines().filter(|name| name.contains("ipxe"));
        of_bundle.all(|name| name.ends_with("ipxe-bridge-installer"))
    })
    .await;
    remove(&plane, &["deploy/olm-v1/"]);
    nothing_is_left(&plane).await;
}
