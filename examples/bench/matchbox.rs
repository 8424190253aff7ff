//! matchbox, from its Go module: another server that answers by MAC address.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::Context as _;
use serde_json::json;

use crate::lab::{Folder, Lab, free_address};
use crate::probe;
use crate::program::{Program, until};

/// A running matchbox.
#[derive(Debug)]
pub struct Matchbox {
    /// The process.
    pub program: Program,
    /// Where it listens.
    pub address: SocketAddr,
    _folder: Folder,
}

impl Matchbox {
    /// One profile and a group for each MAC address, or without any one group for all.
    pub async fn start(lab: &Lab, macs: &[String]) -> anyhow::Result<Self> {
        let folder = lab.folder("matchbox")?;
        for name in ["groups", "profiles", "ignition", "cloud", "generic", "assets"] {
            fs::create_dir(folder.join(name))?;
        }
        let profile = json!({"id": "discovery", "boot": {
            "kernel": "http://127.0.0.1:8090/boot-artifacts/kernel?arch=x86_64&version=4.19",
            "initrd": ["--name initrd http://127.0.0.1:8090/images/3f1c5a52-7d0e-4b57-9c1b-0a6f4e8d2b11/pxe-initrd?arch=x86_64&version=4.19"],
            "args": ["initrd=initrd", "coreos.live.rootfs_url=http://127.0.0.1:8090/boot-artifacts/rootfs?arch=x86_64&version=4.19",
                     "random.trust_cpu=on", "rd.luks.options=discard", "ignition.firstboot", "ignition.platform.id=metal"]}});
        fs::write(folder.join("profiles/discovery.json"), profile.to_string())?;
        for (number, mac) in macs.iter().enumerate() {
            let group = json!({"id": format!("host-{number}"), "profile": "discovery", "selector": {"mac": mac}});
            fs::write(folder.join(&format!("groups/host-{number}.json")), group.to_string())?;
        }
        if macs.is_empty() {
            let group = json!({"id": "all", "profile": "discovery"});
            fs::write(folder.join("groups/all.json"), group.to_string())?;
        }
        let address = free_address()?;
        let mut command = Command::new(lab.matchbox.as_ref().context("no matchbox")?);
        command
            .args(["-address", &address.to_string(), "-data-path"])
            .arg(folder.path())
            .arg("-assets-path")
            .arg(folder.join("assets"));
        let mut program = Program::start("matchbox", &mut command, &folder.join("log"))?;
        until("matchbox listens", &mut program, async || probe::get(address, "/").is_ok()).await?;
        Ok(Self {
            program,
            address,
            _folder: folder,
        })
    }
}
