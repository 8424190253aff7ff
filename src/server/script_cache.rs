//! Scripts of environments, kept for a while: they are the same for all hosts, and their addresses change with their content.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::boot::artifact::UpstreamUrl;
use crate::boot::script::UpstreamScript;

use super::upstream::{ScriptAnswer, Upstream, UpstreamError};

/// Scripts of environments: one fetch serves all hosts, for as long as the loop timing says.
#[derive(Debug, Default)]
pub struct ScriptCache {
    keep: Duration,
    entries: Mutex<HashMap<UpstreamUrl, Entry>>,
}

/// One script; whoever comes first fetches it, the others wait for it.
type Entry = Arc<tokio::sync::Mutex<Option<(Instant, Result<UpstreamScript, UpstreamError>)>>>;

/// A failure is the answer of everyone who waited for it; then it is worth trying again.
const KEEP_FAILURE: Duration = Duration::from_secs(2);

impl ScriptCache {
    /// A cache that keeps a script for this long.
    pub fn new(keep: Duration) -> Self {
        Self {
            keep,
            entries: Mutex::default(),
        }
    }

    /// The script at an address, fetched if it is not there or too old.
    pub async fn get(&self, upstream: &Upstream, url: &UpstreamUrl) -> Result<UpstreamScript, UpstreamError> {
        let entry = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            if !entries.contains_key(url) {
                // An address changes with its environment: what nobody asked for since then goes.
                // One that is being fetched cannot be looked into, and stays.
                entries.retain(|_, entry| match entry.try_lock() {
                    Ok(entry) => entry.as_ref().is_some_and(|(at, _)| at.elapsed() < self.keep),
                    Err(_) => true,
                });
            }
            entries.entry(url.clone()).or_default().clone()
        };
        let mut entry = entry.lock().await;
        if let Some((at, script)) = entry.as_ref()
            && at.elapsed() < if script.is_ok() { self.keep } else { KEEP_FAILURE }
        {
            return script.clone();
        }
        let script = fetch(upstream, url).await;
        *entry = Some((Instant::now(), script.clone()));
        script
    }
}

async fn fetch(upstream: &Upstream, url: &UpstreamUrl) -> Result<UpstreamScript, UpstreamError> {
    match upstream.script(url).await? {
        ScriptAnswer::Script(body) => Ok(UpstreamScript::parse(&body)?),
        // Said of a machine, but no machine was asked for.
        ScriptAnswer::Skipped(_) | ScriptAnswer::Doubled(_) => Err(UpstreamError::Status(404)),
    }
}
