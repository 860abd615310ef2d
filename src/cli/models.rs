//! `models`

use super::{CliError, Context, Outcome, output};
use crate::sync::report::RunStatus;

/// List the models: what they are, how they stand, when they run
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect models
  cloud-connect models --output json")]
pub struct Models {}

impl Models {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let engine = context.engine().await?;
        let now = engine.clock.now();
        let mut all = Vec::new();
        for model in engine.project.models.values() {
            let last = engine.catalog.runs(Some(&model.slug), 20).await?;
            let rows = engine.stored_rows(&model.slug).await?;
            let compared = |s: RunStatus| matches!(s, RunStatus::Published | RunStatus::Unchanged | RunStatus::Held);
            let good = last.iter().find(|run| compared(run.status));
            let next = model
                .schedule
                .as_ref()
                .filter(|_| model.active)
                .map(|s| s.next_after(last.first().map(|r| r.started_at), now));
            all.push(serde_json::json!({
                "model": model.slug,
                "name": model.name,
                "description": model.description,
                "connection": model.connection,
                "primary_key": model.primary_key,
                "external_key": model.external_key,
                "activated_fields": model.activated_fields,
                "active": model.active,
                "create_profiles": model.create_profiles,
                "schedule": model.schedule.as_ref().map(ToString::to_string),
                "last_run": last.first().map(|run| serde_json::json!({ "run_id": run.run_id, "status": run.status, "started_at": run.started_at })),
                "last_success": good.and_then(|run| run.finished_at),
                "next_run": next,
                "rows": good.is_some().then_some(rows),
                "waiting_removals": engine.catalog.waiting_hold(&model.slug).await?.map(|(run, hold)| serde_json::json!({ "run_id": run, "removed": hold.removed })),
            }));
        }
        if context.json() {
            output::json(&all)?;
            return Ok(Outcome::Fine);
        }
        let mut table = output::table(&["model", "name", "connection", "key", ">rows", "last run", "schedule"]);
        for model in &all {
            let text = |key: &str| model[key].as_str().unwrap_or("—").to_string();
            let status = match (model["active"] == true, model["last_run"]["status"].as_str()) {
                (false, _) => "inactive".to_string(),
                (true, None) => "never".to_string(),
                (true, Some(status)) => status.to_string(),
            };
            let rows = model["rows"].as_u64().map_or_else(|| "—".into(), output::number);
            let key = format!("{} → {}", text("primary_key"), text("external_key"));
            table.add_row(vec![text("model"), text("name"), text("connection"), key, rows, status, text("schedule")]);
        }
        output::line(table.to_string())?;
        Ok(Outcome::Fine)
    }
}
