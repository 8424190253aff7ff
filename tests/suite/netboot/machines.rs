//! Machines of all kinds beside the site's own DHCP server, dnsmasq, which knows nothing of booting.

use super::*;

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
    assert_eq!(network.way()["program"], Value::Null, "its firmware is iPXE");
}

#[test]
fn one_process_and_a_folder_of_yaml_boot_a_machine_at_home() {
    let Some(mut home) = BootNetwork::with(&["--netboot", "eth0"]) else {
        return;
    };
    let _dhcp = home.lab.dnsmasq(&[]);
    home.bridge.wait_for("the bridge tells its machines", Duration::from_secs(10));
    let console = by_firmware(&home.lab, "netboot-home", BootRom::FirmwarePxe).boot();
    home.assert_booted(&console);
    let log = home.bridge.log();
    for line in [
        "iPXE is sent to http://10.77.0.1:9876/boot.ipxe",
        "told to fetch snponly.efi",
        "TFTP: complete",
        "script served",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    let way = home.way();
    let size = std::fs::metadata("/usr/lib/ipxe/snponly.efi").unwrap().len();
    assert_eq!(
        (&way["program"]["protocol"], &way["program"]["bytes"]),
        (&json!("TFTP"), &json!(size)),
        "{way}"
    );
    assert!(way["program"]["milliseconds"].is_u64(), "{way}");
    // What the guide says to look with shows something.
    let guide = include_str!("../../../docs/network.md");
    let (_, symptoms) = guide.split_once("## When nothing happens").unwrap();
    let (symptoms, _) = symptoms.split_once("\n## ").unwrap();
    let commands: Vec<&str> = symptoms
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.starts_with("curl "))
        .collect();
    assert_eq!(commands.len(), 4, "{commands:?}");
    for command in commands {
        let command = command
            .replace("curl", "curl -sSf --max-time 20")
            .replace("BRIDGE", "10.77.0.1")
            .replace("SERVER", "10.77.0.1")
            .replace("MAC", MAC);
        home.lab.run("client", "sh", &["-c", &command]);
    }
    let listening = home.lab.run("srv", "ss", &["-ulnp", "sport = :67"]);
    assert!(listening.contains("ipxe-bridge"), "{listening}");
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
    assert_eq!(network.way()["program"]["protocol"], "HTTP");
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
        let console = by_firmware(&network.lab, &format!("netboot-trixie-{rom:?}"), rom.clone()).boot();
        network.assert_booted(&console);
        assert!(
            console.text.contains("ipxe-bridge: the boot script comes from"),
            "autoexec.ipxe was not run: {}",
            console.keep().display()
        );
        let by = if rom == BootRom::FirmwarePxe { "TFTP" } else { "HTTP" };
        assert_eq!(network.way()["program"]["protocol"], by);
    }
}
