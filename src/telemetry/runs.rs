//! A run, watched: metrics, and a span with one child a stage. Whoever runs a model in the service does so through
//! [`run`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::names;
use crate::sync::report::{RunReport, RunStatus};
use crate::sync::{Engine, Progress, Stage, SyncError};

/// Runs a model under this id ([`Engine::run_as`]), and tells the metrics and traces of it.
pub async fn run(
    engine: &Engine,
    run_id: String,
    slug: &str,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<RunReport, SyncError> {
    let connection = engine.project.models.get(slug).map(|model| model.connection.as_str());
    let span = tracing::info_span!(
        "run",
        otel.name = "run",
        model = slug,
        connection,
        run_id,
        status = tracing::field::Empty,
        rows = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
        otel.status_description = tracing::field::Empty,
    );
    let watched = Watched::new(progress, span.clone());
    let outcome = engine.run_as(run_id, slug, &watched, cancel).instrument(span.clone()).await;
    let bytes = watched.finish();
    let error = match &outcome {
        Ok(report) => {
            span.record("status", report.status.as_str());
            // signed: collectors would get any other number as text
            span.record("rows", report.rows as i64);
            ended(report, bytes);
            span.in_scope(|| log_end(report));
            report.error.clone()
        }
        Err(error) => Some(error.to_string()),
    };
    if let Some(error) = error {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", error);
    }
    outcome
}

/// The line that people look for first.
fn log_end(report: &RunReport) {
    let RunReport { rows, added, changed, removed, quarantined, duration_ms, .. } = report;
    match report.status {
        RunStatus::Failed => {
            let error = report.error.as_deref().unwrap_or_default();
            tracing::warn!(error, hint = report.hint, duration_ms, "the run failed");
        }
        status => tracing::info!(%status, rows, added, changed, removed, quarantined, duration_ms, "the run ended"),
    }
}

/// Counts a run that ended. `bytes`: of the rows that came in.
fn ended(report: &RunReport, bytes: u64) {
    let model = report.model.clone();
    let counter = |name: &'static str, value: u64| metrics::counter!(name, "model" => model.clone()).increment(value);
    metrics::counter!(names::RUNS, "model" => model.clone(), "status" => report.status.as_str()).increment(1);
    metrics::histogram!(names::RUN_SECONDS, "status" => report.status.as_str())
        .record(report.duration_ms as f64 / 1000.0);
    counter(names::RUN_ROWS, report.rows);
    counter(names::RUN_BYTES, bytes);
    counter(names::RUN_QUARANTINED, report.quarantined);
    counter(names::RUN_RETRIES, u64::from(report.retries));
    // what is held was not removed
    let removed = if report.status == RunStatus::Held { 0 } else { report.removed };
    for (change, rows) in [("added", report.added), ("changed", report.changed), ("removed", removed)] {
        metrics::counter!(names::RUN_CHANGES, "model" => model.clone(), "change" => change).increment(rows);
    }
    if matches!(report.status, RunStatus::Published | RunStatus::Unchanged | RunStatus::Held) {
        metrics::gauge!(names::MODEL_ROWS, "model" => model.clone()).set(report.rows as f64);
        if let Some(at) = report.finished_at {
            metrics::gauge!(names::MODEL_LAST_SUCCESS, "model" => model.clone())
                .set(at.timestamp_millis() as f64 / 1000.0);
        }
    }
}

/// Times the stages, and passes everything on.
struct Watched<'a> {
    inner: &'a dyn Progress,
    run: Span,
    current: Mutex<Option<(Stage, Instant, Span)>>,
    bytes: AtomicU64,
}

impl<'a> Watched<'a> {
    fn new(inner: &'a dyn Progress, run: Span) -> Self {
        Self { inner, run, current: Mutex::new(None), bytes: AtomicU64::new(0) }
    }

    /// Ends the stage under way. Returns how many bytes came in.
    fn finish(&self) -> u64 {
        self.begin(None);
        self.bytes.load(Ordering::Relaxed)
    }

    fn begin(&self, stage: Option<Stage>) {
        let next = stage.map(|stage| {
            let name = stage_name(stage);
            (stage, Instant::now(), tracing::info_span!(parent: &self.run, "stage", otel.name = name, stage = name))
        });
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, next);
        if let Some((stage, began, _span)) = before {
            metrics::histogram!(names::RUN_STAGE_SECONDS, "stage" => stage_name(stage))
                .record(began.elapsed().as_secs_f64());
        }
    }
}

/// As it is called in labels and spans.
fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Query => "query",
        Stage::Compare => "compare",
        Stage::Profiles => "profiles",
        Stage::Write => "write",
        Stage::Commit => "commit",
    }
}

impl Progress for Watched<'_> {
    fn stage(&self, stage: Stage) {
        self.begin(Some(stage));
        self.inner.stage(stage);
    }

    fn rows(&self, rows: u64) {
        self.inner.rows(rows);
    }

    fn bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.inner.bytes(bytes);
    }
}
