//! TFTP: one task for each transfer around [`transfer`](super::transfer), and one that hears requests.
//!
//! Of our own: a Service or NAT needs a mode in which all of a transfer comes from port 69, and limits that a public library does not
//! have (`docs/decisions/0017-tftp-of-our-own.md`).

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::boot::way::Protocol;
use crate::cli::Tftp;

use super::state::State;
use super::transfer::{End, ReadRequest, Step, Transfer, not_found};
use super::ways::{Fetch, now};
use super::wire::transfer_socket;

/// The largest packet that is looked at: a request has at most 512 bytes, an acknowledgement 4.
const MAX_PACKET: usize = 1024;
/// Packets of one client that wait for its transfer.
const QUEUE: usize = 32;
/// Transfers of one address at once: a machine has one or two, behind NAT there are several machines.
const OF_ONE_ADDRESS: usize = 16;

/// Transfers on their way, by client.
type Open = Arc<Mutex<HashMap<SocketAddr, Entry>>>;

struct Entry {
    request: ReadRequest,
    since: Instant,
    /// The client acknowledged something.
    proven: Arc<AtomicBool>,
    packets: mpsc::Sender<Bytes>,
    end: CancellationToken,
}

/// Hears requests at one address until the end. Blocks a thread, which does nothing else: a block is a few microseconds of work, and waking
/// another thread for it costs as much again. It also leaves the others to DHCP, however many machines fetch at once.
pub fn serve(socket: std::net::UdpSocket, address: Ipv4Addr, state: &Arc<State>, end: &CancellationToken) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, %address, "TFTP cannot be answered"),
    };
    runtime.block_on(async {
        match UdpSocket::from_std(socket) {
            Ok(socket) => hear_all(Arc::new(socket), address, state, end).await,
            Err(error) => tracing::error!(%error, %address, "TFTP cannot be answered"),
        }
    });
}

async fn hear_all(socket: Arc<UdpSocket>, address: Ipv4Addr, state: &Arc<State>, end: &CancellationToken) {
    let open = Open::default();
    let transfers = TaskTracker::new();
    let mut buffer = [0; MAX_PACKET];
    loop {
        let received = tokio::select! {
            biased;
            () = end.cancelled() => break,
            received = socket.recv_from(&mut buffer) => received,
        };
        match received {
            Ok((length, client)) => {
                if let Some(transfer) = hear(&buffer[..length], client, &socket, address, &open, state, end).await {
                    transfers.spawn(transfer);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a TFTP packet could not be received");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // They end by the same token, and are counted.
    transfers.close();
    transfers.wait().await;
}

/// Answers a packet, or gives the transfer that it begins.
async fn hear(
    packet: &[u8],
    client: SocketAddr,
    socket: &Arc<UdpSocket>,
    address: Ipv4Addr,
    open: &Open,
    state: &Arc<State>,
    end: &CancellationToken,
) -> Option<impl Future<Output = ()> + 'static> {
    // Nothing can be sent to port 0, and what says it comes from there is made up.
    if client.port() == 0 || !state.settings.is_client(client.ip()) {
        state.metrics.transfer(None, "not-allowed", 0);
        return None;
    }
    let request = match ReadRequest::parse(packet) {
        Ok(request) => request,
        Err(refused) => {
            let of_transfer = lock(open).get(&client).map(|entry| entry.packets.clone());
            match (of_transfer, refused.packet()) {
                // In single-port mode; a queue that is full loses it, as a network would.
                (Some(packets), None) => drop(packets.try_send(Bytes::copy_from_slice(packet))),
                (None, None) => {}
                (_, Some(answer)) => {
                    state.metrics.transfer(None, refused.into(), 0);
                    tracing::info!(%client, "TFTP refused: {}", <&str>::from(refused));
                    // Whoever is not there to hear it is no concern of ours.
                    let _ = socket.send_to(&answer, client).await;
                }
            }
            return None;
        }
    };
    let name = request.table_name();
    let Some((bytes, platform)) = state.file(&name, address, client.ip()) else {
        state.metrics.transfer(None, "not-found", 0);
        // PXELINUX looks for a file of each machine's own before it takes the one for all.
        match name.starts_with("pxelinux.cfg/") {
            true => tracing::debug!(%client, file = shown(&request.name), "TFTP: no such file"),
            false => tracing::info!(%client, file = shown(&request.name), "TFTP: no such file"),
        }
        let _ = socket.send_to(&not_found(), client).await;
        return None;
    };
    let (mut channel, entry_end, proven) = enter(&request, client, socket, address, open, state, end)?;
    let asked = now();
    state.metrics.transfers_open.inc();
    let (state, open, end) = (state.clone(), open.clone(), end.clone());
    Some(async move {
        let mut transfer = Transfer::new(&request, bytes);
        let outcome = tokio::select! {
            biased;
            () = end.cancelled() => None,
            () = entry_end.cancelled() => None,
            outcome = run(&mut transfer, &mut channel, &proven) => Some(outcome),
        };
        // A newer request of the same client has taken the place already.
        if !entry_end.is_cancelled() {
            lock(&open).remove(&client);
        }
        state.metrics.transfers_open.dec();
        let (label, sent, size) = match outcome {
            Some(end) => (end.into(), transfer.sent(), transfer.size()),
            None => ("replaced", transfer.sent(), transfer.size()),
        };
        state.metrics.transfer(platform, label, sent);
        // Only programs: the script beside them is no step of its own.
        if platform.is_some() && matches!(outcome, Some(End::Complete | End::Unconfirmed)) {
            state.ways.fetched(Fetch {
                client: client.ip(),
                by: Protocol::Tftp,
                asked,
                took: u32::try_from(now() - asked).ok(),
                bytes: size,
            });
        }
        match outcome {
            Some(End::Lost) => {
                tracing::warn!(%client, file = shown(&name), sent, size, "TFTP: the machine was not heard of any more")
            }
            Some(End::Aborted) => tracing::warn!(%client, file = shown(&name), sent, size, "TFTP: the machine broke it off"),
            _ => tracing::info!(%client, file = shown(&name), sent, size, "TFTP: {label}"),
        }
    })
}

/// Finds a place for a transfer; `None` if the request is heard of already, or there is no place.
fn enter(
    request: &ReadRequest,
    client: SocketAddr,
    socket: &Arc<UdpSocket>,
    address: Ipv4Addr,
    open: &Open,
    state: &State,
    end: &CancellationToken,
) -> Option<(Channel, CancellationToken, Arc<AtomicBool>)> {
    let mut transfers = lock(open);
    if let Some(before) = transfers.get(&client) {
        // A request that the network doubled, or that crossed our answer: that will be sent again by itself.
        if before.request == *request && !before.proven.load(Ordering::Relaxed) {
            return None;
        }
        // Firmware that started anew from the same port.
        before.end.cancel();
        transfers.remove(&client);
    }
    if !make_room(&mut transfers, client, state.settings.max_transfers) {
        state.metrics.transfer(None, "busy", 0);
        tracing::debug!(%client, "TFTP: too many transfers at once");
        return None;
    }
    let (packets, received) = mpsc::channel(QUEUE);
    let channel = match state.settings.tftp {
        Tftp::SinglePort => Channel::Shared(socket.clone(), client, received),
        Tftp::On | Tftp::Off => match transfer_socket(address, client) {
            Ok(own) => Channel::Own(own),
            Err(error) => {
                state.metrics.transfer(None, "no-socket", 0);
                tracing::warn!(%client, %error, "TFTP: no socket for a transfer");
                return None;
            }
        },
    };
    let (proven, entry_end) = (Arc::<AtomicBool>::default(), end.child_token());
    transfers.insert(
        client,
        Entry {
            request: request.clone(),
            since: Instant::now(),
            proven: proven.clone(),
            packets,
            end: entry_end.clone(),
        },
    );
    Some((channel, entry_end, proven))
}

/// Whether there is a place for a client. Where there is none, whoever waits longest without having acknowledged anything gives way: a
/// request can be sent in another's name, and then nobody will.
fn make_room(transfers: &mut HashMap<SocketAddr, Entry>, client: SocketAddr, most: usize) -> bool {
    let is_same = |other: &SocketAddr| other.ip() == client.ip();
    let address_is_full = transfers.keys().filter(|other| is_same(other)).count() >= OF_ONE_ADDRESS;
    if !address_is_full && transfers.len() < most {
        return true;
    }
    let may_give_way = transfers.iter().filter(|(other, _)| !address_is_full || is_same(other));
    let unproven = may_give_way.filter(|(_, entry)| !entry.proven.load(Ordering::Relaxed));
    let Some(oldest) = unproven.min_by_key(|(_, entry)| entry.since).map(|(client, _)| *client) else {
        return false;
    };
    if let Some(entry) = transfers.remove(&oldest) {
        entry.end.cancel();
    }
    true
}

/// How packets of one transfer come and go.
enum Channel {
    /// Its own socket, connected to the client.
    Own(UdpSocket),
    /// Port 69 for all.
    Shared(Arc<UdpSocket>, SocketAddr, mpsc::Receiver<Bytes>),
}

impl Channel {
    async fn send(&self, packet: &[u8]) -> io::Result<()> {
        match self {
            Self::Own(socket) => socket.send(packet).await.map(drop),
            Self::Shared(socket, client, _) => socket.send_to(packet, *client).await.map(drop),
        }
    }

    async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Own(socket) => socket.recv(buffer).await,
            Self::Shared(_, _, packets) => {
                let packet = packets.recv().await.ok_or(io::ErrorKind::ConnectionAborted)?;
                let length = packet.len().min(buffer.len());
                buffer[..length].copy_from_slice(&packet[..length]);
                Ok(length)
            }
        }
    }
}

async fn run(transfer: &mut Transfer, channel: &mut Channel, proven: &AtomicBool) -> End {
    let mut packet = Vec::with_capacity(2048);
    let mut buffer = [0; MAX_PACKET];
    let mut step = Step::Send;
    // A timer for each block would cost more than sending it: this one is set again when it goes off too early.
    let timer = tokio::time::sleep(transfer.wait());
    tokio::pin!(timer);
    let mut until = timer.deadline();
    loop {
        match step {
            Step::Send => {
                let mut waiting = Vec::new();
                let _ = transfer.packets(&mut packet, |bytes| channel.send_now(bytes, &mut waiting));
                for bytes in waiting {
                    // Like every loss: sent again when time is up.
                    let _ = channel.send(&bytes).await;
                }
                until = Instant::now() + transfer.wait();
                if timer.is_elapsed() || until < timer.deadline() {
                    timer.as_mut().reset(until);
                }
            }
            // Time goes on: a client that repeats itself must not put off what it waits for, nor hold its place for ever.
            Step::Wait => {}
            Step::End(end) => return end,
        }
        step = tokio::select! {
            biased;
            received = channel.receive(&mut buffer) => match received {
                Ok(length) => {
                    proven.store(true, Ordering::Relaxed);
                    transfer.receive(&buffer[..length])
                }
                // Its port is closed: it has what it wanted, or went away.
                Err(_) if transfer.sent() == transfer.size() => Step::End(End::Complete),
                Err(_) => Step::End(End::Lost),
            },
            () = &mut timer => match Instant::now() >= until {
                true => transfer.timeout(),
                false => {
                    timer.as_mut().reset(until);
                    Step::Wait
                }
            },
        };
    }
}

impl Channel {
    /// Sends without waiting; what does not go now is put aside.
    fn send_now(&self, packet: &[u8], aside: &mut Vec<Vec<u8>>) -> Result<(), std::convert::Infallible> {
        let sent = match self {
            Self::Own(socket) if aside.is_empty() => socket.try_send(packet),
            Self::Shared(socket, client, _) if aside.is_empty() => socket.try_send_to(packet, *client),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        };
        if sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            aside.push(packet.to_vec());
        }
        Ok(())
    }
}

fn lock(open: &Open) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Entry>> {
    // Nothing that holds it can panic half-way.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name of a client, short and printable.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(80).collect();
    short.escape_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(since: Instant, proven: bool) -> Entry {
        Entry {
            request: ReadRequest::parse(b"\0\x01f\0octet\0").expect("valid"),
            since,
            proven: Arc::new(AtomicBool::new(proven)),
            packets: mpsc::channel(1).0,
            end: CancellationToken::new(),
        }
    }

    #[test]
    fn the_oldest_that_never_acknowledged_gives_way_and_no_address_takes_all() {
        let client = |host: u8, port: u16| SocketAddr::from(([192, 0, 2, host], port));
        let start = Instant::now();
        let mut transfers: HashMap<_, _> = [(1, true), (2, false), (3, false)]
            .map(|(host, proven)| (client(host, 1000), entry(start + Duration::from_secs(host.into()), proven)))
            .into();
        let of_second = transfers[&client(2, 1000)].end.clone();
        assert!(
            make_room(&mut transfers, client(4, 1000), 4) && transfers.len() == 3,
            "there is room"
        );
        assert!(make_room(&mut transfers, client(4, 1000), 3));
        assert!(of_second.is_cancelled() && !transfers.contains_key(&client(2, 1000)));
        assert!(make_room(&mut transfers, client(4, 1000), 2) && transfers.len() == 1);
        assert!(
            !make_room(&mut transfers, client(4, 1000), 1),
            "who acknowledged keeps its place"
        );

        transfers.extend((1..=15).map(|port| (client(9, port), entry(start, true))));
        transfers.insert(client(8, 1), entry(start, false));
        assert!(make_room(&mut transfers, client(9, 1000), 99));
        transfers.insert(client(9, 1000), entry(start, false));
        assert!(make_room(&mut transfers, client(9, 1001), 99), "its own gives way");
        assert!(!transfers.contains_key(&client(9, 1000)) && transfers.contains_key(&client(8, 1)));
        transfers.insert(client(9, 1001), entry(start, true));
        assert!(!make_room(&mut transfers, client(9, 1002), 99));
        assert!(make_room(&mut transfers, client(7, 1), 99));
    }
}
