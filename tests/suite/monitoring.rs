//! Alerts and dashboards: against recorded series with promtool, and against a running bridge with a real Prometheus.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::support::bridge::{Bridge, eventually, write};
use crate::support::process::Leashed;
use crate::support::site::{Site, TOKEN_MARKER};
use crate::support::{free_port, require, tools};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SECOND: Duration = Duration::from_secs(1);
/// In every selector: what the operator replaces by one bridge.
const ANY_BRIDGE: &str = r#"job!="""#;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rules() -> Value {
    let object: Value = serde_saphyr::from_str(&read("config/prometheus/rules.yaml")).unwrap();
    assert_eq!(object["kind"], "PrometheusRule");
    object["spec"].clone()
}

fn alerts(rules: &Value) -> Vec<Value> {
    rules["groups"][0]["rules"].as_array().unwrap().clone()
}

/// Every query of the dashboards for Prometheus, with the panel that shows it.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for dashboard in ["overview", "boot"] {
        let dashboard: Value = serde_json::from_str(&read(&format!("config/grafana/{dashboard}.json"))).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                if target["datasource"]["type"] == "prometheus" {
                    let title = format!(
                        "{}, {}",
                        dashboard["title"].as_str().unwrap(),
                        panel["title"].as_str().unwrap()
                    );
                    queries.push((title, target["expr"].as_str().unwrap().to_owned()));
                }
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            if let Some(query) = variable["query"]["query"].as_str() {
                let series = query.trim_start_matches("label_values(").split(", ").next().unwrap();
                queries.push((variable["label"].to_string(), series.to_owned()));
            }
        }
    }
    queries
}

fn promtool(folder: &Path, arguments: &[&str]) -> Option<Output> {
    let tools = require("promtool", tools("prometheus"))?;
    let output = Command::new(tools.join("promtool"))
        .args(arguments)
        .current_dir(folder)
        .output();
    Some(output.unwrap())
}

#[test]
fn every_alert_fires_on_recorded_series_when_it_should_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let rules = rules();
    write(&folder.path().join("alerts.yaml"), read("tests/data/prometheus/alerts.yaml"));
    write(&folder.path().join("rules.yaml"), rules.to_string());
    let Some(output) = promtool(folder.path(), &["check", "rules", "rules.yaml"]) else {
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let output = promtool(folder.path(), &["test", "rules", "alerts.yaml"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    // Each of them is needed: without it, or if it fires always, a case fails.
    for (index, alert) in alerts(&rules).iter().enumerate() {
        let mut without = rules.clone();
        without["groups"][0]["rules"].as_array_mut().unwrap().remove(index);
        let mut always = rules.clone();
        always["groups"][0]["rules"][index]["expr"] = "vector(1)".into();
        for (what, changed) in [("without it", without), ("if it fires always", always)] {
            write(&folder.path().join("rules.yaml"), changed.to_string());
            let output = promtool(folder.path(), &["test", "rules", "alerts.yaml"]).unwrap();
            assert!(!output.status.success(), "{} {what}: no case notices", alert["alert"]);
        }
    }
}

#[test]
fn every_alert_has_a_runbook_and_alerts_and_dashboards_name_metrics_that_are_documented() {
    let mut pages: BTreeSet<String> = fs::read_dir(Path::new(ROOT).join("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let documented = read("docs/operations.md");
    let mut expressions = queries();
    for alert in alerts(&rules()) {
        let name = alert["alert"].as_str().unwrap();
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.ends_with(&format!("/docs/runbooks/{name}.md")), "{url}");
        assert!(pages.remove(&format!("{name}.md")), "docs/runbooks/{name}.md");
        let page = read(&format!("docs/runbooks/{name}.md"));
        assert!(page.starts_with(&format!("# {name}\n")) && page.contains("## Do\n"), "{name}");
        assert!(
            page.contains(alert["annotations"]["summary"].as_str().unwrap()),
            "{name}: its summary"
        );
        // Whoever is woken up knows which bridge is meant, and where to ask.
        assert!(
            page.contains("The alert's labels say which bridge") && page.contains("\nNAMESPACE=boot "),
            "{name}"
        );
        for metric in page.split("ipxe_bridge_").skip(1) {
            let end = metric
                .find(|c: char| !c.is_ascii_lowercase() && c != '_')
                .unwrap_or(metric.len());
            let metric = format!("| `ipxe_bridge_{}` |", &metric[..end]);
            assert!(documented.contains(&metric), "{name}: {metric}");
        }
        assert!(["critical", "warning"].contains(&alert["labels"]["severity"].as_str().unwrap()));
        expressions.push((name.to_owned(), alert["expr"].as_str().unwrap().to_owned()));
    }
    assert_eq!(pages, BTreeSet::new(), "pages without an alert");

    for (place, expression) in expressions {
        let mut parts = expression.split("ipxe_bridge_");
        parts.next();
        let mut count = 0;
        for part in parts {
            let (name, selector) = part
                .split_once('{')
                .unwrap_or_else(|| panic!("{place}: {part} has no selector"));
            let name = name.trim_end_matches("_bucket");
            assert!(documented.contains(&format!("| `ipxe_bridge_{name}` |")), "{place}: {name}");
            assert!(
                selector.split('}').next().unwrap().contains(ANY_BRIDGE),
                "{place}: {selector}"
            );
            count += 1;
        }
        assert!(count > 0, "{place}: {expression}");
    }
}

/// A Prometheus that asks one bridge every second.
struct Prometheus {
    url: String,
    folder: tempfile::TempDir,
    _process: Leashed,
}

impl Prometheus {
    fn start(bridge: &Bridge) -> Option<Self> {
        let tools = require("prometheus", tools("prometheus"))?;
        let folder = tempfile::Builder::new().prefix("prometheus-").tempdir().unwrap();
        write(&folder.path().join("rules.yaml"), rules().to_string());
        let target = bridge.metrics_url.trim_start_matches("http://");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yaml]\nscrape_configs:\n- job_name: main-ipxe-bridge-metrics\n  \
             static_configs:\n  - targets: ['{target}']\n    labels: {{namespace: boot}}\n"
        );
        let config = write(&folder.path().join("prometheus.yaml"), config);
        let address = format!("127.0.0.1:{}", free_port());
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(tools.join("prometheus"));
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Some(Self {
            _process: Leashed::spawn(&mut command, folder.path()).unwrap(),
            url: format!("http://{address}/api/v1"),
            folder,
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let url = reqwest::Url::parse_with_params(&format!("{}/{path}", self.url), parameters).unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let text = client.get(url).send().await.ok()?.text().await.ok()?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
        Some(answer["data"].clone())
    }
}

#[tokio::test]
async fn a_real_prometheus_answers_every_query_of_the_dashboards_and_evaluates_every_alert() {
    let site = Site::start().await;
    site.host("b", "twin", "52:54:00:cc:00:01", Some("lab"));
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = write(&folder.path().join("tls.crt"), made.cert.pem());
    let key = write(&folder.path().join("tls.key"), made.signing_key.serialize_pem());
    let cache = folder.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let paths = [&cache, &certificate, &key].map(|path| path.to_str().unwrap());
    let bridge = site
        .bridge(&[
            "--cache-dir",
            paths[0],
            "--tls-port",
            "0",
            "--tls-cert",
            paths[1],
            "--tls-key",
            paths[2],
        ])
        .await;
    let Some(prometheus) = Prometheus::start(&bridge) else {
        return;
    };
    let boot = async || crate::page::boot(&bridge, "52:54:00:ff:00:01").await;
    // Counters of which a rate is asked move between two scrapes.
    boot().await;
    let first = async || {
        let data = prometheus.ask("query", &[("query", "ipxe_bridge_transfers_total")]).await;
        data.is_some_and(|data| data["result"].as_array().is_some_and(|series| !series.is_empty()))
    };
    eventually("the first boot is scraped", 60 * SECOND, first).await;
    boot().await;

    let mut unanswered = queries();
    assert!(unanswered.len() > 25, "{unanswered:?}");
    let replaced = |query: &str| {
        let query = query.replace("$__rate_interval", "1m");
        // As the operator does for a bridge.
        query
            .replace("$job", ".*")
            .replace(ANY_BRIDGE, r#"namespace="boot",job="main-ipxe-bridge-metrics""#)
    };
    for _ in 0..120 {
        let mut left = Vec::new();
        for (place, query) in unanswered {
            let data = prometheus.ask("query", &[("query", &replaced(&query))]).await;
            if data.is_none_or(|data| data["result"].as_array().unwrap().is_empty()) {
                left.push((place, query));
            }
        }
        unanswered = left;
        if unanswered.is_empty() {
            break;
        }
        tokio::time::sleep(SECOND / 2).await;
    }
    assert!(unanswered.is_empty(), "no series for {unanswered:#?}\n{}", prometheus.log());

    // A twin is a conflict: its alert waits for its time, the others are evaluated and quiet.
    let data = prometheus.ask("rules", &[]).await.unwrap();
    let found = data["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(found.len(), alerts(&rules()).len());
    for rule in found {
        let state = match rule["name"].as_str().unwrap() {
            "IpxeBridgeConflicts" => "pending",
            _ => "inactive",
        };
        assert_eq!((&rule["health"], &rule["state"]), (&"ok".into(), &state.into()), "{rule}");
    }
    let all = prometheus
        .ask("series", &[("match[]", r#"{__name__=~"ipxe_bridge_.*"}"#)])
        .await
        .unwrap();
    assert!(all.as_array().unwrap().len() > 30 && !all.to_string().contains(TOKEN_MARKER));
    let labels = all.to_string();
    assert!(
        !labels.contains("52:54") && !labels.contains("52-54"),
        "no label holds a MAC address"
    );
}

#[test]
fn what_the_operator_makes_of_them_speaks_of_one_bridge_only() {
    let objects: Value = serde_json::from_str(&read("tests/data/operator/everything.json")).unwrap();
    let of = |kind: &str, name: &str| {
        let mut objects = objects.as_array().unwrap().iter();
        let object = objects.find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        object.unwrap_or_else(|| panic!("{kind} {name}")).clone()
    };
    let own = r#"namespace="boot",job="main-ipxe-bridge-metrics""#;
    // The job is called as the Service is.
    of("Service", "main-ipxe-bridge-metrics");
    let rule = of("PrometheusRule", "main-ipxe-bridge");
    assert_eq!(rule["metadata"]["labels"]["release"], "prometheus");
    let made = alerts(&rule["spec"]);
    assert_eq!(made.len(), alerts(&rules()).len());
    for (made, general) in made.iter().zip(alerts(&rules())) {
        let expected = general["expr"].as_str().unwrap().replace(ANY_BRIDGE, own);
        assert_eq!(made["expr"], expected.as_str());
        assert_eq!(made["annotations"], general["annotations"]);
    }
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("rules.yaml"), rule["spec"].to_string());
    if let Some(output) = promtool(folder.path(), &["check", "rules", "rules.yaml"]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    let dashboards = of("ConfigMap", "main-ipxe-bridge-dashboards");
    assert_eq!(dashboards["metadata"]["labels"]["grafana_dashboard"], "1");
    let mut ids = BTreeSet::new();
    for name in ["overview", "boot"] {
        let text = dashboards["data"][format!("main-ipxe-bridge-{name}.json")].as_str().unwrap();
        let dashboard: Value = serde_json::from_str(text).unwrap();
        let id = dashboard["uid"].as_str().unwrap();
        assert!(id.len() <= 40 && id != format!("ipxe-bridge-{name}"), "{id}");
        assert!(dashboard["title"].as_str().unwrap().starts_with("ipxe-bridge main: "));
        assert!(
            !text.contains(r#"job!=\"\""#) && text.contains(r#"namespace=\"boot\""#),
            "{name}"
        );
        ids.insert(id.to_owned());
    }
    for name in ["overview", "boot"] {
        let text = dashboards["data"][format!("main-ipxe-bridge-{name}.json")].as_str().unwrap();
        let leads_to = |id: &String| text.contains(&format!("\"/d/{id}"));
        assert!(ids.iter().any(leads_to), "{name} leads to the other");
    }
}
