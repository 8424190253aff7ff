//! A machine's firmware as far as its packets: a question from the network namespace that the thread is in.

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

/// A thread in a network namespace: sockets that it opens are there.
pub fn inside<T: Send + 'static>(namespace: &Path, work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    let file = File::open(namespace).unwrap_or_else(|error| panic!("{}: {error}", namespace.display()));
    thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    })
}

/// A DISCOVER of a BIOS machine's PXE on eth0, and every answer within a moment.
pub fn discover(mac: [u8; 6]) -> Vec<Vec<u8>> {
    ask(mac, "PXEClient", 0, Duration::from_millis(700)).collect()
}

/// The first answer to a DISCOVER of firmware that calls itself so, of an architecture (option 93). ISC dhcpd looks for a second first
/// whether anyone has the address.
pub fn first_answer(mac: [u8; 6], class: &str, architecture: u16) -> Vec<u8> {
    let mut answers = ask(mac, class, architecture, Duration::from_secs(5));
    answers
        .next()
        .unwrap_or_else(|| panic!("no answer to {class} {architecture:#x}"))
}

fn ask(mac: [u8; 6], class: &str, architecture: u16, patience: Duration) -> impl Iterator<Item = Vec<u8>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.bind_device(Some(b"eth0")).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], 68)).into()).unwrap();
    let socket = UdpSocket::from(socket);
    let mut packet = vec![0; 236];
    packet[..3].copy_from_slice(&[1, 1, 6]);
    packet[10] = 0x80;
    packet[28..34].copy_from_slice(&mac);
    packet.extend(b"\x63\x82\x53\x63\x35\x01\x01\x5d\x02");
    packet.extend(architecture.to_be_bytes());
    packet.extend([60, u8::try_from(class.len()).unwrap()]);
    packet.extend(class.bytes());
    packet.push(255);
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send_to(&packet, "255.255.255.255:67").unwrap();
    let mut buffer = [0; 1500];
    std::iter::from_fn(move || socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()))
}

/// What each answer says is to be fetched.
pub fn boot_files(answers: &[Vec<u8>]) -> Vec<String> {
    let file = |answer: &Vec<u8>| String::from_utf8_lossy(&answer[108..236]).trim_end_matches('\0').to_owned();
    answers.iter().map(file).collect()
}
