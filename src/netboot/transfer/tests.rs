//! A client as RFC 1350 and 7440 describe it, on a network that loses, doubles and reorders.

use std::collections::VecDeque;
use std::convert::Infallible;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn request(name: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = vec![0, 1];
    for text in [name, mode]
        .into_iter()
        .chain(options.iter().flat_map(|(name, value)| [*name, *value]))
    {
        packet.extend(text.bytes());
        packet.push(0);
    }
    packet
}

fn transfer(options: &[(&str, &str)], data: Vec<u8>) -> Transfer {
    Transfer::new(
        &ReadRequest::parse(&request("f", "octet", options)).expect("valid"),
        data.into(),
    )
}

fn packets(transfer: &Transfer) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let kept = transfer.packets(&mut Vec::new(), |packet| {
        all.push(packet.to_vec());
        Ok::<_, Infallible>(())
    });
    let Ok(()) = kept;
    all
}

fn ack(block: u64) -> Vec<u8> {
    [&[0, 4][..], &(block as u16).to_be_bytes()].concat()
}

/// What a client has of a file.
struct Client {
    block: usize,
    window: u64,
    received: Vec<u8>,
    blocks: u64,
    since_ack: u64,
    complete: bool,
}

impl Client {
    fn new(block: usize, window: u64) -> Self {
        Self {
            block,
            window,
            received: Vec::new(),
            blocks: 0,
            since_ack: 0,
            complete: false,
        }
    }

    /// The answer to a packet of the server.
    fn receive(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let number = word(packet, 2)?;
        match word(packet, 0) {
            Some(OP_OPTIONS) if self.blocks == 0 => Some(ack(0)),
            Some(OP_DATA) if number == (self.blocks + 1) as u16 && !self.complete => {
                self.blocks += 1;
                self.since_ack += 1;
                self.received.extend(&packet[4..]);
                self.complete = packet.len() - 4 < self.block;
                (self.complete || self.since_ack == self.window).then(|| {
                    self.since_ack = 0;
                    ack(self.blocks)
                })
            }
            // A gap or a repetition: it says how far it is.
            Some(OP_DATA) => {
                self.since_ack = 0;
                Some(ack(self.blocks))
            }
            _ => None,
        }
    }
}

/// Fates of packets, one after the other and over again.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    Lost,
    Doubled,
    Late,
}

/// Runs a transfer to its end; every packet meets the next fate.
fn run(transfer: &mut Transfer, client: &mut Client, fates: &[Fate]) -> End {
    let mut fates = fates.iter().copied().cycle();
    let mut travel = |queue: &mut VecDeque<Vec<u8>>, packet: Vec<u8>| match fates.next() {
        Some(Fate::Lost) => {}
        Some(Fate::Doubled) => queue.extend([packet.clone(), packet]),
        Some(Fate::Late) if !queue.is_empty() => {
            let last = queue.pop_back();
            queue.push_back(packet);
            queue.extend(last);
        }
        _ => queue.push_back(packet),
    };
    let (mut to_client, mut to_server) = (VecDeque::new(), VecDeque::new());
    let mut step = Step::Send;
    loop {
        match step {
            Step::Send => packets(transfer)
                .into_iter()
                .for_each(|packet| travel(&mut to_client, packet)),
            Step::Wait => {}
            Step::End(end) => return end,
        }
        while let Some(packet) = to_client.pop_front() {
            if let Some(answer) = client.receive(&packet) {
                travel(&mut to_server, answer);
            }
        }
        step = match to_server.pop_front() {
            Some(packet) => transfer.receive(&packet),
            None => transfer.timeout(),
        };
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

/// What becomes of ten packets that follow each other: at most two are lost, one is doubled, one late.
fn ten([lost, also_lost, doubled, late]: [usize; 4]) -> impl Iterator<Item = Fate> {
    (0..10).map(move |place| match place {
        place if place == lost || place == also_lost => Fate::Lost,
        place if place == doubled => Fate::Doubled,
        place if place == late => Fate::Late,
        _ => Fate::Arrives,
    })
}

proptest! {
    // The same in every run: that nobody is given up at a fifth of loss is likely, not certain.
    #![proptest_config(ProptestConfig { cases: 400, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn every_file_arrives_whole_over_a_bad_network(
        length in 0usize..6000,
        block in prop_oneof![Just(8usize), Just(512), 8usize..1468],
        window in 1u64..20,
        fates in prop::collection::vec(prop::array::uniform4(0usize..10), 5..40),
    ) {
        let fates: Vec<Fate> = fates.into_iter().flat_map(ten).collect();
        let data = content(length);
        let (size, blocks) = (block.to_string(), window.to_string());
        let mut transfer = transfer(&[("blksize", &size), ("windowsize", &blocks), ("tsize", "0")], data.clone());
        let mut client = Client::new(block, window.min(16));
        let end = run(&mut transfer, &mut client, &fates);
        prop_assert!(client.complete && client.received == data, "{} of {} bytes", client.received.len(), length);
        prop_assert_eq!(end, End::Complete);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_packet_of_a_client_breaks_a_transfer(junk in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..60)) {
        let mut transfer = transfer(&[("windowsize", "4")], content(3000));
        for packet in junk {
            if let Step::End(_) = transfer.receive(&packet) { break }
            prop_assert!(packets(&transfer).iter().all(|packet| packet.len() <= 4 + MAX_BLOCK));
        }
    }

    #[test]
    fn no_request_is_read_in_two_ways(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let whole = [&[0, 1][..], &bytes].concat();
        if let Ok(request) = ReadRequest::parse(&whole) {
            prop_assert!(!request.name.contains('\0') && !request.table_name().starts_with('/'));
        }
    }
}

#[test]
fn sizes_at_the_edges_end_with_a_short_block() {
    for (length, block, blocks) in [
        (0, 512, 1),
        (1, 512, 1),
        (511, 512, 1),
        (512, 512, 2),
        (1024, 512, 3),
        (8, 8, 2),
        (1468 * 3, 1468, 4),
    ] {
        let mut transfer = transfer(&[("blksize", &block.to_string())], content(length));
        let mut client = Client::new(block, 1);
        assert_eq!(run(&mut transfer, &mut client, &[Fate::Arrives]), End::Complete);
        assert_eq!(
            (client.received, client.blocks),
            (content(length), blocks),
            "{length} in {block}"
        );
    }
}

#[test]
fn more_than_65535_blocks_roll_over_to_0() {
    let data = content(8 * 200_000 + 3);
    for window in ["1", "16"] {
        let mut transfer = transfer(&[("blksize", "8"), ("windowsize", window)], data.clone());
        let mut client = Client::new(8, window.parse().expect("a number"));
        assert_eq!(run(&mut transfer, &mut client, &[Fate::Arrives]), End::Complete);
        assert_eq!(client.blocks, 200_001);
        assert_eq!(client.received, data);
    }
}

#[test]
fn only_asked_options_are_answered_and_within_limits() {
    for (asked, answered) in [
        (&[("blksize", "65464")][..], "blksize\x001468\0"),
        (&[("tsize", "0"), ("BLKSIZE", "1432")], "tsize\x0010\0blksize\x001432\0"),
        (&[("windowsize", "64"), ("timeout", "3")], "windowsize\x0016\0timeout\x003\0"),
        (&[("multicast", ""), ("tsize", "0")], "tsize\x0010\0"),
        (&[("timeout", "255"), ("tsize", "0")], "tsize\x0010\0"),
        (&[("timeout", "10")], "timeout\x0010\0"),
        (
            &[
                ("blksize", "7"),
                ("timeout", "0"),
                ("windowsize", "0"),
                ("tsize", "0"),
                ("tsize", "9"),
            ],
            "tsize\x0010\0",
        ),
    ] {
        let transfer = transfer(asked, content(10));
        assert_eq!(packets(&transfer), [[&[0, 6], answered.as_bytes()].concat()], "{asked:?}");
    }
    // None asked, or none understood: data at once.
    for asked in [&[][..], &[("blksize", "x")], &[("utimeout", "100000")]] {
        assert_eq!(packets(&transfer(asked, content(10)))[0][..4], [0, 3, 0, 1], "{asked:?}");
    }
}

#[test]
fn uefi_learns_the_size_and_breaks_off() {
    let mut transfer = transfer(&[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")], content(5000));
    assert_eq!(
        transfer.receive(&error(8, "User aborted the transfer")),
        Step::End(End::SizeOnly)
    );
    let mut begun = transfer_begun();
    assert_eq!(begun.receive(&error(0, "full")), Step::End(End::Aborted));
}

fn transfer_begun() -> Transfer {
    let mut transfer = transfer(&[("tsize", "0")], content(5000));
    assert_eq!(transfer.receive(&ack(0)), Step::Send);
    transfer
}

#[test]
fn an_acknowledgement_that_comes_twice_sends_nothing_twice() {
    let mut transfer = transfer_begun();
    assert_eq!(transfer.receive(&ack(1)), Step::Send);
    assert_eq!(transfer.receive(&ack(1)), Step::Wait);
    assert_eq!(transfer.receive(&ack(0)), Step::Wait);
    assert_eq!(
        transfer.receive(&ack(3)),
        Step::Wait,
        "what was not sent cannot be acknowledged"
    );
    assert_eq!(transfer.receive(&ack(2)), Step::Send);
}

#[test]
fn a_client_that_never_acknowledges_is_given_up() {
    for (options, most) in [(&[][..], 16.0), (&[("timeout", "255")], 16.0), (&[("timeout", "10")], 60.0)] {
        let mut transfer = transfer(options, content(5000));
        let mut seconds = transfer.wait().as_secs_f64();
        let mut sent = 1;
        while transfer.timeout() == Step::Send {
            seconds += transfer.wait().as_secs_f64();
            sent += 1;
        }
        assert_eq!(sent, UNPROVEN_ATTEMPTS);
        assert!(seconds <= most, "{options:?}: {seconds}");
    }
}

#[test]
fn what_is_no_request_to_read_is_refused() {
    let read = |packet: &[u8]| ReadRequest::parse(packet);
    for packet in [
        &b""[..],
        b"\0",
        b"\0\x03\0\x01x",
        b"\0\x04\0\x01",
        b"\0\x05\0\0x\0",
        b"\0\x07a\0octet\0",
    ] {
        assert_eq!(read(packet), Err(Refused::NotARequest));
        assert_eq!(Refused::NotARequest.packet(), None);
    }
    assert_eq!(read(b"\0\x02f\0octet\0"), Err(Refused::Write));
    for mode in ["mail", "netascii"] {
        assert_eq!(read(&request("f", mode, &[])), Err(Refused::Mode));
    }
    assert!(read(&request("f", "OcTeT", &[])).is_ok());
    for packet in [
        &b"\0\x01"[..],
        b"\0\x01\0octet\0",
        b"\0\x01f\0",
        b"\0\x01f\0octet",
        b"\0\x01\xff\0octet\0",
    ] {
        assert_eq!(read(packet), Err(Refused::Malformed), "{packet:?}");
    }
    assert_eq!(read(&request(&"x".repeat(600), "octet", &[])), Err(Refused::Malformed));
    // An option without its value is none.
    assert!(read(b"\0\x01f\0octet\0blksize\0").expect("valid").options.is_empty());
}

#[test]
fn a_way_out_of_the_folder_is_no_name_in_it() {
    let name = |text: &str| ReadRequest::parse(&request(text, "octet", &[])).expect("valid").table_name();
    for text in [
        "snponly.efi",
        "/snponly.efi",
        "//snponly.efi",
        "./snponly.efi",
        "\\snponly.efi",
        "/./snponly.efi",
        ".//snponly.efi",
    ] {
        assert_eq!(name(text), "snponly.efi");
    }
    for (text, kept) in [
        ("../etc/passwd", "../etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("a/../../b", "a/../../b"),
        ("x86_64//a.efi", "x86_64/a.efi"),
        ("..\\x", "../x"),
    ] {
        assert_eq!(name(text), kept);
    }
}
