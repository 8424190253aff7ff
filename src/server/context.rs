//! What everything that answers a request may use.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use poem::Request;

use crate::boot::artifact::PublicUrl;
use crate::boot::decision::{Boot, Decision};
use crate::boot::kernel_arguments::ArgumentEdits;
use crate::boot::local_disk::LocalDisk;
use crate::boot::mac::MacAddr;
use crate::boot::policy::Policy;

use super::answer::Answer;
use super::boot_counts::BootCounts;
use super::boot_id::Keys;
use super::cache::Cache;
use super::metrics::Metrics;
use super::pace::Pace;
use super::script_cache::ScriptCache;
use super::snapshot::{Published, Snapshot};
use super::timeline::Timeline;
use super::trouble::Trouble;
use super::upstream::Upstream;

/// What every handler may use; it holds no client of the cluster.
#[derive(Debug)]
pub struct Context {
    /// The current inventory.
    pub snapshot: Arc<Snapshot>,
    /// The client for upstream.
    pub upstream: Arc<Upstream>,
    /// Scripts of environments, fetched once for all hosts.
    pub scripts: ScriptCache,
    /// Where boots of overrides are counted.
    pub boot_counts: BootCounts,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Settings.
    pub settings: Settings,
    /// The last boots of each machine.
    pub timeline: Timeline,
    /// Name of this process among other replicas.
    pub process: String,
    /// What signs the ids of boots in addresses.
    pub boot_keys: Arc<ArcSwap<Keys>>,
    /// Kernel and rootfs on disk, if there is a folder for them.
    pub cache: Option<Arc<Cache>>,
    /// How fast artifacts are sent.
    pub pacing: Pacing,
    /// Set when the server is about to end.
    pub draining: AtomicBool,
    /// When the server started.
    pub started: Instant,
}

/// How fast artifacts are sent; as fast as machines take them where nothing is said.
#[derive(Debug, Default)]
pub struct Pacing {
    /// All of them together.
    pub total: Option<Arc<Pace>>,
    /// Each by itself, in bytes a second.
    pub each: Option<NonZeroU64>,
}

/// Settings that answers depend on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The bridge's own address; otherwise as the request names it.
    pub uri: Option<PublicUrl>,
    /// What takes part in every decision.
    pub policy: Policy,
    /// How a machine is sent to its disk.
    pub local_disk: LocalDisk,
    /// Appended to every environment's command line.
    pub kernel_arguments: ArgumentEdits,
    /// Whether upstream's unchanged scripts are served.
    pub script_proxy: bool,
}

impl Context {
    /// The inventory, or the answer that says what is missing.
    pub fn inventory(&self) -> Result<Arc<Published>, Trouble> {
        self.snapshot.ready().map_err(Trouble::NotReady)
    }

    /// What a machine boots now: the decision for the first of its cards that something names.
    pub fn decide(&self, published: &Published, mac: MacAddr, cards: &[MacAddr]) -> Decision {
        let now = jiff::Timestamp::now().as_second();
        published.inventory.decide_for_machine(mac, cards, self.settings.policy, now)
    }

    /// Counts that a machine gets an answer to a decision, where an override is behind it. Must come before the answer is sent: what
    /// has a limit and cannot be counted is not sent.
    pub async fn account(&self, decision: &Decision, answer: &Result<Answer, Trouble>, address: &str) -> Result<(), Trouble> {
        let takes_effect = match (answer, &decision.boot) {
            // Upstream had the last word, and sent the machine to its disk.
            (Ok(answer), _) => answer.upstream.is_none(),
            // A disk may also be reached by no answer.
            (Err(Trouble::NothingToBoot(_)), Boot::LocalDisk(_)) => true,
            (Err(_), _) => false,
        };
        let Some(by) = decision.by_override.as_ref().filter(|_| takes_effect) else {
            return Ok(());
        };
        match by.limit {
            None => {
                self.boot_counts.served(by, decision.mac, address);
                Ok(())
            }
            Some(limit) => {
                let counted = self.boot_counts.count(by, limit, decision.mac, address).await;
                counted.map_err(|why| Trouble::NotCounted(by.name.to_string(), why))
            }
        }
    }

    /// What is missing until the server is ready to answer; empty when it is.
    pub fn not_ready(&self) -> Vec<String> {
        match self.draining.load(Ordering::Relaxed) {
            true => vec!["the server is about to end".to_owned()],
            false => self.snapshot.ready().err().unwrap_or_default(),
        }
    }

    /// The bridge's address for the machine that asks: as configured, otherwise the one it used itself.
    pub fn public_url(&self, request: &Request) -> Result<PublicUrl, Trouble> {
        if let Some(uri) = &self.settings.uri {
            return Ok(uri.clone());
        }
        let scheme = request.scheme();
        let host = match request.header(http::header::HOST) {
            Some(host) => host.to_owned(),
            None => match request.local_addr().as_socket_addr() {
                Some(address) => address.to_string(),
                None => "localhost".to_owned(),
            },
        };
        // A host may be followed by a port and nothing else: the header is pasted into scripts.
        let is_authority = host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
        match is_authority.then(|| format!("{scheme}://{host}").parse()) {
            Some(Ok(url)) => Ok(url),
            _ => Err(Trouble::BadHost),
        }
    }
}
