//! What goes wrong on a boot network: each has its stated outcome, and the rest goes on.

use super::*;
use crate::support::pxe::{self, boot_files};

/// What a BIOS machine's PXE on the segment is answered.
fn discover(lab: &Lab, mac: [u8; 6]) -> Vec<Vec<u8>> {
    lab.enter("client", move || pxe::discover(mac)).join().unwrap()
}

const KNOWN: [u8; 6] = [0x52, 0x54, 0, 0xcc, 0, 1];

/// What the program says when it does not start.
#[track_caller]
fn refused(lab: &Lab, wrapper: &[&str], arguments: &[&str]) -> String {
    let mut all: Vec<&str> = wrapper.to_vec();
    all.push(env!("CARGO_BIN_EXE_ipxe-bridge"));
    all.extend(["netboot", "--bridge", "http://10.77.0.1:9876"]);
    all.extend(arguments);
    let output = lab.command("srv", all[0], &all[1..]).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_taken_port_names_who_may_have_it_and_4011_alone_goes_on() {
    let Some(lab) = Lab::start() else { return };
    let theirs = [
        "--no-daemon",
        "--conf-file=/dev/null",
        "--user=root",
        "--port=0",
        "--interface=eth0",
        "--dhcp-range=10.77.0.50,10.77.0.60",
        "--dhcp-leasefile=leases",
    ];
    let _theirs = lab.spawn("srv", "dnsmasq", &theirs, "DHCP, IP range");
    let said = refused(&lab, &[], &["--interface", "eth0"]);
    for part in [
        "ProxyDHCP on eth0, port 67: another program has it",
        "dnsmasq",
        "Ironic",
        "ss -ulnp sport = :67",
        "--proxy-dhcp port-4011",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let netboot = lab.netboot("srv", &["--answer", "all", "--proxy-dhcp", "port-4011"]);
    assert!(netboot.log().contains("ProxyDHCP on port 4011 only"), "{}", netboot.log());
    let theirs = [
        "--no-daemon",
        "--conf-file=/dev/null",
        "--user=root",
        "--port=0",
        "--interface=eth0",
        "--enable-tftp",
        "--tftp-root=/tmp",
    ];
    let _tftp = lab.spawn("other", "dnsmasq", &theirs, "TFTP root is");
    let said = lab
        .command(
            "other",
            env!("CARGO_BIN_EXE_ipxe-bridge"),
            &["netboot", "--bridge", "http://a", "--interface", "eth0"],
        )
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("TFTP on eth0 (10.77.0.3), port 69: another program has it") && said.contains("--tftp off"),
        "{said}"
    );
}

#[test]
fn one_capability_is_all_that_the_ports_need() {
    let Some(lab) = Lab::start() else { return };
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ];
    let said = refused(&lab, &nobody, &["--interface", "eth0"]);
    assert!(
        said.contains("no permission: ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"),
        "{said}"
    );
    let with_it = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all,+net_bind_service",
        "--ambient-caps=+net_bind_service",
        "--bounding-set=-all,+net_bind_service",
        "--no-new-privs",
        env!("CARGO_BIN_EXE_ipxe-bridge"),
        "netboot",
        "--answer",
        "all",
        "--bridge",
        "http://10.77.0.1:9876",
        "--interface",
        "eth0",
    ];
    let _netboot = lab.spawn("srv", "setpriv", &with_it, "metrics are at");
    assert_eq!(boot_files(&discover(&lab, KNOWN)), ["undionly.kpxe"]);
}

#[test]
fn an_interface_may_be_missing_go_and_come_back() {
    let Some(lab) = Lab::start() else { return };
    let said = refused(&lab, &[], &["--interface", "eth9"]);
    assert!(
        said.contains("--interface: there is no interface eth9 (interfaces with an address: eth0, lo)"),
        "{said}"
    );
    let mut netboot = lab.netboot("srv", &["--answer", "all", "--interface", "later"]);
    assert!(netboot.log().contains("there is no interface later"), "{}", netboot.log());
    for round in 1..=2 {
        lab.run(
            "",
            "ip",
            &[
                "link", "add", "p-later", "type", "veth", "peer", "name", "later", "netns", "srv",
            ],
        );
        lab.run("srv", "ip", &["link", "set", "later", "up"]);
        lab.run("srv", "ip", &["addr", "add", "10.78.0.1/24", "dev", "later"]);
        let start = std::time::Instant::now();
        while netboot.log().matches("later is answered on again").count() < round {
            assert!(start.elapsed() < Duration::from_secs(15), "{}", netboot.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        lab.run(
            "srv",
            "curl",
            &["-sSf", "-o", "/dev/null", "http://10.78.0.1:9879/boot-programs/undionly.kpxe"],
        );
        // The other one is answered on all the time.
        assert_eq!(discover(&lab, KNOWN).len(), 1);
        lab.run("", "ip", &["link", "del", "p-later"]);
        netboot.wait_for("later is gone or has lost its address", Duration::from_secs(15));
    }
    // Its address is exchanged.
    lab.run("srv", "ip", &["addr", "add", "10.77.0.77/24", "dev", "eth0"]);
    netboot.wait_for("eth0 is answered on again", Duration::from_secs(15));
    assert_eq!(discover(&lab, KNOWN).len(), 1);
}

#[test]
fn two_cards_in_one_network_answer_alike() {
    let Some(lab) = Lab::start() else { return };
    lab.run(
        "",
        "ip",
        &["link", "add", "p-two", "type", "veth", "peer", "name", "eth1", "netns", "srv"],
    );
    lab.run("", "ip", &["link", "set", "p-two", "master", "br0", "up"]);
    lab.run("srv", "ip", &["link", "set", "eth1", "up"]);
    lab.run("srv", "ip", &["addr", "add", "10.77.0.11/24", "dev", "eth1"]);
    let netboot = lab.netboot("srv", &["--answer", "all", "--interface", "eth1"]);
    assert!(
        netboot
            .log()
            .contains("are in one network: machines get two answers that say the same"),
        "{}",
        netboot.log()
    );
    let answers = discover(&lab, KNOWN);
    assert_eq!(boot_files(&answers), ["undionly.kpxe", "undionly.kpxe"]);
    let mut servers: Vec<_> = answers.iter().map(|answer| answer[23]).collect();
    servers.sort();
    assert_eq!(servers, [1, 11], "each with its own address");
    for address in ["10.77.0.1", "10.77.0.11"] {
        lab.run(
            "client",
            "curl",
            &[
                "-sS",
                "--max-time",
                "10",
                "-o",
                "/dev/null",
                &format!("tftp://{address}/undionly.kpxe"),
            ],
        );
    }
}

#[test]
fn a_folder_without_programs_and_a_dry_run_are_told() {
    let Some(lab) = Lab::start() else { return };
    let empty = lab.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let mut netboot = lab.netboot("srv", &["--answer", "all", "--boot-programs", empty.to_str().unwrap()]);
    assert!(
        netboot.log().contains("no boot program in") && netboot.log().contains("only iPXE is answered"),
        "{}",
        netboot.log()
    );
    assert!(discover(&lab, KNOWN).is_empty());
    netboot.wait_for(
        "not answered: the folder of boot programs has none for bios",
        Duration::from_secs(2),
    );
    // It is used as soon as it lies there.
    std::fs::copy("/usr/lib/ipxe/undionly.kpxe", empty.join("undionly.kpxe")).unwrap();
    netboot.wait_for("bios undionly.kpxe", Duration::from_secs(20));
    assert_eq!(boot_files(&discover(&lab, KNOWN)), ["undionly.kpxe"]);
    drop(netboot);
    let mut dry = lab.netboot("srv", &["--answer", "all", "--dry-run"]);
    assert!(discover(&lab, KNOWN).is_empty());
    dry.wait_for("would be told to fetch undionly.kpxe", Duration::from_secs(2));
}

#[test]
fn a_download_that_is_broken_off_does_not_count_as_sent() {
    use std::io::{Read as _, Write as _};
    let Some(lab) = Lab::start() else { return };
    let folder = lab.path().join("large");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("large"), vec![0; 8 << 20]).unwrap();
    let mut netboot = lab.netboot("srv", &["--answer", "all", "--boot-programs", folder.to_str().unwrap()]);
    let breaks_off = lab.enter("client", || {
        let mut stream = std::net::TcpStream::connect("10.77.0.1:9879").unwrap();
        stream
            .write_all(b"GET /boot-programs/large HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
    });
    breaks_off.join().unwrap();
    netboot.wait_for("HTTP: aborted", Duration::from_secs(10));
    lab.run(
        "client",
        "curl",
        &["-sSf", "-o", "/dev/null", "http://10.77.0.1:9879/boot-programs/large"],
    );
    netboot.wait_for("HTTP: sent", Duration::from_secs(10));
    let metrics = lab.run("srv", "curl", &["-sS", "http://127.0.0.1:9880/metrics"]);
    for outcome in ["aborted", "sent"] {
        let sample = format!("http_downloads_total{{architecture=\"other\",outcome=\"{outcome}\"}} 1\n");
        assert!(metrics.contains(&sample), "{metrics}");
    }
    let sent = metrics
        .lines()
        .find_map(|line| line.strip_prefix("ipxe_bridge_netboot_sent_bytes_total{protocol=\"http\"} "));
    let sent: u64 = sent.unwrap().parse().unwrap();
    assert!(((8 << 20)..(16 << 20)).contains(&sent), "{sent}");
}

#[test]
fn a_bridge_that_cannot_be_asked_leaves_its_last_word() {
    let Some(lab) = Lab::start() else { return };
    let site = lab.site(Options::default());
    site.host("a", "n1", MAC, Some("lab"));
    let netboot_arguments = ["netboot", "--interface", "eth0", "--bridge", "http://10.77.0.1:9876"];
    let mut netboot = lab.ours("srv", &netboot_arguments, "cannot be asked for its machines");
    assert!(discover(&lab, KNOWN).is_empty());
    netboot.wait_for("not answered: the bridge could not be asked yet", Duration::from_secs(2));
    let ready = lab
        .command(
            "srv",
            "curl",
            &["-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:9880/readyz"],
        )
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ready.stdout), "503");
    let bridge = lab.ours(
        "srv",
        &["server", "--manifests", site.path().to_str().unwrap()],
        "metrics are at",
    );
    netboot.wait_for("the bridge tells its machines", Duration::from_secs(15));
    assert_eq!(discover(&lab, KNOWN).len(), 1);
    let stranger = [0x52, 0x54, 0, 0xff, 0, 1];
    assert!(discover(&lab, stranger).is_empty());
    // A machine that is added is known to the next question but one.
    site.host("a", "n9", "52:54:00:ff:00:01", Some("lab"));
    let start = std::time::Instant::now();
    while discover(&lab, stranger).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "{}", netboot.log());
    }
    drop(bridge);
    netboot.wait_for("the machines it told last are answered on", Duration::from_secs(20));
    assert_eq!(discover(&lab, KNOWN).len(), 1);
}
