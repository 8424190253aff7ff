//! A thousand machines: each asks for its script, then for the kernel, initrd and rootfs that the script names.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use tokio::task::JoinSet;

use crate::bridge::{self, Bridge};
use crate::download::Source;
use crate::lab::{Lab, settle};
use crate::object::{Check, MIB};
use crate::probe::{self, latencies};
use crate::row::{BRIDGE, Bound, Figures, Row, Scenario, Target};
use crate::site::{Machine, Site};
use crate::upstream::{Content, Options, Target as Kind};

const MACHINES: usize = 1_000;
const ENVIRONMENTS: usize = 2;
const ARRIVAL: Duration = Duration::from_secs(10);

/// 1,000 machines over 10 s.
pub fn row() -> Row {
    Row {
        name: "machines".to_owned(),
        what: "1,000 machines over 10 s, cold: script, 2 MiB kernel, 2 MiB initrd, 64 MiB rootfs each, of 2 environments"
            .to_owned(),
        targets: vec![
            Target::alone("failed", Bound::AtMost(0.0)),
            Target::alone("p99", Bound::AtMost(50.0)),
            Target::alone("peak-memory", Bound::AtMost(150.0)),
        ],
        needs: &[],
        start: Box::new(|lab| start(lab).boxed_local()),
    }
}

struct Machines {
    lab: Rc<Lab>,
    site: Site,
}

async fn start(lab: Rc<Lab>) -> Result<Box<dyn Scenario>> {
    let options = Options {
        kernel: Content::random(2 * MIB, 1),
        initrd: Content::random(2 * MIB, 2),
        rootfs: Content::random(64 * MIB, 3),
        ..Options::default()
    };
    let site = Site::start(&lab, ENVIRONMENTS, MACHINES, options).await?;
    Ok(Box::new(Machines { lab, site }))
}

impl Scenario for Machines {
    fn subjects(&self) -> Vec<&'static str> {
        vec![BRIDGE]
    }

    fn measure<'s>(&'s mut self, _: &'static str) -> LocalBoxFuture<'s, Result<Figures>> {
        async move {
            let options = bridge::Options {
                cache: Some("20Gi"),
                ..bridge::Options::default()
            };
            let bridge = Bridge::start(&self.lab, self.site.manifests(), options).await?;
            let files = (0..ENVIRONMENTS).map(|environment| {
                [Kind::Kernel, Kind::Initrd, Kind::Rootfs]
                    .map(|kind| self.site.source(environment, kind))
                    .into_iter()
                    .collect::<Result<Vec<_>>>()
            });
            let files: Arc<Vec<Vec<Source>>> = Arc::new(files.collect::<Result<_>>()?);
            settle()?;
            bridge.program.forget_peak()?;
            let start = Instant::now();
            let mut boots = JoinSet::new();
            for number in 0..MACHINES {
                let (files, address) = (files.clone(), bridge.address);
                boots.spawn(async move {
                    tokio::time::sleep(ARRIVAL * number as u32 / MACHINES as u32).await;
                    let machine = Machine::new(number, ENVIRONMENTS);
                    boot(address, &machine, &files[machine.environment]).await
                });
            }
            let mut scripts = Vec::new();
            let mut failed = 0;
            for ended in boots.join_all().await {
                match ended {
                    Ok(latency) => scripts.push(latency),
                    Err(error) => {
                        failed += 1;
                        if failed <= 3 {
                            eprintln!("    a machine failed: {error:#}");
                        }
                    }
                }
            }
            let mut figures = latencies(scripts)?;
            figures.extend([
                ("failed", f64::from(failed)),
                ("time", start.elapsed().as_secs_f64()),
                ("peak-memory", bridge.program.memory()?.peak / 1e6),
            ]);
            Ok(figures)
        }
        .boxed_local()
    }
}

/// One machine; gives the latency of its script in milliseconds.
async fn boot(address: SocketAddr, machine: &Machine, files: &[Source]) -> Result<f64> {
    let path = machine.path();
    // On a thread of its own: what downloads keep busy must not count as latency.
    let answer = tokio::task::spawn_blocking(move || probe::get(address, &path)).await??;
    let is_right = answer.status == 200 && Machine::is_script_of(&answer.text, machine.environment);
    ensure!(is_right, "{}: {} {}", machine.path(), answer.status, answer.text);
    let origin = format!("http://{address}");
    for (kind, file) in [Kind::Kernel, Kind::Initrd, Kind::Rootfs].iter().zip(files) {
        let path = Site::path(machine.environment, *kind);
        let url = format!("{origin}{path}");
        let named = answer.text.split([' ', '\n', '=']).find(|word| word.starts_with(&url));
        let source = Source {
            address,
            path: named.context("the script names the file")?[origin.len()..].to_owned(),
            ..file.clone()
        };
        source.download(Check::Every, &AtomicU64::new(0)).await?;
    }
    Ok(answer.took.as_secs_f64() * 1e3)
}
