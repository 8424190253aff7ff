//! `ipxe-bridge cache`: a look into a cache's folder without a server.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::Serialize;

use crate::server::cache::store::{self, Facts, Found, Store, time};

/// One artifact in a cache's folder; prints as a line for people.
#[derive(Debug, Serialize)]
pub struct Line {
    key: String,
    #[serde(flatten)]
    facts: Facts,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.facts.length as f64 / f64::from(1 << 20);
        let used = jiff::Timestamp::try_from(time(self.facts.used)).map_or_else(|_| "-".to_owned(), |time| time.to_string());
        write!(
            f,
            "{:<7}{mebibytes:>10.1} MiB  used {used}  {}",
            self.facts.kind, self.facts.source
        )
    }
}

impl From<Found> for Line {
    fn from(found: Found) -> Self {
        Self {
            key: found.key.to_string(),
            facts: found.facts,
        }
    }
}

/// What the folder holds, last used first.
///
/// # Errors
///
/// If it cannot be read.
pub fn list(folder: &Path) -> anyhow::Result<Vec<Line>> {
    Ok(read(folder)?.into_iter().map(Line::from).collect())
}

/// Compares every digest. The artifacts in order, each with whether it is whole.
///
/// # Errors
///
/// If the folder cannot be read.
pub fn verify(folder: &Path) -> anyhow::Result<Vec<(Line, io::Result<bool>)>> {
    let check = |found: &Found| {
        let file = File::open(found.stem.with_added_extension("data"))?;
        Ok(store::digest(&file, found.facts.length)? == found.facts.sha256)
    };
    Ok(read(folder)?
        .into_iter()
        .map(|found| {
            let result = check(&found);
            (found.into(), result)
        })
        .collect())
}

/// Removes leftovers, and what was not used for so long. What was removed.
///
/// # Errors
///
/// If a process uses the folder, or it cannot be read.
pub fn prune(folder: &Path, unused_for: Duration, now: SystemTime) -> anyhow::Result<Vec<Line>> {
    anyhow::ensure!(folder.is_dir(), "{} is not a folder", folder.display());
    let store = Store::open(folder).map_err(anyhow::Error::msg)?;
    let found = store
        .recover()
        .with_context(|| format!("{} cannot be read", folder.display()))?;
    // What a clock that was ahead has written was used just now.
    let age = |found: &Found| now.duration_since(time(found.facts.used)).unwrap_or_default();
    let is_old = |found: &Found| age(found) >= unused_for;
    let mut removed = Vec::new();
    for found in found.into_iter().filter(is_old) {
        store::remove(&found.stem);
        removed.push(found.into());
    }
    Ok(removed)
}

fn read(folder: &Path) -> anyhow::Result<Vec<Found>> {
    store::list(folder).with_context(|| format!("{} holds no cache that can be read", folder.display()))
}
