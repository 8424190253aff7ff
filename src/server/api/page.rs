//! The page for people: what this is, how it is doing, and how machines get here. Values in, HTML out.

use std::time::Duration;

use askama::Template;
use http::StatusCode;

use crate::boot::artifact::PublicUrl;
use crate::server::context::Context;
use crate::server::snapshot::Published;
use crate::server::trouble::Trouble;

#[derive(Template)]
#[template(path = "index.html")]
struct Index {
    version: &'static str,
    uptime: String,
    bridge: String,
    host: String,
    port: u16,
    missing: Vec<String>,
    inventory: Option<Summary>,
}

/// The inventory in numbers.
struct Summary {
    environments: usize,
    hosts: usize,
    host_files: usize,
    conflicts: usize,
    skipped: usize,
    age: Option<u64>,
}

impl Summary {
    fn of(published: &Published) -> Self {
        let inventory = &published.inventory;
        Self {
            environments: inventory.environments().len(),
            hosts: inventory.host_count(),
            host_files: inventory.all_host_files().len(),
            conflicts: inventory.conflicts().len(),
            skipped: inventory.skipped().len(),
            age: published.stale_for().map(|age| age.as_secs()),
        }
    }
}

/// The page as HTML.
pub fn index(context: &Context, bridge: &PublicUrl) -> Result<String, Trouble> {
    let (host, port) = host_and_port(&bridge.to_string());
    let page = Index {
        version: env!("CARGO_PKG_VERSION"),
        uptime: humantime::format_duration(Duration::from_secs(context.started.elapsed().as_secs())).to_string(),
        bridge: bridge.to_string(),
        host,
        port,
        missing: context.not_ready(),
        inventory: context.snapshot.ready().ok().as_deref().map(Summary::of),
    };
    page.render().map_err(|error| {
        tracing::error!(%error, "the page cannot be written");
        Trouble::Framework(StatusCode::INTERNAL_SERVER_ERROR, String::new())
    })
}

fn host_and_port(bridge: &str) -> (String, u16) {
    let url = url::Url::parse(bridge).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default().to_owned();
    let port = url.as_ref().and_then(url::Url::port_or_known_default).unwrap_or_default();
    (host, port)
}
