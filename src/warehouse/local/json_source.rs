//! Reads JSON that DataFusion's own reader refuses: arrays, objects over several lines, columns that mix text with
//! numbers, columns of no one shape.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::{Buf, Bytes};
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, GetExt, Result, Statistics, internal_err};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::projection::{ProjectionOpener, SplitProjection};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{ExecutionPlan, apply_expression_roots};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};

use super::content::Chunks;
use super::json;
use super::table::{Compression, Traits};

/// The format of such files. Its schema is inferred by [`json::infer`].
#[derive(Debug, Clone)]
pub(super) struct TolerantJson {
    compression: Compression,
    by_line: bool,
    traits: Traits,
}

impl TolerantJson {
    pub(super) fn new(compression: Compression, by_line: bool, traits: Traits) -> Self {
        Self { compression, by_line, traits }
    }
}

#[async_trait]
impl FileFormat for TolerantJson {
    fn get_ext(&self) -> String {
        "json".into()
    }

    fn get_ext_with_compression(&self, compression: &FileCompressionType) -> Result<String> {
        Ok(format!("json{}", compression.get_ext()))
    }

    fn compression_type(&self) -> Option<FileCompressionType> {
        Some(self.compression.codec())
    }

    async fn infer_schema(&self, _: &dyn Session, _: &Arc<dyn ObjectStore>, _: &[ObjectMeta]) -> Result<SchemaRef> {
        internal_err!("a JSON table is given its schema")
    }

    async fn infer_stats(
        &self,
        _: &dyn Session,
        _: &Arc<dyn ObjectStore>,
        table_schema: SchemaRef,
        _: &ObjectMeta,
    ) -> Result<Statistics> {
        Ok(Statistics::new_unknown(&table_schema))
    }

    async fn create_physical_plan(&self, _: &dyn Session, config: FileScanConfig) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(DataSourceExec::from_data_source(config))
    }

    fn file_source(&self, table_schema: TableSchema) -> Arc<dyn FileSource> {
        Arc::new(TolerantSource {
            format: self.clone(),
            projection: SplitProjection::unprojected(&table_schema),
            table_schema,
            batch_rows: None,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

#[derive(Clone)]
struct TolerantSource {
    format: TolerantJson,
    table_schema: TableSchema,
    projection: SplitProjection,
    batch_rows: Option<usize>,
    metrics: ExecutionPlanMetricsSet,
}

impl FileSource for TolerantSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        _: &FileScanConfig,
        _: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let file_schema = self.table_schema.file_schema();
        let opener = Arc::new(TolerantOpener {
            format: self.format.clone(),
            store,
            schema: Arc::new(file_schema.project(&self.projection.file_indices)?),
            batch_rows: self.batch_rows.unwrap_or(8192),
        });
        ProjectionOpener::try_new(self.projection.clone(), opener, file_schema)
    }

    fn table_schema(&self) -> &TableSchema {
        &self.table_schema
    }

    fn with_batch_size(&self, batch_rows: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { batch_rows: Some(batch_rows), ..self.clone() })
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        let merged = self.projection.source.try_merge(projection)?;
        let projection = SplitProjection::new(self.table_schema.file_schema(), &merged);
        Ok(Some(Arc::new(Self { projection, ..self.clone() })))
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection.source)
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        "json"
    }

    fn supports_repartitioning(&self) -> bool {
        false
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.projection.source.iter(), f)
    }
}

struct TolerantOpener {
    format: TolerantJson,
    store: Arc<dyn ObjectStore>,
    /// Only the columns that are read.
    schema: SchemaRef,
    batch_rows: usize,
}

impl FileOpener for TolerantOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let (store, format) = (Arc::clone(&self.store), self.format.clone());
        let decoder = ReaderBuilder::new(Arc::clone(&self.schema))
            .with_batch_size(self.batch_rows)
            .with_coerce_primitive(format.traits.mixed_scalars)
            .build_decoder()?;
        Ok(Box::pin(async move {
            let lines = json::lines(&store, &file.object_meta, format.by_line, format.compression).await?;
            let columns = format.traits.as_text;
            let lines = if columns.is_empty() {
                lines
            } else {
                lines.and_then(move |lines| std::future::ready(json::as_text(&lines, &columns))).boxed()
            };
            Ok(futures::stream::try_unfold((lines, decoder, Bytes::new()), next_batch).boxed())
        }))
    }
}

async fn next_batch(
    (mut lines, mut decoder, mut chunk): (Chunks, Decoder, Bytes),
) -> Result<Option<(RecordBatch, (Chunks, Decoder, Bytes))>> {
    loop {
        if chunk.is_empty() {
            match lines.try_next().await? {
                Some(next) => chunk = next,
                None => return Ok(decoder.flush()?.map(|batch| (batch, (lines, decoder, chunk)))),
            }
        }
        let used = decoder.decode(&chunk).map_err(DataFusionError::from)?;
        chunk.advance(used);
        // the decoder stops short of the chunk's end when it holds a batch
        if !chunk.is_empty()
            && let Some(batch) = decoder.flush()?
        {
            return Ok(Some((batch, (lines, decoder, chunk))));
        }
    }
}
