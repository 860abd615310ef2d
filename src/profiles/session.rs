//! The DataFusion session that queries run in: bounded memory, spilling, and nothing but queries.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;

use super::ProfilesError;
use super::files::{FilesTable, TableFiles, object_store_url};
use super::tables::{Tables, column};
use super::wide::{MembershipsTable, WideTable, hash_joins_fit};
use crate::store::Store;
use crate::store::schema::HASHES;
use crate::yielding::Yielding;

/// Below this, a further partition's sorts would have too little memory to be worth it.
const PARTITION_BYTES: u64 = 64 << 20;

/// A session with the tables that [`super`] lists.
pub(super) fn open(store: &Store, tables: &Arc<Tables>, memory_limit: u64) -> Result<SessionContext, ProfilesError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    // the planner takes a sort-merge join only when it may partition, so never fewer than two
    let partitions = threads.min(memory_limit / PARTITION_BYTES).max(2);
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_target_partitions(partitions as usize)
        // every sort of a plan sets this aside, and a plan of sort-merge joins has many
        .with_sort_spill_reservation_bytes((memory_limit / 128).clamp(64 << 10, 10 << 20) as usize);
    let largest = tables.models.iter().flat_map(|model| &model.records).map(|records| records.rows);
    let largest = largest.chain([tables.identities.rows, tables.changes.rows]).max().unwrap_or(0);
    config.options_mut().optimizer.prefer_hash_join = hash_joins_fit(largest, memory_limit);
    let pool = Arc::new(FairSpillPool::new(memory_limit as usize));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
    runtime.register_object_store(object_store_url()?.as_ref(), store.object_store().clone());
    let state = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    let session = SessionContext::from(state.with_physical_optimizer_rule(Arc::new(Yielding)).build());
    session.register_table("profiles", Arc::new(WideTable::new(tables.clone(), memory_limit)?))?;
    session.register_table("memberships", Arc::new(MembershipsTable::new(tables.clone(), memory_limit)))?;
    let identities = ["profile_id", "field", "value", "founder", "run_id", "created_at"];
    session.register_table("identities", view("identities", &tables.identities, &identities)?)?;
    let changes = ["run_id", "at", "model", "change", "profile_id", "identity", "before", "after"];
    session.register_table("changes", view("changes", &tables.changes, &changes)?)?;
    for model in &tables.models {
        let Some(records) = &model.records else { continue };
        let names = records.file_schema.fields().iter().map(|field| field.name().as_str());
        let shown: Vec<&str> = names.filter(|name| !HASHES.contains(name)).collect();
        let name = format!("records_{}", model.slug);
        session.register_table(name.as_str(), view(&name, records, &shown)?)?;
    }
    Ok(session)
}

/// Those columns of a table.
fn view(name: &str, files: &Arc<TableFiles>, columns: &[&str]) -> DataFusionResult<Arc<ViewTable>> {
    let scan = LogicalPlanBuilder::scan(name, provider_as_source(FilesTable::new(files.clone())), None)?;
    let plan = scan.project(columns.iter().map(|name| column(name)).collect::<Vec<_>>())?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// The plan of a query; anything else is refused.
pub(super) async fn query_plan(session: &SessionContext, query: &str) -> Result<LogicalPlan, ProfilesError> {
    let state = session.state();
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(query, &dialect)?;
    if !reads_only(&statement) {
        let text = statement.to_string();
        let words: Vec<&str> = text.split_whitespace().take(2).collect();
        return Err(ProfilesError::NotAQuery { statement: words.join(" ") });
    }
    let plan = state.statement_to_plan(statement).await?;
    // what hides within a query: SELECT … INTO, EXPLAIN of something else
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    match options.verify_plan(&plan) {
        Ok(()) => Ok(plan),
        Err(_) => Err(ProfilesError::NotAQuery { statement: query.trim().chars().take(60).collect() }),
    }
}

fn reads_only(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => matches!(
            statement.as_ref(),
            SqlStatement::Query(_)
                | SqlStatement::Explain { .. }
                | SqlStatement::ExplainTable { .. }
                | SqlStatement::ShowTables { .. }
                | SqlStatement::ShowColumns { .. }
                | SqlStatement::ShowFunctions { .. }
        ),
        Statement::Explain(explain) => reads_only(&explain.statement),
        _ => false,
    }
}

/// The columns of the wide view.
pub(super) async fn schema_of(session: &SessionContext, table: &str) -> Result<SchemaRef, ProfilesError> {
    Ok(session.table_provider(table).await?.schema())
}
