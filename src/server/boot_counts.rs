//! Boots of overrides with a `bootLimit`, counted before their script is sent: what cannot be counted is not sent.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::boot::decision::ByOverride;
use crate::boot::mac::MacAddr;
use crate::boot::name::ObjectName;

use super::sources::{Converted, Item, Sources};
use super::status::Reports;
use super::trouble::NotCounted;

/// Name of the source of counts in a folder.
const SOURCE: &str = "boot counts";
const FILE: &str = "boot-counts.json";

/// Counts by MAC address, by namespace and name.
type Counts = BTreeMap<String, Served>;
type Served = BTreeMap<String, u32>;

/// Where boots are counted.
#[derive(Debug)]
pub enum BootCounts {
    /// In the status of the overrides.
    Status(Arc<Reports>),
    /// In a file.
    Folder(Arc<Folder>),
    /// Nowhere: there is neither a cluster nor a folder.
    Nowhere,
}

impl BootCounts {
    /// An override without a limit was served: only a status tells of that.
    pub fn served(&self, by: &ByOverride, mac: MacAddr, address: &str) {
        if let Self::Status(reports) = self {
            reports.served(&by.name, mac, address);
        }
    }

    /// Counts one boot of a machine.
    pub async fn count(&self, by: &ByOverride, limit: u32, mac: MacAddr, address: &str) -> Result<(), NotCounted> {
        match self {
            Self::Status(reports) => reports.count(by, limit, mac, address).await,
            Self::Nowhere => Err(NotCounted::Unwritable(
                "without a cluster boots are counted in the folder of --state-dir, which is not set".to_owned(),
            )),
            Self::Folder(folder) => {
                let (folder, name) = (folder.clone(), by.name.clone());
                let counted = tokio::task::spawn_blocking(move || folder.count(&name, limit, mac)).await;
                match counted {
                    Ok(Ok(true)) => Ok(()),
                    Ok(Ok(false)) => Err(NotCounted::UsedUp),
                    Ok(Err(error)) => Err(NotCounted::Unwritable(format!("--state-dir: {error}"))),
                    Err(error) => Err(NotCounted::Unwritable(error.to_string())),
                }
            }
        }
    }
}

/// Counts in a folder, for servers without a cluster. Several may share it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    sources: Arc<Sources>,
}

impl Folder {
    /// Opens the folder and tells what is counted in it. A file that cannot be read is no empty one: until it is mended every boot with
    /// a limit is refused.
    pub fn open(path: PathBuf, sources: Arc<Sources>) -> io::Result<Self> {
        let counts = read(&path)?;
        let items = counts
            .iter()
            .filter_map(|(name, served)| Some((name.clone(), item(name, served)?)));
        sources.replace(SOURCE, items.collect());
        Ok(Self { path, sources })
    }

    /// Counts a boot if the limit allows it, and says whether it did.
    fn count(&self, name: &ObjectName, limit: u32, mac: MacAddr) -> io::Result<bool> {
        let lock = File::create(self.path.join(".lock"))?;
        lock.lock()?;
        let mut counts = read(&self.path)?;
        let name = name.to_string();
        let served = counts.entry(name.clone()).or_default();
        let count = served.entry(mac.to_string()).or_default();
        let allowed = *count < limit;
        if allowed {
            *count += 1;
        }
        let item = item(&name, served);
        if allowed {
            write(&self.path, &counts)?;
        }
        self.sources.set(SOURCE, name, Converted { item, skipped: None });
        Ok(allowed)
    }
}

fn item(name: &str, served: &Served) -> Option<Item> {
    let (namespace, name) = name.split_once('/')?;
    let name = ObjectName::new(namespace, name).ok()?;
    let served = served.iter().filter_map(|(mac, count)| Some((mac.parse().ok()?, *count)));
    Some(Item::Counted(name, served.collect()))
}

fn read(folder: &Path) -> io::Result<Counts> {
    match fs::read(folder.join(FILE)) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Counts::new()),
        Err(error) => Err(error),
    }
}

/// Written whole and made to last before the boot: a power cut leaves the old count or the new one.
fn write(folder: &Path, counts: &Counts) -> io::Result<()> {
    let new = folder.join(format!(".{FILE}.new"));
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(counts)?)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}
