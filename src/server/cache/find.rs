//! Finding out what there is of an artifact: the present build, another one that upstream has now, or nothing, and then a fill begins.
//!
//! One request at a time does so for an artifact, the others wait for what comes of it.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::boot::artifact::{ArtifactKind, UpstreamUrl};
use crate::boot::environment::ArtifactUrls;
use crate::server::metrics::CacheResult;
use crate::server::transfer::{self, Answer, Body, Content, Transfer, Wanted};
use crate::server::upstream::{Upstream, UpstreamError};

use super::fill::{self, Outcome};
use super::held::{Build, Failure, Held, Progress};
use super::index::NoRoom;
use super::space::Room;
use super::store::{Facts, Key, Store};
use super::{Cache, Trouble};

/// Longest wait for upstream to say so.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// An artifact that cannot be kept is not tried again before.
const KEEP_OUT: Duration = Duration::from_secs(10);
/// A failure of upstream is the answer of everyone who waited for it; then it is worth trying again.
const KEEP_FAILURE: Duration = Duration::from_secs(2);
/// Longest wait of a machine for the beginning of an answer.
const WAIT: Duration = Duration::from_secs(60);

/// Who comes first finds out, the others wait for what comes of it.
pub(super) type Slot = tokio::sync::Mutex<Tried>;

/// What came of the last try to fill.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// The artifact could not be kept.
    kept_out: Option<Instant>,
    /// Upstream gave nothing.
    failed: Option<(Instant, UpstreamError)>,
}

/// An artifact to be found.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    pub kind: ArtifactKind,
    pub key: Key,
    pub url: UpstreamUrl,
    /// Where the other one of kernel and rootfs is.
    pub partner: Option<UpstreamUrl>,
    /// What is not given up for it.
    pub to_stay: Arc<HashSet<Key>>,
}

impl Errand {
    pub fn new(kind: ArtifactKind, url: &UpstreamUrl, urls: &ArtifactUrls) -> Self {
        Self {
            kind,
            key: Key::of(url),
            url: url.clone(),
            partner: kind.partner().and_then(|kind| urls.get(kind)).cloned(),
            to_stay: Arc::default(),
        }
    }
}

/// What there is of an artifact.
pub(super) enum Found {
    /// A build to be served, and whether from before the request.
    Held(Arc<Held>, CacheResult),
    /// Nothing: upstream is to be asked.
    Nothing,
}

/// What upstream says of a build.
enum Word {
    Same,
    Other,
}

/// Why there is no file for a fill.
enum Full {
    Limit(NoRoom),
    Disk(io::Error),
}

impl Cache {
    /// The present build, if that is known without asking anybody.
    pub(super) fn present(&self, errand: &Errand) -> Option<Arc<Held>> {
        let held = self.index.get(&errand.key)?;
        let can_be_read = matches!(held.progress(), Progress::Filling(_) | Progress::Complete);
        let is_fresh = held.asked_within(self.fresh).is_some_and(|answer| answer.is_ok());
        (can_be_read && is_fresh && self.fits_partner(&held, errand)).then_some(held)
    }

    /// Whether a build is not older than what is held of its partner.
    fn fits_partner(&self, held: &Held, errand: &Errand) -> bool {
        let partner = errand.partner.as_ref().and_then(|url| self.index.get(&Key::of(url)));
        partner.is_none_or(|partner| held.is_as_new_as(&partner))
    }

    /// Finds out what there is of an artifact, and begins to fill where there is nothing. What was begun goes on if the client leaves.
    pub(super) async fn find(self: &Arc<Self>, errand: Errand) -> Result<Found, UpstreamError> {
        let cache = self.clone();
        let finding = tokio::spawn(async move {
            let slot = cache.slot(&errand.key);
            let mut tried = slot.lock().await;
            if let Some((_, error)) = tried.failed.as_ref().filter(|(at, _)| at.elapsed() < KEEP_FAILURE) {
                return Err(error.clone());
            }
            let found = cache.look(&errand, &mut tried).await;
            tried.failed = found.as_ref().err().map(|error| (Instant::now(), error.clone()));
            found
        });
        match tokio::time::timeout(WAIT, finding).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::error!(%error, "the cache failed, the file is passed through");
                Ok(Found::Nothing)
            }
            Err(_) => Err(UpstreamError::Busy),
        }
    }

    async fn look(self: &Arc<Self>, errand: &Errand, tried: &mut Tried) -> Result<Found, UpstreamError> {
        // Another request may have found out meanwhile.
        if let Some(held) = self.present(errand) {
            return Ok(Found::Held(held, CacheResult::Hit));
        }
        if let Some(held) = self.index.get(&errand.key) {
            self.verify(&held).await;
            if matches!(held.progress(), Progress::Failed(_)) {
                self.index.remove(&held);
            } else if let Some(result) = self.confirm(&held, errand).await? {
                return Ok(Found::Held(held, result));
            } else {
                self.replaced(&held);
            }
        }
        if tried.kept_out.is_some_and(|since| since.elapsed() < KEEP_OUT) {
            return Ok(Found::Nothing);
        }
        let Some(store) = self.store.load_full() else {
            return Ok(Found::Nothing);
        };
        let begun = self.begin(errand, store).await?;
        tried.kept_out = begun.is_none().then(Instant::now);
        Ok(begun.map_or(Found::Nothing, |held| Found::Held(held, CacheResult::Fill)))
    }

    fn replaced(&self, held: &Arc<Held>) {
        let source = held.facts().source;
        tracing::info!(artifact = %held.kind, source, "upstream has another build, the one in the cache goes");
        self.index.remove(held);
    }

    /// Asks upstream whether it still has a build; `None` if it has another. A build that cannot be confirmed may be served for now,
    /// unless a newer one of its pair is known.
    async fn confirm(&self, held: &Held, errand: &Errand) -> Result<Option<CacheResult>, UpstreamError> {
        let answer = match held.asked_within(self.fresh) {
            // Not every machine is to wait for a service that was away a moment ago.
            Some(Err(away)) => Err(away),
            _ => ask(&self.upstream, errand.kind, &errand.url, &held.build).await,
        };
        match answer {
            Ok(Word::Same) => {
                held.confirm();
                Ok(Some(CacheResult::Hit))
            }
            Ok(Word::Other) => Ok(None),
            // It is there and refuses: what it no longer gives away is not given away here.
            Err(error) if is_refusal(&error) => Err(error),
            Err(error) if self.fits_partner(held, errand) => {
                let (artifact, source) = (errand.kind, errand.url.label());
                tracing::warn!(%artifact, source, %error, "served from the cache, although upstream cannot be asked whether it is current");
                held.unconfirmed(error);
                Ok(Some(CacheResult::Stale))
            }
            Err(error) => Err(error),
        }
    }

    /// Begins a fill; `None` for what cannot be kept.
    async fn begin(self: &Arc<Self>, errand: &Errand, store: Arc<Store>) -> Result<Option<Arc<Held>>, UpstreamError> {
        let (kind, url) = (errand.kind, &errand.url);
        let Answer::Content(content) = transfer::open(&self.upstream, kind, url, &Wanted::default()).await? else {
            return Err(UpstreamError::Contradiction("no content to a request without a condition"));
        };
        let Content {
            length: Some(length @ 1..),
            validator: Some(validator),
            content_type,
            body: Body::Upstream(transfer),
            ..
        } = *content
        else {
            tracing::info!(artifact = %kind, source = url.label(), "passed through: upstream states no length, or none above 0, or neither date nor strong tag");
            return Ok(None);
        };
        let mut facts = Facts::new(kind, url.label(), &validator, length);
        facts.partner = errand.partner.as_ref().map(Key::of);
        facts.content_type = content_type.as_ref().and_then(|value| value.to_str().ok()).map(str::to_owned);
        let file = {
            let (cache, errand, store) = (self.clone(), errand.clone(), store.clone());
            tokio::task::spawn_blocking(move || cache.room(&errand, length, &store))
        };
        let (file, room) = match file.await.unwrap_or_else(|error| Err(Full::Disk(io::Error::other(error)))) {
            Ok(made) => made,
            Err(Full::Limit(why)) => {
                tracing::warn!(artifact = %kind, source = url.label(), "passed through: {why}");
                self.metrics.cache_fill("no_room");
                return Ok(None);
            }
            Err(Full::Disk(error)) => {
                self.disk_failed(&format!("no file of {length} bytes can be made: {error}"), length);
                return Ok(None);
            }
        };
        let build = Build {
            validator,
            length,
            content_type,
        };
        let held = Held::filling(errand.key.clone(), kind, build, facts, file, room);
        self.index.insert(held.clone());
        tracing::info!(artifact = %kind, source = url.label(), bytes = length, "fetched into the cache");
        let (cache, filled) = (self.clone(), held.clone());
        tokio::spawn(async move { cache.fill(filled, transfer.for_many(), store).await });
        if let Some((url, kind)) = errand.partner.clone().zip(kind.partner()) {
            let cache = self.clone();
            tokio::spawn(async move { cache.settle(kind, &url).await });
        }
        Ok(Some(held))
    }

    /// A file for a fill, with as much given up for it as necessary. Blocks.
    fn room(&self, errand: &Errand, length: u64, store: &Store) -> Result<((File, PathBuf), Room), Full> {
        let to_stay = &errand.to_stay;
        let (mut victims, room) = self.index.make_room(length, to_stay).map_err(Full::Limit)?;
        loop {
            for victim in victims {
                tracing::info!(artifact = %victim.kind, source = victim.facts().source, bytes = victim.build.length, "given up for others");
                self.metrics.cache_eviction();
                victim.erase();
            }
            match store.begin(&errand.key, length) {
                Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    // Others use the disk too.
                    victims = self.index.give_up_one(to_stay);
                    if victims.is_empty() {
                        return Err(Full::Disk(error));
                    }
                }
                begun => return begun.map(|file| (file, room)).map_err(Full::Disk),
            }
        }
    }

    async fn fill(&self, held: Arc<Held>, transfer: Transfer, store: Arc<Store>) {
        let source = held.facts().source;
        match fill::run(held.clone(), transfer, store).await {
            Outcome::Complete => {
                self.metrics.cache_fill("complete");
                self.set_trouble(None);
                let (artifact, bytes, seconds) = (held.kind, held.build.length, held.since.elapsed().as_secs_f64());
                tracing::info!(%artifact, source, bytes, seconds, "complete in the cache");
            }
            Outcome::NotKept(why) => self.disk_failed(&format!("a file cannot be kept: {why}"), held.build.length),
            Outcome::Failed(Failure::Disk(why)) => {
                self.index.remove(&held);
                self.disk_failed(&format!("a file cannot be written: {why}"), held.build.length);
            }
            Outcome::Failed(Failure::Upstream(why)) => {
                self.index.remove(&held);
                self.metrics.cache_fill("upstream");
                tracing::warn!(artifact = %held.kind, source, why, "a fill of the cache broke off");
            }
        }
    }

    fn disk_failed(&self, why: &str, length: u64) {
        self.metrics.cache_fill("disk");
        self.set_trouble(Some(Trouble {
            why: format!("{}: {why}", self.folder.display()),
            length,
        }));
    }

    /// Asks whether the other one of a pair is still current once a new build of the one was seen: they are kept and dropped together.
    async fn settle(&self, kind: ArtifactKind, url: &UpstreamUrl) {
        let slot = self.slot(&Key::of(url));
        let _turn = slot.lock().await;
        let Some(held) = self.index.get(&Key::of(url)) else { return };
        match ask(&self.upstream, kind, url, &held.build).await {
            Ok(Word::Same) => held.confirm(),
            Ok(Word::Other) => self.replaced(&held),
            // The next request finds out.
            Err(_) => {}
        }
    }
}

/// Whether upstream will not give it away, rather than not now (408 Request Timeout, 425 Too Early, 429 Too Many Requests).
fn is_refusal(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::Status(status @ 400..=499) if !matches!(status, 408 | 425 | 429))
}

/// Asks upstream for the headers of an artifact and compares them with a build.
async fn ask(upstream: &Arc<Upstream>, kind: ArtifactKind, url: &UpstreamUrl, build: &Build) -> Result<Word, UpstreamError> {
    let head = Wanted {
        head: true,
        ..Wanted::default()
    };
    let answer = tokio::time::timeout(ASK_TIMEOUT, transfer::open(upstream, kind, url, &head)).await;
    match answer.unwrap_or_else(|_| Err(UpstreamError::Unreachable("no answer in time".to_owned())))? {
        // An answer without a body may leave the length out; then the date alone tells.
        Answer::Content(content) if content.validator.as_ref().is_some_and(|now| now.names(&build.validator)) => Ok(Word::Same),
        _ => Ok(Word::Other),
    }
}
