//! The sockets of one interface, bound before anything is answered; an error names what to look for.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::cli::{ProxyDhcp, Tftp};

use super::interface::Interface;
use super::offer::{BOOT_PORT, SERVER_PORT};
use super::settings::Settings;

/// Port of TFTP servers.
pub const TFTP_PORT: u16 = 69;
/// What a rack sends that is switched on at once has to wait somewhere: as much as the kernel allows, up to this many bytes.
const QUEUE: usize = 4 * 1024 * 1024;

/// The sockets of an interface.
#[derive(Debug)]
pub struct Wire {
    /// Whose they are.
    pub interface: Interface,
    /// Hears what machines and relays send to every DHCP server.
    pub offers: Option<UdpSocket>,
    /// The others, by address.
    pub addresses: Vec<AtAddress>,
}

/// The sockets of one address of an interface: what goes out of them has that address, whatever the routes are.
#[derive(Debug)]
pub struct AtAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// PXE firmware's questions about boot programs.
    pub boot: Option<UdpSocket>,
    /// TFTP requests; belongs to the thread that will hear them.
    pub tftp: Option<std::net::UdpSocket>,
    /// Boot programs over HTTP.
    pub http: Option<TcpListener>,
}

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{what} on {place}, port {port}: {why}")]
pub struct BindError {
    what: &'static str,
    place: String,
    port: u16,
    why: String,
}

impl Wire {
    /// Binds everything that is switched on.
    pub fn open(interface: Interface, settings: &Settings) -> Result<Self, BindError> {
        let offers = match settings.proxy_dhcp {
            ProxyDhcp::Full => Some(
                bind(Ipv4Addr::UNSPECIFIED, SERVER_PORT, Some(&interface.name))
                    .and_then(UdpSocket::from_std)
                    .map_err(|error| BindError::new("ProxyDHCP", &interface.name, SERVER_PORT, &error))?,
            ),
            ProxyDhcp::Port4011 | ProxyDhcp::Off => None,
        };
        let at_address = |address: Ipv4Addr| {
            let place = format!("{} ({address})", interface.name);
            let bound = |what, port, wanted: bool| match wanted {
                true => bind(address, port, None)
                    .map(Some)
                    .map_err(|error| BindError::new(what, &place, port, &error)),
                false => Ok(None),
            };
            let boot = bound("ProxyDHCP", BOOT_PORT, settings.proxy_dhcp != ProxyDhcp::Off)?;
            Ok(AtAddress {
                address,
                boot: boot
                    .map(UdpSocket::from_std)
                    .transpose()
                    .map_err(|error| BindError::new("ProxyDHCP", &place, BOOT_PORT, &error))?,
                tftp: bound("TFTP", TFTP_PORT, settings.tftp != Tftp::Off)?,
                http: match settings.programs_port {
                    Some(port) => {
                        Some(tcp(address, port).map_err(|error| BindError::new("boot programs over HTTP", &place, port, &error))?)
                    }
                    None => None,
                },
            })
        };
        let addresses = interface.addresses.iter().map(|network| at_address(network.addr()));
        let addresses = addresses.collect::<Result<_, _>>()?;
        Ok(Self {
            interface,
            offers,
            addresses,
        })
    }
}

impl BindError {
    fn new(what: &'static str, place: &str, port: u16, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => {
                let (likely, way_out) = match port {
                    SERVER_PORT => (
                        "dnsmasq, dhcpd, Kea, or dnsmasq in Ironic's pod on a node of OpenShift",
                        "; --proxy-dhcp port-4011 goes on without this port",
                    ),
                    BOOT_PORT => ("dnsmasq, Ironic's dnsmasq, or another ipxe-bridge netboot", ""),
                    TFTP_PORT => (
                        "dnsmasq, in.tftpd, atftpd, or Ironic's dnsmasq",
                        "; --tftp off goes on without this port",
                    ),
                    _ => ("another ipxe-bridge netboot", "; --programs-port names another"),
                };
                let protocol = if matches!(port, SERVER_PORT | BOOT_PORT | TFTP_PORT) {
                    "u"
                } else {
                    "t"
                };
                format!("another program has it: likely {likely}; `ss -{protocol}lnp sport = :{port}` names it{way_out}")
            }
            io::ErrorKind::PermissionDenied => {
                "no permission: ports below 1024 need root or the capability CAP_NET_BIND_SERVICE (setcap, systemd's \
                 AmbientCapabilities, or the pod's securityContext)"
                    .to_owned()
            }
            _ => error.to_string(),
        };
        Self {
            what,
            place: place.to_owned(),
            port,
            why,
        }
    }
}

/// Bound to an interface, a socket hears only that one, and a broadcast needs no route. Without "reuse": a DHCP server on this machine
/// would share the port with us, and lose what machines send to it alone.
fn bind(address: Ipv4Addr, port: u16, interface: Option<&str>) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_broadcast(true)?;
    }
    if port != 0 {
        socket.set_recv_buffer_size(QUEUE)?;
    }
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(address, port)).into())?;
    Ok(socket.into())
}

/// The socket of one transfer.
pub fn transfer_socket(address: Ipv4Addr, client: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bind(address, 0, None)?;
    // What others send to it is refused by the kernel. Without waiting: UDP connects at once.
    socket.connect(client)?;
    UdpSocket::from_std(socket)
}

fn tcp(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A port that was just closed is free at once.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(address, port)).into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}
