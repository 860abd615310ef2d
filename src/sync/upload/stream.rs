//! A stream's table: what was uploaded and collected, as it came.
//!
//! | Column | Type | |
//! |---|---|---|
//! | `_cc_received_at` | timestamp | when the row came in: of an upload its beginning |
//! | `_cc_upload_id` | string | the upload that it came with |
//! | `_cc_line` | long | its line in the body |
//! | whatever was sent | string | as it was sent |

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use deltalake::DeltaTable;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{Metadata, MetadataExt, Remove, StructType};
use futures::TryStreamExt;

use crate::store::data_file::{ReadOptions, RollingWriter, TARGET_ROWS, read_file};
use crate::store::schema::value_field;
use crate::store::{DataFile, StagedFile, Store, StoreError, TableId};
use crate::sync::definition::{CONFIGURATION_KEY, Definition};
use crate::sync::published::definition_of;
use crate::sync::publishing::Publishing;
use crate::sync::{Engine, SyncError};
use crate::uploads::{UploadError, UploadReport};
use crate::values::ValueType;

/// The service's own columns of a stream's table, in front of what was sent.
pub(super) const OWN: [&str; 3] = ["_cc_received_at", "_cc_upload_id", "_cc_line"];

/// Files below a quarter of the target are small; so many may stand.
const SMALL_FILE_ROWS: u64 = TARGET_ROWS / 4;
const MAX_SMALL_FILES: usize = 16;

/// The state of a stream's table before an upload.
pub(super) struct StreamBase {
    pub(super) table: Option<DeltaTable>,
    pub(super) definition: Option<Definition>,
    pub(super) files: Vec<DataFile>,
    /// Without the service's own.
    pub(super) columns: Vec<String>,
}

/// Small files that became large ones.
#[derive(Default)]
pub(super) struct Folded {
    pub(super) add: Vec<StagedFile>,
    pub(super) remove: Vec<Remove>,
}

impl Engine {
    pub(super) async fn stream_base(&self, stream: &str) -> Result<StreamBase, SyncError> {
        let id = TableId::Stream(stream.to_string());
        let Some(table) = self.table_to_change(&id, &id.folder()).await? else {
            return Ok(StreamBase { table: None, definition: None, files: Vec::new(), columns: Vec::new() });
        };
        let corrupt = |message: String| StoreError::Corrupt { table: id.folder(), message };
        let state = table.snapshot().map_err(|e| corrupt(e.to_string()))?;
        let columns = state.schema().fields().map(|field| field.name().clone()).collect::<Vec<_>>();
        if columns.iter().take(OWN.len()).ne(OWN.iter()) {
            return Err(corrupt(format!("its columns do not begin with {}", OWN.join(", "))).into());
        }
        let (files, definition) = (Store::files(&id, &table)?, definition_of(&id, &table)?);
        Ok(StreamBase { table: Some(table), definition, files, columns: columns[OWN.len()..].to_vec() })
    }

    /// Many small uploads leave many small files: they are folded together now and then.
    pub(super) async fn fold(
        &self,
        base: &StreamBase,
        schema: &SchemaRef,
        report: &UploadReport,
    ) -> Result<Folded, UploadError> {
        let small: Vec<&DataFile> = base.files.iter().filter(|file| file.rows < SMALL_FILE_ROWS).collect();
        if small.len() < MAX_SMALL_FILES {
            return Ok(Folded::default());
        }
        let id = TableId::Stream(report.stream.clone());
        let now = report.started_at;
        let mut writer = RollingWriter::new(&self.store, &id, &report.id, schema.clone(), &[], now);
        for file in &small {
            let mut batches = read_file(&self.store, &id, file, ReadOptions::default()).await?;
            while let Some(batch) = batches.try_next().await? {
                let column = |field: &FieldRef| match batch.column_by_name(field.name()) {
                    Some(column) => column.clone(),
                    None => new_null_array(field.data_type(), batch.num_rows()),
                };
                let columns = schema.fields().iter().map(column).collect();
                writer.write(&RecordBatch::try_new(schema.clone(), columns)?).await?;
            }
        }
        Ok(Folded { add: writer.finish().await?, remove: small.iter().map(|file| file.remove.clone()).collect() })
    }
}

/// The columns of a stream's table.
pub(super) fn schema(columns: &[String]) -> SchemaRef {
    let mut fields = vec![
        value_field(OWN[0], ValueType::Timestamp),
        value_field(OWN[1], ValueType::String),
        value_field(OWN[2], ValueType::Int),
    ];
    fields.extend(columns.iter().map(|name| value_field(name, ValueType::String)));
    Arc::new(Schema::new(fields))
}

/// The table's metadata, when it is new or changes.
pub(super) fn metadata(
    id: &TableId,
    base: &StreamBase,
    cx: &Publishing,
    changed: bool,
) -> Result<Option<Metadata>, SyncError> {
    let bug = |e: String| SyncError::Bug(e);
    let definition = serde_json::to_string(&cx.definition).map_err(|e| bug(e.to_string()))?;
    Ok(match &base.table {
        None => Some(Store::metadata(id, &cx.records, &[], &[(CONFIGURATION_KEY, definition)])?),
        Some(table) if changed => {
            let schema: StructType = cx.records.as_ref().try_into_kernel()?;
            let metadata = table.snapshot().map_err(|e| bug(e.to_string()))?.metadata().clone();
            let metadata = metadata.with_schema(&schema).map_err(|e| bug(e.to_string()))?;
            Some(metadata.add_config_key(CONFIGURATION_KEY.into(), definition).map_err(|e| bug(e.to_string()))?)
        }
        Some(_) => None,
    })
}
