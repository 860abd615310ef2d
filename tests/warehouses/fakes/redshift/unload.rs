//! `UNLOAD`: the query runs on PostgreSQL, its rows go to S3 as Redshift would write them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use futures::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::AsyncArrowWriter;
use parquet::file::properties::WriterProperties;
use regex::Regex;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, NoTls, Row};

use super::refusals::{self, Refusal};
use super::{Session, error};

/// Where it writes, and in whose name.
#[derive(Debug, Clone)]
pub struct S3 {
    /// `http://127.0.0.1:port`
    pub endpoint: String,
    pub bucket: String,
    /// The role that the cluster may take, besides its default one.
    pub role: String,
}

/// Slices of the cluster: files written at once.
const SLICES: usize = 4;
/// Rows of a file when one slice writes all.
const SERIAL_FILE_ROWS: u64 = 100_000;
const ROW_GROUP: usize = 20_000;
/// Rows that a slice takes at a time.
const SLICE_ROWS: usize = 2_000;

struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl S3 {
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_bucket_name(&self.bucket)
            .with_region("us-east-1")
            .with_access_key_id("redshift")
            .with_secret_access_key("redshift")
            .with_allow_http(true);
        Arc::new(store.build().expect("a store"))
    }
}

fn failed(message: impl ToString) -> Refusal {
    ("XX000", message.to_string())
}

impl Session {
    /// Answers the statement, to the end.
    pub(super) async fn unload(&self, sql: &str) -> Vec<u8> {
        self.state.queries.fetch_add(1, Ordering::SeqCst);
        self.state.unloads.fetch_add(1, Ordering::SeqCst);
        let failure = self.state.fail_next.lock().unwrap().pop();
        let outcome = match failure {
            Some(refusal) => Err(refusal),
            None => self.run_unload(sql).await,
        };
        let ready = [b'Z', 0, 0, 0, 5, b'I'];
        let key = *self.key.lock().unwrap();
        self.state.unloading.lock().unwrap().remove(&key);
        match outcome {
            Ok(rows) => {
                self.unloaded.store(rows, Ordering::SeqCst);
                let tag = b"UNLOAD\0";
                [&[b'C', 0, 0, 0, 4 + tag.len() as u8][..], tag, &ready].concat()
            }
            Err(refusal) => [error(&refusal, "ERROR", None), ready.to_vec()].concat(),
        }
    }

    async fn run_unload(&self, sql: &str) -> Result<u64, Refusal> {
        let syntax = r"(?s)^UNLOAD \('(.*)'\)\s+TO '([^']*)'\s+IAM_ROLE (default|'[^']*')\s+FORMAT AS PARQUET\s+MANIFEST(\s+REGION AS '[^']*')?(\s+PARALLEL OFF)?$";
        let parts = Regex::new(syntax).expect("a pattern");
        let parts = parts.captures(sql).ok_or_else(|| ("42601", format!("syntax error in {sql}")))?;
        let select = unquote(&parts[1]);
        let s3 = self.state.s3.as_ref().ok_or_else(|| failed("S3ServiceException:Access Denied,Status 403"))?;
        if &parts[3] != "default" && parts[3].trim_matches('\'') != s3.role {
            let user = format!("arn:aws:redshift:us-east-1:123:dbuser:shop/{}", self.user);
            return Err(failed(format!("User {user} is not authorized to assume IAM Role {}", &parts[3])));
        }
        let place = parts[2].strip_prefix(&format!("s3://{}/", s3.bucket));
        let place = place.ok_or_else(|| failed("S3ServiceException:The specified bucket does not exist,Status 404"))?;
        if let Some(refusal) = refusals::of_unload(&select) {
            return Err(refusal);
        }
        let client = self.connect().await?;
        self.write(&client, &select, s3, place, parts.get(5).is_some()).await
    }

    /// A connection of its own, with the rights and limits of the session.
    async fn connect(&self) -> Result<Client, Refusal> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.state.backend).user(&self.user).dbname(&self.database);
        config.password(&self.state.password).application_name("fake unload");
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        tokio::spawn(connection);
        let limit = self.statement_timeout.load(Ordering::SeqCst);
        client
            .batch_execute(&format!("SET statement_timeout TO {limit}; SET timezone TO 'UTC'"))
            .await
            .map_err(failed)?;
        let key = *self.key.lock().unwrap();
        self.state.unloading.lock().unwrap().insert(key, client.cancel_token());
        if self.state.cancelled.lock().unwrap().contains(&key) {
            return Err(("57014", "Query (1) cancelled on user's request".into()));
        }
        Ok(client)
    }

    async fn write(&self, client: &Client, select: &str, s3: &S3, place: &str, serial: bool) -> Result<u64, Refusal> {
        let of_db = |e: tokio_postgres::Error| match e.as_db_error() {
            Some(db) if db.code().code() == "57014" => ("57014", "Query (1) cancelled on user's request".to_string()),
            Some(db) => ("XX000", db.message().to_string()),
            None => failed(e),
        };
        let statement = client.prepare(select).await.map_err(of_db)?;
        let schema = schema_of(statement.columns())?;
        let parameters = std::iter::empty::<&(dyn tokio_postgres::types::ToSql + Sync)>();
        let rows = client.query_raw(&statement, parameters).await.map_err(of_db)?;
        let mut chunks = std::pin::pin!(rows.chunks(SLICE_ROWS));
        let mut files = Files {
            store: s3.store(),
            place: place.to_string(),
            schema: schema.clone(),
            open: Vec::new(),
            done: Vec::new(),
        };
        let (mut total, mut turn) = (0u64, 0usize);
        while let Some(chunk) = chunks.next().await {
            let rows: Vec<Row> = chunk.into_iter().collect::<Result<_, _>>().map_err(of_db)?;
            let batch = batch_of(&schema, statement.columns(), &rows);
            total += rows.len() as u64;
            let (slice, part) =
                if serial { (0, total.saturating_sub(1) / SERIAL_FILE_ROWS) } else { (turn % SLICES, 0) };
            turn += 1;
            files.write(slice, part, &batch).await;
        }
        files.finish(s3, total).await;
        Ok(total)
    }
}

fn unquote(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' || c == '\'' { chars.next().expect("what is escaped") } else { c });
    }
    plain
}

struct Files {
    store: Arc<dyn ObjectStore>,
    place: String,
    schema: SchemaRef,
    open: Vec<(String, AsyncArrowWriter<BufWriter>)>,
    done: Vec<String>,
}

impl Files {
    async fn write(&mut self, slice: usize, part: u64, batch: &RecordBatch) {
        let name = format!("{slice:04}_part_{part:02}.parquet");
        let known = self.open.iter().position(|(n, _)| *n == name);
        let at = match known {
            Some(at) => at,
            None => {
                // of one slice, one file at a time
                let prefix = format!("{slice:04}_");
                let old = self.open.iter().position(|(n, _)| n.starts_with(&prefix));
                if let Some(old) = old {
                    let (name, writer) = self.open.remove(old);
                    writer.close().await.expect("a file");
                    self.done.push(name);
                }
                let target = BufWriter::new(self.store.clone(), Path::from(format!("{}{name}", self.place)));
                let properties = WriterProperties::builder()
                    .set_max_row_group_row_count(Some(ROW_GROUP))
                    .set_compression(parquet::basic::Compression::SNAPPY)
                    .set_dictionary_enabled(false)
                    .build();
                let writer = AsyncArrowWriter::try_new(target, self.schema.clone(), Some(properties));
                self.open.push((name, writer.expect("a writer")));
                self.open.len() - 1
            }
        };
        self.open[at].1.write(batch).await.expect("rows");
    }

    /// Without rows, nothing is written at all.
    async fn finish(mut self, s3: &S3, rows: u64) {
        for (name, writer) in self.open.drain(..) {
            writer.close().await.expect("a file");
            self.done.push(name);
        }
        if rows == 0 {
            return;
        }
        self.done.sort();
        let mut entries = Vec::new();
        for name in &self.done {
            let path = format!("{}{name}", self.place);
            let size = self.store.head(&Path::from(path.as_str())).await.expect("a file").size;
            entries.push(
                serde_json::json!({ "url": format!("s3://{}/{path}", s3.bucket), "meta": { "content_length": size } }),
            );
        }
        let manifest = serde_json::json!({ "entries": entries }).to_string();
        self.store.put(&Path::from(format!("{}manifest", self.place)), manifest.into()).await.expect("a manifest");
    }
}

/// What Parquet takes of Redshift's types.
fn schema_of(columns: &[tokio_postgres::Column]) -> Result<SchemaRef, Refusal> {
    let mut fields: Vec<Field> = Vec::new();
    for column in columns {
        let data_type = match *column.type_() {
            Type::BOOL => DataType::Boolean,
            Type::INT2 | Type::INT4 => DataType::Int32,
            Type::INT8 => DataType::Int64,
            Type::FLOAT4 => DataType::Float32,
            Type::FLOAT8 => DataType::Float64,
            Type::NUMERIC if column.type_modifier() >= 4 => {
                let packed = column.type_modifier() - 4;
                DataType::Decimal128((packed >> 16) as u8, (packed & 0x7ff) as i8)
            }
            Type::NUMERIC => DataType::Decimal128(38, 0),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => DataType::Utf8,
            Type::DATE => DataType::Date32,
            // the zone is not unloaded
            Type::TIMESTAMP | Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, None),
            ref other => {
                return Err(("0A000", format!("Unload of type {} into Parquet is not supported", other.name())));
            }
        };
        if fields.iter().any(|f| f.name() == column.name()) {
            return Err(("42701", format!("Duplicate column name \"{}\" in Parquet", column.name())));
        }
        fields.push(Field::new(column.name(), data_type, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn batch_of(schema: &SchemaRef, columns: &[tokio_postgres::Column], rows: &[Row]) -> RecordBatch {
    let arrays = schema.fields().iter().enumerate().map(|(i, field)| {
        let raw = || rows.iter().map(move |row| row.get::<_, Option<Raw<'_>>>(i).map(|raw| raw.0));
        fn fixed<const N: usize>(raw: &[u8]) -> [u8; N] {
            raw.try_into().expect("the width of the type")
        }
        let days = 10_957;
        let array: ArrayRef = match field.data_type() {
            DataType::Boolean => Arc::new(raw().map(|r| r.map(|r| r[0] != 0)).collect::<BooleanArray>()),
            DataType::Int32 if *columns[i].type_() == Type::INT2 => {
                Arc::new(raw().map(|r| r.map(|r| i32::from(i16::from_be_bytes(fixed(r))))).collect::<Int32Array>())
            }
            DataType::Int32 => Arc::new(raw().map(|r| r.map(|r| i32::from_be_bytes(fixed(r)))).collect::<Int32Array>()),
            DataType::Int64 => Arc::new(raw().map(|r| r.map(|r| i64::from_be_bytes(fixed(r)))).collect::<Int64Array>()),
            DataType::Float32 => {
                Arc::new(raw().map(|r| r.map(|r| f32::from_be_bytes(fixed(r)))).collect::<Float32Array>())
            }
            DataType::Float64 => {
                Arc::new(raw().map(|r| r.map(|r| f64::from_be_bytes(fixed(r)))).collect::<Float64Array>())
            }
            DataType::Date32 => {
                Arc::new(raw().map(|r| r.map(|r| i32::from_be_bytes(fixed(r)) + days)).collect::<Date32Array>())
            }
            DataType::Timestamp(..) => Arc::new(
                raw()
                    .map(|r| r.map(|r| i64::from_be_bytes(fixed(r)) + i64::from(days) * 86_400_000_000))
                    .collect::<TimestampMicrosecondArray>(),
            ),
            DataType::Decimal128(precision, scale) => Arc::new(
                raw()
                    .map(|r| r.map(|r| decimal(r, *scale)))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(*precision, *scale)
                    .expect("a decimal"),
            ),
            _ => Arc::new(raw().map(|r| r.map(|r| std::str::from_utf8(r).expect("UTF-8"))).collect::<StringArray>()),
        };
        array
    });
    RecordBatch::try_new(schema.clone(), arrays.collect()).expect("a batch")
}

/// PostgreSQL's binary numeric, by its digits: groups of four, the first worth 10000^weight.
fn decimal(raw: &[u8], scale: i8) -> i128 {
    let word = |i: usize| i16::from_be_bytes([raw[i * 2], raw[i * 2 + 1]]);
    let mut digits = String::new();
    for place in (-12..=word(1).max(0)).rev() {
        let group = usize::try_from(word(1) - place).ok().filter(|g| *g < usize::from(word(0).cast_unsigned()));
        digits.push_str(&format!("{:04}", group.map_or(0, |g| word(4 + g))));
    }
    // 48 digits stand after the point
    let value: i128 = digits[..digits.len() - 48 + usize::try_from(scale).expect("a scale")].parse().expect("digits");
    if word(2) == 0x4000 { -value } else { value }
}
