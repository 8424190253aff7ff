//! One build of one artifact that the cache holds, or is getting.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use tokio::sync::watch;

use crate::boot::artifact::ArtifactKind;
use crate::server::upstream::UpstreamError;
use crate::server::validator::Validator;

use super::space::{Room, Space};
use super::store::{self, Facts, Found, Key, Store, seconds, time};

/// How far the bytes are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// So many from the beginning, and more are on their way.
    Filling(u64),
    /// All of them by their number; their digest was not compared in this process's life.
    Unverified,
    /// All of them.
    Complete,
    /// There will be no more.
    Failed(Failure),
}

/// Why there will be no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The disk: upstream has the rest.
    Disk(String),
    /// Upstream.
    Upstream(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disk(why) => write!(f, "the disk failed: {why}"),
            Self::Upstream(why) => write!(f, "upstream failed: {why}"),
        }
    }
}

/// Which build an artifact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Tells it from others.
    pub validator: Validator,
    /// Bytes.
    pub length: u64,
    /// Type that upstream gives it.
    pub content_type: Option<HeaderValue>,
}

/// When upstream was seen to have this build, and how the last question went.
#[derive(Debug, Clone)]
struct Seen {
    first: SystemTime,
    confirmed: SystemTime,
    used: SystemTime,
    /// When upstream was last asked, whatever came of it.
    asked: Option<Instant>,
    /// Why that brought no answer.
    away: Option<UpstreamError>,
    /// Whether the facts on disk are older than these.
    is_news: bool,
}

/// One build of one artifact. Its file goes with the last user of it, unless it is kept.
#[derive(Debug)]
pub struct Held {
    /// What it is known by.
    pub key: Key,
    /// Which build.
    pub build: Build,
    /// Kernel or rootfs.
    pub kind: ArtifactKind,
    /// When the fill began, or the file was found.
    pub since: Instant,
    /// Requests that it answered.
    pub hits: AtomicU64,
    /// The trace of its fill, which serves many boots: linked with theirs. A span ends when nobody has it any more.
    fill: Mutex<tracing::Span>,
    facts: Mutex<Facts>,
    file: Arc<File>,
    stem: PathBuf,
    progress: watch::Sender<Progress>,
    seen: Mutex<Seen>,
    is_kept: AtomicBool,
    /// Given up: its file goes with its last user, whatever becomes of it until then.
    is_condemned: AtomicBool,
    room: Room,
}

/// The present time, and never one before what was seen earlier: what happened in turn stays in turn when somebody puts the clock back.
fn now_after(seen: SystemTime) -> SystemTime {
    static LATEST: Mutex<Option<(SystemTime, Instant)>> = Mutex::new(None);
    let mut latest = lock(&LATEST);
    let running = latest.and_then(|(time, at)| time.checked_add(at.elapsed()));
    let now = SystemTime::now().max(seen).max(running.unwrap_or(seen));
    *latest = Some((now, Instant::now()));
    now
}

fn now() -> SystemTime {
    now_after(UNIX_EPOCH)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// A fill that begins now, of a build that upstream was just seen to have.
    pub fn filling(key: Key, kind: ArtifactKind, build: Build, facts: Facts, file: (File, PathBuf), room: Room) -> Arc<Self> {
        let now = now();
        let seen = Seen {
            first: now,
            confirmed: now,
            used: now,
            asked: Some(Instant::now()),
            away: None,
            is_news: false,
        };
        let fill = tracing::info_span!(
            parent: None,
            "fill",
            otel.name = %format!("fill cache with {kind}"),
            otel.status_code = tracing::field::Empty,
            ipxe_bridge.artifact = kind.as_str(),
            ipxe_bridge.bytes = build.length,
            ipxe_bridge.source = facts.source,
            ipxe_bridge.outcome = tracing::field::Empty,
        );
        Self::new(key, (kind, build), facts, file, (Progress::Filling(0), fill), seen, room)
    }

    /// What an earlier process left.
    ///
    /// # Errors
    ///
    /// If its file cannot be opened, or its facts make no sense.
    pub fn found(found: Found, space: &Space) -> io::Result<Arc<Self>> {
        let nonsense = || io::Error::other("its facts make no sense");
        let kind: ArtifactKind = found.facts.kind.parse().map_err(|_| nonsense())?;
        let build = Build {
            validator: found.facts.validator().ok_or_else(nonsense)?,
            length: found.facts.length,
            content_type: found
                .facts
                .content_type
                .as_deref()
                .and_then(|text| HeaderValue::from_str(text).ok()),
        };
        let file = File::open(found.stem.with_added_extension("data"))?;
        let seen = Seen {
            first: time(found.facts.first_seen),
            confirmed: time(found.facts.confirmed),
            used: time(found.facts.used),
            asked: None,
            away: None,
            is_news: false,
        };
        // Written by a clock that was ahead.
        now_after(seen.first.max(seen.confirmed).max(seen.used));
        let file = (file, found.stem);
        let room = space.take(build.length);
        let held = Self::new(
            found.key,
            (kind, build),
            found.facts,
            file,
            (Progress::Unverified, tracing::Span::none()),
            seen,
            room,
        );
        held.is_kept.store(true, Ordering::Relaxed);
        Ok(held)
    }

    fn new(
        key: Key,
        (kind, build): (ArtifactKind, Build),
        facts: Facts,
        (file, stem): (File, PathBuf),
        (progress, fill): (Progress, tracing::Span),
        seen: Seen,
        room: Room,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            build,
            kind,
            since: Instant::now(),
            hits: AtomicU64::new(0),
            fill: Mutex::new(fill),
            facts: Mutex::new(facts),
            file: Arc::new(file),
            stem,
            progress: watch::Sender::new(progress),
            seen: Mutex::new(seen),
            is_kept: AtomicBool::new(false),
            is_condemned: AtomicBool::new(false),
            room,
        })
    }

    /// Tells of further bytes, and of the end.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Bytes from the beginning that can be read now.
    pub fn available(&self) -> u64 {
        match &*self.progress.borrow() {
            Progress::Filling(bytes) => *bytes,
            Progress::Complete => self.build.length,
            Progress::Unverified | Progress::Failed(_) => 0,
        }
    }

    /// Tells everybody who waits.
    pub fn advance(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// The bytes.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The span of its fill, until that is over.
    pub fn fill(&self) -> tracing::Span {
        lock(&self.fill).clone()
    }

    /// Its fill is over.
    pub fn filled(&self) {
        *lock(&self.fill) = tracing::Span::none();
    }

    /// What is known of it, as of now.
    pub fn facts(&self) -> Facts {
        let seen = lock(&self.seen).clone();
        let mut facts = lock(&self.facts).clone();
        facts.first_seen = seconds(seen.first);
        facts.confirmed = seconds(seen.confirmed);
        facts.used = seconds(seen.used);
        facts
    }

    /// The other one of kernel and rootfs.
    pub fn partner(&self) -> Option<Key> {
        lock(&self.facts).partner.clone()
    }

    /// Makes a fill that has all its bytes outlive the process. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says. The bytes can be read all the same, as long as the process lives.
    pub fn commit(&self, store: &Store, sha256: String) -> io::Result<()> {
        lock(&self.facts).sha256 = sha256;
        store.commit(&self.file, &self.stem, &self.facts())?;
        self.is_kept.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the facts down if they changed. Blocks.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn note(&self, store: &Store) -> io::Result<()> {
        let is_news = std::mem::take(&mut lock(&self.seen).is_news);
        match is_news && self.will_stay() {
            true => store
                .note(&self.stem, &self.facts())
                .inspect_err(|_| lock(&self.seen).is_news = true),
            false => Ok(()),
        }
    }

    /// Compares the digest of what an earlier process left. Blocks, about a second per GB. Whether the bytes are right.
    pub fn verify(&self) -> bool {
        let expected = lock(&self.facts).sha256.clone();
        let is_right = store::digest(&self.file, self.build.length).is_ok_and(|found| found == expected);
        self.advance(match is_right {
            true => Progress::Complete,
            false => Progress::Failed(Failure::Disk("its bytes are not those that were written".to_owned())),
        });
        is_right
    }

    /// Whether its file stays when its last user is gone. A fill may be condemned before it is complete.
    fn will_stay(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed) && !self.is_condemned.load(Ordering::Relaxed)
    }

    /// Its file goes when the last machine has read it.
    pub fn condemn(&self) {
        self.is_condemned.store(true, Ordering::Relaxed);
    }

    /// Its bytes count no longer: what nobody reads is about to be erased.
    pub fn give_room_back(&self) {
        self.room.give_back();
    }

    /// Takes file and bytes off the disk now, for an artifact that nobody reads. Blocks.
    pub fn erase(&self) {
        self.condemn();
        // Gives the room back although the file is still open.
        if let Ok(file) = File::options().write(true).open(self.stem.with_added_extension("data")) {
            let _ = file.set_len(0);
        }
        store::remove(&self.stem);
    }

    /// A machine asked for it.
    pub fn used(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        let mut seen = lock(&self.seen);
        seen.used = now();
        seen.is_news = true;
    }

    /// When a machine last asked for it.
    pub fn last_used(&self) -> SystemTime {
        lock(&self.seen).used
    }

    /// Upstream has this build now.
    pub fn confirm(&self) {
        let mut seen = lock(&self.seen);
        seen.confirmed = now();
        seen.asked = Some(Instant::now());
        seen.away = None;
        seen.is_news = true;
    }

    /// Upstream could not be asked.
    pub fn unconfirmed(&self, why: UpstreamError) {
        let mut seen = lock(&self.seen);
        seen.asked = Some(Instant::now());
        seen.away = Some(why);
    }

    /// How asking upstream went, if that was not longer ago.
    pub fn asked_within(&self, period: Duration) -> Option<Result<(), UpstreamError>> {
        let seen = lock(&self.seen);
        seen.asked.filter(|asked| asked.elapsed() < period)?;
        Some(match &seen.away {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        })
    }

    /// Whether upstream was seen to have this build when, or after, it was first seen to have that build of the other artifact. If not,
    /// this one may be of the build before.
    pub fn is_as_new_as(&self, partner: &Self) -> bool {
        let confirmed = lock(&self.seen).confirmed;
        confirmed >= lock(&partner.seen).first
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.will_stay() {
            return;
        }
        let (stem, file) = (std::mem::take(&mut self.stem), self.file.clone());
        // To give back a gigabyte takes a file system a while.
        let remove = move || {
            store::remove(&stem);
            drop(file);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}
