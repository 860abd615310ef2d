//! The service as a client meets it: the program started as a process, driven over HTTP.

mod alerts;
mod authorization;
mod auths;
mod channels;
mod clock;
mod connections;
mod events;
mod health;
mod limits;
mod mail;
mod metrics;
mod models;
mod oidc;
mod people;
mod permitted;
mod profiles;
mod pull;
mod receiver;
mod recovery;
mod repeating;
mod running;
mod schedule;
mod secrets;
mod tls;
mod traces;
mod uploads;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use crate::project::Project;

/// How long a process may take for what is asked of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `cloud-connect serve`; killed when it goes out of scope.
pub struct Service {
    process: Child,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// An admin's token.
    pub token: String,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    output: Arc<Mutex<String>>,
    /// Both streams of the process, while it runs and after.
    log: PathBuf,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The `data` of a successful answer.
    pub fn data(&self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.json()["data"].clone()
    }

    /// The code of the first error, after a check of the status.
    pub fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.json()["errors"][0]["code"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_string()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Service {
    /// Starts the service on a free port.
    pub fn start(project: &Project) -> Self {
        Self::start_with(project, &[], &[])
    }

    /// The same with further arguments and variables.
    pub fn start_with(project: &Project, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let token = token(project, &["--role", "admin"]);
        let mut command = project.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(arguments).envs(variables.iter().copied());
        Self::launch(project, command, token)
    }

    fn launch(project: &Project, mut command: Command, token: String) -> Self {
        // outside of the project: what is searched for secrets there is told from what is searched here
        let log =
            std::env::temp_dir().join(format!("{}-serve.log", project.path().file_name().unwrap().to_string_lossy()));
        let stderr = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut process = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let url = listening(&mut lines, &mut process, &output, &log);
        let kept = Arc::clone(&output);
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                kept.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        Self { process, url, token, client, runtime, output, log }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A request as the admin.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        self.ask_as(Some(&self.token), method, path, body)
    }

    /// A request with that token, or with none.
    pub fn ask_as(&self, token: Option<&str>, method: &str, path: &str, body: Option<&Value>) -> Reply {
        self.send(method, path, |request| {
            let request = match token {
                Some(token) => request.header("authorization", format!("Bearer {token}")),
                None => request,
            };
            match body {
                Some(body) => request.json(body),
                None => request,
            }
        })
    }

    /// A request that the caller completes.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        complete: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Reply {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = complete(self.client.request(method, format!("{}{path}", self.url)));
        self.runtime.block_on(async {
            let response = request.send().await.unwrap_or_else(|e| panic!("{e}: {}", self.logged()));
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Reply { status, headers, text: response.text().await.unwrap() }
        })
    }

    /// Posts a body as the admin; none when the connection broke before the answer's end.
    pub fn try_send(
        &self,
        path: &str,
        content_type: &str,
        key: Option<&str>,
        body: impl Into<Vec<u8>>,
    ) -> Option<Reply> {
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body.into());
        request =
            request.header("authorization", format!("Bearer {}", self.token)).header("content-type", content_type);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.runtime.block_on(async {
            let response = request.send().await.ok()?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Some(Reply { status, headers, text: response.text().await.ok()? })
        })
    }

    pub fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, Some(body))
    }

    pub fn put(&self, path: &str, body: &Value) -> Reply {
        self.ask("PUT", path, Some(body))
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.ask("DELETE", path, None)
    }

    /// Asks until the answer satisfies, and returns it.
    pub fn wait_for(&self, path: &str, satisfies: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let reply = self.get(path);
            let data = reply.json()["data"].clone();
            if reply.status == 200 && satisfies(&data) {
                return data;
            }
            assert!(Instant::now() < until, "{path} never was as expected: {reply:?}\n{}", self.logged());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks for a run; its id.
    pub fn begin(&self, model: &str) -> String {
        let started = self.ask("POST", &format!("/v2/datamodel/{model}/sync/start"), None);
        assert_eq!(started.status, 202, "{started:?}");
        started.data()["run_id"].as_str().unwrap().to_string()
    }

    /// Waits for the end of a run; its record.
    pub fn end_of(&self, run: &str) -> Value {
        self.wait_for(&format!("/v2/run/{run}"), |run| run["status"] != "running")
    }

    /// Runs a model; the record of its run.
    pub fn run(&self, model: &str) -> Value {
        self.end_of(&self.begin(model))
    }

    /// What the process printed: standard output and standard error.
    pub fn logged(&self) -> String {
        let printed = self.output.lock().unwrap().clone();
        printed + &std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to stop as service managers do, and waits for its exit code.
    pub fn stop(mut self) -> i32 {
        signal(self.pid(), "TERM");
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < until, "it does not stop: {}", self.logged());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the process has crashed by itself.
    pub fn crashed(mut self) {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it did not crash: {}", self.logged());
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), None, "{}", self.logged());
    }

    /// Ends it as a crash does.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        if !std::thread::panicking() {
            std::fs::remove_file(&self.log).ok();
        }
    }
}

/// Sends a signal to a process.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(sent.success());
}

/// Makes a token at the command line.
pub fn token(project: &Project, arguments: &[&str]) -> String {
    let arguments = [&["token", "create", "--expires", "1d"], arguments].concat();
    project.cc(&arguments).ok().stdout.trim().to_string()
}

/// The part of a token that has to stay secret; it may hold a `_` itself.
pub fn secret_of(token: &str) -> &str {
    token.splitn(3, '_').nth(2).unwrap()
}

/// Reads until the line that says where it listens.
fn listening(
    lines: &mut BufReader<ChildStdout>,
    process: &mut Child,
    output: &Arc<Mutex<String>>,
    log: &std::path::Path,
) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        let read = lines.read_line(&mut line).unwrap();
        output.lock().unwrap().push_str(&line);
        if read == 0 {
            let mut rest = String::new();
            lines.read_to_string(&mut rest).ok();
            let said = std::fs::read_to_string(log).unwrap_or_default();
            panic!("it ended at once ({:?}): {said}", process.wait());
        }
        if let Some(url) = line.trim().strip_prefix("listening on ") {
            return url.to_string();
        }
    }
}
