//! A scripted Snowflake: the wire format of the official drivers (the Python connector 4.8.1 is its source: login,
//! `token-request`, `query-request`, `getResultUrl`, `abort-request`, chunks), with faults on demand. It checks what
//! the service checks: tokens, who they are for, and that its object store is sent none of them.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arrow::ipc::writer::StreamWriter;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use base64::Engine;
use serde_json::{Value, json};

#[path = "snowflake_data.rs"]
pub mod data;

use data::{Fault, Script, Table, script};

pub const ACCOUNT: &str = "myorg-shop";
pub const USER: &str = "cloud_connect";
pub const PASSWORD: &str = "c0rrect-horse-battery";
/// The key of every result's files.
const FILE_KEY: &str = "c2VjcmV0LWtleS1vZi10aGUtcmVzdWx0LWZpbGVz";

/// What can be made to go wrong.
#[derive(Debug, Default)]
pub struct Faults {
    /// Downloads that break off in their middle.
    pub breaks: usize,
    /// Requests that are refused, asking for this much patience.
    pub throttles: usize,
    pub patience: u64,
    /// Sessions end: while the next query runs, and with all links at its second file.
    pub expire: bool,
    /// Links that are refused for good.
    pub forbidden_files: bool,
    /// Answers to a poll that a query is still in progress.
    pub polls: usize,
    /// Answers that promise inline rows and hold none.
    pub empty_answers: usize,
    /// The first so many query-requests are lost: run, but not answered.
    pub lost_answers: usize,
    /// Logins are answered in another form, which holds a token.
    pub garbled: bool,
}

/// What it was asked.
#[derive(Debug, Default)]
pub struct Seen {
    /// Customer queries that were run.
    pub queries: usize,
    pub aborts: usize,
    pub logins: Vec<Login>,
    pub renewals: usize,
    pub closed: usize,
    pub statements: Vec<String>,
    pub files: usize,
    pub refreshed: usize,
    pub polled: usize,
    pub paths: HashSet<String>,
}

/// A login, without its credential.
#[derive(Debug, Clone)]
pub struct Login {
    pub params: HashMap<String, String>,
    pub data: Value,
    pub claims: Option<Value>,
}

#[derive(Default)]
struct Running {
    id: String,
    request_id: String,
    sql: String,
    began: Option<Instant>,
    limit: Option<Duration>,
    aborted: bool,
    /// Its result was given out.
    answered: bool,
    polls: usize,
}

#[derive(Default)]
struct Inner {
    next: u64,
    /// Session token -> statement timeout; those that are valid.
    sessions: HashMap<String, Option<u64>>,
    /// Sessions that have expired -> their timeout.
    expired: HashMap<String, Option<u64>>,
    masters: HashSet<String>,
    queries: HashMap<String, Running>,
    by_request: HashMap<String, String>,
    /// Signatures of links up to this have expired.
    dead_links: u64,
    links: u64,
    expired_at_file: bool,
    faults: Faults,
    seen: Seen,
    fingerprint: Option<String>,
    access_token: Option<String>,
    slow_running: usize,
    refuse: Option<(&'static str, &'static str)>,
}

/// The server; it ends with this.
pub struct FakeSnowflake {
    pub port: u16,
    inner: Arc<Mutex<Inner>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FakeSnowflake {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Mutex::new(Inner::default()));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = Server { inner: inner.clone(), port };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let router = Router::new().fallback(handle).with_state(server);
                tokio::select! {
                    served = async { axum::serve(listener, router).await } => served.unwrap(),
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { port, inner, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.inner().faults);
    }

    pub fn heal(&self) {
        let mut inner = self.inner();
        inner.faults = Faults::default();
        inner.expired_at_file = false;
    }

    pub fn seen<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        read(&self.inner().seen)
    }

    /// Lets the key with this fingerprint (SHA-256 of the public key, base64) log in.
    pub fn accept_key(&self, fingerprint: &str) {
        self.inner().fingerprint = Some(fingerprint.to_string());
    }

    pub fn accept_access_token(&self, token: &str) {
        self.inner().access_token = Some(token.to_string());
    }

    /// Refuses logins with a code and its words.
    pub fn refuse_logins(&self, code: &'static str, message: &'static str) {
        self.inner().refuse = Some((code, message));
    }

    pub fn slow_running(&self) -> usize {
        self.inner().slow_running
    }

    pub fn open_sessions(&self) -> usize {
        self.inner().sessions.len()
    }

    /// Every token that was given out, and the files' key.
    pub fn secrets(&self) -> Vec<String> {
        vec![
            PASSWORD.to_string(),
            FILE_KEY.to_string(),
            "session-token-".to_string(),
            "master-token-".to_string(),
            "sig=".to_string(),
        ]
    }
}

impl Drop for FakeSnowflake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Server {
    inner: Arc<Mutex<Inner>>,
    port: u16,
}

fn answer(status: u16, body: &Value) -> Response {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn success(data: Value) -> Response {
    answer(200, &json!({ "data": data, "code": null, "message": null, "success": true }))
}

fn failure(code: &str, message: &str, data: Value) -> Response {
    answer(200, &json!({ "data": data, "code": code, "message": message, "success": false, "headers": null }))
}

fn params_of(request: &Request) -> Vec<(String, String)> {
    let query = request.uri().query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn token_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("authorization")?.to_str().ok()?;
    Some(value.strip_prefix("Snowflake Token=\"")?.strip_suffix('"')?.to_string())
}

async fn handle(State(server): State<Server>, request: Request) -> Response {
    let path = request.uri().path().to_string();
    let params = params_of(&request);
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let body = axum::body::to_bytes(request.into_body(), 64 << 20).await.unwrap_or_default();
    server.inner.lock().unwrap().seen.paths.insert(path.clone());
    if let Some(file) = path.strip_prefix("/store/") {
        return server.file(file, &params, &headers).await;
    }
    {
        let mut inner = server.inner.lock().unwrap();
        if inner.faults.throttles > 0 {
            inner.faults.throttles -= 1;
            let patience = inner.faults.patience.to_string();
            return Response::builder()
                .status(429)
                .header("retry-after", patience)
                .body(Body::from("slow down"))
                .unwrap();
        }
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match (method, path.as_str()) {
        (Method::POST, "/session/v1/login-request") => server.log_in(&params, &body),
        (Method::POST, "/session/token-request") => server.renew(&headers, &body),
        (Method::POST, "/session") => server.close(&params, &headers),
        (Method::POST, "/queries/v1/query-request") => server.query(&params, &headers, &body).await,
        (Method::POST, "/queries/v1/abort-request") => server.abort(&headers, &body),
        (Method::GET, path) => match path.strip_prefix("/queries/").and_then(|p| p.strip_suffix("/result")) {
            Some(id) => server.poll(id, &headers).await,
            None => answer(404, &json!({ "message": "no such page" })),
        },
        _ => answer(404, &json!({ "message": "no such page" })),
    }
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn log_in(&self, params: &[(String, String)], body: &Value) -> Response {
        let mut inner = self.lock();
        let data = &body["data"];
        let mut claims = None;
        if inner.faults.garbled {
            return success(json!("session-token-in-no-place"));
        }
        if let Some((code, message)) = inner.refuse {
            return failure(code, message, json!({ "authnMethod": "USERNAME_PASSWORD" }));
        }
        let named = data["LOGIN_NAME"].as_str().is_some_and(|n| n.eq_ignore_ascii_case(USER))
            && data["ACCOUNT_NAME"].as_str().is_some_and(|a| a.eq_ignore_ascii_case(ACCOUNT));
        let refused = if data["AUTHENTICATOR"] == "SNOWFLAKE_JWT" {
            claims = check_jwt(data["TOKEN"].as_str().unwrap_or_default(), inner.fingerprint.as_deref());
            claims.is_none().then_some(("390144", "JWT token is invalid. [0ce9eb56-821d-4ca9-a774-04ae89a0cf5a]"))
        } else {
            let password = data["PASSWORD"].as_str().unwrap_or_default();
            let right = password == PASSWORD || Some(password) == inner.access_token.as_deref();
            (!right || !named).then_some(("390100", "Incorrect username or password was specified."))
        };
        if let Some((code, message)) = refused {
            return failure(
                code,
                message,
                json!({ "nextAction": "RETRY_LOGIN", "authnMethod": "USERNAME_PASSWORD", "errorCode": code }),
            );
        }
        let params: HashMap<String, String> = params.iter().cloned().collect();
        if params.get("warehouse").is_some_and(|w| w == "NO_SUCH_WH") {
            return failure("390201", "The requested warehouse does not exist or not authorized.", Value::Null);
        }
        let mut kept = data.clone();
        for secret in ["PASSWORD", "TOKEN"] {
            if !kept[secret].is_null() {
                kept[secret] = json!("***");
            }
        }
        let timeout = data["SESSION_PARAMETERS"]["STATEMENT_TIMEOUT_IN_SECONDS"].as_u64();
        let (token, master) = inner.tokens(timeout);
        let upper = |name: &str| params.get(name).map(|v| v.to_uppercase());
        let info = json!({
            "databaseName": upper("databaseName"), "schemaName": upper("schemaName"), "warehouseName": upper("warehouse"),
            "roleName": upper("roleName").unwrap_or_else(|| "PUBLIC".into()),
        });
        inner.seen.logins.push(Login { params, data: kept, claims });
        success(json!({
            "token": token, "masterToken": master, "validityInSeconds": 3600, "masterValidityInSeconds": 14400,
            "displayUserName": USER, "serverVersion": "9.99.1", "firstLogin": false, "sessionId": 1234567890,
            "parameters": [{ "name": "TIMEZONE", "value": "UTC" }], "sessionInfo": info,
        }))
    }

    fn renew(&self, headers: &HeaderMap, body: &Value) -> Response {
        let mut inner = self.lock();
        let master = token_of(headers).unwrap_or_default();
        if !inner.masters.contains(&master) {
            return failure(
                "390114",
                "Authentication token has expired.  The user must authenticate again.",
                Value::Null,
            );
        }
        let old = body["oldSessionToken"].as_str().unwrap_or_default().to_string();
        assert_eq!(body["requestType"], "RENEW");
        let timeout = inner.expired.remove(&old).or_else(|| inner.sessions.remove(&old));
        let Some(timeout) = timeout else {
            return failure("390104", "User must login again to access the service.", Value::Null);
        };
        inner.masters.remove(&master);
        inner.seen.renewals += 1;
        let (token, master) = inner.tokens(timeout);
        success(json!({
            "sessionToken": token, "validityInSecondsST": 3600, "masterToken": master, "validityInSecondsMT": 14400, "sessionId": 1234567890,
        }))
    }

    fn close(&self, params: &[(String, String)], headers: &HeaderMap) -> Response {
        let mut inner = self.lock();
        let token = token_of(headers).unwrap_or_default();
        if !params.contains(&("delete".to_string(), "true".to_string())) || inner.sessions.remove(&token).is_none() {
            return failure("390104", "User must login again to access the service.", Value::Null);
        }
        inner.seen.closed += 1;
        success(Value::Null)
    }

    async fn query(&self, params: &[(String, String)], headers: &HeaderMap, body: &Value) -> Response {
        let ids: Vec<_> = params.iter().filter(|(n, _)| n == "requestId").map(|(_, v)| v.clone()).collect();
        let [request_id] = ids.as_slice() else { return failure("390400", "one requestId is needed", Value::Null) };
        let sql = body["sqlText"].as_str().unwrap_or_default().to_string();
        let id = {
            let mut inner = self.lock();
            let timeout = match inner.session(headers) {
                Ok(timeout) => timeout,
                Err(refusal) => return refusal,
            };
            if headers.get("accept").is_none_or(|a| a != "application/snowflake") {
                return answer(400, &json!({ "message": "what is accepted?" }));
            }
            if body["describeOnly"] == json!(true) {
                drop(inner);
                return describe(&sql);
            }
            inner.seen.statements.push(sql.clone());
            match inner.by_request.get(request_id) {
                // a repetition: it is not run again
                Some(id) => id.clone(),
                None => {
                    inner.next += 1;
                    let id = format!("01b{:05x}-0000-0000-0000-000000000001", inner.next);
                    let own =
                        sql.starts_with("EXPLAIN") || sql.contains("INFORMATION_SCHEMA") || sql.contains("CURRENT_");
                    inner.seen.queries += usize::from(!own);
                    if inner.faults.expire && !own {
                        inner.expire_sessions();
                    }
                    let polls = if own {
                        0
                    } else {
                        std::mem::take(&mut inner.faults.polls) + usize::from(inner.faults.expire)
                    };
                    let running = Running {
                        id: id.clone(),
                        request_id: request_id.clone(),
                        sql: sql.clone(),
                        began: Some(Instant::now()),
                        limit: timeout.map(Duration::from_secs),
                        polls,
                        ..Running::default()
                    };
                    if matches!(script(&sql).0, Script::Slow) {
                        inner.slow_running += 1;
                    }
                    inner.by_request.insert(request_id.clone(), id.clone());
                    inner.queries.insert(id.clone(), running);
                    if inner.faults.lost_answers > 0 {
                        inner.faults.lost_answers -= 1;
                        return answer(503, &json!({ "message": "a gateway lost the answer" }));
                    }
                    id
                }
            }
        };
        self.outcome(&id).await
    }

    async fn poll(&self, id: &str, headers: &HeaderMap) -> Response {
        {
            let mut inner = self.lock();
            if let Err(refusal) = inner.session(headers) {
                return refusal;
            }
            inner.seen.polled += 1;
        }
        self.outcome(id).await
    }

    /// The result, or word that it is not there yet: held back for a while, as the service does (for 45 seconds).
    async fn outcome(&self, id: &str) -> Response {
        let held = Instant::now();
        loop {
            {
                let mut inner = self.lock();
                let Inner { queries, faults, slow_running, seen, .. } = &mut *inner;
                let Some(query) = queries.get_mut(id) else {
                    return failure("000709", "Statement not found", Value::Null);
                };
                let (script, lines_before) = script(&query.sql);
                let slow = matches!(script, Script::Slow);
                let error = |code: &str, state: &str, message: &str, (line, pos): (i64, i64)| {
                    let data = json!({
                        "internalError": false, "unredactedFromSecureObject": false, "errorCode": code, "age": 0, "sqlState": state,
                        "queryId": query.id, "line": line, "pos": pos, "type": "COMPILATION",
                    });
                    failure(code, message, data)
                };
                if query.aborted {
                    return error("000604", "57014", "SQL execution canceled", (-1, -1));
                }
                let ran = query.began.map(|b| b.elapsed()).unwrap_or_default();
                if slow && let Some(limit) = query.limit.filter(|l| ran >= *l) {
                    query.aborted = true;
                    *slow_running -= 1;
                    let message = format!(
                        "Statement reached its statement or warehouse timeout of {} second(s) and was canceled.",
                        limit.as_secs()
                    );
                    return error("000630", "57014", &message, (-1, -1));
                }
                if query.polls > 0 || (slow && held.elapsed() > Duration::from_millis(300)) {
                    query.polls = query.polls.saturating_sub(1);
                    let data = json!({ "queryId": id, "getResultUrl": format!("/queries/{id}/result"), "queryAbortsAfterSecs": 300 });
                    let code = if query.polls % 2 == 0 { "333333" } else { "333334" };
                    return answer(
                        200,
                        &json!({ "data": data, "code": code, "message": "Query execution in progress", "success": true }),
                    );
                }
                match script {
                    Script::Slow => {}
                    Script::Fault(fault) => return fail(&fault, lines_before, &query.id),
                    Script::Write(_) => panic!("a write was run: {}", query.sql),
                    Script::Table(table) => {
                        let empty = faults.empty_answers > 0;
                        faults.empty_answers = faults.empty_answers.saturating_sub(1);
                        seen.refreshed += usize::from(std::mem::replace(&mut query.answered, true));
                        drop(inner);
                        return success(self.result(id, &table, empty));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn result(&self, id: &str, table: &Table, empty: bool) -> Value {
        let mut data = json!({
            "parameters": [], "rowtype": table.rowtype, "total": table.rows.iter().sum::<u64>(), "returned": table.rows[0],
            "queryId": id, "databaseProvider": null, "finalDatabaseName": "SHOP", "finalRoleName": "R", "numberOfBinds": 0,
            "statementTypeId": 4096, "version": 1, "sendResultTime": 1, "queryResultFormat": "arrow", "queryContext": {},
        });
        if let Some(rows) = &table.json {
            data["queryResultFormat"] = json!("json");
            data["rowset"] = if empty { json!([]) } else { json!(rows[..table.rows[0] as usize]) };
        } else {
            let first = if empty || table.rows[0] == 0 { Vec::new() } else { ipc(table, 0) };
            data["rowsetBase64"] = json!(base64::engine::general_purpose::STANDARD.encode(first));
        }
        if table.rows.len() > 1 {
            let mut inner = self.lock();
            inner.links += 1;
            let chunks: Vec<Value> = (1..table.rows.len())
                .map(|part| {
                    let url = format!("http://127.0.0.1:{}/store/{id}/{part}?sig={}", self.port, inner.links);
                    json!({ "url": url, "rowCount": table.rows[part], "uncompressedSize": 1, "compressedSize": 1 })
                })
                .collect();
            data["chunks"] = json!(chunks);
            // both ways in which the key is told
            if inner.links.is_multiple_of(2) {
                data["qrmk"] = json!(FILE_KEY);
            } else {
                data["chunkHeaders"] = json!({
                    "x-amz-server-side-encryption-customer-algorithm": "AES256",
                    "x-amz-server-side-encryption-customer-key": FILE_KEY,
                });
            }
        }
        data
    }

    fn abort(&self, headers: &HeaderMap, body: &Value) -> Response {
        let mut inner = self.lock();
        if let Err(refusal) = inner.session(headers) {
            return refusal;
        }
        let request_id = body["requestId"].as_str().unwrap_or_default().to_string();
        let Inner { queries, slow_running, seen, .. } = &mut *inner;
        let running = queries.values_mut().find(|q| q.request_id == request_id && !q.aborted);
        match running.filter(|q| matches!(script(&q.sql).0, Script::Slow)) {
            Some(query) if body["sqlText"] == query.sql => {
                query.aborted = true;
                *slow_running -= 1;
                seen.aborts += 1;
                success(Value::Null)
            }
            _ => failure("000605", "Identified SQL statement is not currently executing.", Value::Null),
        }
    }

    /// The object store.
    async fn file(&self, path: &str, params: &[(String, String)], headers: &HeaderMap) -> Response {
        let refuse = |status: u16, code: &str| {
            let body = format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Request has expired</Message></Error>"
            );
            Response::builder().status(status).header("content-type", "application/xml").body(Body::from(body)).unwrap()
        };
        if headers.contains_key("authorization") {
            return refuse(400, "InvalidArgument");
        }
        if headers.get("x-amz-server-side-encryption-customer-key").is_none_or(|k| k != FILE_KEY) {
            return refuse(400, "MissingKey");
        }
        let signature: u64 =
            params.iter().find(|(n, _)| n == "sig").and_then(|(_, v)| v.parse().ok()).unwrap_or_default();
        let (id, part) = path.split_once('/').unwrap();
        let part: usize = part.parse().unwrap();
        let (sql, breaks) = {
            let mut inner = self.lock();
            if inner.faults.expire && part >= 2 && !inner.expired_at_file {
                inner.expired_at_file = true;
                inner.dead_links = inner.links;
                inner.expire_sessions();
                inner.masters.clear();
            }
            if inner.faults.forbidden_files || signature <= inner.dead_links {
                return refuse(403, "AccessDenied");
            }
            inner.seen.files += 1;
            let breaks = inner.faults.breaks > 0;
            inner.faults.breaks = inner.faults.breaks.saturating_sub(1);
            (inner.queries.get(id).map(|q| q.sql.clone()).unwrap_or_default(), breaks)
        };
        let (Script::Table(table), _) = script(&sql) else { return refuse(404, "NoSuchKey") };
        // files come in another order than they are asked for
        tokio::time::sleep(Duration::from_millis(if part % 2 == 1 { 60 } else { 5 })).await;
        let mut body = ipc(&table, part);
        let mut response = Response::builder();
        if part % 4 != 3 {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&body).unwrap();
            body = gzip.finish().unwrap();
            // the store may say so, or not
            if part % 2 == 1 {
                response = response.header("content-encoding", "gzip");
            }
        }
        if breaks {
            let half = Bytes::copy_from_slice(&body[..body.len() / 2]);
            let parts = futures::stream::iter([Ok(half), Err(std::io::Error::other("cut"))]);
            return response
                .status(StatusCode::OK)
                .header("content-length", body.len())
                .body(Body::from_stream(parts))
                .unwrap();
        }
        response.status(StatusCode::OK).body(Body::from(body)).unwrap()
    }
}

impl Inner {
    fn tokens(&mut self, timeout: Option<u64>) -> (String, String) {
        self.next += 1;
        let (token, master) = (format!("session-token-{}", self.next), format!("master-token-{}", self.next));
        self.sessions.insert(token.clone(), timeout);
        self.masters.insert(master.clone());
        (token, master)
    }

    fn expire_sessions(&mut self) {
        let sessions = std::mem::take(&mut self.sessions);
        self.expired.extend(sessions);
    }

    #[expect(clippy::result_large_err, reason = "the answer, sent at once")]
    fn session(&self, headers: &HeaderMap) -> Result<Option<u64>, Response> {
        let token = token_of(headers).unwrap_or_default();
        match self.sessions.get(&token) {
            Some(timeout) => Ok(*timeout),
            None if self.expired.contains_key(&token) => {
                Err(failure("390112", "Your session has expired. Please login again.", Value::Null))
            }
            None => Err(answer(
                401,
                &json!({ "code": "390104", "message": "User must login again to access the service.", "success": false, "data": null }),
            )),
        }
    }
}

fn describe(sql: &str) -> Response {
    let (script, lines_before) = script(sql);
    let id = "01bdddd-0000-0000-0000-00000000000d";
    let (rowtype, type_id) = match script {
        Script::Table(table) => (table.rowtype, 4096),
        Script::Slow => (vec![data::column("slow", "fixed", Some(1), Some(0))], 4096),
        Script::Fault(fault) => return fail(&fault, lines_before, id),
        Script::Write(type_id) => (vec![data::column("number of rows deleted", "fixed", Some(19), Some(0))], type_id),
    };
    success(json!({
        "rowtype": rowtype, "total": 0, "returned": 0, "queryId": id, "statementTypeId": type_id,
        "numberOfBinds": sql.matches('?').count(), "queryResultFormat": "arrow", "rowsetBase64": "",
    }))
}

fn fail(fault: &Fault, lines_before: usize, id: &str) -> Response {
    let shift = lines_before as i64;
    let (line, pos) = fault.place.map_or((-1, -1), |(line, pos)| (line + shift, pos));
    let mut message = fault.message.clone();
    if let Some((own, pos)) = fault.place {
        message = message.replace(&format!("line {own} at position {pos}"), &format!("line {line} at position {pos}"));
    }
    let data = json!({
        "internalError": fault.state == "XX000", "errorCode": fault.code, "age": 0, "sqlState": fault.state, "queryId": id,
        "line": line, "pos": pos, "type": "COMPILATION",
    });
    failure(fault.code, &message, data)
}

fn ipc(table: &Table, part: usize) -> Vec<u8> {
    if let Some(rows) = &table.json {
        // rows with commas between them, and no brackets around
        let at = table.rows[..part].iter().sum::<u64>() as usize;
        let rows: Vec<String> =
            rows[at..at + table.rows[part] as usize].iter().map(|row| json!(row).to_string()).collect();
        return rows.join(", ").into_bytes();
    }
    let batch = (table.part)(part);
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    // several batches, as the service's files have
    let step = (batch.num_rows() / 3).max(1);
    for at in (0..batch.num_rows()).step_by(step) {
        writer.write(&batch.slice(at, step.min(batch.num_rows() - at))).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

/// The claims of a key pair's token, when they are what the service asks for. (Its signature is checked elsewhere.)
fn check_jwt(token: &str, fingerprint: Option<&str>) -> Option<Value> {
    let decode = |part: &str| -> Option<Value> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let mut parts = token.split('.');
    let (header, claims) = (decode(parts.next()?)?, decode(parts.next()?)?);
    let subject = format!("{}.{}", ACCOUNT.to_uppercase(), USER.to_uppercase());
    let issuer = format!("{subject}.SHA256:{}", fingerprint?);
    #[expect(clippy::disallowed_methods, reason = "a server has a wall clock")]
    let now = chrono::Utc::now().timestamp();
    // no older than an hour, whatever it says of its end
    let fresh = claims["iat"].as_i64().is_some_and(|iat| (now - 3600..=now + 60).contains(&iat));
    let right = header["alg"] == "RS256" && claims["iss"] == issuer.as_str() && claims["sub"] == subject.as_str();
    (right && fresh && claims["exp"].as_i64().is_some_and(|exp| exp > now)).then_some(claims)
}
