//! Scripts for machines that boot.

use std::sync::Arc;

use poem::Request;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::PlainText;
use poem_openapi::{ApiResponse, OpenApi};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::boot::decision::{Boot, Decision, Rule};
use crate::boot::mac::MacAddr;
use crate::boot::render;
use crate::boot::way::Way;
use crate::server::answer::Answer;
use crate::server::context::Context;
use crate::server::middleware;
use crate::server::snapshot::Published;
use crate::server::timeline::Script;
use crate::server::trace;
use crate::server::trouble::Trouble;

use super::problem::Failure;
use super::{Tag, example};

/// Scripts.
pub struct BootApi {
    context: Arc<Context>,
}

/// A script.
#[derive(ApiResponse)]
enum ScriptResponse {
    /// An iPXE script
    #[oai(status = 200, content_type = "text/plain; charset=utf-8")]
    Script(
        PlainText<String>,
        /// The rule that decided
        #[oai(header = "Ipxe-Bridge-Rule")]
        Option<String>,
        /// Seconds for which the inventory may have missed changes; absent while it is current
        #[oai(header = "Ipxe-Bridge-Inventory-Age")]
        Option<u64>,
    ),
}

impl BootApi {
    /// The group.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

/// The addresses in a list. Cards that are not there leave empty places in it.
pub(super) fn all_cards(list: Option<&str>) -> Vec<MacAddr> {
    list.unwrap_or_default()
        .split(',')
        .filter_map(|nic| nic.parse().ok())
        .collect()
}

/// The override that decided what a machine boots, if one did.
fn by_override(decision: &Decision) -> Option<String> {
    let by = decision.by_override.as_ref().filter(|_| decision.rule() == Rule::Override);
    by.map(|by| by.name.to_string())
}

fn script(text: String, rule: Option<String>, published: Option<&Published>) -> ScriptResponse {
    let age = published.and_then(Published::stale_for).map(|age| age.as_secs());
    ScriptResponse::Script(PlainText(text), rule, age)
}

#[OpenApi(tag = "Tag::Boot")]
impl BootApi {
    /// The script to start with
    ///
    /// The same for every machine, from iPXE of 2019 to today: it asks for the script of the card that boots, and names all other cards
    /// of the machine. Use its address as DHCP boot file name for clients that are iPXE.
    #[oai(path = "/boot.ipxe", method = "get", operation_id = "bootstrap")]
    async fn bootstrap(
        &self,
        /// How the machine came, as `ipxe-bridge netboot` tells it; it is handed on to the machine's own script
        #[oai(example = "example::way")]
        way: Query<Option<String>>,
    ) -> ScriptResponse {
        let way = way.0.and_then(|way| way.parse().ok());
        script(render::bootstrap_script(way.as_ref()), None, None)
    }

    /// The script to start with, under the name that UEFI iPXE looks for by itself
    #[oai(path = "/autoexec.ipxe", method = "get", operation_id = "autoexec")]
    async fn autoexec(&self) -> ScriptResponse {
        script(render::bootstrap_script(None), None, None)
    }

    /// One script for all hosts
    ///
    /// Looks every card of the machine up among the known MAC addresses, then asks for that one's script, or for the default.
    #[oai(path = "/ipxe-boot", method = "get", operation_id = "ipxeBoot")]
    async fn ipxe_boot(&self) -> Result<ScriptResponse, Failure> {
        let published = self.context.inventory()?;
        Ok(script(render::dispatch_script(&published.inventory), None, Some(&published)))
    }

    /// The script for a machine
    ///
    /// Decided in this order: override, BareMetalHost, host file, default environment, policy for unknown hosts; then the boot policy.
    /// `/explain/{mac}` shows each step.
    #[oai(path = "/ipxe-mac-boot/:mac", method = "get", operation_id = "ipxeMacBoot")]
    async fn mac_boot(
        &self,
        request: &Request,
        /// MAC address with colons, hyphens, dots or bare, in any case
        #[oai(example = "example::mac")]
        mac: Path<String>,
        /// MAC addresses of all cards of the machine, separated by commas: the first that is known counts if `mac` is not
        #[oai(example = "example::nics")]
        nics: Query<Option<String>>,
        /// How the machine came; shown with its boot, and decides nothing
        #[oai(example = "example::way")]
        way: Query<Option<String>>,
    ) -> Result<ScriptResponse, Failure> {
        let mac = mac.0.parse().map_err(Trouble::BadMac)?;
        let nics = all_cards(nics.0.as_deref());
        let bridge = self.context.public_url(request)?;
        let published = self.context.inventory()?;
        let decision = self.context.decide(&published, mac, &nics);
        let now = jiff::Timestamp::now();
        let boot = trace::begin_boot(decision.mac, now);
        let is_head = middleware::is_head(request);
        let way = way.0.and_then(|way| way.parse::<Way>().ok());
        let way = way.filter(|way| way.is_of(now.as_millisecond()));
        let signed = self.context.boot_keys.load().sign(&boot, now);
        let answer = self
            .context
            .answer(&published.inventory, &decision, &bridge, Some(&signed))
            .await;
        let answer = match is_head {
            true => answer,
            false => {
                let counted = self.context.account(&decision, &answer, &middleware::client(request)).await;
                counted.and(answer)
            }
        };
        let answer = match answer {
            // The bootstrap script cannot tell a 404 from a broken connection and would ask again: it gets the same in its own words.
            Err(Trouble::NothingToBoot(why)) if !nics.is_empty() => Ok(Answer {
                script: render::nothing_script(decision.mac, &why),
                boots: decision.boot.name(),
                upstream: None,
            }),
            answer => answer,
        };
        let rule = decision.rule().to_string();
        // To HEAD nothing was served.
        if !is_head {
            self.context.metrics.script(&rule, answer.is_ok());
        }
        let (client, trace_id) = (middleware::client(request), boot.trace_text());
        match answer {
            Ok(answer) => {
                let why = answer.upstream.as_deref().unwrap_or(decision.reason());
                if boot.is_sampled {
                    let span = tracing::Span::current();
                    span.set_attribute("ipxe_bridge.mac", decision.mac.to_string());
                    span.set_attribute("ipxe_bridge.rule", rule.clone());
                    span.set_attribute("ipxe_bridge.boots", answer.boots);
                    span.set_attribute("ipxe_bridge.reason", why.to_owned());
                    trace::tell_way(&span, way.as_ref());
                }
                if !is_head {
                    // The span holds the same as attributes, so it does not need the line as an event.
                    tracing::info!(parent: None, mac = %decision.mac, rule, client, trace_id, "script served: {why}");
                    let environment = match &decision.boot {
                        Boot::Environment(environment, _) => Some(environment.name.to_string()),
                        _ => None,
                    };
                    let script = Script {
                        boots: answer.boots.into(),
                        environment,
                        rule: rule.clone(),
                        by_override: by_override(&decision),
                        reason: why.to_owned(),
                        client,
                        way,
                    };
                    self.context.timeline.script(&boot, script, now);
                }
                Ok(script(answer.script, Some(rule), Some(&published)))
            }
            Err(trouble) => {
                if !is_head {
                    let why = trouble.problem().detail;
                    tracing::warn!(mac = %decision.mac, rule, client, trace_id, "no script: {why}");
                }
                Err(trouble.into())
            }
        }
    }

    /// Upstream's script for a machine, unchanged
    ///
    /// It holds a token of the environment that does not expire, so the server serves it only with `--script-proxy`.
    #[oai(path = "/ipxe-mac-proxy/:mac", method = "get", operation_id = "ipxeMacProxy")]
    async fn mac_proxy(
        &self,
        /// MAC address with colons, hyphens, dots or bare, in any case
        #[oai(example = "example::mac")]
        mac: Path<String>,
    ) -> Result<ScriptResponse, Failure> {
        let mac: MacAddr = mac.0.parse().map_err(Trouble::BadMac)?;
        if !self.context.settings.script_proxy {
            return Err(Trouble::ScriptProxyOff.into());
        }
        let published = self.context.inventory()?;
        let decision = self.context.decide(&published, mac, &[]);
        let rule = Some(decision.rule().to_string());
        match &decision.boot {
            // It would leave out what an override says.
            _ if decision.by_override.is_some() => {
                let why = format!("an override decides: {}; use /ipxe-mac-boot", decision.reason());
                Err(Trouble::NothingToBoot(why).into())
            }
            Boot::Environment(environment, _) => {
                let body = self.context.unchanged_script(environment, mac).await?;
                let text =
                    String::from_utf8(body).map_err(|_| Trouble::Upstream(crate::boot::script::ScriptError::NotText.into()))?;
                Ok(script(text, rule, Some(&published)))
            }
            Boot::NotYet(awaited) => Err(Trouble::NotYet(awaited.clone()).into()),
            _ => Err(Trouble::NothingToBoot(format!("no environment's script is due: {}", decision.reason())).into()),
        }
    }
}
