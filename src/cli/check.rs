//! `check`

use super::{CliError, Context, Outcome, output};
use crate::config::ConfigErrors;
use crate::model::check::check_columns;
use crate::secrets;
use crate::values::ValueType;

/// Validate the project, and compare each model with its warehouse's own description of the query
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect check                    # everything
  cloud-connect check holiday_buyers     # one model
  cloud-connect check --offline          # files only: asks no warehouse")]
pub struct Check {
    /// Only these models
    models: Vec<String>,
    /// Ask no warehouse
    #[arg(long)]
    offline: bool,
}

impl Check {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let project = match context.load_to_connect().await {
            Err(CliError::Config(errors)) if context.json() => {
                output::json(&serde_json::json!({ "models": [], "errors": errors.errors }))?;
                return Err(CliError::Usage { message: "the project has faults".into(), hint: None });
            }
            project => project?,
        };
        let limit = context.memory_limit(&project);
        if let Some(name) = self.models.iter().find(|name| !project.models.contains_key(*name)) {
            return Err(crate::sync::SyncError::NoSuchModel(name.clone()).into());
        }
        let mut faults = secrets::unresolved(&project);
        let mut described = Vec::new();
        let mut failed = false;
        for model in project.models.values().filter(|m| self.models.is_empty() || self.models.contains(&m.slug)) {
            if self.offline {
                described.push(serde_json::json!({ "model": model.slug, "ok": true }));
                continue;
            }
            let answer = match project.open_connection(&model.connection, limit / 4) {
                Ok(warehouse) => match warehouse.describe(&model.sql).await {
                    Ok(schema) => Ok((schema, warehouse.estimate(&model.sql).await)),
                    Err(e) => Err((e.to_string(), e.hint)),
                },
                Err(e) => Err((e.to_string(), e.hint())),
            };
            match answer {
                Ok((schema, cost)) => {
                    let found = check_columns(model, &schema, &project);
                    let columns: Vec<_> = schema
                        .fields()
                        .iter()
                        .map(|f| serde_json::json!({ "name": f.name(), "type": ValueType::of(f).map(|t| t.to_string()) }))
                        .collect();
                    let mut answer =
                        serde_json::json!({ "model": model.slug, "ok": found.is_empty(), "columns": columns });
                    match cost {
                        Ok(Some(cost)) => {
                            answer["cost"] = serde_json::json!(cost);
                            answer["cost_shown"] = cost.to_string().into();
                        }
                        Ok(None) => {}
                        // the model may run all the same
                        Err(e) => answer["cost_error"] = e.to_string().into(),
                    }
                    described.push(answer);
                    faults.extend(found);
                }
                Err((message, hint)) => {
                    failed = true;
                    let file = model.sql_file.strip_prefix(&project.root).unwrap_or(&model.sql_file);
                    described.push(serde_json::json!({
                        "model": model.slug, "ok": false, "file": file, "error": message, "hint": hint,
                    }));
                }
            }
        }
        if context.json() {
            output::json(&serde_json::json!({ "models": described, "errors": faults }))?;
        } else {
            for model in &described {
                let (slug, text) = (model["model"].as_str().unwrap_or_default(), |key: &str| model[key].as_str());
                match (text("error"), model["columns"].as_array()) {
                    (Some(error), _) => {
                        output::line(format!(
                            "✗ {slug} ({})\n    {}",
                            text("file").unwrap_or_default(),
                            error.replace('\n', "\n    ")
                        ))?;
                        if let Some(hint) = text("hint") {
                            output::line(format!("    help: {hint}"))?;
                        }
                    }
                    (None, Some(columns)) => {
                        let mark = if model["ok"] == true { '✓' } else { '✗' };
                        let shown = |c: &serde_json::Value| {
                            format!(
                                "{} {}",
                                c["name"].as_str().unwrap_or("?"),
                                c["type"].as_str().unwrap_or("(not held)")
                            )
                        };
                        let columns: Vec<_> = columns.iter().map(shown).collect();
                        output::line(format!("{mark} {slug}: {}", columns.join(", ")))?;
                        if let Some(cost) = text("cost_shown") {
                            output::line(format!("    {cost}"))?;
                        }
                        if let Some(error) = text("cost_error") {
                            output::line(format!("    its cost is not known: {}", error.replace('\n', "\n    ")))?;
                        }
                    }
                    (None, None) => output::line(format!("✓ {slug}"))?,
                }
            }
        }
        if !faults.is_empty() {
            if context.json() {
                return Err(CliError::Usage { message: "the project has faults".into(), hint: None });
            }
            return Err(ConfigErrors::new(faults).into());
        }
        Ok(if failed { Outcome::Failed } else { Outcome::Fine })
    }
}
