//! The cache's folder: one file of bytes and one of facts for each artifact, a lock, and nothing that is trusted without a check.
//!
//! ```text
//! DIR/lock                    held by the one process that uses the folder
//! DIR/artifacts/KEY.TIME.part a fill; worthless without its process
//! DIR/artifacts/KEY.TIME.data the bytes, synchronised before they get this name
//! DIR/artifacts/KEY.TIME.json what is known of them, written last
//! ```
//!
//! Invariant: an artifact counts only if both files are there, and only after its digest was compared once in this process's life.
//! Files of other names are not touched, whatever their extension.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use ring::digest::{Context, SHA256};
use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

use crate::boot::artifact::{ArtifactKind, UpstreamUrl};
use crate::server::validator::Validator;

/// Facts of another format are those of another version of the program, and go with their bytes.
const FORMAT: u32 = 1;
const FOLDER: &str = "artifacts";
const LOCK: &str = "lock";
const KEY_DIGITS: usize = 32;

/// What an artifact is known by: the digest of its upstream address, so that no secret of the address gets to the disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key(String);

impl Key {
    /// The key of an address.
    pub fn of(url: &UpstreamUrl) -> Self {
        let digest = ring::digest::digest(&SHA256, url.secret().as_str().as_bytes());
        Self(hex(&digest.as_ref()[..KEY_DIGITS / 2]))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of the bytes beside them, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    format: u32,
    /// `kernel` or `rootfs`.
    pub kind: String,
    /// Where it is from: scheme, host, path, version and architecture of the address, without its secrets.
    pub source: String,
    /// The other one of kernel and rootfs of its environment.
    pub partner: Option<Key>,
    /// Bytes.
    pub length: u64,
    /// Type that upstream gives it.
    pub content_type: Option<String>,
    /// Strong entity tag of upstream's.
    pub etag: Option<String>,
    /// Otherwise upstream's date.
    pub last_modified: Option<String>,
    /// SHA-256 of the bytes, hexadecimal.
    pub sha256: String,
    /// When upstream was first seen to have this build, in seconds since 1970.
    pub first_seen: u64,
    /// When upstream was last seen to have it.
    pub confirmed: u64,
    /// When a machine last asked for it.
    pub used: u64,
}

impl Facts {
    /// Facts of the present format about a build; times are filled in by the caller.
    pub fn new(kind: ArtifactKind, source: String, validator: &Validator, length: u64) -> Self {
        let (etag, last_modified) = match validator {
            Validator::Tag(tag) => (tag.to_str().ok().map(str::to_owned), None),
            Validator::Date(date, _) => (None, Some(httpdate::fmt_http_date(*date))),
        };
        Self {
            format: FORMAT,
            kind: kind.as_str().to_owned(),
            source,
            partner: None,
            length,
            content_type: None,
            etag,
            last_modified,
            sha256: String::new(),
            first_seen: 0,
            confirmed: 0,
            used: 0,
        }
    }

    /// Which build it is; `None` if the facts name none.
    pub fn validator(&self) -> Option<Validator> {
        match (&self.etag, &self.last_modified) {
            (Some(tag), _) => Some(Validator::Tag(HeaderValue::from_str(tag).ok()?)),
            (None, Some(date)) => Some(Validator::Date(httpdate::parse_http_date(date).ok()?, Some(self.length))),
            (None, None) => None,
        }
    }
}

/// Bytes and facts of one artifact in a folder.
#[derive(Debug)]
pub struct Found {
    /// Its key.
    pub key: Key,
    /// Path without an extension.
    pub stem: PathBuf,
    /// What was written down.
    pub facts: Facts,
}

/// The folder, locked for this process.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    folder: PathBuf,
    /// The lock ends with the file.
    lock: Mutex<File>,
}

impl Store {
    /// Makes the folder where it is missing, and locks it.
    ///
    /// # Errors
    ///
    /// One sentence for a person: what is wrong with the folder, or that another process uses it.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let refuse = |what: &str, error: io::Error| format!("{}: {what}: {error}", folder.display());
        fs::create_dir_all(folder.join(FOLDER)).map_err(|error| refuse("the folder cannot be made", error))?;
        let store = Self {
            root: folder.to_owned(),
            folder: folder.join(FOLDER),
            lock: Mutex::new(take_lock(folder)?),
        };
        // What can be locked may still be on a disk that takes no bytes.
        store.try_out(0).map_err(|error| refuse("it cannot be written", error))?;
        Ok(store)
    }

    /// Removes what dead processes left half done, and lists what is whole.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read. A single artifact that cannot be used is removed, with a line in the log.
    pub fn recover(&self) -> io::Result<Vec<Found>> {
        let (found, leftovers) = scan(&self.folder)?;
        for path in leftovers {
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(file = %path.display(), "removed from the cache: not whole"),
                Err(error) => tracing::warn!(file = %path.display(), %error, "a leftover in the cache cannot be removed"),
            }
        }
        Ok(found)
    }

    /// A file of this many bytes for a fill, its room taken from the disk at once where the file system can: a disk that is full is to
    /// be found before a machine waits for it.
    ///
    /// # Errors
    ///
    /// `StorageFull`, or whatever else the file system says.
    pub fn begin(&self, key: &Key, length: u64) -> io::Result<(File, PathBuf)> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let stem = self.folder.join(format!("{key}.{time:x}"));
        let path = stem.with_added_extension("part");
        let make = || OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_anew()?;
                make()?
            }
            made => made?,
        };
        match fallocate(&file, FallocateFlags::empty(), 0, length) {
            // Not every file system can; then the room is taken as the bytes come.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok((file, stem)),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error.into())
            }
        }
    }

    /// Makes the folder anew after somebody removed it under the process, and locks it if the lock went with it.
    fn make_anew(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        if !self.root.join(LOCK).exists() {
            let lock = take_lock(&self.root).map_err(io::Error::other)?;
            *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = lock;
        }
        Ok(())
    }

    /// Whether a file of so many bytes could be made now.
    ///
    /// # Errors
    ///
    /// What stands against it.
    pub fn try_out(&self, length: u64) -> io::Result<()> {
        let (file, stem) = self.begin(&Key("0".repeat(KEY_DIGITS)), length.max(1))?;
        let written = file.write_all_at(b"0", 0).and_then(|()| file.sync_all());
        remove(&stem);
        written
    }

    /// Makes a fill that has all its bytes an artifact that outlives the process.
    pub fn commit(&self, file: &File, stem: &Path, facts: &Facts) -> io::Result<()> {
        file.sync_all()?;
        fs::rename(stem.with_added_extension("part"), stem.with_added_extension("data"))?;
        self.note(stem, facts)
    }

    /// Writes the facts of an artifact anew.
    pub fn note(&self, stem: &Path, facts: &Facts) -> io::Result<()> {
        let aside = stem.with_added_extension("json.part");
        let text = serde_json::to_vec_pretty(facts)?;
        let file = File::create(&aside)?;
        file.write_all_at(&text, 0)?;
        file.sync_all()?;
        fs::rename(&aside, stem.with_added_extension("json"))?;
        File::open(&self.folder)?.sync_all()
    }
}

fn take_lock(folder: &Path) -> Result<File, String> {
    let refuse = |what: &str, error: io::Error| format!("{}: {what}: {error}", folder.display());
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(LOCK))
        .map_err(|error| refuse("its lock cannot be written", error))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => format!("{}: another process uses this folder", folder.display()),
        TryLockError::Error(error) => refuse("it cannot be locked", error),
    })?;
    Ok(lock)
}

/// Removes the files of an artifact, facts first: bytes without facts are a leftover, facts without bytes would be a claim.
pub fn remove(stem: &Path) {
    for extension in ["json", "data", "part"] {
        let path = stem.with_added_extension(extension);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %path.display(), %error, "a file of the cache cannot be removed");
            }
            _ => {}
        }
    }
}

/// What is whole in a cache's folder, without a lock and without changing anything.
///
/// # Errors
///
/// If the folder cannot be read.
pub fn list(folder: &Path) -> io::Result<Vec<Found>> {
    Ok(scan(&folder.join(FOLDER))?.0)
}

/// What is whole, and the files that belong to nothing whole.
fn scan(folder: &Path) -> io::Result<(Vec<Found>, Vec<PathBuf>)> {
    let (mut found, mut leftovers) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = path.with_extension("");
        match path.extension().and_then(|extension| extension.to_str()) {
            _ if !is_ours(&name) => {}
            Some("part") => leftovers.push(path),
            Some("data") if !stem.with_added_extension("json").exists() => leftovers.push(path),
            Some("json") => {
                let data = stem.with_added_extension("data");
                match facts(&path, &data) {
                    Ok(facts) => {
                        let key = Key(name.split('.').next().unwrap_or_default().to_owned());
                        found.push(Found { key, stem, facts });
                    }
                    Err(why) => {
                        tracing::warn!(file = %path.display(), why, "an artifact in the cache cannot be used");
                        leftovers.extend([path, data]);
                    }
                }
            }
            _ => {}
        }
    }
    found.sort_by_key(|found| std::cmp::Reverse(found.facts.used));
    Ok((found, leftovers))
}

/// Whether a file has a name that this module gives: `KEY.TIME.` and an extension.
fn is_ours(name: &str) -> bool {
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = name.splitn(3, '.');
    let (key, time, extension) = (parts.next(), parts.next(), parts.next());
    key.is_some_and(|key| key.len() == KEY_DIGITS && is_hex(key))
        && time.is_some_and(is_hex)
        && matches!(extension, Some("data" | "json" | "part" | "json.part"))
}

fn facts(path: &Path, data: &Path) -> Result<Facts, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let facts: Facts = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if facts.format != FORMAT {
        return Err(format!("format {}, expected {FORMAT}", facts.format));
    }
    facts.validator().ok_or("it names no build")?;
    let length = fs::metadata(data).map_err(|error| error.to_string())?.len();
    match length == facts.length {
        true => Ok(facts),
        false => Err(format!("{length} bytes, expected {}", facts.length)),
    }
}

/// SHA-256 of a file's bytes, hexadecimal.
///
/// # Errors
///
/// If the file cannot be read, or is shorter than this.
pub fn digest(file: &File, length: u64) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    while position < length {
        let wanted = usize::try_from(length - position).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..wanted], position)?;
        context.update(&buffer[..wanted]);
        position += wanted as u64;
    }
    Ok(hex(context.finish().as_ref()))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The time of so many seconds since 1970.
pub fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}
