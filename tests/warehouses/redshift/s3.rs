//! A local S3 server, and a way to it that breaks.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use futures::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fakes::redshift::S3;
use crate::process::{ServerProcess, free_port};

pub const BUCKET: &str = "unload-test";
pub const ROLE: &str = "arn:aws:iam::123456789012:role/unload";

/// `moto_server` with one bucket.
pub fn start() -> (ServerProcess, S3) {
    let python = std::env::var_os("CLOUD_CONNECT_TEST_PYTHON").map_or_else(
        || {
            let home = std::env::var_os("HOME").expect("HOME");
            std::path::PathBuf::from(home).join(".cache/cloud-connect/venv/bin/python")
        },
        std::path::PathBuf::from,
    );
    let port = free_port();
    let mut command = Command::new(python);
    command.args(["-c", "import sys; from moto.server import main; main(sys.argv[1:])", "-H", "127.0.0.1", "-p"]);
    command.arg(port.to_string());
    let server = ServerProcess::start(command, port);
    let s3 = S3 { endpoint: format!("http://127.0.0.1:{port}"), bucket: BUCKET.into(), role: ROLE.into() };
    (server, s3)
}

pub async fn create_bucket(s3: &S3) {
    let url = format!("{}/{}", s3.endpoint, s3.bucket);
    #[expect(clippy::disallowed_methods, reason = "a test's own client")]
    let client = reqwest::Client::new();
    client.put(url).send().await.unwrap().error_for_status().unwrap();
}

/// The names of what is in the bucket.
pub async fn objects(s3: &S3) -> Vec<String> {
    s3.store().list(None).map_ok(|o| o.location.to_string()).try_collect().await.unwrap()
}

const PASS: u8 = 0;
const CUT_ONCE: u8 = 1;
const CUT_ALWAYS: u8 = 2;

/// Passes connections on to the server, and cuts them in the middle of an answer when told to.
pub struct BreakingWay {
    pub port: u16,
    mode: Arc<AtomicU8>,
    task: tokio::task::JoinHandle<()>,
}

impl BreakingWay {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(PASS));
        let shared = mode.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mode = shared.clone();
                tokio::spawn(async move { pass(client, server, &mode).await.ok() });
            }
        });
        Self { port, mode, task }
    }

    pub fn cut_once(&self) {
        self.mode.store(CUT_ONCE, Ordering::SeqCst);
    }

    pub fn cut_always(&self) {
        self.mode.store(CUT_ALWAYS, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        self.mode.store(PASS, Ordering::SeqCst);
    }

    /// Has it still to cut?
    pub fn is_whole(&self) -> bool {
        self.mode.load(Ordering::SeqCst) == PASS
    }
}

impl Drop for BreakingWay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: u16, mode: &AtomicU8) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(|_| ()) };
    let answers = async {
        let (mut buffer, mut given) = (vec![0; 4096], 0);
        loop {
            let some = from_server.read(&mut buffer).await?;
            if some == 0 {
                return Ok(());
            }
            to_client.write_all(&buffer[..some]).await?;
            given += some;
            let cut = match mode.load(Ordering::SeqCst) {
                CUT_ONCE => {
                    given > 60_000 && mode.compare_exchange(CUT_ONCE, PASS, Ordering::SeqCst, Ordering::SeqCst).is_ok()
                }
                CUT_ALWAYS => given > 8_000,
                _ => false,
            };
            if cut {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
        }
    };
    tokio::select! {
        ended = requests => ended,
        ended = answers => ended,
    }
}
