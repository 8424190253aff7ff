//! The bridge that is measured: a release build with its defaults.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::lab::{Folder, Lab, free_address};
use crate::probe;
use crate::program::{Program, until};

/// A running `ipxe-bridge server`.
#[derive(Debug)]
pub struct Bridge {
    /// The process.
    pub program: Program,
    /// Plain HTTP.
    pub address: SocketAddr,
    _folder: Folder,
}

/// How to start one.
#[derive(Debug, Default)]
pub struct Options {
    /// A cache of this size, such as `20Gi`, empty at first.
    pub cache: Option<&'static str>,
    /// Certificate and key, and the port for TLS.
    pub tls: Option<(PathBuf, PathBuf, SocketAddr)>,
    /// Where spans go, and the share of boots that are traced.
    pub traces: Option<(SocketAddr, &'static str)>,
}

impl Bridge {
    /// Starts a bridge on a folder of manifests; it is ready when this returns.
    pub async fn start(lab: &Lab, manifests: &Path, options: Options) -> anyhow::Result<Self> {
        let folder = lab.folder("bridge")?;
        let (address, metrics) = (free_address()?, free_address()?);
        let mut command = Command::new(&lab.bridge);
        command
            .args(["server", "--host", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--metrics-port", &metrics.port().to_string()])
            .args(["--uri", &format!("http://{address}")])
            .arg("--manifests")
            .arg(manifests)
            .env_clear();
        if let Some(size) = options.cache {
            let cache = folder.join("cache");
            fs::create_dir(&cache)?;
            command.arg("--cache-dir").arg(cache).args(["--cache-size", size]);
        }
        if let Some((certificate, key, address)) = &options.tls {
            command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
            command.args(["--tls-port", &address.port().to_string()]);
        }
        if let Some((collector, share)) = options.traces {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"));
            command.env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
            command.env("OTEL_TRACES_SAMPLER_ARG", share);
        }
        let mut program = Program::start("ipxe-bridge", &mut command, &folder.join("log"))?;
        let ready = until("the bridge is ready", &mut program, async || {
            probe::get(address, "/readyz").is_ok_and(|answer| answer.status == 200)
        })
        .await;
        ready.with_context(|| fs::read_to_string(folder.join("log")).unwrap_or_default())?;
        Ok(Self {
            program,
            address,
            _folder: folder,
        })
    }
}
