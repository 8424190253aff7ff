//! Real machines: QEMU with Debian's iPXE, BIOS and UEFI, boot through the bridge.

use std::time::Duration;

use crate::support::bridge::{Bridge, eventually};
use crate::support::control_plane::ControlPlane;
use crate::support::disk::{MARKER, disk_bios, disk_uefi};
use crate::support::qemu::{Console, Firmware, Guest, HOST, Wire, payload};
use crate::support::site::{Site, id};
use crate::upstream_service::{Content, Fault, Options, Target};

const MAC: &str = "52:54:00:cc:00:01";
/// The guest speaks on the first serial line; upstream's own arguments name the second.
pub const CONSOLE: [&str; 2] = ["--kernel-arguments", "console=ttyS0 quiet"];

/// A site whose kernel and initrd boot; `None` where the machine cannot run guests, which was then said.
pub async fn site() -> Option<Site> {
    let payload = tokio::task::spawn_blocking(payload).await.unwrap()?;
    let site = Site::with(Options {
        kernel: Content::file(&payload.kernel),
        initrd: Content::file(&payload.initrd),
        rootfs: Content::random(20_000_000, 7),
        ..Options::default()
    })
    .await;
    site.environment("a", "lab", "{}", false);
    site.host("a", "n1", MAC, Some("lab"));
    Some(site)
}

pub async fn boot(guest: Guest) -> Console {
    tokio::task::spawn_blocking(move || guest.boot()).await.unwrap()
}

fn url(bridge: &Bridge, path: &str) -> String {
    format!("http://{HOST}:{}{path}", bridge.port())
}

/// The guest ran the right kernel with the right command line, and got the whole rootfs.
fn assert_booted(site: &Site, bridge: &Bridge, console: &Console) {
    let rootfs = site.upstream.content(&id("a", "lab"), Target::Rootfs).unwrap();
    let (length, hash) = (rootfs.length().unwrap(), rootfs.sha256().unwrap());
    assert_eq!(console.line("ROOTFS "), format!("{hash} {length}"));
    let command_line = console.line("BOOT-OK ");
    let rootfs_url = url(bridge, "/boot-artifacts/rootfs/a/lab");
    for part in [
        "initrd=initrd",
        &format!("coreos.live.rootfs_url={rootfs_url}?b="),
        "ignition.firstboot ignition.platform.id=metal",
        "coreos.inst.persistent-kargs=\"console=tty1 console=ttyS1,115200n8\" console=ttyS0 quiet",
    ] {
        assert!(command_line.contains(part), "{part}: {command_line}");
    }
    println!("booted in {:.0} s", console.seconds);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bios_machine_boots_by_its_address() {
    let Some(site) = site().await else { return };
    let bridge = site.bridge(&CONSOLE).await;
    // iPXE of 2019 sends this as 52%3A54%3A….
    let console = boot(Guest::new(
        "bios",
        Firmware::Bios,
        MAC,
        &url(&bridge, "/ipxe-mac-boot/${net0/mac}"),
    ))
    .await;
    assert_booted(&site, &bridge, &console);
    assert_eq!(console.line("EFI="), "no");
    let rootfs: Vec<_> = site
        .upstream
        .requests()
        .into_iter()
        .filter(|request| request.target == Some(Target::Rootfs))
        .collect();
    let methods: Vec<_> = rootfs.iter().map(|request| request.method.as_str()).collect();
    assert!(methods.starts_with(&["HEAD"]) && methods.ends_with(&["GET"]), "{methods:?}");
    assert!(
        bridge
            .log()
            .contains("script served: BareMetalHost a/n1 wants InfraEnv a/lab")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_open_shows_how_a_machine_gets_on() {
    let (Some(site), Some(_)) = (site().await, crate::page::browser::browser()) else {
        return;
    };
    let bridge = site
        .bridge(&[&CONSOLE[..], &["--connection-rate-limit", "8Mi"]].concat())
        .await;
    let machine = async {
        eventually("the page watches", Duration::from_secs(120), async || {
            bridge.log().contains("\"path\":\"/boots/stream\"")
        })
        .await;
        let mut guest = Guest::new("watched", Firmware::Bios, MAC, &url(&bridge, "/ipxe-mac-boot/${net0/mac}"));
        // Beside a browser, and held back.
        guest.timeout = Duration::from_secs(180);
        boot(guest).await
    };
    let (seen, console) = tokio::join!(crate::page::browser::drive(&bridge, &["watch", "/", "280"]), machine);
    let Some(seen) = seen else { return };
    assert_booted(&site, &bridge, &console);
    crate::page::browser::nothing_went_wrong(&seen);
    assert_eq!(
        (&seen["outcome"], &seen["isSamePage"]),
        (&"Complete".into(), &true.into()),
        "{seen}"
    );
    let between = |value: &&serde_json::Value| value.as_f64().is_some_and(|value| value > 1.0 && value < 20_000_000.0);
    let moves = seen["values"].as_array().unwrap().iter().filter(between).count();
    assert!(moves >= 3, "the bar of the root file system moves: {seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uefi_machine_boots_by_the_bootstrap_script() {
    let Some(site) = site().await else { return };
    let bridge = site.bridge(&CONSOLE).await;
    let console = boot(Guest::new("uefi", Firmware::Uefi, MAC, &url(&bridge, "/boot.ipxe"))).await;
    assert_booted(&site, &bridge, &console);
    assert_eq!(console.line("EFI="), "yes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_known_by_another_card_than_it_boots_from_is_found() {
    let Some(site) = site().await else { return };
    site.environment(
        "b",
        "other",
        "pxe-bridge-default.infraenvs.agent-install.openshift.io: 'true'",
        false,
    );
    let bridge = site.bridge(&CONSOLE).await;
    for (path, wire) in [("/boot.ipxe", Wire::Silent), ("/ipxe-boot", Wire::Address)] {
        let guest = Guest::new(
            &format!("two-cards{}", path.replace('/', "-")),
            Firmware::Bios,
            "52:54:00:ff:00:01",
            &url(&bridge, path),
        );
        let console = boot(guest.nic(MAC, wire)).await;
        assert_booted(&site, &bridge, &console);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_machine_boots_its_disk_on_both_platforms() {
    let Some(site) = site().await else { return };
    site.agent("a", "one", MAC, "installed", "Done");
    let bridge = site.bridge(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = url(&bridge, "/ipxe-mac-boot/${net0/mac:hexhyp}");
    let bios = Guest::new("disk-bios", Firmware::Bios, MAC, &path)
        .disk(disk_bios(folder.path()))
        .stop_at(MARKER);
    let uefi = Guest::new("disk-uefi", Firmware::Uefi, MAC, &path)
        .disk(disk_uefi(folder.path()))
        .stop_at(MARKER);
    let (bios, uefi) = tokio::join!(boot(bios), boot(uefi));
    for console in [&bios, &uefi] {
        assert!(console.text.contains(MARKER), "{}", console.keep().display());
        assert!(console.text.contains("boots its own disk"), "{}", console.keep().display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_machine_gets_the_policy() {
    let Some(site) = site().await else { return };
    let folder = tempfile::tempdir().unwrap();
    for (policy, path, seen) in [
        ("Shell", "/ipxe-mac-boot/${net0/mac}", "iPXE>"),
        ("NotFound", "/boot.ipxe", MARKER),
        ("LocalDisk", "/ipxe-boot", MARKER),
    ] {
        let bridge = site.bridge(&["--unknown-hosts", policy]).await;
        let guest = Guest::new(
            &format!("unknown-{policy}"),
            Firmware::Bios,
            "52:54:00:ff:00:01",
            &url(&bridge, path),
        );
        let console = boot(guest.disk(disk_bios(folder.path())).stop_at(seen)).await;
        assert!(console.text.contains(seen), "{policy}: {}", console.keep().display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_changes_the_command_line_or_hands_over() {
    let Some(site) = site().await else { return };
    let declare = |spec: &str| {
        let header = "apiVersion: ipxe-bridge.io/v1alpha1\nkind: IpxeHostOverride\nmetadata: {name: o, namespace: a}\n";
        site.write("override.yaml", &format!("{header}spec: {spec}\n"));
    };
    declare(&format!(
        "{{macAddresses: ['{MAC}'], kernelArguments: {{remove: [console=tty1], replace: [{{argument: quiet, with: loud=1}}], append: [from=override]}}}}"
    ));
    let bridge = site.bridge(&CONSOLE).await;
    let path = url(&bridge, "/ipxe-mac-boot/${net0/mac}");
    let console = boot(Guest::new("override-arguments", Firmware::Bios, MAC, &path)).await;
    let line = console.line("BOOT-OK ");
    assert!(
        line.contains("metal console=ttyS1,115200n8 coreos.inst") && line.ends_with("console=ttyS0 loud=1 from=override"),
        "{line}"
    );

    // Another bridge serves what the machine is handed over to.
    let other = site
        .bridge(&[
            "--unknown-hosts",
            "Shell",
            "--boot-policy",
            "Always",
            "--kernel-arguments",
            "console=ttyS0 handed=over",
        ])
        .await;
    site.host("a", "n9", "52:54:00:cc:00:09", Some("lab"));
    declare(&format!(
        "{{macAddresses: ['{MAC}'], chain: '{}'}}",
        url(&other, "/ipxe-mac-boot/52:54:00:cc:00:09")
    ));
    eventually("it is read", Duration::from_secs(2), async || {
        bridge.script_has(MAC, "chain --replace").await
    })
    .await;
    let console = boot(Guest::new("override-chain", Firmware::Bios, MAC, &path)).await;
    assert!(
        console.line("BOOT-OK ").ends_with("console=ttyS0 handed=over"),
        "{}",
        console.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_boots_once_by_an_override_and_then_as_always() {
    let Some(site) = site().await else { return };
    let state = tempfile::tempdir().unwrap();
    let bridge = site
        .bridge(&[&CONSOLE[..], &["--state-dir", state.path().to_str().unwrap()]].concat())
        .await;
    let override_ = serde_json::json!({
        "apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeHostOverride", "metadata": {"name": "rescue", "namespace": "a"},
        "spec": {"macAddresses": [MAC], "bootLimit": 1, "templating": true, "script": "#!ipxe\n\
            kernel {{ environment.kernel }} initrd=initrd coreos.live.rootfs_url={{ environment.rootfs }} console=ttyS0 rescue={{ mac.hyphenated }}\n\
            initrd --name initrd {{ environment.initrd }}\nboot\n"}
    });
    site.write("override.json", &override_.to_string());
    eventually("it is read", Duration::from_secs(2), async || {
        bridge.get("/inventory").await.text().contains("rescue")
    })
    .await;
    let path = url(&bridge, "/boot.ipxe");
    let console = boot(Guest::new("boot-once", Firmware::Bios, MAC, &path)).await;
    let line = console.line("BOOT-OK ");
    assert!(line.ends_with("console=ttyS0 rescue=52-54-00-cc-00-01"), "{line}");
    let console = boot(Guest::new("boot-twice", Firmware::Bios, MAC, &path)).await;
    assert_booted(&site, &bridge, &console);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_tries_again_when_a_download_breaks() {
    let Some(site) = site().await else { return };
    let bridge = site.bridge(&CONSOLE).await;
    site.upstream
        .set_fault(Target::Initrd, Some(Fault::CutAfter(300_000)), Some(1));
    let console = boot(Guest::new("broken-initrd", Firmware::Bios, MAC, &url(&bridge, "/boot.ipxe"))).await;
    assert!(console.text.contains("attempt 1 of 5 failed"), "{}", console.keep().display());
    assert_booted(&site, &bridge, &console);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_waits_for_a_server_that_does_not_know_yet() {
    let Some(site) = site().await else { return };
    let Some(plane) = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap() else {
        return;
    };
    let kubeconfig = plane.kubeconfig();
    let plane = tokio::task::spawn_blocking(move || {
        plane.load_crds(crate::support::control_plane::CRDS.as_ref());
        plane
    })
    .await
    .unwrap();
    let site = std::sync::Arc::new(site);
    let objects = site.clone();
    let plane = tokio::task::spawn_blocking(move || {
        crate::cluster::create_environment(&plane, &objects, "a", "lab");
        crate::cluster::create_host(&plane, "a", "n1", MAC, Some("lab"));
        plane.stop_apiserver();
        plane
    })
    .await
    .unwrap();
    let bridge = Bridge::start_with(&CONSOLE, &[("KUBECONFIG", kubeconfig.to_str().unwrap())]).await;
    let guest = tokio::spawn(boot(Guest::new(
        "waits",
        Firmware::Bios,
        MAC,
        &url(&bridge, "/ipxe-mac-boot/${net0/mac}"),
    )));
    eventually(
        "the machine was told to ask again twice",
        Duration::from_secs(60),
        async || bridge.metrics().await.contains("operation=\"ipxeMacBoot\",status=\"503\"} 2"),
    )
    .await;
    let _plane = tokio::task::spawn_blocking(move || {
        plane.start_apiserver();
        plane
    })
    .await
    .unwrap();
    let console = guest.await.unwrap();
    assert_booted(&site, &bridge, &console);
}
