#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

use super::*;
use crate::warehouse::WarehouseErrorKind;

fn warehouse(path: &Path) -> LocalWarehouse {
    LocalWarehouse::new(Location::Directory(path.to_owned()), DEFAULT_MEMORY_LIMIT)
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        write(dir.path(), name, content.as_bytes());
    }
    dir
}

fn write(dir: &Path, name: &str, content: &[u8]) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn numbers(from: i64, count: i64) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)]);
    let ids = Int64Array::from_iter_values(from..from + count);
    let names = StringArray::from_iter_values((from..from + count).map(|n| format!("name {n}")));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(names)]).unwrap()
}

fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    out
}

fn zstd(content: &[u8]) -> Vec<u8> {
    compressed(content, "zst")
}

/// Compressed by the tool that people use.
fn compressed(content: &[u8], ending: &str) -> Vec<u8> {
    let tool = if ending == "gz" { "gzip" } else { "zstd" };
    let mut child = std::process::Command::new(tool)
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    child.wait_with_output().unwrap().stdout
}

async fn all(warehouse: &LocalWarehouse, sql: &str) -> Result<RecordBatch, WarehouseError> {
    let query = warehouse.query(sql, &QueryOptions::default()).await?;
    let schema = query.stream.schema();
    let batches: Vec<RecordBatch> = query.stream.try_collect().await.map_err(|e| errors::from_datafusion(&e))?;
    Ok(concat_batches(&schema, &batches).unwrap())
}

/// Rows as text, `|` between values.
async fn rows(warehouse: &LocalWarehouse, sql: &str) -> Vec<String> {
    let batch = match all(warehouse, sql).await {
        Ok(batch) => batch,
        Err(e) => panic!("{sql}: {e:?}"),
    };
    (0..batch.num_rows())
        .map(|row| {
            let values = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
            values.collect::<Vec<_>>().join("|")
        })
        .collect()
}

async fn refusal(warehouse: &LocalWarehouse, sql: &str) -> WarehouseError {
    let refused = all(warehouse, sql).await.unwrap_err();
    let described = warehouse.describe(sql).await;
    assert!(described.is_err() || refused.kind != WarehouseErrorKind::Sql, "{sql} was described");
    refused
}

#[tokio::test]
async fn every_format_is_a_table_named_after_its_stem() {
    let csv = "id,name\n1,a\n2,\n";
    let dir = folder(&[
        ("plain.csv", csv),
        ("tabs.tsv", "id\tname\n1\ta\n2\t\n"),
        ("lines.ndjson", "{\"id\":1,\"name\":\"a\"}\n{\"id\":2,\"name\":null}\n"),
        ("lines2.jsonl", "{\"id\":1,\"name\":\"a\"}\n{\"id\":2}\n"),
        ("array.json", "[{\"id\":1,\n\"name\":\"a\"},\n{\"id\":2}]"),
        ("README.md", "no table"),
        ("_SUCCESS", ""),
        ("empty_folder/notes.txt", "no table"),
        ("folder/one.csv", "id,name\n1,a\n"),
        ("folder/deeper/two.csv", "id,name\n2,\n"),
        ("folder/_temporary/half.csv", "id,na"),
    ]);
    write(dir.path(), "packed.csv.gz", &compressed(csv.as_bytes(), "gz"));
    write(dir.path(), "tight.csv.zst", &zstd(csv.as_bytes()));
    write(dir.path(), "tight_lines.ndjson.zst", &zstd(b"{\"id\":1,\"name\":\"a\"}\n{\"id\":2}"));
    write(dir.path(), "columnar.parquet", &parquet(&numbers(1, 2)));
    let warehouse = warehouse(dir.path());

    let tables = warehouse.tables().await.unwrap();
    let listed: Vec<_> = tables.iter().map(|t| (t.name.as_str(), t.kind.as_str(), t.columns)).collect();
    assert_eq!(
        listed,
        [
            ("array", "json", None),
            ("columnar", "parquet", Some(2)),
            ("folder", "csv", Some(2)),
            ("lines", "ndjson", None),
            ("lines2", "ndjson", None),
            ("packed", "csv", Some(2)),
            ("plain", "csv", Some(2)),
            ("tabs", "tsv", Some(2)),
            ("tight", "csv", Some(2)),
            ("tight_lines", "ndjson", None),
        ]
    );
    for table in tables.iter().filter(|t| t.kind != "parquet") {
        let got = rows(&warehouse, &format!("SELECT id, name FROM {} ORDER BY id", table.name)).await;
        assert_eq!(got, ["1|a", "2|"], "{}", table.name);
        assert_eq!(rows(&warehouse, &format!("SELECT count(*) FROM {}", table.name)).await, ["2"], "{}", table.name);
    }
    assert_eq!(rows(&warehouse, "SELECT id, name FROM columnar ORDER BY id").await, ["1|name 1", "2|name 2"]);

    let columns = warehouse.columns("plain").await.unwrap();
    let shown: Vec<_> = columns.iter().map(|c| (c.name.as_str(), c.value_type.as_deref().unwrap_or(""))).collect();
    assert_eq!(shown, [("id", "int"), ("name", "string")]);
    assert!(warehouse.test().await.iter().all(|step| step.ok));
}

#[tokio::test]
async fn a_delta_table_is_read_as_of_its_last_version_from_any_store() {
    use deltalake::DeltaTable;
    use deltalake::protocol::SaveMode;
    let dir = tempfile::tempdir().unwrap();
    let stock = dir.path().join("stock list");
    std::fs::create_dir(&stock).unwrap();
    let url = url::Url::from_directory_path(&stock).unwrap();
    let table = DeltaTable::try_from_url(url).await.unwrap();
    let table = table.write(vec![numbers(0, 5)]).await.unwrap();
    table.write(vec![numbers(10, 3)]).with_save_mode(SaveMode::Overwrite).await.unwrap();

    let local = warehouse(dir.path());
    let tables = local.tables().await.unwrap();
    assert_eq!((tables[0].kind.as_str(), tables[0].columns), ("delta", Some(2)));
    assert_eq!(rows(&local, "SELECT id FROM \"stock list\" ORDER BY id").await, ["10", "11", "12"]);
    assert_eq!(rows(&local, "SELECT name FROM \"stock list\" WHERE id = 11").await, ["name 11"]);

    // the same bytes behind a store that is no file system
    let memory = InMemory::new();
    let mut folders = vec![stock.clone()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(dir.path()).unwrap().to_str().unwrap();
            memory.put(&ObjectPath::from(inside), std::fs::read(&path).unwrap().into()).await.unwrap();
        }
    }
    memory.put(&ObjectPath::from("plain.csv"), "a,b\n1,2\n".into()).await.unwrap();
    memory.put(&ObjectPath::from("odd name/x y.ndjson"), "{\"a\":1}\n{\"a\":\"b\"}\n".into()).await.unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(memory);
    let remote = LocalWarehouse::new(Location::Store { store, shown: "memory".into() }, DEFAULT_MEMORY_LIMIT);
    assert_eq!(rows(&remote, "SELECT id FROM \"stock list\" ORDER BY id").await, ["10", "11", "12"]);
    assert_eq!(rows(&remote, "SELECT * FROM plain").await, ["1|2"]);
    assert_eq!(rows(&remote, "SELECT * FROM \"odd name\"").await, ["1", "b"]);
}

#[tokio::test]
async fn a_dirty_value_late_in_a_file_makes_its_column_text() {
    let mut csv = String::from("id,amount,day\n");
    let mut ndjson = String::new();
    for id in 0..20_000 {
        let dirty = id == 15_000;
        let amount = if dirty { "n/a".into() } else { format!("{id}.5") };
        let day = if dirty { "2025-02-30" } else { "2025-02-28" };
        csv.push_str(&format!("{id},{amount},{day}\n"));
        let amount = if dirty { "\"n/a\"".into() } else { amount };
        let extra = if dirty { "{\"a\":1}" } else { "[1]" };
        ndjson.push_str(&format!("{{\"id\":{id},\"amount\":{amount},\"extra\":{extra}}}\n"));
    }
    let dir = folder(&[("purchases.csv", &csv), ("events.ndjson", &ndjson)]);
    let warehouse = warehouse(dir.path());
    for (table, text) in [("purchases", "amount"), ("events", "amount")] {
        let schema = warehouse.describe(&format!("SELECT id, {text} FROM {table}")).await.unwrap();
        assert_eq!(schema.field(0).data_type(), &DataType::Int64);
        assert_eq!(schema.field(1).data_type(), &DataType::Utf8, "{table}");
        let sql = format!("SELECT count(*), count(try_cast({text} AS double)), max(id) FROM {table}");
        assert_eq!(rows(&warehouse, &sql).await, ["20000|19999|19999"], "{table}");
    }
    assert_eq!(rows(&warehouse, "SELECT day FROM purchases WHERE id = 15000").await, ["2025-02-30"]);
    let extra = rows(&warehouse, "SELECT extra FROM events WHERE id IN (1, 15000) ORDER BY id").await;
    assert_eq!(extra, ["[1]", "{\"a\":1}"]);
    let columns = warehouse.columns("events").await.unwrap();
    assert_eq!(columns[2].value_type.as_deref(), Some("json"));
}

#[tokio::test]
async fn a_schema_is_inferred_anew_when_its_file_changes() {
    let dir = folder(&[("t.csv", "a\n1\n")]);
    let warehouse = warehouse(dir.path());
    assert_eq!(warehouse.describe("SELECT a FROM t").await.unwrap().field(0).data_type(), &DataType::Int64);
    write(dir.path(), "t.csv", b"a\nx y\n");
    assert_eq!(rows(&warehouse, "SELECT a FROM t").await, ["x y"]);
}

#[tokio::test]
async fn quoted_lines_offsets_and_timestamps_are_read_as_they_are() {
    let text =
        "at,note,zip\n2026-01-31T10:00:00+02:00,\"two\nlines, \"\"quoted\"\"\",01234\n2026-01-31 09:00:00.25,,99999\n";
    let dir = folder(&[("notes.csv", text), ("bom.csv", "\u{feff}a;b\n1\n"), ("index.csv", ",b\n0,x\n")]);
    let warehouse = warehouse(dir.path());
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(warehouse.describe("SELECT at FROM notes").await.unwrap().field(0).data_type(), &utc);
    assert_eq!(
        rows(&warehouse, "SELECT * FROM notes").await,
        ["2026-01-31T08:00:00Z|two\nlines, \"quoted\"|01234", "2026-01-31T09:00:00.250Z||99999"]
    );
    assert_eq!(warehouse.columns("bom").await.unwrap()[0].name, "a;b");
    assert_eq!(rows(&warehouse, "SELECT column_1, b FROM \"index\"").await, ["0|x"]);
}

#[tokio::test]
async fn hive_partitions_are_columns() {
    let dir = folder(&[
        ("visits/day=2026-01-01/shop=1/a.csv", "id\n1\n"),
        ("visits/day=2026-01-02/shop=2/a.csv", "id\n2\n"),
        ("mixed/day=1/a.csv", "id\n1\n"),
        ("mixed/hour=2/a.csv", "id\n2\n"),
    ]);
    let warehouse = warehouse(dir.path());
    let schema = warehouse.describe("SELECT * FROM visits").await.unwrap();
    let types: Vec<_> = schema.fields().iter().map(|f| (f.name().as_str(), f.data_type())).collect();
    assert_eq!(types, [("id", &DataType::Int64), ("day", &DataType::Date32), ("shop", &DataType::Int64)]);
    assert_eq!(rows(&warehouse, "SELECT id FROM visits WHERE day > DATE '2026-01-01'").await, ["2"]);
    assert_eq!(rows(&warehouse, "SELECT id FROM visits WHERE shop = 1").await, ["1"]);
    let mixed = refusal(&warehouse, "SELECT * FROM mixed").await;
    assert!(mixed.message.contains("partition folders"), "{mixed:?}");
}

#[tokio::test]
async fn one_name_for_two_things_and_files_that_disagree_are_clear_errors() {
    let dir = folder(&[
        ("customers.csv", "id\n1\n"),
        ("customers.ndjson", "{\"id\":1}\n"),
        ("orders/a.csv", "id,b\n1,2\n"),
        ("orders/b.csv", "b,id\n1,2\n"),
        ("zoo/a.csv", "id\n1\n"),
        ("zoo/b.ndjson", "{\"id\":1}\n"),
        ("ragged.csv", "id,b\n1,2\n3\n"),
        ("twice.csv", "id,id\n1,2\n"),
        ("fine.csv", "id\n7\n"),
    ]);
    let warehouse = warehouse(dir.path());
    for (sql, part) in [
        ("SELECT * FROM customers", "customers.csv, customers.ndjson"),
        ("SELECT * FROM orders", "different headers"),
        ("SELECT * FROM zoo", "different formats"),
        ("SELECT * FROM ragged", "ragged.csv"),
        ("SELECT * FROM twice", "`id` is there twice"),
    ] {
        let error = refusal(&warehouse, sql).await;
        assert_eq!(error.kind, WarehouseErrorKind::Configuration, "{error:?}");
        assert!(error.message.contains(part) && error.hint.is_some(), "{error:?}");
    }
    assert_eq!(rows(&warehouse, "SELECT * FROM fine").await, ["7"]);
    let tables = warehouse.tables().await.unwrap();
    let faulty: Vec<&str> = tables.iter().filter(|t| t.error.is_some()).map(|t| t.name.as_str()).collect();
    assert_eq!(faulty, ["customers", "twice", "zoo"], "{tables:?}");
    let customers = tables.iter().find(|t| t.name == "customers").unwrap();
    assert!(customers.error.as_ref().unwrap().contains("customers.ndjson"), "{customers:?}");
    assert!(warehouse.test().await.iter().all(|step| step.ok), "it reads a table that can be read");
}

#[tokio::test]
async fn only_one_reading_statement_runs() {
    let dir = folder(&[("t.csv", "a\n1\n")]);
    let warehouse = warehouse(dir.path());
    let outside = dir.path().join("out.csv");
    for sql in [
        "CREATE TABLE x AS SELECT 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "INSERT INTO t VALUES (1)",
        "DROP TABLE t",
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        &format!("COPY t TO '{}'", outside.display()),
        "EXPLAIN SELECT * FROM t",
        "EXPLAIN ANALYZE SELECT * FROM t",
        "SHOW TABLES",
        "DESCRIBE t",
        "SELECT * INTO x FROM t",
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM x",
        "SELECT 1; SELECT 2",
        "BEGIN",
        "DELETE FROM t",
        "",
        "SELEC 1",
        "SELECT * FROM '/etc/passwd'",
        &format!("SELECT * FROM '{}'", dir.path().join("t.csv").display()),
        "SELECT * FROM information_schema.tables",
    ] {
        let error = refusal(&warehouse, sql).await;
        assert_eq!(error.kind, WarehouseErrorKind::Sql, "{sql}: {error:?}");
    }
    assert!(!outside.exists());
    assert_eq!(rows(&warehouse, "-- a comment\nWITH x AS (SELECT a FROM t) SELECT a FROM x;").await, ["1"]);
    assert_eq!(rows(&warehouse, "VALUES (1), (2)").await, ["1", "2"]);
    assert_eq!(rows(&warehouse, "SELECT count(*) FROM generate_series(1, 3)").await, ["3"]);
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let dir = folder(&[("customers.csv", "id,email\n1,a\n"), ("Order Lines.csv", "id\n1\n"), ("order.csv", "id\n5\n")]);
    let warehouse = warehouse(dir.path());
    let table = refusal(&warehouse, "SELECT * FROM custmers").await;
    assert_eq!(table.hint.as_deref(), Some("did you mean customers?"), "{table:?}");
    let other = refusal(&warehouse, "SELECT * FROM nothing_like_it").await;
    assert!(other.hint.as_deref().unwrap().contains("\"Order Lines\""), "{other:?}");
    let column = refusal(&warehouse, "SELECT id,\n  emial FROM customers").await;
    assert!(column.message.starts_with("line 2, column 3: "), "{column:?}");
    assert!(format!("{column:?}").contains("email"), "{column:?}");
    let cast = all(&warehouse, "SELECT CAST(email AS int) FROM customers").await.unwrap_err();
    assert_eq!(cast.kind, WarehouseErrorKind::Sql, "{cast:?}");

    let names: Vec<_> = warehouse.tables().await.unwrap().into_iter().map(|t| t.name).collect();
    assert_eq!(names, ["\"Order Lines\"", "customers", "order"]);
    for name in &names {
        assert_eq!(rows(&warehouse, &format!("SELECT count(*) FROM {name}")).await, ["1"]);
        assert!(!warehouse.columns(name).await.unwrap().is_empty());
    }
    assert_eq!(warehouse.columns("Order Lines").await.unwrap().len(), 1);
    assert!(warehouse.columns("nope").await.is_err());
}

#[tokio::test]
async fn a_missing_or_empty_path_is_a_configuration_fault() {
    let dir = tempfile::tempdir().unwrap();
    let mut params = ConnectionParams::new("shop", dir.path());
    params.set("path", "nowhere");
    let missing = (PROVIDER.build)(&params).unwrap();
    let error = missing.describe("SELECT 1").await.unwrap_err();
    assert_eq!(error.kind, WarehouseErrorKind::Configuration);
    assert!(error.message.contains("nowhere") && error.hint.is_some());
    let steps = missing.test().await;
    assert_eq!((steps.len(), steps[0].ok), (1, false));

    let steps = warehouse(dir.path()).test().await;
    assert!(!steps.last().unwrap().ok && steps.last().unwrap().detail.contains("no tables"));

    for path in ["s3://key:secret@bucket/x", "nonsense://x"] {
        params.set("path", path);
        let error = (PROVIDER.build)(&params).map(|_| ()).unwrap_err();
        assert_eq!(error.kind, WarehouseErrorKind::Configuration, "{error:?}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_million_rows_stream_in_little_memory_and_a_sort_spills() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("big.parquet")).unwrap();
    let properties =
        parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(100_000)).build();
    let mut writer = ArrowWriter::try_new(file, numbers(0, 1).schema(), Some(properties)).unwrap();
    for start in 0..100 {
        writer.write(&numbers(start * 10_000, 10_000)).unwrap();
    }
    writer.close().unwrap();
    let small = LocalWarehouse::new(Location::Directory(dir.path().to_owned()), 32 << 20);
    let options = QueryOptions { batch_rows: 1000, ..QueryOptions::default() };
    for sql in ["SELECT * FROM big", "SELECT id, name FROM big ORDER BY name DESC"] {
        let mut query = small.query(sql, &options).await.unwrap();
        let (mut count, mut sum) = (0, 0);
        while let Some(batch) = query.stream.next().await {
            let batch = batch.unwrap();
            assert!(batch.num_rows() <= 1000);
            count += batch.num_rows();
            sum += batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
        }
        assert_eq!((count, sum), (1_000_000, 499_999_500_000), "{sql}");
    }

    let limited = QueryOptions { limit: Some(7), ..QueryOptions::default() };
    let batches: Vec<RecordBatch> =
        small.query("SELECT * FROM big", &limited).await.unwrap().stream.try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 7);
}

#[tokio::test]
async fn a_large_parquet_file_is_decoded_on_all_cores() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("big.parquet")).unwrap();
    let properties =
        parquet::file::properties::WriterProperties::builder().set_max_row_group_row_count(Some(200_000)).build();
    let mut writer = ArrowWriter::try_new(file, numbers(0, 1).schema(), Some(properties)).unwrap();
    for start in 0..12 {
        writer.write(&numbers(start * 200_000, 200_000)).unwrap();
    }
    writer.close().unwrap();
    assert!(std::fs::metadata(dir.path().join("big.parquet")).unwrap().len() > 10 << 20);
    let session = warehouse(dir.path()).session(8192).await.unwrap();
    let plan = session.physical_plan("SELECT id, name FROM big", None).await.unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(plan.output_partitioning().partition_count(), cores);
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let options = QueryOptions { timeout: Some(Duration::from_millis(50)), ..QueryOptions::default() };
    let sql = "SELECT count(*) FROM generate_series(1, 3000000) a JOIN generate_series(1, 3000000) b ON a.value % 7 = b.value % 5";
    let started = Instant::now();
    let outcome = match warehouse(dir.path()).query(sql, &options).await {
        Ok(query) => query.stream.try_collect::<Vec<_>>().await.map(|_| ()).map_err(|e| errors::from_datafusion(&e)),
        Err(e) => Err(e),
    };
    let error = outcome.unwrap_err();
    assert!(error.message.contains("stopped after its limit"), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_a_query_returns_is_what_describe_said() {
    let dir = folder(&[("t.csv", "id,amount\n1,2.5\n")]);
    write(dir.path(), "p.parquet", &parquet(&numbers(0, 3)));
    let warehouse = warehouse(dir.path());
    for sql in
        ["SELECT * FROM t", "SELECT * FROM p", "SELECT name, count(*) AS n FROM p GROUP BY name", "SELECT NULL AS x"]
    {
        let described = warehouse.describe(sql).await.unwrap();
        let query = warehouse.query(sql, &QueryOptions::default()).await.unwrap();
        assert_eq!(query.stream.schema(), described, "{sql}");
        let batches: Vec<RecordBatch> = query.stream.try_collect().await.unwrap();
        assert!(batches.iter().all(|batch| batch.schema() == described), "{sql}");
    }
    let sum = all(&warehouse, "SELECT sum(amount) FROM t").await.unwrap();
    assert!((sum.column(0).as_primitive::<Float64Type>().value(0) - 2.5).abs() < f64::EPSILON);
}
