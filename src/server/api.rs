//! The HTTP API: its groups joined into one service. [`spec`] needs no listener and no inventory.

pub mod artifacts;
pub mod boot;
pub mod boots;
pub mod cache;
mod example;
pub mod health;
pub mod inventory;
pub mod metrics;
pub mod page;
pub mod problem;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arc_swap::ArcSwap;
use poem::endpoint::{DynEndpoint, ToDynEndpoint};
use poem::{EndpointExt, Response, Route};
use poem_openapi::{OpenApi, OpenApiService, Tags};

use crate::boot::kernel_arguments::ArgumentEdits;
use crate::boot::local_disk::LocalDisk;
use crate::boot::policy::Policy;

use super::boot_counts::BootCounts;
use super::boot_id::Keys;
use super::context::{Context, Pacing, Settings};
use super::middleware::{self, Observer};
use super::script_cache::ScriptCache;
use super::timeline::Timeline;
use super::upstream::Upstream;

#[derive(Tags)]
enum Tag {
    /// Scripts for machines that boot.
    Boot,
    /// Kernel, initrd, rootfs and script of an environment.
    Artifacts,
    /// What machines boot at the moment, and booted before.
    Boots,
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
        boots::BootsApi::new(context.clone()),
        cache::CacheApi::new(context.clone()),
        inventory::InventoryApi::new(context.clone()),
        page::PageApi::new(context.clone()),
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
        boot_counts: BootCounts::Nowhere,
        snapshot: Arc::default(),
        upstream: Arc::new(Upstream::new(Vec::new(), Vec::new(), 1)?),
        scripts: ScriptCache::default(),
        metrics: Arc::default(),
        settings: Settings {
            uri: None,
            policy: Policy::default(),
            local_disk: LocalDisk::default(),
            kernel_arguments: ArgumentEdits::default(),
            script_proxy: false,
        },
        cache: None,
        timeline: Timeline::default(),
        process: String::new(),
        boot_keys: Arc::new(ArcSwap::from_pointee(Keys::random())),
        pacing: Pacing::default(),
        draining: AtomicBool::new(false),
        started: Instant::now(),
    };
    Ok(service(&Arc::new(context)).spec())
}

/// The path of each operation, as the document has it: the framework itself forgets the names of parameters.
fn routes(document: &str) -> HashMap<String, String> {
    let document: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, methods)| methods.as_object().into_iter().flatten().map(move |(_, of)| (of, path)));
    operations
        .filter_map(|(of, path)| Some((of["operationId"].as_str()?.to_owned(), path.clone())))
        .collect()
}

/// The application as the listener needs it.
pub type App = Arc<dyn DynEndpoint<Output = Response>>;

/// The whole application: every request gets an answer, errors of the framework included.
pub fn endpoint(context: Arc<Context>) -> App {
    let service = service(&context);
    let document = service.spec_endpoint();
    let swagger = service.swagger_ui();
    let observer = Arc::new(Observer {
        context,
        routes: routes(&service.spec()),
    });
    let routes = page::assets(Route::new())
        .at("/openapi.json", document)
        .nest("/swagger", swagger)
        .nest("", service)
        .catch_all_error(problem::of_framework)
        .around(move |next, request| middleware::observe(next, request, observer.clone()))
        .map_to_response();
    Arc::new(ToDynEndpoint(routes))
}
