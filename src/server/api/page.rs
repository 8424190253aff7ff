//! The pages for people: values in, HTML out. They work without scripts, and say nothing that the API does not say.

mod assets;
mod boots;
mod hosts;
mod overview;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use http::StatusCode;
use jiff::Timestamp;
use poem::Request;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Html;
use poem_openapi::{ApiResponse, OpenApi};

use crate::boot::inventory::Conflict;
use crate::boot::mac::MacAddr;
use crate::server::context::Context;
use crate::server::trouble::Trouble;

use super::inventory::explanation::Explanation;
use super::problem::Failure;
use super::{Tag, example};
use boots::Progress;
use hosts::{List, Search};
use overview::{Overview, Shown};
use verdict::Verdict;

pub use assets::assets;

/// How long a host's page waits for upstream's part of the script.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pages for people.
pub struct PageApi {
    context: Arc<Context>,
}

#[derive(ApiResponse)]
enum PageResponse {
    /// The page
    #[oai(status = 200)]
    Page(Html<String>),
}

/// What every page has around it.
struct Frame {
    /// The way to the first page: addresses on a page are relative, as the bridge may be behind another's path.
    root: &'static str,
    /// What was searched for.
    query: String,
    version: &'static str,
    uptime: String,
    now: String,
}

impl Frame {
    fn new(context: &Context, root: &'static str, query: String) -> Self {
        let uptime = Duration::from_secs(context.started.elapsed().as_secs());
        Self {
            root,
            query,
            version: env!("CARGO_PKG_VERSION"),
            uptime: humantime::format_duration(uptime).to_string(),
            now: Timestamp::now().strftime("%F %T UTC").to_string(),
        }
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    missing: Vec<String>,
    view: Option<Overview>,
    boots: Shown<Progress>,
    blank: Progress,
    list: List,
    bridge: String,
    host: String,
    port: u16,
}

#[derive(Template)]
#[template(path = "host.html")]
struct HostPage {
    frame: Frame,
    title: String,
    mac: String,
    hyphenated: String,
    /// Which objects name it.
    named: String,
    verdict: Verdict,
    conflicts: Vec<Conflict>,
    boots: Vec<Progress>,
    blank: Progress,
    explanation: Explanation,
}

impl PageApi {
    /// The group.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

#[OpenApi(tag = "Tag::Inventory")]
impl PageApi {
    /// A page for people
    ///
    /// How the bridge is doing, what boots at the moment, what needs attention, what each host boots and why, and lines to copy into a DHCP server's configuration.
    #[oai(path = "/", method = "get", operation_id = "index")]
    async fn index(
        &self,
        request: &Request,
        /// Only hosts with this in their MAC address, name or environment
        #[oai(example = "example::search")]
        q: Query<Option<String>>,
        /// Only hosts of this environment, as `namespace/name`
        #[oai(example = "example::full_environment")]
        environment: Query<Option<String>>,
        /// Which page of the hosts, from 1
        #[oai(example = "example::page")]
        page: Query<Option<usize>>,
    ) -> Result<PageResponse, Failure> {
        let context = &self.context;
        let bridge = context.public_url(request)?.to_string();
        let search = Search::new(q.0.as_deref(), environment.0.as_deref());
        let published = context.snapshot.ready().ok();
        let list = published.as_deref().map(|published| {
            List::of(&published.inventory, &search, page.0.unwrap_or(1), |mac| {
                context.decide(published, mac, &[])
            })
        });
        let (host, port) = host_and_port(&bridge);
        let page = OverviewPage {
            frame: Frame::new(context, "./", search.text.clone()),
            missing: context.not_ready(),
            view: published.as_deref().map(|published| Overview::of(context, published)),
            boots: boots::in_progress(&context.timeline, Timestamp::now()),
            blank: Progress::blank(),
            list: list.unwrap_or_default(),
            bridge,
            host,
            port,
        };
        Ok(html(&page)?)
    }

    /// A machine's page for people
    ///
    /// What it boots and why, its last boots, and the exact script. Asking has no effect on anything.
    #[oai(path = "/hosts/:mac", method = "get", operation_id = "host")]
    async fn host(
        &self,
        request: &Request,
        /// MAC address with colons, hyphens, dots or bare, in any case
        #[oai(example = "example::mac")]
        mac: Path<String>,
    ) -> Result<PageResponse, Failure> {
        let mac: MacAddr = mac.0.parse().map_err(Trouble::BadMac)?;
        let bridge = self.context.public_url(request)?;
        let published = self.context.inventory()?;
        let inventory = &published.inventory;
        let decision = self.context.decide(&published, mac, &[]);
        let asked = Explanation::ask(&self.context, inventory, &decision, &bridge);
        let explanation = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
            let why = format!(
                "the service did not answer within {} s; a machine waits longer",
                PATIENCE.as_secs()
            );
            Explanation::without_script(&self.context, inventory, &decision, why)
        });
        let (title, named) = hosts::names(inventory, mac);
        let page = HostPage {
            frame: Frame::new(&self.context, "../", String::new()),
            title,
            mac: mac.to_string(),
            hyphenated: mac.hyphenated(),
            named,
            verdict: Verdict::of(&decision),
            conflicts: inventory
                .conflicts()
                .iter()
                .filter(|conflict| conflict.subject == mac.to_string())
                .cloned()
                .collect(),
            boots: boots::of_machine(&self.context.timeline, mac, Timestamp::now()),
            blank: Progress::blank(),
            explanation,
        };
        Ok(html(&page)?)
    }
}

fn html(page: &impl Template) -> Result<PageResponse, Trouble> {
    match page.render() {
        Ok(text) => Ok(PageResponse::Page(Html(text))),
        Err(error) => {
            tracing::error!(%error, "the page cannot be written");
            Err(Trouble::Framework(StatusCode::INTERNAL_SERVER_ERROR, String::new()))
        }
    }
}

fn host_and_port(bridge: &str) -> (String, u16) {
    let url = url::Url::parse(bridge).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default().to_owned();
    let port = url.as_ref().and_then(url::Url::port_or_known_default).unwrap_or_default();
    (host, port)
}
