//! Leader election on a Lease: one of several operators works, the others stand by.
//!
//! Clocks of machines are never compared. A candidate takes a lease over when it has itself watched it stay unchanged for the time that it
//! says (as client-go's `leaderelection` does); the leader counts its own time from the moment *before* it asked for the renewal that
//! succeeded, and stops a third early. So its work has ended before any other can begin.
//!
//! What a frozen process does when it wakes up is not up to its timers: every write goes through a [`Fence`], which looks at the clock
//! right before the request is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How often a candidate looks; with the spread it takes a lease that was given back within 1.5 seconds.
const LOOK: Duration = Duration::from_secs(1);
/// How long after a failure a renewal is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Until when this process may write.
#[derive(Debug, Clone)]
pub struct Fence {
    start: Instant,
    /// Milliseconds after the start; 0 while it may not.
    until: Arc<AtomicU64>,
}

impl Default for Fence {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            until: Arc::default(),
        }
    }
}

impl Fence {
    /// Whether this process may write now.
    pub fn is_open(&self) -> bool {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        passed < self.until.load(Ordering::SeqCst)
    }

    fn open_until(&self, until: Instant) {
        let after = until.saturating_duration_since(self.start).as_millis();
        self.until.store(u64::try_from(after).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn close(&self) {
        self.until.store(0, Ordering::SeqCst);
    }
}

/// One of several who want to work.
#[derive(Clone)]
pub struct Candidate {
    /// The leases of one namespace.
    pub api: Api<Lease>,
    /// The lease's name.
    pub name: String,
    /// What nobody else is called.
    pub identity: String,
    /// How long a lease is held without a renewal; whole seconds.
    pub duration: Duration,
    /// What the work's writes go through.
    pub fence: Fence,
}

/// What a candidate makes of a lease it sees.
#[derive(Debug, PartialEq)]
enum Step {
    /// It is somebody's.
    Wait,
    /// It is free, or was not renewed in time: this is what to write.
    Take(Box<Lease>),
}

/// What a candidate remembers of a lease that somebody holds.
#[derive(Debug, Default)]
struct Watched {
    /// Its resource version, and when it was first seen.
    last: Option<(String, Instant)>,
}

impl Watched {
    /// Pure: what to do about a lease that is seen now.
    fn step(&mut self, live: &Lease, identity: &str, duration: Duration, seen: Instant, now: Timestamp) -> Step {
        let spec = live.spec.clone().unwrap_or_default();
        let version = live.metadata.resource_version.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let held_for = Duration::from_secs(
            spec.lease_duration_seconds
                .and_then(|s| u64::try_from(s).ok())
                .unwrap_or_default(),
        );
        let first_seen = match &self.last {
            Some((last, first_seen)) if *last == version => *first_seen,
            _ => {
                self.last = Some((version, seen));
                seen
            }
        };
        let is_over = seen.saturating_duration_since(first_seen) >= held_for;
        // Its own name, too, is somebody else: a process that was started anew under it may have a sister that still works.
        if !holder.is_empty() && !is_over {
            return Step::Wait;
        }
        let mut taken = live.clone();
        taken.spec = Some(LeaseSpec {
            acquire_time: Some(MicroTime(now)),
            lease_transitions: Some(spec.lease_transitions.unwrap_or_default().saturating_add(1)),
            ..held(identity, duration, now)
        });
        Step::Take(Box::new(taken))
    }
}

fn held(identity: &str, duration: Duration, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    }
}

impl Candidate {
    /// Stands by until it leads, works while it leads, and so on until the token is cancelled; then gives the lease back. `work` gets a
    /// token that is cancelled at the end, and has to return then; when the lease is lost it is dropped.
    pub async fn run(
        &self,
        end: CancellationToken,
        mut work: impl AsyncFnMut(CancellationToken) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while let Some(mut lease) = end.run_until_cancelled(self.acquire()).await {
            tracing::info!(identity = self.identity, "leading");
            let result = tokio::select! {
                // First, so that work is not gone on with that has no time left.
                biased;
                () = self.keep(&mut lease) => None,
                result = work(end.child_token()) => Some(result),
            };
            self.fence.close();
            match result {
                None => tracing::warn!(identity = self.identity, "the lease was lost, another may lead: standing by"),
                Some(result) => {
                    self.give_back(&lease).await;
                    result?;
                }
            }
        }
        Ok(())
    }

    /// How long a renewal counts: others wait a third longer.
    fn validity(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// Waits until the lease is this candidate's.
    async fn acquire(&self) -> Lease {
        let mut watched = Watched::default();
        let mut failing = false;
        loop {
            let asked = Instant::now();
            let taken = timeout(self.duration / 3, self.try_acquire(&mut watched)).await;
            let failure = match taken {
                Ok(Ok(Some(lease))) => {
                    self.fence.open_until(asked + self.validity());
                    if self.fence.is_open() {
                        return lease;
                    }
                    None
                }
                Ok(Ok(None)) => None,
                Ok(Err(error)) => Some(describe(&error)),
                Err(_) => Some("the API server does not answer".to_owned()),
            };
            match failure {
                Some(why) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(lease = self.name, "the lease cannot be asked for: {why}");
                }
                Some(_) => {}
                None => failing = false,
            }
            // Candidates that were started together do not ask together.
            let spread = Duration::from_millis(u64::from(asked.elapsed().subsec_nanos() % 500));
            sleep(LOOK + spread).await;
        }
    }

    async fn try_acquire(&self, watched: &mut Watched) -> kube::Result<Option<Lease>> {
        let now = Timestamp::now();
        let written = match self.api.get_opt(&self.name).await? {
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(LeaseSpec {
                        acquire_time: Some(MicroTime(now)),
                        lease_transitions: Some(0),
                        ..held(&self.identity, self.duration, now)
                    }),
                };
                self.api.create(&PostParams::default(), &lease).await
            }
            Some(live) => match watched.step(&live, &self.identity, self.duration, Instant::now(), now) {
                Step::Wait => return Ok(None),
                // With the resource version that was read: of several, one succeeds.
                Step::Take(lease) => self.api.replace(&self.name, &PostParams::default(), &lease).await,
            },
        };
        match written {
            Ok(lease) => Ok(Some(lease)),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renews the lease for as long as that works. Returns when it is lost, before anybody else can have it.
    async fn keep(&self, lease: &mut Lease) {
        while self.fence.is_open() {
            sleep(self.duration / 3).await;
            while self.fence.is_open() {
                let asked = Instant::now();
                let now = Timestamp::now();
                let mut renewed = lease.clone();
                let mine = renewed.spec.take().unwrap_or_default();
                renewed.spec = Some(LeaseSpec {
                    renew_time: Some(MicroTime(now)),
                    ..mine
                });
                let parameters = PostParams::default();
                let renewal = self.api.replace(&self.name, &parameters, &renewed);
                match timeout(self.duration / 3, renewal).await {
                    Ok(Ok(live)) => {
                        *lease = live;
                        self.fence.open_until(asked + self.validity());
                        break;
                    }
                    // Changed by somebody, or by a renewal of this one whose answer was lost.
                    Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                        let live = timeout(self.duration / 3, self.api.get_opt(&self.name)).await;
                        match live {
                            Ok(Ok(Some(live))) if holder(&live) == self.identity => *lease = live,
                            Ok(Ok(_)) => return,
                            Ok(Err(_)) | Err(_) => {}
                        }
                        // Whatever the cause, not in a circle without a pause.
                        sleep(AGAIN).await;
                    }
                    Ok(Err(kube::Error::Api(status))) if status.code == 404 => return,
                    Ok(Err(_)) | Err(_) => sleep(AGAIN).await,
                }
            }
        }
    }

    /// Lets the next one begin at once. If it fails the lease runs out by itself.
    async fn give_back(&self, lease: &Lease) {
        let mut free = lease.clone();
        let spec = free.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let parameters = PostParams::default();
        let given = timeout(self.duration / 3, self.api.replace(&self.name, &parameters, &free)).await;
        if !matches!(given, Ok(Ok(_))) {
            tracing::warn!(lease = self.name, "the lease could not be given back: it runs out by itself");
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("the API server answered {}: {}", status.code, status.message),
        _ => "the API server cannot be reached".to_owned(),
    }
}

/// A client whose writes are refused while the fence is closed. Reads go through.
///
/// # Errors
///
/// If the configuration cannot be used.
pub fn fenced(config: kube::Config, fence: &Fence) -> kube::Result<Client> {
    let fence = fence.clone();
    let layer = tower::filter::FilterLayer::new(move |request: http::Request<kube::client::Body>| {
        match request.method().is_safe() || fence.is_open() {
            true => Ok(request),
            false => Err(tower::BoxError::from("another operator may lead: nothing is written")),
        }
    });
    Ok(kube::client::ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

/// What nobody else is called: the pod's name, and something that differs from start to start.
pub fn identity() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!(
        "{host}_{:016x}",
        RandomState::new().hash_one(Timestamp::now().as_nanosecond())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(version: &str, holder: &str, seconds: i32) -> Lease {
        Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(seconds),
                lease_transitions: Some(4),
                ..LeaseSpec::default()
            }),
        }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_was_seen_unchanged_for_its_time() {
        let start = Instant::now();
        let mut watched = Watched::default();
        for (second, version, holder, taken) in [
            (0, "1", "other", false),
            (14, "1", "other", false),
            // Renewed: from here on the time counts anew.
            (15, "2", "other", false),
            (29, "2", "other", false),
            (30, "2", "other", true),
            (31, "3", "", true),
            // Its own name is no right.
            (32, "4", "me", false),
        ] {
            let seen = start + SECOND * second;
            let step = watched.step(&lease(version, holder, 15), "me", SECOND * 15, seen, Timestamp::UNIX_EPOCH);
            assert_eq!(matches!(step, Step::Take(_)), taken, "{second} s");
            if let Step::Take(lease) = step {
                let spec = lease.spec.expect("a spec");
                assert_eq!(
                    (spec.holder_identity.as_deref(), spec.lease_transitions),
                    (Some("me"), Some(5))
                );
                assert_eq!(
                    lease.metadata.resource_version.as_deref(),
                    Some(version),
                    "of several takers one succeeds"
                );
            }
        }
    }

    #[test]
    fn a_fence_is_open_for_its_time_only() {
        let fence = Fence::default();
        assert!(!fence.is_open());
        fence.open_until(Instant::now() + SECOND * 60);
        assert!(fence.is_open());
        fence.open_until(Instant::now());
        assert!(!fence.is_open());
        fence.open_until(Instant::now() + SECOND * 60);
        fence.close();
        assert!(!fence.is_open());
    }
}
