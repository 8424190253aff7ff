//! Storms on an artifact that is not there yet, against nginx as a cache, with a slow and with a fast upstream.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use crate::bridge::{self, Bridge};
use crate::download::{Source, Timing, storm};
use crate::lab::{Folder, Lab, settle};
use crate::nginx::Nginx;
use crate::object::{Check, MIB};
use crate::program::Program;
use crate::row::{BRIDGE, Bound, Figures, Row, Scenario, Target};
use crate::site::{Site, one_environment};
use crate::upstream::{Content, Options, Target as Kind};

const MEBIBYTES: u64 = 256;
/// Of the slow upstream, for all its connections together.
const SLOW: u64 = 40_000_000;
const NGINX: &str = "nginx";

/// 16 and 128 clients, slow and fast upstream.
pub fn rows() -> Vec<Row> {
    let row = |slow: bool, clients: usize| Row {
        name: format!("cold-{}-{clients}", if slow { "slow" } else { "fast" }),
        what: format!(
            "cold storm on 256 MiB, {clients} clients, {} upstream",
            if slow { "40 MB/s" } else { "fast" }
        ),
        targets: match slow {
            true => vec![
                Target::to_peer("time", NGINX, Bound::AtMost(1.0)),
                Target::to_peer("first-byte", NGINX, Bound::AtMost(0.1)),
                Target::alone("fetched", Bound::AtMost(1.0)),
            ],
            false => vec![
                Target::to_peer("throughput", NGINX, Bound::AtLeast(1.3)),
                Target::alone("fetched", Bound::AtMost(1.0)),
            ],
        },
        needs: &["nginx"],
        start: Box::new(move |lab| start(lab, slow, clients).boxed_local()),
    };
    [true, false]
        .iter()
        .flat_map(|&slow| [16, 128].map(|clients| row(slow, clients)))
        .collect()
}

struct Cold {
    lab: Rc<Lab>,
    clients: usize,
    origin: Origin,
    /// The artifact at upstream.
    source: Source,
    /// Its path at the bridge.
    path: String,
}

enum Origin {
    /// The stand-in for the Assisted Service: it has a rate, and makes its bytes up.
    Slow(Site),
    /// nginx, as nothing else sends faster, and the manifests.
    Fast(Nginx, Folder),
}

async fn start(lab: Rc<Lab>, slow: bool, clients: usize) -> Result<Box<dyn Scenario>> {
    let (origin, source, path) = match slow {
        true => {
            let options = Options {
                rootfs: Content::random(MEBIBYTES * MIB, MEBIBYTES),
                bytes_per_second: Some(SLOW),
                ..Options::default()
            };
            let site = Site::start(&lab, 1, 0, options).await?;
            let source = site.source(0, Kind::Rootfs)?;
            (Origin::Slow(site), source, Site::path(0, Kind::Rootfs))
        }
        false => {
            let object = lab.object(MEBIBYTES)?;
            let nginx = Nginx::upstream(&lab).await?;
            let (manifests, path) = one_environment(&lab, nginx.address, &object)?;
            let source = Source::new(nginx.address, &format!("/boot-artifacts/rootfs?version={MEBIBYTES}"), &object);
            (Origin::Fast(nginx, manifests), source, path)
        }
    };
    Ok(Box::new(Cold {
        lab,
        clients,
        origin,
        source,
        path,
    }))
}

impl Scenario for Cold {
    fn subjects(&self) -> Vec<&'static str> {
        vec![BRIDGE, NGINX]
    }

    fn measure<'s>(&'s mut self, subject: &'static str) -> LocalBoxFuture<'s, Result<Figures>> {
        async move {
            // New programs, so that nothing is there but what they find out anew.
            match subject {
                BRIDGE => {
                    let manifests = match &self.origin {
                        Origin::Slow(site) => site.manifests(),
                        Origin::Fast(_, manifests) => manifests.path(),
                    };
                    let options = bridge::Options {
                        cache: Some("20Gi"),
                        ..bridge::Options::default()
                    };
                    let bridge = Bridge::start(&self.lab, manifests, options).await?;
                    self.storm(bridge.address, &self.path, &bridge.program).await
                }
                _ => {
                    let nginx = Nginx::cache(&self.lab, self.source.address).await?;
                    self.storm(nginx.address, &self.source.path, &nginx.program).await
                }
            }
        }
        .boxed_local()
    }
}

impl Cold {
    async fn storm(&self, address: SocketAddr, path: &str, server: &Program) -> Result<Figures> {
        settle()?;
        let source = Source {
            address,
            path: path.to_owned(),
            ..self.source.clone()
        };
        self.origin.take_sent()?;
        let (start, cpu) = (Instant::now(), server.cpu()?);
        let timings = storm(&source, self.clients, Check::EveryPage).await?;
        let seconds = start.elapsed().as_secs_f64();
        let gigabytes = (self.clients as u64 * source.length) as f64 / 1e9;
        let cpu = (server.cpu()? - cpu) / gigabytes;
        let latest = |which: fn(&Timing) -> _| timings.iter().map(which).max().context("no client");
        let first = latest(|timing| timing.first)?;
        Ok(vec![
            ("time", seconds),
            ("throughput", gigabytes / seconds),
            ("cpu", cpu),
            ("first-byte", first.as_secs_f64()),
            ("fetched", self.origin.take_sent()? as f64 / source.length as f64),
        ])
    }
}

impl Origin {
    /// Bytes of artifacts that upstream has sent since this was asked last.
    fn take_sent(&self) -> Result<u64> {
        match self {
            Self::Fast(nginx, _) => nginx.take_sent(),
            Self::Slow(site) => {
                let requests = site.upstream.requests();
                site.upstream.clear_log();
                let artifacts = requests.iter().filter(|request| request.target == Some(Kind::Rootfs));
                Ok(artifacts.map(|request| request.sent).sum())
            }
        }
    }
}
