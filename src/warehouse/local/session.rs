//! A DataFusion session for one operation: bounded memory, spilling, one reading statement.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, TableProvider};
use datafusion::common::TableReference;
use datafusion::common::config::Dialect;
use datafusion::dataframe::DataFrame;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;

use super::catalog::{Catalog, LocalSchema};
use super::{errors, table};
use crate::warehouse::WarehouseError;
use crate::yielding::Yielding;

const CATALOG: &str = "local";
const SCHEMA: &str = "public";

/// Plans statements over one listing of the warehouse.
pub(super) struct Session {
    state: SessionState,
    catalog: Arc<Catalog>,
}

impl Session {
    pub(super) fn new(catalog: Arc<Catalog>, memory_limit: usize, batch_rows: usize) -> Result<Self, WarehouseError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let mut config = SessionConfig::new()
            .with_target_partitions(cores)
            .with_batch_size(batch_rows.max(1))
            .with_information_schema(false)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, SCHEMA);
        let options = config.options_mut();
        // without spans an error cannot say where in the SQL it is
        options.sql_parser.collect_spans = true;
        // results are carried as plain strings: views would only be copied into them
        options.execution.parquet.schema_force_view_types = false;
        // a folder's files may lie in sub-folders that are no partitions
        options.execution.listing_table_ignore_subdirectory = false;
        // the default (10 MB a sorting partition) is more than a small limit has
        let reserve = memory_limit / (cores * 8);
        options.execution.sort_spill_reservation_bytes = reserve.min(options.execution.sort_spill_reservation_bytes);

        let shown = NonZeroUsize::new(3).unwrap_or(NonZeroUsize::MIN);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(TrackConsumersPool::new(FairSpillPool::new(memory_limit), shown)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::OsTmpDirectory))
            .build_arc()
            .map_err(|e| errors::from_datafusion(&e))?;
        runtime.register_object_store(&table::root_url(), catalog.store());

        let state = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
        let state = state.with_physical_optimizer_rule(Arc::new(Yielding)).build();
        let provider = MemoryCatalogProvider::new();
        // its own empty list of catalogs: a session that holds a schema that holds the session would never be freed
        let opening = SessionStateBuilder::new_from_existing(state.clone())
            .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
            .build();
        let schema = LocalSchema::new(Arc::clone(&catalog), opening);
        provider.register_schema(SCHEMA, Arc::new(schema)).map_err(|e| errors::from_datafusion(&e))?;
        state.catalog_list().register_catalog(CATALOG.into(), Arc::new(provider));
        Ok(Self { state, catalog })
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(super) fn state(&self) -> &SessionState {
        &self.state
    }

    pub(super) fn task_context(&self) -> Arc<TaskContext> {
        self.state.task_ctx()
    }

    /// The physical plan of one reading statement.
    ///
    /// # Errors
    /// Sql when it is not one reading statement or does not plan; what opening its tables raises.
    pub(super) async fn physical_plan(
        &self,
        sql: &str,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, WarehouseError> {
        // what `now()` and its like mean is the moment at which this statement begins
        let mut state = self.state.clone();
        state.mark_start_execution();
        let statement = state.sql_to_statement(sql, &Dialect::Generic).map_err(|e| errors::from_datafusion(&e))?;
        only_reads(&statement)?;
        let names = state.resolve_table_references(&statement).unwrap_or_default();
        let plan = state.statement_to_plan(statement).await.map_err(|e| self.explain(&e, &names))?;
        let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan).map_err(|_| refused("a statement that writes"))?;
        let mut frame = DataFrame::new(state, plan);
        if limit.is_some() {
            frame = frame.limit(0, limit).map_err(|e| errors::from_datafusion(&e))?;
        }
        frame.create_physical_plan().await.map_err(|e| errors::from_datafusion(&e))
    }

    /// The table of that name, written as in a query (`customers`, `"Old Orders"`) or as the file is called.
    pub(super) async fn table(&self, name: &str) -> Result<Arc<dyn TableProvider>, WarehouseError> {
        let reference = TableReference::from(name);
        for name in [reference.table(), name] {
            if let Some(table) = self.catalog.table(&self.state, name).await? {
                return Ok(table);
            }
        }
        Err(self.catalog.unknown(name))
    }

    /// DataFusion's own words, or better ones when a table is missing.
    fn explain(&self, error: &datafusion::common::DataFusionError, names: &[TableReference]) -> WarehouseError {
        let mapped = errors::from_datafusion(error);
        let missing = names
            .iter()
            .map(TableReference::table)
            .find(|name| !self.catalog.has(name) && mapped.message.contains(&format!("{name}' not found")));
        match missing {
            Some(name) => self.catalog.unknown(name),
            None => mapped,
        }
    }
}

fn refused(what: &str) -> WarehouseError {
    WarehouseError::sql(format!("{what} is refused: a connection only reads"))
        .with_hint("write one SELECT, WITH … SELECT, or VALUES statement")
}

fn only_reads(statement: &Statement) -> Result<(), WarehouseError> {
    let what = match statement {
        Statement::Statement(inner) => match inner.as_ref() {
            ast::Statement::Query(_) => return Ok(()),
            ast::Statement::Explain { .. } | ast::Statement::ExplainTable { .. } => "EXPLAIN".to_owned(),
            other => {
                let text = other.to_string();
                text.split_whitespace().next().unwrap_or("this").to_uppercase()
            }
        },
        Statement::Explain(_) => "EXPLAIN".to_owned(),
        Statement::CopyTo(_) => "COPY".to_owned(),
        Statement::CreateExternalTable(_) => "CREATE EXTERNAL TABLE".to_owned(),
        _ => "this statement".to_owned(),
    };
    Err(refused(&what))
}
