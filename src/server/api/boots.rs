//! The last boots of each machine, as they go.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::{EventStream, Json};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::boot::mac::MacAddr;
use crate::boot::way::{Fetched, Way};
use crate::server::cache::store::hex;
use crate::server::context::Context;
use crate::server::timeline::{Boot, End, Outcome, Step};
use crate::server::trouble::Trouble;

use super::problem::Failure;
use super::{Tag, example};

/// How often a stream tells of bytes at most.
const BEAT: Duration = Duration::from_millis(500);
/// A stream without news says so, or a proxy would take it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Of boots without a sign of life for so long, in seconds, nothing is told until there is one; what came of them is settled by then.
const QUIET: i64 = 300;

/// Streams at once. A page is one of them; who needs more has a collector.
const WATCHERS: usize = 64;

/// Machines in an answer, unless more are asked for.
fn most() -> usize {
    1000
}

/// Boots.
pub struct BootsApi {
    context: Arc<Context>,
    places: Arc<Semaphore>,
}

/// One boot of one machine, as far as this server has seen it.
#[derive(Debug, Clone, Default, PartialEq, Object)]
#[oai(skip_serializing_if_is_none, example)]
pub struct BootView {
    /// MAC address of the machine.
    pub mac: String,
    /// Trace of the boot.
    pub trace: String,
    /// When its script was given.
    pub begun: String,
    /// `Running`, `Complete` (it has its root file system), `Aborted`, `Stalled`, `LocalDisk`, or `Script` (of which nothing further is seen).
    pub outcome: String,
    /// What the script boots; absent if another replica gave it.
    pub boots: Option<String>,
    /// The environment, if one boots.
    pub environment: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Address of the connection that asked for the script.
    pub client: Option<String>,
    /// How the machine came, where `ipxe-bridge netboot` answered it.
    pub network: Option<NetworkView>,
    /// The files that were fetched for it, in their order.
    pub steps: Vec<FetchView>,
}

/// What happened to a machine on the boot network, before it asked for its script.
#[derive(Debug, Clone, PartialEq, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct NetworkView {
    /// When DHCP told it what to fetch.
    pub told: String,
    /// The boot program; absent if its firmware is iPXE.
    pub program: Option<ProgramView>,
}

/// A boot program that a machine fetched.
#[derive(Debug, Clone, PartialEq, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ProgramView {
    /// `TFTP` or `HTTP`.
    pub protocol: String,
    /// When it was asked for.
    pub begun: String,
    /// Milliseconds that it took; by TFTP only.
    pub milliseconds: Option<u32>,
    /// Its size.
    pub bytes: u64,
}

impl NetworkView {
    fn of(way: &Way) -> Option<Self> {
        let time = |milliseconds| Some(Timestamp::from_millisecond(milliseconds).ok()?.to_string());
        let program = |program: &Fetched| {
            Some(ProgramView {
                protocol: program.by.to_string(),
                begun: time(way.told.checked_add(i64::from(program.after))?)?,
                milliseconds: program.took,
                bytes: program.bytes,
            })
        };
        Some(Self {
            told: time(way.told)?,
            program: way.program.as_ref().and_then(program),
        })
    }
}

/// A file that was fetched for a boot.
#[derive(Debug, Clone, PartialEq, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct FetchView {
    /// `kernel`, `initrd` or `rootfs`.
    pub kind: String,
    /// When it began.
    pub begun: String,
    /// Seconds that it took, or takes.
    pub seconds: i64,
    /// Bytes so far.
    pub bytes: u64,
    /// Bytes of the answer, where that is known.
    pub length: Option<u64>,
    /// Position of the first byte.
    pub first: u64,
    /// `Running`, `Complete`, `Left` (by the machine), `Broken`, or `Refused` (the service gave an error before the first byte).
    pub state: String,
    /// What the cache had to do with it: `hit`, `fill`, `stale` or `pass`.
    pub cache: Option<String>,
    /// Address of the connection.
    pub client: String,
}

impl BootView {
    /// As of now.
    pub fn of((boot, outcome): &(Boot, Outcome), now: Timestamp) -> Self {
        let script = boot.script.as_deref();
        Self {
            mac: boot.mac.to_string(),
            trace: hex(&boot.trace),
            begun: boot.begun.to_string(),
            outcome: outcome.to_string(),
            boots: script.map(|script| script.boots.clone().into_owned()),
            environment: script.and_then(|script| script.environment.clone()),
            rule: script.map(|script| script.rule.clone()),
            reason: script.map(|script| script.reason.clone()),
            client: script.map(|script| script.client.clone()),
            network: script.and_then(|script| NetworkView::of(script.way.as_ref()?)),
            steps: boot.steps.iter().map(|step| FetchView::of(step, now)).collect(),
        }
    }
}

impl FetchView {
    /// Whether nothing of it was sent.
    pub fn is_refused(&self) -> bool {
        self.state == End::Refused.to_string()
    }

    /// Whether it ended, and not as it should.
    pub fn is_trouble(&self) -> bool {
        [End::Left, End::Broken, End::Refused]
            .map(|end| end.to_string())
            .contains(&self.state)
    }

    fn of(step: &Step, now: Timestamp) -> Self {
        let ended = step.ended();
        let end = ended.map_or(now, |(_, at)| at);
        Self {
            kind: step.kind.to_string(),
            begun: step.begun.to_string(),
            seconds: end.as_second() - step.begun.as_second(),
            bytes: step.bytes(),
            length: step.part.length,
            first: step.part.first,
            state: ended.map_or_else(|| "Running".to_owned(), |(end, _)| end.to_string()),
            cache: step.cache.map(|cache| cache.to_string()),
            client: step.client.clone(),
        }
    }
}

impl Example for BootView {
    fn example() -> Self {
        Self {
            mac: "52:54:00:cc:00:01".to_owned(),
            trace: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
            begun: "2026-11-24T10:00:00Z".to_owned(),
            outcome: "Running".to_owned(),
            boots: Some("Environment".to_owned()),
            environment: Some("lab/discovery".to_owned()),
            rule: Some("BareMetalHost".to_owned()),
            reason: Some("BareMetalHost lab/server-1 wants InfraEnv lab/discovery".to_owned()),
            client: Some("192.0.2.31".to_owned()),
            network: Some(NetworkView {
                told: "2026-11-24T09:59:48.1Z".to_owned(),
                program: Some(ProgramView {
                    protocol: "TFTP".to_owned(),
                    begun: "2026-11-24T09:59:51.2Z".to_owned(),
                    milliseconds: Some(240),
                    bytes: 173_792,
                }),
            }),
            steps: vec![FetchView {
                kind: "rootfs".to_owned(),
                begun: "2026-11-24T10:00:31Z".to_owned(),
                seconds: 4,
                bytes: 461_373_440,
                length: Some(1_153_433_600),
                first: 0,
                state: "Running".to_owned(),
                cache: Some("hit".to_owned()),
                client: "192.0.2.31".to_owned(),
            }],
        }
    }
}

#[derive(ApiResponse)]
enum BootsResponse {
    /// Boots
    #[oai(status = 200)]
    Boots(Json<Vec<BootView>>),
}

#[derive(ApiResponse)]
enum StreamResponse {
    /// Boots, one an event
    #[oai(status = 200)]
    Events(EventStream<BoxStream<'static, BootView>>),
}

impl BootsApi {
    /// The group.
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            places: Arc::new(Semaphore::new(WATCHERS)),
        }
    }
}

#[OpenApi(tag = "Tag::Boots")]
impl BootsApi {
    /// The last boot of each machine
    ///
    /// The latest sign of life first. As far as this server knows: what it saw itself, and with `--peers` what the other replicas saw.
    #[oai(path = "/boots", method = "get", operation_id = "boots")]
    async fn boots(
        &self,
        /// How many machines at most
        #[oai(default = "most", example = "most")]
        limit: Query<usize>,
    ) -> BootsResponse {
        let now = Timestamp::now();
        let boots = self.context.timeline.last(now, limit.0, |_, _| true);
        BootsResponse::Boots(Json(boots.iter().map(|boot| BootView::of(boot, now)).collect()))
    }

    /// Boots as they go
    ///
    /// Server-sent events: each is a boot that changed, or from which bytes moved, at most twice a second. First come those of the last five
    /// minutes.
    #[oai(path = "/boots/stream", method = "get", operation_id = "bootsStream")]
    async fn stream(&self) -> Result<StreamResponse, Failure> {
        let place = self
            .places
            .clone()
            .try_acquire_owned()
            .map_err(|_| Trouble::TooManyWatchers)?;
        let news = news(self.context.clone(), place).boxed();
        Ok(StreamResponse::Events(EventStream::new(news).keep_alive(KEEP_ALIVE)))
    }

    /// The last boots of a machine
    ///
    /// The latest first; empty if it did not boot here lately. As far as this server knows them.
    #[oai(path = "/boots/:mac", method = "get", operation_id = "bootsOf")]
    async fn boots_of(
        &self,
        /// MAC address with colons, hyphens, dots or bare, in any case
        #[oai(example = "example::mac")]
        mac: Path<String>,
    ) -> Result<BootsResponse, Failure> {
        let mac: MacAddr = mac.0.parse().map_err(Trouble::BadMac)?;
        let now = Timestamp::now();
        let boots = self.context.timeline.of(mac, now);
        Ok(BootsResponse::Boots(Json(
            boots.iter().map(|boot| BootView::of(boot, now)).collect(),
        )))
    }
}

/// Every boot that is not as it was last told. Ends when the server does, so that a page that watches holds up no end.
fn news(context: Arc<Context>, place: OwnedSemaphorePermit) -> impl Stream<Item = BootView> {
    let told = Told {
        changes: context.timeline.subscribe(),
        context,
        last: HashMap::new(),
        waiting: Vec::new().into_iter(),
        is_moving: true,
        is_first: true,
        _place: place,
    };
    futures::stream::unfold(told, |mut told| async move {
        loop {
            if let Some(view) = told.waiting.next() {
                return Some((view, told));
            }
            if told.context.draining.load(Ordering::Relaxed) {
                return None;
            }
            if !std::mem::take(&mut told.is_first) {
                tokio::time::sleep(BEAT).await;
            }
            // Nothing began, ended or runs: the common case of a page that somebody left open.
            if told.is_moving || told.changes.has_changed().unwrap_or(true) {
                told.look(Timestamp::now());
            }
        }
    })
}

/// One who watches.
struct Told {
    context: Arc<Context>,
    changes: watch::Receiver<()>,
    /// What was told last, by its fingerprint.
    last: HashMap<MacAddr, u64>,
    waiting: std::vec::IntoIter<BootView>,
    /// Whether something may have moved since it was looked last, which nobody tells.
    is_moving: bool,
    is_first: bool,
    _place: OwnedSemaphorePermit,
}

impl Told {
    fn look(&mut self, now: Timestamp) {
        self.changes.mark_unchanged();
        let (mut last, mut is_moving) = (HashMap::new(), false);
        let news = self.context.timeline.last(now, usize::MAX, |boot, outcome| {
            is_moving |= outcome == Outcome::Running || boot.is_open();
            if now.as_second() - boot.last_sign() > QUIET {
                return false;
            }
            let fingerprint = boot.fingerprint(outcome);
            last.insert(boot.mac, fingerprint);
            self.last.get(&boot.mac) != Some(&fingerprint)
        });
        (self.last, self.is_moving) = (last, is_moving);
        let views: Vec<_> = news.iter().map(|boot| BootView::of(boot, now)).collect();
        self.waiting = views.into_iter();
    }
}
