//! A packet becomes an answer, or silence with its reason. Pure: the same packet and site, the same bytes.
//!
//! The answer is a second offer beside the one of the site's DHCP server (PXE 2.1 section 2): what to boot, and never an address.
//! `yiaddr` is 0 in every answer, and whoever is not PXE, HTTP Boot or iPXE gets none. What clients accept is in
//! `docs/network.md`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::{self, DhcpOption, Encodable as _};
use ipnet::Ipv4Net;
use strum::IntoStaticStr;

use crate::boot::mac::MacAddr;
use crate::cli::Quirk;

use super::architecture::Platform;
use super::packet::{Malformed, Request, code};
use super::programs::Programs;

/// Port of DHCP servers.
pub const SERVER_PORT: u16 = 67;
/// Port of DHCP clients.
pub const CLIENT_PORT: u16 = 68;
/// Port on which PXE firmware asks a server of boot programs.
pub const BOOT_PORT: u16 = 4011;

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
/// The `file` field has 128 bytes, the last of which is 0 (RFC 951).
pub const MAX_FILE: usize = 127;
/// BOOTP's size; smaller packets are thrown away by some relays (RFC 1542 section 2.1).
const MIN_PACKET: usize = 300;
/// PXE discovery control, "use the boot file at once", and the end (PXE 2.1 table 2-1).
const BOOT_AT_ONCE: [u8; 4] = [6, 1, 8, 255];

/// Where and as what an answer is given.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Our address on the wire the packet came from.
    pub address: Ipv4Addr,
    /// Our addresses on that wire, each with its network.
    pub networks: &'a [Ipv4Net],
    /// The script for iPXE.
    pub script: &'a str,
    /// The boot programs.
    pub programs: &'a Programs,
    /// Whether programs are sent by TFTP.
    pub tftp: bool,
    /// The port on which they are sent by HTTP.
    pub http: Option<u16>,
    /// What else firmware calls itself in option 60, beside `PXEClient` and `HTTPClient`.
    pub vendors: &'a [String],
    /// Networks of relays that are answered; empty means any.
    pub relays: &'a [Ipv4Net],
    /// For firmware that needs it.
    pub quirks: &'a [Quirk],
}

/// Whether a machine is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is in the inventory, or everyone is answered.
    Yes,
    /// It is not.
    No,
    /// The bridge could not be asked yet.
    NotAsked,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Silence {
    /// Not a packet of a machine.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// A machine that does not boot from the network: it only wants an address.
    #[error("it does not boot from the network")]
    NotNetworkBoot,
    /// Offers are for DISCOVER on port 67, acknowledgements for REQUEST on port 4011.
    #[error("message type {0} is not answered on port {1}")]
    OtherMessage(u8, u16),
    /// The relay is not one of ours, or its address cannot be one: a group's, a whole network's, our own.
    #[error("relay {0} is not answered")]
    Relay(Ipv4Addr),
    /// There is nowhere to send an answer to.
    #[error("it came from {0}, which cannot be answered")]
    NoWayBack(SocketAddrV4),
    /// The inventory does not have it.
    #[error("the bridge does not know it")]
    UnknownMachine,
    /// The bridge could not be asked.
    #[error("the bridge could not be asked yet whether it knows it")]
    NotAsked,
    /// Option 93 is missing or names no platform that has a boot program.
    #[error("no boot program exists for its architecture: option 93 is {0}")]
    UnknownArchitecture(String),
    /// The folder has no program for it.
    #[error("the folder of boot programs has none for {0}")]
    NoProgram(Platform),
    /// What it would fetch by is switched off.
    #[error("it fetches by {0}, which is switched off")]
    ProtocolOff(&'static str),
    /// iPXE that cannot fetch the script.
    #[error("its iPXE was built without HTTP and cannot fetch the script")]
    IpxeWithoutHttp,
    /// The same where the bridge's address is one of HTTPS.
    #[error("its iPXE was built without HTTPS and cannot fetch the script")]
    IpxeWithoutHttps,
    /// The name is longer than the packet can hold.
    #[error("{0:?} is longer than 127 bytes")]
    LongName(String),
    /// The answer cannot be written.
    #[error("the answer cannot be written: {0}")]
    NotWritten(String),
}

/// What a machine is told to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootFile {
    /// The script, for iPXE.
    Script(String),
    /// A program by TFTP.
    Tftp(String),
    /// A program by HTTP.
    Http(String),
}

impl BootFile {
    /// As it stands in the packet.
    pub fn name(&self) -> &str {
        match self {
            Self::Script(name) | Self::Tftp(name) | Self::Http(name) => name,
        }
    }

    /// A word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Script(_) => "script",
            Self::Tftp(_) => "tftp-program",
            Self::Http(_) => "http-program",
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The packet.
    pub bytes: Vec<u8>,
    /// Where it goes; 255.255.255.255 for everyone on the wire.
    pub to: SocketAddrV4,
    /// What it says.
    pub boot_file: BootFile,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The machine, if the packet is one's.
    pub machine: Option<MacAddr>,
    /// Its platform, if it is known.
    pub platform: Option<Platform>,
    /// The answer, or why there is none.
    pub answer: Result<Reply, Silence>,
}

/// Decides about one packet that came to one of the two ports.
pub fn answer(bytes: &[u8], port: u16, from: SocketAddrV4, site: &Site<'_>, known: &dyn Fn(MacAddr) -> Known) -> Outcome {
    match Request::parse(bytes) {
        Err(malformed) => Outcome {
            machine: None,
            platform: None,
            answer: Err(malformed.into()),
        },
        Ok(request) => Outcome {
            machine: Some(request.mac),
            platform: Platform::of_codes(&request.architectures),
            answer: reply(&request, port, from, site, known),
        },
    }
}

/// By what a machine that boots from the network fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client<'a> {
    Ipxe,
    Pxe(&'a str),
    Http,
}

fn reply(
    request: &Request,
    port: u16,
    from: SocketAddrV4,
    site: &Site<'_>,
    known: &dyn Fn(MacAddr) -> Known,
) -> Result<Reply, Silence> {
    let client = client(request, site.vendors).ok_or(Silence::NotNetworkBoot)?;
    let is_expected = matches!((port, request.message_type), (SERVER_PORT, DISCOVER) | (BOOT_PORT, REQUEST));
    if !is_expected {
        return Err(Silence::OtherMessage(request.message_type, port));
    }
    let to = way_back(request, port, from, site)?;
    match known(request.mac) {
        Known::Yes => {}
        Known::No => return Err(Silence::UnknownMachine),
        Known::NotAsked => return Err(Silence::NotAsked),
    }
    let boot_file = boot_file(request, client, site)?;
    if boot_file.name().len() > MAX_FILE {
        return Err(Silence::LongName(boot_file.name().to_owned()));
    }
    let bytes = encode(request, port, client, &boot_file, site)?;
    Ok(Reply { bytes, to, boot_file })
}

/// What asks, by options 60, 77 and 175. iPXE comes first: when firmware has loaded it, it also says `PXEClient`.
fn client<'a>(request: &Request, vendors: &'a [String]) -> Option<Client<'a>> {
    let is = |prefix: &str| request.class.starts_with(prefix.as_bytes());
    if request.ipxe.is_some() {
        Some(Client::Ipxe)
    } else if is("PXEClient") {
        Some(Client::Pxe("PXEClient"))
    } else if is("HTTPClient") {
        Some(Client::Http)
    } else {
        vendors.iter().find(|vendor| is(vendor)).map(|vendor| Client::Pxe(vendor))
    }
}

fn way_back(request: &Request, port: u16, from: SocketAddrV4, site: &Site<'_>) -> Result<SocketAddrV4, Silence> {
    let relay = request.giaddr;
    if port == BOOT_PORT {
        // Firmware asks from port 4011 or 68 and listens there. A relay does not touch what is sent to one address.
        return match is_host(*from.ip()) && from.port() != 0 {
            true => Ok(from),
            false => Err(Silence::NoWayBack(from)),
        };
    }
    if relay.is_unspecified() {
        return Ok(SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT));
    }
    let is_ours = site.relays.is_empty() || site.relays.iter().any(|network| network.contains(&relay));
    let is_neighbour = |network: &Ipv4Net| {
        let is_whole = network.prefix_len() < 31 && (relay == network.network() || relay == network.broadcast());
        !is_whole && relay != network.addr()
    };
    match is_host(relay) && is_ours && site.networks.iter().all(is_neighbour) {
        true => Ok(SocketAddrV4::new(relay, SERVER_PORT)),
        false => Err(Silence::Relay(relay)),
    }
}

/// An address that one machine of a network can have.
fn is_host(address: Ipv4Addr) -> bool {
    let is_reserved = address.octets()[0] == 0 || address.octets()[0] >= 224;
    !is_reserved && !address.is_loopback()
}

fn boot_file(request: &Request, client: Client<'_>, site: &Site<'_>) -> Result<BootFile, Silence> {
    // Never a program for iPXE: it would load itself for ever.
    if let Some(ipxe) = request.ipxe {
        return match site.script.starts_with("https:") {
            true if ipxe.lacks_https => Err(Silence::IpxeWithoutHttps),
            false if ipxe.lacks_http => Err(Silence::IpxeWithoutHttp),
            _ => Ok(BootFile::Script(site.script.to_owned())),
        };
    }
    let platform =
        Platform::of_codes(&request.architectures).ok_or_else(|| Silence::UnknownArchitecture(listed(&request.architectures)))?;
    let program = site
        .programs
        .best(platform, site.quirks.contains(&Quirk::NativeDrivers))
        .ok_or(Silence::NoProgram(platform))?;
    match (client, site.http) {
        (Client::Http, Some(port)) => Ok(BootFile::Http(format!(
            "http://{}:{port}/boot-programs/{program}",
            site.address
        ))),
        (Client::Http, None) => Err(Silence::ProtocolOff("HTTP")),
        _ if site.tftp => Ok(BootFile::Tftp(program.to_owned())),
        _ => Err(Silence::ProtocolOff("TFTP")),
    }
}

fn listed(codes: &[u16]) -> String {
    let mut text = String::new();
    for code in codes.iter().take(8) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{code:#06x}", if text.is_empty() { "" } else { ", " });
    }
    if text.is_empty() { "missing".to_owned() } else { text }
}

fn encode(request: &Request, port: u16, client: Client<'_>, boot_file: &BootFile, site: &Site<'_>) -> Result<Vec<u8>, Silence> {
    let nobody = Ipv4Addr::UNSPECIFIED;
    // Whoever asks on port 4011 has an address of its own already.
    let ciaddr = if port == BOOT_PORT { request.ciaddr } else { nobody };
    let mut message = v4::Message::new_with_id(
        request.xid,
        ciaddr,
        nobody,
        site.address,
        request.giaddr,
        &request.mac.octets(),
    );
    message
        .set_opcode(v4::Opcode::BootReply)
        .set_flags(request.flags.into())
        .set_fname(boot_file.name().as_bytes());
    let has = |quirk| site.quirks.contains(&quirk);
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(match port {
        BOOT_PORT => v4::MessageType::Ack,
        _ => v4::MessageType::Offer,
    }));
    options.insert(DhcpOption::ServerIdentifier(site.address));
    options.insert(DhcpOption::ClassIdentifier(match client {
        Client::Http => b"HTTPClient".to_vec(),
        Client::Pxe(vendor) => vendor.as_bytes().to_vec(),
        Client::Ipxe => b"PXEClient".to_vec(),
    }));
    if !has(Quirk::HeaderOnly) || client == Client::Http {
        options.insert(DhcpOption::BootfileName(boot_file.name().as_bytes().to_vec()));
    }
    if let Some(id) = request.machine_id.filter(|_| !has(Quirk::NoMachineId)) {
        options.insert(DhcpOption::ClientMachineIdentifier(id.to_vec()));
    }
    let is_uefi = Platform::of_codes(&request.architectures).is_some_and(Platform::is_uefi);
    let at_once = if is_uefi {
        has(Quirk::UefiAtOnce)
    } else {
        !has(Quirk::BiosAsks)
    };
    if at_once && matches!(client, Client::Pxe(_)) {
        options.insert(DhcpOption::VendorExtensions(BOOT_AT_ONCE.to_vec()));
    }
    let mut bytes = message.to_vec().map_err(|error| Silence::NotWritten(error.to_string()))?;
    // The relay's option comes last, before the end (RFC 3046 section 2.2); the encoder sorts by number.
    if let Some(relay) = &request.relay {
        if bytes.last() == Some(&255) {
            bytes.pop();
        }
        bytes.extend([code::RELAY, u8::try_from(relay.len()).unwrap_or(u8::MAX)]);
        bytes.extend(relay);
        bytes.push(255);
    }
    bytes.resize(bytes.len().max(MIN_PACKET), 0);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
