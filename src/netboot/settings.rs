//! What is answered, where and how: from the flags of `ipxe-bridge netboot`, or beside a bridge in one process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::boot::artifact::PublicUrl;
use crate::cli::{Answer, NetbootArgs, ProxyDhcp, Quirk, Tftp};

use super::folder;

/// Where machines find the bridge.
#[derive(Debug, Clone)]
pub enum BridgeAddress {
    /// At one address for all.
    At(String),
    /// On this machine: under the address of the interface that they are on.
    Here {
        /// The bridge's port.
        port: u16,
    },
}

/// What is answered, where and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names of interfaces.
    pub interfaces: Vec<String>,
    /// Where machines find the bridge.
    pub bridge: BridgeAddress,
    /// Where it is asked for its machines.
    pub query: String,
    /// Files with certificates to trust for that.
    pub query_ca: Vec<PathBuf>,
    /// The folder of boot programs.
    pub folder: PathBuf,
    /// Which machines are answered.
    pub answer: Answer,
    /// Nothing is sent to DHCP clients.
    pub dry_run: bool,
    /// How much of ProxyDHCP.
    pub proxy_dhcp: ProxyDhcp,
    /// How TFTP is spoken.
    pub tftp: Tftp,
    /// The port of boot programs over HTTP.
    pub programs_port: Option<u16>,
    /// Networks of relays that are answered; empty means any.
    pub relays: Vec<Ipv4Net>,
    /// Networks that may fetch; empty means any.
    pub clients: Vec<Ipv4Net>,
    /// For firmware that needs it.
    pub quirks: Vec<Quirk>,
    /// Other names of PXE.
    pub vendors: Vec<String>,
    /// TFTP transfers at once.
    pub max_transfers: usize,
    /// Probes and metrics.
    pub metrics: SocketAddr,
}

impl From<NetbootArgs> for Settings {
    fn from(args: NetbootArgs) -> Self {
        let bridge = args.bridge.to_string();
        Self {
            interfaces: args.interface,
            query: args.bridge_query.map_or_else(|| bridge.clone(), |url| url.to_string()),
            bridge: BridgeAddress::At(bridge),
            query_ca: args.bridge_ca,
            folder: args.boot_programs.unwrap_or_else(folder::usual),
            answer: args.answer,
            dry_run: args.dry_run,
            proxy_dhcp: args.proxy_dhcp,
            tftp: args.tftp,
            programs_port: Some(args.programs_port).filter(|port| *port != 0),
            relays: args.relay,
            clients: args.client,
            quirks: args.quirk,
            vendors: args.pxe_vendor,
            max_transfers: args.max_transfers as usize,
            metrics: SocketAddr::new(args.host, args.metrics_port),
        }
    }
}

impl Settings {
    /// Everything beside a bridge in this process. Without an address of its own, machines reach it at the address that is on their wire.
    pub fn beside(
        interfaces: Vec<String>,
        bridge: SocketAddr,
        uri: Option<PublicUrl>,
        programs: Option<PathBuf>,
        host: IpAddr,
    ) -> Self {
        let port = bridge.port();
        let own = match bridge.ip().is_unspecified() {
            true => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            false => bridge,
        };
        Self {
            interfaces,
            bridge: uri.map_or(BridgeAddress::Here { port }, |uri| BridgeAddress::At(uri.to_string())),
            query: format!("http://{own}"),
            query_ca: Vec::new(),
            folder: programs.unwrap_or_else(folder::usual),
            answer: Answer::Known,
            dry_run: false,
            proxy_dhcp: ProxyDhcp::Full,
            tftp: Tftp::On,
            programs_port: Some(NetbootArgs::PROGRAMS_PORT),
            relays: Vec::new(),
            clients: Vec::new(),
            quirks: Vec::new(),
            vendors: Vec::new(),
            max_transfers: NetbootArgs::MAX_TRANSFERS as usize,
            metrics: SocketAddr::new(host, NetbootArgs::METRICS_PORT),
        }
    }

    /// The bridge, as machines on the wire with this address reach it.
    pub fn bridge(&self, address: Ipv4Addr) -> String {
        match &self.bridge {
            BridgeAddress::At(url) => url.clone(),
            BridgeAddress::Here { port } => format!("http://{address}:{port}"),
        }
    }

    /// The script for iPXE, under that address.
    pub fn script(&self, address: Ipv4Addr) -> String {
        format!("{}/boot.ipxe", self.bridge(address))
    }

    /// Whether an address may fetch boot programs.
    pub fn is_client(&self, client: IpAddr) -> bool {
        let IpAddr::V4(client) = client else { return false };
        self.clients.is_empty() || self.clients.iter().any(|network| network.contains(&client))
    }
}
