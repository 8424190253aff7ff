//! Load for a boot network, for `bench/netboot.sh`: many TFTP clients at once, or DISCOVERs at a fixed rate.
//!
//! `netboot_load tftp SERVER:69 FILE CLIENTS WINDOW FIRST` prints bytes, seconds and MiB/s, the clients at addresses from FIRST on;
//! `netboot_load dhcp INTERFACE RATE SECONDS` prints answers and their delay, where one that never came counts as endless.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    match arguments[..] {
        ["tftp", server, file, clients, window, first] => {
            let (server, first) = (
                server.parse().map_err(io::Error::other)?,
                first.parse().map_err(io::Error::other)?,
            );
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(tftp(server, file, number(clients)?, number(window)?, first))
        }
        ["dhcp", interface, rate, seconds] => dhcp(interface, number(rate)?, number(seconds)?),
        _ => Err(io::Error::other(
            "usage: netboot_load tftp SERVER:69 FILE CLIENTS WINDOW FIRST | dhcp INTERFACE RATE SECONDS",
        )),
    }
}

async fn tftp(server: SocketAddr, file: &str, clients: u64, window: u64, first: Ipv4Addr) -> io::Result<()> {
    let start = Instant::now();
    let transfers: Vec<_> = (first.to_bits()..)
        .zip(0..clients)
        .map(|(address, _)| tokio::spawn(fetch(server, file.to_owned(), window, Ipv4Addr::from_bits(address))))
        .collect();
    let mut bytes = 0;
    for transfer in transfers {
        bytes += transfer.await??;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "bytes={bytes} seconds={seconds:.2} rate={:.1}",
        bytes as f64 / 1_048_576.0 / seconds
    );
    Ok(())
}

/// One file, with blocks of 1468 bytes; what is lost is asked for again after a second.
async fn fetch(server: SocketAddr, file: String, window: u64, address: Ipv4Addr) -> io::Result<u64> {
    let socket = tokio::net::UdpSocket::bind((address, 0)).await?;
    let mut request = format!("\0\u{1}{file}\0octet\0blksize\x001468\0");
    if window > 1 {
        request.push_str(&format!("windowsize\0{window}\0"));
    }
    let (mut to, mut last) = (server, request.into_bytes());
    let mut buffer = [0; 2048];
    let (mut bytes, mut block, mut since) = (0, 0u16, 0);
    // A server may answer with less.
    let mut window = window;
    socket.send_to(&last, to).await?;
    for _ in 0..1_000_000 {
        let Ok(received) = tokio::time::timeout(Duration::from_secs(1), socket.recv_from(&mut buffer)).await else {
            socket.send_to(&last, to).await?;
            continue;
        };
        let (length, from) = received?;
        to = from;
        let number = u16::from_be_bytes([buffer[2], buffer[3]]);
        match buffer[1] {
            6 => {
                let text = String::from_utf8_lossy(&buffer[2..length]).into_owned();
                let mut options = text.split('\0');
                window = 1;
                while let Some(option) = options.next() {
                    if option == "windowsize" {
                        window = options.next().and_then(|value| value.parse().ok()).unwrap_or(1);
                    }
                }
                last = vec![0, 4, 0, 0];
                socket.send_to(&last, to).await?;
            }
            3 if number == block.wrapping_add(1) => {
                block = number;
                since += 1;
                bytes += length as u64 - 4;
                let is_end = length - 4 < 1468;
                if since >= window || is_end {
                    since = 0;
                    last = vec![0, 4, (block >> 8) as u8, block as u8];
                    socket.send_to(&last, to).await?;
                }
                if is_end {
                    return Ok(bytes);
                }
            }
            5 => return Err(io::Error::other("the server refused")),
            _ => {}
        }
    }
    Err(io::Error::other("no end"))
}

fn dhcp(interface: &str, rate: u64, seconds: u64) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.set_recv_buffer_size(4 << 20)?;
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], 68)).into())?;
    let socket = UdpSocket::from(socket);
    let receiver = socket.try_clone()?;
    receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
    let listening = std::thread::spawn(move || {
        let (mut buffer, mut answers) = ([0; 1500], HashMap::new());
        while let Ok(length) = receiver.recv(&mut buffer) {
            if length > 240 {
                answers
                    .entry([buffer[4], buffer[5], buffer[6], buffer[7]])
                    .or_insert_with(Instant::now);
            }
        }
        answers
    });
    let mut packet = vec![0; 236];
    packet[..3].copy_from_slice(&[1, 1, 6]);
    packet[10] = 0x80;
    packet.extend(b"\x63\x82\x53\x63\x35\x01\x01\x3c\x20PXEClient:Arch:00007:UNDI:003016\x5d\x02\0\x07\x5e\x03\x01\x03\x10\xff");
    let start = Instant::now();
    let mut sent = Vec::new();
    for index in 0..rate * seconds {
        let due = start + Duration::from_nanos(1_000_000_000 / rate * index);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let id = (index as u32).to_be_bytes();
        packet[4..8].copy_from_slice(&id);
        packet[28..34].copy_from_slice(&[0x52, 0x54, id[0], id[1], id[2], id[3]]);
        sent.push((id, Instant::now()));
        socket.send_to(&packet, "255.255.255.255:67")?;
    }
    let answers = listening.join().map_err(|_| io::Error::other("the listener panicked"))?;
    let mut delays: Vec<f64> = sent
        .iter()
        .map(|(id, at)| {
            let answered = answers.get(id);
            answered.map_or(f64::INFINITY, |answered| {
                answered.saturating_duration_since(*at).as_secs_f64() * 1000.0
            })
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    let of = |share: f64| {
        delays
            .get((delays.len() as f64 * share) as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    println!(
        "sent={} answered={} p50={:.2} p99={:.2} most={:.2}",
        sent.len(),
        answers.len(),
        of(0.5),
        of(0.99),
        of(0.9999)
    );
    Ok(())
}
