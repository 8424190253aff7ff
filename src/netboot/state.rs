//! What everything that answers may use: replaced in one step, read without waiting.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use prometheus_client::registry::Registry;

use super::architecture::Platform;
use super::machines::Machines;
use super::metrics::Metrics;
use super::programs::Programs;
use super::script;
use super::settings::Settings;
use super::ways::{Ways, now};

/// The name under which UEFI iPXE looks for a script beside itself.
const AUTOEXEC: &str = "autoexec.ipxe";

/// What everything that answers may use.
#[derive(Debug)]
pub struct State {
    /// What is answered, where and how.
    pub settings: Settings,
    /// The boot programs as they are now.
    pub programs: ArcSwap<Programs>,
    /// The machines as the bridge told them last.
    pub machines: Machines,
    /// What is counted.
    pub metrics: Metrics,
    /// How machines that boot now came so far.
    pub ways: Ways,
    /// Interfaces that are answered on now.
    pub answering: AtomicUsize,
}

impl State {
    /// A file by its name, and for which platform it is. The script is beside every program; one that lies in the folder wins.
    pub fn file(&self, name: &str, address: Ipv4Addr, client: IpAddr) -> Option<(Bytes, Option<Platform>)> {
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
        let handover = || {
            let way = self.ways.of_address(client, now());
            script::handover(&self.settings.bridge(address), way.as_ref())
        };
        (base == AUTOEXEC && has_programs()).then(|| (handover().into(), None))
    }

    /// What is missing before machines can be answered.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.answering.load(Ordering::Relaxed) == 0 {
            missing.push("no interface is there".to_owned());
        }
        if !self.machines.is_ready() {
            missing.push("the bridge could not be asked yet".to_owned());
        }
        missing
    }

    /// Everything that is counted, for `/metrics`.
    pub fn registry(&self) -> Registry {
        let machines = self.machines.state().map(|(count, age)| (count, age.as_secs_f64()));
        let platforms = self.programs.load().platforms().count();
        self.metrics.registry(self.missing().is_empty(), machines, platforms)
    }
}
