//! TFTP with the clients that people have, over networks that lose packets and translate addresses.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// A folder of files of awkward sizes, served in the lab.
fn served(lab: &Lab, more: &[&str]) -> (PathBuf, Program) {
    let folder = lab.path().join("files");
    if !folder.exists() {
        fs::create_dir_all(folder.join("sub")).unwrap();
        for (name, size) in [
            ("empty", 0),
            ("one", 1),
            ("block", 512),
            ("blocks", 1468 * 3),
            ("twenty", 1468 * 20),
            ("sub/large", 1_048_576),
        ] {
            let bytes: Vec<u8> = (0..size).map(|index: usize| (index * 31 + index / 509) as u8).collect();
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let mut arguments = vec![
        "--answer",
        "all",
        "--proxy-dhcp",
        "off",
        "--boot-programs",
        folder.to_str().unwrap(),
    ];
    arguments.extend(more);
    let netboot = lab.netboot("srv", &arguments);
    (folder, netboot)
}

/// Counts of what became of TFTP requests, by outcome.
fn outcome(lab: &Lab, namespace: &str, outcome: &str) -> u32 {
    let metrics = lab.run(namespace, "curl", &["-sS", "http://127.0.0.1:9880/metrics"]);
    let sample = format!("ipxe_bridge_netboot_tftp_transfers_total{{architecture=\"other\",outcome=\"{outcome}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&sample));
    line.map_or(0, |count| count.parse().unwrap())
}

/// One file by one client, compared to the byte.
#[track_caller]
fn fetch(lab: &Lab, folder: &Path, server: &str, name: &str, client: &str) {
    let to = lab.path().join("fetched");
    let _ = fs::remove_file(&to);
    let line = client
        .replace("NAME", name)
        .replace("SERVER", server)
        .replace("TO", to.to_str().unwrap());
    lab.run("client", "sh", &["-c", &format!("timeout 60 {line}")]);
    assert!(
        fs::read(&to).unwrap() == fs::read(folder.join(name)).unwrap(),
        "{line}: other bytes"
    );
}

#[test]
fn every_client_gets_every_file_whole() {
    let Some(lab) = Lab::start() else { return };
    for mode in ["on", "single-port"] {
        let (folder, netboot) = served(&lab, &["--tftp", mode]);
        for client in [
            "curl -sS --max-time 50 -o TO tftp://SERVER/NAME",
            "curl -sS --max-time 50 --tftp-blksize 8 -o TO tftp://SERVER/NAME",
            "curl -sS --max-time 50 --tftp-blksize 1468 -o TO tftp://SERVER/NAME",
            "curl -sS --max-time 50 --tftp-no-options -o TO tftp://SERVER/NAME",
            "atftp --get --remote-file NAME --local-file TO SERVER 69",
            "atftp --option 'tsize' --option 'blksize 1428' --get --remote-file NAME --local-file TO SERVER 69",
            "atftp --option 'tsize' --option 'blksize 1468' --option 'windowsize 8' --get --remote-file NAME --local-file TO SERVER 69",
            "tftp -m binary SERVER 69 -c get NAME TO",
            "busybox tftp -g -r NAME -l TO SERVER 69",
            "busybox tftp -b 128 -g -r NAME -l TO SERVER 69",
            "busybox tftp -b 1468 -g -r NAME -l TO SERVER 69",
        ] {
            for name in ["empty", "one", "block", "blocks", "sub/large"] {
                // curl 7.88 stumbles over a file of no bytes, whoever sends it.
                if name == "empty" && client.starts_with("curl") {
                    continue;
                }
                // 131,073 blocks of 8 bytes: enough once to see that numbers start over.
                let is_slow = client.contains(" 8 ") && !client.contains("windowsize");
                if is_slow && name == "sub/large" && (mode != "on" || !client.starts_with("curl")) {
                    continue;
                }
                fetch(&lab, &folder, "10.77.0.1", name, client);
            }
        }
        assert!(!netboot.log().contains("WARN TFTP"), "{}", netboot.log());
    }
}

#[test]
fn a_fifth_of_the_packets_may_be_lost_both_ways() {
    let Some(lab) = Lab::start() else { return };
    let (folder, _netboot) = served(&lab, &[]);
    let lossy = ["p_srv", "p_client"].map(|chain| {
        let device = chain.replace('_', "-");
        format!("add table netdev lossy; add chain netdev lossy {chain} {{ type filter hook ingress device {device} priority 0; udp dport != 53 numgen random mod 100 < 20 counter drop; }}")
    });
    lab.run("", "nft", &[&lossy.join("; ")]);
    for (client, name) in [
        // It asks for waits of five seconds, so a few blocks have to do.
        (
            "curl -sS --max-time 59 --tftp-blksize 1468 -o TO tftp://SERVER/NAME",
            "blocks",
        ),
        // Without options: atftp 0.8 breaks off when an answer to options comes twice, as it does when its first acknowledgement is lost. And
        // one block: it acknowledges one that came twice a second time, and then never again.
        ("atftp --get --remote-file NAME --local-file TO SERVER 69", "one"),
        ("busybox tftp -b 1468 -g -r NAME -l TO SERVER 69", "twenty"),
    ] {
        fetch(&lab, &folder, "10.77.0.1", name, client);
    }
    let rules = lab.run("", "nft", &["list ruleset"]);
    assert!(!rules.contains("counter packets 0 "), "{rules}");
}

#[test]
fn a_window_that_lost_a_block_is_sent_again_from_there() {
    let Some(lab) = Lab::start() else { return };
    let (folder, _netboot) = served(&lab, &[]);
    // Data alone: atftp 0.8, the only such client that knows windows, breaks off when an answer to options comes twice.
    let lossy = "add table netdev lossy; add chain netdev lossy data { type filter hook ingress device p-srv priority 0; \
        udp length > 600 numgen random mod 100 < 10 counter drop; }";
    lab.run("", "nft", &[lossy]);
    let client = "atftp --option 'blksize 1468' --option 'windowsize 8' --get --remote-file NAME --local-file TO SERVER 69";
    let start = std::time::Instant::now();
    fetch(&lab, &folder, "10.77.0.1", "sub/large", client);
    println!("1 MiB in {:.1} s", start.elapsed().as_secs_f64());
    let rules = lab.run("", "nft", &["list ruleset"]);
    assert!(
        rules.contains("counter packets") && !rules.contains("counter packets 0 "),
        "{rules}"
    );
}

/// What comes to a client that sends a request and these acknowledgements, and then falls silent: the blocks, until nothing came for a while.
fn fall_silent(server: &'static str, acknowledged: u16) -> Vec<u16> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // A wait of one second, as the client may ask for.
    socket.send_to(b"\0\x01sub/large\0octet\0timeout\x001\0", server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
    let (mut buffer, mut blocks) = ([0; 2048], Vec::new());
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        assert!(length >= 4);
        let block = match buffer[1] {
            3 => u16::from_be_bytes([buffer[2], buffer[3]]),
            6 => 0,
            other => panic!("opcode {other}"),
        };
        if block < acknowledged && blocks.last() != Some(&block) {
            socket.send_to(&[&[0, 4][..], &block.to_be_bytes()].concat(), from).unwrap();
        }
        blocks.push(block);
    }
    blocks
}

#[test]
fn a_client_that_stops_acknowledging_is_given_up_and_the_others_are_served() {
    let Some(lab) = Lab::start() else { return };
    let (folder, mut netboot) = served(&lab, &[]);
    let single = ["--tftp", "single-port"];
    let mut all = vec![
        "--answer",
        "all",
        "--proxy-dhcp",
        "off",
        "--boot-programs",
        folder.to_str().unwrap(),
    ];
    all.extend(single);
    let mut other = lab.netboot("other", &all);
    let silent = |server: &'static str, acknowledged| lab.enter("client", move || fall_silent(server, acknowledged));
    let never = ["10.77.0.1:69", "10.77.0.3:69"].map(|server| silent(server, 0));
    let after_two = ["10.77.0.1:69", "10.77.0.3:69"].map(|server| silent(server, 3));
    for server in ["10.77.0.1", "10.77.0.3"] {
        fetch(
            &lab,
            &folder,
            server,
            "sub/large",
            "busybox tftp -b 1468 -g -r NAME -l TO SERVER 69",
        );
    }
    for thread in never {
        // A request can be sent in another's name: six packets for it and no more.
        assert_eq!(thread.join().unwrap(), [0; 6]);
    }
    for thread in after_two {
        let blocks = thread.join().unwrap();
        let (begin, again) = blocks.split_at(4);
        assert_eq!(begin, [0, 1, 2, 3]);
        assert_eq!(again, [3; 11], "the one that was never acknowledged, twelve times in all");
    }
    for (netboot, namespace) in [(&mut netboot, "srv"), (&mut other, "other")] {
        netboot.wait_for("the machine was not heard of any more", Duration::from_secs(5));
        assert_eq!(outcome(&lab, namespace, "lost"), 2);
        assert_eq!(outcome(&lab, namespace, "complete"), 1);
        let metrics = lab.run(namespace, "curl", &["-sS", "http://127.0.0.1:9880/metrics"]);
        assert!(metrics.contains("ipxe_bridge_netboot_tftp_transfers_open 0\n"), "{metrics}");
    }
}

/// Whether a request for a file was answered, and whoever asked; it acknowledges the first block if it is to, and then falls silent.
fn ask(server: &str, acknowledges: bool) -> Option<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    socket.send_to(b"\0\x01sub/large\0octet\0", server).unwrap();
    let mut buffer = [0; 600];
    let (_, from) = socket.recv_from(&mut buffer).ok()?;
    if acknowledges {
        socket.send_to(&[0, 4, 0, 1], from).unwrap();
        socket.recv_from(&mut buffer).unwrap();
    }
    Some(socket)
}

#[test]
fn whoever_says_nothing_gives_way_and_nobody_takes_all_places() {
    let Some(lab) = Lab::start() else { return };
    let (folder, _netboot) = served(&lab, &["--max-transfers", "2"]);
    let asked = lab.enter("client", || {
        let silent = [false, false].map(|acknowledges| ask("10.77.0.1:69", acknowledges));
        let heard = [true, true].map(|acknowledges| ask("10.77.0.1:69", acknowledges));
        let late = ask("10.77.0.1:69", false);
        (
            silent.each_ref().map(Option::is_some),
            heard.each_ref().map(Option::is_some),
            late.is_some(),
        )
    });
    assert_eq!(asked.join().unwrap(), ([true; 2], [true; 2], false));
    assert_eq!((outcome(&lab, "srv", "replaced"), outcome(&lab, "srv", "busy")), (2, 1));

    let folder_name = folder.to_str().unwrap();
    let arguments = ["--answer", "all", "--proxy-dhcp", "off", "--boot-programs", folder_name];
    let _other = lab.netboot("other", &arguments);
    let asked = lab.enter("client", || {
        let held: Vec<_> = (0..16).map(|_| ask("10.77.0.3:69", true)).collect();
        (held.iter().flatten().count(), ask("10.77.0.3:69", false).is_some())
    });
    assert_eq!(asked.join().unwrap(), (16, false));
    let to = lab.path().join("fetched");
    let line = format!("curl -sS --max-time 10 -o {} tftp://10.77.0.3/one", to.display());
    lab.run("dhcp", "sh", &["-c", &line]);
    assert_eq!(fs::read(&to).unwrap(), fs::read(folder.join("one")).unwrap());
    assert_eq!(outcome(&lab, "other", "busy"), 1);
}

#[test]
fn a_client_that_repeats_itself_is_sent_what_it_waits_for_and_given_up_in_the_end() {
    let Some(lab) = Lab::start() else { return };
    let (_folder, mut netboot) = served(&lab, &[]);
    let client = lab.enter("client", || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"\0\x01one\0octet\0", "10.77.0.1:69").unwrap();
        // It answers at every tick that nothing has come, as if block 1 was lost each time. Sooner than the server's time is up.
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let (mut buffer, mut blocks, mut quiet, mut server) = ([0; 2048], 0, 0, None);
        while quiet < 25 {
            match socket.recv_from(&mut buffer) {
                Ok((_, from)) => {
                    assert_eq!(buffer[..4], [0, 3, 0, 1]);
                    (blocks, quiet, server) = (blocks + 1, 0, Some(from));
                }
                Err(_) => {
                    quiet += 1;
                    if let Some(server) = server {
                        // Whoever has given up no longer hears it.
                        let _ = socket.send_to(&[0, 4, 0, 0], server);
                    }
                }
            }
        }
        blocks
    });
    assert_eq!(client.join().unwrap(), 6);
    netboot.wait_for("the machine was not heard of any more", Duration::from_secs(1));
}

#[test]
fn one_port_for_all_goes_through_address_translation() {
    let Some(lab) = Lab::start() else { return };
    // As a Service does it: what comes to another address goes on to the server, seen as coming from there.
    lab.run(
        "other",
        "sysctl",
        &["-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0"],
    );
    let rules = "add table ip nat; add chain ip nat pre { type nat hook prerouting priority -100; }; \
        add chain ip nat post { type nat hook postrouting priority 100; }; add rule ip nat pre udp dport 69 dnat to 10.77.0.1; \
        add rule ip nat post ip daddr 10.77.0.1 masquerade";
    lab.run("other", "nft", &[rules]);
    let client = "curl -sS --max-time 8 --tftp-blksize 1468 -o TO tftp://SERVER/NAME";
    let (folder, netboot) = served(&lab, &[]);
    let line = client
        .replace("NAME", "one")
        .replace("SERVER", "10.77.0.3")
        .replace("TO", "/dev/null");
    let blocked = lab.command("client", "sh", &["-c", &line]).output().unwrap();
    assert!(
        !blocked.status.success(),
        "a port of its own for each transfer should not come through"
    );
    drop(netboot);
    let (_, _netboot) = served(&lab, &["--tftp", "single-port"]);
    fetch(&lab, &folder, "10.77.0.3", "sub/large", client);
}

#[test]
fn what_is_no_request_for_a_file_gets_its_answer_or_none() {
    let Some(lab) = Lab::start() else { return };
    let (_, netboot) = served(&lab, &["--client", "10.77.0.0/28"]);
    let failed = |command: &str| {
        let output = lab
            .command("client", "sh", &["-c", &format!("timeout 20 {command}")])
            .output()
            .unwrap();
        assert!(!output.status.success(), "{command}");
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    for name in ["nosuch", "../files/one", "/etc/passwd", "sub/../one", "..%2fone", "sub"] {
        let said = failed(&format!(
            "curl -sS --path-as-is --max-time 8 -o /dev/null 'tftp://10.77.0.1/{name}'"
        ));
        assert!(said.contains("File Not Found") || said.contains("(68)"), "{name}: {said}");
    }
    for name in ["../files/one", "../../etc/passwd", "sub", "%2e%2e/one"] {
        let said = failed(&format!(
            "curl -sSf --path-as-is --max-time 8 'http://10.77.0.1:9879/boot-programs/{name}'"
        ));
        assert!(said.contains("404"), "{name}: {said}");
    }
    lab.run(
        "client",
        "sh",
        &["-c", "curl -sS --path-as-is --max-time 8 -o /dev/null tftp://10.77.0.1//one"],
    );
    let said = failed("curl -sS --max-time 8 -T /etc/hostname tftp://10.77.0.1/new");
    assert!(said.contains("(69)") || said.contains("Access"), "{said}");
    // A packet from port 0, and one from a network that may not fetch.
    let raw = || {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::from(3), Some(Protocol::UDP)).unwrap();
        let request = b"\0\x01one\0octet\0";
        let length = u16::try_from(8 + request.len()).unwrap().to_be_bytes();
        let packet = [&[0, 0, 0, 69, length[0], length[1], 0, 0][..], request].concat();
        let server: std::net::SocketAddr = "10.77.0.1:0".parse().unwrap();
        socket.send_to(&packet, &server.into()).unwrap();
    };
    let refused = outcome(&lab, "srv", "not-allowed");
    lab.enter("client", raw).join().unwrap();
    let start = std::time::Instant::now();
    while outcome(&lab, "srv", "not-allowed") == refused {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "the packet from port 0 was not counted"
        );
    }
    assert_eq!(outcome(&lab, "srv", "not-allowed"), refused + 1);
    lab.run("client", "ip", &["addr", "add", "10.77.0.99/24", "dev", "eth0"]);
    failed("curl -sS --interface 10.77.0.99 --max-time 3 -o /dev/null tftp://10.77.0.1/one");
    for (of, least) in [("not-found", 5), ("write", 1), ("not-allowed", 2), ("complete", 1)] {
        let count = outcome(&lab, "srv", of);
        assert!(count >= least, "{of}: {count}");
    }
    assert!(!netboot.log().contains("panicked"));
}
