//! A scripted Databricks: the SQL Statement Execution API, the OAuth token endpoint and the cloud storage of results, as
//! their documentation has them.
//!
//! ```text
//! API host       /oidc/v1/token, /api/2.0/sql/warehouses/{id}, /api/2.0/sql/statements…   wants a bearer token
//! storage host   /results/{statement}/{chunk}?sig=…                                      refuses an Authorization header
//! ```
//!
//! Its "SQL" is `… FROM <table>`, with what the connector writes around it (`DESCRIBE`, a `SELECT` with expressions,
//! `LIMIT`). Rows are made chunk by chunk when they are downloaded.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use arrow::ipc::writer::StreamWriter;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

pub const WAREHOUSE_ID: &str = "abcdef0123456789";
pub const CLIENT_ID: &str = "11111111-2222-3333-4444-555555555555";
pub const CLIENT_SECRET: &str = "dose-fake-client-secret";
pub const ACCESS_TOKEN: &str = "dapi-fake-access-token";
/// Part of every link's signature.
pub const SIGNATURE: &str = "s1gned-fake-link";
/// A header that a download needs.
const KEY_HEADER: &str = "x-fake-encryption-key";
pub const KEY: &str = "fake-encryption-key-value";

/// Values of a column, for a range of rows.
pub type Make = Arc<dyn Fn(Range<u64>) -> ArrayRef + Send + Sync>;

pub struct Column {
    pub name: &'static str,
    /// As `DESCRIBE QUERY` writes it.
    pub type_text: &'static str,
    pub native: Make,
    /// What a cast to text (or `to_json`, or `st_asewkt`) makes of it.
    pub rendered: Option<Make>,
}

#[derive(Clone)]
pub struct Table {
    pub columns: Arc<Vec<Column>>,
    pub rows: u64,
    pub chunk_rows: u64,
}

/// What a statement on a table does instead of succeeding.
#[derive(Clone)]
pub enum Script {
    Table(Table),
    /// Runs until it is cancelled.
    Endless(Table),
    /// Fails when it is run: error code, SQLSTATE, message (`{at}` becomes the place of the table's name).
    Fails(&'static str, &'static str, &'static str),
    /// Is described, but fails when it is run.
    FailsRunning(Table, &'static str, &'static str, &'static str),
    /// Succeeds with a result that was cut short.
    Truncated(Table),
}

#[derive(Clone)]
struct Statement {
    state: &'static str,
    error: Option<Value>,
    /// Looks until it has ended.
    looks: usize,
    endless: bool,
    truncated: bool,
    result: Option<Answer>,
}

#[derive(Clone)]
enum Answer {
    Rows(Vec<Vec<Value>>),
    /// A table, and which columns of it are rendered as text.
    Chunks(Table, Vec<(usize, bool)>),
}

#[derive(Default)]
pub struct Counts {
    /// Statements of models that were begun.
    pub queries: AtomicUsize,
    pub descriptions: AtomicUsize,
    pub cancels: AtomicUsize,
    pub logins: AtomicUsize,
    pub links: AtomicUsize,
    pub downloads: AtomicUsize,
    pub requests: AtomicUsize,
}

/// What goes wrong from now on; each counts down.
#[derive(Default)]
pub struct Faults {
    pub throttle: AtomicI64,
    /// What a throttled request is asked to wait, in seconds.
    pub throttle_seconds: AtomicI64,
    /// Downloads (after the first chunk) that break off in their middle.
    pub broken_downloads: AtomicI64,
    /// Downloads that find their link expired.
    pub expired_links: AtomicI64,
    /// Every token ends when the link to chunk 2 is asked for.
    pub expire_tokens: AtomicI64,
    /// Submissions that are taken, but not answered.
    pub lost_answers: AtomicI64,
    /// Submissions that are answered with 503.
    pub unavailable: AtomicI64,
    /// Looks at a statement until it has succeeded.
    pub looks: AtomicI64,
    /// Results are gone.
    pub gone: AtomicI64,
}

pub struct Shared {
    pub counts: Counts,
    pub faults: Faults,
    scripts: Mutex<HashMap<String, Script>>,
    statements: Mutex<HashMap<String, Statement>>,
    tokens: Mutex<HashMap<String, Instant>>,
    links: Mutex<HashSet<String>>,
    /// The bodies of the submissions.
    pub submitted: Mutex<Vec<Value>>,
    pub warehouse_state: Mutex<&'static str>,
    pub token_life: Mutex<Duration>,
    /// What `information_schema.tables` holds; none: there is none, as in `hive_metastore`.
    pub catalog: Mutex<Option<Vec<[&'static str; 3]>>>,
    storage: Mutex<String>,
}

/// The running servers; they end with the runtime that they were started in.
pub struct Fake {
    pub shared: Arc<Shared>,
    pub address: SocketAddr,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn spend(left: &AtomicI64) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n > 0).then(|| n - 1)).is_ok()
}

impl Fake {
    pub async fn start() -> Self {
        let shared = Arc::new(Shared {
            counts: Counts::default(),
            faults: Faults { looks: AtomicI64::new(2), ..Faults::default() },
            scripts: Mutex::default(),
            statements: Mutex::default(),
            tokens: Mutex::default(),
            links: Mutex::default(),
            submitted: Mutex::default(),
            warehouse_state: Mutex::new("RUNNING"),
            token_life: Mutex::new(Duration::from_secs(3600)),
            catalog: Mutex::new(Some(Vec::new())),
            storage: Mutex::default(),
        });
        let listen = || async { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap() };
        let (api, storage) = (listen().await, listen().await);
        let address = api.local_addr().unwrap();
        *locked(&shared.storage) = storage.local_addr().unwrap().to_string();
        let api_routes = axum::Router::new().fallback(api_request).with_state(shared.clone());
        let storage_routes = axum::Router::new().fallback(download).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(api, api_routes).await });
        tokio::spawn(async move { axum::serve(storage, storage_routes).await });
        Self { shared, address }
    }

    pub fn script(&self, name: &str, script: Script) {
        locked(&self.shared.scripts).insert(name.to_string(), script);
    }

    /// Are there statements that run?
    pub fn runs(&self) -> bool {
        locked(&self.shared.statements).values().any(|s| s.endless && s.state != "CANCELED")
    }
}

fn answer(status: u16, body: &Value) -> Response {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn refuse(status: u16, code: &str, message: &str) -> Response {
    answer(status, &json!({ "error_code": code, "message": message }))
}

async fn api_request(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    shared.counts.requests.fetch_add(1, Ordering::SeqCst);
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 32 << 20).await.unwrap();
    if spend(&shared.faults.throttle) {
        let wait = shared.faults.throttle_seconds.load(Ordering::SeqCst);
        let mut response = refuse(429, "REQUEST_LIMIT_EXCEEDED", "too many requests");
        response.headers_mut().insert("retry-after", wait.into());
        return response;
    }
    let path = parts.uri.path().to_string();
    let path: Vec<&str> = path.trim_matches('/').split('/').collect();
    if path == ["oidc", "v1", "token"] {
        return log_in(&shared, &parts.headers, &body);
    }
    if let Some(refused) = unauthorized(&shared, &parts.headers) {
        return refused;
    }
    match (parts.method.as_str(), &path[..]) {
        ("GET", ["api", "2.0", "sql", "warehouses", id]) => match *id == WAREHOUSE_ID {
            true => {
                let state = *locked(&shared.warehouse_state);
                answer(200, &json!({ "id": id, "name": "Starter", "state": state, "cluster_size": "2X-Small" }))
            }
            false => refuse(404, "RESOURCE_DOES_NOT_EXIST", &format!("Can't find SQL endpoint with id {id}")),
        },
        ("POST", ["api", "2.0", "sql", "statements"]) => submit(&shared, &body),
        ("GET", ["api", "2.0", "sql", "statements", id]) => look(&shared, id),
        ("POST", ["api", "2.0", "sql", "statements", id, "cancel"]) => {
            shared.counts.cancels.fetch_add(1, Ordering::SeqCst);
            match locked(&shared.statements).get_mut(*id) {
                Some(statement) => {
                    if matches!(statement.state, "PENDING" | "RUNNING") {
                        statement.state = "CANCELED";
                    }
                    answer(200, &json!({}))
                }
                None => refuse(404, "RESOURCE_DOES_NOT_EXIST", "The statement does not exist."),
            }
        }
        ("GET", ["api", "2.0", "sql", "statements", id, "result", "chunks", chunk]) => {
            chunk_of(&shared, id, chunk.parse().unwrap())
        }
        _ => refuse(404, "ENDPOINT_NOT_FOUND", "No API found"),
    }
}

fn log_in(shared: &Shared, headers: &HeaderMap, body: &Bytes) -> Response {
    let form = String::from_utf8_lossy(body);
    let wanted = format!("Basic {}", STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}")));
    let given = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if given != wanted {
        // a careless service repeats what it was given
        let decoded = given.strip_prefix("Basic ").and_then(|b| STANDARD.decode(b).ok()).unwrap_or_default();
        let description = format!("Client authentication failed: {}", String::from_utf8_lossy(&decoded));
        return answer(401, &json!({ "error": "invalid_client", "error_description": description }));
    }
    if form != "grant_type=client_credentials&scope=all-apis" {
        return answer(400, &json!({ "error": "invalid_request", "error_description": form }));
    }
    let number = shared.counts.logins.fetch_add(1, Ordering::SeqCst);
    let token = format!("ey-fake-oauth-{number}");
    let life = *locked(&shared.token_life);
    locked(&shared.tokens).insert(token.clone(), Instant::now() + life);
    answer(
        200,
        &json!({ "access_token": token, "scope": "all-apis", "token_type": "Bearer", "expires_in": life.as_secs() }),
    )
}

fn unauthorized(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    let given = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let Some(token) = given.strip_prefix("Bearer ") else {
        return Some(refuse(
            401,
            "UNAUTHENTICATED",
            "Credential was not sent or was of an unsupported type for this API.",
        ));
    };
    if token == ACCESS_TOKEN || locked(&shared.tokens).get(token).is_some_and(|until| Instant::now() < *until) {
        return None;
    }
    Some(if token.starts_with("ey") {
        refuse(401, "UNAUTHENTICATED", &format!("Token is expired: {token}"))
    } else {
        refuse(403, "403", &format!("Invalid access token: {token}"))
    })
}

/// What a statement asks for.
struct Parsed {
    describe: bool,
    /// The expressions of the `SELECT` around the query.
    expressions: Option<Vec<String>>,
    limit: Option<u64>,
    table: String,
}

fn parse(sql: &str) -> Option<Parsed> {
    let (describe, rest) = match sql.strip_prefix("DESCRIBE QUERY\n").or_else(|| sql.strip_prefix("DESCRIBE\n")) {
        Some(rest) => (true, rest),
        None => (false, sql),
    };
    let limit = rest.rsplit_once(" LIMIT ").and_then(|(_, n)| n.trim().parse().ok());
    let (expressions, inner) = match rest.split_once(" FROM (\n") {
        Some((select, inner)) => {
            let select = select.strip_prefix("SELECT ")?;
            let expressions = (select != "*").then(|| split_expressions(select));
            (expressions, inner)
        }
        None => (None, rest),
    };
    let (_, after) = inner.split_once("FROM ")?;
    let table = after.split([' ', '\n', ';', ')']).next()?.replace('`', "");
    let table = table.rsplit('.').next()?.to_string();
    Some(Parsed { describe, expressions, limit, table })
}

/// At the commas outside parentheses.
fn split_expressions(select: &str) -> Vec<String> {
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in select.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    parts.iter().map(|p| p.trim().to_string()).collect()
}

fn submit(shared: &Shared, body: &Bytes) -> Response {
    let body: Value = serde_json::from_slice(body).unwrap();
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    if text("warehouse_id") != WAREHOUSE_ID {
        return refuse(
            400,
            "INVALID_PARAMETER_VALUE",
            &format!("{} is not a valid endpoint id.", text("warehouse_id")),
        );
    }
    let external = text("disposition") == "EXTERNAL_LINKS";
    if external != (text("format") == "ARROW_STREAM") {
        return refuse(400, "INVALID_PARAMETER_VALUE", "The format is not supported with this disposition.");
    }
    let wait = text("wait_timeout").trim_end_matches('s').parse::<u64>().unwrap_or(99);
    if wait != 0 && !(5..=50).contains(&wait) {
        return refuse(400, "INVALID_PARAMETER_VALUE", "wait_timeout has to be 0s or between 5s and 50s.");
    }
    if spend(&shared.faults.unavailable) {
        return refuse(503, "TEMPORARILY_UNAVAILABLE", "The service is at capacity.");
    }
    locked(&shared.submitted).push(body.clone());
    let mut statement = execute(shared, text("statement"), text("schema"), external);
    if wait > 0 && statement.looks == 0 && !statement.endless && statement.state == "PENDING" {
        statement.state = "SUCCEEDED";
    }
    let id = uuid::Uuid::new_v4().to_string();
    let response = shown(shared, &id, &statement);
    locked(&shared.statements).insert(id, statement);
    if spend(&shared.faults.lost_answers) {
        let broken = futures::stream::iter([Ok(Bytes::from("{")), Err(std::io::Error::other("cut"))]);
        return Response::new(Body::from_stream(broken));
    }
    response
}

fn execute(shared: &Shared, sql: &str, schema: &str, external: bool) -> Statement {
    let looks = shared.faults.looks.load(Ordering::SeqCst) as usize;
    let mut statement =
        Statement { state: "PENDING", error: None, looks: 0, endless: false, truncated: false, result: None };
    let fail = |mut statement: Statement, code: &str, state: &str, message: &str| {
        statement.state = "FAILED";
        statement.error = Some(json!({ "error": { "error_code": code, "message": message }, "sql_state": state }));
        statement
    };
    let rows = |rows: Vec<Vec<&str>>| {
        let cells = rows.into_iter().map(|row| row.into_iter().map(|cell| json!(cell)).collect()).collect();
        Some(Answer::Rows(cells))
    };
    let own = sql.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    if own == "SELECT 1" {
        statement.result = rows(vec![vec!["1"]]);
        return statement;
    }
    if own.contains("FROM information_schema.tables") {
        let Some(tables) = locked(&shared.catalog).clone() else {
            let message = "[TABLE_OR_VIEW_NOT_FOUND] The table or view `information_schema`.`tables` cannot be found. SQLSTATE: 42P01; line 3 pos 5";
            return fail(statement, "BAD_REQUEST", "42P01", message);
        };
        statement.result = rows(tables.iter().map(|t| t.to_vec()).collect());
        return statement;
    }
    if own.contains("FROM information_schema.columns") {
        statement.result = rows(vec![vec!["shop", "people", "3"]]);
        return statement;
    }
    if own.trim() == "SHOW SCHEMAS" {
        statement.result = rows(vec![vec!["shop"], vec!["secret"]]);
        return statement;
    }
    if own.trim() == "SHOW TABLES" {
        if schema == "secret" {
            return fail(
                statement,
                "BAD_REQUEST",
                "42501",
                "[INSUFFICIENT_PERMISSIONS] Insufficient privileges: User does not have USAGE on database secret. SQLSTATE: 42501",
            );
        }
        statement.result = rows(vec![vec![schema, "people", "false"], vec!["", "temp_view", "true"]]);
        return statement;
    }
    let syntax = |place: (usize, usize)| {
        format!(
            "\n[PARSE_SYNTAX_ERROR] Syntax error at or near 'FROM'. SQLSTATE: 42601 (line {}, pos {})\n\n== SQL ==\n{sql}\n-------^^^\n",
            place.0, place.1
        )
    };
    if let Some(at) = sql.find("SELECT FROM") {
        return fail(statement, "BAD_REQUEST", "42601", &syntax(line_and_position(sql, at + 7)));
    }
    let Some(parsed) = parse(sql) else {
        return fail(statement, "BAD_REQUEST", "42601", &syntax((1, 0)));
    };
    let place = || {
        let (line, position) = line_and_position(sql, sql.find(parsed.table.as_str()).unwrap_or_default());
        format!("line {line} pos {position}")
    };
    let script = locked(&shared.scripts).get(&parsed.table).cloned();
    let (table, endless, truncated) = match script {
        None => {
            let message = format!(
                "[TABLE_OR_VIEW_NOT_FOUND] The table or view `{}` cannot be found. Verify the spelling and correctness of the schema and catalog.\n\
                 To tolerate the error on drop use DROP VIEW IF EXISTS or DROP TABLE IF EXISTS. SQLSTATE: 42P01; {};\n'Project [*]\n+- 'UnresolvedRelation [{}], [], false\n",
                parsed.table,
                place(),
                parsed.table
            );
            return fail(statement, "BAD_REQUEST", "42P01", &message);
        }
        Some(Script::Fails(code, state, message)) => {
            return fail(statement, code, state, &message.replace("{at}", &place()));
        }
        Some(Script::FailsRunning(_, code, state, message)) if !parsed.describe => {
            shared.counts.queries.fetch_add(1, Ordering::SeqCst);
            return fail(statement, code, state, &message.replace("{at}", &place()));
        }
        Some(Script::Table(table) | Script::FailsRunning(table, ..)) => (table, false, false),
        Some(Script::Endless(table)) => (table, true, false),
        Some(Script::Truncated(table)) => (table, false, true),
    };
    if parsed.describe {
        shared.counts.descriptions.fetch_add(1, Ordering::SeqCst);
        let described = table.columns.iter().map(|c| vec![json!(c.name), json!(c.type_text), Value::Null]).collect();
        statement.result = Some(Answer::Rows(described));
        return statement;
    }
    assert!(external, "{sql}");
    shared.counts.queries.fetch_add(1, Ordering::SeqCst);
    let columns = match parsed.expressions {
        None => (0..table.columns.len()).map(|i| (i, false)).collect(),
        Some(expressions) => expressions
            .iter()
            .map(|e| {
                let digits = |s: &str| s.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
                match e.strip_prefix('c') {
                    Some(index) => (digits(index), false),
                    None => (digits(e.split_once("(c").unwrap().1), true),
                }
            })
            .collect(),
    };
    let rows = parsed.limit.map_or(table.rows, |limit| limit.min(table.rows));
    statement.looks = looks;
    statement.endless = endless;
    statement.truncated = truncated;
    statement.result = Some(Answer::Chunks(Table { rows, ..table }, columns));
    statement
}

fn line_and_position(sql: &str, at: usize) -> (usize, usize) {
    let before = &sql[..at];
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count())
}

fn look(shared: &Shared, id: &str) -> Response {
    let statement = {
        let mut statements = locked(&shared.statements);
        let Some(statement) = statements.get_mut(id) else {
            return refuse(404, "RESOURCE_DOES_NOT_EXIST", "The statement does not exist.");
        };
        if matches!(statement.state, "PENDING" | "RUNNING") {
            statement.looks = statement.looks.saturating_sub(1);
            statement.state = if statement.looks == 0 && !statement.endless { "SUCCEEDED" } else { "RUNNING" };
        }
        statement.clone()
    };
    shown(shared, id, &statement)
}

fn shown(shared: &Shared, id: &str, statement: &Statement) -> Response {
    let mut status = json!({ "state": statement.state });
    if let Some(error) = &statement.error {
        status["error"] = error["error"].clone();
        status["sql_state"] = error["sql_state"].clone();
    }
    let mut shown = json!({ "statement_id": id, "status": status });
    if statement.state == "SUCCEEDED" {
        match statement.result.as_ref().unwrap() {
            Answer::Rows(rows) => {
                let columns = rows.first().map_or(0, Vec::len);
                shown["manifest"] = json!({ "format": "JSON_ARRAY", "schema": { "column_count": columns },
                    "total_chunk_count": 1, "total_row_count": rows.len(), "truncated": false });
                shown["result"] =
                    json!({ "chunk_index": 0, "row_offset": 0, "row_count": rows.len(), "data_array": rows });
            }
            Answer::Chunks(table, columns) => {
                let chunks = table.rows.div_ceil(table.chunk_rows);
                shown["manifest"] = json!({ "format": "ARROW_STREAM", "schema": { "column_count": columns.len() },
                    "total_chunk_count": chunks, "total_row_count": table.rows, "truncated": statement.truncated });
                // an empty result has no chunk
                shown["result"] = if chunks > 0 { link(shared, id, 0, table) } else { json!({}) };
            }
        }
    }
    answer(200, &shown)
}

/// A chunk's link, new each time.
fn link(shared: &Shared, id: &str, chunk: u64, table: &Table) -> Value {
    let signature = format!("{SIGNATURE}-{}", uuid::Uuid::new_v4());
    locked(&shared.links).insert(signature.clone());
    let storage = locked(&shared.storage).clone();
    let chunks = table.rows.div_ceil(table.chunk_rows);
    let rows = table.chunk_rows.min(table.rows - chunk * table.chunk_rows);
    let mut link = json!({
        "chunk_index": chunk, "row_offset": chunk * table.chunk_rows, "row_count": rows,
        "external_link": format!("http://{storage}/results/{id}/{chunk}?sig={signature}"),
        "expiration": "2030-01-01T00:00:00.000Z",
        "http_headers": { KEY_HEADER: KEY },
    });
    if chunk + 1 < chunks {
        link["next_chunk_index"] = json!(chunk + 1);
        link["next_chunk_internal_link"] = json!(format!("/api/2.0/sql/statements/{id}/result/chunks/{}", chunk + 1));
    }
    json!({ "external_links": [link] })
}

fn chunk_of(shared: &Shared, id: &str, chunk: u64) -> Response {
    shared.counts.links.fetch_add(1, Ordering::SeqCst);
    if chunk == 2 && spend(&shared.faults.expire_tokens) {
        locked(&shared.tokens).clear();
        return refuse(401, "UNAUTHENTICATED", "Token is expired");
    }
    let statement = locked(&shared.statements).get(id).cloned();
    match statement {
        _ if spend(&shared.faults.gone) => refuse(404, "RESOURCE_DOES_NOT_EXIST", "The result does not exist."),
        Some(Statement { state: "SUCCEEDED", result: Some(Answer::Chunks(table, _)), .. })
            if chunk * table.chunk_rows < table.rows =>
        {
            answer(200, &link(shared, id, chunk, &table))
        }
        _ => refuse(404, "RESOURCE_DOES_NOT_EXIST", "The chunk does not exist."),
    }
}

async fn download(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    shared.counts.downloads.fetch_add(1, Ordering::SeqCst);
    let plain = |status: StatusCode, text: String| Response::builder().status(status).body(Body::from(text)).unwrap();
    let signature = request.uri().query().unwrap_or_default().trim_start_matches("sig=").to_string();
    if request.headers().contains_key("authorization") {
        let text = format!(
            "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed: {signature}</Message></Error>"
        );
        return plain(StatusCode::BAD_REQUEST, text);
    }
    if request.headers().get(KEY_HEADER).is_none_or(|v| v != KEY) {
        return plain(StatusCode::BAD_REQUEST, "<Error><Code>MissingKey</Code></Error>".into());
    }
    if spend(&shared.faults.expired_links) || !locked(&shared.links).remove(&signature) {
        let text = format!(
            "<Error><Code>AccessDenied</Code><Message>Request has expired</Message><Signature>{signature}</Signature></Error>"
        );
        return plain(StatusCode::FORBIDDEN, text);
    }
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let (id, chunk) = (path[1].to_string(), path[2].parse::<u64>().unwrap());
    let Some(Answer::Chunks(table, columns)) = locked(&shared.statements).get(&id).and_then(|s| s.result.clone())
    else {
        return plain(StatusCode::NOT_FOUND, String::new());
    };
    let body = tokio::task::spawn_blocking(move || encode(&table, &columns, chunk)).await.unwrap();
    if chunk > 0 && spend(&shared.faults.broken_downloads) {
        let half = Bytes::copy_from_slice(&body[..body.len() / 2]);
        let broken = futures::stream::iter([Ok(half), Err(std::io::Error::other("cut"))]);
        return Response::builder().header("content-length", body.len()).body(Body::from_stream(broken)).unwrap();
    }
    Response::new(Body::from(body))
}

/// A chunk as an Arrow stream, in batches as Spark makes them.
fn encode(table: &Table, columns: &[(usize, bool)], chunk: u64) -> Vec<u8> {
    let end = ((chunk + 1) * table.chunk_rows).min(table.rows);
    let mut start = chunk * table.chunk_rows;
    let batch = |range: Range<u64>| {
        let arrays: Vec<ArrayRef> = columns
            .iter()
            .map(|(index, rendered)| {
                let column = &table.columns[*index];
                let make = if *rendered { column.rendered.as_ref().expect("a rendering") } else { &column.native };
                make(range.clone())
            })
            .collect();
        let fields: Vec<_> = columns
            .iter()
            .zip(&arrays)
            .map(|((index, _), array)| Field::new(table.columns[*index].name, array.data_type().clone(), true))
            .collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    };
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch(start..start).schema()).unwrap();
    while start < end {
        let next = (start + 4096).min(end);
        writer.write(&batch(start..next)).unwrap();
        start = next;
    }
    writer.finish().unwrap();
    drop(writer);
    bytes
}
