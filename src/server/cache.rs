//! The artifact cache: kernel and rootfs are fetched once, however many machines ask, and sent from the disk.
//!
//! Invariants: an answer is of one build; a build that upstream may have replaced is served only while upstream cannot be asked, says
//! so, and never beside a newer one of its pair; whatever is wrong with the disk, machines get their bytes from upstream.

pub mod buffers;
mod choose;
pub mod fill;
mod find;
pub mod held;
pub mod index;
pub mod prefetch;
pub mod reader;
pub mod space;
pub mod store;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rustix::process::Signal;
use tokio::signal::unix::SignalKind;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::boot::artifact::{ArtifactKind, UpstreamUrl};
use crate::boot::environment::ArtifactUrls;

use super::metrics::{CacheResult, Metrics};
use super::trace;
use super::transfer::{self, Answer, Body, Content, Wanted};
use super::upstream::{Upstream, UpstreamError};

use choose::{Chosen, choose, will_reach};
use find::{Errand, Found, Slot};
use held::{Held, Progress};
use index::Index;
use reader::Reader;
use store::{Key, Store};

/// For so long, at the longest, a build counts as the present one after upstream said so. Kernel, initrd and rootfs of a machine have to
/// be of one build, and the initrd is always upstream's present one.
pub const FRESH: Duration = Duration::from_secs(5);
/// A folder that cannot be used is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// How often facts that changed are written down.
const NOTE_PERIOD: Duration = Duration::from_secs(30);

/// Where the cache is, and how much it may hold.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its folder.
    pub folder: PathBuf,
    /// Bytes.
    pub size: u64,
    /// For so long a build counts as the present one after upstream said so.
    pub fresh: Duration,
}

/// What is wrong with the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    why: String,
    /// Bytes of the file that could not be made or kept.
    length: u64,
}

/// The artifact cache.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    fresh: Duration,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
    /// Absent while the folder cannot be used.
    store: ArcSwapOption<Store>,
    trouble: Mutex<Option<Trouble>>,
    index: Index,
    /// One at a time finds out what there is of an artifact.
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

impl Cache {
    /// Opens the folder. One that cannot be used is no error: it is tried again, and until then everything is passed through.
    pub async fn open(settings: Settings, upstream: Arc<Upstream>, metrics: Arc<Metrics>) -> Arc<Self> {
        // A limit of file sizes (`ulimit -f`) is to be an error of the write. Without a handler its signal ends the process.
        let _ = tokio::signal::unix::signal(SignalKind::from_raw(Signal::XFSZ.as_raw()));
        let cache = Arc::new(Self {
            folder: settings.folder,
            fresh: settings.fresh,
            upstream,
            metrics,
            store: ArcSwapOption::empty(),
            trouble: Mutex::default(),
            index: Index::new(settings.size),
            slots: Mutex::default(),
        });
        cache.try_to_open().await;
        cache
    }

    async fn try_to_open(self: &Arc<Self>) {
        let cache = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let store = Store::open(&cache.folder)?;
            let found = store
                .recover()
                .map_err(|error| format!("{}: it cannot be read: {error}", cache.folder.display()))?;
            for found in found {
                let (key, stem) = (found.key.clone(), found.stem.clone());
                match Held::found(found, cache.index.space()) {
                    // Of two builds of one artifact the one used later comes first.
                    Ok(held) if cache.index.get(&key).is_none() => cache.index.insert(held),
                    Ok(held) => held.condemn(),
                    Err(error) => tracing::warn!(file = %stem.display(), %error, "an artifact in the cache cannot be used"),
                }
            }
            // The limit may be a smaller one than that of the process before.
            if let Ok((victims, _)) = cache.index.make_room(0, &HashSet::new()) {
                victims.iter().for_each(|victim| victim.erase());
            }
            Ok::<_, String>(store)
        })
        .await;
        match opened.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(store) => {
                tracing::info!(folder = %self.folder.display(), artifacts = self.index.all().len(), bytes = self.index.space().used(), "the cache is used");
                self.store.store(Some(Arc::new(store)));
                self.set_trouble(None);
            }
            Err(why) => self.set_trouble(Some(Trouble { why, length: 0 })),
        }
    }

    /// What goes on beside the answers: compares digests of what was found, writes facts down, tries again with a folder that could
    /// not be used.
    pub async fn follow(self: Arc<Self>) {
        let mut noted = Instant::now();
        let mut is_verified = false;
        loop {
            if self.store.load().is_none() {
                self.try_to_open().await;
            } else if !is_verified {
                self.verify_all().await;
                is_verified = true;
            }
            self.look_again().await;
            tokio::time::sleep(RETRY).await;
            if noted.elapsed() >= NOTE_PERIOD {
                self.note_all().await;
                noted = Instant::now();
            }
        }
    }

    /// Whether the folder takes again what it did not take; no machine may ever ask for that again.
    async fn look_again(&self) {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(Trouble { length, .. }), Some(store)) = (trouble, self.store.load_full()) else {
            return;
        };
        if let Ok(Ok(())) = tokio::task::spawn_blocking(move || store.try_out(length)).await {
            self.set_trouble(None);
        }
    }

    /// Writes down what changed.
    pub async fn note_all(self: &Arc<Self>) {
        let Some(store) = self.store.load_full() else { return };
        let all = self.index.all();
        let noted = tokio::task::spawn_blocking(move || all.iter().try_for_each(|held| held.note(&store))).await;
        if let Ok(Err(error)) = noted {
            let why = format!("{}: it cannot be written: {error}", self.folder.display());
            self.set_trouble(Some(Trouble { why, length: 0 }));
        }
    }

    async fn verify_all(&self) {
        let mut all = self.index.all();
        all.sort_by_key(|held| std::cmp::Reverse(held.last_used()));
        for held in all {
            let slot = self.slot(&held.key);
            let _turn = slot.lock().await;
            self.verify(&held).await;
        }
    }

    /// Compares the digest of what an earlier process left; what is damaged is forgotten.
    async fn verify(&self, held: &Arc<Held>) {
        if held.progress() != Progress::Unverified {
            return;
        }
        let target = held.clone();
        let is_right = tokio::task::spawn_blocking(move || target.verify()).await.unwrap_or(false);
        if !is_right {
            tracing::warn!(artifact = %held.kind, source = held.facts().source, "an artifact in the cache is damaged and is fetched again");
            self.metrics.cache_damage();
            self.index.remove(held);
        }
    }

    fn set_trouble(&self, trouble: Option<Trouble>) {
        let mut current = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != trouble {
            match &trouble {
                Some(Trouble { why, .. }) => {
                    tracing::error!(why, "the cache cannot be used, files are passed through from upstream")
                }
                None => tracing::info!("the cache works"),
            }
            *current = trouble;
        }
    }

    /// Why the cache cannot do its work at the moment.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().map(|trouble| trouble.why.clone())
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes it holds, and may hold.
    pub fn bytes(&self) -> (u64, u64) {
        (self.index.space().used(), self.index.limit())
    }

    /// Everything that is held or on its way.
    pub fn held(&self) -> Vec<Arc<Held>> {
        self.index.all()
    }

    fn slot(&self, key: &Key) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() > 4096 {
            // Addresses of environments that are long gone.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry(key.clone()).or_default().clone()
    }

    /// An artifact of an environment, from the cache if it can be.
    ///
    /// # Errors
    ///
    /// What upstream says, where the cache has nothing that may be served.
    pub async fn get(
        self: &Arc<Self>,
        kind: ArtifactKind,
        url: &UpstreamUrl,
        urls: &ArtifactUrls,
        wanted: &Wanted,
    ) -> Result<(Answer, CacheResult), UpstreamError> {
        let pass = async || Ok((transfer::open(&self.upstream, kind, url, wanted).await?, CacheResult::Pass));
        let errand = Errand::new(kind, url, urls);
        let found = match self.present(&errand) {
            Some(held) => Found::Held(held, CacheResult::Hit),
            // Headers alone are no reason to fetch a gigabyte.
            None if wanted.head && self.index.get(&errand.key).is_none() => Found::Nothing,
            None => self.find(errand).await?,
        };
        let Found::Held(held, result) = found else {
            return pass().await;
        };
        let (start, end, part) = match choose(wanted, &held.build) {
            Chosen::NotModified => return Ok((Answer::NotModified(Some(held.build.validator.clone())), result)),
            Chosen::Unsatisfiable => return Ok((Answer::RangeNotSatisfiable(Some(held.build.length)), result)),
            Chosen::Whole => (0, held.build.length, None),
            Chosen::Part(part) => (part.first, part.last + 1, Some(part)),
        };
        if !wanted.head {
            if !will_reach(&held, start).await {
                return pass().await;
            }
            held.used();
        }
        let is_whole = held.progress() == Progress::Complete;
        if !is_whole && let Some(request) = trace::context(&tracing::Span::current()) {
            held.fill().add_link(request);
        }
        let content = Content {
            part,
            length: Some(end - start),
            validator: Some(held.build.validator.clone()),
            content_type: held.build.content_type.clone(),
            body: Body::Held(Reader::new(held, (start, end), self.upstream.clone(), url.clone())),
        };
        let result = if result == CacheResult::Hit && !is_whole {
            CacheResult::Fill
        } else {
            result
        };
        Ok((Answer::Content(Box::new(content)), result))
    }
}
