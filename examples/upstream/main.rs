//! A stand-in for assisted-service and assisted-image-service that serves the sample site of `config/samples/site/`.
//!
//! ```text
//! cargo run --example upstream
//! cargo run --example upstream -- --kernel vmlinuz --initrd initrd.img --rootfs rootfs.img
//! ```

mod service;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use service::{Content, Options, Upstream, sample};

/// Serves the sample site's scripts and boot artifacts, as the Assisted Service of a cluster would.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address to listen on; the sample site expects this one
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,

    /// Scheme, host and port that scripts name [default: the address listened on]
    #[arg(long)]
    origin: Option<String>,

    /// Path before everything, such as /api/image-services
    #[arg(long, default_value = "")]
    prefix: String,

    /// Kernel file [default: 6 MiB of noise]
    #[arg(long)]
    kernel: Option<PathBuf>,

    /// Initrd file; every request gets it with a fresh Ignition file behind it [default: 8 MiB of noise]
    #[arg(long)]
    initrd: Option<PathBuf>,

    /// Root file system file [default: noise of the size below]
    #[arg(long)]
    rootfs: Option<PathBuf>,

    /// Size of the noise that stands for the root file system, in MiB
    #[arg(long, default_value_t = 64, conflicts_with = "rootfs")]
    rootfs_size: u64,

    /// Bytes a second for all answers together, as over a slow link [default: no limit]
    #[arg(long)]
    bytes_per_second: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut terminated = signal(SignalKind::terminate())?;
    let defaults = Options::default();
    let noise = Content::random(arguments.rootfs_size * 1024 * 1024, 3);
    let upstream = Upstream::start(Options {
        listen: arguments.listen,
        prefix: arguments.prefix,
        origin: arguments.origin,
        environments: sample::environments(),
        kernel: arguments.kernel.map_or(defaults.kernel, Content::file),
        initrd: arguments.initrd.map_or(defaults.initrd, Content::file),
        rootfs: arguments.rootfs.map_or(noise, Content::file),
        bytes_per_second: arguments.bytes_per_second,
        ..Options::default()
    })
    .await?;
    println!("sample upstream listening on {}", upstream.url());
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminated.recv() => {}
    }
    upstream.stop().await;
    Ok(())
}
