//! An artifact that is there already, against nginx with the same file, plain and over TLS 1.3.

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use rustls::{ClientConfig, RootCertStore};

use crate::bridge::{self, Bridge};
use crate::download::{Source, saturate};
use crate::lab::{Folder, Lab, free_address};
use crate::nginx::Nginx;
use crate::object::Check;
use crate::row::{BRIDGE, Bound, Figures, Row, Scenario, Target};
use crate::site::one_environment;

const MEBIBYTES: u64 = 1024;
const WINDOW: Duration = Duration::from_secs(3);
const NGINX: &str = "nginx";

/// 1, 16 and 128 clients, plain and over TLS.
pub fn rows() -> Vec<Row> {
    let row = |secure: bool, clients: usize| Row {
        name: format!("{}-{clients}", if secure { "tls" } else { "warm" }),
        what: format!(
            "warm 1 GiB artifact, {clients} client{}, {}",
            if clients == 1 { "" } else { "s" },
            if secure { "TLS 1.3" } else { "HTTP" }
        ),
        targets: match secure {
            false => vec![
                Target::to_peer("throughput", NGINX, Bound::AtLeast(0.95)),
                Target::to_peer("cpu", NGINX, Bound::AtMost(1.2)),
                // On loopback the kernel does a sender's work in either process; the sum does not depend on which.
                Target::to_peer("all-cpu", NGINX, Bound::AtMost(1.2)),
            ],
            true => vec![Target::to_peer("throughput", NGINX, Bound::AtLeast(1.2))],
        },
        needs: &["nginx"],
        start: Box::new(move |lab| start(lab, secure, clients).boxed_local()),
    };
    [false, true]
        .iter()
        .flat_map(|&secure| [1, 16, 128].map(|clients| row(secure, clients)))
        .collect()
}

struct Warm {
    clients: usize,
    subjects: Vec<(&'static str, Source)>,
    bridge: Bridge,
    nginx: Nginx,
    _upstream: Nginx,
    _folders: Vec<Folder>,
}

async fn start(lab: Rc<Lab>, secure: bool, clients: usize) -> Result<Box<dyn Scenario>> {
    let lab = &*lab;
    let object = lab.object(MEBIBYTES)?;
    let upstream = Nginx::upstream(lab).await?;
    let (manifests, path) = one_environment(lab, upstream.address, &object)?;
    let certificate = if secure { Some(Certificate::make(lab)?) } else { None };

    let mut options = bridge::Options {
        cache: Some("20Gi"),
        ..bridge::Options::default()
    };
    let mut secure_address = None;
    if let Some(certificate) = &certificate {
        let address = free_address()?;
        secure_address = Some(address);
        options.tls = Some((certificate.chain.clone(), certificate.key.clone(), address));
    }
    let bridge = Bridge::start(lab, manifests.path(), options).await?;
    let tls = certificate.as_ref().map(|certificate| certificate.client.clone());
    let source = |address, path: &str| Source {
        tls: tls.clone(),
        ..Source::new(address, path, &object)
    };
    let mut subjects = vec![(BRIDGE, source(secure_address.unwrap_or(bridge.address), &path))];

    let root = lab.objects();
    let server = format!("location / {{ root {}; }}", root.display());
    let nginx = match &certificate {
        None => Nginx::start(lab, "", &server).await?,
        Some(Certificate { chain, key, .. }) => {
            let (chain, key) = (chain.display(), key.display());
            let server = format!("ssl_certificate {chain}; ssl_certificate_key {key}; ssl_protocols TLSv1.3; {server}");
            Nginx::start_tls(lab, &server).await?
        }
    };
    subjects.push((NGINX, source(nginx.address, &format!("/{MEBIBYTES}"))));
    // Fills the cache of the bridge and both page caches, and compares every byte once.
    for (_, source) in &subjects {
        source.download(Check::Every, &AtomicU64::new(0)).await?;
    }
    let folders = [manifests]
        .into_iter()
        .chain(certificate.map(|certificate| certificate.folder));
    Ok(Box::new(Warm {
        clients,
        subjects,
        bridge,
        nginx,
        _upstream: upstream,
        _folders: folders.collect(),
    }))
}

impl Scenario for Warm {
    fn subjects(&self) -> Vec<&'static str> {
        self.subjects.iter().map(|(name, _)| *name).collect()
    }

    fn measure<'s>(&'s mut self, subject: &'static str) -> LocalBoxFuture<'s, Result<Figures>> {
        async move {
            let source = self.subjects.iter().find(|(name, _)| *name == subject);
            let (_, source) = source.context("a subject of this row")?;
            let server = match subject {
                NGINX => &self.nginx.program,
                _ => &self.bridge.program,
            };
            saturate(source, self.clients, WINDOW, server).await
        }
        .boxed_local()
    }
}

/// For this machine's address, and a client that trusts nothing else.
struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    client: Arc<ClientConfig>,
    folder: Folder,
}

impl Certificate {
    fn make(lab: &Lab) -> Result<Self> {
        let folder = lab.folder("certificate")?;
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let (chain, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        fs::write(&chain, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let client = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            chain,
            key,
            client: Arc::new(client),
            folder,
        })
    }
}
