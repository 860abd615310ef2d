//! Every metric: its name, its kind, its labels, and what it says. `docs/metrics.md` holds the same table, and a test
//! holds the two together.

/// What a metric does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    /// Only grows; from zero at every start.
    Counter,
    Gauge,
    /// With these upper bounds.
    Histogram(&'static [f64]),
}

impl MetricKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

pub const BUILD_INFO: &str = "cloud_connect_build_info";
pub const RUNS: &str = "cloud_connect_runs_total";
pub const RUN_SECONDS: &str = "cloud_connect_run_seconds";
pub const RUN_STAGE_SECONDS: &str = "cloud_connect_run_stage_seconds";
pub const RUN_ROWS: &str = "cloud_connect_run_rows_total";
pub const RUN_BYTES: &str = "cloud_connect_run_bytes_total";
pub const RUN_CHANGES: &str = "cloud_connect_run_changes_total";
pub const RUN_QUARANTINED: &str = "cloud_connect_run_quarantined_total";
pub const RUN_RETRIES: &str = "cloud_connect_run_retries_total";
pub const MODEL_ROWS: &str = "cloud_connect_model_rows";
pub const MODEL_LAST_SUCCESS: &str = "cloud_connect_model_last_success_timestamp_seconds";
pub const RUNS_RUNNING: &str = "cloud_connect_runs_running";
pub const QUEUE_DEPTH: &str = "cloud_connect_queue_depth";
pub const HOLDS_WAITING: &str = "cloud_connect_holds_waiting";
pub const LOOKUP_SECONDS: &str = "cloud_connect_lookup_seconds";
pub const LOOKUPS: &str = "cloud_connect_lookups_total";
pub const HTTP_REQUESTS: &str = "cloud_connect_http_requests_total";
pub const HTTP_SECONDS: &str = "cloud_connect_http_request_seconds";
pub const HTTP_ACTIVE: &str = "cloud_connect_http_requests_active";
pub const ALERT_DELIVERIES: &str = "cloud_connect_alert_deliveries_total";
pub const PROCESS_MEMORY: &str = "process_resident_memory_bytes";
pub const PROCESS_CPU: &str = "process_cpu_seconds_total";
pub const PROCESS_START: &str = "process_start_time_seconds";

/// Half a second to six hours.
const RUN_BUCKETS: &[f64] =
    &[0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10800.0, 21600.0];
/// A tenth of a millisecond to one second.
const LOOKUP_BUCKETS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
/// A millisecond to half a minute.
const HTTP_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

macro_rules! metrics {
    ($($name:ident, $kind:expr, [$($label:literal),*], $help:literal;)+) => {
        /// All of them, in the order of the table.
        pub const METRICS: &[Metric] = &[$(Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help }),+];
    };
}

use MetricKind::{Counter, Gauge, Histogram};

metrics! {
    BUILD_INFO, Gauge, ["version"], "Always 1; the label says which version runs";
    RUNS, Counter, ["model", "status"], "Runs that this process ended";
    RUN_SECONDS, Histogram(RUN_BUCKETS), ["status"], "How long a run took";
    RUN_STAGE_SECONDS, Histogram(RUN_BUCKETS), ["stage"], "How long a stage of a run took: query, compare, profiles, write, commit";
    RUN_ROWS, Counter, ["model"], "Rows that queries returned";
    RUN_BYTES, Counter, ["model"], "Bytes of those rows in memory, as Arrow";
    RUN_CHANGES, Counter, ["model", "change"], "Rows that were added, changed or removed";
    RUN_QUARANTINED, Counter, ["model"], "Rows that were set aside";
    RUN_RETRIES, Counter, ["model"], "Times that a warehouse was asked again after passing trouble";
    MODEL_ROWS, Gauge, ["model"], "Rows of the model's last result";
    MODEL_LAST_SUCCESS, Gauge, ["model"], "When the model's last run that did not fail ended (Unix time)";
    RUNS_RUNNING, Gauge, [], "Runs under way in this process";
    QUEUE_DEPTH, Gauge, [], "Runs that are due and wait for a slot";
    HOLDS_WAITING, Gauge, [], "Models with removals that wait for a person";
    LOOKUP_SECONDS, Histogram(LOOKUP_BUCKETS), [], "How long a profile lookup took, without HTTP";
    LOOKUPS, Counter, ["result"], "Profile lookups by what they came to";
    HTTP_REQUESTS, Counter, ["method", "route", "status"], "HTTP requests that were answered";
    HTTP_SECONDS, Histogram(HTTP_BUCKETS), ["method", "route"], "From an HTTP request's head to its answer's head";
    HTTP_ACTIVE, Gauge, [], "HTTP requests under way";
    ALERT_DELIVERIES, Counter, ["outcome"], "Attempts to deliver an alert: delivered, failed (to be tried again), given_up";
    PROCESS_MEMORY, Gauge, [], "Resident memory of this process";
    PROCESS_CPU, Counter, [], "Processor time of this process, user and system";
    PROCESS_START, Gauge, [], "When this process started (Unix time)";
}
