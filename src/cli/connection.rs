//! `connection test|tables|columns|query|types`

use clap::Subcommand;

use super::sql::write_batches;
use super::{CliError, Context, Outcome, output};
use crate::sync::SyncError;
use crate::warehouse::{ParameterKind, QueryOptions, Warehouse};

/// Try a connection, and look at what it reaches
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect connection test app_db
  cloud-connect connection tables ebikes
  cloud-connect connection columns ebikes customers
  cloud-connect connection query ebikes \"SELECT country, count(*) FROM customers GROUP BY country\"
  cloud-connect connection types")]
pub struct Connection {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it step by step; says which step fails and what to do
    Test { connection: String },
    /// The tables that it can read
    Tables { connection: String },
    /// The columns of a table, and the value types that they become
    Columns { connection: String, table: String },
    /// The first rows of a reading query
    Query {
        connection: String,
        sql: String,
        /// At most so many rows
        #[arg(long, default_value_t = 10)]
        limit: usize,
    },
    /// The kinds of connections, and their parameters
    Types,
}

impl Connection {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        match &self.command {
            Command::Types => types(context),
            Command::Test { connection } => {
                let steps = open(context, connection).await?.test().await;
                let ok = steps.iter().all(|step| step.ok);
                if context.json() {
                    output::json(&serde_json::json!({ "ok": ok, "steps": steps }))?;
                } else {
                    for step in &steps {
                        let mark = if step.ok { '✓' } else { '✗' };
                        output::line(format!("{mark} {}: {}", step.step, step.detail.replace('\n', "\n    ")))?;
                    }
                }
                Ok(if ok { Outcome::Fine } else { Outcome::Failed })
            }
            Command::Tables { connection } => {
                let tables = open(context, connection).await?.tables().await?;
                if context.json() {
                    output::json(&tables)?;
                    return Ok(Outcome::Fine);
                }
                let mut shown = output::table(&["table", "kind", ">columns"]);
                for table in tables {
                    let columns = table.columns.map_or_else(|| "—".into(), |n| n.to_string());
                    shown.add_row(vec![table.name, table.kind, columns]);
                }
                output::line(shown.to_string())?;
                Ok(Outcome::Fine)
            }
            Command::Columns { connection, table } => {
                let columns = open(context, connection).await?.columns(table).await?;
                if context.json() {
                    output::json(&columns)?;
                    return Ok(Outcome::Fine);
                }
                let mut shown = output::table(&["column", "warehouse type", "value type", "nullable"]);
                for column in columns {
                    let value_type = column.value_type.unwrap_or_else(|| "(not held: cast it)".into());
                    let nullable = if column.nullable { "yes" } else { "no" };
                    shown.add_row(vec![column.name, column.warehouse_type, value_type, nullable.into()]);
                }
                output::line(shown.to_string())?;
                Ok(Outcome::Fine)
            }
            Command::Query { connection, sql, limit } => {
                let options = QueryOptions { limit: Some(*limit), ..QueryOptions::default() };
                let running = tokio::select! {
                    running = async { open(context, connection).await?.query(sql, &options).await.map_err(CliError::from) } => running?,
                    () = context.cancel.cancelled() => return Err(SyncError::Cancelled.into()),
                };
                let cancel = running.cancel.clone();
                tokio::select! {
                    written = write_batches(context.global.output, running.stream) => written?,
                    () = context.cancel.cancelled() => {
                        cancel.cancel().await;
                        return Err(SyncError::Cancelled.into());
                    }
                }
                Ok(Outcome::Fine)
            }
        }
    }
}

async fn open(context: &Context, name: &str) -> Result<std::sync::Arc<dyn Warehouse>, CliError> {
    let project = context.load_to_connect().await?;
    let limit = context.memory_limit(&project);
    project.open_connection(name, limit / 2).map_err(|e| SyncError::from(e).into())
}

fn types(context: &Context) -> Result<Outcome, CliError> {
    let kind = |kind: &ParameterKind| match kind {
        ParameterKind::Text => "text".to_string(),
        ParameterKind::Integer { min, max } => format!("{min}..{max}"),
        ParameterKind::Bool => "true|false".into(),
        ParameterKind::Choice(words) => words.join("|"),
        ParameterKind::Location => "directory or URL".into(),
        ParameterKind::File => "file".into(),
        ParameterKind::Secret => "secret".into(),
        ParameterKind::Duration => "duration".into(),
        ParameterKind::Bytes => "size".into(),
    };
    if context.json() {
        let all: Vec<_> = context
            .providers
            .iter()
            .map(|provider| {
                let parameters = provider.parameters.iter().map(|p| {
                    serde_json::json!({
                        "name": p.name, "kind": kind(&p.kind), "secret": p.kind == ParameterKind::Secret,
                        "required": p.required, "default": p.default, "help": p.help,
                    })
                });
                serde_json::json!({ "type": provider.name, "title": provider.title, "maturity": provider.maturity, "parameters": parameters.collect::<Vec<_>>() })
            })
            .collect();
        output::json(&all)?;
        return Ok(Outcome::Fine);
    }
    for provider in &context.providers {
        output::line(format!("{}: {}", provider.name, provider.title))?;
        output::line(format!("  {}: {}", provider.maturity.grade.as_str(), provider.maturity.verified))?;
        let mut table = output::table(&["parameter", "kind", "default", ""]);
        for p in provider.parameters {
            let default = if p.required { "(required)" } else { p.default.unwrap_or("") };
            table.add_row(vec![p.name, &kind(&p.kind), default, p.help]);
        }
        output::line(format!("{table}\n"))?;
    }
    Ok(Outcome::Fine)
}
