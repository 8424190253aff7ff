//! The status of overrides in the cluster: what became of each, and how often it was served.
//!
//! Everything but a `bootLimit`'s count is written off the request path: what changes within [`PAUSE`] is one write, and a second bridge
//! that sees the same finds nothing left to write. A status says what the bridge saw last; nobody is fought over it.

mod claims;
mod merge;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use crate::boot::decision::ByOverride;
use crate::boot::mac::MacAddr;
use crate::boot::name::ObjectName;
use crate::crd::foreign::{Kind as _, Object};
use crate::crd::host_override::{HostOverrideKind, IpxeHostOverrideStatus};

use super::trouble::NotCounted;
pub use claims::Claim;
pub use report::follow;

/// Least time between two writes of one override's counts by one server.
pub const PAUSE: Duration = Duration::from_secs(10);
/// Machines in a status; its schema says the same.
const MOST_MACHINES: usize = 1000;

/// An override as the API server has it.
type Live = Object<HostOverrideKind>;

/// Times that an override was served and that its status does not say yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tally {
    count: u32,
    last: Timestamp,
    address: String,
}

type Tallies = BTreeMap<MacAddr, Tally>;

/// What the request path tells the writer of statuses.
#[derive(Debug)]
pub struct Reports {
    tallies: Mutex<HashMap<ObjectName, Tallies>>,
    claims: mpsc::Sender<Claim>,
}

impl Reports {
    /// The two ends of it; the second counts boots.
    pub fn new() -> (Self, mpsc::Receiver<Claim>) {
        // More than that many machines at once wait for their turn.
        let (claims, receiver) = mpsc::channel(1024);
        let reports = Self {
            tallies: Mutex::default(),
            claims,
        };
        (reports, receiver)
    }

    /// An override without a limit was served.
    pub fn served(&self, name: &ObjectName, mac: MacAddr, address: &str) {
        let tally = Tally {
            count: 1,
            last: Timestamp::now(),
            address: address.to_owned(),
        };
        add(self.lock().entry(name.clone()).or_default(), mac, tally);
    }

    /// Counts a boot in the status before it happens.
    pub async fn count(&self, by: &ByOverride, limit: u32, mac: MacAddr, address: &str) -> Result<(), NotCounted> {
        claims::send(&self.claims, by, limit, mac, address).await
    }

    fn take(&self, name: &ObjectName) -> Tallies {
        self.lock().remove(name).unwrap_or_default()
    }

    /// What could not be written waits for the next time.
    fn put_back(&self, name: &ObjectName, tallies: Tallies) {
        let mut all = self.lock();
        let waiting = all.entry(name.clone()).or_default();
        for (mac, tally) in tallies {
            add(waiting, mac, tally);
        }
    }

    fn is_waiting(&self, name: &ObjectName) -> bool {
        self.lock().contains_key(name)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectName, Tallies>> {
        // Every change is a sum: a panic in between cannot leave half of one.
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(tallies: &mut Tallies, mac: MacAddr, tally: Tally) {
    let Some(known) = tallies.get_mut(&mac) else {
        tallies.insert(mac, tally);
        return;
    };
    known.count = known.count.saturating_add(tally.count);
    if known.last < tally.last {
        (known.last, known.address) = (tally.last, tally.address);
    }
}

fn api(client: &Client, name: &ObjectName) -> Api<Live> {
    Api::namespaced(client.clone(), name.namespace())
}

/// Writes a status if the object did not change since it was read; the API server answers 409 otherwise.
async fn write(client: &Client, name: &ObjectName, live: &Live, status: &IpxeHostOverrideStatus) -> kube::Result<Live> {
    // An empty list must be said, or a merge leaves the old one.
    let patch = json!({
        "apiVersion": format!("{}/{}", HostOverrideKind::GROUP, HostOverrideKind::VERSION),
        "kind": HostOverrideKind::KIND,
        "metadata": {"resourceVersion": live.metadata.resource_version},
        "status": with_empty_lists(status),
    });
    api(client, name)
        .patch_status(name.name(), &PatchParams::default(), &Patch::Merge(patch))
        .await
}

fn with_empty_lists(status: &IpxeHostOverrideStatus) -> serde_json::Value {
    let mut value = json!(status);
    if status.machines.is_empty() {
        value["machines"] = json!([]);
    }
    value
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Why a status could not be written, for a person.
fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            "not allowed: the role needs get on ipxehostoverrides and patch on ipxehostoverrides/status".to_owned()
        }
        kube::Error::Api(status) => format!("the API server answered {}: {}", status.code, status.message),
        _ => "the API server cannot be reached".to_owned(),
    }
}
