//! Scripts by MAC address with 10,000 hosts, against files at nginx and against matchbox.

use std::fs;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use crate::bridge::{self, Bridge};
use crate::lab::{Folder, Lab};
use crate::matchbox::Matchbox;
use crate::nginx::Nginx;
use crate::probe;
use crate::program::Program;
use crate::row::{BRIDGE, Bound, Figures, Row, Scenario, Target};
use crate::site::{Machine, Site};
use crate::upstream::Options;
use crate::wrk::{self, Connections};

const HOSTS: usize = 10_000;
const ENVIRONMENTS: usize = 200;
const TIME: Duration = Duration::from_secs(3);
/// For matchbox with a group per machine, which takes seconds for the first answer.
const LONG_TIME: Duration = Duration::from_secs(20);
/// A file per machine.
const NGINX: &str = "nginx";
/// A group per machine, as its users write them.
const MATCHBOX: &str = "matchbox";
/// One group for all, so that it has next to nothing to look through.
const MATCHBOX_ONE: &str = "matchbox-one-group";

/// Connections that are kept, and one for each request.
pub fn rows() -> Vec<Row> {
    let row = |connections| {
        let (name, what) = match connections {
            Connections::Kept => ("scripts-keep-alive", "keep-alive"),
            Connections::Once => ("scripts-close", "one connection each"),
        };
        Row {
            name: name.to_owned(),
            what: format!("script by MAC, 10,000 hosts, {} connections, {what}", wrk::CONNECTIONS),
            targets: vec![
                Target::to_peer("requests", MATCHBOX, Bound::AtLeast(3.0)),
                Target::to_peer("requests", MATCHBOX_ONE, Bound::AtLeast(3.0)),
                Target::to_peer("requests", NGINX, Bound::AtLeast(1.0)),
            ],
            needs: &["nginx", "wrk"],
            start: Box::new(move |lab| start(lab, connections).boxed_local()),
        }
    };
    vec![row(Connections::Kept), row(Connections::Once)]
}

struct Scripts {
    lab: Rc<Lab>,
    connections: Connections,
    servers: Vec<(&'static str, Server)>,
    _site: Site,
    _files: Folder,
}

struct Server {
    kind: Kind,
    paths: Vec<String>,
}

enum Kind {
    Bridge(Bridge),
    Nginx(Nginx),
    Matchbox(Matchbox),
}

impl Server {
    fn parts(&self) -> (SocketAddr, &Program) {
        match &self.kind {
            Kind::Bridge(bridge) => (bridge.address, &bridge.program),
            Kind::Nginx(nginx) => (nginx.address, &nginx.program),
            Kind::Matchbox(matchbox) => (matchbox.address, &matchbox.program),
        }
    }
}

async fn start(lab: Rc<Lab>, connections: Connections) -> Result<Box<dyn Scenario>> {
    let site = Site::start(&lab, ENVIRONMENTS, HOSTS, Options::default()).await?;
    let machines: Vec<Machine> = (0..HOSTS).map(|number| Machine::new(number, ENVIRONMENTS)).collect();
    let paths: Vec<String> = machines.iter().map(Machine::path).collect();
    let bridge = Bridge::start(&lab, site.manifests(), bridge::Options::default()).await?;

    // Every script is looked at, once, and is what nginx serves.
    let files = lab.folder("scripts")?;
    let folder = files.join("ipxe-mac-boot");
    fs::create_dir(&folder)?;
    let address = bridge.address;
    let checked = tokio::task::spawn_blocking(move || {
        for machine in machines {
            let answer = probe::get(address, &machine.path())?;
            let is_right = answer.status == 200 && Machine::is_script_of(&answer.text, machine.environment);
            ensure!(is_right, "{}: {} {}", machine.path(), answer.status, answer.text);
            fs::write(folder.join(&machine.mac), answer.text)?;
        }
        Ok(())
    });
    checked.await??;
    let asked = site.upstream.requests().len();
    ensure!(
        asked < 2 * ENVIRONMENTS,
        "upstream was asked {asked} times: this would measure upstream"
    );

    let nginx = Nginx::start(&lab, "", &format!("location / {{ root {}; }}", files.path().display())).await?;
    let mut servers = vec![
        (
            BRIDGE,
            Server {
                kind: Kind::Bridge(bridge),
                paths: paths.clone(),
            },
        ),
        (
            NGINX,
            Server {
                kind: Kind::Nginx(nginx),
                paths,
            },
        ),
    ];
    if lab.matchbox.is_some() {
        let macs: Vec<String> = (0..HOSTS).map(|number| Machine::new(number, ENVIRONMENTS).mac).collect();
        let paths: Vec<String> = macs.iter().map(|mac| format!("/ipxe?mac={mac}")).collect();
        for (name, groups) in [(MATCHBOX, &macs[..]), (MATCHBOX_ONE, &[])] {
            let matchbox = Matchbox::start(&lab, groups).await?;
            let answer = probe::get(matchbox.address, &paths[HOSTS - 1])?;
            ensure!(
                answer.status == 200 && answer.text.contains("coreos.live.rootfs_url="),
                "{answer:?}"
            );
            servers.push((
                name,
                Server {
                    kind: Kind::Matchbox(matchbox),
                    paths: paths.clone(),
                },
            ));
        }
    }
    Ok(Box::new(Scripts {
        lab,
        connections,
        servers,
        _site: site,
        _files: files,
    }))
}

impl Scenario for Scripts {
    fn subjects(&self) -> Vec<&'static str> {
        self.servers.iter().map(|(name, _)| *name).collect()
    }

    fn measure<'s>(&'s mut self, subject: &'static str) -> LocalBoxFuture<'s, Result<Figures>> {
        async move {
            let server = self.servers.iter().find(|(name, _)| *name == subject);
            let (_, server) = server.context("a subject of this row")?;
            let (address, program) = server.parts();
            let time = if subject == MATCHBOX { LONG_TIME } else { TIME };
            wrk::run(&self.lab, address, &server.paths, self.connections, time, program).await
        }
        .boxed_local()
    }
}
