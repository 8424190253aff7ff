//! The HTTP API: its groups joined into one service. [`spec`] needs no listener and no inventory.

pub mod artifacts;
pub mod boot;
mod example;
pub mod health;
pub mod inventory;
pub mod page;
pub mod problem;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use poem::endpoint::{DynEndpoint, ToDynEndpoint};
use poem::{EndpointExt, Request, Response, Route};
use poem_openapi::{OpenApi, OpenApiService, Tags};

use crate::boot::artifact::PublicUrl;
use crate::boot::decision::Policy;
use crate::boot::kernel_arguments::KernelArguments;
use crate::boot::render::LocalDisk;

use super::answer::ScriptCache;
use super::metrics::Metrics;
use super::middleware;
use super::snapshot::{Published, Snapshot};
use super::upstream::Upstream;

use problem::Trouble;

/// What every handler may use; it holds no client of the cluster.
#[derive(Debug)]
pub struct Context {
    /// The current inventory.
    pub snapshot: Arc<Snapshot>,
    /// The client for upstream.
    pub upstream: Arc<Upstream>,
    /// Scripts of environments, fetched once for all hosts.
    pub scripts: ScriptCache,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Settings.
    pub settings: Settings,
    /// Set when the server is about to end.
    pub draining: AtomicBool,
    /// When the server started.
    pub started: Instant,
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
    pub kernel_arguments: KernelArguments,
    /// Whether upstream's unchanged scripts are served.
    pub script_proxy: bool,
}

impl Context {
    /// The inventory, or the answer that says what is missing.
    pub fn inventory(&self) -> Result<Arc<Published>, Trouble> {
        self.snapshot.ready().map_err(Trouble::NotReady)
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
            .parse::<http::uri::Authority>()
            .is_ok_and(|authority| !authority.as_str().contains('@'));
        match is_authority.then(|| format!("{scheme}://{host}").parse()) {
            Some(Ok(url)) => Ok(url),
            _ => Err(Trouble::BadHost),
        }
    }
}

#[derive(Tags)]
enum Tag {
    /// Scripts for machines that boot.
    Boot,
    /// Kernel, initrd, rootfs and script of an environment.
    Artifacts,
    /// What the bridge knows and why it decides what it decides.
    Inventory,
    /// Probes.
    Health,
}

/// Joins the groups; the address is the one in the document.
fn service(context: &Arc<Context>) -> OpenApiService<impl OpenApi + use<>, ()> {
    let groups = (
        boot::BootApi::new(context.clone()),
        artifacts::ArtifactsApi::new(context.clone()),
        inventory::InventoryApi::new(context.clone()),
        health::HealthApi::new(context.clone()),
    );
    OpenApiService::new(groups, "ipxe-bridge", env!("CARGO_PKG_VERSION"))
        .summary("Network boot of bare metal for Kubernetes")
        .description(
            "The bridge answers a machine's MAC address with the iPXE script it is to boot, sends kernel, initrd and rootfs through itself, \
             and says why it answered what it answered. Errors are problem details (RFC 9457); their `type` is listed in \
             docs/operations.md.",
        )
        .license("Apache-2.0")
}

/// The OpenAPI document as JSON text.
pub fn spec() -> anyhow::Result<String> {
    let context = Context {
        snapshot: Arc::default(),
        upstream: Arc::new(Upstream::new(Vec::new())?),
        scripts: ScriptCache::default(),
        metrics: Arc::default(),
        settings: Settings {
            uri: None,
            policy: Policy::default(),
            local_disk: LocalDisk::default(),
            kernel_arguments: KernelArguments::default(),
            script_proxy: false,
        },
        draining: AtomicBool::new(false),
        started: Instant::now(),
    };
    Ok(service(&Arc::new(context)).spec())
}

/// The application as the listener needs it.
pub type App = Arc<dyn DynEndpoint<Output = Response>>;

/// The whole application: every request gets an answer, errors of the framework included.
pub fn endpoint(context: Arc<Context>) -> App {
    let service = service(&context);
    let document = service.spec_endpoint();
    let swagger = service.swagger_ui();
    let metrics = context.metrics.clone();
    let routes = Route::new()
        .at("/openapi.json", document)
        .nest("/swagger", swagger)
        .nest("", service)
        .catch_all_error(problem::of_framework)
        .around(move |next, request| middleware::observe(next, request, metrics.clone()))
        .map_to_response();
    Arc::new(ToDynEndpoint(routes))
}
