//! Every row of what clients send and accept, and the invariants of every answer.

mod bytes;
mod ports;

use ::bytes::Bytes;

use super::*;
use crate::netboot::programs::Programs;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NETWORKS: [Ipv4Net; 1] = [Ipv4Net::new_assert(ADDRESS, 24)];
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
        networks: &NETWORKS,
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
    // By HTTPS it is another feature that counts.
    let site = Site {
        script: "https://boot.example.com/boot.ipxe",
        ..site(&programs)
    };
    let of = |features: &[u8]| ask(&discover(b"PXEClient", &[0, 0], &[(175, features)]), &site);
    assert_eq!(of(features), Err(Silence::IpxeWithoutHttps));
    assert!(of(&[0x14, 1, 1]).is_ok() && of(&[0xb1, 1, 1]).is_ok());
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
