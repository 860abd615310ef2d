//! Redshift before a real PostgreSQL: a proxy of the wire protocol.
//!
//! ```text
//! client --> this --> PostgreSQL
//!            | refuses what Redshift refuses, and remembers that it had to
//!            | tells Redshift's version, and its types' OIDs (jsonb as SUPER, bytea as VARBYTE …)
//!            | UNLOAD: runs the query on a connection of its own, writes Parquet and a manifest to S3
//! ```
//!
//! A refused statement is swapped for one that PostgreSQL refuses, and PostgreSQL's error for Redshift's, so that the
//! transaction's state is PostgreSQL's own. Cancel requests reach whatever runs for their session.

mod refusals;
mod unload;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::{CancelToken, NoTls};

pub use self::refusals::{Refusal, refusal};
pub use self::unload::S3;

/// What a session is, in the protocol's cancel requests.
type Key = (i32, i32);

/// The proxy; it ends with the runtime that it was started on, or when dropped.
pub struct FakeRedshift {
    pub port: u16,
    pub state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

/// What the proxy knows and was told.
pub struct State {
    backend: u16,
    /// For the connections on which it runs what is unloaded.
    password: String,
    s3: Option<S3>,
    /// Every statement that a client sent.
    pub statements: Mutex<Vec<String>>,
    /// Those that had to be refused.
    pub refused: Mutex<Vec<String>>,
    /// Customer queries begun: cursors and unloadings.
    pub queries: AtomicUsize,
    pub unloads: AtomicUsize,
    pub cancels: AtomicUsize,
    /// A single-node cluster gives 1000 rows at a time.
    pub single_node: AtomicBool,
    /// Rows after which a connection is cut; 0: never.
    pub cut_after_rows: AtomicU64,
    /// Rows after which a connection falls silent; 0: never.
    pub stall_after_rows: AtomicU64,
    /// The next cursors and unloadings fail so.
    pub fail_next: Mutex<Vec<Refusal>>,
    /// Every login fails so.
    pub fail_logins: Mutex<Option<Refusal>>,
    /// Passwords are stored as SHA-256 hashes: Redshift asks for a login of its own kind.
    pub digest_logins: AtomicBool,
    unloading: Mutex<HashMap<Key, CancelToken>>,
    cancelled: Mutex<HashSet<Key>>,
}

impl Drop for FakeRedshift {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeRedshift {
    /// Before the PostgreSQL on that port; `password` is the user's that clients log in as.
    pub async fn start(backend: u16, password: &str, s3: Option<S3>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(State {
            backend,
            password: password.to_string(),
            s3,
            statements: Mutex::default(),
            refused: Mutex::default(),
            queries: AtomicUsize::new(0),
            unloads: AtomicUsize::new(0),
            cancels: AtomicUsize::new(0),
            single_node: AtomicBool::new(false),
            cut_after_rows: AtomicU64::new(0),
            stall_after_rows: AtomicU64::new(0),
            fail_next: Mutex::default(),
            fail_logins: Mutex::default(),
            digest_logins: AtomicBool::new(false),
            unloading: Mutex::default(),
            cancelled: Mutex::default(),
        });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = shared.clone();
                // a connection that breaks is what tests do to it
                tokio::spawn(async move { serve(client, state).await.ok() });
            }
        });
        Self { port, state, task }
    }
}

/// One session of a client.
struct Session {
    state: Arc<State>,
    user: String,
    database: String,
    key: Mutex<Key>,
    statement_timeout: AtomicI64,
    unloaded: AtomicU64,
    /// What PostgreSQL's next errors become.
    errors: Mutex<Vec<Refusal>>,
    /// Prepared statements whose use is refused.
    refused_names: Mutex<HashMap<Vec<u8>, Refusal>>,
    fetched: AtomicU64,
    read_only: AtomicBool,
}

async fn serve(mut client: TcpStream, state: Arc<State>) -> io::Result<()> {
    client.set_nodelay(true)?;
    loop {
        let length = client.read_i32().await?;
        let code = client.read_i32().await?;
        let mut body = vec![0; usize::try_from(length - 8).unwrap_or(0)];
        client.read_exact(&mut body).await?;
        match code {
            // TLS or GSS encryption: not here
            80_877_103 | 80_877_104 => client.write_all(b"N").await?,
            80_877_102 => return cancel(&body, &state).await,
            _ => return session(client, code, body, state).await,
        }
    }
}

async fn cancel(body: &[u8], state: &State) -> io::Result<()> {
    let word = |at: usize| i32::from_be_bytes(body[at..at + 4].try_into().expect("four bytes"));
    let key = (word(0), word(4));
    state.cancels.fetch_add(1, Ordering::SeqCst);
    let unloading = {
        state.cancelled.lock().unwrap().insert(key);
        state.unloading.lock().unwrap().get(&key).cloned()
    };
    if let Some(token) = unloading {
        return token.cancel_query(NoTls).await.map_err(io::Error::other);
    }
    let mut backend = TcpStream::connect(("127.0.0.1", state.backend)).await?;
    backend.write_all(&[&16i32.to_be_bytes(), &80_877_102i32.to_be_bytes(), body].concat()).await?;
    backend.read(&mut [0]).await.map(|_| ())
}

async fn session(mut client: TcpStream, code: i32, startup: Vec<u8>, state: Arc<State>) -> io::Result<()> {
    let texts: Vec<&[u8]> = startup.split(|b| *b == 0).collect();
    let mut settings = HashMap::new();
    for pair in texts.chunks_exact(2).take_while(|pair| !pair[0].is_empty()) {
        settings.insert(String::from_utf8_lossy(pair[0]).to_string(), String::from_utf8_lossy(pair[1]).to_string());
    }
    if let Some(unknown) = settings.keys().find(|name| !refusals::STARTUP.contains(&name.as_str())) {
        state.refused.lock().unwrap().push(format!("startup packet: {unknown}"));
        let refusal = ("42704", format!("unrecognized configuration parameter \"{unknown}\""));
        return client.write_all(&error(&refusal, "FATAL", None)).await;
    }
    let failure = state.fail_logins.lock().unwrap().clone();
    if let Some(refusal) = failure {
        let refused = error(&refusal, "FATAL", None);
        client.write_all(&refused).await?;
        return client.shutdown().await;
    }
    if state.digest_logins.load(Ordering::SeqCst) {
        client.write_all(&[&b"R\0\0\0\x14\0\0\0\x0d"[..], &[0; 12]].concat()).await?;
        return client.read(&mut [0]).await.map(|_| ());
    }
    let mut backend = TcpStream::connect(("127.0.0.1", state.backend)).await?;
    backend.set_nodelay(true)?;
    let length = i32::try_from(startup.len() + 8).expect("short");
    backend.write_all(&[&length.to_be_bytes(), &code.to_be_bytes(), startup.as_slice()].concat()).await?;
    let session = Session {
        user: settings.get("user").cloned().unwrap_or_default(),
        database: settings.get("database").cloned().unwrap_or_default(),
        state,
        key: Mutex::default(),
        statement_timeout: AtomicI64::new(0),
        unloaded: AtomicU64::new(0),
        errors: Mutex::default(),
        refused_names: Mutex::default(),
        fetched: AtomicU64::new(0),
        read_only: AtomicBool::new(false),
    };
    let (from_client, to_client) = client.into_split();
    let (from_backend, to_backend) = backend.into_split();
    let to_client = tokio::sync::Mutex::new(BufWriter::new(to_client));
    // whichever direction ends, ends the session
    tokio::select! {
        ended = session.requests(BufReader::new(from_client), BufWriter::new(to_backend), &to_client) => ended,
        ended = session.answers(BufReader::with_capacity(256 << 10, from_backend), &to_client) => ended,
    }
}

async fn message(from: &mut BufReader<OwnedReadHalf>) -> io::Result<(u8, Vec<u8>)> {
    let kind = from.read_u8().await?;
    let length = from.read_i32().await?;
    let mut body = vec![0; usize::try_from(length - 4).unwrap_or(0)];
    from.read_exact(&mut body).await?;
    Ok((kind, body))
}

async fn send(to: &mut BufWriter<OwnedWriteHalf>, kind: u8, body: &[u8]) -> io::Result<()> {
    to.write_u8(kind).await?;
    to.write_i32(i32::try_from(body.len() + 4).expect("short")).await?;
    to.write_all(body).await
}

fn error(refusal: &Refusal, severity: &str, position: Option<u32>) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, text) in [(b'S', severity), (b'C', refusal.0), (b'M', refusal.1.as_str())] {
        body.push(field);
        body.extend(text.as_bytes());
        body.push(0);
    }
    if let Some(position) = position {
        body.extend(format!("P{position}\0").as_bytes());
    }
    body.push(0);
    let length = i32::try_from(body.len() + 4).expect("short");
    [&[b'E'][..], &length.to_be_bytes(), &body].concat()
}

/// The text that `bytes` begins with, and the rest.
fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    (String::from_utf8_lossy(&bytes[..end]).to_string(), &bytes[(end + 1).min(bytes.len())..])
}

const REFUSED: &str = "refused by Redshift";

impl Session {
    /// From the client to PostgreSQL.
    async fn requests(
        &self,
        mut from: BufReader<OwnedReadHalf>,
        mut to: BufWriter<OwnedWriteHalf>,
        to_client: &tokio::sync::Mutex<BufWriter<OwnedWriteHalf>>,
    ) -> io::Result<()> {
        loop {
            let (kind, body) = message(&mut from).await?;
            match kind {
                b'Q' => {
                    let (sql, _) = text(&body);
                    if sql.trim_start().to_uppercase().starts_with("UNLOAD") {
                        self.note(&sql);
                        let answer = self.unload(&sql).await;
                        let mut client = to_client.lock().await;
                        client.write_all(&answer).await?;
                        client.flush().await?;
                        continue;
                    }
                    let sql = self.judged(&sql).unwrap_or(sql);
                    send(&mut to, kind, &[sql.as_bytes(), &[0]].concat()).await?;
                }
                b'P' => {
                    let (name, rest) = text(&body);
                    let (sql, rest) = text(rest);
                    let sql = self.prepared(&name, &sql).unwrap_or(sql);
                    send(&mut to, kind, &[name.as_bytes(), &[0], sql.as_bytes(), &[0], rest].concat()).await?;
                }
                b'B' => {
                    let (portal, rest) = text(&body);
                    let (name, rest) = text(rest);
                    let refusal = self.refused_names.lock().unwrap().get(name.as_bytes()).cloned();
                    let name = match refusal {
                        Some(refusal) => {
                            self.errors.lock().unwrap().push(refusal);
                            "no such statement".to_string()
                        }
                        None => name,
                    };
                    send(&mut to, kind, &[portal.as_bytes(), &[0], name.as_bytes(), &[0], rest].concat()).await?;
                }
                _ => send(&mut to, kind, &body).await?,
            }
            if from.buffer().is_empty() {
                to.flush().await?;
            }
        }
    }

    fn note(&self, sql: &str) {
        self.state.statements.lock().unwrap().push(sql.to_string());
    }

    /// Another statement in place of one that is refused.
    fn judged(&self, sql: &str) -> Option<String> {
        self.note(sql);
        if let Some(refusal) = refusal(sql) {
            self.state.refused.lock().unwrap().push(sql.to_string());
            self.errors.lock().unwrap().push(refusal);
            return Some(REFUSED.to_string());
        }
        let upper = sql.trim_start().to_uppercase();
        if let Some(limit) = upper.strip_prefix("SET STATEMENT_TIMEOUT TO ") {
            self.statement_timeout.store(limit.trim().parse().unwrap_or(0), Ordering::SeqCst);
        }
        // a setting of Redshift's own
        if upper.starts_with("SET QUERY_GROUP") {
            return Some(sql.replace("query_group", "redshift.query_group"));
        }
        if upper.starts_with("BEGIN") {
            self.read_only.store(upper.contains("READ ONLY"), Ordering::SeqCst);
        }
        // before patch 204, as github.com/awslabs/mcp/issues/3342 tells
        if sql.contains("spectrum.") && self.read_only.load(Ordering::SeqCst) {
            let message = "Failed to incorporate external table \"spectrum\".\"sales\" into local catalog. Error=transaction is read-only";
            self.errors.lock().unwrap().push(("XX000", message.into()));
            return Some(REFUSED.to_string());
        }
        if upper.starts_with("DECLARE") {
            self.state.queries.fetch_add(1, Ordering::SeqCst);
            if let Some(refusal) = self.state.fail_next.lock().unwrap().pop() {
                self.errors.lock().unwrap().push(refusal);
                return Some(REFUSED.to_string());
            }
        }
        None
    }

    fn prepared(&self, name: &str, sql: &str) -> Option<String> {
        if let Some(swapped) = self.judged(sql) {
            return Some(swapped);
        }
        if let Some(rest) = sql.strip_prefix("FETCH FORWARD ") {
            let rows: u64 = rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            if rows > 1000 && self.state.single_node.load(Ordering::SeqCst) {
                let message = format!(
                    "Fetch size {rows} exceeds the limit of 1000 for a single node configuration. Reduce the client fetch/cache size or upgrade to a multi node installation."
                );
                self.refused_names.lock().unwrap().insert(name.as_bytes().to_vec(), ("XX000", message));
            }
        }
        sql.contains("pg_last_unload_count()")
            .then(|| sql.replace("pg_last_unload_count()", &self.unloaded.load(Ordering::SeqCst).to_string()))
    }

    /// From PostgreSQL to the client.
    async fn answers(
        &self,
        mut from: BufReader<OwnedReadHalf>,
        to_client: &tokio::sync::Mutex<BufWriter<OwnedWriteHalf>>,
    ) -> io::Result<()> {
        loop {
            let (kind, mut body) = message(&mut from).await?;
            let mut to = to_client.lock().await;
            match kind {
                b'S' => {
                    let (name, _) = text(&body);
                    if name == "server_version" {
                        body = b"server_version\x008.0.2\0".to_vec();
                    }
                }
                b'K' => {
                    let word = |at: usize| i32::from_be_bytes(body[at..at + 4].try_into().expect("four bytes"));
                    *self.key.lock().unwrap() = (word(0), word(4));
                }
                b'T' => types_of_redshift(&mut body),
                b'E' => {
                    let swapped = {
                        let mut errors = self.errors.lock().unwrap();
                        (!errors.is_empty()).then(|| errors.remove(0))
                    };
                    if let Some(refusal) = swapped {
                        to.write_all(&error(&refusal, "ERROR", None)).await?;
                        to.flush().await?;
                        continue;
                    }
                }
                b'D' => {
                    let rows = self.fetched.fetch_add(1, Ordering::SeqCst) + 1;
                    let cut = self.state.cut_after_rows.load(Ordering::SeqCst);
                    if cut > 0 && rows > cut {
                        to.flush().await?;
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                    let stall = self.state.stall_after_rows.load(Ordering::SeqCst);
                    if stall > 0 && rows > stall {
                        to.flush().await?;
                        std::future::pending::<()>().await;
                    }
                }
                _ => {}
            }
            send(&mut to, kind, &body).await?;
            if from.buffer().is_empty() {
                to.flush().await?;
            }
        }
    }
}

/// Types that only Redshift has stand in for types that only PostgreSQL has.
fn types_of_redshift(body: &mut [u8]) {
    let count = u16::from_be_bytes([body[0], body[1]]);
    let mut at = 2;
    for _ in 0..count {
        let name = body[at..].iter().position(|b| *b == 0).expect("the end of a name");
        let field: &mut [u8] = &mut body[at + name + 7..][..4];
        let oid = match u32::from_be_bytes(field.try_into().expect("four bytes")) {
            3802 => 4000, // jsonb: SUPER
            17 => 6551,   // bytea: VARBYTE
            1186 => 1190, // interval: INTERVAL DAY TO SECOND
            600 => 3000,  // point: GEOMETRY
            718 => 2935,  // circle: HLLSKETCH
            other => other,
        };
        field.copy_from_slice(&u32::to_be_bytes(oid));
        at += name + 19;
    }
}
