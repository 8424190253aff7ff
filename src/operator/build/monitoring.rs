//! Alerts and dashboards of a bridge: those of `config`, made to speak of this bridge only.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::metadata;
use crate::operator::plan::{Plan, object_name};
use crate::operator::{digest, name};

/// Alerts about all bridges.
static RULES: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../config/prometheus/rules.yaml");
    serde_saphyr::from_str(text).expect("a part of the program, which tests read")
});
/// Dashboards about all bridges, each with its name.
const DASHBOARDS: [(&str, &str); 2] = [
    ("overview", include_str!("../../../config/grafana/overview.json")),
    ("boot", include_str!("../../../config/grafana/boot.json")),
];
/// In every selector of `config`: any bridge.
const ANY_BRIDGE: &str = r#"job!="""#;
/// Grafana's sidecar, as its Helm chart runs it, reads ConfigMaps with this label.
const DASHBOARD_LABEL: &str = "grafana_dashboard";

/// The selector of a bridge's metrics: the Prometheus operator calls the job by the Service that its ServiceMonitor selects.
fn this_bridge(plan: &Plan) -> String {
    format!(r#"namespace="{}",job="{}""#, plan.namespace, name::metrics(&plan.bridge))
}

/// Alerts about a bridge.
pub fn prometheus_rule(plan: &Plan) -> Value {
    let mut meta = metadata(plan, object_name(plan));
    let labels = meta.labels.get_or_insert_default();
    labels.extend(plan.spec.telemetry.prometheus_rule.labels.clone());
    let spec = replaced(&RULES["spec"], &[(ANY_BRIDGE, &this_bridge(plan))]);
    json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": meta, "spec": spec})
}

/// Dashboards of a bridge. Their ids and titles are its own, as Grafana keeps one of each.
///
/// # Errors
///
/// None that depend on the plan: only if a dashboard is no JSON.
pub fn dashboards(plan: &Plan) -> Result<ConfigMap, serde_json::Error> {
    let own = this_bridge(plan);
    // A dashboard's id has at most 40 characters.
    let suffix = digest::of(&plan.bridge);
    let (overview, boot) = (format!("ipxe-bridge-overview-{suffix}"), format!("ipxe-bridge-boot-{suffix}"));
    let title = format!("ipxe-bridge {}: ", plan.bridge);
    let replacements = [
        (ANY_BRIDGE, own.as_str()),
        ("ipxe-bridge-overview", &overview),
        ("ipxe-bridge-boot", &boot),
        ("ipxe-bridge: ", &title),
    ];
    let mut meta = metadata(plan, name::dashboards(&plan.bridge));
    meta.labels
        .get_or_insert_default()
        .insert(DASHBOARD_LABEL.to_owned(), "1".to_owned());
    let data = DASHBOARDS.iter().map(|(dashboard, text)| {
        let value = replaced(&serde_json::from_str(text)?, &replacements);
        // The sidecar writes all keys into one folder.
        Ok((
            format!("{}-{dashboard}.json", object_name(plan)),
            serde_json::to_string_pretty(&value)?,
        ))
    });
    Ok(ConfigMap {
        metadata: meta,
        data: Some(data.collect::<Result<_, serde_json::Error>>()?),
        ..ConfigMap::default()
    })
}

/// The same value with these words exchanged in all its texts.
fn replaced(value: &Value, words: &[(&str, &str)]) -> Value {
    match value {
        Value::String(text) => {
            let text = words.iter().fold(text.clone(), |text, (from, to)| text.replace(from, to));
            Value::String(text)
        }
        Value::Array(items) => items.iter().map(|item| replaced(item, words)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), replaced(value, words)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}
