//! A big inventory: its memory, how fast a change is served, and how long a rebuild takes.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use ipxe_bridge::boot::inventory::Inventory;
use ipxe_bridge::server::{manifests, sources};

use crate::bridge::{self, Bridge};
use crate::lab::Lab;
use crate::probe;
use crate::row::{BRIDGE, Bound, Figures, Row, Scenario, Target};
use crate::site::{Machine, Site};
use crate::statistics::percentile;
use crate::upstream::Options;

const HOSTS: usize = 10_000;
const ENVIRONMENTS: usize = 200;
const CHANGES: usize = 40;
const REBUILDS: usize = 20;
/// How often it is looked whether a change is served.
const LOOK: Duration = Duration::from_millis(2);

/// 10,000 hosts and 200 environments.
pub fn row() -> Row {
    Row {
        name: "inventory".to_owned(),
        what: "inventory with 10,000 hosts and 200 environments".to_owned(),
        targets: vec![
            Target::alone("memory-above-idle", Bound::AtMost(60.0)),
            Target::alone("change-p99", Bound::AtMost(1_000.0)),
            Target::alone("rebuild", Bound::AtMost(50.0)),
        ],
        needs: &[],
        start: Box::new(|lab| start(lab).boxed_local()),
    }
}

struct BigInventory {
    lab: Rc<Lab>,
    empty: Site,
    site: Site,
    round: usize,
}

async fn start(lab: Rc<Lab>) -> Result<Box<dyn Scenario>> {
    let empty = Site::start(&lab, 1, 0, Options::default()).await?;
    let site = Site::start(&lab, ENVIRONMENTS, HOSTS, Options::default()).await?;
    Ok(Box::new(BigInventory {
        lab,
        empty,
        site,
        round: 0,
    }))
}

impl Scenario for BigInventory {
    fn subjects(&self) -> Vec<&'static str> {
        vec![BRIDGE]
    }

    fn measure<'s>(&'s mut self, _: &'static str) -> LocalBoxFuture<'s, Result<Figures>> {
        async move {
            self.round += 1;
            let idle = self.resident(&self.empty).await?.0;
            let (full, bridge) = self.resident(&self.site).await?;
            let mut changes = Vec::new();
            for number in 0..CHANGES {
                changes.push(self.change(&bridge, number * (HOSTS / CHANGES))?);
            }
            let peak = bridge.program.memory()?.peak;
            Ok(vec![
                ("memory", full / 1e6),
                ("memory-above-idle", (full - idle) / 1e6),
                ("peak-memory", peak / 1e6),
                ("change-p50", percentile(&mut changes, 0.5)?),
                ("change-p99", percentile(&mut changes, 0.99)?),
                ("rebuild", self.rebuild()?),
            ])
        }
        .boxed_local()
    }
}

impl BigInventory {
    /// The memory of a bridge that has read a site and has answered once for each environment.
    async fn resident(&self, site: &Site) -> Result<(f64, Bridge)> {
        let bridge = Bridge::start(&self.lab, site.manifests(), bridge::Options::default()).await?;
        for number in 0..ENVIRONMENTS {
            probe::get(bridge.address, &Machine::new(number, ENVIRONMENTS).path())?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok((bridge.program.memory()?.now, bridge))
    }

    /// Milliseconds from before a host's label is written to the first script that follows it.
    fn change(&self, bridge: &Bridge, host: usize) -> Result<f64> {
        let home = Machine::new(host, ENVIRONMENTS);
        // Another one in every round, so that there is something to change.
        let moved = (home.environment + self.round) % ENVIRONMENTS;
        let machines = (home.environment..HOSTS).step_by(ENVIRONMENTS).map(|number| {
            let machine = Machine::new(number, ENVIRONMENTS);
            match number == host {
                true => Machine {
                    environment: moved,
                    ..machine
                },
                false => machine,
            }
        });
        let start = Instant::now();
        self.site.write(home.environment, machines)?;
        loop {
            let answer = probe::get(bridge.address, &home.path())?;
            ensure!(answer.status == 200, "{}: {} {}", home.path(), answer.status, answer.text);
            if Machine::is_script_of(&answer.text, moved) {
                return Ok(start.elapsed().as_secs_f64() * 1e3);
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "a change was never served");
            std::thread::sleep(LOOK);
        }
    }

    /// The median of joining everything anew, in milliseconds, by the same functions that the server calls.
    fn rebuild(&self) -> Result<f64> {
        let read = manifests::read_once(self.site.manifests())?;
        let mut times = Vec::new();
        for _ in 0..REBUILDS {
            let start = Instant::now();
            let inventory = Inventory::join(sources::observed(read.items.values()));
            times.push(start.elapsed().as_secs_f64() * 1e3);
            ensure!(inventory.host_count() == HOSTS, "{} hosts", inventory.host_count());
        }
        percentile(&mut times, 0.5)
    }
}
