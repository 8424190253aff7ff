//! Boot networks as sites have them: other DHCP servers, with our configuration or beside us, relays, a server on the same machine.

use super::*;
use crate::support::pxe::{self, boot_files};

#[test]
fn other_dhcp_servers_are_as_good_as_dnsmasq() {
    let Some(network) = BootNetwork::start() else { return };
    let _netboot = network.lab.netboot("srv", &[]);
    for server in [Dhcp::Dhcpd, Dhcp::Kea] {
        let servers = network.lab.plain_dhcp(server);
        for rom in [BootRom::Usual, BootRom::FirmwarePxe, BootRom::FirmwareHttp] {
            let console = by_firmware(&network.lab, &format!("netboot-beside-{server:?}-{rom:?}"), rom).boot();
            network.assert_booted(&console);
        }
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
fn each_kind_of_firmware_is_named_its_program_by_our_configuration() {
    let Some(lab) = Lab::start() else { return };
    let http = |name: &str| format!("http://{SERVER}:9879/boot-programs/{name}");
    for server in [Dhcp::Dnsmasq, Dhcp::Dhcpd, Dhcp::Kea] {
        let _servers = lab.dhcp(server, |text| text);
        for (class, architecture, file) in [
            ("PXEClient", 0x00, "undionly.kpxe".to_owned()),
            ("PXEClient", 0x07, "snponly.efi".to_owned()),
            ("PXEClient", 0x09, "snponly.efi".to_owned()),
            ("PXEClient", 0x0b, "ipxe-arm64.efi".to_owned()),
            ("HTTPClient", 0x10, http("snponly.efi")),
            ("HTTPClient", 0x11, http("snponly.efi")),
            ("HTTPClient", 0x13, http("ipxe-arm64.efi")),
            // There is none for it: 32-bit x86.
            ("PXEClient", 0x06, String::new()),
            ("HTTPClient", 0x0f, String::new()),
        ] {
            let mac = [0x52, 0x54, 0, 0xcc, 1, architecture];
            let asked = lab.enter("client", move || pxe::first_answer(mac, class, architecture.into()));
            let answer = asked.join().unwrap();
            let case = format!("{server:?}: {class} {architecture:#x}");
            assert_eq!(boot_files(std::slice::from_ref(&answer)), [file.as_str()], "{case}");
            let says_http = answer.windows(12).any(|option| option == b"\x3c\x0aHTTPClient");
            assert_eq!(says_http, file.starts_with("http:"), "{case}");
        }
    }
}

#[test]
fn a_machine_behind_a_relay_boots() {
    let Some(network) = BootNetwork::start() else { return };
    let lab = &network.lab;
    lab.relayed_segment(0);
    let _advertises = lab.advertise("relay", "eth1", "fd78::");
    let range = "--dhcp-range=10.78.0.50,10.78.0.199,255.255.255.0,1h";
    let _dhcp = lab.dnsmasq(&[range, "--dhcp-option=option:router,10.78.0.1"]);
    let netboot = lab.netboot("srv", &["--relay", "10.78.0.0/24"]);
    // The site's server and ours, both behind it, and what it knows of the port goes with the question (option 82).
    let relay = lab.tools.join("servers/usr/sbin/dhcrelay");
    let relay = lab.spawn(
        "relay",
        relay.to_str().unwrap(),
        &[
            "-4",
            "-d",
            "--no-pid",
            "-a",
            "-id",
            "eth1",
            "-iu",
            "eth0",
            "10.77.0.2",
            "10.77.0.1",
        ],
        "Sending on   Socket/fallback",
    );
    let console = by_firmware(lab, "netboot-relay", BootRom::FirmwarePxe).boot();
    network.assert_booted(&console);
    let log = netboot.log();
    for told in [
        "to=10.78.0.1:67",
        "port=4011",
        "TFTP: complete",
        "told to fetch http://10.77.0.1:9876/boot.ipxe",
    ] {
        assert!(log.contains(told), "{told}: {log}\n{}", relay.log());
    }
    // The router stands between: its question on port 4011 tells whose the address is.
    assert_eq!(network.way()["program"]["protocol"], "TFTP");
    let seen = lab.run(
        "",
        "tcpdump",
        &[
            "-n",
            "-v",
            "-r",
            network.capture().to_str().unwrap(),
            "src 10.77.0.1 and udp dst port 67",
        ],
    );
    assert!(
        seen.contains("Gateway-IP 10.78.0.1") && seen.contains("Agent-Information"),
        "{seen}"
    );
}

#[test]
fn beside_a_dhcp_server_on_the_same_machine_port_4011_alone_boots_machines() {
    let Some(network) = BootNetwork::start() else { return };
    network
        .lab
        .run("srv", "ip", &["addr", "add", "fd77::1/64", "dev", "eth0", "nodad"]);
    // It has port 67, and says that there is more to ask without naming a file.
    let _dhcp = network.lab.dnsmasq_on("srv", &["--dhcp-option-force=60,PXEClient"]);
    let netboot = network.lab.netboot("srv", &["--proxy-dhcp", "port-4011"]);
    for rom in [BootRom::FirmwarePxe, BootRom::Usual] {
        let console = by_firmware(&network.lab, &format!("netboot-4011-{rom:?}"), rom).boot();
        network.assert_booted(&console);
    }
    let log = netboot.log();
    assert!(
        log.contains("told to fetch snponly.efi") && log.contains("told to fetch http://10.77.0.1:9876/boot.ipxe"),
        "{log}"
    );
    assert!(!log.contains("port=67"), "{log}");
}
