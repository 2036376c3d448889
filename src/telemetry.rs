//! Logs to standard error, and traces to an OTLP collector where one is set.
//!
//! Spans are at debug level: without a collector, and with the usual log filter, they are never made.
//!
//! To be started before any async runtime: the exporter has a thread of its own, and shutting it down on a
//! single-threaded runtime would hang.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::settings::{LogFormat, Telemetry};

/// Ends telemetry in order when dropped, after the runtime has ended.
pub struct TelemetryGuard {
    traces: Option<SdkTracerProvider>,
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.traces.take().map(|traces| traces.shutdown()) {
            tracing::debug!("the last traces could not be sent: {error}");
        }
    }
}

/// Installs the process-wide subscriber.
///
/// Fails when the filter cannot be read or the collector's URL cannot be used.
pub fn start(settings: &Telemetry) -> anyhow::Result<TelemetryGuard> {
    let filter = EnvFilter::try_new(with_quiet_driver(&settings.log_filter))
        .with_context(|| format!("`telemetry.log_filter` is `{}`", settings.log_filter))?;
    let lines = match settings.log_format {
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Pretty => tracing_subscriber::fmt::layer()
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let traces = match settings.otlp_endpoint.as_str() {
        "" => None,
        endpoint => Some(exporter(endpoint)?),
    };
    let spans = traces.as_ref().map(|traces| {
        tracing_opentelemetry::layer()
            .with_tracer(traces.tracer("stitchd"))
            .with_filter(Targets::new().with_target("stitchd", LevelFilter::DEBUG))
    });
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans)
        .try_init()
        .context("failed to start logging")?;
    Ok(TelemetryGuard { traces })
}

/// The database driver logs each broken connection; the store says once that the database is away, and that it is back.
/// Who names the driver in the filter hears it.
fn with_quiet_driver(filter: &str) -> String {
    if filter.is_empty() || filter.contains("sqlx") {
        filter.to_owned()
    } else {
        format!("{filter},sqlx=error")
    }
}

fn exporter(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    crate::sources::install_tls_provider();
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .with_context(|| format!("`telemetry.otlp_endpoint` is `{endpoint}`"))?;
    let resource = Resource::builder()
        .with_service_name("stitchd")
        .with_attribute(opentelemetry::KeyValue::new(
            "service.version",
            env!("CARGO_PKG_VERSION"),
        ))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}
