//! A small world of profiles, written as the tables say, and what must be read from it, worked out row by row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::config::StoreLocation;
use crate::profiles::{ModelShape, ProfileReader};
use crate::store::schema::{self, KEY_HI, split_hash};
use crate::store::{Commit, Cut, StagedFile, Store, TableId};
use crate::values::ValueType;
use crate::values::json::{cell_to_json, timestamp};

pub const MEMORY: u64 = 256 << 20;
pub const FIELDS: [&str; 2] = ["user_id", "email"];

#[derive(Debug, Clone)]
pub struct Identity {
    pub profile: usize,
    pub field: usize,
    pub value: String,
    pub founder: bool,
    /// Seconds.
    pub created_at: i64,
}

#[derive(Debug, Clone)]
pub struct Row {
    pub key: String,
    pub since: i64,
    pub score: Option<i64>,
    pub extra: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Model {
    pub slug: String,
    pub field: usize,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone)]
pub struct World {
    pub identities: Vec<Identity>,
    pub models: Vec<Model>,
    /// Files are sorted by hash, or as the rows come.
    pub sorted: bool,
    /// Rows a file.
    pub rows_a_file: usize,
}

pub fn profile_id(profile: usize) -> String {
    uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + profile as u128).to_string()
}

pub fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

fn times(seconds: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(
        TimestampMicrosecondArray::from_iter_values(seconds.map(|s| time(s).timestamp_micros())).with_timezone("UTC"),
    )
}

/// The two hash columns of these texts.
pub fn hashes<'a>(texts: impl Iterator<Item = &'a str>) -> [ArrayRef; 2] {
    let (hi, lo): (Vec<i64>, Vec<i64>) = texts.map(|text| split_hash(xxh3_128(text.as_bytes()))).unzip();
    [Arc::new(Int64Array::from(hi)), Arc::new(Int64Array::from(lo))]
}

pub fn identities_batch(rows: &[&Identity]) -> RecordBatch {
    let [hi, lo] = hashes(rows.iter().map(|row| row.value.as_str()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| profile_id(row.profile)))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.value))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.founder)))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "run"))),
        times(rows.iter().map(|row| row.created_at)),
        hi,
        lo,
    ];
    RecordBatch::try_new(schema::identities_schema(), columns).unwrap()
}

pub fn records_batch(key: &str, rows: &[Row]) -> RecordBatch {
    let activated = [("score".to_string(), ValueType::Int), ("extra".to_string(), ValueType::Json)];
    let schema = schema::records_schema(&schema::result_schema((key, ValueType::String), &activated, &[]));
    let [hi, lo] = hashes(rows.iter().map(|row| row.key.as_str()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.key))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.score))),
        Arc::new(StringArray::from_iter(rows.iter().map(|row| row.extra.as_deref()))),
        times(rows.iter().map(|row| row.since)),
        hi.clone(),
        lo,
        hi,
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

/// Writes a data file with tiny pages and row groups, so that choosing among them is put to the test.
pub async fn stage(
    store: &Store,
    id: &TableId,
    name: &str,
    batch: &RecordBatch,
    partition: &[(&str, &str)],
) -> StagedFile {
    let properties = WriterProperties::builder()
        .set_data_page_row_count_limit(2)
        .set_write_batch_size(1)
        .set_max_row_group_row_count(Some(5))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    let path = format!("run/{name}.parquet");
    let size = bytes.len() as u64;
    store.object_store().put(&store.path(id, &path), bytes.into()).await.unwrap();
    let hi = batch.column_by_name(KEY_HI).map(|column| column.as_primitive::<Int64Type>().values().to_vec());
    let hi = hi.unwrap_or_default();
    StagedFile {
        path,
        size,
        rows: batch.num_rows() as u64,
        hash_range: hi.iter().min().copied().zip(hi.iter().max().copied()),
        partition: partition.iter().map(|(column, value)| (column.to_string(), value.to_string())).collect(),
        written_at: time(0),
    }
}

fn sorted_by_hash(batch: &RecordBatch) -> RecordBatch {
    let hi = batch.column_by_name(KEY_HI).unwrap().as_primitive::<Int64Type>();
    let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
    order.sort_by_key(|row| hi.value(*row as usize));
    take_record_batch(batch, &UInt32Array::from(order)).unwrap()
}

impl World {
    async fn stage_all(
        &self,
        store: &Store,
        id: &TableId,
        batch: RecordBatch,
        partition: &[(&str, &str)],
    ) -> Vec<StagedFile> {
        let batch = if self.sorted { sorted_by_hash(&batch) } else { batch };
        let mut files = Vec::new();
        for from in (0..batch.num_rows()).step_by(self.rows_a_file) {
            let part = batch.slice(from, self.rows_a_file.min(batch.num_rows() - from));
            let name = format!("{}-{from}", partition.first().map_or("all", |(_, value)| value));
            files.push(stage(store, id, &name, &part, partition).await);
        }
        files
    }

    /// Writes everything at version 0.
    pub async fn write(&self, store: &Store) -> Cut {
        let mut cut = Cut::default();
        let mut add = Vec::new();
        for (number, field) in FIELDS.iter().enumerate() {
            let rows: Vec<&Identity> = self.identities.iter().filter(|identity| identity.field == number).collect();
            let partition = [("field", *field)];
            add.extend(self.stage_all(store, &TableId::Identities, identities_batch(&rows), &partition).await);
        }
        let whole = schema::with_partition(&schema::identities_schema(), "field");
        let metadata = Store::metadata(&TableId::Identities, &whole, &["field"], &[]).unwrap();
        let commit = Commit { metadata: Some(metadata), add, ..Commit::default() };
        cut.identities = Some(store.commit(&TableId::Identities, None, commit).await.unwrap());
        for model in &self.models {
            let id = TableId::Records(model.slug.clone());
            let batch = records_batch(FIELDS[model.field], &model.rows);
            let metadata = Some(Store::metadata(&id, &batch.schema(), &[], &[]).unwrap());
            let add = self.stage_all(store, &id, batch, &[]).await;
            let version = store.commit(&id, None, Commit { metadata, add, ..Commit::default() }).await.unwrap();
            cut.records.insert(model.slug.clone(), version);
        }
        cut
    }

    pub fn shapes(&self) -> Vec<ModelShape> {
        let shape = |model: &Model| ModelShape {
            slug: model.slug.clone(),
            external_key: FIELDS[model.field].into(),
            primary_key: FIELDS[model.field].into(),
            activated_fields: vec!["score".into(), "extra".into()],
            identities: vec![],
        };
        self.models.iter().map(shape).collect()
    }

    fn of(&self, profile: usize) -> impl Iterator<Item = &Identity> {
        self.identities.iter().filter(move |identity| identity.profile == profile)
    }

    /// The row by which the profile is in the model, and since when.
    pub fn membership<'a>(&'a self, profile: usize, model: &'a Model) -> Option<(i64, &'a Row)> {
        let identities: Vec<&Identity> = self.of(profile).filter(|identity| identity.field == model.field).collect();
        let rows = model.rows.iter().filter_map(|row| {
            let identity = identities.iter().find(|identity| identity.value == row.key)?;
            let since = row.since.max(identity.created_at);
            Some(((since, split_hash(xxh3_128(row.key.as_bytes()))), row))
        });
        rows.min_by_key(|(rank, _)| *rank).map(|((since, _), row)| (since, row))
    }

    /// The newest first.
    pub fn values(&self, profile: usize, field: usize) -> Vec<String> {
        let mut values: Vec<&Identity> = self.of(profile).filter(|identity| identity.field == field).collect();
        values.sort_by_key(|identity| (-identity.created_at, identity.value.clone()));
        values.iter().map(|identity| identity.value.clone()).collect()
    }

    /// What `SELECT * FROM profiles` must give, by profile id.
    pub fn wide(&self) -> BTreeMap<String, Value> {
        let founders = self.identities.iter().filter(|identity| identity.founder);
        let row = |founder: &Identity| {
            let mut row = json!({
                "profile_id": profile_id(founder.profile),
                "created_at": timestamp(time(founder.created_at)),
            });
            for (number, field) in FIELDS.iter().enumerate() {
                row[*field] = json!(self.values(founder.profile, number).first());
            }
            for model in &self.models {
                let member = self.membership(founder.profile, model);
                let column = |name: &str| format!("cc_{}_{name}", model.slug);
                row[column("score")] = json!(member.and_then(|(_, row)| row.score));
                let extra = member.and_then(|(_, row)| row.extra.as_deref());
                row[column("extra")] = extra.map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
                row[column("membership")] = json!(member.is_some());
                row[column("since")] = json!(member.map(|(since, _)| timestamp(time(since))));
            }
            (profile_id(founder.profile), row)
        };
        founders.map(row).collect()
    }

    /// What a look-up of the profile must give.
    pub fn profile(&self, profile: usize) -> Value {
        let founder = self.of(profile).find(|identity| identity.founder).unwrap();
        let mut identities = serde_json::Map::new();
        for (number, field) in FIELDS.iter().enumerate() {
            match self.values(profile, number).as_slice() {
                [] => {}
                [value] => drop(identities.insert(field.to_string(), json!(value))),
                values => drop(identities.insert(field.to_string(), json!(values))),
            }
        }
        let (mut attributes, mut memberships) = (serde_json::Map::new(), serde_json::Map::new());
        for model in &self.models {
            let Some((since, row)) = self.membership(profile, model) else { continue };
            memberships.insert(model.slug.clone(), json!(timestamp(time(since))));
            let extra = row.extra.as_deref().map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
            attributes.insert(format!("cc_{}_score", model.slug), json!(row.score));
            attributes.insert(format!("cc_{}_extra", model.slug), extra);
        }
        json!({
            "profile_id": profile_id(profile),
            "created_at": timestamp(time(founder.created_at)),
            "identities": identities,
            "attributes": attributes,
            "memberships": memberships,
        })
    }
}

pub fn new_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreLocation::Directory(directory.path().to_path_buf())).unwrap();
    (directory, store)
}

pub fn fields() -> Vec<String> {
    FIELDS.map(str::to_string).to_vec()
}

/// The query's rows as JSON objects.
pub async fn rows(reader: &ProfileReader, query: &str) -> Vec<Value> {
    let stream = reader.sql(query).await.unwrap();
    json_rows(&stream.try_collect::<Vec<_>>().await.unwrap())
}

pub fn json_rows(batches: &[RecordBatch]) -> Vec<Value> {
    let mut rows = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let cells = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
                let value_type = ValueType::of(field).unwrap();
                (field.name().clone(), cell_to_json(column.as_ref(), row, value_type))
            });
            rows.push(Value::Object(cells.collect()));
        }
    }
    rows
}
