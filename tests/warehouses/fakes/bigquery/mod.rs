//! A scripted BigQuery: the REST API (v2), the token endpoint, the metadata server and the Storage Read API (gRPC), in
//! the wire format of Google's documentation. Runs no SQL: a [`Script`] says what each query is and returns; rows are
//! made when a stream asks for them.
//!
//! | Part | What it serves |
//! |---|---|
//! | [`rest`] | tokens, jobs (dry run, insert, get, cancel), datasets, tables |
//! | [`storage`] | read sessions and streams |
//! | [`script`] | the queries that tests and examples ask |
//! | [`wire`] | protobuf by hand: field numbers from `google/cloud/bigquery/storage/v1/*.proto` |
//!
//! It refuses what the real service refuses: a wrong, withdrawn or absent token (401, UNAUTHENTICATED), an assertion whose
//! signature, audience, scope or time is wrong, a job ID that was used (409), a job looked for outside of its location
//! (404), a gRPC call without its routing header, an offset beyond what was read.

#![allow(dead_code, reason = "each user uses its part")]

mod rest;
pub mod script;
mod storage;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const PROJECT: &str = "shop-project";
pub const LOCATION: &str = "EU";
pub const EMAIL: &str = "reader@shop-project.iam.gserviceaccount.com";
pub const CLIENT_ID: &str = "client-id.apps.googleusercontent.com";
pub const CLIENT_SECRET: &str = "cl1ent-s3cret";
pub const REFRESH_TOKEN: &str = "1//r3fresh-token";

/// What a query is and returns.
#[derive(Clone)]
pub struct Answer {
    /// The columns, as `TableSchema.fields` tells them.
    pub fields: Value,
    /// As the rows are sent.
    pub schema: SchemaRef,
    pub rows: u64,
    /// Makes rows `from..from + count`.
    pub make: Arc<dyn Fn(u64, u64) -> RecordBatch + Send + Sync>,
    /// So long the job runs.
    pub takes: Duration,
    pub bytes: u64,
    pub statement_type: &'static str,
    /// How the job ends, if it does not succeed: reason and message.
    pub fails: Option<(&'static str, String)>,
}

/// An HTTP status, a reason and a message.
pub type Refusal = (u16, &'static str, String);
/// From a query's text to what it is.
pub type Script = Arc<dyn Fn(&str) -> Result<Answer, Refusal> + Send + Sync>;

/// What goes wrong from now on.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// So many REST requests (not for tokens) are refused with `rateLimitExceeded`, asking for so many seconds.
    pub throttle: Option<(usize, u64)>,
    /// So many gRPC calls are refused with RESOURCE_EXHAUSTED, with a RetryInfo of so many seconds.
    pub throttle_reads: Option<(usize, u64)>,
    /// So many times a stream breaks after its first batches (or, taken up again, before any).
    pub breaks: usize,
    /// So many times every token is withdrawn in the middle of a stream.
    pub expire_tokens: usize,
    /// So many times every session expires in the middle of a stream.
    pub expire_sessions: usize,
    /// So many accepted jobs are answered by nothing: the connection ends.
    pub lose_inserts: usize,
    /// Sessions are refused with PERMISSION_DENIED and this message.
    pub deny_sessions: Option<String>,
    /// REST requests (not for tokens) are refused so.
    pub refuse: Option<Refusal>,
    /// So many REST requests are answered with a page, as a proxy or a front end does that has trouble.
    pub pages: usize,
    /// Tokens are good for so long.
    pub token_seconds: Option<u64>,
}

#[derive(Debug, Clone)]
struct Job {
    configuration: Value,
    query: String,
    began: Instant,
    cancelled: bool,
}

#[derive(Debug, Clone)]
struct Session {
    job: String,
    streams: u64,
    compressed: bool,
    expired: bool,
}

#[derive(Debug, Default)]
struct Inner {
    faults: Faults,
    tokens: BTreeSet<String>,
    jobs: BTreeMap<String, Job>,
    sessions: Vec<Session>,
    /// Rows that each stream has sent: what an offset is checked against.
    sent: BTreeMap<String, u64>,
    /// Bodies of accepted jobs.
    inserted: Vec<Value>,
    dry_runs: Vec<Value>,
    cancels: Vec<String>,
    reads: Vec<(String, u64)>,
}

pub struct State {
    pub address: SocketAddr,
    script: Script,
    /// The service account's public key, DER (PKCS #1).
    public_key: Vec<u8>,
    /// An end-of-stream marker follows the schema.
    pub marks_end: bool,
    inner: Mutex<Inner>,
    tokens_granted: AtomicUsize,
    requests: AtomicUsize,
    batches_made: AtomicU64,
}

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_valid(&self, authorization: Option<&str>) -> bool {
        let token = authorization.and_then(|text| text.strip_prefix("Bearer "));
        token.is_some_and(|token| self.inner().tokens.contains(token))
    }
}

/// The servers; they end when this is dropped.
pub struct FakeBigQuery {
    pub state: Arc<State>,
    pub storage_address: SocketAddr,
    private_key: String,
    servers: Vec<JoinHandle<()>>,
}

impl Drop for FakeBigQuery {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

fn openssl(args: &[&str], input: &str) -> Vec<u8> {
    use std::io::Write;
    let mut command = Command::new("openssl");
    let mut child = command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl (Debian: `apt-get install openssl`)");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("its input");
    let output = child.wait_with_output().expect("its output");
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}

impl FakeBigQuery {
    pub async fn start(script: Script) -> Self {
        Self::start_with(script, true).await
    }

    pub async fn start_with(script: Script, marks_end: bool) -> Self {
        let private_key =
            String::from_utf8(openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], ""))
                .expect("PEM");
        let public_key = openssl(&["rsa", "-RSAPublicKey_out", "-outform", "DER"], &private_key);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let storage_listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let storage_address = storage_listener.local_addr().expect("its address");
        let state = Arc::new(State {
            address: listener.local_addr().expect("its address"),
            script,
            public_key,
            marks_end,
            inner: Mutex::default(),
            tokens_granted: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            batches_made: AtomicU64::new(0),
        });
        let servers = vec![
            tokio::spawn(rest::serve(listener, state.clone())),
            tokio::spawn(storage::serve(storage_listener, state.clone())),
        ];
        Self { state, storage_address, private_key, servers }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.state.address)
    }

    pub fn storage_endpoint(&self) -> String {
        format!("http://{}", self.storage_address)
    }

    /// The key of the service account that may read.
    pub fn service_account_key(&self) -> String {
        json!({
            "type": "service_account", "project_id": PROJECT, "private_key_id": "0123abcd", "private_key": self.private_key,
            "client_email": EMAIL, "client_id": "1", "token_uri": format!("{}/token", self.endpoint()),
        })
        .to_string()
    }

    /// A line of the private key, which may be shown nowhere.
    pub fn key_line(&self) -> String {
        self.private_key.lines().nth(3).expect("a line").to_string()
    }

    /// The tokens that are good now.
    pub fn tokens(&self) -> Vec<String> {
        self.state.inner().tokens.iter().cloned().collect()
    }

    /// Withdraws every token.
    pub fn withdraw_tokens(&self) {
        self.state.inner().tokens.clear();
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state.inner().faults = faults;
    }

    /// Queries that were run (dry runs are none).
    pub fn queries_run(&self) -> usize {
        self.state.inner().jobs.len()
    }

    /// The bodies of accepted jobs.
    pub fn inserted(&self) -> Vec<Value> {
        self.state.inner().inserted.clone()
    }

    pub fn dry_runs(&self) -> Vec<Value> {
        self.state.inner().dry_runs.clone()
    }

    /// The jobs that were asked to stop.
    pub fn cancels(&self) -> Vec<String> {
        self.state.inner().cancels.clone()
    }

    /// Streams and offsets of the reads.
    pub fn reads(&self) -> Vec<(String, u64)> {
        self.state.inner().reads.clone()
    }

    pub fn sessions(&self) -> usize {
        self.state.inner().sessions.len()
    }

    /// Of each session: its streams, and whether its rows are compressed.
    pub fn session_shapes(&self) -> Vec<(u64, bool)> {
        self.state.inner().sessions.iter().map(|s| (s.streams, s.compressed)).collect()
    }

    /// Does a job run whose text contains this?
    pub fn runs(&self, text: &str) -> bool {
        let inner = self.state.inner();
        inner.jobs.values().any(|job| {
            let answer = (self.state.script)(&job.query);
            let takes = answer.map_or(Duration::ZERO, |a| a.takes);
            job.query.contains(text) && !job.cancelled && job.began.elapsed() < takes
        })
    }

    pub fn tokens_granted(&self) -> usize {
        self.state.tokens_granted.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
    }

    pub fn batches_made(&self) -> u64 {
        self.state.batches_made.load(Ordering::Relaxed)
    }
}
