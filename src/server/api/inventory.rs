//! What the bridge knows, and why it decides what it decides.

pub mod explanation;
mod view;

use std::sync::Arc;

use poem::Request;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};

use crate::boot::mac::MacAddr;
use crate::server::context::Context;
use crate::server::trouble::Trouble;

use super::problem::Failure;
use super::{Tag, boot, example};
use explanation::Explanation;
use view::InventoryView;

/// The inventory.
pub struct InventoryApi {
    context: Arc<Context>,
}

#[derive(ApiResponse)]
enum InventoryResponse {
    /// Everything the bridge knows
    #[oai(status = 200)]
    Inventory(Json<InventoryView>),
}

#[derive(ApiResponse)]
enum KnownMachinesResponse {
    /// Every machine that is named
    #[oai(status = 200)]
    Machines(Json<KnownMachines>),
}

/// The machines that something names: an override, a BareMetalHost or a host file.
#[derive(Debug, Object)]
#[oai(example, rename_all = "camelCase")]
struct KnownMachines {
    /// Their MAC addresses, in order.
    mac_addresses: Vec<String>,
}

impl Example for KnownMachines {
    fn example() -> Self {
        Self {
            mac_addresses: vec!["52:54:00:cc:00:01".to_owned()],
        }
    }
}

#[derive(ApiResponse)]
enum ExplanationResponse {
    /// Every rule in order, and the exact script
    #[oai(status = 200)]
    Explanation(Json<Explanation>),
}

impl InventoryApi {
    /// The group.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

#[OpenApi(tag = "Tag::Inventory")]
impl InventoryApi {
    /// What the bridge knows
    ///
    /// Environments, their hosts, host files, conflicts, and every object that was skipped, with the cause. Holds no address of upstream.
    #[oai(path = "/inventory", method = "get", operation_id = "inventory")]
    async fn inventory(&self) -> Result<InventoryResponse, Failure> {
        let published = self.context.inventory()?;
        Ok(InventoryResponse::Inventory(Json(InventoryView::of(&published))))
    }

    /// The machines that the bridge knows
    ///
    /// Those that something names, rather than the default environment or the policy for unknown hosts. `ipxe-bridge netboot` asks for
    /// them, to leave all others alone.
    #[oai(path = "/known-machines", method = "get", operation_id = "knownMachines")]
    async fn known_machines(&self) -> Result<KnownMachinesResponse, Failure> {
        let published = self.context.inventory()?;
        let mac_addresses = published.inventory.known_macs().iter().map(ToString::to_string).collect();
        Ok(KnownMachinesResponse::Machines(Json(KnownMachines { mac_addresses })))
    }

    /// Why a machine boots what it boots
    ///
    /// Every rule in order, what it found, and the exact script. Asking has no effect on anything.
    #[oai(path = "/explain/:mac", method = "get", operation_id = "explain")]
    async fn explain(
        &self,
        request: &Request,
        /// MAC address with colons, hyphens, dots or bare, in any case
        #[oai(example = "example::mac")]
        mac: Path<String>,
        /// MAC addresses of all cards of the machine, separated by commas: the first that is known counts if `mac` is not
        #[oai(example = "example::nics")]
        nics: Query<Option<String>>,
    ) -> Result<ExplanationResponse, Failure> {
        let mac: MacAddr = mac.0.parse().map_err(Trouble::BadMac)?;
        let bridge = self.context.public_url(request)?;
        let published = self.context.inventory()?;
        let decision = self.context.decide(&published, mac, &boot::all_cards(nics.0.as_deref()));
        let explanation = Explanation::ask(&self.context, &published.inventory, &decision, &bridge).await;
        Ok(ExplanationResponse::Explanation(Json(explanation)))
    }
}
