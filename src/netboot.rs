//! From the power button to the bridge: ProxyDHCP, TFTP and boot programs over HTTP, for the boot network.
//!
//! Packets and transfers are decided by plain functions ([`offer`], [`transfer`], [`programs`]); this module binds sockets around them,
//! interface by interface. It never gives an address away, writes nothing, and knows the bridge by HTTP only.

pub mod architecture;
mod dhcp;
mod folder;
mod http;
pub mod interface;
mod machines;
pub mod metrics;
pub mod offer;
pub mod packet;
pub mod programs;
pub mod script;
mod tftp;
pub mod transfer;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use bytes::Bytes;
use ipnet::Ipv4Net;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::boot::artifact::PublicUrl;
use crate::cli::{Answer, NetbootArgs, ProxyDhcp, Quirk, Tftp};

use architecture::Platform;
use folder::Folder;
use http::Pages;
use interface::{Found, Interface};
use machines::{Bridge, Machines};
use metrics::Metrics;
use offer::{BOOT_PORT, SERVER_PORT};
use programs::Programs;
use wire::Wire;

/// How often interfaces and the folder of programs are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The name under which UEFI iPXE looks for a script beside itself.
const AUTOEXEC: &str = "autoexec.ipxe";

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

    fn bridge(&self, address: Ipv4Addr) -> String {
        match &self.bridge {
            BridgeAddress::At(url) => url.clone(),
            BridgeAddress::Here { port } => format!("http://{address}:{port}"),
        }
    }

    /// The script for iPXE, as machines on the wire with this address reach it.
    fn script(&self, address: Ipv4Addr) -> String {
        format!("{}/boot.ipxe", self.bridge(address))
    }

    fn is_client(&self, client: IpAddr) -> bool {
        let IpAddr::V4(client) = client else { return false };
        self.clients.is_empty() || self.clients.iter().any(|network| network.contains(&client))
    }
}

/// What everything that answers may use.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    programs: ArcSwap<Programs>,
    machines: Machines,
    metrics: Metrics,
    /// Interfaces that are answered on now.
    answering: std::sync::atomic::AtomicUsize,
}

impl State {
    /// A file by its name, and for which platform it is. The script is beside every program; one that lies in the folder wins.
    fn file(&self, name: &str, address: Ipv4Addr) -> Option<(Bytes, Option<Platform>)> {
        if let Some(program) = self.programs.load().get(name) {
            return Some((program.bytes.clone(), program.platform));
        }
        let (folder, base) = name.rsplit_once('/').unwrap_or(("", name));
        let has_programs = || {
            folder.is_empty()
                || self
                    .programs
                    .load()
                    .files()
                    .any(|(file, _)| file.starts_with(&format!("{folder}/")))
        };
        (base == AUTOEXEC && has_programs()).then(|| (script::handover(&self.settings.bridge(address)).into(), None))
    }

    /// What is missing before machines can be answered.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.answering.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            missing.push("no interface is there".to_owned());
        }
        if !self.machines.is_ready() {
            missing.push("the bridge could not be asked yet".to_owned());
        }
        missing
    }

    fn registry(&self) -> Registry {
        let machines = self.machines.state().map(|(count, age)| (count, age.as_secs_f64()));
        let platforms = self.programs.load().platforms().count();
        self.metrics.registry(self.missing().is_empty(), machines, platforms)
    }
}

/// What answers on the boot network.
#[derive(Debug)]
pub struct Netboot {
    tasks: JoinSet<()>,
    end: CancellationToken,
}

impl Netboot {
    /// Starts everything. Fails with one sentence if nothing could be answered or a port cannot be had.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let mut folder = Folder::new(settings.folder.clone());
        let programs = match folder.read() {
            Ok(programs) => programs.unwrap_or_default(),
            Err(error) => {
                tracing::warn!("boot programs: {} cannot be read: {error}", folder.path().display());
                Programs::default()
            }
        };
        let (mut wires, mut absent) = (Vec::new(), Vec::new());
        for name in &settings.interfaces {
            match Interface::find(name).context("the interfaces of this machine cannot be listed")? {
                Found::Usable(interface) => wires.push(Wire::open(interface, &settings)?),
                Found::NoAddress => absent.push(format!("{name} has no IPv4 address")),
                Found::Absent(names) => {
                    absent.push(format!(
                        "there is no interface {name} (interfaces with an address: {})",
                        names.join(", ")
                    ));
                }
            }
        }
        anyhow::ensure!(!wires.is_empty(), "--interface: {}", absent.join("; "));
        for absent in absent {
            tracing::warn!("--interface: {absent}; it is used as soon as it is there");
        }
        let metrics = TcpListener::bind(settings.metrics)
            .await
            .with_context(|| format!("--metrics-port: cannot listen on {}", settings.metrics))?;
        let machines = match settings.answer {
            Answer::Known => Machines::default(),
            Answer::All => Machines::everyone(),
        };
        let bridge = Bridge::new(&settings.query, &settings.query_ca)?;
        let state = Arc::new(State {
            programs: ArcSwap::from_pointee(programs),
            machines,
            metrics: Metrics::default(),
            answering: Default::default(),
            settings,
        });
        introduce(&state, &wires);

        let end = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tracing::info!("metrics are at http://{}/metrics", metrics.local_addr()?);
        tasks.spawn(http::serve(metrics, Pages::Metrics, state.clone(), end.clone()));
        if state.settings.answer == Answer::Known {
            let (state, end) = (state.clone(), end.clone());
            tasks.spawn(async move { state.machines.follow(&bridge, &end).await });
        }
        for name in state.settings.interfaces.clone() {
            let wire = wires
                .iter()
                .position(|wire| wire.interface.name == name)
                .map(|index| wires.swap_remove(index));
            tasks.spawn(answer_on(name, wire, state.clone(), end.clone()));
        }
        let of_folder = end.clone();
        tasks.spawn(async move {
            of_folder.run_until_cancelled(follow_folder(folder, state)).await;
        });
        Ok(Self { tasks, end })
    }

    /// Ends everything. A transfer on its way is cut: its machine asks again.
    pub async fn stop(mut self) {
        self.end.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What was found and what will be answered, for a person.
fn introduce(state: &State, wires: &[Wire]) {
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
                Tftp::On => services.push(format!("TFTP on port {}", wire::TFTP_PORT)),
                Tftp::SinglePort => services.push(format!("TFTP on port {} alone", wire::TFTP_PORT)),
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
    let dry_run = if settings.dry_run {
        "; dry run: no answer is sent to any machine"
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
    let here = wires
        .first()
        .and_then(|wire| wire.interface.addresses.first())
        .map_or(Ipv4Addr::UNSPECIFIED, Ipv4Net::addr);
    tracing::info!("iPXE is sent to {}", settings.script(here));
}

fn introduce_programs(programs: &Programs, settings: &Settings) {
    let folder = settings.folder.display();
    if programs.is_empty() {
        tracing::warn!(
            "no boot program in {folder}: only iPXE is answered; Debian's package ipxe, Fedora's ipxe-bootimgs-x86 or iPXE's release archive has them"
        );
        return;
    }
    let missing: Vec<String> = programs.missing().map(|platform| platform.to_string()).collect();
    let missing = match missing.is_empty() {
        true => String::new(),
        false => format!("; none for {}", missing.join(", ")),
    };
    tracing::info!("boot programs in {folder}: {programs}{missing}");
}

/// Takes changed programs over. A folder that cannot be read any more changes nothing.
async fn follow_folder(mut folder: Folder, state: Arc<State>) {
    let mut is_broken = false;
    loop {
        tokio::time::sleep(LOOK * 5).await;
        let read = tokio::task::spawn_blocking(move || {
            let read = folder.read();
            (folder, read)
        });
        let Ok((back, read)) = read.await else { return };
        folder = back;
        match read {
            Ok(Some(programs)) => {
                is_broken = false;
                if programs != **state.programs.load() {
                    introduce_programs(&programs, &state.settings);
                    state.programs.store(Arc::new(programs));
                }
            }
            Ok(None) => is_broken = false,
            Err(error) => {
                if !is_broken {
                    tracing::warn!(
                        "{} cannot be read, its last programs are served on: {error}",
                        folder.path().display()
                    );
                }
                is_broken = true;
            }
        }
    }
}

/// Answers on an interface for as long as it is as it was, and anew when it changed or came back.
async fn answer_on(name: String, wire: Option<Wire>, state: Arc<State>, end: CancellationToken) {
    let mut next = wire;
    let mut was_refused = false;
    while !end.is_cancelled() {
        if let Some(wire) = next.take() {
            was_refused = false;
            let interface = wire.interface.clone();
            let while_same = end.child_token();
            let tasks = start(wire, &state, &while_same);
            state.answering.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            changed(&interface, &end).await;
            while_same.cancel();
            tasks.join_all().await;
            state.answering.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        }
        match Interface::find(&name) {
            Ok(Found::Usable(interface)) if !end.is_cancelled() => match Wire::open(interface, &state.settings) {
                Ok(wire) => {
                    tracing::info!("{name} is answered on again");
                    next = Some(wire);
                    continue;
                }
                Err(error) if !was_refused => {
                    tracing::error!("{error}; trying again");
                    was_refused = true;
                }
                Err(_) => {}
            },
            _ => {}
        }
        end.run_until_cancelled(tokio::time::sleep(LOOK)).await;
    }
}

/// Waits until an interface is not any more as it was.
async fn changed(interface: &Interface, end: &CancellationToken) {
    loop {
        if end.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return;
        }
        match Interface::find(&interface.name) {
            Ok(Found::Usable(now)) if now == *interface => {}
            Ok(Found::Usable(_)) => {
                tracing::info!("{} has changed", interface.name);
                return;
            }
            Ok(_) => {
                tracing::warn!(
                    "{} is gone or has lost its address; it is used again as soon as it is back",
                    interface.name
                );
                return;
            }
            Err(error) => tracing::warn!(%error, "the interfaces of this machine cannot be listed"),
        }
    }
}

fn start(wire: Wire, state: &Arc<State>, end: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let Wire {
        interface,
        offers,
        addresses,
    } = wire;
    let dhcp = |socket: tokio::net::UdpSocket, port, own| {
        let (interface, state, end) = (interface.clone(), state.clone(), end.clone());
        async move { dhcp::serve(&socket, port, &interface, own, &state, &end).await }
    };
    if let Some(socket) = offers {
        tasks.spawn(dhcp(socket, SERVER_PORT, None));
    }
    for at in addresses {
        if let Some(socket) = at.boot {
            tasks.spawn(dhcp(socket, BOOT_PORT, Some(at.address)));
        }
        if let Some(socket) = at.tftp {
            let (state, end) = (state.clone(), end.clone());
            tasks.spawn_blocking(move || tftp::serve(socket, at.address, &state, &end));
        }
        if let Some(listener) = at.http {
            tasks.spawn(http::serve(listener, Pages::Programs(at.address), state.clone(), end.clone()));
        }
    }
    tasks
}
