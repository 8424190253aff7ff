//! A small copy of assisted-service and assisted-image-service in one server, for trying the bridge and for its tests.
//!
//! It answers as the real ones were seen to answer, bad habits included: `tests/suite/upstream.rs` compares it with recordings.
//! Beyond that it fails on request, see [`Fault`]. It never needs more memory than a piece per download.

#![allow(dead_code, unused_imports, reason = "the program and the tests each use a part of this")]

#[path = "address.rs"]
mod address;
#[path = "artifact.rs"]
mod artifact;
#[path = "content.rs"]
mod content;
#[path = "download.rs"]
mod download;
#[path = "environment.rs"]
mod environment;
#[path = "fault.rs"]
mod fault;
#[path = "initrd.rs"]
mod initrd;
#[path = "listener.rs"]
mod listener;
#[path = "pace.rs"]
mod pace;
#[path = "reply.rs"]
mod reply;
#[path = "request_log.rs"]
mod request_log;
#[path = "route.rs"]
mod route;
#[path = "sample.rs"]
pub mod sample;
#[path = "script.rs"]
mod script;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use address::Base;
use environment::{Directory, Existence};
use fault::Faults;
use listener::accept;
use pace::Pace;
use request_log::Requests;

pub use artifact::INTERNAL_URL;
pub use content::{Content, Words};
pub use environment::{EnvironmentSpec, HostSpec};
pub use fault::{Fault, Target};
pub use initrd::SECRET_MARKER;
pub use request_log::RequestLog;

/// What everything is dated until something changes: fixed, so that a restarted sample has not changed.
const FIRST_BUILD: Duration = Duration::from_secs(1_748_851_200);

const MIB: u64 = 1024 * 1024;

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The path before everything, such as `/api/image-services`; empty for none.
    pub prefix: String,
    /// Scheme, host and port that scripts name, if it is not the address listened on.
    pub origin: Option<String>,
    /// HTTPS with this configuration instead of plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The environments at the start.
    pub environments: Vec<EnvironmentSpec>,
    /// The kernel; random content differs per version and architecture.
    pub kernel: Content,
    /// The stock initrd.
    pub initrd: Content,
    /// The root file system.
    pub rootfs: Content,
    /// How many bytes a second all answers together get, as over a slow link; `None` for no limit.
    pub bytes_per_second: Option<u64>,
}

impl Default for Options {
    /// A free port on this machine, no environments, random artifacts.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            prefix: String::new(),
            origin: None,
            tls: None,
            environments: Vec::new(),
            kernel: Content::random(6 * MIB, 1),
            initrd: Content::random(8 * MIB, 2),
            rootfs: Content::random(64 * MIB, 3),
            bytes_per_second: None,
        }
    }
}

/// A running server. It stops, connections included, when it is dropped.
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<Shared>,
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Upstream {
    /// Listens and serves on the current tokio runtime.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        let tls = options.tls.map(TlsAcceptor::from);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let started = UNIX_EPOCH + FIRST_BUILD;
        let mut directory = Directory::default();
        for environment in options.environments {
            directory.put(environment, started);
        }
        let shared = Arc::new(Shared {
            base: Base {
                origin: options.origin.unwrap_or_else(|| format!("{scheme}://{addr}")),
                prefix: options.prefix.trim_end_matches('/').to_owned(),
            },
            nonce: RandomState::new().hash_one(addr),
            serial: AtomicU64::new(0),
            link: options.bytes_per_second.map(|rate| Arc::new(Pace::new(rate))),
            state: Mutex::new(State {
                directory,
                kernel: options.kernel,
                initrd: options.initrd,
                rootfs: options.rootfs,
                built: started,
                ready: true,
                faults: Faults::default(),
                requests: Requests::default(),
            }),
        });
        let task = tokio::spawn(accept(listener, tls, shared.clone()));
        Ok(Self { shared, addr, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL, path prefix included.
    pub fn url(&self) -> String {
        let Base { origin, prefix } = &self.shared.base;
        format!("{origin}{prefix}")
    }

    /// The URL of one of an environment's artifacts, as its `status.bootArtifacts` has it; `None` for an unknown id.
    pub fn url_of(&self, environment: &str, target: Target) -> Option<String> {
        let state = self.shared.state();
        let spec = &state.directory.get(environment)?.spec;
        let base = &self.shared.base;
        Some(match target {
            Target::Script => base.script(spec),
            Target::Kernel => base.artifact(spec, "kernel"),
            Target::Rootfs => base.artifact(spec, "rootfs"),
            Target::Initrd => base.initrd(spec),
        })
    }

    /// The bytes that are served for an environment now; of an initrd the part that all requests share. `None` for a script or an
    /// unknown id.
    pub fn content(&self, environment: &str, target: Target) -> Option<Content> {
        let state = self.shared.state();
        let spec = &state.directory.get(environment)?.spec;
        let content = match target {
            Target::Script => return None,
            Target::Kernel => &state.kernel,
            Target::Rootfs => &state.rootfs,
            Target::Initrd => &state.initrd,
        };
        Some(content.variant(&spec.version, &spec.arch))
    }

    /// Switches a fault on for so many answers, or until it is cleared; `None` as fault clears it.
    pub fn set_fault(&self, target: Target, fault: Option<Fault>, times: Option<u32>) {
        self.shared.state().faults.set(target, fault, times);
    }

    /// Whether a fault is still to come: false once a counted one has healed.
    pub fn has_fault(&self, target: Target) -> bool {
        self.shared.state().faults.is_set(target)
    }

    /// Whether the image service has its OS images; while not, its answers are 503 without a body.
    pub fn set_ready(&self, ready: bool) {
        self.shared.state().ready = ready;
    }

    /// Replaces the hosts that registered with an environment.
    pub fn set_hosts(&self, environment: &str, hosts: Vec<HostSpec>) {
        if let Some(entry) = self.shared.state().directory.get_mut(environment) {
            entry.spec.hosts = hosts;
        }
    }

    /// Adds an environment, or replaces the one of the same id.
    pub fn set_environment(&self, environment: EnvironmentSpec) {
        let now = SystemTime::now();
        self.shared.state().directory.put(environment, now);
    }

    /// Moves the date of an environment's script and initrd, as a reconcile does; their content stays.
    pub fn touch(&self, environment: &str) {
        if let Some(entry) = self.shared.state().directory.get_mut(environment) {
            entry.touch(SystemTime::now());
        }
    }

    /// Deletes an environment: 404 while its token is cached.
    pub fn delete_environment(&self, environment: &str) {
        self.shared.set_existence(environment, Existence::Deleted);
    }

    /// Lets the cached token of a deleted environment end: 401 from now on.
    pub fn forget_environment(&self, environment: &str) {
        self.shared.set_existence(environment, Existence::Forgotten);
    }

    /// Other bytes of the same length behind the same URLs, with a later date.
    pub fn new_build(&self) {
        self.shared.new_build();
    }

    /// The latest requests in the order in which they came.
    pub fn requests(&self) -> Vec<RequestLog> {
        self.shared.state().requests.snapshot()
    }

    /// Forgets the requests.
    pub fn clear_log(&self) {
        self.shared.state().requests.clear();
    }

    /// Stops, cuts all connections, and returns when the port is free.
    pub async fn stop(mut self) {
        self.task.abort();
        // An aborted task ends with an error that says so.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Shared {
    base: Base,
    nonce: u64,
    serial: AtomicU64,
    link: Option<Arc<Pace>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    directory: Directory,
    kernel: Content,
    initrd: Content,
    rootfs: Content,
    built: SystemTime,
    ready: bool,
    faults: Faults,
    requests: Requests,
}

impl Shared {
    /// Nothing here leaves the state half changed, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_existence(&self, environment: &str, existence: Existence) {
        if let Some(entry) = self.state().directory.get_mut(environment) {
            entry.existence = existence;
        }
    }

    fn new_build(&self) {
        let mut state = self.state();
        let State {
            kernel, initrd, rootfs, ..
        } = &mut *state;
        for content in [kernel, initrd, rootfs] {
            *content = content.at_build(content.build() + 1);
        }
        // A date has seconds only: two builds in one second must differ.
        state.built = SystemTime::now().max(state.built + Duration::from_secs(1));
    }
}
