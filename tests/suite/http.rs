//! Routes, decisions and bad input over real sockets, against the sample upstream.

use std::time::Duration;

use reqwest::Method;

use crate::support::bridge::{Bridge, eventually, without_ids, write};
use crate::support::site::{Site, id, registered};
use crate::upstream_service::{EnvironmentSpec, Target};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_machine_gets_the_script_of_its_environment_in_every_spelling_of_its_address() {
    let site = Site::start().await;
    let bridge = site.bridge(&["--uri", "http://boot.example.com:9876/"]).await;
    for mac in [
        "52:54:00:cc:00:01",
        "52-54-00-CC-00-01",
        "5254.00cc.0001",
        "525400cc0001",
        "52%3A54%3A00%3Acc%3A00%3A01",
        "%2052:54:00:cc:00:01",
    ] {
        let answer = bridge.get(&format!("/ipxe-mac-boot/{mac}")).await;
        assert_eq!(answer.status, 200, "{mac}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("ipxe-bridge-rule"), "BareMetalHost");
        let script = without_ids(answer.text());
        assert!(script.starts_with("#!ipxe\n"), "{script}");
        let lines = [
            "initrd --name initrd http://boot.example.com:9876/boot-artifacts/initrd/a/lab || goto ipxe_bridge_failed\n",
            "kernel --name kernel http://boot.example.com:9876/boot-artifacts/kernel/a/lab initrd=initrd \
             coreos.live.rootfs_url=http://boot.example.com:9876/boot-artifacts/rootfs/a/lab random.trust_cpu=on rd.luks.options=discard \
             ignition.firstboot ignition.platform.id=metal console=tty1 console=ttyS1,115200n8 \
             coreos.inst.persistent-kargs=\"console=tty1 console=ttyS1,115200n8\" || goto ipxe_bridge_failed\n",
            "boot || goto ipxe_bridge_failed\n",
        ];
        assert!(script.contains(&lines.concat()), "{script}");
    }
}

#[tokio::test]
async fn every_get_answers_head_with_the_same_headers() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    for path in [
        "/",
        "/hosts/52:54:00:cc:00:01",
        "/page.css",
        "/page.js",
        "/icon.svg",
        "/healthz",
        "/livez",
        "/readyz",
        "/boot.ipxe",
        "/autoexec.ipxe",
        "/ipxe-boot",
        "/ipxe-mac-boot/52:54:00:cc:00:01",
        "/inventory",
        "/explain/52:54:00:cc:00:01",
        "/boots",
        "/boots/52:54:00:cc:00:77",
        "/openapi.json",
        "/boot-artifacts/kernel/a/lab",
        "/boot-artifacts/rootfs/b/lab",
        "/boot-artifacts/ipxeScript/a/lab",
        "/ipxe-mac-boot/nonsense",
    ] {
        let get = bridge.get(path).await;
        let head = bridge.ask(Method::HEAD, path, &[]).await;
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        for name in ["content-type", "content-length", "etag", "last-modified", "accept-ranges"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
}

#[tokio::test]
async fn the_policy_for_unknown_hosts_decides_where_nothing_else_does() {
    let site = Site::start().await;
    site.remove("env-a-lab.yaml");
    let unknown = "/ipxe-mac-boot/52:54:00:ff:00:01";

    let bridge = site.bridge(&[]).await;
    let answer = bridge.get(unknown).await;
    assert!(answer.text().ends_with("dhcp\nshell\n"), "{}", answer.text());
    assert_eq!(answer.header("ipxe-bridge-rule"), "UnknownHost");

    let bridge = site.bridge(&["--unknown-hosts", "LocalDisk", "--local-disk", "Exit"]).await;
    assert!(bridge.get(unknown).await.text().ends_with("\nexit 1\n"));

    let bridge = site.bridge(&["--unknown-hosts", "notfound"]).await;
    let answer = bridge.get(unknown).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, "nothing-to-boot"));

    let bridge = site.bridge(&["--unknown-hosts", "Wait"]).await;
    let answer = bridge.get(unknown).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"));

    site.environment(
        "a",
        "lab",
        "pxe-bridge-default.infraenvs.agent-install.openshift.io: 'true'",
        false,
    );
    eventually("the default environment serves it", SECOND, async || {
        bridge.script_has("52:54:00:ff:00:01", "/kernel/a/lab").await
    })
    .await;
}

#[tokio::test]
async fn upstream_is_asked_with_the_address_and_has_the_last_word() {
    let site = Site::start().await;
    let mac = "52:54:00:cc:00:02";
    let bridge = site.bridge(&["--unknown-hosts", "LocalDisk"]).await;
    let set = |hosts| site.upstream.set_hosts(&id("b", "lab"), hosts);

    // Every row of what assisted-service answers for a MAC address.
    set(vec![]);
    assert!(bridge.script_has(mac, "/boot-artifacts/kernel/b/lab").await);
    for state in [
        "known",
        "insufficient",
        "error",
        "installing",
        "installing-pending-user-action",
        "added-to-existing-cluster",
    ] {
        set(vec![registered("n2", mac, state, "")]);
        assert!(bridge.script_has(mac, "/boot-artifacts/kernel/b/lab").await, "{state}");
    }
    for stage in [
        "Starting installation",
        "Writing image to disk",
        "Waiting for control plane",
        "Failed",
    ] {
        set(vec![registered("n2", mac, "installing-in-progress", stage)]);
        assert!(bridge.script_has(mac, "/boot-artifacts/kernel/b/lab").await, "{stage}");
    }
    for (state, stage) in [
        ("installed", "Done"),
        ("installing-in-progress", "Rebooting"),
        ("installing-in-progress", "Waiting for ignition"),
        ("installing-in-progress", "Configuring"),
        ("installing-in-progress", "Joined"),
        ("installing-in-progress", "Done"),
    ] {
        set(vec![registered("n2", mac, state, stage)]);
        let script = bridge.script(mac).await;
        assert!(
            script.contains("boots its own disk") && script.ends_with("sanboot --no-describe --drive 0x80\n"),
            "{state} {stage}: {script}"
        );
        let explained = bridge.get(&format!("/explain/{mac}")).await.json();
        assert!(explained["upstream"].as_str().unwrap().contains("host-n2"), "{explained}");
    }
    set(vec![registered("x", mac, "known", ""), registered("y", mac, "known", "")]);
    let script = bridge.script(mac).await;
    assert!(
        script.contains("a person must decide") && script.contains("Unexpected number of hosts 2"),
        "{script}"
    );
    assert!(
        !script.contains("exit") && !script.contains("sanboot"),
        "a machine that stops does not boot its disk: {script}"
    );

    // The same with Agents to read: both are named.
    site.agent("b", "host-x", mac, "known", "Discovering");
    site.agent("b", "host-y", mac, "known", "Discovering");
    eventually("both are named", SECOND, async || {
        bridge.script_has(mac, "Agents b/host-x and b/host-y").await
    })
    .await;
}

#[tokio::test]
async fn agents_decide_where_there_are_any() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    let mac = "52:54:00:cc:00:01";
    site.upstream.clear_log();
    site.agent("a", "one", mac, "installing-in-progress", "Writing image to disk");
    eventually("the agent is read", SECOND, async || {
        bridge
            .get(&format!("/explain/{mac}"))
            .await
            .text()
            .contains("Writing image to disk")
    })
    .await;
    assert!(bridge.script_has(mac, "/boot-artifacts/kernel/a/lab").await);
    assert!(bridge.script_has(mac, "/boot-artifacts/kernel/a/lab").await);
    let mut asked = site.upstream.requests();
    asked.retain(|request| !request.path_and_query.contains("mac="));
    assert_eq!(asked.len(), 1, "one fetch serves all: {asked:?}");

    site.agent("a", "one", mac, "installed", "Done");
    let disk = async || bridge.script_has(mac, "boots its own disk").await;
    eventually("an installed machine boots its disk", SECOND, disk).await;
    site.agent("a", "one", mac, "error", "Rebooting");
    let discovery = async || bridge.script_has(mac, "/boot-artifacts/kernel/a/lab").await;
    eventually("a failed one its environment", SECOND, discovery).await;
    // An older twin that says otherwise: nobody guesses.
    site.agent("a", "two", mac, "installed", "Done");
    eventually("agents that disagree stop it", SECOND, async || {
        bridge.script_has(mac, "disagree whether its disk is to boot").await
    })
    .await;

    let always = site.bridge(&["--boot-policy", "Always"]).await;
    assert!(
        always.script_has(mac, "/boot-artifacts/kernel/a/lab").await,
        "Always is always"
    );
    let upstream = site.bridge(&["--boot-policy", "Upstream"]).await;
    site.upstream
        .set_hosts(&id("a", "lab"), vec![registered("n1", mac, "installed", "Done")]);
    assert!(
        upstream.script_has(mac, "boots its own disk").await,
        "Upstream asks, whatever the agents say"
    );
}

#[tokio::test]
async fn the_first_known_card_of_a_machine_counts() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    let unknown = "52-54-00-ff-00-01";
    let nics = |nics: &str| format!("/ipxe-mac-boot/{unknown}?nics={nics}");
    let script = bridge.get(&nics("52-54-00-ff-00-01,52-54-00-cc-00-02,,,")).await;
    assert!(
        script.text().contains("52:54:00:cc:00:02 boots InfraEnv b/lab"),
        "{}",
        script.text()
    );
    let script = bridge.get(&nics("52-54-00-ff-00-01,,,")).await;
    assert!(script.text().contains("is the default environment"), "{}", script.text());
    let bootstrap = bridge.get("/boot.ipxe").await;
    assert_eq!(bootstrap.body, bridge.get("/autoexec.ipxe").await.body);
    assert!(
        bootstrap
            .text()
            .contains("chain --replace --autofree ipxe-mac-boot/${netX/mac:hexhyp}?nics=${net0/mac:hexhyp},")
    );
    let dispatch = bridge.get("/ipxe-boot").await.text().to_owned();
    let host = dispatch
        .find("iseq ${net${idx}/mac} 52:54:00:cc:00:02 && goto host ||")
        .expect("the host is looked up");
    assert!(
        host < dispatch.find(":host").unwrap() && host < dispatch.find(":default").unwrap(),
        "{dispatch}"
    );
}

#[tokio::test]
async fn the_environments_own_kernel_arguments_and_the_bridges_come_in_this_order() {
    let site = Site::start().await;
    let spec = EnvironmentSpec {
        kernel_arguments: vec!["p1".to_owned(), "p3=\"this is  an argument\"".to_owned()],
        ..crate::support::site::environment("a", "lab")
    };
    site.upstream.set_environment(spec);
    let bridge = site.bridge(&["--kernel-arguments", "console=ttyS0 --x"]).await;
    let script = bridge.script("52:54:00:cc:00:01").await;
    let tail = "coreos.inst.persistent-kargs=\"console=tty1 console=ttyS1,115200n8\" p1 p3=\"this is  an argument\" console=ttyS0 --x || goto";
    assert!(script.contains(tail), "{script}");
}

#[tokio::test]
async fn upstreams_own_script_is_served_unchanged_where_that_was_asked_for() {
    let site = Site::start().await;
    let bridge = site.bridge(&["--script-proxy"]).await;
    let answer = bridge.get("/ipxe-mac-proxy/52:54:00:cc:00:01").await;
    let url = format!(
        "{}&mac=52:54:00:cc:00:01",
        site.upstream.url_of(&id("a", "lab"), Target::Script).unwrap()
    );
    let own = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body), (200, own.to_vec()));
    site.upstream.set_hosts(
        &id("a", "lab"),
        vec![registered("n1", "52:54:00:cc:00:01", "installed", "Done")],
    );
    let answer = bridge.get("/ipxe-mac-proxy/52:54:00:cc:00:01").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, "nothing-to-boot"));
}

#[tokio::test]
async fn the_python_bridges_variables_still_work() {
    let site = Site::start().await;
    let files = tempfile::tempdir().unwrap();
    write(&files.path().join("52-54-00-dd-00-01"), "#!ipxe\nshell\n");
    let folder = site.path().to_str().unwrap().to_owned();
    let bridge = Bridge::start_with(
        &["--manifests", &folder],
        &[
            ("FLASK_URI", "http://old.example.com:9876"),
            ("ADDITIONAL_HOST_CONFIG_PATH", files.path().to_str().unwrap()),
            ("LOOP_TIMING", "30"),
            ("FLASK_TLS_CERT", ""),
        ],
    )
    .await;
    bridge.wait_ready().await;
    assert!(
        bridge
            .script_has("52:54:00:cc:00:01", "http://old.example.com:9876/boot-artifacts/")
            .await
    );
    assert_eq!(bridge.script("52:54:00:dd:00:01").await, "#!ipxe\nshell\n");
    let both = Bridge::start_with(
        &["--manifests", &folder],
        &[
            ("FLASK_URI", "http://old.example.com"),
            ("IPXE_BRIDGE_URI", "http://new.example.com"),
        ],
    )
    .await;
    both.wait_ready().await;
    assert!(
        both.script_has("52:54:00:cc:00:01", "http://new.example.com/boot-artifacts/")
            .await,
        "today's name wins"
    );
}
