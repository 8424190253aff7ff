//! The directory of per-MAC scripts: file name = MAC address in any spelling, content = script.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::boot::host_file::HostFile;
use crate::boot::inventory::Skipped;
use crate::boot::script::MAX_SCRIPT;

use super::files::{self, Changes};
use super::sources::{Item, Sources};

/// Name of the source.
pub const SOURCE: &str = "host files";

/// Follows the directory, for ever.
pub async fn follow(directory: PathBuf, period: Duration, sources: Arc<Sources>) {
    let mut changes = Changes::below(std::slice::from_ref(&directory), period);
    let mut last_good = HashMap::new();
    loop {
        let folder = directory.clone();
        let good = std::mem::take(&mut last_good);
        match tokio::task::spawn_blocking(move || (read(&folder, &good), good)).await {
            Ok((Ok(items), _)) => {
                last_good.clone_from(&items);
                sources.replace(SOURCE, items);
            }
            Ok((Err(error), good)) => {
                tracing::warn!(%error, directory = %directory.display(), "the host files cannot be read, the last ones stay");
                last_good = good;
                sources.behind(SOURCE, error.to_string());
            }
            Err(error) => tracing::error!(%error, "reading the host files failed"),
        }
        changes.next().await;
    }
}

/// Every file of the directory. One that can no longer be read keeps its last good content, beside a note of what is wrong.
fn read(directory: &Path, last_good: &HashMap<String, Item>) -> std::io::Result<HashMap<String, Item>> {
    let mut items = HashMap::new();
    for (file, read) in list(directory)? {
        match read {
            Ok(host_file) => {
                items.insert(file, Item::File(Arc::new(host_file)));
            }
            Err(cause) => {
                if let Some(good) = last_good.get(&file) {
                    items.insert(file.clone(), good.clone());
                }
                let skipped = Skipped {
                    kind: "host file".to_owned(),
                    object: file.clone(),
                    cause,
                };
                items.insert(format!("{file} (skipped)"), Item::Skipped(skipped));
            }
        }
    }
    Ok(items)
}

/// The files of a directory by name, each with its content or what is wrong with it.
pub fn list(directory: &Path) -> std::io::Result<Vec<(String, Result<HostFile, String>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Dot files are editors' and Kubernetes' own (`..data` of a mounted ConfigMap).
        if !file.starts_with('.') && !path.is_dir() {
            let read = host_file(&path, &file);
            files.push((file, read));
        }
    }
    Ok(files)
}

fn host_file(path: &Path, file: &str) -> Result<HostFile, String> {
    let mac = file.parse().map_err(|error| format!("its name: {error}"))?;
    let script = files::read_text(path, MAX_SCRIPT as u64)?;
    if script.trim().is_empty() {
        return Err("the file is empty, expected an iPXE script".to_owned());
    }
    Ok(HostFile {
        file: file.to_owned(),
        mac,
        script,
    })
}
