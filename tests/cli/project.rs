//! A project in a temporary directory, and the program run on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

pub struct Project {
    pub dir: TempDir,
}

/// What the program said and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

pub const PEOPLE: &str = "
name: People
connection: files
primary_key: email
external_key: email
activated_fields: [city, spent]
";

impl Project {
    /// A project with identities `user_id` and `email`, a connection `files` over `data/`, and no model.
    pub fn new() -> Self {
        let project = Self { dir: tempfile::Builder::new().prefix("cc-test-").tempdir().unwrap() };
        project.write(
            "cloud-connect.yml",
            "profile:\n  identities:\n    - field: user_id\n    - field: email\n      normalize: [trim, lowercase]\n\
             connections:\n  files: { type: local, path: data }\n",
        );
        std::fs::create_dir(project.path().join("data")).unwrap();
        project
    }

    /// With the model `people` over the table `people`.
    pub fn with_people(rows: &[Value]) -> Self {
        let project = Self::new();
        project.model("people", PEOPLE, "SELECT * FROM people");
        project.rows("people", rows);
        project
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn store(&self) -> PathBuf {
        self.path().join(".cloud-connect")
    }

    pub fn write(&self, file: &str, text: &str) {
        let file = self.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    pub fn model(&self, slug: &str, config: &str, sql: &str) {
        self.write(&format!("models/{slug}.yml"), config);
        self.write(&format!("models/{slug}.sql"), sql);
    }

    /// Makes a table of JSON rows.
    pub fn rows(&self, table: &str, rows: &[Value]) {
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        self.write(&format!("data/{table}.ndjson"), &lines);
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloud-connect"));
        command.arg("--project").arg(self.path()).args(args).stdin(Stdio::null());
        command
    }

    pub fn cc(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// The first report of `run --output json` for these models.
    pub fn run(&self, models: &[&str]) -> Value {
        let args: Vec<&str> = ["run", "--output", "json"].iter().chain(models).copied().collect();
        self.cc(&args).json()[0].clone()
    }

    pub fn sql(&self, query: &str) -> Vec<Value> {
        let ran = self.cc(&["sql", query, "--output", "json"]).ok();
        ran.json().as_array().unwrap().clone()
    }

    pub fn profile(&self, field: &str, value: &str) -> Value {
        self.cc(&["profile", field, value, "--output", "json"]).json()
    }
}

pub fn person(name: &str, city: &str, spent: i64) -> Value {
    json!({ "email": format!("{name}@example.com"), "city": city, "spent": spent })
}

/// Some counts of a report, in this order.
pub fn counts<const N: usize>(report: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| report[name].as_u64().unwrap_or_else(|| panic!("no {name} in {report}")))
}
