//! From the power button to the bridge: real firmware on a segment with the site's DHCP server and `ipxe-bridge netboot`.

mod faults;
mod tftp;

use std::time::Duration;

use crate::support::lab::{Dhcp, Lab, Program, SERVER};
use crate::support::qemu::{BootRom, Console, Firmware, Guest, payload};
use crate::support::site::{Site, id};
use crate::upstream_service::{Content, Options, Target};

const MAC: &str = "52:54:00:cc:00:01";

/// A lab with a bridge and a machine that it knows.
struct BootNetwork {
    site: Site,
    bridge: Program,
    witness: Program,
    // Last: the others' logs are in it.
    lab: Lab,
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
        let witness = lab.spawn(
            "",
            "tcpdump",
            &["-U", "-Z", "root", "-n", "-i", "br0", "-w", "../witness.pcap", "udp"],
            "listening on br0",
        );
        Some(Self {
            site,
            bridge,
            witness,
            lab,
        })
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

impl Drop for BootNetwork {
    /// What was on the wire is kept when a test fails, or where IPXE_BRIDGE_KEEP_CAPTURES names a folder.
    fn drop(&mut self) {
        let kept = std::env::var_os("IPXE_BRIDGE_KEEP_CAPTURES").map(std::path::PathBuf::from);
        let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .unwrap()
            .join("boot-logs");
        let Some(folder) = kept.or_else(|| std::thread::panicking().then_some(target)) else {
            return;
        };
        let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
        let _ = std::fs::create_dir_all(&folder);
        let file = folder.join(format!("{test}.pcap"));
        if std::fs::copy(self.lab.path().join("witness.pcap"), &file).is_ok() {
            eprintln!("what was on the wire ({} saw it) is in {}", self.witness.id(), file.display());
        }
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

/// What a machine is and boots by, for tests that differ in nothing else.
fn by_firmware(lab: &Lab, name: &str, rom: BootRom) -> Guest {
    let firmware = if rom == BootRom::Usual {
        Firmware::Bios
    } else {
        Firmware::Uefi
    };
    lab.guest(name, firmware, MAC, 0).rom(rom)
}

#[test]
fn other_dhcp_servers_are_as_good_as_dnsmasq() {
    let Some(network) = BootNetwork::start() else { return };
    let _netboot = network.lab.netboot("srv", &[]);
    for (server, rom) in [(Dhcp::Dhcpd, BootRom::Usual), (Dhcp::Kea, BootRom::FirmwarePxe)] {
        let servers = network.lab.plain_dhcp(server);
        let console = by_firmware(&network.lab, &format!("netboot-beside-{server:?}"), rom).boot();
        network.assert_booted(&console);
        drop(servers);
    }
}

#[test]
fn the_sites_own_dhcp_server_does_it_alone_with_our_configuration() {
    let Some(network) = BootNetwork::start() else { return };
    let netboot = network.lab.netboot("srv", &["--proxy-dhcp", "off"]);
    for (server, roms) in [
        (Dhcp::Dnsmasq, [BootRom::Usual, BootRom::FirmwarePxe, BootRom::FirmwareHttp]),
        (Dhcp::Dhcpd, [BootRom::Usual, BootRom::FirmwarePxe, BootRom::FirmwareHttp]),
        (Dhcp::Kea, [BootRom::Usual, BootRom::FirmwarePxe, BootRom::FirmwareHttp]),
    ] {
        let servers = network.lab.dhcp(server, |text| text);
        for rom in roms {
            let console = by_firmware(&network.lab, &format!("netboot-by-{server:?}-{rom:?}"), rom).boot();
            network.assert_booted(&console);
        }
        drop(servers);
    }
    assert!(!netboot.log().contains("told to fetch"));
}

#[test]
fn two_of_us_on_one_segment_do_no_harm() {
    let Some(network) = BootNetwork::start() else { return };
    let _dhcp = network.lab.dnsmasq(&[]);
    let both = [network.lab.netboot("srv", &[]), network.lab.netboot("other", &[])];
    let console = by_firmware(&network.lab, "netboot-two-of-us", BootRom::FirmwarePxe).boot();
    network.assert_booted(&console);
    for netboot in &both {
        assert!(netboot.log().contains("told to fetch snponly.efi"), "{}", netboot.log());
    }
}

#[test]
fn four_machines_boot_at_once() {
    let Some(network) = BootNetwork::start() else { return };
    let _dhcp = network.lab.dnsmasq(&[]);
    let _netboot = network.lab.netboot("srv", &[]);
    std::thread::scope(|scope| {
        let boots: Vec<_> = (0..4)
            .map(|index| {
                let mac = format!("52:54:00:cc:00:{:02}", index + 1);
                let guest = network
                    .lab
                    .guest(&format!("netboot-four-{index}"), Firmware::Bios, &mac, index);
                scope.spawn(move || guest.boot_at_once())
            })
            .collect();
        for boot in boots {
            network.assert_booted(&boot.join().unwrap());
        }
    });
}

#[test]
fn a_fifth_of_all_packets_may_be_lost() {
    let Some(network) = BootNetwork::start() else { return };
    let _dhcp = network.lab.dnsmasq(&[]);
    let netboot = network.lab.netboot("srv", &[]);
    // All that we and the machine send by UDP.
    let lossy = ["p-srv", "tap0"].map(|device| {
        let chain = format!(
            "{{ type filter hook ingress device {device} priority 0; udp dport != 53 numgen random mod 100 < 20 counter drop; }}"
        );
        format!(
            "add table netdev lossy; add chain netdev lossy {device} {chain}",
            device = device.replace('-', "_")
        )
    });
    network.lab.run("", "nft", &[&lossy.join("; ")]);
    let console = by_firmware(&network.lab, "netboot-lossy", BootRom::FirmwarePxe).boot();
    network.assert_booted(&console);
    let rules = network.lab.run("", "nft", &["list ruleset"]);
    assert!(
        rules.matches("counter packets").count() == 2 && !rules.contains("counter packets 0 "),
        "{rules}"
    );
    // What it loaded by TFTP ran, and asked again as iPXE. The last acknowledgement may be among what was lost.
    assert!(
        netboot.log().contains("told to fetch http://10.77.0.1:9876/boot.ipxe"),
        "{}",
        netboot.log()
    );
}

#[test]
fn the_next_debians_ipxe_boots_as_well() {
    let Some(network) = BootNetwork::start() else { return };
    let _dhcp = network.lab.dnsmasq(&[]);
    let programs = network.lab.tools.join("trixie/usr/lib/ipxe");
    let netboot = network.lab.netboot("srv", &["--boot-programs", programs.to_str().unwrap()]);
    assert!(
        netboot.log().contains("x86_64 snponly.efi (iPXE 1.21.1") && netboot.log().contains("arm64 ipxe-arm64.efi"),
        "{}",
        netboot.log()
    );
    let rom = BootRom::File(network.lab.tools.join("trixie/usr/share/qemu/pxe-virtio.rom"));
    network.assert_booted(
        &network
            .lab
            .guest("netboot-trixie-rom", Firmware::Bios, MAC, 0)
            .rom(rom)
            .boot(),
    );
    for rom in [BootRom::FirmwarePxe, BootRom::FirmwareHttp] {
        let console = by_firmware(&network.lab, &format!("netboot-trixie-{rom:?}"), rom).boot();
        network.assert_booted(&console);
        assert!(
            console.text.contains("ipxe-bridge: the boot script comes from"),
            "autoexec.ipxe was not run: {}",
            console.keep().display()
        );
    }
}

/// What `make boot-image` makes for the bridge of a lab.
fn boot_image(lab: &Lab) -> std::path::PathBuf {
    let out = lab.path().join("boot-image");
    let output = std::process::Command::new("make")
        .args(["--no-print-directory", "boot-image"])
        .arg(format!("BRIDGE=http://{SERVER}:9876"))
        .arg(format!("OUT={}", out.display()))
        .arg(format!("PROGRAMS={}", lab.tools.join("trixie/usr/lib/ipxe").display()))
        .arg("LKRN=/usr/lib/ipxe/ipxe.lkrn")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}

#[test]
fn a_cd_or_a_stick_boots_both_kinds_of_machine() {
    let Some(network) = BootNetwork::start() else { return };
    let _dhcp = network.lab.dnsmasq(&[]);
    let image = boot_image(&network.lab).join("ipxe-bridge.iso");
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let console = network
            .lab
            .guest(&format!("boot-image-cd-{firmware:?}"), firmware, MAC, 0)
            .cd(image.clone())
            .boot();
        network.assert_booted(&console);
        assert!(
            console.text.contains("ipxe-bridge: trying net0"),
            "{}",
            console.keep().display()
        );
        // Written to a stick it is a disk.
        let mut stick = network
            .lab
            .guest(&format!("boot-image-stick-{firmware:?}"), firmware, MAC, 0)
            .rom(BootRom::NotBooted);
        stick.disk = Some(image.clone());
        network.assert_booted(&stick.boot());
    }
}

#[test]
fn a_folder_boots_both_kinds_of_machine_where_dhcp_knows_one_name_only() {
    let Some(network) = BootNetwork::start() else { return };
    let folder = boot_image(&network.lab).join("tftp");
    let netboot = network
        .lab
        .netboot("srv", &["--proxy-dhcp", "off", "--boot-programs", folder.to_str().unwrap()]);
    for (name, rom) in [("pxelinux.0", BootRom::Usual), ("snponly.efi", BootRom::FirmwarePxe)] {
        // To firmware and iPXE alike, whatever they say they are.
        let dhcp = network.lab.dnsmasq(&[&format!("--dhcp-boot={name},,{SERVER}")]);
        let mut guest = by_firmware(&network.lab, &format!("boot-image-tftp-{name}"), rom);
        guest.timeout = Duration::from_secs(200);
        let console = guest.boot();
        network.assert_booted(&console);
        assert!(
            console.text.contains("ipxe-bridge: the boot script comes from"),
            "{}",
            console.keep().display()
        );
        drop(dhcp);
    }
    assert!(netboot.log().contains("file=\"pxelinux.cfg/default\""), "{}", netboot.log());
}
