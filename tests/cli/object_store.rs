//! The state in an object store: a real S3 server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::project::{Project, Ran, counts, person};

/// `moto_server` on a free loopback port, with one bucket.
struct S3 {
    child: Child,
    port: u16,
}

impl S3 {
    fn start() -> Self {
        let python =
            std::env::var("CLOUD_CONNECT_TEST_PYTHON").expect("run `make test`, which sets CLOUD_CONNECT_TEST_PYTHON");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(python)
            .args(["-c", "import sys; from moto.server import main; main(sys.argv[1:])", "-H", "127.0.0.1", "-p"])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port };
        let end = Instant::now() + Duration::from_secs(30);
        while !server.create_bucket() {
            assert!(Instant::now() < end, "the S3 server did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    fn create_bucket(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let request = format!(
            "PUT /state HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.port
        );
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains(" 200 ")
    }

    fn cc(&self, project: &Project, args: &[&str]) -> Ran {
        let mut command = project.command(args);
        command
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "s3cret-of-the-test")
            .env("AWS_REGION", "us-east-1");
        command.output().unwrap().into()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_state_can_live_in_an_object_store() {
    let s3 = S3::start();
    let project = Project::with_people(&[person("ada", "London", 1), person("bob", "Bonn", 2)]);
    let config = std::fs::read_to_string(project.path().join("cloud-connect.yml")).unwrap();
    project.write("cloud-connect.yml", &format!("store: s3://state/shop\n{config}"));
    let run = || s3.cc(&project, &["run", "--output", "json"]).ok().json()[0].clone();
    assert_eq!(counts(&run(), ["added"]), [2]);
    project.rows("people", &[person("ada", "Paris", 1), person("cyd", "Cork", 3)]);
    assert_eq!(counts(&run(), ["added", "changed", "removed"]), [1, 1, 1]);
    assert_eq!(run()["status"], "unchanged");
    let ada = s3.cc(&project, &["profile", "email", "ada@example.com", "--output", "json"]).ok().json();
    assert_eq!(ada["attributes"]["cc_people_city"], "Paris");
    let log = s3.cc(&project, &["sql", "SELECT count(*) AS n FROM changes", "--output", "json"]).ok().json();
    assert_eq!(log[0]["n"], 5);
    // a crash after the commit is finished from the object store alone
    project.rows("people", &[person("ada", "Rome", 1), person("cyd", "Cork", 3)]);
    let mut command = project.command(&["run"]);
    command
        .env("CLOUD_CONNECT_ABORT_AT", "after-commit")
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", s3.port));
    command
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "x")
        .env("AWS_REGION", "us-east-1");
    assert_eq!(command.output().unwrap().status.code(), None);
    let ada = s3.cc(&project, &["profile", "email", "ada@example.com", "--output", "json"]).ok().json();
    assert_eq!(ada["attributes"]["cc_people_city"], "Rome");
    let wrong = project.cc(&["run"]);
    assert!(!format!("{wrong:?}").contains("s3cret-of-the-test"));
}
