//! The program under measurement: a service, and the syncs beside it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Fallible;
use super::data::MODELS;

/// Clock ticks a second in `/proc`: a constant of Linux' interface to programs.
const TICKS: u64 = 100;

/// Where a sync runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Where {
    Service,
    Process,
}

/// `cloud-connect run`, to its end.
pub fn run(program: &Path, project: &Path, models: &[&str]) -> Fallible<Duration> {
    let begin = Instant::now();
    let ran = Command::new(program).arg("--project").arg(project).arg("run").args(models).output()?;
    if !ran.status.success() {
        return Err(format!("the run failed: {}", String::from_utf8_lossy(&ran.stderr)).into());
    }
    Ok(begin.elapsed())
}

/// A running `cloud-connect serve`; killed when it goes out of scope.
pub struct Service {
    process: Child,
    /// `127.0.0.1:PORT`
    pub address: String,
    pub token: String,
}

impl Service {
    pub fn start(program: &Path, project: &Path) -> Fallible<Self> {
        let command = || {
            let mut command = Command::new(program);
            command.arg("--project").arg(project);
            command
        };
        let token = command().args(["token", "create", "--role", "admin", "--expires", "1d"]).output()?;
        let token = String::from_utf8(token.stdout)?.trim().to_string();
        let serve = ["serve", "--listen", "127.0.0.1:0", "--rate-limit", "0", "--lookup-rate-limit", "0"];
        let log = std::fs::File::create(project.join("serve.log"))?;
        let mut process = command().args(serve).stdout(Stdio::piped()).stderr(log).spawn()?;
        let output = process.stdout.take().ok_or("no output")?;
        let mut lines = BufReader::new(output).lines();
        let listening = lines.find_map(|line| line.ok()?.strip_prefix("listening on http://").map(str::to_string));
        let Some(address) = listening else {
            process.wait()?;
            return Err("the service did not start: see serve.log in the project".into());
        };
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, address, token })
    }

    /// What it has resident.
    pub fn memory(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        format!(
            "{} MiB resident, {} of them not backed by files; at most {} MiB so far",
            line("VmRSS:") >> 10,
            line("RssAnon:") >> 10,
            line("VmHWM:") >> 10
        )
    }

    pub fn cpu(&self) -> Duration {
        cpu_of(&self.process.id().to_string())
    }

    pub fn stop(mut self) -> Fallible<()> {
        Command::new("kill").arg(self.process.id().to_string()).status()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// CPU time of this program.
pub fn own_cpu() -> Duration {
    cpu_of("self")
}

fn cpu_of(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // the name, in parentheses, may hold spaces
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// One sync after another.
pub struct Syncs {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Fallible<String>>,
}

impl Syncs {
    pub fn start(place: Where, program: &Path, project: &Path, service: &Service) -> Fallible<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (program, project, stopped) = (program.to_path_buf(), project.to_path_buf(), stop.clone());
        let api = Api { address: service.address.clone(), token: service.token.clone() };
        let thread = std::thread::spawn(move || {
            let (mut count, mut busy) = (0, Duration::ZERO);
            'all: loop {
                next_edition(&project)?;
                for slug in MODELS {
                    if stopped.load(Ordering::Relaxed) {
                        break 'all;
                    }
                    busy += match place {
                        Where::Process => run(&program, &project, &[slug])?,
                        Where::Service => api.sync(slug)?,
                    };
                    count += 1;
                }
            }
            Ok(format!("{count} syncs beside it, {:.1} s each", busy.as_secs_f64() / f64::from(count.max(1))))
        });
        // let the first one begin
        std::thread::sleep(Duration::from_millis(200));
        Ok(Self { stop, thread })
    }

    /// Waits for the one under way; how many there were.
    pub fn stop(self) -> Fallible<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the thread of the syncs panicked")?
    }
}

/// The other edition of the table takes the place of the present one.
fn next_edition(project: &Path) -> Fallible<()> {
    let (now, next, aside): (PathBuf, PathBuf, PathBuf) =
        (project.join("data/people.parquet"), project.join("next.parquet"), project.join("aside.parquet"));
    std::fs::rename(&now, &aside)?;
    std::fs::rename(&next, &now)?;
    Ok(std::fs::rename(&aside, &next)?)
}

/// What this program asks of the API beside lookups.
struct Api {
    address: String,
    token: String,
}

impl Api {
    /// Starts a sync of a model, and waits for its end.
    fn sync(&self, slug: &str) -> Fallible<Duration> {
        let begin = Instant::now();
        let before = self.newest_run(slug)?;
        self.ask("POST", &format!("/v2/datamodel/{slug}/sync/start"))?;
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.newest_run(slug)?;
            if now != before && now["status"] != "running" {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > Duration::from_secs(600) {
                return Err("a sync does not end".into());
            }
        }
    }

    fn newest_run(&self, slug: &str) -> Fallible<serde_json::Value> {
        let runs = self.ask("GET", &format!("/v2/run?model={slug}&limit=1"))?;
        let run = &runs["data"][0];
        Ok(serde_json::json!({ "id": run["run_id"], "status": run["status"] }))
    }

    fn ask(&self, method: &str, path: &str) -> Fallible<serde_json::Value> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.address)?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address, self.token
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            return Err(format!("{method} {path}: {status} {body}").into());
        }
        Ok(serde_json::from_str(body)?)
    }
}
