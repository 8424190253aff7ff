//! Following files: a wake-up whenever something below a path may have changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Changes are left alone until they have been quiet for this long, so that a file is not read while it is being written.
const QUIET: Duration = Duration::from_millis(120);
/// But no longer than this after the first.
const AT_MOST: Duration = Duration::from_millis(700);

/// Wakes up when files change. Network file systems and linked folders do not report changes, so it also wakes up by itself.
#[derive(Debug)]
pub struct Changes {
    changed: Arc<Notify>,
    period: Duration,
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Changes {
    /// Follows everything below the paths. Of a file the folder around it is followed, since files are replaced by renaming.
    pub fn below(paths: &[PathBuf], period: Duration) -> Self {
        let changed = Arc::new(Notify::new());
        let wake = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file must not count as changing it, or every look would cause the next.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                wake.notify_one();
            }
        })
        .and_then(|mut watcher| {
            for path in paths {
                let folder = match path.is_dir() {
                    true => path,
                    false => path
                        .parent()
                        .filter(|parent| *parent != Path::new(""))
                        .unwrap_or(Path::new(".")),
                };
                watcher.watch(
                    folder,
                    if path.is_dir() {
                        RecursiveMode::Recursive
                    } else {
                        RecursiveMode::NonRecursive
                    },
                )?;
            }
            Ok(watcher)
        })
        .inspect_err(|error| {
            tracing::warn!(%error, "changes of files are not reported here, they are looked at every {period:?} instead");
        });
        Self {
            changed,
            period,
            _watcher: watcher.ok(),
        }
    }

    /// Waits for the next change, and until changes have been quiet for a moment.
    pub async fn next(&mut self) {
        if tokio::time::timeout(self.period, self.changed.notified()).await.is_err() {
            return;
        }
        let quiet = async { while tokio::time::timeout(QUIET, self.changed.notified()).await.is_ok() {} };
        // At the end of the time the files are read anyway; a further change wakes up again.
        let _ = tokio::time::timeout(AT_MOST, quiet).await;
    }
}
