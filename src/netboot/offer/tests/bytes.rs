//! Packets byte by byte: as real firmware sent them, as nobody should send them, and millions that nobody has thought of.

use proptest::prelude::*;

use super::*;

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
    let text = include_str!("../../../../tests/data/netboot/packets.txt");
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

/// The boot file that a captured packet is answered with, or why it is not.
fn expected(name: &str) -> Option<Result<&'static str, Silence>> {
    Some(match name {
        "bios-ipxe-2019" | "bios-ipxe-2025" | "uefi-ipxe-2019" | "uefi-ipxe-2025" | "uefi-ipxe-2025-bare" => Ok(SCRIPT),
        "ovmf-pxe" | "ovmf-pxe-4011" => Ok("snponly.efi"),
        "ovmf-http" => Ok("http://192.0.2.1:9879/boot-programs/snponly.efi"),
        "udhcp" | "request-udhcp" => Err(Silence::NotNetworkBoot),
        other if other.starts_with("request-") => Err(Silence::OtherMessage(3, SERVER_PORT)),
        _ => return None,
    })
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
        let expected = expected(&name).expect("every capture has an expectation");
        assert_eq!(told, expected.map(str::to_owned), "{name}");
    }
}
