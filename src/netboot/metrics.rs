//! What is counted, named `ipxe_bridge_netboot_…`: by platform and outcome, never by machine.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::{Registry, Unit};

use crate::build_info;

use super::architecture::Platform;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// What is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    packets: Family<Labels<2>, Counter>,
    transfers: Family<Labels<2>, Counter>,
    sent: Family<Labels<1>, Counter>,
    downloads: Family<Labels<2>, Counter>,
    /// TFTP transfers on their way.
    pub transfers_open: Gauge,
}

impl Metrics {
    /// A DHCP packet came. What is no machine's, or of a platform without programs, counts as `other`.
    pub fn packet(&self, platform: Option<Platform>, outcome: &'static str) {
        self.packets.get_or_create(&[label(platform), ("outcome", outcome)]).inc();
    }

    /// A TFTP request ended.
    pub fn transfer(&self, platform: Option<Platform>, outcome: &'static str, bytes: u64) {
        self.transfers.get_or_create(&[label(platform), ("outcome", outcome)]).inc();
        self.sent.get_or_create(&[("protocol", "tftp")]).inc_by(bytes);
    }

    /// An HTTP request was answered.
    pub fn download(&self, platform: Option<Platform>, outcome: &'static str, bytes: u64) {
        self.downloads.get_or_create(&[label(platform), ("outcome", outcome)]).inc();
        self.sent.get_or_create(&[("protocol", "http")]).inc_by(bytes);
    }

    /// Everything, with what is known of the machines and the programs now.
    pub fn registry(&self, ready: bool, machines: Option<(usize, f64)>, programs: usize) -> Registry {
        let mut registry = Registry::with_prefix("ipxe_bridge_netboot");
        build_info::register(&mut registry);
        registry.register("dhcp_packets", "DHCP packets by what became of them", self.packets.clone());
        registry.register("tftp_transfers", "TFTP requests by how they ended", self.transfers.clone());
        registry.register(
            "http_downloads",
            "HTTP requests for boot programs by outcome",
            self.downloads.clone(),
        );
        registry.register_with_unit("sent", "Bytes of boot programs sent", Unit::Bytes, self.sent.clone());
        registry.register(
            "tftp_transfers_open",
            "TFTP transfers on their way",
            self.transfers_open.clone(),
        );
        let mut gauge = |name: &str, help: &str, value: usize| {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        };
        gauge("ready", "1 while machines can be answered", usize::from(ready));
        gauge("platforms", "Platforms that have a boot program", programs);
        if let Some((count, age)) = machines {
            gauge("machines", "Machines that the bridge told", count);
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(age);
            registry.register_with_unit("machines_age", "Time since the bridge told them", Unit::Seconds, gauge);
        }
        registry
    }
}

fn label(platform: Option<Platform>) -> (&'static str, &'static str) {
    ("architecture", platform.map_or("other", Into::into))
}
