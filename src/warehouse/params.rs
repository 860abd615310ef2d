//! A connection's parameters: declared once by a provider, validated against that declaration by `config`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::WarehouseError;
use super::text::parse_duration;

/// Set by the engine, not by people: bytes that a query may use in this process.
pub const MEMORY_LIMIT: &str = "_memory_limit";

/// What a parameter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    Text,
    /// A whole number within bounds.
    Integer {
        min: i64,
        max: i64,
    },
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A directory or file (relative to the project) or an object-store URL.
    Location,
    /// A file relative to the project.
    File,
    /// Never shown. Should come from `${env:…}` or `${file:…}`.
    Secret,
    /// For example `30s`, `5m`, `2h`.
    Duration,
    /// For example `500 MB`, `2 TB`, `1 GiB`.
    Bytes,
}

/// The declaration of one parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    pub name: &'static str,
    pub kind: ParameterKind,
    pub required: bool,
    /// Used when the parameter is left out, written as in the file.
    pub default: Option<&'static str>,
    pub help: &'static str,
}

/// The validated parameters of one connection, with secrets and references resolved. Values are text as in the
/// file (already checked against their [`ParameterKind`]); `Debug` shows names only.
#[derive(Clone, Default)]
pub struct ConnectionParams {
    /// The connection's name in the project.
    pub connection: String,
    /// Where relative paths start.
    pub project_root: PathBuf,
    values: BTreeMap<String, SecretString>,
}

impl std::fmt::Debug for ConnectionParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionParams")
            .field("connection", &self.connection)
            .field("given", &self.values.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl ConnectionParams {
    pub fn new(connection: impl Into<String>, project_root: impl Into<PathBuf>) -> Self {
        Self { connection: connection.into(), project_root: project_root.into(), values: BTreeMap::new() }
    }

    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.values.insert(name.into(), SecretString::from(value.into()));
    }

    /// The value as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(ExposeSecret::expose_secret)
    }

    /// The value as a secret, which neither `Debug` nor `Display` shows.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        self.values.get(name).cloned()
    }

    /// The value as text, or an error that names the parameter.
    pub fn required(&self, name: &str) -> Result<&str, WarehouseError> {
        self.text(name).ok_or_else(|| {
            WarehouseError::configuration(format!("connection `{}` has no `{name}`", self.connection))
                .with_hint(format!("add `{name}:` to the connection in cloud-connect.yml"))
        })
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, WarehouseError> {
        self.parse(name)
    }

    pub fn bool(&self, name: &str) -> Result<Option<bool>, WarehouseError> {
        self.parse(name)
    }

    fn parse<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, WarehouseError> {
        self.text(name)
            .map(|v| {
                v.parse().map_err(|_| {
                    WarehouseError::configuration(format!("connection `{}`: `{name}` is not valid", self.connection))
                })
            })
            .transpose()
    }
}

/// Reads a connection's parameters by their declaration: what was left out takes its default, and every fault names its
/// parameter and says what it takes.
pub(in crate::warehouse) struct Reading<'a> {
    pub(in crate::warehouse) params: &'a ConnectionParams,
    pub(in crate::warehouse) declared: &'static [Parameter],
}

impl<'a> Reading<'a> {
    pub(in crate::warehouse) fn invalid(&self, name: &str, want: &str) -> WarehouseError {
        WarehouseError::configuration(format!("connection `{}`: `{name}` is not valid", self.params.connection))
            .with_hint(format!("`{name}` is {want}"))
    }

    pub(in crate::warehouse) fn default(&self, name: &str) -> Option<&'static str> {
        self.declared.iter().find(|p| p.name == name).and_then(|p| p.default)
    }

    /// As given or by default.
    pub(in crate::warehouse) fn text(&self, name: &str) -> &'a str {
        self.params.text(name).or_else(|| self.default(name)).unwrap_or_default()
    }

    /// A text, where it is given and not blank.
    pub(in crate::warehouse) fn optional(&self, name: &str) -> Option<&'a str> {
        self.params.text(name).map(str::trim).filter(|text| !text.is_empty())
    }

    pub(in crate::warehouse) fn duration(&self, name: &str) -> Result<Duration, WarehouseError> {
        parse_duration(self.text(name)).ok_or_else(|| self.invalid(name, "a duration such as `30s`, `5m` or `2h`"))
    }

    /// A duration that is not zero.
    pub(in crate::warehouse) fn some_duration(&self, name: &str) -> Result<Duration, WarehouseError> {
        let duration = self.duration(name)?;
        if duration.is_zero() {
            return Err(self.invalid(name, "longer than nothing, for example `10s`"));
        }
        Ok(duration)
    }

    /// A text that has to be there.
    pub(in crate::warehouse) fn named(&self, name: &str) -> Result<String, WarehouseError> {
        self.usable(name, self.params.required(name)?)
    }

    pub(in crate::warehouse) fn usable(&self, name: &str, value: &str) -> Result<String, WarehouseError> {
        let value = value.trim();
        if value.is_empty() || value.contains('\0') {
            return Err(self.invalid(name, "a text that is not empty"));
        }
        Ok(value.to_string())
    }
}
