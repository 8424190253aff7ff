//! Logs and traces: one subscriber, and an exporter where the standard `OTEL_*` variables name a collector.

mod floods;

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Status, TracerProvider as _};
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanProcessor};
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::cli::{LogArgs, LogFormat};
use floods::Floods;

/// Longest time for a batch of spans where no variable says it (OpenTelemetry specification, "OTLP Exporter Configuration").
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end waits for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Flushes what is still to be exported when it is dropped.
#[must_use]
#[derive(Debug)]
pub struct Guard(Option<SdkTracerProvider>);

/// Starts logging to standard error, and exporting traces where `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set
/// (OpenTelemetry specification, "OTLP Exporter Configuration"), over HTTP or gRPC. To be called within the runtime that gRPC is to use.
///
/// # Errors
///
/// If the level of the log or a variable of the exporter cannot be understood.
pub fn start(args: &LogArgs) -> anyhow::Result<Guard> {
    let format = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let format = match args.log_format {
        LogFormat::Text => format.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => format.json().flatten_event(true).with_current_span(false).boxed(),
    };
    let floods = Floods::default();
    // Spans are for traces: a log line carries its own fields and reads well alone. What is logged does not decide what is traced.
    let format = format.with_filter(
        levels(&args.log_level)?
            .and(filter_fn(|metadata| metadata.is_event()))
            .and(floods.clone()),
    );
    let provider = exporter().context("the trace exporter could not be set up")?;
    let traces = provider.as_ref().map(|provider| {
        let own = Targets::new().with_target("ipxe_bridge", tracing::Level::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("ipxe-bridge"))
            // What a span needs not say costs a third of its price. No library in here asks for the present context.
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_location(false)
            .with_threads(false)
            .with_filter(own)
    });
    tracing_subscriber::registry().with(format).with(traces).init();
    floods.report();
    Ok(Guard(provider))
}

fn levels(text: &str) -> anyhow::Result<EnvFilter> {
    // A level alone is the program's own: libraries would add addresses of the cluster and of upstream to every line, and what the
    // client of the cluster calls errors is reported by the watches already.
    let directives = match text.parse::<tracing::Level>() {
        Ok(level) => format!("warn,kube_client=off,ipxe_bridge={level}"),
        // A single word that is no level would be taken for the name of a module.
        Err(_) if !text.contains(['=', ',']) => {
            anyhow::bail!("--log-level {text:?}: expected error, warn, info, debug or trace")
        }
        Err(_) => text.to_owned(),
    };
    EnvFilter::builder()
        .parse(directives)
        .with_context(|| format!("--log-level {text:?}: expected error, warn, info, debug or trace"))
}

/// A variable that is set, and not to nothing.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn exporter() -> anyhow::Result<Option<SdkTracerProvider>> {
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
    if is_off || endpoint.is_none() {
        return Ok(None);
    }
    let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
    let builder = opentelemetry_otlp::SpanExporter::builder();
    let tls = Tls::of_variables()?;
    let exporter = match protocol.as_deref().unwrap_or("http/protobuf") {
        "http/protobuf" => match tls {
            Some(tls) => builder.with_http().with_http_client(tls.client()?).build()?,
            None => builder.with_http().build()?,
        },
        "grpc" => match tls {
            Some(tls) => builder.with_tonic().with_tls_config(tls.of_grpc()).build()?,
            None => builder.with_tonic().build()?,
        },
        other => anyhow::bail!("OTEL_EXPORTER_OTLP_PROTOCOL {other:?}: expected http/protobuf or grpc"),
    };
    // What the variables say of the resource counts before what is said here.
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let resource = match variable("OTEL_SERVICE_NAME") {
        Some(_) => resource,
        None => resource.with_service_name(env!("CARGO_PKG_NAME")),
    };
    Ok(Some(
        SdkTracerProvider::builder()
            .with_span_processor(News(BatchSpanProcessor::builder(exporter).build()))
            .with_resource(resource.build())
            .build(),
    ))
}

/// Leaves out the reconciliations that found everything as it is to be: once a minute for each bridge.
#[derive(Debug)]
struct News(BatchSpanProcessor);

impl SpanProcessor for News {
    fn on_start(&self, span: &mut Span, context: &opentelemetry::Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let is_news = !span.name.starts_with("reconcile ")
            || matches!(span.status, Status::Error { .. })
            || span
                .attributes
                .iter()
                .any(|attribute| attribute.key.as_str() == "ipxe_bridge.changed");
        if is_news {
            self.0.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// What is told of the certificates between bridge and collector, in PEM. The exporter reads none of it by itself.
struct Tls {
    authorities: Option<Vec<u8>>,
    /// Certificate and key by which the collector knows the bridge.
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    fn of_variables() -> anyhow::Result<Option<Self>> {
        let authorities = file("CERTIFICATE")?;
        let identity = match (file("CLIENT_CERTIFICATE")?, file("CLIENT_KEY")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                anyhow::bail!("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY: expected both, or neither")
            }
        };
        let is_told = authorities.is_some() || identity.is_some();
        Ok(is_told.then_some(Self { authorities, identity }))
    }

    fn of_grpc(self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new();
        let config = match self.authorities {
            Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
            None => config.with_enabled_roots(),
        };
        match self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }

    /// A client for HTTP, with the exporter's own limit of time. It blocks, so it cannot be made where others wait.
    fn client(self) -> anyhow::Result<reqwest::blocking::Client> {
        let timeout = variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").or_else(|| variable("OTEL_EXPORTER_OTLP_TIMEOUT"));
        let timeout = timeout
            .and_then(|text| text.parse().ok())
            .map_or(TIMEOUT, Duration::from_millis);
        let make = move || {
            let mut builder = reqwest::blocking::Client::builder().timeout(timeout);
            if let Some(pem) = &self.authorities {
                builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
            }
            if let Some((certificate, key)) = self.identity {
                builder = builder.identity(reqwest::Identity::from_pem(&[key, certificate].join(&b'\n'))?);
            }
            builder.build()
        };
        let made = std::thread::spawn(make).join();
        let made = made.map_err(|_| anyhow::anyhow!("the client of the collector could not be made"))?;
        made.context("OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY: expected certificates and a key (PEM)")
    }
}

/// What is in the file that a variable of the exporter names, the one for traces before the one for everything.
fn file(name: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let names = [
        format!("OTEL_EXPORTER_OTLP_TRACES_{name}"),
        format!("OTEL_EXPORTER_OTLP_{name}"),
    ];
    let found = names.into_iter().find_map(|name| variable(&name).map(|file| (name, file)));
    found
        .map(|(name, file)| std::fs::read(&file).with_context(|| format!("{name} {file}")))
        .transpose()
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // A dead collector must not hold up the end of the program.
            let _ = provider.shutdown_with_timeout(LAST_SPANS);
        }
    }
}
