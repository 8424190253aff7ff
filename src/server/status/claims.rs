//! Boots of overrides with a limit: counted in the status, with its resource version, before the script is sent.
//!
//! All machines that ask while an override's status is being written wait together for the next write.

use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use kube::Client;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::boot::decision::ByOverride;
use crate::boot::mac::MacAddr;
use crate::boot::name::ObjectName;

use super::merge;
use super::{Tally, api, describe, is_conflict, write};
use crate::server::trouble::NotCounted;

/// How long a machine waits for its boot to be counted before it is told to ask again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A machine that is to boot an override with a limit.
#[derive(Debug)]
pub struct Claim {
    by: ByOverride,
    limit: u32,
    mac: MacAddr,
    address: String,
    reply: oneshot::Sender<Result<(), NotCounted>>,
}

/// Asks for a boot to be counted.
pub(super) async fn send(
    claims: &mpsc::Sender<Claim>,
    by: &ByOverride,
    limit: u32,
    mac: MacAddr,
    address: &str,
) -> Result<(), NotCounted> {
    let (reply, answer) = oneshot::channel();
    let claim = Claim {
        by: by.clone(),
        limit,
        mac,
        address: address.to_owned(),
        reply,
    };
    let gone = || NotCounted::Unwritable("the server is about to end".to_owned());
    claims.send(claim).await.map_err(|_| gone())?;
    answer.await.unwrap_or_else(|_| Err(gone()))
}

/// Counts what is asked for, for ever: one write at a time for each override.
pub(super) async fn serve(client: Client, mut claims: mpsc::Receiver<Claim>) {
    // An entry means that a write is under way; what came since is in it.
    let mut waiting: HashMap<ObjectName, Vec<Claim>> = HashMap::new();
    let mut writes = JoinSet::new();
    loop {
        tokio::select! {
            claim = claims.recv() => {
                let Some(claim) = claim else { return };
                let name = claim.by.name.clone();
                match waiting.get_mut(&name) {
                    Some(others) => others.push(claim),
                    None => {
                        waiting.insert(name.clone(), Vec::new());
                        writes.spawn(count(client.clone(), name, vec![claim]));
                    }
                }
            }
            Some(done) = writes.join_next() => {
                // A write that panicked would leave its name here for ever; there is none (no unwrap, no index).
                let Ok(name) = done else { continue };
                match waiting.remove(&name) {
                    Some(next) if !next.is_empty() => {
                        waiting.insert(name.clone(), Vec::new());
                        writes.spawn(count(client.clone(), name, next));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Counts the boots of one override in one write; gives its name back.
async fn count(client: Client, name: ObjectName, claims: Vec<Claim>) -> ObjectName {
    let counted = timeout(PATIENCE, try_count(&client, &name, &claims)).map(|result| match result {
        Ok(counted) => counted,
        Err(_) => Err(format!("the API server did not answer within {PATIENCE:?}")),
    });
    let results = match counted.await {
        Ok(results) => results,
        Err(why) => vec![Err(NotCounted::Unwritable(why)); claims.len()],
    };
    for (claim, result) in claims.into_iter().zip(results) {
        // A machine that hung up meanwhile has used its boot: rather none than one too many.
        let _ = claim.reply.send(result);
    }
    name
}

async fn try_count(client: &Client, name: &ObjectName, claims: &[Claim]) -> Result<Vec<Result<(), NotCounted>>, String> {
    let started = Instant::now();
    loop {
        let live = api(client, name).get(name.name()).await.map_err(|error| describe(&error))?;
        let mut status = live.status.0.clone()?;
        let mut results = Vec::with_capacity(claims.len());
        for claim in claims {
            results.push(match () {
                () if live.metadata.generation != Some(claim.by.generation) => {
                    Err(NotCounted::Unwritable("it was changed just now".to_owned()))
                }
                () if merge::served(&status, claim.mac) >= claim.limit => Err(NotCounted::UsedUp),
                () => {
                    let tally = Tally {
                        count: 1,
                        last: Timestamp::now(),
                        address: claim.address.clone(),
                    };
                    match merge::count(&mut status, claim.mac, &tally) {
                        true => Ok(()),
                        false => Err(NotCounted::Unwritable(
                            "its status has no place for more machines: make an override for each group of them".to_owned(),
                        )),
                    }
                }
            });
        }
        if results.iter().all(Result::is_err) {
            return Ok(results);
        }
        match write(client, name, &live, &status).await {
            Ok(_) => return Ok(results),
            // Somebody else wrote first: look again. The pause differs from replica to replica.
            Err(error) if is_conflict(&error) => {
                let spread = started.elapsed().subsec_nanos() % 20;
                sleep(Duration::from_millis(u64::from(spread))).await;
            }
            Err(error) => return Err(describe(&error)),
        }
    }
}
