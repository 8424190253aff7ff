//! Every row of what clients send and accept, the invariants of every answer, and packets that nobody should send.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::netboot::programs::Programs;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SCRIPT: &str = "http://192.0.2.1:9876/boot.ipxe";
const MAC: [u8; 6] = [0x52, 0x54, 0, 0xcc, 0, 1];
const ID: [u8; 17] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// A packet of a client: these options behind a header.
fn packet(options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&0x1234_5678u32.to_be_bytes());
    bytes[10] = 0x80;
    bytes[28..34].copy_from_slice(&MAC);
    bytes.extend([99, 130, 83, 99]);
    for (code, value) in options {
        bytes.extend([*code, value.len() as u8]);
        bytes.extend(*value);
    }
    bytes.push(255);
    bytes
}

fn discover(class: &[u8], architecture: &[u8], more: &[(u8, &[u8])]) -> Vec<u8> {
    let mut options = vec![(53, &[1][..]), (60, class), (93, architecture), (97, &ID)];
    options.extend(more);
    packet(&options)
}

/// An EFI program for a machine type.
fn efi(machine: u16) -> Bytes {
    let mut bytes = vec![0; 0x200];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x80;
    bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
    bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
    bytes[0x98..0x9a].copy_from_slice(&0x020bu16.to_le_bytes());
    bytes.into()
}

fn programs() -> Programs {
    let files = [
        ("undionly.kpxe", Bytes::from_static(b"\xea\x05\x00\xc0\x07 iPXE")),
        ("i386/snponly.efi", efi(0x14c)),
        ("snponly.efi", efi(0x8664)),
        ("ipxe.efi", efi(0x8664)),
        ("arm32/snponly.efi", efi(0x1c2)),
        ("arm64/snponly.efi", efi(0xaa64)),
        ("riscv32/snponly.efi", efi(0x5032)),
        ("riscv64/snponly.efi", efi(0x5064)),
        ("loong64/snponly.efi", efi(0x6264)),
    ];
    Programs::new(files.map(|(name, bytes)| (name.to_owned(), bytes)))
}

fn site(programs: &Programs) -> Site<'_> {
    Site {
        address: ADDRESS,
        script: SCRIPT,
        programs,
        tftp: true,
        http: Some(9879),
        vendors: &[],
        relays: &[],
        quirks: &[],
    }
}

const BROADCAST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
const UNICAST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 50), 4011);

fn ask(bytes: &[u8], site: &Site<'_>) -> Result<Reply, Silence> {
    answer(bytes, SERVER_PORT, BROADCAST, site, &|_| Known::Yes).answer
}

/// The options of an answer, in order.
fn options(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &bytes[240..];
    let mut found = Vec::new();
    while let [code, length, after @ ..] = rest {
        if *code == 255 {
            break;
        }
        let (value, after) = after.split_at(usize::from(*length));
        found.push((*code, value.to_vec()));
        rest = after;
    }
    found
}

fn option(bytes: &[u8], code: u8) -> Option<Vec<u8>> {
    options(bytes)
        .into_iter()
        .find(|(found, _)| *found == code)
        .map(|(_, value)| value)
}

fn file(bytes: &[u8]) -> String {
    let field = &bytes[108..236];
    let end = field.iter().position(|byte| *byte == 0).expect("it ends");
    String::from_utf8(field[..end].to_vec()).expect("text")
}

/// What is true of every answer, whatever was asked.
fn assert_sound(asked: &[u8], reply: &Reply, port: u16) {
    let bytes = &reply.bytes;
    assert!(bytes.len() >= 300 && bytes.len() < 1200, "{}", bytes.len());
    assert_eq!(bytes[..4], [2, 1, 6, 0], "op, htype, hlen, hops");
    assert_eq!(bytes[4..8], asked[4..8], "xid");
    assert_eq!(bytes[8..10], [0, 0], "secs");
    assert_eq!(bytes[10..12], asked[10..12], "flags");
    assert_eq!(
        &bytes[12..16],
        if port == BOOT_PORT { &asked[12..16] } else { &[0; 4] },
        "ciaddr"
    );
    assert_eq!(bytes[16..20], [0; 4], "yiaddr: never a lease");
    assert_eq!(bytes[20..24], ADDRESS.octets(), "siaddr");
    assert_eq!(bytes[24..28], asked[24..28], "giaddr");
    assert_eq!(bytes[28..34], asked[28..34], "chaddr");
    assert_eq!(bytes[34..108], [0; 74], "the rest of chaddr, and sname");
    assert_eq!(bytes[236..240], [99, 130, 83, 99]);
    assert_eq!(option(bytes, 53), Some(vec![if port == BOOT_PORT { 5 } else { 2 }]));
    assert_eq!(option(bytes, 54), Some(ADDRESS.octets().to_vec()));
    assert_eq!(file(bytes), reply.boot_file.name());
    for lease in [1, 3, 6, 50, 51, 58, 59] {
        assert_eq!(option(bytes, lease), None, "option {lease} belongs to a lease");
    }
}

#[test]
fn each_kind_of_machine_is_told_its_program() {
    let programs = programs();
    let pxe = |name: &str| Ok(BootFile::Tftp(name.to_owned()));
    let http = |name: &str| Ok(BootFile::Http(format!("http://192.0.2.1:9879/boot-programs/{name}")));
    let none = |codes: &str| Err(Silence::UnknownArchitecture(codes.to_owned()));
    let rows: &[(&str, &[u8], Result<BootFile, Silence>)] = &[
        ("PXEClient:Arch:00000:UNDI:002001", &[0, 0], pxe("undionly.kpxe")),
        ("PXEClient:Arch:00006", &[0, 6], pxe("i386/snponly.efi")),
        ("PXEClient:Arch:00007:UNDI:003016", &[0, 7], pxe("snponly.efi")),
        ("PXEClient:Arch:00009", &[0, 9], pxe("snponly.efi")),
        ("PXEClient:Arch:00010", &[0, 0x0a], pxe("arm32/snponly.efi")),
        ("PXEClient:Arch:00011", &[0, 0x0b], pxe("arm64/snponly.efi")),
        ("PXEClient:Arch:00025", &[0, 0x19], pxe("riscv32/snponly.efi")),
        ("PXEClient:Arch:00027", &[0, 0x1b], pxe("riscv64/snponly.efi")),
        ("PXEClient:Arch:00039", &[0, 0x27], pxe("loong64/snponly.efi")),
        ("PXEClient:Arch:00037", &[0, 0x25], Err(Silence::NoProgram(Platform::Loong32))),
        ("HTTPClient:Arch:00015", &[0, 0x0f], http("i386/snponly.efi")),
        ("HTTPClient:Arch:00016:UNDI:003001", &[0, 0x10], http("snponly.efi")),
        ("HTTPClient:Arch:00017", &[0, 0x11], http("snponly.efi")),
        ("HTTPClient:Arch:00018", &[0, 0x12], http("arm32/snponly.efi")),
        ("HTTPClient:Arch:00019", &[0, 0x13], http("arm64/snponly.efi")),
        ("HTTPClient:Arch:00020", &[0, 0x14], http("undionly.kpxe")),
        ("HTTPClient:Arch:00026", &[0, 0x1a], http("riscv32/snponly.efi")),
        ("HTTPClient:Arch:00028", &[0, 0x1c], http("riscv64/snponly.efi")),
        ("HTTPClient:Arch:00040", &[0, 0x28], http("loong64/snponly.efi")),
        // U-Boot starts no such program; nor do Itanium and what nobody has assigned.
        ("PXEClient:Arch:00021", &[0, 0x15], none("0x0015")),
        ("PXEClient:Arch:00022", &[0, 0x16], none("0x0016")),
        ("HTTPClient:Arch:00023", &[0, 0x17], none("0x0017")),
        ("HTTPClient:Arch:00024", &[0, 0x18], none("0x0018")),
        ("PXEClient:Arch:00002", &[0, 2], none("0x0002")),
        ("PXEClient", &[0xff, 0xff], none("0xffff")),
        ("PXEClient", &[], none("missing")),
        ("PXEClient", &[7], none("missing")),
        // Several: the first that is known.
        ("PXEClient", &[0, 0x15, 0, 0x0b, 0, 7], pxe("arm64/snponly.efi")),
    ];
    for (class, architecture, expected) in rows {
        let asked = discover(class.as_bytes(), architecture, &[]);
        let reply = ask(&asked, &site(&programs));
        assert_eq!(
            &reply.clone().map(|reply| reply.boot_file),
            expected,
            "{class} {architecture:?}"
        );
        if let Ok(reply) = reply {
            assert_sound(&asked, &reply, SERVER_PORT);
            let class = if class.starts_with("HTTP") {
                &b"HTTPClient"[..]
            } else {
                b"PXEClient"
            };
            assert_eq!(option(&reply.bytes, 60).as_deref(), Some(class));
            assert_eq!(option(&reply.bytes, 67).as_deref(), Some(reply.boot_file.name().as_bytes()));
            assert_eq!(option(&reply.bytes, 97).as_deref(), Some(&ID[..]));
            assert_eq!(reply.to, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
        }
    }
    // Without the option at all.
    let reply = ask(&packet(&[(53, &[1]), (60, b"PXEClient")]), &site(&programs));
    assert_eq!(reply, Err(Silence::UnknownArchitecture("missing".to_owned())));
}

#[test]
fn ipxe_is_told_the_script_and_never_a_program() {
    let programs = programs();
    let features: &[u8] = &[0x13, 1, 1, 0x24, 1, 1];
    for (class, more) in [
        (&b"PXEClient:Arch:00000:UNDI:002001"[..], &[(77, &b"iPXE"[..])][..]),
        (b"PXEClient", &[(77, b"\x04iPXE")]),
        // Started by UEFI's PXE it repeats a bare class, started by HTTP Boot the other one.
        (b"PXEClient", &[(175, features)]),
        (b"HTTPClient", &[(77, b"iPXE"), (175, features)]),
        (b"", &[(175, features)]),
    ] {
        for architecture in [[0, 0], [0, 7], [0, 0x15]] {
            let asked = discover(class, &architecture, more);
            let reply = ask(&asked, &site(&programs)).expect("an answer");
            assert_sound(&asked, &reply, SERVER_PORT);
            assert_eq!(reply.boot_file, BootFile::Script(SCRIPT.to_owned()));
            assert_eq!(option(&reply.bytes, 60).as_deref(), Some(&b"PXEClient"[..]));
            assert_eq!(option(&reply.bytes, 43), None);
        }
    }
    let old = discover(b"PXEClient", &[0, 0], &[(77, b"iPXE"), (175, &[0x24, 1, 1])]);
    assert_eq!(ask(&old, &site(&programs)), Err(Silence::IpxeWithoutHttp));
}

#[test]
fn whoever_does_not_boot_from_the_network_hears_nothing() {
    let programs = programs();
    for class in [
        &b""[..],
        b"udhcp 1.35.0",
        b"MSFT 5.0",
        b"dhcpcd-9.4.1",
        b"anaconda-Linux",
        b"pxeclient",
        b"XPXEClient",
    ] {
        assert_eq!(
            ask(&discover(class, &[0, 7], &[]), &site(&programs)),
            Err(Silence::NotNetworkBoot),
            "{class:?}"
        );
    }
    let vendors = ["AAPLBSDPC".to_owned()];
    let site = Site {
        vendors: &vendors,
        ..site(&programs)
    };
    let reply = ask(&discover(b"AAPLBSDPC/i386", &[0, 7], &[]), &site).expect("an answer");
    assert_eq!(option(&reply.bytes, 60).as_deref(), Some(&b"AAPLBSDPC"[..]));
}

#[test]
fn each_port_has_its_one_message_type() {
    let programs = programs();
    let with_type = |kind: u8| {
        let mut bytes = discover(b"PXEClient", &[0, 7], &[]);
        bytes[242] = kind;
        bytes
    };
    for kind in 0..=255 {
        for (port, from, expected) in [(SERVER_PORT, BROADCAST, 1), (BOOT_PORT, UNICAST, 3)] {
            let asked = with_type(kind);
            let answer = answer(&asked, port, from, &site(&programs), &|_| Known::Yes).answer;
            match kind == expected {
                true => assert_sound(&asked, &answer.expect("an answer"), port),
                false => assert_eq!(answer, Err(Silence::OtherMessage(kind, port))),
            }
        }
    }
}

#[test]
fn port_4011_answers_where_it_was_asked_from() {
    let programs = programs();
    let mut asked = discover(b"PXEClient", &[0, 7], &[]);
    asked[242] = 3;
    asked[12..16].copy_from_slice(&UNICAST.ip().octets());
    let of = |from| answer(&asked, BOOT_PORT, from, &site(&programs), &|_| Known::Yes).answer;
    let reply = of(UNICAST).expect("an answer");
    assert_sound(&asked, &reply, BOOT_PORT);
    assert_eq!(reply.to, UNICAST);
    for nowhere in [
        "0.0.0.0:68",
        "255.255.255.255:4011",
        "224.0.0.1:4011",
        "127.0.0.1:4011",
        "192.0.2.50:0",
    ] {
        let nowhere = nowhere.parse().expect("an address");
        assert_eq!(of(nowhere), Err(Silence::NoWayBack(nowhere)));
    }
}

#[test]
fn relays_get_their_answer_with_their_option_last() {
    let programs = programs();
    let mut asked = discover(b"PXEClient", &[0, 7], &[(82, &[1, 4, 0, 0, 0, 9]), (12, b"name")]);
    asked[24..28].copy_from_slice(&[192, 0, 2, 254]);
    let reply = ask(&asked, &site(&programs)).expect("an answer");
    assert_sound(&asked, &reply, SERVER_PORT);
    assert_eq!(reply.to, "192.0.2.254:67".parse().expect("an address"));
    assert_eq!(options(&reply.bytes).last(), Some(&(82, vec![1, 4, 0, 0, 0, 9])));

    let ours: [Ipv4Net; 1] = ["192.0.2.0/24".parse().expect("a network")];
    let site = Site {
        relays: &ours,
        ..site(&programs)
    };
    assert!(ask(&asked, &site).is_ok());
    asked[24..28].copy_from_slice(&[198, 51, 100, 1]);
    assert_eq!(ask(&asked, &site), Err(Silence::Relay([198, 51, 100, 1].into())));
    // No network has these for a relay, whatever is allowed.
    for spoofed in [
        [127, 0, 0, 1],
        [255, 255, 255, 255],
        [224, 0, 0, 1],
        [0, 0, 0, 1],
        [240, 0, 0, 1],
    ] {
        asked[24..28].copy_from_slice(&spoofed);
        assert_eq!(
            ask(&asked, &Site { relays: &[], ..site }),
            Err(Silence::Relay(spoofed.into()))
        );
    }
}

#[test]
fn quirks_change_what_they_are_named_for() {
    let programs = programs();
    let of = |quirks: &[Quirk], class: &[u8], architecture: &[u8]| {
        ask(
            &discover(class, architecture, &[]),
            &Site {
                quirks,
                ..site(&programs)
            },
        )
        .expect("an answer")
        .bytes
    };
    let (bios, uefi): (&[u8], &[u8]) = (&[0, 0], &[0, 7]);
    assert_eq!(option(&of(&[], b"PXEClient", bios), 43), Some(vec![6, 1, 8, 255]));
    assert_eq!(option(&of(&[Quirk::BiosAsks], b"PXEClient", bios), 43), None);
    assert_eq!(option(&of(&[], b"PXEClient", uefi), 43), None);
    assert_eq!(
        option(&of(&[Quirk::UefiAtOnce], b"PXEClient", uefi), 43),
        Some(vec![6, 1, 8, 255])
    );
    assert_eq!(option(&of(&[Quirk::HeaderOnly], b"PXEClient", bios), 67), None);
    // HTTP Boot reads nothing but option 67.
    assert!(option(&of(&[Quirk::HeaderOnly], b"HTTPClient", &[0, 16]), 67).is_some());
    assert_eq!(option(&of(&[Quirk::NoMachineId], b"PXEClient", bios), 97), None);
    assert_eq!(file(&of(&[Quirk::NativeDrivers], b"PXEClient", uefi)), "ipxe.efi");
}

#[test]
fn an_identifier_of_another_form_is_not_sent_back() {
    let programs = programs();
    for id in [&[][..], &ID[..16], &[1; 17], &[0; 18]] {
        let reply = ask(
            &packet(&[(53, &[1]), (60, b"PXEClient"), (93, &[0, 7]), (97, id)]),
            &site(&programs),
        )
        .expect("an answer");
        assert_eq!(option(&reply.bytes, 97), None, "{id:?}");
    }
}

#[test]
fn only_known_machines_hear_anything() {
    let programs = programs();
    let asked = discover(b"PXEClient", &[0, 7], &[]);
    for (known, silence) in [(Known::No, Silence::UnknownMachine), (Known::NotAsked, Silence::NotAsked)] {
        let outcome = answer(&asked, SERVER_PORT, BROADCAST, &site(&programs), &|mac| {
            assert_eq!(mac.octets(), MAC);
            known
        });
        assert_eq!(outcome.answer, Err(silence));
        assert_eq!(outcome.machine.map(MacAddr::octets), Some(MAC));
    }
}

#[test]
fn what_is_switched_off_is_not_named() {
    let programs = programs();
    let off = Site {
        tftp: false,
        http: None,
        ..site(&programs)
    };
    assert_eq!(
        ask(&discover(b"PXEClient", &[0, 7], &[]), &off),
        Err(Silence::ProtocolOff("TFTP"))
    );
    assert_eq!(
        ask(&discover(b"HTTPClient", &[0, 16], &[]), &off),
        Err(Silence::ProtocolOff("HTTP"))
    );
    let empty = Programs::default();
    assert_eq!(
        ask(&discover(b"PXEClient", &[0, 7], &[]), &site(&empty)),
        Err(Silence::NoProgram(Platform::X64))
    );
    // iPXE needs neither.
    assert!(
        ask(
            &discover(b"PXEClient", &[0, 7], &[(77, b"iPXE")]),
            &Site { programs: &empty, ..off }
        )
        .is_ok()
    );
    let long = format!("http://192.0.2.1/{}", "x".repeat(120));
    let asked = discover(b"PXEClient", &[0, 7], &[(77, b"iPXE")]);
    assert_eq!(
        ask(&asked, &Site { script: &long, ..off }),
        Err(Silence::LongName(long.clone()))
    );
}

#[test]
fn options_may_stand_in_the_fields_for_names_and_in_pieces() {
    let programs = programs();
    // Option 52 says that `file` (1), `sname` (2) or both hold options.
    let mut asked = packet(&[(53, &[1]), (52, &[3])]);
    asked[108..108 + 12].copy_from_slice(b"\x3c\x09PXEClient\xff");
    asked[44..44 + 5].copy_from_slice(&[93, 2, 0, 7, 255]);
    assert!(ask(&asked, &site(&programs)).is_ok());
    for (overload, silence) in [
        (1, Silence::UnknownArchitecture("missing".to_owned())),
        (2, Silence::NotNetworkBoot),
        (0, Silence::NotNetworkBoot),
        (7, Silence::NotNetworkBoot),
    ] {
        asked[245] = overload;
        assert_eq!(ask(&asked, &site(&programs)), Err(silence), "{overload}");
    }
    // A field of options without an end, full to its last byte.
    asked[245] = 1;
    asked[108..236].fill(0);
    asked[234..236].copy_from_slice(&[60, 200]);
    assert_eq!(ask(&asked, &site(&programs)), Err(Silence::NotNetworkBoot));
    // In pieces (RFC 3396).
    let pieces = packet(&[(53, &[1]), (60, b"PXE"), (60, b"Client"), (93, &[0]), (93, &[7])]);
    assert!(ask(&pieces, &site(&programs)).is_ok());
    // A type that is said twice is none.
    let twice = packet(&[(53, &[1]), (60, b"PXEClient"), (93, &[0, 7]), (53, &[3])]);
    assert_eq!(ask(&twice, &site(&programs)), Err(Malformed::NoMessageType.into()));
}

#[test]
fn what_is_no_packet_of_a_machine_hears_nothing() {
    let programs = programs();
    let whole = discover(b"PXEClient", &[0, 7], &[]);
    for length in 0..whole.len() {
        match ask(&whole[..length], &site(&programs)) {
            Err(Silence::Malformed(Malformed::Short)) => assert!(length < 240),
            // Its options may be cut off; what is left says what it says.
            answer => assert!(length >= 240 && (answer.is_ok() == (length >= 240 + 3 + 11 + 4)), "{length}"),
        }
    }
    let changed = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        ask(&bytes, &site(&programs))
    };
    for (at, byte, malformed) in [
        (0, 2, Malformed::NotARequest),
        (0, 0, Malformed::NotARequest),
        (1, 32, Malformed::NotEthernet),
        (2, 16, Malformed::NotEthernet),
        (2, 255, Malformed::NotEthernet),
        (28, 0xff, Malformed::NotUnicast),
        (236, 0, Malformed::NotDhcp),
        (241, 0, Malformed::NoMessageType),
    ] {
        assert_eq!(changed(at, byte), Err(malformed.into()), "byte {at} is {byte}");
    }
    let mut oversized = whole.clone();
    oversized.pop();
    oversized.resize(65_507, 0);
    assert!(ask(&oversized, &site(&programs)).is_ok(), "padding");
    let relay = [0; 255];
    let long = discover(b"PXEClient", &[0, 7], &[(82, &relay), (82, &relay)]);
    assert_eq!(ask(&long, &site(&programs)), Err(Malformed::LongRelay.into()));
    let reply = ask(&discover(b"PXEClient", &[0, 7], &[(82, &relay)]), &site(&programs)).expect("an answer");
    assert_eq!(options(&reply.bytes).last(), Some(&(82, relay.to_vec())));
}

proptest! {
    #[test]
    fn every_answer_is_sound(
        (xid, flags, ciaddr) in (any::<u32>(), any::<u16>(), any::<u32>()),
        class in prop::sample::select(vec![&b"PXEClient:Arch"[..], b"HTTPClient", b"other", b""]),
        codes in prop::collection::vec(0u16..0x30, 0..4),
        user_class in prop::option::of(prop::sample::select(vec![&b"iPXE"[..], b"x"])),
        others in prop::collection::vec((1u8..254, prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        on_boot_port in any::<bool>(),
    ) {
        let codes: Vec<u8> = codes.into_iter().flat_map(u16::to_be_bytes).collect();
        let kind = [if on_boot_port { 3 } else { 1 }];
        let mut options: Vec<(u8, &[u8])> = vec![(53, &kind), (60, class), (93, &codes)];
        options.extend(user_class.map(|class| (77, class)));
        let ours = [52, 53, 60, 77, 82, 93, 97, 175];
        options.extend(others.iter().filter(|(code, _)| !ours.contains(code)).map(|(code, value)| (*code, value.as_slice())));
        let mut asked = packet(&options);
        asked[4..8].copy_from_slice(&xid.to_be_bytes());
        asked[10..12].copy_from_slice(&flags.to_be_bytes());
        asked[12..16].copy_from_slice(&ciaddr.to_be_bytes());
        let (port, from) = if on_boot_port { (BOOT_PORT, UNICAST) } else { (SERVER_PORT, BROADCAST) };
        let programs = programs();
        let answer = answer(&asked, port, from, &site(&programs), &|_| Known::Yes).answer;
        let boots = class.starts_with(b"PXE") || class.starts_with(b"HTTP") || user_class == Some(b"iPXE");
        match answer {
            Ok(reply) => {
                prop_assert!(boots, "never to whoever does not boot from the network");
                assert_sound(&asked, &reply, port);
                // dhcproto reads it back: every option is of the form that the standard gives it.
                let read = <v4::Message as v4::Decodable>::from_bytes(&reply.bytes);
                prop_assert!(read.is_ok(), "{:?}", read);
            }
            Err(silence) => prop_assert!(!boots || matches!(silence, Silence::UnknownArchitecture(_) | Silence::NoProgram(_)), "{silence}"),
        }
    }
}

/// Numbers without a pattern, the same in every run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }
}

/// One packet, changed in place: bytes, lengths, cut off, grown.
fn mutate(packet: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(6) {
        let length = packet.len();
        if length == 0 {
            return;
        }
        // Most of the time behind the header, where there is something to read.
        let at = if length > 241 && numbers.below(4) > 0 {
            240 + numbers.below(length - 240)
        } else {
            numbers.below(length)
        };
        match numbers.below(8) {
            0 => packet.truncate(at),
            1 => packet[at] = 0xff,
            2 => packet[at] = packet[at].wrapping_add(1),
            3 => {
                let code = READ_CODES[numbers.below(READ_CODES.len())];
                packet[at] = code;
            }
            4 => packet[at] ^= 1 << numbers.below(8),
            5 => packet.extend_from_within(at..),
            6 => packet[at] = 0,
            _ => packet[at] = numbers.next() as u8,
        }
        packet.truncate(1500);
    }
}

const READ_CODES: [u8; 9] = [52, 53, 60, 77, 82, 93, 97, 175, 255];

/// How many packets are changed and decided about: ten million, if nothing else is said.
fn mutations() -> u64 {
    let said = std::env::var("IPXE_BRIDGE_MUTATIONS").ok();
    said.map_or(10_000_000, |said| said.parse().expect("a number of packets"))
}

#[test]
fn no_changed_packet_breaks_anything() {
    let mut seeds = captures();
    seeds.extend([
        discover(b"PXEClient:Arch:00007:UNDI:003016", &[0, 7], &[]),
        discover(b"HTTPClient:Arch:00016", &[0, 16], &[(82, &[1, 4, 0, 0, 0, 9])]),
        discover(b"PXEClient", &[0, 0], &[(77, b"iPXE"), (175, &[0x13, 1, 1])]),
        packet(&[(53, &[3]), (52, &[3]), (60, b"PXEClient"), (93, &[0, 11])]),
    ]);
    let programs = programs();
    let each = mutations().div_ceil(2);
    std::thread::scope(|scope| {
        for thread in 1..=2u64 {
            let (seeds, programs) = (&seeds, &programs);
            scope.spawn(move || {
                let mut numbers = Numbers(thread.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let mut packet = Vec::with_capacity(4096);
                let mut answered = 0u64;
                for _ in 0..each {
                    packet.clear();
                    packet.extend(&seeds[numbers.below(seeds.len())]);
                    mutate(&mut packet, &mut numbers);
                    let (port, from) = if numbers.below(2) == 0 {
                        (SERVER_PORT, BROADCAST)
                    } else {
                        (BOOT_PORT, UNICAST)
                    };
                    let outcome = answer(&packet, port, from, &site(programs), &|_| Known::Yes);
                    if let Ok(reply) = outcome.answer {
                        assert!(
                            reply.bytes[16..20] == [0; 4]
                                && reply.bytes[4..8] == packet[4..8]
                                && reply.bytes[28..34] == packet[28..34]
                        );
                        answered += 1;
                    }
                }
                // Otherwise nothing past the first check would have been tried.
                assert!(answered > each / 50, "{answered} of {each}");
            });
        }
    });
}

/// Packets of real firmware and of iPXE, as they were on the wire: `tests/data/netboot`.
fn captures() -> Vec<Vec<u8>> {
    captured().into_iter().map(|(_, bytes)| bytes).collect()
}

fn captured() -> Vec<(String, Vec<u8>)> {
    let text = include_str!("../../../tests/data/netboot/packets.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, hex) = line.split_once(' ').expect("a name and bytes");
            let digits: Vec<u8> = hex
                .trim()
                .chars()
                .map(|digit| digit.to_digit(16).expect("hexadecimal") as u8)
                .collect();
            (name.to_owned(), digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        })
        .collect()
}

#[test]
fn captured_packets_are_decided_as_on_the_wire() {
    let programs = programs();
    let captured = captured();
    assert!(captured.len() >= 8);
    for (name, bytes) in captured {
        let (port, from) = if name.ends_with("-4011") {
            (BOOT_PORT, UNICAST)
        } else {
            (SERVER_PORT, BROADCAST)
        };
        let answer = answer(&bytes, port, from, &site(&programs), &|_| Known::Yes).answer;
        let told = answer.map(|reply| reply.boot_file.name().to_owned());
        let expected = match name.as_str() {
            "bios-ipxe-2019" | "bios-ipxe-2025" | "uefi-ipxe-2019" | "uefi-ipxe-2025" | "uefi-ipxe-2025-bare" => Ok(SCRIPT),
            "ovmf-pxe" | "ovmf-pxe-4011" => Ok("snponly.efi"),
            "ovmf-http" => Ok("http://192.0.2.1:9879/boot-programs/snponly.efi"),
            "udhcp" | "request-udhcp" => Err(Silence::NotNetworkBoot),
            other if other.starts_with("request-") => Err(Silence::OtherMessage(3, SERVER_PORT)),
            other => panic!("{other} has no expectation"),
        };
        assert_eq!(told, expected.map(str::to_owned), "{name}");
    }
}
