//! What a running pod counts: asked over HTTP, with limits, and done without if there is no answer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::arguments::METRICS_PORT;

/// The whole answer is some kilobytes from inside the cluster.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A pod is not asked more often.
const PERIOD: Duration = Duration::from_secs(30);
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
    /// Whether its artifact cache works; `None` if it has none.
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
            let version = sample.strip_prefix("ipxe_bridge_build{version=\"")?.strip_suffix("\"}")?;
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

    /// What the first ready pod counts; `None` if there is none or it does not answer.
    pub async fn ask(&self, pods: &[Value]) -> Option<Counts> {
        let address = pods.iter().find_map(metrics_address)?;
        let known = self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&address)
            .cloned();
        if let Some((_, counts)) = known.filter(|(asked, _)| asked.elapsed() < PERIOD) {
            return Some(counts);
        }
        let counts = Counts::parse(&self.fetch(address).await?);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, (asked, _)| asked.elapsed() < 10 * PERIOD);
        last.insert(address, (Instant::now(), counts.clone()));
        Some(counts)
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
    fn a_page_for_prometheus_becomes_counts() {
        let page = "# TYPE ipxe_bridge_hosts gauge\nipxe_bridge_hosts 12\nipxe_bridge_host_files 3\nipxe_bridge_conflicts 0\nipxe_bridge_cache_enabled 1\n\
                    ipxe_bridge_overrides{reason=\"Serving\"} 2\nipxe_bridge_overrides{reason=\"Expired\"} 1\n\
                    ipxe_bridge_build{version=\"1.2.3\"} 1\n# EOF\n";
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
