//! From the power button to the bridge: ProxyDHCP, TFTP and boot programs over HTTP, for the boot network.
//!
//! Packets and transfers are decided by plain functions ([`offer`], [`transfer`], [`programs`]); this module binds sockets around them,
//! interface by interface. It never gives an address away, writes nothing, and knows the bridge by HTTP only.

pub mod architecture;
mod dhcp;
mod folder;
mod http;
pub mod interface;
mod introduction;
mod machines;
pub mod metrics;
pub mod offer;
pub mod packet;
pub mod programs;
pub mod script;
mod settings;
mod state;
mod tftp;
pub mod transfer;
mod ways;
mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cli::Answer;

use folder::Folder;
use http::Pages;
use interface::{Found, Interface};
use introduction::{introduce, introduce_programs};
use machines::{Bridge, Machines};
use metrics::Metrics;
use offer::{BOOT_PORT, SERVER_PORT};
use programs::Programs;
use state::State;
use ways::Ways;
use wire::Wire;

pub use settings::{BridgeAddress, Settings};

/// How often interfaces and the folder of programs are looked at.
const LOOK: Duration = Duration::from_secs(2);

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
            ways: Ways::default(),
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
            let mut tasks = start(wire, &state, &while_same);
            state.answering.fetch_add(1, Ordering::Relaxed);
            let is_broken = tokio::select! {
                () = changed(&interface, &end) => false,
                Some(ended) = tasks.join_next() => broke_off(&name, ended, &end),
            };
            while_same.cancel();
            while tasks.join_next().await.is_some() {}
            state.answering.fetch_sub(1, Ordering::Relaxed);
            if is_broken {
                // What breaks off at once again must not burn a core.
                end.run_until_cancelled(tokio::time::sleep(LOOK)).await;
            }
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

/// Nothing that answers ends by itself: a port would be silent, and everything else look well.
fn broke_off(name: &str, ended: Result<(), JoinError>, end: &CancellationToken) -> bool {
    let is_broken = !end.is_cancelled();
    if is_broken {
        let why = ended.map_or_else(|error| error.to_string(), |()| "it ended".to_owned());
        tracing::error!("what answers on {name} broke off: {why}; it is started again");
    }
    is_broken
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
    let dhcp = |socket: UdpSocket, port, own| {
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
