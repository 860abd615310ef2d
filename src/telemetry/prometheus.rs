//! Metrics in Prometheus' text format. There is no listener of its own: the server renders what the recorder holds.

use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::names::{self, METRICS, MetricKind};
use super::process;

/// Unscraped histograms are folded that often, so that they do not grow while nobody asks.
pub(super) const UPKEEP: Duration = Duration::from_secs(5);

/// What holds the numbers, with the buckets of every histogram.
pub(super) fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let MetricKind::Histogram(buckets) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.into()), buckets)?;
        }
    }
    Ok(builder.build_recorder())
}

/// Tells the current recorder what each metric is, and what never changes. `started`: when the process did.
pub(super) fn describe(started: DateTime<Utc>) {
    for metric in METRICS {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram(_) => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
    metrics::gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics::gauge!(names::PROCESS_START).set(started.timestamp_millis() as f64 / 1000.0);
    // what nothing has counted yet is there as zero, so that a rate can be taken from the first event on
    for gauge in [names::RUNS_RUNNING, names::QUEUE_DEPTH, names::HOLDS_WAITING, names::HTTP_ACTIVE] {
        metrics::gauge!(gauge).set(0.0);
    }
    for outcome in ["delivered", "failed", "given_up"] {
        metrics::counter!(names::ALERT_DELIVERIES, "outcome" => outcome).absolute(0);
    }
}

/// The numbers as text (content type [`CONTENT_TYPE`]). What is read only when asked for is read now.
pub(super) fn render(handle: &PrometheusHandle, holds_waiting: Option<u64>) -> String {
    if let Some(bytes) = process::resident_bytes() {
        metrics::gauge!(names::PROCESS_MEMORY).set(bytes as f64);
    }
    if let Some(seconds) = process::cpu_seconds() {
        metrics::counter!(names::PROCESS_CPU).absolute(seconds);
    }
    if let Some(holds) = holds_waiting {
        metrics::gauge!(names::HOLDS_WAITING).set(holds as f64);
    }
    handle.render()
}

/// Of what [`render`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
