//! The operator: keeps bridges running as `IpxeBridge` objects say.

pub mod address;
pub mod apply;
pub mod arguments;
pub mod boot_keys;
pub mod build;
pub mod children;
pub mod context;
pub mod counts;
pub mod digest;
pub mod error;
pub mod http;
pub mod kind;
pub mod lease;
pub mod metrics;
pub mod name;
pub mod observe;
pub mod plan;
pub mod reason;
pub mod reconcile;
pub mod reference;
pub mod report;
pub mod trace;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::channel::mpsc;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::cli::OperatorArgs;
use crate::server::listener::{self, Limits};

use children::Wake;
use context::Context;
use counts::Counter;
use kind::Kind;
use lease::{Candidate, Fence};
use plan::Settings;
use reconcile::Stored;

/// Name of the Lease in the operator's own namespace.
const LEASE: &str = "ipxe-bridge-operator";
/// Bridges looked after at once.
const CONCURRENCY: u16 = 8;
/// Nobody downloads anything from the operator.
const DRAIN: Duration = Duration::from_secs(1);

/// Runs the operator until the token is cancelled, then lets what is being written be finished.
///
/// # Errors
///
/// With one sentence if a setting cannot be used. An API server that is away is no error.
pub async fn run(args: OperatorArgs, end: CancellationToken) -> anyhow::Result<()> {
    let config = cluster(&args).await?;
    let fence = Fence::default();
    // The lease itself is asked for without the fence that it opens.
    let unfenced = Client::try_from(config.clone()).context("the kubeconfig cannot be used")?;
    let client = lease::fenced(config, &fence).context("the kubeconfig cannot be used")?;
    let state = Arc::new(http::State::default());
    let address = SocketAddr::new(args.host, args.health_port);
    let socket = TcpListener::bind(address)
        .await
        .with_context(|| format!("--health-port: cannot listen on {address}"))?;
    // The port may have been chosen by the kernel.
    let listening = socket.local_addr()?;
    let limits = Limits {
        connections: Arc::new(Semaphore::new(64)),
        stall: Duration::from_secs(10),
        drain: DRAIN,
    };
    let app = http::endpoint(state.clone());
    let pages = tokio::spawn(listener::serve(socket, None, app, limits, Arc::default(), end.clone()));
    tracing::info!("probes and metrics are at http://{listening}");

    let candidate = Candidate {
        api: Api::default_namespaced(unfenced),
        name: LEASE.to_owned(),
        identity: lease::identity(),
        duration: args.lease_duration,
        fence,
    };
    let work = async |end| {
        let leading = Leading::new(&state);
        let result = lead(client.clone(), &args, &state, end).await;
        drop(leading);
        result
    };
    candidate.run(end, work).await?;
    _ = pages.await;
    Ok(())
}

/// Says that this process leads, for as long as it is there.
struct Leading<'a>(&'a http::State);

impl<'a> Leading<'a> {
    fn new(state: &'a http::State) -> Self {
        state.metrics.leading.set(1);
        Self(state)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.metrics.leading.set(0);
    }
}

/// Looks after all bridges until the token is cancelled.
async fn lead(client: Client, args: &OperatorArgs, state: &http::State, end: CancellationToken) -> anyhow::Result<()> {
    let settings = Settings {
        namespace: args
            .namespace
            .clone()
            .unwrap_or_else(|| client.default_namespace().to_owned()),
        image: args.image.clone(),
    };
    let ctx = Arc::new(Context {
        children: state.children.clone(),
        counter: Counter::new()?,
        recorder: Recorder::new(client.clone(), Reporter::from(name::MANAGER)),
        metrics: state.metrics.clone(),
        failures: Default::default(),
        settings,
        client: client.clone(),
    });
    ctx.children.forget();
    let (one, changed) = mpsc::unbounded();
    let (all, appeared) = mpsc::unbounded();
    let wake = Wake { one, all };
    // They end with this function, whatever its end.
    let watches = end.child_token();
    let _stop = watches.clone().drop_guard();
    for kind in Kind::all() {
        let follow = children::follow(client.clone(), kind, ctx.children.clone(), wake.clone());
        tokio::spawn(watches.clone().run_until_cancelled_owned(follow));
    }
    let bridges = Controller::new(Api::<Stored>::all(client.clone()), watcher::Config::default())
        .with_config(controller::Config::default().concurrency(CONCURRENCY));
    let store = bridges.store();
    let (of_config_map, of_secret) = (mounters(store.clone(), ctx.clone()), mounters(store, ctx.clone()));
    bridges
        .graceful_shutdown_on(end.cancelled_owned())
        .reconcile_on(changed)
        .reconcile_all_on(appeared)
        // Only metadata is read, and not of what every namespace has, nor of Secrets that hold no certificate.
        .watches(
            Api::<PartialObjectMeta<ConfigMap>>::all(client.clone()),
            watcher::Config::default().fields("metadata.name!=kube-root-ca.crt,metadata.name!=openshift-service-ca.crt"),
            move |object| {
                of_config_map(
                    reference::Store::ConfigMap,
                    &object.namespace().unwrap_or_default(),
                    &object.name_any(),
                )
            },
        )
        .watches(
            Api::<PartialObjectMeta<Secret>>::all(client),
            watcher::Config::default().fields("type=kubernetes.io/tls"),
            move |object| {
                of_secret(
                    reference::Store::Secret,
                    &object.namespace().unwrap_or_default(),
                    &object.name_any(),
                )
            },
        )
        .run(reconcile::reconcile, reconcile::after_failure, ctx)
        .for_each(|result| async {
            // What failed with a bridge was told already; one that is gone is looked for in vain.
            if let Err(controller::Error::QueueError(error)) = result {
                tracing::warn!("a watch failed: {error}");
            }
        })
        .await;
    Ok(())
}

/// Which bridges' pods mount an object.
fn mounters(
    store: Store<Stored>,
    ctx: Arc<Context>,
) -> impl Fn(reference::Store, &str, &str) -> Vec<ObjectRef<Stored>> + Send + Sync + 'static {
    move |kind, namespace, name| {
        let mounts = |stored: &Arc<Stored>| {
            stored.0.as_ref().is_ok_and(|bridge| {
                observe::namespace(bridge, &ctx) == namespace
                    && reference::references(&bridge.name_any(), &bridge.spec)
                        .iter()
                        .any(|reference| reference.kind == kind && reference.name == name)
            })
        };
        store
            .state()
            .iter()
            .filter(|stored| mounts(stored))
            .map(|stored| ObjectRef::from_obj(&**stored))
            .collect()
    }
}

/// The cluster of the kubeconfig or the ServiceAccount.
async fn cluster(args: &OperatorArgs) -> anyhow::Result<kube::Config> {
    let mut config = kube::Config::infer()
        .await
        .context("no cluster to look after: set KUBECONFIG, or run inside a cluster")?;
    // Failures have pauses of their own, and are to be counted.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    if let Some(namespace) = &args.namespace {
        config.default_namespace.clone_from(namespace);
    }
    Ok(config)
}
