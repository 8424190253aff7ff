//! What is around the pods of a bridge: variables, telemetry, network policy, disruption budget.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reading::LogLevel;
use super::{Mode, Switch};

/// When an image is pulled.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[expect(missing_docs, reason = "as Kubernetes has them")]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// A Secret of the bridge's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// A variable of the container.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
pub struct EnvVar {
    /// Its name: `HTTPS_PROXY`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    #[x_kube(validation = Rule::new("!self.startsWith('IPXE_BRIDGE_') && !self.startsWith('FLASK_') && !(self in ['LOOP_TIMING', 'ADDITIONAL_HOST_CONFIG_PATH'])").message(
        "settings of the bridge have fields of their own in spec: use the field in place of the variable"
    ))]
    pub name: String,
    /// Its value.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// Logs, traces and metrics.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.prometheusRule.mode != 'Enabled' || self.serviceMonitor.mode != 'Disabled'").message(
    "alerts need the metrics: set serviceMonitor.mode to Auto or Enabled, or prometheusRule.mode to Disabled"
))]
pub struct Telemetry {
    /// Least level that is logged: `Error`, `Warn`, `Info`, `Debug` or `Trace`.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Collector of traces, OTLP over HTTP: `http://collector.observability.svc:4318`. Default: no traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[!-~]+$"))]
    pub otlp_endpoint: Option<String>,
    /// How many traces of a hundred are kept.
    #[serde(default = "every")]
    #[schemars(range(min = 0, max = 100))]
    pub sampling_percent: i32,
    /// Whether Events on the BareMetalHost or override of a machine tell how its boot ended.
    #[serde(default = "Switch::disabled")]
    pub boot_events: Switch,
    /// A ServiceMonitor for the Prometheus operator.
    #[serde(default)]
    pub service_monitor: Monitor,
    /// Alerts for the Prometheus operator, as a PrometheusRule; there are none without the ServiceMonitor, or where `replicas` is 0.
    #[serde(default)]
    pub prometheus_rule: Monitor,
    /// `Enabled`: a ConfigMap with dashboards and the label `grafana_dashboard: "1"`, by which Grafana's sidecar finds it. `Disabled`: none.
    #[serde(default = "Switch::disabled")]
    pub grafana_dashboards: Switch,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_level: LogLevel::default(),
            otlp_endpoint: None,
            sampling_percent: every(),
            boot_events: Switch::Disabled,
            service_monitor: Monitor::default(),
            prometheus_rule: Monitor::default(),
            grafana_dashboards: Switch::Disabled,
        }
    }
}

fn every() -> i32 {
    100
}

/// An object for the Prometheus operator.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Monitor {
    /// `Auto`: where the cluster has this kind. `Enabled`: wanted. `Disabled`: none.
    #[serde(default)]
    pub mode: Mode,
    /// Labels by which a Prometheus finds it: `release: prometheus`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
}

/// Who may connect to the pods.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct NetworkPolicy {
    /// `Enabled`: everybody reaches the ports for machines, pods of the cluster reach the metrics, nobody reaches anything else. What the
    /// bridge itself may reach is not limited. `Disabled`: no NetworkPolicy.
    #[serde(default = "Switch::enabled")]
    pub mode: Switch,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { mode: Switch::Enabled }
    }
}

/// How many pods may be away while nodes are drained.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionBudget {
    /// `Enabled`: a PodDisruptionBudget. `Disabled`: none.
    #[serde(default = "Switch::enabled")]
    pub mode: Switch,
    /// Pods that may be away at once.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub max_unavailable: i32,
}

impl Default for DisruptionBudget {
    fn default() -> Self {
        Self {
            mode: Switch::Enabled,
            max_unavailable: one(),
        }
    }
}

fn one() -> i32 {
    1
}
