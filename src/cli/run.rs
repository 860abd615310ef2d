//! `run`

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::{CliError, Context, Outcome, output};
use crate::sync::report::{RunReport, RunStatus};
use crate::sync::{Progress, Stage};

/// Run models: query, compare, match profiles, publish
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect run                               # all active models
  cloud-connect run holiday_buyers                # one
  cloud-connect run --output json | jq '.[].status'

Exit codes: 0 fine, 1 a run failed, 2 usage or configuration, 3 removals wait for approval.")]
pub struct Run {
    /// These models; without any, all that are active
    models: Vec<String>,
}

impl Run {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let engine = context.engine().await?;
        let models = context.models(&engine, &self.models)?;
        for name in &self.models {
            if !engine.model(name)?.active {
                return Err(crate::sync::SyncError::Inactive(name.clone()).into());
            }
        }
        if models.is_empty() && !context.json() {
            output::line(
                "there is no active model: write models/<slug>.sql and models/<slug>.yml, or `cloud-connect init DIR`",
            )?;
        }
        let mut reports = Vec::with_capacity(models.len());
        for model in models {
            let bar = Bar::new(model);
            let report = engine.run(model, &bar, &context.cancel).await;
            bar.clear();
            let cancelled = report.status == RunStatus::Cancelled;
            reports.push(report);
            if cancelled {
                break;
            }
        }
        if context.json() {
            output::json(&reports)?;
        } else {
            print(&reports)?;
        }
        Ok(outcome(&reports))
    }
}

/// The worst that happened.
pub fn outcome(reports: &[RunReport]) -> Outcome {
    let of = |report: &RunReport| match report.status {
        RunStatus::Published | RunStatus::Unchanged => Outcome::Fine,
        RunStatus::Held => Outcome::Held,
        _ => Outcome::Failed,
    };
    // a failure weighs more than a hold
    if reports.iter().any(|r| of(r) == Outcome::Failed) {
        return Outcome::Failed;
    }
    reports.iter().map(of).max().unwrap_or(Outcome::Fine)
}

fn print(reports: &[RunReport]) -> Result<(), CliError> {
    if reports.is_empty() {
        return Ok(());
    }
    output::line(summary(reports).to_string())?;
    notes(reports)?;
    let published = reports.iter().find(|r| matches!(r.status, RunStatus::Published | RunStatus::Unchanged));
    if let Some(report) = published {
        output::line("\nnext:")?;
        output::line("  cloud-connect sql \"SELECT * FROM profiles LIMIT 5\"")?;
        output::line(format!("  cloud-connect run-report {}", report.run_id))?;
        if reports.iter().any(|r| r.status == RunStatus::Published) {
            output::line("  cloud-connect run          # again: nothing changed, nothing is written")?;
        }
    }
    Ok(())
}

/// One line a run.
pub fn summary(reports: &[RunReport]) -> comfy_table::Table {
    let headings = [
        "model",
        "status",
        ">rows",
        ">added",
        ">changed",
        ">removed",
        ">unchanged",
        ">quarantined",
        ">created",
        ">matched",
        ">time",
    ];
    let mut table = output::table(&headings);
    for run in reports {
        table.add_row(vec![
            comfy_table::Cell::new(&run.model),
            comfy_table::Cell::new(run.status),
            output::count(run.rows),
            output::count(run.added),
            output::count(run.changed),
            output::count(run.removed),
            output::count(run.unchanged),
            output::count(run.quarantined),
            output::count(run.profiles_created),
            output::count(run.profiles_matched),
            comfy_table::Cell::new(output::duration(run.duration_ms)),
        ]);
    }
    table
}

/// What is worth a sentence.
pub fn notes(reports: &[RunReport]) -> Result<(), CliError> {
    for run in reports {
        let name = &run.model;
        if let Some(error) = &run.error {
            output::line(format!("✗ {name}: {}", error.replace('\n', "\n    ")))?;
        }
        if run.definition_changed {
            output::line(format!(
                "! {name}: its SQL, fields or connection changed since the last run; compared with the old rows all the same"
            ))?;
        }
        if run.quarantined > 0 {
            let q = &run.quarantine;
            let parts = [
                (q.null_key, "without a key"),
                (q.duplicate_key, "with a key that comes more than once"),
                (q.unconvertible, "with a value that does not fit"),
            ];
            let parts: Vec<_> = parts
                .iter()
                .filter(|(n, _)| *n > 0)
                .map(|(n, what)| format!("{} {what}", output::number(*n)))
                .collect();
            output::line(format!(
                "! {name}: {} rows set aside ({}); `cloud-connect run-report {}` shows them",
                output::number(run.quarantined),
                parts.join(", "),
                run.run_id
            ))?;
        }
        if run.waiting > 0 {
            output::line(format!(
                "! {name}: {} rows wait for a profile (create_profiles: false)",
                output::number(run.waiting)
            ))?;
        }
        if run.identity_conflicts > 0 {
            output::line(format!(
                "! {name}: {} identity values belong to another profile and were not added",
                output::number(run.identity_conflicts)
            ))?;
        }
        if let Some(hint) = &run.hint {
            let mark = if run.status == RunStatus::Held { "!" } else { " " };
            output::line(format!("{mark} {name}: {hint}"))?;
        }
    }
    Ok(())
}

/// A progress bar on a terminal; nothing elsewhere.
pub struct Bar {
    bar: ProgressBar,
    rows: AtomicU64,
    model: String,
}

impl Bar {
    pub fn new(model: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {msg} {human_pos} rows ({rate}/s)");
        if let Ok(style) = style {
            // whole rows: indicatif's own rate has four decimals
            let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&output::number(state.per_sec() as u64));
            };
            bar.set_style(style.with_key("rate", rate));
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, rows: AtomicU64::new(0), model: model.to_string() }
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn stage(&self, stage: Stage) {
        if stage == Stage::Query {
            // a new try begins from nothing
            self.rows.store(0, Ordering::Relaxed);
            self.bar.reset();
        }
        self.bar.set_message(format!("{}: {},", self.model, stage.as_str()));
    }

    fn rows(&self, rows: u64) {
        let all = self.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        self.bar.set_position(all);
    }
}
