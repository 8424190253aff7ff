//! Which port answers what, and to where: machines on the wire, behind relays, and those who only say so.

use super::*;

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
        // The segment's: all of it, and ourselves.
        [192, 0, 2, 0],
        [192, 0, 2, 255],
        [192, 0, 2, 1],
    ] {
        asked[24..28].copy_from_slice(&spoofed);
        assert_eq!(
            ask(&asked, &Site { relays: &[], ..site }),
            Err(Silence::Relay(spoofed.into()))
        );
    }
}
