//! Where it is measured: the programs, a folder to work in, free ports.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;

use crate::object::{MIB, Object};

/// The programs and the folder.
#[derive(Debug)]
pub struct Lab {
    /// The release binary of the bridge.
    pub bridge: PathBuf,
    /// Peers and load programs; `None` where there is none, which was said loudly.
    pub nginx: Option<PathBuf>,
    /// The load program for scripts.
    pub wrk: Option<PathBuf>,
    /// Another server of scripts.
    pub matchbox: Option<PathBuf>,
    folder: PathBuf,
    serial: AtomicU32,
}

impl Lab {
    /// A lab in this folder.
    pub fn new(bridge: PathBuf, tools: &Path, folder: PathBuf) -> anyhow::Result<Self> {
        anyhow::ensure!(bridge.exists(), "{} is not there: `make bench` builds it", bridge.display());
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let matchbox = Some(tools.join("matchbox")).filter(|path| path.exists());
        Ok(Self {
            bridge: fs::canonicalize(bridge)?,
            nginx: find("nginx"),
            wrk: find("wrk"),
            matchbox,
            folder: fs::canonicalize(folder)?,
            serial: AtomicU32::new(0),
        })
    }

    /// The programs among these that are not there.
    pub fn missing(&self, programs: &[&'static str]) -> Vec<&'static str> {
        let found = [("nginx", &self.nginx), ("wrk", &self.wrk), ("matchbox", &self.matchbox)];
        let is_there = |name: &str| found.iter().any(|(program, path)| *program == name && path.is_some());
        programs.iter().copied().filter(|name| !is_there(name)).collect()
    }

    /// An empty folder of its own.
    pub fn folder(&self, name: &str) -> anyhow::Result<Folder> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{name}-{serial}"));
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    /// The folder of all objects, kept between runs.
    pub fn objects(&self) -> PathBuf {
        self.folder.join("objects")
    }

    /// A file of so many mebibytes, the same in every run.
    pub fn object(&self, mebibytes: u64) -> anyhow::Result<Object> {
        Object::make(&self.objects(), &mebibytes.to_string(), mebibytes * MIB, mebibytes)
    }
}

/// Removed with all that is in it when it is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Something in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The next run removes what is left.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An address of this machine that nobody listens on.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Everything that was written goes to the disk now, so that what one program left is not written at another's cost.
pub fn settle() -> anyhow::Result<()> {
    Command::new("sync").status().context("no sync")?;
    Ok(())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Where Debian keeps servers is not in everybody's path.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}
