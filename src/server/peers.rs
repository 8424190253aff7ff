//! What other replicas saw of boots: each tells what it saw itself, and asks the others for theirs, so that whichever is asked knows the
//! whole boot.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::boot_id::random;
use super::cache::store::hex;
use super::context::Context;
use super::timeline::Told;

/// Path of what a server tells its peers, on the port of its metrics.
pub const PATH: &str = "/boots-seen-here";
/// How often the others are asked.
const PERIOD: Duration = Duration::from_secs(2);
/// How long a server that is about to end waits for the others to ask once more.
pub const LAST_CALL: Duration = Duration::from_secs(3);
/// Whoever has not answered for so long is gone, and with it what it was sending.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest time for an answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest answer: everything that a server remembers is about half of it.
const MAX_ANSWER: usize = 64 << 20;
/// What was told before is told again for so long, in seconds: clocks differ.
const OVERLAP: i64 = 120;
/// Most peers that are asked; a name that leads to more is not one of replicas.
const PEERS: usize = 64;

/// What a server tells its peers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Which process tells it: a name that leads to all replicas leads to oneself, too.
    pub process: String,
    /// Boots of which something moved lately.
    pub boots: Vec<Told>,
}

/// Asks the others for ever. Each name is that of a host with the port of its metrics; one may lead to all replicas.
pub async fn follow(names: Vec<String>, context: Arc<Context>) {
    let Ok(client) = reqwest::Client::builder().no_proxy().timeout(LIMIT).build() else {
        tracing::error!("other replicas cannot be asked: no HTTP client");
        return;
    };
    // From which second on each was not asked yet.
    let mut asked: HashMap<SocketAddr, i64> = HashMap::new();
    let mut heard: HashMap<String, Instant> = HashMap::new();
    let mut trouble = String::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let (mut found, mut why) = (Vec::new(), String::new());
        for name in &names {
            match tokio::net::lookup_host(name).await {
                Ok(addresses) => found.extend(addresses.take(PEERS)),
                Err(error) => why = format!("{name}: {error}"),
            }
        }
        if why != trouble {
            // Once, not every two seconds.
            match why.is_empty() {
                true => tracing::info!("other replicas are found again"),
                false => tracing::warn!(why, "other replicas are not found, what they see of boots is not known here"),
            }
            trouble = why;
        }
        asked.retain(|address, _| found.contains(address));
        let now = Timestamp::now().as_second();
        let since = |address: &SocketAddr| asked.get(address).copied().unwrap_or_default();
        let asks: Vec<_> = found.iter().map(|address| (*address, since(address))).collect();
        let answers: Vec<_> = futures::stream::iter(asks)
            .map(|(address, since)| {
                let client = client.clone();
                async move { (address, ask(&client, address, since).await) }
            })
            .buffer_unordered(8)
            .collect()
            .await;
        for (address, answer) in answers {
            match answer {
                Ok(seen) if seen.process == context.process => {
                    asked.insert(address, now);
                }
                Ok(seen) => {
                    asked.insert(address, now - OVERLAP);
                    context.timeline.hear(&seen.process, seen.boots);
                    heard.insert(seen.process, Instant::now());
                }
                // It may be about to start or to end.
                Err(error) => tracing::debug!(%address, error, "a replica does not answer"),
            }
        }
        heard.retain(|process, last| {
            let is_there = last.elapsed() < SILENCE;
            if !is_there {
                context.timeline.lost(process, Timestamp::now());
            }
            is_there
        });
    }
}

async fn ask(client: &reqwest::Client, address: SocketAddr, since: i64) -> Result<Seen, String> {
    let answer = client.get(format!("http://{address}{PATH}?since={since}")).send().await;
    let mut answer = answer
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| error.to_string())?;
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| error.to_string())? {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err("its answer is too long".to_owned());
        }
        body.extend_from_slice(&piece);
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

/// A name for this process among its peers.
pub fn process() -> String {
    hex(&random::<8>())
}

/// What this server saw since then.
pub fn seen(context: &Context, since: i64) -> Seen {
    Seen {
        process: context.process.clone(),
        boots: context.timeline.tell(since),
    }
}
