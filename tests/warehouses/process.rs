//! Stand-in servers as processes: on free loopback ports, stopped by their pid when they are dropped.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server process; killed when dropped.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    pub port: u16,
    log: tempfile::NamedTempFile,
}

impl ServerProcess {
    /// Starts `command`, which has to listen on `port`, and waits until it does.
    pub fn start(mut command: Command, port: u16) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a log file");
        let output = || Stdio::from(log.reopen().expect("the log file"));
        let child = command.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn();
        let child = child.unwrap_or_else(|e| panic!("{command:?} does not start: {e} (`make tools` installs it)"));
        let mut server = Self { child, port, log };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.child.try_wait().expect("its state");
            assert!(ended.is_none() && Instant::now() < end, "{command:?} does not listen:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// A program of one of the Python environments that `make tools` installs: `standins/<environment>/bin/<program>`.
pub fn standin(environment: &str, program: &str) -> Command {
    let root = std::env::var_os("CLOUD_CONNECT_STANDINS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache/cloud-connect/standins"),
        PathBuf::from,
    );
    Command::new(root.join(environment).join("bin").join(program))
}
