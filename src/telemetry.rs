//! Logs and traces: one subscriber, and an exporter where the standard `OTEL_*` variables name a collector.

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::cli::{LogArgs, LogFormat};

/// Flushes what is still to be exported when it is dropped.
#[must_use]
#[derive(Debug)]
pub struct Guard(Option<SdkTracerProvider>);

/// Starts logging to standard error, and exporting traces over OTLP/HTTP where `OTEL_EXPORTER_OTLP_ENDPOINT` or
/// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set (OpenTelemetry specification, "OTLP Exporter Configuration").
pub fn start(args: &LogArgs) -> anyhow::Result<Guard> {
    // A level alone is the program's own: libraries would add addresses of the cluster and of upstream to every line, and what the
    // client of the cluster calls errors is reported by the watches already.
    let directives = match args.log_level.parse::<tracing::Level>() {
        Ok(level) => format!("warn,kube_client=off,ipxe_bridge={level}"),
        // A single word that is no level would be taken for the name of a module.
        Err(_) if !args.log_level.contains(['=', ',']) => {
            anyhow::bail!("--log-level {:?}: expected error, warn, info, debug or trace", args.log_level)
        }
        Err(_) => args.log_level.clone(),
    };
    let filter = EnvFilter::builder()
        .parse(directives)
        .with_context(|| format!("--log-level {:?}: expected error, warn, info, debug or trace", args.log_level))?;
    let format = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let format = match args.log_format {
        LogFormat::Text => format.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => format.json().flatten_event(true).with_current_span(false).boxed(),
    };
    // Spans are for traces: a log line carries its own fields and reads well alone.
    let format = format.with_filter(filter_fn(|metadata| metadata.is_event()));
    let provider = exporter().context("the trace exporter could not be set up")?;
    let traces = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("ipxe-bridge")));
    tracing_subscriber::registry().with(filter).with(format).with(traces).init();
    Ok(Guard(provider))
}

fn exporter() -> anyhow::Result<Option<SdkTracerProvider>> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !is_set("OTEL_EXPORTER_OTLP_ENDPOINT") && !is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build()?;
    let resource = Resource::builder().with_service_name(env!("CARGO_PKG_NAME")).build();
    Ok(Some(
        SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build(),
    ))
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // A dead collector must not hold up the end of the program.
            let _ = provider.shutdown();
        }
    }
}
