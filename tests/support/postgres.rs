//! A private PostgreSQL server for tests: made by `initdb` in a temporary directory, on a free loopback port, stopped
//! and removed when it is dropped. Needs the server's programs (Debian: `apt-get install postgresql`).
//!
//! | User | Password | May |
//! |---|---|---|
//! | `postgres` | none (trust) | everything |
//! | `reader` | [`READER_PASSWORD`] (scram) | what tests grant it |
//! | `secure_reader` | [`READER_PASSWORD`] (scram) | log in over TLS only |
//!
//! With TLS, the certificate is for `localhost` (and for no address), signed by an authority of its own.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

pub const READER_PASSWORD: &str = "r3ader's \"secret\"";
pub const DATABASE: &str = "shop";

/// A running server.
#[derive(Debug)]
pub struct PostgresServer {
    directory: TempDir,
    programs: PathBuf,
    pub port: u16,
}

/// The servers that tests running side by side share; each stops with its last user.
static SHARED: [Mutex<Weak<PostgresServer>>; 2] = [Mutex::new(Weak::new()), Mutex::new(Weak::new())];

impl PostgresServer {
    /// A server for this test alone.
    pub fn start(tls: bool) -> Self {
        let programs = find_programs();
        let directory = tempfile::Builder::new().prefix("cc-postgres-").tempdir().expect("a temporary directory");
        let mut server = Self { directory, programs, port: 0 };
        if is_root() {
            // the server refuses to run as root
            run(Command::new("chown").arg("postgres").arg(server.directory.path()));
        }
        let data = server.data();
        let mut initdb = server.program("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"]);
        run(initdb.arg(&data));

        server.write(
            "data/pg_hba.conf",
            "host all postgres 127.0.0.1/32 trust\n\
             hostssl all secure_reader 127.0.0.1/32 scram-sha-256\n\
             host all secure_reader 127.0.0.1/32 reject\n\
             host all all 127.0.0.1/32 scram-sha-256\n",
            "600",
        );
        if tls {
            server.write_certificates();
        }
        server.boot(tls);
        server.psql("postgres", &format!("CREATE DATABASE {DATABASE}"));
        let password = READER_PASSWORD.replace('\'', "''");
        for user in ["reader", "secure_reader"] {
            server.psql("postgres", &format!("CREATE ROLE {user} LOGIN PASSWORD '{password}'"));
        }
        server
    }

    /// A server that tests running at the same time share, with `prepare` run when it starts.
    pub fn shared(tls: bool, prepare: fn(&Self)) -> Arc<Self> {
        let mut slot = SHARED[usize::from(tls)].lock().unwrap_or_else(PoisonError::into_inner);
        slot.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start(tls));
            prepare(&server);
            *slot = Arc::downgrade(&server);
            server
        })
    }

    /// Runs statements as `postgres` and returns what `psql` prints: fields separated by `|`, no headings.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-h", "127.0.0.1", "-U", "postgres", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1"]);
        psql.arg("-p").arg(self.port.to_string()).args(["-d", database, "-c", sql]);
        let output = run(psql.env("PGTZ", "UTC").env("PGCONNECT_TIMEOUT", "10"));
        String::from_utf8(output.stdout).expect("psql prints UTF-8").trim_end().to_string()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("data/server.log")).unwrap_or_default()
    }

    /// The PEM file of the authority that signed the server's certificate.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The PEM file of an authority that signed nothing.
    pub fn other_authority(&self) -> PathBuf {
        self.directory.path().join("other-ca.pem")
    }

    /// Stops the server as an administrator would: sessions are ended at once, with a word.
    pub fn shut_down(&self) {
        let data = self.data();
        run(self.program("pg_ctl").args(["stop", "-w", "-m", "fast", "-D"]).arg(data));
    }

    fn boot(&mut self, tls: bool) {
        // another program may take the port between its choice and its use
        for attempt in 1..=5 {
            self.port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
            let mut settings = format!(
                "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c shared_buffers=64MB \
                 -c max_connections=60",
                self.port
            );
            if tls {
                settings.push_str(" -c ssl=on");
            }
            let (data, log) = (self.data(), self.directory.path().join("data/server.log"));
            let mut start = self.program("pg_ctl");
            start.args(["start", "-w", "-t", "60", "-D"]).arg(data).arg("-l").arg(&log).arg("-o").arg(settings);
            let output = start.output().expect("pg_ctl runs");
            if output.status.success() {
                return;
            }
            let log = fs::read_to_string(log).unwrap_or_default();
            assert!(attempt < 5, "PostgreSQL does not start: {}\n{log}", String::from_utf8_lossy(&output.stderr));
        }
    }

    fn write_certificates(&self) {
        use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
        };
        let issuer = authority("test authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec!["localhost".to_string()])
            .and_then(|params| params.signed_by(&key, &issuer))
            .expect("a certificate");
        self.write("data/server.crt", &certificate.pem(), "644");
        self.write("data/server.key", &key.serialize_pem(), "600");
        self.write("ca.pem", &issuer.pem(), "644");
        self.write("other-ca.pem", &authority("another authority").pem(), "644");
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn write(&self, name: &str, text: &str, mode: &str) {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("a file");
        run(Command::new("chmod").arg(mode).arg(&path));
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&path));
        }
    }

    /// One of the server's programs, as a user that is not root.
    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        // not a directory that the other user cannot enter
        command.current_dir("/");
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // pg_ctl finds the process by the pid file in the data directory; it may have been shut down already
        let data = self.data();
        let _ = self.program("pg_ctl").args(["stop", "-w", "-m", "immediate", "-D"]).arg(data).output();
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.starts_with(b"0\n"))
}

/// Debian keeps the server's programs off the path, a directory a version.
fn find_programs() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    found.sort();
    let on_path = std::env::var_os("PATH").and_then(|path| std::env::split_paths(&path).find(|d| has_initdb(d)));
    found.pop().map(|(_, bin)| bin).or(on_path).unwrap_or_else(|| {
        panic!(
            "these tests need a PostgreSQL server's programs (initdb, pg_ctl, psql): install the package `postgresql`"
        )
    })
}

fn has_initdb(directory: &Path) -> bool {
    directory.join("initdb").exists()
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} does not run: {e}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    output
}
