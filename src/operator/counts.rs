//! What running pods count: asked over HTTP, with limits, and done without if there is no answer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::arguments::METRICS_PORT;

/// The whole answer is some kilobytes from inside the cluster.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A pod is not asked more often.
const PERIOD: Duration = Duration::from_secs(30);
/// What a pod counted is forgotten after this.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// Pods that are asked at once.
const MAX_PODS: usize = 16;
const MAX_ANSWER: usize = 256 * 1024;

/// What a running pod counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Its version.
    pub version: Option<String>,
    /// InfraEnvs.
    pub environments: Option<i64>,
    /// BareMetalHosts.
    pub hosts: Option<i64>,
    /// Overrides.
    pub overrides: Option<i64>,
    /// Things that several objects claim.
    pub conflicts: Option<i64>,
    /// Whether its artifact cache works, of several pods that of each; `None` if there is none.
    pub cache_enabled: Option<bool>,
}

impl Counts {
    /// Reads the page for Prometheus.
    pub fn parse(text: &str) -> Self {
        let samples: Vec<(&str, &str)> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
        // One with labels is the sum of its samples.
        let gauge = |name: &str| {
            let is_meant = |sample: &str| {
                sample
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
            };
            let values = samples
                .iter()
                .filter(|(sample, _)| is_meant(sample))
                .map(|(_, value)| value.parse::<i64>().ok());
            values.reduce(|sum, value| Some(sum? + value?)).flatten()
        };
        let build = |(sample, _): &(&str, &str)| {
            let version = sample
                .strip_prefix("ipxe_bridge_build_info{version=\"")?
                .strip_suffix("\"}")?;
            Some(version.to_owned())
        };
        Self {
            version: samples.iter().find_map(build),
            environments: gauge("ipxe_bridge_environments"),
            hosts: gauge("ipxe_bridge_hosts"),
            overrides: gauge("ipxe_bridge_overrides"),
            conflicts: gauge("ipxe_bridge_conflicts"),
            cache_enabled: gauge("ipxe_bridge_cache_enabled").map(|enabled| enabled == 1),
        }
    }

    /// With those of another pod: what belongs to each pod is right if it is right in all of them.
    fn join(self, other: Self) -> Self {
        let cache_enabled = [self.cache_enabled, other.cache_enabled]
            .into_iter()
            .flatten()
            .reduce(|one, other| one && other);
        Self { cache_enabled, ..self }
    }
}

/// Asks pods what they count, each only once in a while.
#[derive(Debug)]
pub struct Counter {
    client: reqwest::Client,
    last: Mutex<HashMap<SocketAddr, (Instant, Counts)>>,
}

impl Counter {
    /// # Errors
    ///
    /// If the HTTP client cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            last: Mutex::default(),
        })
    }

    /// What the ready pods count: all have the same inventory, each has its own cache. `None` if none of them is known.
    pub async fn ask(&self, pods: &[Value]) -> Option<Counts> {
        let addresses = pods.iter().filter_map(metrics_address).take(MAX_PODS);
        let counted = futures::future::join_all(addresses.map(|address| self.ask_one(address))).await;
        counted.into_iter().flatten().reduce(Counts::join)
    }

    /// What a pod counts. Where it does not answer now, what it counted before stays true for a while.
    async fn ask_one(&self, address: SocketAddr) -> Option<Counts> {
        let known = self.last().get(&address).cloned();
        if let Some((_, counts)) = known.as_ref().filter(|(asked, _)| asked.elapsed() < PERIOD) {
            return Some(counts.clone());
        }
        let Some(text) = self.fetch(address).await else {
            return known
                .filter(|(asked, _)| asked.elapsed() < FORGOTTEN)
                .map(|(_, counts)| counts);
        };
        let counts = Counts::parse(&text);
        let mut last = self.last();
        last.retain(|_, (asked, _)| asked.elapsed() < FORGOTTEN);
        last.insert(address, (Instant::now(), counts.clone()));
        Some(counts)
    }

    fn last(&self) -> MutexGuard<'_, HashMap<SocketAddr, (Instant, Counts)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self, address: SocketAddr) -> Option<String> {
        let mut answer = self
            .client
            .get(format!("http://{address}/metrics"))
            .send()
            .await
            .ok()?
            .error_for_status()
            .ok()?;
        let mut text = Vec::new();
        while let Some(piece) = answer.chunk().await.ok()? {
            if text.len() + piece.len() > MAX_ANSWER {
                return None;
            }
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).ok()
    }
}

/// Where a ready pod has its metrics.
fn metrics_address(pod: &Value) -> Option<SocketAddr> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let is_ready = conditions
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let address: IpAddr = pod["status"]["podIP"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(address, u16::try_from(METRICS_PORT).ok()?)).filter(|_| is_ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pod_with_a_broken_cache_is_enough() {
        let pod = |cache_enabled| Counts {
            hosts: Some(3),
            cache_enabled,
            ..Counts::default()
        };
        let joined = |pods: &[Option<bool>]| {
            pods.iter()
                .copied()
                .map(pod)
                .reduce(Counts::join)
                .and_then(|counts| counts.cache_enabled)
        };
        assert_eq!(joined(&[Some(true), Some(false), Some(true)]), Some(false));
        assert_eq!(joined(&[None, Some(true)]), Some(true));
        assert_eq!(joined(&[None, None]), None);
    }

    #[test]
    fn a_page_for_prometheus_becomes_counts() {
        let page = "# TYPE ipxe_bridge_hosts gauge\nipxe_bridge_hosts 12\nipxe_bridge_host_files 3\nipxe_bridge_conflicts 0\nipxe_bridge_cache_enabled 1\n\
                    ipxe_bridge_overrides{reason=\"Serving\"} 2\nipxe_bridge_overrides{reason=\"Expired\"} 1\n\
                    ipxe_bridge_build_info{version=\"1.2.3\"} 1\n# EOF\n";
        let expected = Counts {
            version: Some("1.2.3".to_owned()),
            environments: None,
            hosts: Some(12),
            overrides: Some(3),
            conflicts: Some(0),
            cache_enabled: Some(true),
        };
        assert_eq!(Counts::parse(page), expected);
        assert_eq!(Counts::parse("<html>"), Counts::default());
    }

    #[test]
    fn only_a_ready_pod_is_asked() {
        let pod =
            |ready: &str| serde_json::json!({"status": {"podIP": "fd00::7", "conditions": [{"type": "Ready", "status": ready}]}});
        assert_eq!(metrics_address(&pod("False")), None);
        assert_eq!(metrics_address(&pod("True")), "[fd00::7]:9877".parse().ok());
    }
}
