//! The machines of the bridge's inventory, asked by HTTP and kept in memory: an answer to a DHCP packet has to be there in milliseconds.
//!
//! The last list counts for as long as no newer one can be had. Before the first one no machine is known.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use reqwest::Client;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::boot::mac::MacAddr;

use super::offer::Known;

/// How often the bridge is asked.
const PERIOD: Duration = Duration::from_secs(5);
/// The least time between two questions: a machine that was just added asks again within a few seconds.
const PAUSE: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
/// 100,000 addresses take 2 MiB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What is known, and when it was asked last.
#[derive(Debug, Default)]
pub struct Machines {
    list: ArcSwapOption<(HashSet<MacAddr>, Instant)>,
    wanted: Notify,
    everyone: bool,
}

/// The answer of the bridge.
#[derive(Deserialize)]
struct KnownMachines {
    #[serde(rename = "macAddresses")]
    mac_addresses: Vec<String>,
}

impl Machines {
    /// Without the bridge: everyone is answered.
    pub fn everyone() -> Self {
        Self {
            everyone: true,
            ..Self::default()
        }
    }

    /// Whether a machine is to be answered. One that is not known makes the bridge be asked again soon.
    pub fn look_up(&self, mac: MacAddr) -> Known {
        if self.everyone {
            return Known::Yes;
        }
        match self.list.load().as_deref() {
            None => Known::NotAsked,
            Some((list, _)) if list.contains(&mac) => Known::Yes,
            Some(_) => {
                self.wanted.notify_one();
                Known::No
            }
        }
    }

    /// How many machines are known and for how long already; `None` before the first list.
    pub fn state(&self) -> Option<(usize, Duration)> {
        self.list.load().as_deref().map(|(list, asked)| (list.len(), asked.elapsed()))
    }

    /// Whether all is there to answer machines.
    pub fn is_ready(&self) -> bool {
        self.everyone || self.list.load().is_some()
    }

    /// Asks again and again until the end.
    pub async fn follow(&self, bridge: &Bridge, end: &CancellationToken) {
        let mut is_away = false;
        while !end.is_cancelled() {
            match bridge.known_machines().await {
                Ok(list) => {
                    if is_away || self.list.load().is_none() {
                        tracing::info!(machines = list.len(), "the bridge tells its machines");
                    }
                    is_away = false;
                    self.list.store(Some(std::sync::Arc::new((list, Instant::now()))));
                }
                Err(error) => {
                    if !is_away {
                        let meanwhile = match self.list.load().is_some() {
                            true => "the machines it told last are answered on",
                            false => "no machine is answered before it could be asked",
                        };
                        tracing::warn!("{} cannot be asked for its machines: {error:#}; {meanwhile}", bridge.url);
                    }
                    is_away = true;
                }
            }
            tokio::select! {
                () = end.cancelled() => {}
                () = tokio::time::sleep(PERIOD) => {}
                () = async { tokio::time::sleep(PAUSE).await; self.wanted.notified().await } => {}
            }
        }
    }
}

/// These files, and those of these folders, which may be empty: a Secret without an issuer, mounted.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| format!("--bridge-ca: {} cannot be listed", path.display()))?;
        files.extend(entries.flatten().map(|entry| entry.path()).filter(|file| file.is_file()));
    }
    Ok(files)
}

/// Where the bridge is asked.
#[derive(Debug)]
pub struct Bridge {
    client: Client,
    url: String,
}

impl Bridge {
    /// A client for the bridge at an address.
    pub fn new(address: &str, certificates: &[PathBuf]) -> anyhow::Result<Self> {
        let mut trusted = Vec::new();
        for file in files(certificates)? {
            let text = std::fs::read(&file).with_context(|| format!("--bridge-ca: {} cannot be read", file.display()))?;
            let bundle = reqwest::Certificate::from_pem_bundle(&text);
            trusted.extend(bundle.with_context(|| format!("--bridge-ca: {} holds no certificates", file.display()))?);
        }
        let client = Client::builder()
            .user_agent(concat!("ipxe-bridge-netboot/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_merge(trusted);
        Ok(Self {
            client: client.build()?,
            url: format!("{address}/known-machines"),
        })
    }

    async fn known_machines(&self) -> anyhow::Result<HashSet<MacAddr>> {
        let mut response = self.client.get(&self.url).send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend(&chunk);
            anyhow::ensure!(body.len() <= MAX_ANSWER, "its answer is longer than {MAX_ANSWER} bytes");
        }
        let answer: KnownMachines = serde_json::from_slice(&body).context("its answer is not that of an ipxe-bridge")?;
        // One that this version cannot read would be no reason to forget all others.
        Ok(answer.mac_addresses.iter().filter_map(|mac| mac.parse().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_certificates_may_be_empty_and_a_file_must_be_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_owned();
        assert!(files(std::slice::from_ref(&path)).expect("listed").is_empty());
        std::fs::write(path.join("ca.crt"), "").expect("written");
        // As the kubelet mounts a Secret.
        std::fs::create_dir(path.join("..data")).expect("made");
        let both = [path.clone(), path.join("other.pem")];
        assert_eq!(files(&both).expect("listed"), [path.join("ca.crt"), path.join("other.pem")]);
        let error = Bridge::new("https://192.0.2.1", &[path.join("other.pem")]).expect_err("absent");
        assert!(error.to_string().contains("other.pem cannot be read"), "{error}");
    }
}
