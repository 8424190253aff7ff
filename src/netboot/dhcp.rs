//! ProxyDHCP: packets in, decisions, packets out. Never a lease.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::boot::mac::MacAddr;
use crate::boot::way;

use super::interface::Interface;
use super::offer::{self, BOOT_PORT, BootFile, MAX_FILE, Outcome, Silence, Site};
use super::packet::{chaddr, giaddr};
use super::state::State;
use super::ways;

/// The largest datagram.
const MAX_DATAGRAM: usize = 65_535;
/// The same about a machine is said once in this time.
const QUIET: Duration = Duration::from_secs(60);
/// Machines that are remembered as told of.
const MAX_TOLD: usize = 4096;

/// Answers what comes to one socket until the end, or until the interface is gone.
pub async fn serve(
    socket: &UdpSocket,
    port: u16,
    interface: &Interface,
    own: Option<Ipv4Addr>,
    state: &State,
    end: &CancellationToken,
) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut told = Told::default();
    loop {
        let received = tokio::select! {
            biased;
            () = end.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let (length, from) = match received {
            Ok((length, SocketAddr::V4(from))) => (length, from),
            Ok(_) => continue,
            Err(error) => {
                // An interface that went down is found by whoever looks at interfaces; its errors must not burn a core till then.
                tracing::debug!(%error, interface = interface.name, "a packet could not be received");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let packet = &buffer[..length];
        let address = own.unwrap_or_else(|| interface.address_for(giaddr(packet)));
        let now = ways::now();
        let outcome = decide(packet, port, from, address, interface, now, state);
        let sent = match &outcome.answer {
            Ok(reply) if !state.settings.dry_run => socket.send_to(&reply.bytes, SocketAddr::V4(reply.to)).await,
            _ => Ok(0),
        };
        if let (Some(mac), Ok(reply), Ok(1..)) = (outcome.machine, &outcome.answer, &sent) {
            let is_firmware = !matches!(reply.boot_file, BootFile::Script(_));
            let asked_from = (port == BOOT_PORT).then_some(*from.ip());
            state.ways.told(mac, asked_from, is_firmware, now);
        }
        account(&outcome, &sent, port, interface, state, &mut told);
    }
}

fn decide(
    packet: &[u8],
    port: u16,
    from: SocketAddrV4,
    address: Ipv4Addr,
    interface: &Interface,
    now: i64,
    state: &State,
) -> Outcome {
    let settings = &state.settings;
    let programs = state.programs.load();
    let site = Site {
        address,
        networks: &interface.addresses,
        script: &script(packet, address, now, state),
        programs: &programs,
        tftp: settings.tftp != crate::cli::Tftp::Off,
        http: settings.programs_port,
        vendors: &settings.vendors,
        relays: &settings.relays,
        quirks: &settings.quirks,
    };
    offer::answer(packet, port, from, &site, &|mac| state.machines.look_up(mac))
}

/// The script's address takes along how the machine came so far, if there is room for it.
fn script(packet: &[u8], address: Ipv4Addr, now: i64, state: &State) -> String {
    let script = state.settings.script(address);
    let Some(mac) = chaddr(packet) else { return script };
    let longer = format!("{script}?{}={}", way::PARAMETER, state.ways.of(mac, now));
    if longer.len() <= MAX_FILE { longer } else { script }
}

/// Counts, and says in one line what became of a packet.
fn account(outcome: &Outcome, sent: &io::Result<usize>, port: u16, interface: &Interface, state: &State, told: &mut Told) {
    let name = &interface.name;
    let label = match (&outcome.answer, sent) {
        (Ok(_), Err(_)) => "not-sent",
        (Ok(_), Ok(_)) if state.settings.dry_run => "dry-run",
        (Ok(reply), Ok(_)) => reply.boot_file.kind(),
        (Err(silence), _) => silence.into(),
    };
    state.metrics.packet(outcome.platform, label);
    let Some(mac) = outcome.machine else {
        if let Err(silence) = &outcome.answer {
            tracing::debug!(interface = name, port, "a packet that is no machine's: {silence}");
        }
        return;
    };
    let architecture = outcome
        .platform
        .map_or_else(|| "unknown".to_owned(), |platform| platform.to_string());
    match (&outcome.answer, sent) {
        (Ok(reply), Ok(_)) => {
            let (what, would) = (
                reply.boot_file.name(),
                if state.settings.dry_run { "would be told" } else { "told" },
            );
            tracing::info!(%mac, architecture, interface = name, port, to = %reply.to, "{would} to fetch {what}");
        }
        (Ok(reply), Err(error)) => {
            tracing::warn!(%mac, architecture, interface = name, port, to = %reply.to, %error, "the answer could not be sent");
        }
        // Most of what broadcasts on a network: machines that run.
        (Err(silence @ (Silence::NotNetworkBoot | Silence::OtherMessage(..))), _) => {
            tracing::debug!(%mac, architecture, interface = name, port, "not answered: {silence}");
        }
        (Err(silence), _) if told.is_news(mac, silence) => {
            tracing::info!(%mac, architecture, interface = name, port, "not answered: {silence}");
        }
        (Err(silence), _) => {
            tracing::debug!(%mac, architecture, interface = name, port, "not answered: {silence}");
        }
    }
}

/// What was said of whom lately: firmware asks four times, and starts over for ever.
#[derive(Debug, Default)]
struct Told(HashMap<(MacAddr, &'static str), Instant>);

impl Told {
    fn is_news(&mut self, mac: MacAddr, silence: &Silence) -> bool {
        let now = Instant::now();
        if self.0.len() >= MAX_TOLD {
            self.0.retain(|_, said| now - *said < QUIET);
        }
        if self.0.len() >= MAX_TOLD {
            // A flood of invented machines: it may be said twice.
            self.0.clear();
        }
        let said = self.0.insert((mac, silence.into()), now);
        let is_news = said.is_none_or(|said| now - said >= QUIET);
        if let (false, Some(said)) = (is_news, said) {
            self.0.insert((mac, silence.into()), said);
        }
        is_news
    }
}
