//! From the power button to the bridge: real firmware on a segment with the site's DHCP server and `ipxe-bridge netboot`.

use std::time::Duration;

use crate::support::lab::{Lab, Program, SERVER};
use crate::support::qemu::{BootRom, Console, Firmware, Guest, payload};
use crate::support::site::{Site, id};
use crate::upstream_service::{Content, Options, Target};

const MAC: &str = "52:54:00:cc:00:01";

/// A lab with a bridge and a machine that it knows.
struct BootNetwork {
    lab: Lab,
    site: Site,
    bridge: Program,
}

impl BootNetwork {
    /// `None` where the machine cannot have one, which was then said. Blocks.
    fn start() -> Option<Self> {
        let payload = payload()?;
        let lab = Lab::start()?;
        let site = lab.site(Options {
            kernel: Content::file(&payload.kernel),
            initrd: Content::file(&payload.initrd),
            rootfs: Content::random(2_000_000, 7),
            ..Options::default()
        });
        site.environment("a", "lab", "{}", false);
        for index in 1..=8 {
            site.host("a", &format!("n{index}"), &format!("52:54:00:cc:00:{index:02}"), Some("lab"));
        }
        let folder = site.path().to_str().unwrap();
        let arguments = ["server", "--manifests", folder, "--kernel-arguments", "console=ttyS0 quiet"];
        let bridge = lab.ours("srv", &arguments, "metrics are at");
        Some(Self { lab, site, bridge })
    }

    /// The machine ran the right kernel, and got the whole rootfs.
    #[track_caller]
    fn assert_booted(&self, console: &Console) {
        let rootfs = self.site.upstream.content(&id("a", "lab"), Target::Rootfs).unwrap();
        let (length, hash) = (rootfs.length().unwrap(), rootfs.sha256().unwrap());
        assert_eq!(console.line("ROOTFS "), format!("{hash} {length}"));
        assert!(
            console
                .line("BOOT-OK ")
                .contains(&format!("http://{SERVER}:9876/boot-artifacts/rootfs/a/lab"))
        );
        println!("booted in {:.0} s", console.seconds);
    }
}

fn bios(lab: &Lab, name: &str) -> Guest {
    lab.guest(name, Firmware::Bios, MAC, 0)
}

#[test]
fn a_bios_machine_boots_beside_the_sites_own_dhcp_server() {
    let Some(network) = BootNetwork::start() else { return };
    let _dhcp = network.lab.dnsmasq(&[]);
    let netboot = network.lab.netboot("srv", &[]);
    let console = bios(&network.lab, "netboot-bios").boot();
    network.assert_booted(&console);
    assert!(
        netboot.log().contains("told to fetch http://10.77.0.1:9876/boot.ipxe"),
        "{}",
        netboot.log()
    );
    assert!(network.bridge.log().contains("script served"));
}

#[test]
fn a_uefi_machine_boots_by_its_own_pxe_and_tftp() {
    let Some(network) = BootNetwork::start() else { return };
    let _dhcp = network.lab.dnsmasq(&[]);
    let netboot = network.lab.netboot("srv", &[]);
    let guest = network
        .lab
        .guest("netboot-uefi-pxe", Firmware::Uefi, MAC, 0)
        .rom(BootRom::FirmwarePxe);
    network.assert_booted(&guest.boot());
    let log = netboot.log();
    assert!(
        log.contains("told to fetch snponly.efi") && log.contains("TFTP: complete"),
        "{log}"
    );
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn a_uefi_machine_boots_by_its_own_http_client() {
    let Some(network) = BootNetwork::start() else { return };
    let _dhcp = network.lab.dnsmasq(&[]);
    let netboot = network.lab.netboot("srv", &[]);
    let guest = network
        .lab
        .guest("netboot-uefi-http", Firmware::Uefi, MAC, 0)
        .rom(BootRom::FirmwareHttp);
    network.assert_booted(&guest.boot());
    assert!(
        netboot
            .log()
            .contains("told to fetch http://10.77.0.1:9879/boot-programs/snponly.efi"),
        "{}",
        netboot.log()
    );
}

#[test]
fn a_machine_that_the_bridge_does_not_know_is_left_alone() {
    let Some(network) = BootNetwork::start() else { return };
    let _dhcp = network.lab.dnsmasq(&[]);
    let mut netboot = network.lab.netboot("srv", &[]);
    let mut guest = network
        .lab
        .guest("netboot-stranger", Firmware::Bios, "52:54:00:ff:00:01", 0)
        .stop_at("No bootable device");
    guest.timeout = Duration::from_secs(60);
    let console = guest.boot();
    netboot.wait_for("not answered: the bridge does not know it", Duration::from_secs(1));
    assert!(
        !netboot.log().contains("told to fetch") && !console.text.contains("boot.ipxe"),
        "{}",
        netboot.log()
    );
}
