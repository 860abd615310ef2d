//! `runs`, `run-report`

use super::{CliError, Context, Outcome, output};

/// List runs, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect runs
  cloud-connect runs holiday_buyers --limit 5")]
pub struct Runs {
    /// Only this model's
    model: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20)]
    limit: u32,
}

impl Runs {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let engine = context.engine().await?;
        if let Some(model) = &self.model
            && !engine.catalog.models().await?.contains(model)
        {
            engine.model(model)?;
        }
        let runs = engine.catalog.runs(self.model.as_deref(), self.limit).await?;
        if context.json() {
            output::json(&runs)?;
            return Ok(Outcome::Fine);
        }
        let mut table =
            output::table(&["run", "model", "status", "started", ">rows", ">added", ">changed", ">removed", ">time"]);
        for run in &runs {
            let status = match run.kind {
                crate::sync::report::RunKind::Approve => format!("{} (approval)", run.status),
                crate::sync::report::RunKind::Sync => match engine.catalog.hold(&run.run_id).await? {
                    Some((_, hold)) => format!("{} ({hold})", run.status),
                    None => run.status.to_string(),
                },
            };
            table.add_row(vec![
                comfy_table::Cell::new(&run.run_id),
                comfy_table::Cell::new(&run.model),
                comfy_table::Cell::new(status),
                comfy_table::Cell::new(output::time(run.started_at)),
                output::count(run.rows),
                output::count(run.added),
                output::count(run.changed),
                output::count(run.removed),
                comfy_table::Cell::new(output::duration(run.duration_ms)),
            ]);
        }
        output::line(if runs.is_empty() { "no run yet: `cloud-connect run`".into() } else { table.to_string() })?;
        Ok(Outcome::Fine)
    }
}

/// Show one run: its counts, what it set aside, and why it failed
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect run-report 019a8c5e-4d2b       # as much of the id as tells it apart
  cloud-connect run-report 019a8c5e-4d2b --output json")]
pub struct Report {
    /// The run
    id: String,
}

impl Report {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let engine = context.engine().await?;
        let run = engine.catalog.run(&self.id).await?;
        let hold = engine.catalog.hold(&run.run_id).await?;
        if context.json() {
            let mut value = serde_json::to_value(&run).map_err(|e| CliError::Other(e.to_string()))?;
            value["hold"] = match &hold {
                Some((hold, status)) => {
                    serde_json::json!({ "status": status, "removed": hold.removed, "of": hold.of, "samples": hold.samples })
                }
                None => serde_json::Value::Null,
            };
            output::json(&value)?;
            return Ok(Outcome::Fine);
        }
        output::line(format!("run       {}", run.run_id))?;
        output::line(format!("model     {}", run.model))?;
        output::line(format!("status    {}", run.status))?;
        output::line(format!("started   {}", output::time(run.started_at)))?;
        output::line(format!("took      {}", output::duration(run.duration_ms)))?;
        let counts = [
            ("rows", run.rows),
            ("added", run.added),
            ("changed", run.changed),
            ("removed", run.removed),
            ("unchanged", run.unchanged),
            ("quarantined", run.quarantined),
            ("profiles created", run.profiles_created),
            ("profiles matched", run.profiles_matched),
            ("memberships begun", run.entered),
            ("memberships ended", run.exited),
            ("rows waiting for a profile", run.waiting),
            ("identities added", run.identities_linked),
            ("identity conflicts", run.identity_conflicts),
            ("tries again", u64::from(run.retries)),
        ];
        output::line("")?;
        for (name, value) in counts.into_iter().filter(|(name, value)| *value > 0 || *name == "rows") {
            output::line(format!("{:>12}  {name}", output::number(value)))?;
        }
        if run.definition_changed {
            output::line("\nthe model's SQL, fields or connection had changed since the run before")?;
        }
        if let Some((hold, status)) = &hold {
            output::line(format!(
                "\n{} of {} rows to remove: {status}",
                output::number(hold.removed),
                output::number(hold.of)
            ))?;
            for sample in &hold.samples {
                let before = sample.before.as_ref().map(ToString::to_string);
                output::line(format!("  - {}  {}", sample.key, before.unwrap_or_default()))?;
            }
            if hold.removed > hold.samples.len() as u64 && !hold.samples.is_empty() {
                output::line("  …")?;
            }
        }
        if let Some(error) = &run.error {
            output::line(format!("\nerror: {error}"))?;
        }
        if let Some(hint) = run
            .hint
            .as_ref()
            .filter(|_| !hold.as_ref().is_some_and(|(_, s)| *s != crate::sync::report::HoldStatus::Waiting))
        {
            output::line(format!(" help: {hint}"))?;
        }
        if !run.quarantine.samples.is_empty() {
            output::line(format!(
                "\nset aside ({} of {}):",
                run.quarantine.samples.len(),
                output::number(run.quarantined)
            ))?;
            for sample in &run.quarantine.samples {
                output::line(format!("  {}  {}", sample.key.as_deref().unwrap_or("(no key)"), sample.detail))?;
            }
        }
        Ok(Outcome::Fine)
    }
}
