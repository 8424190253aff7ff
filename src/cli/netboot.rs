//! The flags of `ipxe-bridge netboot`.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ipnet::Ipv4Net;

use crate::boot::artifact::PublicUrl;

/// The longest address of a bridge: with the name of its script it has to fit into a DHCP packet.
const MAX_BRIDGE: usize = 127 - "/boot.ipxe".len();

/// Settings of ProxyDHCP, TFTP and boot programs.
#[derive(Debug, Clone, Args)]
pub struct NetbootArgs {
    /// Network interface to answer on, such as eth1; may be repeated
    #[arg(
        long,
        env = "IPXE_BRIDGE_INTERFACE",
        value_delimiter = ',',
        required = true,
        value_name = "NAME"
    )]
    pub interface: Vec<String>,
    /// Address under which machines reach the bridge, such as http://boot.example.com:9876
    #[arg(long, env = "IPXE_BRIDGE_BRIDGE", value_name = "URL")]
    pub bridge: PublicUrl,
    /// Address at which this program asks the bridge for its machines, where it is another [default: that of --bridge]
    #[arg(long, env = "IPXE_BRIDGE_BRIDGE_QUERY", value_name = "URL")]
    pub bridge_query: Option<PublicUrl>,
    /// Certificates (PEM) to trust for the bridge beside the system's own: a file, or a folder of them; may be repeated
    #[arg(long, env = "IPXE_BRIDGE_BRIDGE_CA", value_delimiter = ',', value_name = "FILE")]
    pub bridge_ca: Vec<PathBuf>,
    /// Folder of boot programs, as iPXE's release archive or a distribution's package has them; changes are followed [default:
    /// /usr/lib/ipxe or /usr/share/ipxe]
    #[arg(long, env = "IPXE_BRIDGE_BOOT_PROGRAMS", value_name = "DIR")]
    pub boot_programs: Option<PathBuf>,
    /// Which machines are answered: known (those of the bridge's inventory) or all
    #[arg(long, env = "IPXE_BRIDGE_ANSWER", value_enum, default_value = "known")]
    pub answer: Answer,
    /// Send no answer to DHCP packets: only log what it would be
    #[arg(long, env = "IPXE_BRIDGE_DRY_RUN", value_parser = clap::builder::BoolishValueParser::new())]
    pub dry_run: bool,
    /// ProxyDHCP: full (ports 67 and 4011), port-4011 (only that, beside a DHCP server on this machine) or off
    #[arg(long, env = "IPXE_BRIDGE_PROXY_DHCP", value_enum, default_value = "full")]
    pub proxy_dhcp: ProxyDhcp,
    /// TFTP: on, single-port (all of a transfer on port 69, for Services and NAT) or off
    #[arg(long, env = "IPXE_BRIDGE_TFTP", value_enum, default_value = "on")]
    pub tftp: Tftp,
    /// Port for boot programs over HTTP, for UEFI HTTP Boot; 0 switches it off
    #[arg(long, env = "IPXE_BRIDGE_PROGRAMS_PORT", default_value_t = Self::PROGRAMS_PORT)]
    pub programs_port: u16,
    /// Networks whose DHCP relays are answered, such as 10.1.0.0/16; may be repeated [default: all]
    #[arg(long, env = "IPXE_BRIDGE_RELAY", value_delimiter = ',', value_name = "NETWORK")]
    pub relay: Vec<Ipv4Net>,
    /// Networks whose machines may fetch boot programs; may be repeated [default: all]
    #[arg(long, env = "IPXE_BRIDGE_CLIENT", value_delimiter = ',', value_name = "NETWORK")]
    pub client: Vec<Ipv4Net>,
    /// For firmware that needs it: uefi-at-once, bios-asks, header-only, no-machine-id or native-drivers; may be repeated
    #[arg(long, env = "IPXE_BRIDGE_QUIRK", value_delimiter = ',', value_enum)]
    pub quirk: Vec<Quirk>,
    /// What firmware calls itself that is PXE under another name than PXEClient; may be repeated
    #[arg(long, env = "IPXE_BRIDGE_PXE_VENDOR", value_delimiter = ',', value_name = "PREFIX")]
    pub pxe_vendor: Vec<String>,
    /// TFTP transfers at once; when all are taken one that has acknowledged nothing gives way, otherwise a request is not heard
    #[arg(long, env = "IPXE_BRIDGE_MAX_TRANSFERS", default_value_t = Self::MAX_TRANSFERS, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_transfers: u32,
    /// Address of the probes and metrics
    #[arg(long, env = "IPXE_BRIDGE_HOST", default_value = "0.0.0.0")]
    pub host: IpAddr,
    /// Port of /livez, /readyz and /metrics
    #[arg(long, env = "IPXE_BRIDGE_METRICS_PORT", default_value_t = Self::METRICS_PORT)]
    pub metrics_port: u16,
}

/// Which machines are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Answer {
    /// Those of the bridge's inventory.
    Known,
    /// Every machine that boots from the network.
    All,
}

/// How much of ProxyDHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProxyDhcp {
    /// Offers on port 67 and answers on port 4011.
    Full,
    /// Answers on port 4011 only.
    #[value(name = "port-4011")]
    Port4011,
    /// None.
    Off,
}

/// How TFTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tftp {
    /// A port of its own for each transfer (RFC 1350).
    On,
    /// Port 69 for everything.
    SinglePort,
    /// Not at all.
    Off,
}

/// Where answers differ for firmware that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Quirk {
    /// UEFI is told to use the boot file at once, as BIOS is, and never asks port 4011.
    UefiAtOnce,
    /// BIOS is not told so, and asks port 4011.
    BiosAsks,
    /// The boot file stands in the header only, not in option 67 too.
    HeaderOnly,
    /// The machine's identifier (option 97) is not sent back.
    NoMachineId,
    /// UEFI gets iPXE with network drivers of its own in place of the one that uses the firmware's.
    NativeDrivers,
}

/// Whether a bridge's address fits into an answer of DHCP.
pub(super) fn fits_a_packet(flag: &str, bridge: &PublicUrl) -> Result<(), String> {
    match bridge.to_string().len() {
        length if length > MAX_BRIDGE => Err(format!(
            "{flag}: with {length} bytes its script does not fit into a DHCP packet, which holds {MAX_BRIDGE}"
        )),
        _ => Ok(()),
    }
}

impl NetbootArgs {
    /// The port of boot programs over HTTP, unless another is named.
    pub const PROGRAMS_PORT: u16 = 9879;
    /// The port of probes and metrics, unless another is named.
    pub const METRICS_PORT: u16 = 9880;
    /// TFTP transfers at once, unless another number is given.
    pub const MAX_TRANSFERS: u32 = 1024;

    /// What no single value can tell.
    pub(super) fn check(&self) -> Result<(), String> {
        let folder = self.boot_programs.as_ref().filter(|folder| !folder.is_dir());
        if let Some(folder) = folder {
            return Err(format!("--boot-programs: {} is not a folder", folder.display()));
        }
        fits_a_packet("--bridge", &self.bridge)?;
        if let Some(name) = self
            .interface
            .iter()
            .find(|name| name.is_empty() || name.len() > 15 || name.contains('/'))
        {
            return Err(format!(
                "--interface: {name:?} cannot be the name of an interface, expected one such as eth1"
            ));
        }
        let mut named = HashSet::new();
        if let Some(name) = self.interface.iter().find(|name| !named.insert(*name)) {
            return Err(format!("--interface: {name} is named twice"));
        }
        if self.pxe_vendor.iter().any(|vendor| vendor.is_empty() || vendor.len() > 64) {
            return Err("--pxe-vendor: expected 1 to 64 characters: with none every machine would be one".to_owned());
        }
        if self.programs_port != 0 && self.programs_port == self.metrics_port {
            return Err("--programs-port and --metrics-port cannot be the same port".to_owned());
        }
        match (self.proxy_dhcp, self.tftp, self.programs_port) {
            (ProxyDhcp::Off, Tftp::Off, 0) => Err("everything is switched off".to_owned()),
            _ => Ok(()),
        }
    }
}
