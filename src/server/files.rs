//! Following files: a wake-up whenever something below a path may have changed.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Changes are left alone until they have been quiet for this long, so that a file is not read while it is being written.
const QUIET: Duration = Duration::from_millis(120);
/// But no longer than this after the first.
const AT_MOST: Duration = Duration::from_millis(700);

/// How often it is looked whether a path still leads to the same place: a folder that was replaced reports nothing of its successor.
const LOOK: Duration = Duration::from_secs(1);

/// Wakes up when files change. Network file systems and linked folders do not report changes, so it also wakes up by itself.
#[derive(Debug)]
pub struct Changes {
    paths: Vec<PathBuf>,
    period: Duration,
    changed: Arc<Notify>,
    watched: Vec<Option<Place>>,
    _watcher: Option<notify::RecommendedWatcher>,
}

/// Device and number of what a path leads to.
type Place = (u64, u64);

impl Changes {
    /// Follows everything below the paths. Of a file the folder around it is followed, since files are replaced by renaming.
    pub fn below(paths: &[PathBuf], period: Duration) -> Self {
        let mut changes = Self {
            paths: paths.to_vec(),
            period,
            changed: Arc::default(),
            watched: Vec::new(),
            _watcher: None,
        };
        changes.watch();
        changes
    }

    fn watch(&mut self) {
        self.watched = self.places();
        let wake = self.changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file must not count as changing it, or every look would cause the next.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                wake.notify_one();
            }
        })
        .and_then(|mut watcher| {
            for (path, mode) in self.folders() {
                watcher.watch(path, mode)?;
            }
            Ok(watcher)
        });
        self._watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "changes of files are not reported here, they are looked at every {:?}", self.period))
            .ok();
    }

    /// What is followed for each path.
    fn folders(&self) -> impl Iterator<Item = (&Path, RecursiveMode)> {
        self.paths.iter().map(|path| match path.is_dir() {
            true => (path.as_path(), RecursiveMode::Recursive),
            false => {
                let folder = path.parent().filter(|parent| *parent != Path::new(""));
                (folder.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)
            }
        })
    }

    fn places(&self) -> Vec<Option<Place>> {
        let place = |path: &Path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        self.folders().map(|(folder, _)| place(folder)).collect()
    }

    /// Waits for the next change, and until changes have been quiet for a moment.
    pub async fn next(&mut self) {
        let start = Instant::now();
        while tokio::time::timeout(LOOK, self.changed.notified()).await.is_err() {
            if self.places() != self.watched {
                self.watch();
                break;
            }
            if start.elapsed() >= self.period {
                return;
            }
        }
        let quiet = async { while tokio::time::timeout(QUIET, self.changed.notified()).await.is_ok() {} };
        // At the end of the time the files are read anyway; a further change wakes up again.
        let _ = tokio::time::timeout(AT_MOST, quiet).await;
    }
}

/// The text of a regular file of at most `limit` bytes; the error says what is wrong with it.
pub fn read_text(path: &Path, limit: u64) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    // Reading from a pipe or a device may never end.
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if metadata.len() > limit {
        return Err(format!("{} bytes are too many, expected at most {limit}", metadata.len()));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}
