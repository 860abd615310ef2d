//! `plan`

use super::run::{Bar, notes, summary};
use super::{CliError, Context, Outcome, output};
use crate::sync::{ChangeSample, Plan as Planned, SyncError};

/// Show what a run would do: runs the query and the comparison, writes nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect plan                      # all active models
  cloud-connect plan holiday_buyers
  cloud-connect plan --output json")]
pub struct Plan {
    /// These models; without any, all that are active
    models: Vec<String>,
}

impl Plan {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let engine = context.engine().await?;
        let (mut plans, mut failed) = (Vec::new(), Vec::new());
        for model in context.models(&engine, &self.models)? {
            let bar = Bar::new(model);
            let plan = engine.plan(model, &bar, &context.cancel).await;
            bar.clear();
            match plan {
                Ok(plan) => plans.push(plan),
                Err(error @ SyncError::Cancelled) => return Err(error.into()),
                Err(error) => failed.push(engine.failed_plan(model, &error)),
            }
        }
        let any_failed = !failed.is_empty();
        plans.extend(failed);
        let held = plans.iter().any(|plan| plan.report.status == crate::sync::report::RunStatus::Held);
        if context.json() {
            output::json(&plans)?;
        } else {
            print(&plans)?;
        }
        Ok(match (any_failed, held) {
            (true, _) => Outcome::Failed,
            (false, true) => Outcome::Held,
            (false, false) => Outcome::Fine,
        })
    }
}

fn print(plans: &[Planned]) -> Result<(), CliError> {
    let reports: Vec<_> = plans.iter().map(|plan| plan.report.clone()).collect();
    if reports.is_empty() {
        return Ok(output::line("there is no active model")?);
    }
    output::line("a run would do this (nothing was written):")?;
    output::line(summary(&reports).to_string())?;
    for plan in plans {
        let model = &plan.report.model;
        if let Some(cost) = &plan.cost {
            output::line(format!("{model}: {cost}"))?;
        }
        let kinds = [("+", &plan.samples.added), ("~", &plan.samples.changed), ("-", &plan.samples.removed)];
        if kinds.iter().all(|(_, samples)| samples.is_empty()) {
            continue;
        }
        let report = &plan.report;
        output::line(format!(
            "\n{model}: {} memberships begin, {} end",
            output::number(report.entered),
            output::number(report.exited)
        ))?;
        for (mark, samples) in kinds {
            for ChangeSample { key, before, after } in samples {
                let text = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string);
                let shown = match (text(before), text(after)) {
                    (Some(before), Some(after)) => format!("{before} → {after}"),
                    (before, after) => before.or(after).unwrap_or_default(),
                };
                output::line(format!("  {mark} {key}  {shown}"))?;
            }
        }
    }
    let reports: Vec<_> = reports
        .into_iter()
        .filter(|r| r.run_id.starts_with("plan-"))
        .map(|mut r| {
            // a plan has no record to look at
            r.quarantined = 0;
            r
        })
        .collect();
    notes(&reports)?;
    if reports.len() > 1 && reports.iter().filter(|r| r.profiles_created > 0).count() > 1 {
        output::line(
            "\neach model is compared with the profiles of now: one that several of them would create is counted in each",
        )?;
    }
    Ok(())
}
