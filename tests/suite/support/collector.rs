//! A real OpenTelemetry Collector: OTLP comes in over HTTP and gRPC, spans go to a file, which is read here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::bridge::eventually;
use super::process::Leashed;
use super::{free_port, require, tools};

/// A running collector.
pub struct Collector {
    _process: Leashed,
    folder: TempDir,
    scheme: &'static str,
    http: u16,
    grpc: u16,
}

/// A span as it arrived.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty for the first one of a trace.
    pub parent: String,
    pub name: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: u64,
    pub attributes: BTreeMap<String, String>,
    /// Trace and span.
    pub links: Vec<(String, String)>,
    /// Name and time in milliseconds since 1970.
    pub events: Vec<(String, i64)>,
    /// 2 is an error.
    pub status: u64,
    /// Seconds from its begin to its end.
    pub seconds: f64,
    /// What the resource says of the process.
    pub resource: BTreeMap<String, String>,
}

impl Span {
    /// An attribute, empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Collector {
    /// Starts one; `None` where it cannot be built, which was then said.
    pub async fn start() -> Option<Self> {
        Self::start_on("http", "").await
    }

    /// The same with `ca.crt`, `server.crt` and `server.key` of a folder. It takes nothing from who shows no certificate of that CA.
    pub async fn start_with_tls(certificates: &Path) -> Option<Self> {
        let certificates = certificates.display();
        let tls = format!(
            ", tls: {{cert_file: '{certificates}/server.crt', key_file: '{certificates}/server.key', client_ca_file: '{certificates}/ca.crt'}}"
        );
        Self::start_on("https", &tls).await
    }

    async fn start_on(scheme: &'static str, tls: &str) -> Option<Self> {
        let tools = tokio::task::spawn_blocking(|| tools("collector")).await.unwrap();
        let tools = require("the OpenTelemetry Collector", tools)?;
        let folder = tempfile::Builder::new().prefix("collector-").tempdir().unwrap();
        let (http, grpc) = (free_port(), free_port());
        let spans = folder.path().join("spans");
        let config = format!(
            "receivers:\n  otlp:\n    protocols:\n      http: {{endpoint: '127.0.0.1:{http}'{tls}}}\n      grpc: {{endpoint: '127.0.0.1:{grpc}'{tls}}}\n\
             exporters:\n  file: {{path: '{}', flush_interval: 100ms}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    traces: {{receivers: [otlp], exporters: [file]}}\n",
            spans.display()
        );
        fs::write(folder.path().join("config.yaml"), config).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(tools.join("collector"));
        command.arg(format!("--config=file:{}", folder.path().join("config.yaml").display()));
        command.stdout(Stdio::from(log.try_clone().unwrap())).stderr(Stdio::from(log));
        let mut process = Leashed::spawn(&mut command, folder.path()).unwrap();
        let said = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        eventually("the collector runs", Duration::from_secs(30), async || {
            assert!(process.ended().is_none(), "the collector ended: {}", said());
            said().contains("Everything is ready")
        })
        .await;
        Some(Self {
            _process: process,
            folder,
            scheme,
            http,
            grpc,
        })
    }

    /// Variables of a program that exports to it soon.
    pub fn variables(&self, protocol: &str) -> Vec<(&'static str, String)> {
        let port = if protocol == "grpc" { self.grpc } else { self.http };
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{}://127.0.0.1:{port}", self.scheme)),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ]
    }

    /// Every span that arrived so far.
    pub fn spans(&self) -> Vec<Span> {
        let text = fs::read_to_string(self.folder.path().join("spans")).unwrap_or_default();
        // The last line may be on its way.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .flat_map(|line| list(&line, "resourceSpans"))
            .flat_map(|of| spans_of(&of))
            .collect()
    }

    /// Waits until what arrived is as wanted.
    #[track_caller]
    pub fn until(&self, what: &str, wanted: impl Fn(&[Span]) -> bool) -> impl Future<Output = Vec<Span>> {
        let waited = eventually(what, Duration::from_secs(20), async move || wanted(&self.spans()));
        async {
            waited.await;
            self.spans()
        }
    }
}

fn list(value: &Value, name: &str) -> Vec<Value> {
    value[name].as_array().cloned().unwrap_or_default()
}

fn attributes(value: &Value) -> BTreeMap<String, String> {
    let one = |attribute: &Value| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (attribute["key"].as_str().unwrap().to_owned(), text)
    };
    list(value, "attributes").iter().map(one).collect()
}

fn spans_of(of_resource: &Value) -> Vec<Span> {
    let resource = attributes(&of_resource["resource"]);
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let nanoseconds = |span: &Value, name: &str| text(span, name).parse::<f64>().unwrap();
    let one = |span: &Value| Span {
        trace: text(span, "traceId"),
        id: text(span, "spanId"),
        parent: text(span, "parentSpanId"),
        name: text(span, "name"),
        kind: span["kind"].as_u64().unwrap_or_default(),
        attributes: attributes(span),
        links: list(span, "links")
            .iter()
            .map(|link| (text(link, "traceId"), text(link, "spanId")))
            .collect(),
        events: list(span, "events")
            .iter()
            .map(|event| (text(event, "name"), (nanoseconds(event, "timeUnixNano") / 1e6).round() as i64))
            .collect(),
        status: span["status"]["code"].as_u64().unwrap_or_default(),
        seconds: (nanoseconds(span, "endTimeUnixNano") - nanoseconds(span, "startTimeUnixNano")) / 1e9,
        resource: resource.clone(),
    };
    let scopes = list(of_resource, "scopeSpans");
    scopes
        .iter()
        .flat_map(|scope| list(scope, "spans"))
        .map(|span| one(&span))
        .collect()
}
