//! Every kind of fault, at its line, with its hint.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod alerts;
mod columns;
mod files;
mod init;
mod models;
mod project;
mod rendering;
mod secrets;

use std::path::Path;

use super::*;
use crate::warehouse::{Grade, Maturity, Parameter, ParameterKind, Provider, WarehouseError};

const MATURITY: Maturity = Maturity { grade: Grade::Preview, verified: "these tests" };

const fn parameter(name: &'static str, kind: ParameterKind, default: Option<&'static str>) -> Parameter {
    Parameter { name, kind, required: default.is_none(), default, help: "ask whoever runs the server" }
}

/// The parameters of the real providers; `build` says what it was given, so that a test can see it.
static PROVIDERS: &[Provider] = &[
    Provider {
        name: "local",
        title: "Files",
        maturity: MATURITY,
        parameters: &[parameter("path", ParameterKind::Location, None)],
        build: |params| Err(WarehouseError::bug(format!("path={:?}", params.text("path")))),
    },
    Provider {
        name: "postgres",
        title: "PostgreSQL",
        maturity: MATURITY,
        parameters: &[
            parameter("host", ParameterKind::Text, None),
            parameter("port", ParameterKind::Integer { min: 1, max: 65535 }, Some("5432")),
            parameter("database", ParameterKind::Text, None),
            parameter("user", ParameterKind::Text, None),
            Parameter {
                name: "password",
                kind: ParameterKind::Secret,
                required: false,
                default: None,
                help: "the user's password",
            },
            parameter("sslmode", ParameterKind::Choice(&["disable", "require", "verify-full"]), Some("require")),
            parameter("statement_timeout", ParameterKind::Duration, Some("30m")),
        ],
        build: |params| {
            let given: Vec<String> = ["host", "port", "password", "sslmode", "statement_timeout"]
                .iter()
                .filter_map(|name| params.text(name).map(|value| format!("{name}={value}")))
                .collect();
            Err(WarehouseError::bug(given.join(" ")))
        },
    },
];

const PROJECT: &str = "\
profile:
  identities:
    - field: user_id
    - field: email
      normalize: [trim, lowercase]
connections:
  ebikes: { type: local, path: examples/ebikes }
";

const MODEL: &str = "\
connection: ebikes
primary_key: email
external_key: email
activated_fields: [brand, total]
";

/// A project of these files in a directory that lasts as long as it.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new(files: &[(&str, &str)]) -> Self {
        let case = Self { dir: tempfile::tempdir().unwrap() };
        for (path, text) in files {
            case.write(path, text);
        }
        case
    }

    /// A valid project with this model.
    fn model(yml: &str) -> Self {
        Self::new(&[(PROJECT_FILE, PROJECT), ("models/m.yml", yml), ("models/m.sql", "select 1")])
    }

    /// A valid model in this project.
    fn project(yml: &str) -> Self {
        Self::new(&[(PROJECT_FILE, yml)])
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn load(&self) -> Result<Project, ConfigErrors> {
        load_with(self.root(), PROVIDERS, &|name| (name == "SET").then(|| "s3://bucket/state".to_string()))
    }

    fn errors(&self) -> Vec<ConfigError> {
        self.load().unwrap_err().errors
    }

    /// Exactly one fault: its code, line, column, message and hint.
    fn only(&self) -> (&'static str, usize, usize, String, String) {
        let errors = self.errors();
        let [error] = errors.as_slice() else { panic!("not one fault: {errors:#?}") };
        (error.code, error.line, error.column, error.message.clone(), error.hint.clone().unwrap())
    }

    #[track_caller]
    fn expect(&self, code: &str, line: usize, column: usize, message: &str, hint: &str) {
        let found = self.only();
        assert_eq!((found.0, found.1, found.2), (code, line, column), "{found:?}");
        assert!(found.3.contains(message), "{:?} does not hold {message:?}", found.3);
        assert!(found.4.contains(hint), "{:?} does not hold {hint:?}", found.4);
    }
}

#[test]
fn every_key_is_described_in_the_reference() {
    let reference = include_str!("../../../docs/configuration.md");
    for (place, keys) in keys::ALL {
        for key in *keys {
            assert!(reference.contains(&format!("| `{key}` |")), "`{key}` of {place} is not in docs/configuration.md");
        }
    }
}
