//! What traces cost: scripts by MAC address with every boot traced, and with one in a hundred, against a bridge that exports nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use crate::bridge::{self, Bridge};
use crate::lab::Lab;
use crate::probe;
use crate::row::{BRIDGE, Bound, Figures, Row, Scenario, Target};
use crate::site::{Machine, Site};
use crate::upstream::Options;
use crate::wrk::{self, Connections};

const HOSTS: usize = 1000;
const ENVIRONMENTS: usize = 20;
const TIME: Duration = Duration::from_secs(3);
/// The same without an exporter.
const OFF: &str = "untraced";

/// Every boot, and one in a hundred.
pub fn rows() -> Vec<Row> {
    let row = |name: &str, what: &str, share, least| Row {
        name: name.to_owned(),
        what: format!("script by MAC, {} kept connections, {what}", wrk::CONNECTIONS),
        targets: vec![Target::to_peer("requests", OFF, Bound::AtLeast(least))],
        needs: &["wrk"],
        start: Box::new(move |lab| start(lab, share).boxed_local()),
    };
    vec![
        row("traces-all", "every boot traced over OTLP", "1", 0.85),
        row("traces-hundredth", "one boot in a hundred traced over OTLP", "0.01", 0.97),
    ]
}

struct Traces {
    lab: Rc<Lab>,
    traced: Bridge,
    untraced: Bridge,
    paths: Vec<String>,
    _site: Site,
}

async fn start(lab: Rc<Lab>, share: &'static str) -> Result<Box<dyn Scenario>> {
    let site = Site::start(&lab, ENVIRONMENTS, HOSTS, Options::default()).await?;
    let machines: Vec<Machine> = (0..HOSTS).map(|number| Machine::new(number, ENVIRONMENTS)).collect();
    let traces = bridge::Options {
        traces: Some((collector()?, share)),
        ..bridge::Options::default()
    };
    let traced = Bridge::start(&lab, site.manifests(), traces).await?;
    let untraced = Bridge::start(&lab, site.manifests(), bridge::Options::default()).await?;
    let paths = machines.iter().map(Machine::path).collect();
    let addresses = [traced.address, untraced.address];
    let checked = tokio::task::spawn_blocking(move || {
        for (address, machine) in addresses
            .iter()
            .flat_map(|address| machines.iter().map(move |machine| (*address, machine)))
        {
            let answer = probe::get(address, &machine.path())?;
            let is_right = answer.status == 200 && Machine::is_script_of(&answer.text, machine.environment);
            ensure!(is_right, "{}: {} {}", machine.path(), answer.status, answer.text);
        }
        Ok(())
    });
    checked.await??;
    Ok(Box::new(Traces {
        lab,
        traced,
        untraced,
        paths,
        _site: site,
    }))
}

/// A collector that takes everything and keeps nothing: what one does with spans is not to be measured. It ends with the benchmark.
fn collector() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("a port for the collector")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || take(stream));
        }
    });
    Ok(address)
}

fn take(stream: TcpStream) -> std::io::Result<()> {
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().to_ascii_lowercase().strip_prefix("content-length:") {
                Some(text) => length = text.trim().parse().unwrap_or_default(),
                None if line.trim_end().is_empty() => break,
                None => {}
            }
        }
        std::io::copy(&mut requests.by_ref().take(length), &mut std::io::sink())?;
        answers.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")?;
    }
}

impl Scenario for Traces {
    fn subjects(&self) -> Vec<&'static str> {
        vec![BRIDGE, OFF]
    }

    fn measure<'s>(&'s mut self, subject: &'static str) -> LocalBoxFuture<'s, Result<Figures>> {
        async move {
            let bridge = if subject == BRIDGE { &self.traced } else { &self.untraced };
            wrk::run(
                &self.lab,
                bridge.address,
                &self.paths,
                Connections::Kept,
                TIME,
                &bridge.program,
            )
            .await
        }
        .boxed_local()
    }
}
