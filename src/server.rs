//! The server: wires sources, inventory, API and listeners, and ends without cutting a download.

pub mod answer;
pub mod api;
pub mod boot_counts;
pub mod boot_events;
pub mod boot_id;
pub mod cache;
pub mod contents;
pub mod context;
pub mod convert;
pub mod files;
pub mod host_files;
pub mod listener;
pub mod manifests;
pub mod metrics;
pub mod middleware;
pub mod pace;
pub mod peers;
pub mod script_cache;
pub mod sendfile;
pub mod snapshot;
pub mod sources;
pub mod status;
pub mod timeline;
pub mod tls;
pub mod trace;
pub mod transfer;
pub mod trouble;
pub mod upstream;
pub mod validator;
pub mod watch;
pub mod yaml;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::boot::policy::Policy;
use crate::cli::ServerArgs;

use boot_counts::BootCounts;
use boot_events::Notes;
use cache::{Cache, prefetch};
use context::{Context, Pacing, Settings};
use listener::{Limits, Tls};
use metrics::Metrics;
use pace::Pace;
use script_cache::ScriptCache;
use snapshot::Snapshot;
use sources::{Sources, Terms};
use status::{Claim, Reports};
use timeline::Timeline;
use upstream::Upstream;

/// How long the end waits for the last statuses.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How often it is looked which boots came to an end.
const SETTLE_PERIOD: Duration = Duration::from_secs(5);
/// Longest path of a script below the bridge's address.
const SCRIPT_PATH: usize = "/ipxe-mac-boot/52-54-00-cc-00-01".len();
/// The `file` field of BOOTP holds 128 bytes, the last of which is 0 (RFC 951).
const MAX_BOOT_FILE: usize = 127;

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where machines and people are answered.
    pub address: SocketAddr,
    /// Where the same is answered over TLS, if on a port of its own.
    pub tls_address: Option<SocketAddr>,
    /// Where `/metrics` is.
    pub metrics_address: SocketAddr,
    end: CancellationToken,
    listeners: Vec<JoinHandle<bool>>,
    /// The listener of metrics, which ends after the others.
    metrics: (CancellationToken, JoinHandle<bool>),
    has_peers: bool,
    background: CancellationToken,
    /// What goes on for a moment after the background has ended.
    last_words: Option<JoinHandle<()>>,
    context: Arc<Context>,
}

impl Server {
    /// Starts everything. Fails with one sentence if a setting cannot be used; what can heal by itself (an API server that is away)
    /// is no failure.
    pub async fn start(args: ServerArgs) -> anyhow::Result<Self> {
        let upstream = Arc::new(Upstream::new(
            args.upstream_ca.clone(),
            args.upstream_host.clone(),
            args.upstream_connections as usize,
        )?);
        let metrics = Arc::<Metrics>::default();
        let tls = match (&args.tls_cert, &args.tls_key) {
            (Some(certificate), Some(key)) => Some(tls::load(certificate, key, &metrics)?),
            _ => None,
        };
        let client = match args.manifests {
            Some(_) => None,
            None => Some(cluster().await?),
        };
        let listeners = Listeners::bind(&args).await?;
        if let Some(uri) = args
            .uri
            .as_ref()
            .filter(|uri| uri.to_string().len() + SCRIPT_PATH > MAX_BOOT_FILE)
        {
            tracing::warn!(%uri, "scripts have addresses of more than {MAX_BOOT_FILE} bytes: DHCP's file field cuts them");
        }

        let sources = Arc::new(Sources::new(Terms {
            trusted_namespaces: args.override_namespaces.clone(),
            equal_overrides: args.equal_overrides,
            selects_namespaces: args.namespace_selector.is_some(),
            default_environment: args.default_environment.clone(),
        }));
        let (reports, claims) = Reports::new();
        let reports = Arc::new(reports);
        let boot_counts = match (&client, &args.state_dir) {
            (Some(_), _) => BootCounts::Status(reports.clone()),
            (None, Some(folder)) => {
                let opened = boot_counts::Folder::open(folder.clone(), sources.clone());
                BootCounts::Folder(Arc::new(
                    opened.with_context(|| format!("--state-dir: {} cannot be read", folder.display()))?,
                ))
            }
            (None, None) => BootCounts::Nowhere,
        };
        let cache = match args.cache_dir.clone() {
            Some(folder) => {
                let settings = cache::Settings {
                    folder,
                    size: args.cache_size.get(),
                    fresh: cache::FRESH.min(args.loop_timing),
                };
                Some(Cache::open(settings, upstream.clone(), metrics.clone()).await)
            }
            None => None,
        };
        let boot_keys = match &args.boot_keys {
            Some(folder) if !folder.is_dir() => anyhow::bail!("--boot-keys: {} is no folder", folder.display()),
            // Machines boot without: only what they do is not joined with what other replicas saw.
            Some(folder) => boot_id::Keys::read(folder).unwrap_or_else(|why| {
                tracing::warn!(
                    why,
                    "ids of boots are signed with a key of this process alone until there is one"
                );
                boot_id::Keys::random()
            }),
            None => boot_id::Keys::random(),
        };
        let context = Arc::new(Context {
            boot_counts,
            boot_keys: Arc::new(ArcSwap::from_pointee(boot_keys)),
            timeline: Timeline::default(),
            process: peers::process(),
            cache,
            pacing: Pacing {
                total: args.rate_limit.map(|rate| Arc::new(Pace::new(rate))),
                each: args.connection_rate_limit,
            },
            snapshot: Arc::new(Snapshot::default()),
            upstream,
            scripts: ScriptCache::new(args.loop_timing),
            metrics,
            settings: Settings {
                uri: args.uri.clone(),
                policy: Policy {
                    boot: args.boot_policy,
                    unknown: args.unknown_hosts,
                },
                local_disk: args.local_disk,
                kernel_arguments: args.argument_edits().map_err(anyhow::Error::msg)?,
                script_proxy: args.script_proxy,
            },
            draining: AtomicBool::new(false),
            started: Instant::now(),
        });
        let background = CancellationToken::new();
        let cluster = client.map(|client| Cluster { client, reports, claims });
        let last_words = start_background(&args, &context, &sources, cluster, tls.clone(), &background);
        let mut server = listeners.serve(&args, tls, context, background);
        server.last_words = last_words;
        Ok(server)
    }

    /// Takes no new connections and lets transfers finish. Whether all of them could, within the limit. Until then it can be seen how they
    /// get on, and a moment longer by the other replicas if something moved at the end.
    pub async fn stop(self) -> bool {
        self.context.draining.store(true, Ordering::Relaxed);
        self.end.cancel();
        let mut complete = true;
        for listener in self.listeners {
            complete &= listener.await.unwrap_or(false);
        }
        let lately = jiff::Timestamp::now().as_second() - 2 * peers::LAST_CALL.as_secs() as i64;
        if self.has_peers && !self.context.timeline.tell(lately).is_empty() {
            tokio::time::sleep(peers::LAST_CALL).await;
        }
        let (end, metrics) = self.metrics;
        end.cancel();
        complete &= metrics.await.unwrap_or(false);
        self.background.cancel();
        if let Some(cache) = &self.context.cache {
            cache.note_all().await;
        }
        if let Some(last_words) = self.last_words {
            // An API server that is away does not hold up the end.
            let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        }
        complete
    }
}

/// The sockets, bound before anything else starts.
struct Listeners {
    main: TcpListener,
    tls: Option<TcpListener>,
    metrics: TcpListener,
}

impl Listeners {
    async fn bind(args: &ServerArgs) -> anyhow::Result<Self> {
        let bind = async |flag: &str, port: u16| {
            let address = SocketAddr::new(args.host, port);
            TcpListener::bind(address)
                .await
                .with_context(|| format!("{flag}: cannot listen on {address}"))
        };
        Ok(Self {
            main: bind("--port", args.port).await?,
            tls: match args.tls_port {
                Some(port) => Some(bind("--tls-port", port).await?),
                None => None,
            },
            metrics: bind("--metrics-port", args.metrics_port).await?,
        })
    }

    fn serve(self, args: &ServerArgs, tls: Option<Tls>, context: Arc<Context>, background: CancellationToken) -> Server {
        let end = CancellationToken::new();
        let limits = Limits {
            connections: Arc::new(Semaphore::new(args.max_connections as usize)),
            stall: args.stall_timeout,
            drain: args.drain_timeout,
        };
        let app = api::endpoint(context.clone());
        let address = local_address(&self.main);
        let tls_address = self.tls.as_ref().map(local_address);
        let metrics_address = local_address(&self.metrics);
        let (main_tls, own_tls) = match self.tls.is_some() {
            true => (None, tls),
            false => (tls, None),
        };
        let scheme = if main_tls.is_some() { "https" } else { "http" };
        tracing::info!("machines are answered at {scheme}://{address}");
        let spawn = |listener, tls, app, limits: &Limits, end: &CancellationToken| {
            let (limits, metrics, end) = (limits.clone(), context.metrics.clone(), end.clone());
            tokio::spawn(listener::serve(listener, tls, app, limits, metrics, end))
        };
        let mut listeners = vec![spawn(self.main, main_tls, app.clone(), &limits, &end)];
        if let (Some(listener), Some(address)) = (self.tls, tls_address) {
            tracing::info!("machines are answered at https://{address}");
            listeners.push(spawn(listener, own_tls, app, &limits, &end));
        }
        // Of its own, so that a flood of machines does not hide the metrics that would show it.
        let few = Limits {
            connections: Arc::new(Semaphore::new(64)),
            drain: Duration::from_secs(1),
            ..limits
        };
        tracing::info!("metrics are at http://{metrics_address}/metrics");
        let end_of_metrics = CancellationToken::new();
        let metrics = api::metrics::endpoint(context.clone());
        let metrics = spawn(self.metrics, None, metrics, &few, &end_of_metrics);
        Server {
            address,
            tls_address,
            metrics_address,
            end,
            listeners,
            metrics: (end_of_metrics, metrics),
            has_peers: !args.peers.is_empty(),
            background,
            last_words: None,
            context,
        }
    }
}

/// What is read from and written to a cluster.
struct Cluster {
    client: kube::Client,
    reports: Arc<Reports>,
    claims: mpsc::Receiver<Claim>,
}

/// Everything that goes on beside the listeners; it ends with the token. What is given back has something to finish then.
fn start_background(
    args: &ServerArgs,
    context: &Arc<Context>,
    sources: &Arc<Sources>,
    cluster: Option<Cluster>,
    tls: Option<Tls>,
    end: &CancellationToken,
) -> Option<JoinHandle<()>> {
    let mut last_words = None;
    let period = args.loop_timing;
    let spawn = |task: futures::future::BoxFuture<'static, ()>| {
        tokio::spawn(end.clone().run_until_cancelled_owned(task));
    };
    let mut notes = None;
    if let Some(Cluster { client, reports, claims }) = cluster {
        if args.boot_events {
            let (told, queue) = Notes::new();
            notes = Some(told);
            spawn(Box::pin(boot_events::follow(client.clone(), queue)));
        }
        let reads = watch::Reads {
            namespaces: &args.namespaces,
            namespace_selector: args.namespace_selector.as_deref(),
            environment_selector: args.environment_selector.as_deref(),
        };
        watch::start(&client, &reads, (sources, &context.metrics), &spawn);
        let snapshot = context.snapshot.clone();
        spawn(Box::pin(contents::follow(client.clone(), snapshot.clone(), sources.clone())));
        let metrics = context.metrics.clone();
        let statuses = status::follow(client, snapshot, reports, claims, metrics, end.clone());
        last_words = Some(tokio::spawn(statuses));
    }
    if let Some(directory) = args.manifests.clone() {
        sources.announce(manifests::SOURCE);
        spawn(Box::pin(manifests::follow(directory, period, sources.clone())));
    }
    if let Some(directory) = args.host_files.clone() {
        sources.announce(host_files::SOURCE);
        spawn(Box::pin(host_files::follow(directory, period, sources.clone())));
    }
    if let (Some(tls), Some(certificate), Some(key)) = (tls, args.tls_cert.clone(), args.tls_key.clone()) {
        spawn(Box::pin(tls::follow(tls, certificate, key, period, context.metrics.clone())));
    }
    if !args.upstream_ca.is_empty() {
        spawn(Box::pin(follow_upstream_ca(
            args.upstream_ca.clone(),
            period,
            context.upstream.clone(),
        )));
    }
    if let Some(folder) = args.boot_keys.clone() {
        spawn(Box::pin(boot_id::follow(folder, period, context.boot_keys.clone())));
    }
    if !args.peers.is_empty() {
        spawn(Box::pin(peers::follow(args.peers.clone(), context.clone())));
    }
    spawn(Box::pin(count_boots(context.clone(), notes)));
    if let Some(cache) = &context.cache {
        spawn(Box::pin(cache.clone().follow()));
        if args.prefetch {
            spawn(Box::pin(prefetch::follow(cache.clone(), context.snapshot.clone(), period)));
        }
    }
    let (snapshot, sources) = (context.snapshot.clone(), sources.clone());
    spawn(Box::pin(async move { sources.publish_to(&snapshot).await }));
    last_words
}

/// Counts boots when they come to an end, and tells of them.
async fn count_boots(context: Arc<Context>, mut notes: Option<Notes>) {
    loop {
        tokio::time::sleep(SETTLE_PERIOD).await;
        let now = jiff::Timestamp::now();
        for (boot, outcome) in context.timeline.settle(now) {
            let seconds = boot.last_sign() - boot.begun.as_second();
            context.metrics.boot(outcome, seconds, boot.is_sampled.then_some(boot.trace));
            if let (Some(notes), Ok(published)) = (&mut notes, context.snapshot.ready()) {
                notes.tell(&published.inventory, &boot, outcome, now);
            }
        }
    }
}

async fn follow_upstream_ca(files: Vec<std::path::PathBuf>, period: Duration, upstream: Arc<Upstream>) {
    let mut changes = files::Changes::below(&files, period);
    loop {
        changes.next().await;
        if let Err(error) = upstream.reload() {
            tracing::error!("the new certificates for upstream are not used, the old ones go on: {error:#}");
        }
    }
}

/// A client for the cluster of the kubeconfig or the ServiceAccount.
async fn cluster() -> anyhow::Result<kube::Client> {
    let mut config = kube::Config::infer()
        .await
        .context("no cluster to watch: set KUBECONFIG, run inside a cluster, or use --manifests DIR with a folder of YAML")?;
    // The watches have their own pauses, and an answer of "not now" is to be seen at once.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    kube::Client::try_from(config).context("the kubeconfig cannot be used")
}

fn local_address(listener: &TcpListener) -> SocketAddr {
    // Fails only for a socket that is not bound.
    listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}
