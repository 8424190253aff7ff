//! What a bridge is told to leave out, to change, or to ask elsewhere.

use std::time::Duration;

use reqwest::Url;

use crate::cluster::{account, blocking, create_environment, create_host};
use crate::support::bridge::{Bridge, eventually};
use crate::support::control_plane::ControlPlane;
use crate::support::site::Site;
use crate::upstream_service::EnvironmentSpec;

const SECOND: Duration = Duration::from_secs(1);
const MAC: &str = "52:54:00:cc:00:01";
const UNKNOWN: &str = "52:54:00:cc:00:99";

#[tokio::test]
async fn kernel_arguments_are_taken_away_exchanged_and_added() {
    let site = Site::start().await;
    let spec = EnvironmentSpec {
        kernel_arguments: vec!["p1".to_owned(), "p2".to_owned()],
        ..crate::support::site::environment("a", "lab")
    };
    site.upstream.set_environment(spec);
    let bridge = site
        .bridge(&[
            "--kernel-arguments-removed",
            "p1 random.trust_cpu",
            "--kernel-arguments-replaced",
            "console=tty1 console=tty9",
            "--kernel-arguments",
            "last=1",
        ])
        .await;
    let script = bridge.script(MAC).await;
    let kernel = script.lines().find(|line| line.starts_with("kernel ")).unwrap();
    assert!(
        kernel.contains(" console=tty9 ") && kernel.contains(" p2 last=1 || goto"),
        "{kernel}"
    );
    assert!(!kernel.contains("random.trust_cpu") && !kernel.contains(" p1 "), "{kernel}");
}

#[tokio::test]
async fn the_default_environment_can_be_named() {
    let site = Site::start().await;
    site.environment("c", "own", "{}", false);
    let labelled = site.bridge(&[]).await;
    assert!(labelled.script_has(UNKNOWN, "/boot-artifacts/kernel/a/lab").await);
    let named = site.bridge(&["--default-environment", "c/own"]).await;
    assert!(named.script_has(UNKNOWN, "/boot-artifacts/kernel/c/own").await);
    // One that is not there is no reason to take another.
    let nowhere = site.bridge(&["--default-environment", "c/nowhere"]).await;
    assert!(nowhere.script_has(UNKNOWN, "shell").await);
}

#[tokio::test]
async fn a_host_of_upstream_can_be_asked_elsewhere() {
    let site = Site::start().await;
    let origin = Url::parse(&site.upstream.url()).unwrap();
    let address = format!("http://{}:{}", origin.host_str().unwrap(), origin.port().unwrap());
    let public = site
        .infra_env("a", "lab", "{}", false)
        .replace(&address, "https://images.invalid");
    assert!(public.contains("https://images.invalid"), "{public}");
    site.write("env-a-lab.yaml", &public);
    let bridge = site.bridge(&["--upstream-host", &format!("images.invalid={address}")]).await;
    assert!(bridge.script_has(MAC, "/boot-artifacts/kernel/a/lab").await);
    let kernel = bridge.get("/boot-artifacts/kernel/a/lab").await;
    assert_eq!((kernel.status.as_u16(), kernel.body.len()), (200, 300_000));
    // The other way round, to see that it is this setting.
    let bridge = site.bridge(&["--upstream-host", &format!("other.invalid={address}")]).await;
    assert_eq!(bridge.get("/boot-artifacts/kernel/a/lab").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_chosen_namespaces_and_environments_count() {
    let Some(plane) = blocking(ControlPlane::shared).await else {
        return;
    };
    let site = Site::with(Default::default()).await;
    for (namespace, name) in [("choice-in", "lab"), ("choice-in", "other"), ("choice-out", "lab")] {
        site.environment(namespace, name, "{}", false);
        create_environment(plane, &site, namespace, name);
    }
    let (inside, outside, other) = ("52:54:00:a2:00:01", "52:54:00:a2:00:02", "52:54:00:a2:00:03");
    create_host(plane, "choice-in", "n1", inside, Some("lab"));
    create_host(plane, "choice-in", "n3", other, Some("other"));
    create_host(plane, "choice-out", "n2", outside, Some("lab"));
    let label = |kind: &str, name: &str, namespace: &str, label: &str| {
        plane
            .kubectl(&["label", "--overwrite", kind, name, "-n", namespace, label], None)
            .unwrap();
    };
    label("namespace", "choice-in", "default", "choice=in");
    label("namespace", "choice-out", "default", "choice=out");
    label("infraenv", "lab", "choice-in", "served=yes");
    label("infraenv", "lab", "choice-out", "served=yes");

    let kubeconfig = account(plane, "choice-in", true);
    let arguments = [
        "--namespace-selector",
        "choice in (in,both)",
        "--environment-selector",
        "served=yes",
    ];
    let bridge = Bridge::start_with(&arguments, &[("KUBECONFIG", &kubeconfig)]).await;
    bridge.wait_ready().await;
    assert!(bridge.script_has(inside, "/boot-artifacts/kernel/choice-in/lab").await);
    assert!(bridge.script_has(outside, "shell").await, "its namespace is not chosen");
    assert!(
        !bridge.script_has(other, "/boot-artifacts/kernel/").await,
        "its environment is not chosen"
    );
    label("namespace", "choice-out", "default", "choice=both");
    eventually("a namespace that is chosen now", SECOND, async || {
        bridge.script_has(outside, "/boot-artifacts/kernel/choice-out/lab").await
    })
    .await;
    label("namespace", "choice-in", "default", "choice=no");
    eventually("one that is not any more", SECOND, async || {
        bridge.script_has(inside, "shell").await
    })
    .await;
    for namespace in ["choice-in", "choice-out"] {
        plane
            .kubectl(&["delete", "baremetalhost", "--all", "-n", namespace, "--wait=false"], None)
            .unwrap();
    }
}
