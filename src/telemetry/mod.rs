//! What can be seen of the running service from outside: metrics, traces, log lines.
//!
//! Actors: [`names`] lists every metric; [`prometheus`] holds the numbers; [`runs`] and [`http`] watch runs and
//! requests; [`logs`] writes lines; [`traces`] exports spans. [`install`] sets all of it up, once a process.
//!
//! Invariants: a label's values are few and never chosen by a stranger (routes are templates, models exist); no label,
//! span or line holds a secret or a profile.

pub mod http;
pub mod logs;
pub mod names;
pub mod process;
mod prometheus;
pub mod runs;
#[cfg(test)]
mod tests;
pub mod traces;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinHandle;

use crate::clock::Clock;
pub use logs::LogFormat;
pub use prometheus::CONTENT_TYPE;
use traces::Traces;

/// How the process is to be watched.
#[derive(Debug, Clone, Copy, Default)]
pub struct TelemetryOptions {
    pub log_format: LogFormat,
    /// Colours in text lines.
    pub ansi: bool,
}

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("metrics cannot be kept: {0}")]
    Metrics(String),
    #[error("{0}")]
    Traces(#[from] traces::TracesError),
}

/// What [`install`] set up.
#[derive(Debug)]
pub struct Telemetry {
    prometheus: PrometheusHandle,
    traces: Option<Traces>,
    upkeep: JoinHandle<()>,
}

/// Begins logging, counting and, where the environment names a collector, tracing. Once a process, inside its runtime.
pub fn install(options: TelemetryOptions, clock: &dyn Clock) -> Result<Telemetry, TelemetryError> {
    let traces = Traces::from_environment()?;
    logs::install(options.log_format, options.ansi, "warn,cloud_connect=info", traces.as_ref());
    let failed = |e: &dyn std::fmt::Display| TelemetryError::Metrics(e.to_string());
    let recorder = prometheus::recorder().map_err(|e| failed(&e))?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|e| failed(&e))?;
    prometheus::describe(clock.now());
    let upkeep = tokio::spawn({
        let handle = handle.clone();
        async move {
            let mut ticks = tokio::time::interval(prometheus::UPKEEP);
            loop {
                ticks.tick().await;
                handle.run_upkeep();
            }
        }
    });
    Ok(Telemetry { prometheus: handle, traces, upkeep })
}

impl Telemetry {
    /// The metrics in Prometheus' text format ([`CONTENT_TYPE`]). `holds_waiting`: as the catalog has it now.
    pub fn render(&self, holds_waiting: Option<u64>) -> String {
        prometheus::render(&self.prometheus, holds_waiting)
    }

    /// Sends the traces that are left.
    pub async fn shutdown(&self) {
        self.upkeep.abort();
        if let Some(traces) = &self.traces {
            traces.clone().shutdown().await;
        }
    }
}
