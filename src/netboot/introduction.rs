//! What was found and what will be answered, in a few lines that a person understands.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::cli::{Answer, ProxyDhcp, Tftp};

use super::offer::{BOOT_PORT, SERVER_PORT};
use super::programs::Programs;
use super::settings::Settings;
use super::state::State;
use super::wire::{TFTP_PORT, Wire};

/// Says all of it.
pub fn introduce(state: &State, wires: &[Wire]) {
    let settings = &state.settings;
    for (index, wire) in wires.iter().enumerate() {
        for network in &wire.interface.addresses {
            let mut services = Vec::new();
            match settings.proxy_dhcp {
                ProxyDhcp::Full => services.push(format!("ProxyDHCP on ports {SERVER_PORT} and {BOOT_PORT}")),
                ProxyDhcp::Port4011 => services.push(format!("ProxyDHCP on port {BOOT_PORT} only")),
                ProxyDhcp::Off => {}
            }
            match settings.tftp {
                Tftp::On => services.push(format!("TFTP on port {}", TFTP_PORT)),
                Tftp::SinglePort => services.push(format!("TFTP on port {} alone", TFTP_PORT)),
                Tftp::Off => {}
            }
            if let Some(port) = settings.programs_port {
                services.push(format!("boot programs at http://{}:{port}/boot-programs/", network.addr()));
            }
            tracing::info!("{} {network}: {}", wire.interface.name, services.join(", "));
            let same = wires[..index].iter().find(|other| {
                let networks = other.interface.addresses.iter().map(Ipv4Net::trunc);
                networks.into_iter().any(|other| other == network.trunc())
            });
            if let Some(other) = same {
                let (name, other) = (&wire.interface.name, &other.interface.name);
                tracing::warn!("{name} and {other} are in one network: machines get two answers that say the same");
            }
        }
    }
    introduce_programs(&state.programs.load(), settings);
    let here = wires
        .first()
        .and_then(|wire| wire.interface.addresses.first())
        .map_or(Ipv4Addr::UNSPECIFIED, Ipv4Net::addr);
    let script = settings.script(here);
    if settings.proxy_dhcp == ProxyDhcp::Off {
        tracing::info!("no DHCP packet is answered: the site's own server has to name the programs, and {script} to iPXE");
        return;
    }
    let dry_run = if settings.dry_run {
        "; dry run: no DHCP packet is answered, only logged"
    } else {
        ""
    };
    match settings.answer {
        Answer::Known => tracing::info!(
            "machines of the inventory at {} are answered, no others{dry_run}",
            settings.query
        ),
        Answer::All => tracing::warn!("every machine that boots from the network is answered, known or not{dry_run}"),
    }
    tracing::info!("iPXE is sent to {script}");
}

/// Says which machines there are programs for.
pub fn introduce_programs(programs: &Programs, settings: &Settings) {
    let folder = settings.folder.display();
    let shims = programs
        .incomplete()
        .map(|(shim, loader)| format!("; {shim} starts nothing without {loader}"));
    let shims: String = shims.collect();
    if programs.is_empty() {
        tracing::warn!(
            "no boot program in {folder}: only iPXE is answered; Debian's package ipxe, Fedora's ipxe-bootimgs-x86 or iPXE's release archive has them{shims}"
        );
        return;
    }
    let missing: Vec<String> = programs.missing().map(|platform| platform.to_string()).collect();
    let missing = match missing.is_empty() {
        true => String::new(),
        false => format!("; none for {}", missing.join(", ")),
    };
    tracing::info!("boot programs in {folder}: {programs}{missing}{shims}");
}
