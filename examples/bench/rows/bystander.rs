//! Scripts of machines that have nothing to do with it, while one client downloads something big that is not there yet.

use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Result;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use crate::bridge::{self, Bridge};
use crate::download::Source;
use crate::lab::{Folder, Lab, settle};
use crate::nginx::Nginx;
use crate::object::{Check, Object};
use crate::probe::{Metronome, latencies};
use crate::row::{BRIDGE, Bound, Figures, Row, Scenario, Target};
use crate::site::one_environment;

const MEBIBYTES: u64 = 4096;
const IDLE: &str = "idle";
/// A bridge of its own that only answers scripts, while another one beside it downloads: what the machine's two cores cost.
const BESIDE: &str = "beside";
const IDLE_TIME: Duration = Duration::from_secs(5);
/// Between two scripts.
const PERIOD: Duration = Duration::from_millis(2);

/// A cold download of 4 GiB.
pub fn row() -> Row {
    Row {
        name: "bystander".to_owned(),
        what: "unrelated scripts, 500 a second, during a cold 4 GiB download".to_owned(),
        targets: vec![Target::to_peer("p99", IDLE, Bound::AtMost(3.0))],
        needs: &["nginx"],
        start: Box::new(|lab| start(lab).boxed_local()),
    }
}

struct Bystander {
    lab: Rc<Lab>,
    object: Object,
    upstream: Nginx,
    manifests: Folder,
    path: String,
}

async fn start(lab: Rc<Lab>) -> Result<Box<dyn Scenario>> {
    let object = lab.object(MEBIBYTES)?;
    let upstream = Nginx::upstream(&lab).await?;
    let (manifests, path) = one_environment(&lab, upstream.address, &object)?;
    Ok(Box::new(Bystander {
        lab,
        object,
        upstream,
        manifests,
        path,
    }))
}

impl Scenario for Bystander {
    fn subjects(&self) -> Vec<&'static str> {
        vec![BRIDGE, BESIDE, IDLE]
    }

    fn measure<'s>(&'s mut self, subject: &'static str) -> LocalBoxFuture<'s, Result<Figures>> {
        async move {
            let start = || {
                let options = bridge::Options {
                    cache: Some("20Gi"),
                    ..bridge::Options::default()
                };
                Bridge::start(&self.lab, self.manifests.path(), options)
            };
            let bridge = start().await?;
            let beside = match subject {
                BESIDE => Some(start().await?),
                _ => None,
            };
            settle()?;
            // Machines that nothing names get a script that needs no upstream.
            let paths = (0..100).map(|number| format!("/ipxe-mac-boot/52:54:03:00:00:{number:02x}"));
            let scripts = Metronome::start(beside.as_ref().unwrap_or(&bridge).address, paths.collect(), PERIOD);
            let source = Source::new(bridge.address, &self.path, &self.object);
            let downloaded = match subject {
                IDLE => {
                    tokio::time::sleep(IDLE_TIME).await;
                    None
                }
                _ => Some(source.download(Check::EveryPage, &AtomicU64::new(0)).await?),
            };
            let mut figures = latencies(scripts.stop()?)?;
            if let Some(timing) = downloaded {
                figures.push(("throughput", source.length as f64 / 1e9 / timing.last.as_secs_f64()));
                self.upstream.take_sent()?;
            }
            Ok(figures)
        }
        .boxed_local()
    }
}
