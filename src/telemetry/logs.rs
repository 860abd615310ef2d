//! Log lines, for people or for programs, on standard error; and the spans that are exported.

use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::traces::Traces;

/// The variable that says what is logged, for example `debug` or `cloud_connect=debug,warn`.
pub const FILTER_VARIABLE: &str = "CLOUD_CONNECT_LOG";

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line, for programs
    Json,
}

/// What is logged where [`FILTER_VARIABLE`] says nothing (or nothing that can be read).
pub fn filter(otherwise: &str) -> EnvFilter {
    EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(otherwise))
}

/// The layer that writes lines.
pub fn layer<S, W>(format: LogFormat, ansi: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    match format {
        LogFormat::Text => {
            tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(ansi).with_target(false).boxed()
        }
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(true)
            .with_writer(writer)
            .boxed(),
    }
}

/// Begins logging (and exporting `traces`) for the whole process. A second call changes nothing.
pub fn install(format: LogFormat, ansi: bool, otherwise: &str, traces: Option<&Traces>) {
    let lines = layer(format, ansi, std::io::stderr).with_filter(filter(otherwise));
    let exported = traces.map(|traces| traces.layer().with_filter(EnvFilter::new("cloud_connect=info,off")));
    if tracing_subscriber::registry().with(lines).with(exported).try_init().is_err() {
        tracing::debug!("logging was set up already");
    }
}
