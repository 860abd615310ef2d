//! Measures point lookups in process: `cargo run --release --example bench_lookup [PROFILES] [DIRECTORY]`.
//!
//! Writes a store of that many profiles (default 1,000,000; a `user_id` and an `email` each) and four models of five
//! attributes that nine in ten of them are in, two on each key; then looks 20,000 random profiles up by either field,
//! one in twenty of them unknown. Prints the latencies without an index, with one, and through serving files (what the
//! service does; on one thread and on all), the memory that each takes, and how long some queries over the wide view take
//! under the default memory limit. A directory that holds a store of an earlier call is read as it is.

#![expect(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use cloud_connect::config::StoreLocation;
use cloud_connect::profiles::serving::View;
use cloud_connect::profiles::{LookupOptions, ModelShape, Profile, ProfileReader};
use cloud_connect::store::data_file::RollingWriter;
use cloud_connect::store::schema::{identities_schema, records_schema, result_schema, split_hash, with_partition};
use cloud_connect::store::{Commit, Cut, StagedFile, Store, TableId};
use cloud_connect::values::ValueType;
use futures::TryStreamExt;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

type Fallible<T> = Result<T, Box<dyn Error>>;

// as the program has it
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const LOOKUPS: u64 = 20_000;
const MEMORY_LIMIT: u64 = 512 << 20;
/// Microseconds; when everything began.
const BEGIN: i64 = 1_750_000_000_000_000;

fn main() -> Fallible<()> {
    let mut arguments = std::env::args().skip(1);
    let profiles: u64 = arguments.next().map_or(Ok(1_000_000), |n| n.parse())?;
    let temporary = tempfile::tempdir()?;
    let directory = arguments.next().map_or_else(|| temporary.path().to_path_buf(), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(measure(profiles, directory)))
}

async fn measure(profiles: u64, directory: PathBuf) -> Fallible<()> {
    let serving = directory.join("serving");
    let store = Store::open(&StoreLocation::Directory(directory))?;
    let shapes: Vec<ModelShape> = (0..4).map(shape).collect();
    let begin = Instant::now();
    let cut = match written(&store, &shapes).await? {
        Some(cut) => cut,
        None => write(&store, &shapes, profiles).await?,
    };
    println!("{profiles} profiles; written in {:.1?}", begin.elapsed());
    let open = async || {
        let fields = ["user_id".to_string(), "email".to_string()];
        ProfileReader::open(&store, &cut, &shapes, &fields, MEMORY_LIMIT).await
    };

    let begin = Instant::now();
    let cold = open().await?;
    let found = cold.lookup("email", &value("email", profiles / 2)).await?;
    println!("open and first lookup, no index: {:.1?} ({})", begin.elapsed(), found.is_some());
    report("no index", profiles, LOOKUPS / 100, async |field, value| Ok(cold.lookup(field, value).await?)).await?;

    serve(&store, &cut, &shapes, &serving, profiles).await?;

    let indexed = open().await?.with_lookup(LookupOptions { index: true, max_index_bytes: 4 << 30 });
    let begin = Instant::now();
    let bytes = indexed.warm().await?;
    println!("indexes: {} MiB, built in {:.1?}", bytes >> 20, begin.elapsed());
    report("indexed", profiles, LOOKUPS, async |field, value| Ok(indexed.lookup(field, value).await?)).await?;
    drop(indexed);

    for query in [
        "SELECT count(*) FROM profiles",
        "SELECT count(*) FROM profiles WHERE cc_model_0_membership",
        "SELECT cc_model_1_brand, count(*), avg(cc_model_1_value) FROM profiles GROUP BY 1",
        "SELECT * FROM profiles WHERE email = 'p77@example.com'",
        "SELECT * FROM profiles",
    ] {
        let begin = Instant::now();
        let mut rows = 0;
        let mut stream = cold.sql(query).await?;
        while let Some(batch) = stream.try_next().await? {
            rows += batch.num_rows();
        }
        println!("{:>9.1?}  {rows:>8} rows  {query}", begin.elapsed());
    }
    println!("peak memory: {}", peak_memory());
    Ok(())
}

/// Lookups through serving files: written, opened again, and asked.
async fn serve(store: &Store, cut: &Cut, shapes: &[ModelShape], folder: &Path, profiles: u64) -> Fallible<()> {
    let fields = ["user_id".to_string(), "email".to_string()];
    let begin = Instant::now();
    drop(View::open(store, cut, shapes, &fields, folder).await?);
    let built = begin.elapsed();
    let begin = Instant::now();
    let view = Arc::new(View::open(store, cut, shapes, &fields, folder).await?);
    let mut disk = 0;
    for file in std::fs::read_dir(folder)? {
        disk += file?.metadata()?.len();
    }
    println!(
        "serving files: {} MiB, {} KiB in memory, built in {built:.1?}, opened in {:.1?}",
        disk >> 20,
        view.memory() >> 10,
        begin.elapsed()
    );
    report("served", profiles, LOOKUPS, async |field, value| Ok(view.by_identity(field, value)?)).await?;
    let begin = Instant::now();
    for n in 0..LOOKUPS {
        let (field, wanted, _) = wanted(n, profiles);
        serde_json::to_vec(&view.by_identity(field, &wanted)?)?;
    }
    println!("served and serialized: mean {:.2?}", begin.elapsed() / LOOKUPS as u32);
    let threads = std::thread::available_parallelism()?.get() as u64;
    let begin = Instant::now();
    let rounds = (0..threads).map(|_| {
        let view = view.clone();
        std::thread::spawn(move || {
            (0..LOOKUPS * 5)
                .filter(|n| {
                    let (field, wanted, _) = wanted(*n, profiles);
                    view.by_identity(field, &wanted).is_ok_and(|found| found.is_some())
                })
                .count()
        })
    });
    for round in rounds.collect::<Vec<_>>() {
        round.join().map_err(|_| "a thread failed")?;
    }
    let each = (LOOKUPS * 5 * threads) as f64 / begin.elapsed().as_secs_f64();
    println!("served on {threads} threads: {each:.0} lookups/s");
    Ok(())
}

/// The field and value of a lookup, and whether anybody has it.
fn wanted(n: u64, profiles: u64) -> (&'static str, String, bool) {
    let random = xxh3_64(&n.to_le_bytes());
    let field = if random & 1 == 0 { "user_id" } else { "email" };
    let known = !n.is_multiple_of(20);
    (field, value(field, random % profiles + if known { 0 } else { profiles }), known)
}

async fn report(
    what: &str,
    profiles: u64,
    lookups: u64,
    lookup: impl AsyncFn(&str, &str) -> Fallible<Option<Profile>>,
) -> Fallible<()> {
    let mut times = Vec::new();
    for n in 0..lookups {
        let (field, wanted, known) = wanted(n, profiles);
        let begin = Instant::now();
        let found = lookup(field, &wanted).await?;
        times.push(begin.elapsed());
        assert_eq!(found.is_some(), known, "{wanted}");
    }
    times.sort_unstable();
    let at = |percent: f64| times[((times.len() - 1) as f64 * percent / 100.0) as usize];
    let total: Duration = times.iter().sum();
    println!(
        "{what}: {lookups} lookups, p50 {:.2?}, p99 {:.2?}, max {:.2?}, mean {:.2?}",
        at(50.0),
        at(99.0),
        at(100.0),
        total / lookups as u32
    );
    Ok(())
}

fn shape(number: usize) -> ModelShape {
    let key = if number.is_multiple_of(2) { "email" } else { "user_id" };
    ModelShape {
        slug: format!("model_{number}"),
        external_key: key.into(),
        primary_key: key.into(),
        activated_fields: activated().into_iter().map(|(name, _)| name).collect(),
        identities: vec![],
    }
}

fn activated() -> Vec<(String, ValueType)> {
    let fields = [
        ("brand", ValueType::String),
        ("value", ValueType::Decimal { precision: 12, scale: 2 }),
        ("last_seen", ValueType::Timestamp),
        ("orders", ValueType::Int),
        ("active", ValueType::Bool),
    ];
    fields.map(|(name, value_type)| (name.to_string(), value_type)).to_vec()
}

fn value(field: &str, profile: u64) -> String {
    if field == "email" { format!("p{profile}@example.com") } else { format!("u-{profile:010}") }
}

async fn written(store: &Store, shapes: &[ModelShape]) -> Fallible<Option<Cut>> {
    let mut cut = Cut { identities: store.newest_version(&TableId::Identities, None).await?, ..Cut::default() };
    for shape in shapes {
        let Some(version) = store.newest_version(&TableId::Records(shape.slug.clone()), None).await? else {
            return Ok(None);
        };
        cut.records.insert(shape.slug.clone(), version);
    }
    Ok(cut.identities.is_some().then_some(cut))
}

async fn write(store: &Store, shapes: &[ModelShape], profiles: u64) -> Fallible<Cut> {
    let mut cut = Cut::default();
    let mut add = Vec::new();
    for field in ["user_id", "email"] {
        let batch = |keys: &[Key]| identities(field, keys);
        add.extend(stage_all(store, &TableId::Identities, Some(field), keys(field, 0..profiles), batch).await?);
    }
    let whole = with_partition(&identities_schema(), "field");
    let metadata = Some(Store::metadata(&TableId::Identities, &whole, &["field"], &[])?);
    cut.identities =
        Some(store.commit(&TableId::Identities, None, Commit { metadata, add, ..Commit::default() }).await?);
    for (number, shape) in shapes.iter().enumerate() {
        let id = TableId::Records(shape.slug.clone());
        let schema = records_schema(&result_schema((&shape.primary_key, ValueType::String), &activated(), &[]));
        let members = (0..profiles).filter(|profile| !(profile + number as u64).is_multiple_of(10));
        let batch = |keys: &[Key]| records(&schema, &shape.primary_key, keys);
        let add = stage_all(store, &id, None, keys(&shape.primary_key, members), batch).await?;
        let metadata = Some(Store::metadata(&id, &schema, &[], &[])?);
        let version = store.commit(&id, None, Commit { metadata, add, ..Commit::default() }).await?;
        cut.records.insert(shape.slug.clone(), version);
    }
    Ok(cut)
}

/// A key's split hash, and the profile.
type Key = ((i64, i64), u64);

fn keys(field: &str, profiles: impl Iterator<Item = u64>) -> Vec<Key> {
    let mut keys: Vec<Key> =
        profiles.map(|profile| (split_hash(xxh3_128(value(field, profile).as_bytes())), profile)).collect();
    keys.sort_unstable();
    keys
}

/// Writes the rows as a run does.
async fn stage_all(
    store: &Store,
    id: &TableId,
    partition: Option<&str>,
    keys: Vec<Key>,
    batch: impl Fn(&[Key]) -> Fallible<RecordBatch>,
) -> Fallible<Vec<StagedFile>> {
    let (schema, now) = (batch(&[])?.schema(), chrono::DateTime::UNIX_EPOCH);
    let partition: Vec<_> = partition.map(|field| ("field", field)).into_iter().collect();
    let mut writer = RollingWriter::new(store, id, "bench", schema, &partition, now);
    for part in keys.chunks(8192) {
        writer.write(&batch(part)?).await?;
    }
    Ok(writer.finish().await?)
}

fn longs(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values.map(|s| BEGIN + s * 1_000_000)).with_timezone("UTC"))
}

fn identities(field: &str, keys: &[Key]) -> Fallible<RecordBatch> {
    let founder = field == "user_id";
    let id = |key: &Key| uuid::Uuid::from_u128(xxh3_128(&key.1.to_le_bytes())).to_string();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(keys.iter().map(id))),
        Arc::new(StringArray::from_iter_values(keys.iter().map(|key| value(field, key.1)))),
        Arc::new(BooleanArray::from_iter(keys.iter().map(|_| Some(founder)))),
        Arc::new(StringArray::from_iter_values(keys.iter().map(|_| "01970000-0000-7000-8000-000000000000"))),
        times(keys.iter().map(|key| key.1 as i64 / 1000)),
        longs(keys.iter().map(|key| key.0.0)),
        longs(keys.iter().map(|key| key.0.1)),
    ];
    Ok(RecordBatch::try_new(identities_schema(), columns)?)
}

fn records(schema: &SchemaRef, key_field: &str, keys: &[Key]) -> Fallible<RecordBatch> {
    let random = |key: &Key| xxh3_64(&key.1.to_be_bytes());
    let brand = |key: &Key| ["Gazelle", "Cube", "Riese & Müller", "Tern", "Urban Arrow"][(random(key) % 5) as usize];
    let values = Decimal128Array::from_iter_values(keys.iter().map(|key| i128::from(random(key) % 1_000_000)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(keys.iter().map(|key| value(key_field, key.1)))),
        Arc::new(StringArray::from_iter_values(keys.iter().map(brand))),
        Arc::new(values.with_precision_and_scale(12, 2)?),
        times(keys.iter().map(|key| (random(key) % 10_000_000) as i64)),
        longs(keys.iter().map(|key| (random(key) % 50) as i64)),
        Arc::new(BooleanArray::from_iter(keys.iter().map(|key| Some(random(key).is_multiple_of(3))))),
        times(keys.iter().map(|key| key.1 as i64 / 1000)),
        longs(keys.iter().map(|key| key.0.0)),
        longs(keys.iter().map(|key| key.0.1)),
        longs(keys.iter().map(|key| random(key) as i64)),
    ];
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_string(), |peak| peak.trim().to_string())
}
