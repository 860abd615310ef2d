//! What every warehouse has to keep, asked in each one's own SQL.
//!
//! A [`Subject`] says how to reach a warehouse and how to ask it each question; [`run`] asks them all and reports every
//! answer that is wrong at once. A question that cannot be put to a subject (a stand-in that accepts any password …)
//! is listed in its [`Subject::cannot`] with the reason, so that nothing is skipped unnoticed: a subject that leaves
//! out a question without a reason fails, as does one that gives a reason and answers all the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use cloud_connect::warehouse::{
    ConnectionParams, Provider, QueryOptions, UNCONVERTIBLE_COLUMN, Warehouse, WarehouseError, WarehouseErrorKind,
    provider,
};
use datafusion::error::DataFusionError;
use futures::StreamExt;

use crate::project::Project;

/// What the suite asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// One row with the value of each [`Subject::types`], then one with nulls only, in that order.
    Types,
    /// The column `nothing`: three rows, all null.
    AllNull,
    /// The columns `id` and `name`, no row.
    Empty,
    /// One row, `name` = [`NON_ASCII`].
    NonAscii,
    /// One row, `long`: a million times `x`.
    LongText,
    /// The columns `id` (an integer, 1 to so many, each once) and `name` (text), in the order of `id`.
    Rows(u64),
    /// A query that runs for many seconds before its first row.
    Slow,
    /// A read of a table that does not exist; its name holds `no_such_table`.
    UnknownTable,
    /// Something that is no SQL.
    SyntaxError,
    /// A read of a table that this login may not read.
    Forbidden,
    /// A statement that writes.
    Write,
}

pub const NON_ASCII: &str = "Zoë, Åse & 小林 🚲 – naïve";

/// A value of one of the warehouse's types.
#[derive(Debug, Clone)]
pub struct TypeCase {
    /// The column, named after the type.
    pub column: &'static str,
    pub arrow: DataType,
    /// As Arrow's own formatter shows it.
    pub shown: String,
}

pub fn case(column: &'static str, arrow: DataType, shown: &str) -> TypeCase {
    TypeCase { column, arrow, shown: shown.into() }
}

/// What can go wrong on the way, where a subject can make it happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The stream of [`Ask::Rows`] breaks off once, somewhere after its first rows. Must be survived without the
    /// customer's query being run again: [`Subject::queries_run`] stays.
    BreakOnce,
    /// It breaks off each time it is tried: must fail as retryable.
    BreakAlways,
    /// The next requests are refused once with "too many", asking for a second's patience. Must be survived.
    ThrottleOnce,
    /// Every request is refused so, asking for 90 seconds. Must fail as retryable, with those 90 seconds.
    ThrottleAlways,
    /// The session or token ends in the middle of [`Ask::Rows`]. Must be survived.
    ExpireLogin,
}

/// A warehouse under test.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The provider's name.
    fn provider(&self) -> &'static str;
    /// Its declaration.
    fn declaration(&self) -> Provider {
        *provider(self.provider()).expect("a provider")
    }
    /// A right connection.
    fn params(&self) -> ConnectionParams;
    /// The same with a wrong credential, whose text is [`WRONG_SECRET`].
    fn wrong_login(&self) -> Option<ConnectionParams>;
    /// What may never be shown: passwords, keys, tokens, signatures of links.
    fn secrets(&self) -> Vec<String>;
    /// The question in this warehouse's SQL.
    fn sql(&self, ask: Ask) -> Option<String>;
    fn types(&self) -> Vec<TypeCase>;
    /// A table (as `tables` names it) with columns, among them the first of these with that value type.
    fn known_table(&self) -> (String, Vec<(&'static str, Option<&'static str>)>);
    /// What the program needs in its environment besides the parameters.
    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// Makes it happen from now on; none when it cannot be made to.
    fn inject(&self, _fault: Fault) -> bool {
        false
    }
    /// Ends what [`Self::inject`] began.
    fn heal(&self) {}
    /// Customer queries that the server has begun to run, where it can be told.
    fn queries_run(&self) -> Option<usize> {
        None
    }
    /// Was the [`Ask::Slow`] query stopped in the server? None when it cannot be told.
    async fn slow_was_stopped(&self) -> Option<bool> {
        None
    }
    /// Questions that this subject cannot be asked, and why.
    fn cannot(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }
}

pub const WRONG_SECRET: &str = "wr0ng-cr3dential-value";

type Verdict = Result<(), String>;
/// `Ok(false)`: could not be asked.
type Answer = Result<bool, String>;

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => { if !$condition { return Err(format!($($message)+)); } };
}

/// Asks everything, and fails with all that is wrong.
pub async fn run(subject: &dyn Subject) {
    let mut wrong = Vec::new();
    let mut answers: BTreeMap<&'static str, Answer> = BTreeMap::new();
    macro_rules! ask {
        ($($name:ident),+ $(,)?) => {
            $({
                let began = Instant::now();
                let answer = match tokio::time::timeout(Duration::from_secs(120), $name(subject)).await {
                    Ok(answer) => answer,
                    Err(_) => Err("no end within two minutes".to_string()),
                };
                eprintln!("{} {}: {answer:?} ({:.1?})", subject.provider(), stringify!($name), began.elapsed());
                subject.heal();
                answers.insert(stringify!($name), answer);
            })+
        };
    }
    ask!(
        tests_step_by_step,
        lists_tables_and_columns,
        counts_columns,
        carries_every_type,
        carries_an_all_null_column,
        carries_an_empty_result,
        carries_text_in_any_script,
        carries_a_megabyte_of_text,
        describes_without_reading,
        keeps_order_and_loses_nothing,
        stays_within_its_memory,
        limits_samples,
        waits_for_a_slow_reader,
        reports_an_unknown_table,
        reports_a_syntax_error,
        reports_a_missing_permission,
        refuses_a_write,
        refuses_a_second_statement,
        reports_a_refused_login,
        cancels_in_the_warehouse,
        stops_a_dropped_query,
        stops_at_its_timeout,
        survives_a_broken_stream,
        fails_cleanly_when_the_stream_stays_broken,
        survives_throttling,
        passes_on_the_servers_patience,
        renews_its_login,
    );
    let cannot: BTreeMap<_, _> = subject.cannot().into_iter().collect();
    for (name, reason) in &cannot {
        match answers.get(name) {
            None => wrong.push(format!("{name}: `cannot` names what the suite does not ask ({reason})")),
            Some(Ok(true)) => wrong.push(format!("{name}: works, though `cannot` says: {reason}")),
            _ => {}
        }
    }
    for (name, answer) in answers {
        match answer {
            Ok(true) => {}
            Ok(false) if cannot.contains_key(name) => {}
            Ok(false) => wrong.push(format!("{name}: was not asked, and `cannot` gives no reason")),
            Err(e) => wrong.push(format!("{name}: {e}")),
        }
    }
    assert!(wrong.is_empty(), "{}:\n- {}", subject.provider(), wrong.join("\n- "));
}

pub fn open(subject: &dyn Subject, params: &ConnectionParams) -> Arc<dyn Warehouse> {
    let provider = subject.declaration();
    (provider.build)(params).unwrap_or_else(|e| panic!("{e} {:?}", e.hint))
}

fn connect(subject: &dyn Subject) -> Arc<dyn Warehouse> {
    open(subject, &subject.params())
}

/// A warehouse error out of a stream's.
pub fn of_stream(error: DataFusionError) -> WarehouseError {
    match error {
        DataFusionError::External(e) => match e.downcast::<WarehouseError>() {
            Ok(e) => *e,
            Err(e) => panic!("not a warehouse error: {e}"),
        },
        e => panic!("not a warehouse error: {e}"),
    }
}

pub async fn read(warehouse: &dyn Warehouse, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), WarehouseError> {
    read_with(warehouse, sql, &QueryOptions::default()).await
}

pub async fn read_with(
    warehouse: &dyn Warehouse,
    sql: &str,
    options: &QueryOptions,
) -> Result<(SchemaRef, Vec<RecordBatch>), WarehouseError> {
    let mut running = warehouse.query(sql, options).await?;
    let schema = running.stream.schema();
    let mut batches = Vec::new();
    while let Some(batch) = running.stream.next().await {
        let batch = batch.map_err(of_stream)?;
        assert_eq!(batch.schema().fields(), schema.fields(), "a batch has the schema that its stream names");
        batches.push(batch);
    }
    Ok((schema, batches))
}

/// The cells of a column as text; nulls are none.
pub fn cells(batches: &[RecordBatch], column: &str) -> Vec<Option<String>> {
    let options = FormatOptions::default().with_display_error(false);
    let mut all = Vec::new();
    for batch in batches {
        let array =
            batch.column_by_name(column).unwrap_or_else(|| panic!("no column {column} in {:?}", batch.schema()));
        let formatter = ArrayFormatter::try_new(array, &options).expect("a formatter");
        // not `is_null`: an array of the type Null has no null buffer
        let nulls = array.logical_nulls();
        all.extend((0..array.len()).map(|row| {
            let null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
            (!null).then(|| formatter.value(row).to_string())
        }));
    }
    all
}

fn text<T>(result: Result<T, WarehouseError>) -> Result<T, String> {
    result.map_err(|e| format!("{:?}: {e} ({:?})", e.kind, e.hint))
}

/// An error of that kind, which shows no secret.
fn expect_error<T>(
    subject: &dyn Subject,
    result: Result<T, WarehouseError>,
    is: impl Fn(WarehouseErrorKind) -> bool,
    says: &str,
) -> Verdict {
    let Err(error) = result else { return Err("succeeded".into()) };
    let whole = format!("{error} {:?} {error:?}", error.hint);
    for secret in subject.secrets().iter().map(String::as_str).chain([WRONG_SECRET]) {
        ensure!(!whole.contains(secret), "the error shows a secret: {whole}");
    }
    ensure!(is(error.kind), "the kind is {:?}: {error}", error.kind);
    ensure!(whole.to_lowercase().contains(&says.to_lowercase()), "does not say `{says}`: {error} ({:?})", error.hint);
    Ok(())
}

fn is_configuration(kind: WarehouseErrorKind) -> bool {
    kind == WarehouseErrorKind::Configuration
}

fn is_sql(kind: WarehouseErrorKind) -> bool {
    kind == WarehouseErrorKind::Sql
}

fn is_retry(kind: WarehouseErrorKind) -> bool {
    matches!(kind, WarehouseErrorKind::Retry { .. })
}

async fn tests_step_by_step(subject: &dyn Subject) -> Answer {
    let warehouse = connect(subject);
    let steps = warehouse.test().await;
    ensure!(!steps.is_empty(), "no step");
    ensure!(steps.iter().all(|s| s.ok), "a step failed: {steps:?}");
    let whole = format!("{steps:?} {warehouse:?} {:?}", subject.params());
    for secret in subject.secrets() {
        ensure!(!whole.contains(&secret), "a secret is shown: {whole}");
    }
    Ok(true)
}

async fn lists_tables_and_columns(subject: &dyn Subject) -> Answer {
    let warehouse = connect(subject);
    let (table, wanted) = subject.known_table();
    let tables = text(warehouse.tables().await)?;
    ensure!(tables.iter().any(|t| t.name == table), "`{table}` is not among {tables:?}");
    let columns = text(warehouse.columns(&table).await)?;
    for (name, value_type) in wanted {
        let Some(column) = columns.iter().find(|c| c.name == name) else {
            return Err(format!("no column {name} in {columns:?}"));
        };
        ensure!(column.value_type.as_deref() == value_type, "{column:?} is not {value_type:?}");
        ensure!(!column.warehouse_type.is_empty(), "no type: {column:?}");
    }
    expect_error(
        subject,
        warehouse.columns("no_such_table").await,
        |k| is_sql(k) || is_configuration(k),
        "no_such_table",
    )?;
    Ok(true)
}

async fn counts_columns(subject: &dyn Subject) -> Answer {
    let warehouse = connect(subject);
    let (table, _) = subject.known_table();
    let tables = text(warehouse.tables().await)?;
    let listed = tables.iter().find(|t| t.name == table).and_then(|t| t.columns);
    let there = text(warehouse.columns(&table).await)?.len() as u64;
    ensure!(listed == Some(there), "`{table}` has {there} columns, not {listed:?}: {tables:?}");
    Ok(true)
}

async fn carries_every_type(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Types) else { return Ok(false) };
    let warehouse = connect(subject);
    let (schema, batches) = text(read(&*warehouse, &sql).await)?;
    let cases = subject.types();
    ensure!(!cases.is_empty(), "no types");
    let mut wrong = Vec::new();
    for TypeCase { column, arrow, shown } in cases {
        let Ok(field) = schema.field_with_name(column) else {
            wrong.push(format!("no column {column}"));
            continue;
        };
        if *field.data_type() != arrow {
            wrong.push(format!("{column} is {}, not {arrow}", field.data_type()));
            continue;
        }
        let cells = cells(&batches, column);
        if cells != [Some(shown.clone()), None] {
            wrong.push(format!("{column}: {cells:?} is not {shown:?}, null"));
        }
    }
    if schema.field_with_name(UNCONVERTIBLE_COLUMN).is_ok() {
        let marked = cells(&batches, UNCONVERTIBLE_COLUMN);
        ensure!(marked.iter().all(Option::is_none), "marked as unconvertible: {marked:?}");
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    let described = text(warehouse.describe(&sql).await)?;
    ensure!(described.fields() == schema.fields(), "describe says {described:?}, the query {schema:?}");
    Ok(true)
}

async fn carries_an_all_null_column(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::AllNull) else { return Ok(false) };
    let (_, batches) = text(read(&*connect(subject), &sql).await)?;
    let cells = cells(&batches, "nothing");
    ensure!(cells == [None, None, None], "{cells:?}");
    Ok(true)
}

async fn carries_an_empty_result(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Empty) else { return Ok(false) };
    let (schema, batches) = text(read(&*connect(subject), &sql).await)?;
    ensure!(schema.index_of("id").is_ok() && schema.index_of("name").is_ok(), "{schema:?}");
    ensure!(batches.iter().all(|b| b.num_rows() == 0), "rows came");
    Ok(true)
}

async fn carries_text_in_any_script(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::NonAscii) else { return Ok(false) };
    let (_, batches) = text(read(&*connect(subject), &sql).await)?;
    let cells = cells(&batches, "name");
    ensure!(cells == [Some(NON_ASCII.to_string())], "{cells:?}");
    Ok(true)
}

async fn carries_a_megabyte_of_text(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::LongText) else { return Ok(false) };
    let (_, batches) = text(read(&*connect(subject), &sql).await)?;
    let cells = cells(&batches, "long");
    let whole =
        cells.len() == 1 && cells[0].as_ref().is_some_and(|c| c.len() == 1_000_000 && c.bytes().all(|b| b == b'x'));
    ensure!(
        whole,
        "{} cells of {:?} bytes",
        cells.len(),
        cells.iter().map(|c| c.as_ref().map(String::len)).collect::<Vec<_>>()
    );
    Ok(true)
}

async fn describes_without_reading(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Rows(1000)) else { return Ok(false) };
    let before = subject.queries_run();
    let schema = text(connect(subject).describe(&sql).await)?;
    let names = schema.fields().iter().map(|f| f.name().as_str());
    let names: Vec<_> = names.filter(|name| *name != UNCONVERTIBLE_COLUMN).collect();
    ensure!(names == ["id", "name"], "{names:?}");
    ensure!(subject.queries_run() == before, "the query was run");
    Ok(true)
}

/// Reads ids and tells whether each came once, and in order.
async fn read_ids(warehouse: &dyn Warehouse, sql: &str, rows: u64) -> Result<Verdict, WarehouseError> {
    let mut running = warehouse.query(sql, &QueryOptions::default()).await?;
    let mut next = 1u64;
    while let Some(batch) = running.stream.next().await {
        let batch = batch.map_err(of_stream)?;
        let ids = arrow::compute::cast(batch.column_by_name("id").expect("id"), &DataType::UInt64).expect("integers");
        for id in arrow::array::AsArray::as_primitive::<arrow::datatypes::UInt64Type>(&ids).values() {
            if *id != next {
                return Ok(Err(format!("id {id} came where {next} was due")));
            }
            next += 1;
        }
    }
    Ok(if next == rows + 1 { Ok(()) } else { Err(format!("{} rows of {rows} came", next - 1)) })
}

const MANY: u64 = 300_000;

async fn keeps_order_and_loses_nothing(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Rows(MANY)) else { return Ok(false) };
    text(read_ids(&*connect(subject), &sql, MANY).await)??;
    Ok(true)
}

/// A million rows through the program as a process of its own, whose memory the kernel counts.
async fn stays_within_its_memory(subject: &dyn Subject) -> Answer {
    const PEAK_MIB: u64 = 200;
    let Some(sql) = subject.sql(Ask::Rows(1_000_000)) else { return Ok(false) };
    if cloud_connect::warehouse::provider(subject.provider()).is_none() {
        return Ok(false);
    }
    let project = Project::new();
    let params = subject.params();
    let given = subject.declaration().parameters.iter().filter_map(|p| Some((p.name, params.text(p.name)?)));
    // JSON is YAML; what looks like a reference is none
    let mut connection: serde_json::Map<_, _> =
        given.map(|(name, value)| (name.to_string(), value.replace("${", "$${").into())).collect();
    connection.insert("type".into(), subject.provider().into());
    project.write(
        "cloud-connect.yml",
        &format!(
            "profile:\n  identities:\n    - field: email\nconnections:\n  it: {}\n",
            serde_json::Value::from(connection)
        ),
    );
    let mut command = project.command(&["connection", "query", "it", &sql, "--limit", "1000000", "--output", "csv"]);
    let output = || project.path().join("rows.csv");
    command.stdout(std::fs::File::create(output()).map_err(|e| e.to_string())?);
    command.stderr(std::process::Stdio::piped()).envs(subject.environment());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0_u64;
    let ended = loop {
        let now = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = now.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")?.trim().parse().ok());
        peak_kib = peak.unwrap_or(peak_kib);
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(ended) => break ended,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut said).map_err(|e| e.to_string())?;
    }
    ensure!(ended.success(), "{ended}: {said}");
    let rows =
        std::io::BufRead::lines(std::io::BufReader::new(std::fs::File::open(output()).map_err(|e| e.to_string())?));
    let rows = rows.count();
    ensure!(rows == 1_000_001, "{rows} lines came, the heading among them");
    ensure!(peak_kib > 0 && peak_kib >> 10 <= PEAK_MIB, "its peak is {} MiB", peak_kib >> 10);
    Ok(true)
}

async fn limits_samples(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Rows(1000)) else { return Ok(false) };
    let options = QueryOptions { limit: Some(10), ..QueryOptions::default() };
    let (_, batches) = text(read_with(&*connect(subject), &sql, &options).await)?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    ensure!(rows == 10, "{rows} rows");
    Ok(true)
}

async fn waits_for_a_slow_reader(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Rows(MANY)) else { return Ok(false) };
    let mut running = text(connect(subject).query(&sql, &QueryOptions::default()).await)?;
    let (mut rows, mut pauses) = (0, 0);
    while let Some(batch) = running.stream.next().await {
        rows += text(batch.map_err(of_stream))?.num_rows() as u64;
        if pauses < 10 {
            pauses += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    ensure!(rows == MANY, "{rows} rows");
    Ok(true)
}

async fn reports_an_unknown_table(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::UnknownTable) else { return Ok(false) };
    let warehouse = connect(subject);
    expect_error(subject, warehouse.describe(&sql).await, is_sql, "no_such_table")
        .map_err(|e| format!("describe: {e}"))?;
    expect_error(subject, read(&*warehouse, &sql).await, is_sql, "no_such_table")?;
    Ok(true)
}

async fn reports_a_syntax_error(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::SyntaxError) else { return Ok(false) };
    let warehouse = connect(subject);
    expect_error(subject, warehouse.describe(&sql).await, is_sql, "").map_err(|e| format!("describe: {e}"))?;
    expect_error(subject, read(&*warehouse, &sql).await, is_sql, "")?;
    Ok(true)
}

async fn reports_a_missing_permission(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Forbidden) else { return Ok(false) };
    expect_error(subject, read(&*connect(subject), &sql).await, is_configuration, "grant")?;
    Ok(true)
}

async fn refuses_a_write(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Write) else { return Ok(false) };
    let before = subject.queries_run();
    expect_error(subject, read(&*connect(subject), &sql).await, is_sql, "")?;
    ensure!(subject.queries_run() == before, "it was run");
    Ok(true)
}

async fn refuses_a_second_statement(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Rows(10)) else { return Ok(false) };
    expect_error(subject, read(&*connect(subject), &format!("{sql}; {sql}")).await, is_sql, "")?;
    Ok(true)
}

async fn reports_a_refused_login(subject: &dyn Subject) -> Answer {
    let Some(params) = subject.wrong_login() else { return Ok(false) };
    let warehouse = open(subject, &params);
    let steps = warehouse.test().await;
    let shown = format!("{steps:?} {warehouse:?}");
    ensure!(!shown.contains(WRONG_SECRET), "the secret is shown: {shown}");
    ensure!(steps.last().is_some_and(|s| !s.ok && s.step == "log in"), "the failed step is not `log in`: {steps:?}");
    let sql = subject.sql(Ask::Rows(10)).ok_or("no rows to ask for")?;
    expect_error(subject, read(&*warehouse, &sql).await, is_configuration, "")?;
    Ok(true)
}

async fn was_stopped(subject: &dyn Subject) -> Answer {
    let end = Instant::now() + Duration::from_secs(8);
    loop {
        match subject.slow_was_stopped().await {
            None => return Ok(false),
            Some(true) => return Ok(true),
            Some(false) if Instant::now() > end => return Err("the query still runs in the server".into()),
            Some(false) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn cancels_in_the_warehouse(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Slow) else { return Ok(false) };
    let mut running = text(connect(subject).query(&sql, &QueryOptions::default()).await)?;
    let cancel = running.cancel.clone();
    let canceller = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        cancel.cancel().await;
    });
    let began = Instant::now();
    let result = match running.stream.next().await {
        Some(batch) => batch.map(|_| ()).map_err(of_stream),
        None => Err(WarehouseError::bug("the stream ended as if it were complete")),
    };
    expect_error(subject, result, |k| k == WarehouseErrorKind::Cancelled, "cancel")?;
    ensure!(began.elapsed() < Duration::from_secs(8), "it took {:?}", began.elapsed());
    canceller.await.map_err(|e| e.to_string())?;
    was_stopped(subject).await
}

async fn stops_a_dropped_query(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Slow) else { return Ok(false) };
    let running = text(connect(subject).query(&sql, &QueryOptions::default()).await)?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    drop(running);
    was_stopped(subject).await
}

async fn stops_at_its_timeout(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Slow) else { return Ok(false) };
    let options = QueryOptions { timeout: Some(Duration::from_secs(1)), ..QueryOptions::default() };
    let began = Instant::now();
    let result = read_with(&*connect(subject), &sql, &options).await;
    expect_error(subject, result, |k| is_sql(k) || is_configuration(k), "1s")?;
    ensure!(began.elapsed() < Duration::from_secs(8), "it took {:?}", began.elapsed());
    Ok(true)
}

async fn survives_a_broken_stream(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Rows(MANY)) else { return Ok(false) };
    if !subject.inject(Fault::BreakOnce) {
        return Ok(false);
    }
    let before = subject.queries_run();
    text(read_ids(&*connect(subject), &sql, MANY).await)??;
    if let (Some(before), Some(after)) = (before, subject.queries_run()) {
        ensure!(after == before + 1, "the query was run {} times", after - before);
    }
    Ok(true)
}

async fn fails_cleanly_when_the_stream_stays_broken(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Rows(MANY)) else { return Ok(false) };
    if !subject.inject(Fault::BreakAlways) {
        return Ok(false);
    }
    expect_error(subject, read(&*connect(subject), &sql).await, is_retry, "")?;
    Ok(true)
}

async fn survives_throttling(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Rows(1000)) else { return Ok(false) };
    if !subject.inject(Fault::ThrottleOnce) {
        return Ok(false);
    }
    let began = Instant::now();
    text(read_ids(&*connect(subject), &sql, 1000).await)??;
    ensure!(began.elapsed() >= Duration::from_secs(1), "the server's patience was not waited for");
    Ok(true)
}

async fn passes_on_the_servers_patience(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Rows(1000)) else { return Ok(false) };
    if !subject.inject(Fault::ThrottleAlways) {
        return Ok(false);
    }
    let after = Some(Duration::from_secs(90));
    expect_error(subject, read(&*connect(subject), &sql).await, |k| k == WarehouseErrorKind::Retry { after }, "")?;
    Ok(true)
}

async fn renews_its_login(subject: &dyn Subject) -> Answer {
    let Some(sql) = subject.sql(Ask::Rows(MANY)) else { return Ok(false) };
    if !subject.inject(Fault::ExpireLogin) {
        return Ok(false);
    }
    let before = subject.queries_run();
    text(read_ids(&*connect(subject), &sql, MANY).await)??;
    if let (Some(before), Some(after)) = (before, subject.queries_run()) {
        ensure!(after == before + 1, "the query was run {} times", after - before);
    }
    Ok(true)
}
