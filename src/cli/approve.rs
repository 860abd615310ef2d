//! `approve`, `reject`

use super::{CliError, Context, Outcome, output};

/// Let the removals go that a run held
#[derive(Debug, clap::Args)]
#[command(after_help = "Removes the rows that the run showed, and no others.

Examples:
  cloud-connect run-report 019a8c5e-4d2b      # look first
  cloud-connect approve 019a8c5e-4d2b")]
pub struct Approve {
    /// The held run
    id: String,
}

impl Approve {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let engine = context.engine().await?;
        let report = engine.approve(&self.id).await?;
        if context.json() {
            output::json(&report)?;
        } else {
            output::line(format!(
                "{}: {} rows removed, {} memberships ended (run {})",
                report.model,
                output::number(report.removed),
                output::number(report.exited),
                report.run_id
            ))?;
        }
        Ok(Outcome::Fine)
    }
}

/// Keep the rows whose removal a run held
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The rows stay as they are. The next run compares anew, and holds them again if they are still missing.

Examples:
  cloud-connect reject 019a8c5e-4d2b"
)]
pub struct Reject {
    /// The held run
    id: String,
}

impl Reject {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let engine = context.engine().await?;
        let report = engine.reject(&self.id).await?;
        if context.json() {
            output::json(&report)?;
        } else {
            output::line(format!("{}: the rows stay", report.model))?;
        }
        Ok(Outcome::Fine)
    }
}
