//! A Delta table at one version, as the list of its data files: read directly, or scanned by DataFusion.
//!
//! The file list comes from the Delta log; data files are then read with DataFusion's own Parquet source, so that
//! columns, row groups and pages that a query does not need are not read. Footers are read once for a reader's life.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use tokio::sync::OnceCell;

use super::ProfilesError;
use crate::store::data_file::ObjectReader;
use crate::store::{DataFile, Store, StoreError, TableId, Version, schema};

/// The files of a table at one version, or those of one of its partitions.
#[derive(Debug)]
pub(super) struct TableFiles {
    pub id: TableId,
    pub store: Arc<dyn ObjectStore>,
    /// Columns that the files hold; a file written before a column was added lacks it.
    pub file_schema: SchemaRef,
    /// The column that the log holds instead.
    pub partition: Option<FieldRef>,
    pub files: Vec<Arc<TableFile>>,
    pub rows: u64,
}

/// One data file.
#[derive(Debug)]
pub(super) struct TableFile {
    pub location: Path,
    pub size: u64,
    pub rows: u64,
    pub known: DataFile,
    footer: OnceCell<ArrowReaderMetadata>,
}

impl TableFiles {
    /// The table at that version; `partition` names its partition column.
    pub async fn load(
        store: &Store,
        id: TableId,
        version: Version,
        partition: Option<&str>,
    ) -> Result<Self, ProfilesError> {
        use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
        let Some(table) = store.table(&id, Some(version)).await? else {
            return Err(StoreError::Behind { table: id.folder(), published: version, newest: None }.into());
        };
        let state = table.snapshot().map_err(|e| StoreError::Delta { table: id.folder(), source: Box::new(e) })?;
        let whole: Schema = state.schema().as_ref().try_into_arrow().map_err(StoreError::from)?;
        let (partition_fields, file_fields): (Vec<_>, Vec<_>) =
            whole.fields().iter().cloned().partition(|field| Some(field.name().as_str()) == partition);
        let files = Store::files(&id, &table)?.into_iter().map(|known| {
            let location = store.path(&id, &known.path);
            Arc::new(TableFile { location, size: known.size, rows: known.rows, known, footer: OnceCell::new() })
        });
        let files = files.collect();
        let file_schema = Arc::new(Schema::new(file_fields));
        Ok(Self::new(id, store.object_store().clone(), file_schema, partition_fields.into_iter().next(), files))
    }

    /// A table that does not exist at the cut: no rows.
    pub fn none(store: &Store, id: TableId, file_schema: SchemaRef, partition: Option<FieldRef>) -> Self {
        Self::new(id, store.object_store().clone(), file_schema, partition, Vec::new())
    }

    fn new(
        id: TableId,
        store: Arc<dyn ObjectStore>,
        file_schema: SchemaRef,
        partition: Option<FieldRef>,
        files: Vec<Arc<TableFile>>,
    ) -> Self {
        let rows = files.iter().map(|file| file.rows).sum();
        Self { id, store, file_schema, partition, files, rows }
    }

    /// Only the files of this partition.
    pub fn of_partition(&self, value: &str) -> Self {
        let files = self.files.iter().filter(|file| self.partition_value(file) == Some(value)).cloned();
        let partition = self.partition.clone();
        Self::new(self.id.clone(), self.store.clone(), self.file_schema.clone(), partition, files.collect())
    }

    /// The file's value of the partition column.
    pub fn partition_value<'a>(&self, file: &'a TableFile) -> Option<&'a str> {
        let column = self.partition.as_ref()?.name();
        file.known.partition.get(column)?.as_deref()
    }

    pub fn reader(&self, file: &TableFile) -> ObjectReader {
        ObjectReader::new(&self.store, file.location.clone(), file.size)
    }

    /// The file's footer and page index, read at first use.
    pub async fn footer<'a>(&self, file: &'a TableFile) -> Result<&'a ArrowReaderMetadata, ProfilesError> {
        let mut reader = self.reader(file);
        let load = async move || {
            let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
            ArrowReaderMetadata::load_async(&mut reader, options).await
        };
        file.footer.get_or_try_init(load).await.map_err(|e| file.error(e))
    }

    fn table_schema(&self) -> TableSchema {
        let partition: Vec<FieldRef> = self.partition.iter().cloned().collect();
        TableSchema::builder(self.file_schema.clone()).with_table_partition_cols(partition).build()
    }

    fn partitioned_file(&self, file: &TableFile) -> PartitionedFile {
        let meta = ObjectMeta {
            location: file.location.clone(),
            // data files are written once, so the time does not tell versions apart
            last_modified: DateTime::<Utc>::UNIX_EPOCH,
            size: file.size,
            e_tag: None,
            version: None,
        };
        let mut statistics = Statistics::new_unknown(&self.file_schema);
        statistics.num_rows = Precision::Exact(file.rows as usize);
        if let (Some((low, high)), Some((column, _))) =
            (file.known.hash_range, self.file_schema.column_with_name(schema::KEY_HI))
        {
            statistics.column_statistics[column] = ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: Precision::Exact(ScalarValue::Int64(Some(low))),
                max_value: Precision::Exact(ScalarValue::Int64(Some(high))),
                ..ColumnStatistics::new_unknown()
            };
        }
        let value = self.partition.iter().map(|_| ScalarValue::Utf8(self.partition_value(file).map(str::to_string)));
        PartitionedFile::new_from_meta(meta)
            .with_partition_values(value.collect())
            .with_statistics(Arc::new(statistics))
    }
}

impl TableFile {
    pub fn error(&self, source: ParquetError) -> ProfilesError {
        ProfilesError::DataFile { file: self.known.path.clone(), source }
    }
}

/// Lets DataFusion scan a table's files. Columns: those of the files, then the partition column.
#[derive(Debug)]
pub(super) struct FilesTable {
    files: Arc<TableFiles>,
    schema: SchemaRef,
}

impl FilesTable {
    pub fn new(files: Arc<TableFiles>) -> Arc<Self> {
        debug_assert!(files.partition.as_ref().is_none_or(|field| field.data_type() == &DataType::Utf8));
        let schema = files.table_schema().table_schema().clone();
        Arc::new(Self { files, schema })
    }
}

#[async_trait]
impl TableProvider for FilesTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // Filters are not taken here: the physical optimizer pushes them into the Parquet source, where they prune files,
    // row groups and pages, and are evaluated before other columns are decoded.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if self.files.files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => self.schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let reader = CachedParquetFileReaderFactory::new(self.files.store.clone(), cache);
        let source = ParquetSource::new(self.files.table_schema())
            .with_pushdown_filters(true)
            .with_parquet_file_reader_factory(Arc::new(reader));
        let files = self.files.files.iter().map(|file| self.files.partitioned_file(file));
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = Precision::Exact(self.files.rows as usize);
        let config = FileScanConfigBuilder::new(object_store_url()?, Arc::new(source))
            .with_file_group(FileGroup::new(files.collect()))
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// The name under which the store is known to DataFusion. Not its real URL: nothing outside the store is reachable.
pub(super) fn object_store_url() -> DataFusionResult<ObjectStoreUrl> {
    ObjectStoreUrl::parse("cloud-connect://store")
}
