//! Where a secret comes from: `${env:NAME}`, `${file:PATH}` and `${auth:ID/NAME}` (a sealed authorization, see
//! [`crate::vault`]) in the values of a configuration.
//!
//! Values keep their references until they are used ([`Project::open_connection`]), so that a missing secret stops only
//! what needs it. `$${` stands for a plain `${`. An error names the variable or the file, and never a value.

use std::path::Path;
use std::sync::Arc;

use secrecy::ExposeSecret;

use crate::config::{ConfigError, Connection, PROJECT_FILE, Project, parameter};
use crate::vault::{Vault, VaultError};
use crate::warehouse::params::MEMORY_LIMIT;
use crate::warehouse::{ConnectionParams, Provider, Warehouse, WarehouseError};

/// Looks a variable up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's environment. A variable that is not UTF-8 counts as not set.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Why a reference gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("the environment variable `{name}` is not set")]
    Unset { name: String },
    #[error("the file `{path}` cannot be read: {reason}")]
    File { path: String, reason: String },
    #[error("{0}")]
    Vault(#[from] VaultError),
    /// Says nothing of the text, which may hold a secret.
    #[error("a reference is not well formed")]
    Malformed,
}

impl ResolveError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unset { .. } => "unset-variable",
            Self::File { .. } => "unreadable-secret-file",
            Self::Vault(_) => "sealed-secret",
            Self::Malformed => "malformed-reference",
        }
    }

    pub fn hint(&self) -> String {
        match self {
            Self::Unset { name } => format!("set it before you start, for example `export {name}=…`"),
            Self::File { .. } => "the path starts at the project's directory; check that the file is there".into(),
            Self::Vault(error) => error.hint().into(),
            Self::Malformed => {
                "write `${env:NAME}`, `${file:PATH}` or `${auth:ID/NAME}`; a plain `${` is written `$${`".into()
            }
        }
    }
}

/// One part of a value.
enum Part<'a> {
    Literal(&'a str),
    Env(&'a str),
    File(&'a str),
    /// An authorization's id, and which of its values.
    Auth(&'a str, &'a str),
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, ResolveError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            parts.push(Part::Literal(&rest[..at - 1]));
            parts.push(Part::Literal("${"));
            rest = &rest[at + 2..];
            continue;
        }
        parts.push(Part::Literal(&rest[..at]));
        let end = rest[at..].find('}').ok_or(ResolveError::Malformed)? + at;
        let reference = &rest[at + 2..end];
        parts.push(match reference.split_once(':') {
            Some(("env", name)) if is_variable(name) => Part::Env(name),
            Some(("file", path)) if !path.trim().is_empty() => Part::File(path.trim()),
            Some(("auth", reference)) => match reference.trim().split_once('/') {
                Some((id, name)) if !id.is_empty() && !name.is_empty() => Part::Auth(id, name),
                _ => return Err(ResolveError::Malformed),
            },
            _ => return Err(ResolveError::Malformed),
        });
        rest = &rest[end + 1..];
    }
    parts.push(Part::Literal(rest));
    Ok(parts)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Is the text one reference and nothing else? Such a text may be shown.
pub(crate) fn is_reference(text: &str) -> bool {
    let text = text.trim();
    text.starts_with("${")
        && parts(text).is_ok_and(|parts| {
            let references = parts.iter().filter(|p| !matches!(p, Part::Literal(_))).count();
            references == 1 && parts.iter().all(|p| !matches!(p, Part::Literal(l) if !l.is_empty()))
        })
}

/// Does the value hold a reference (whose value is known only when it is used)?
pub(crate) fn has_reference(text: &str) -> bool {
    parts(text).map_or(true, |parts| parts.iter().any(|p| !matches!(p, Part::Literal(_))))
}

/// Are the references of a value well formed?
pub(crate) fn check_syntax(text: &str) -> Result<(), ResolveError> {
    parts(text).map(drop)
}

/// The value with its references replaced. Files are relative to `root`; line ends at a file's end are left out.
pub fn resolve(text: &str, root: &Path, env: Environment<'_>, vault: &Vault) -> Result<String, ResolveError> {
    let mut out = String::with_capacity(text.len());
    for part in parts(text)? {
        match part {
            Part::Literal(literal) => out.push_str(literal),
            Part::Env(name) => out.push_str(&env(name).ok_or_else(|| ResolveError::Unset { name: name.into() })?),
            Part::File(path) => {
                let content = std::fs::read_to_string(root.join(path)).map_err(|e| {
                    // its text may quote nothing of the file: only the kind is kept
                    ResolveError::File { path: path.into(), reason: e.kind().to_string() }
                })?;
                out.push_str(content.trim_end_matches(['\n', '\r']));
            }
            Part::Auth(id, name) => out.push_str(vault.secret(id, name)?.expose_secret()),
        }
    }
    Ok(out)
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    #[error("there is no connection `{name}`")]
    UnknownConnection { name: String, hint: String },
    #[error("connection `{connection}` is of type `{provider}`, which is not known")]
    UnknownProvider { connection: String, provider: String, hint: String },
    #[error("connection `{connection}`, `{parameter}`: {error}")]
    Unresolved { connection: String, parameter: String, error: ResolveError },
    /// The value came from a reference, so only its kind could be checked now. `expected`: for example "a whole number".
    #[error("connection `{connection}`: `{parameter}` has to be {expected}")]
    Invalid { connection: String, parameter: String, expected: String },
    #[error("connection `{connection}`: {error}")]
    Warehouse { connection: String, error: WarehouseError },
}

impl OpenError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownConnection { hint, .. } | Self::UnknownProvider { hint, .. } => Some(hint.clone()),
            Self::Unresolved { error, .. } => Some(error.hint()),
            Self::Invalid { .. } => Some("check the variable or file that the value comes from".into()),
            Self::Warehouse { error, .. } => error.hint.clone(),
        }
    }
}

impl Project {
    /// Resolves a connection's parameters, fills in their defaults, and builds its warehouse. Asks no network.
    /// `memory_limit` (bytes) bounds what a query may use in this process.
    pub fn open_connection(&self, name: &str, memory_limit: u64) -> Result<Arc<dyn Warehouse>, OpenError> {
        self.open_connection_with(name, memory_limit, &process_environment)
    }

    /// [`Self::open_connection`] with this environment.
    pub fn open_connection_with(
        &self,
        name: &str,
        memory_limit: u64,
        env: Environment<'_>,
    ) -> Result<Arc<dyn Warehouse>, OpenError> {
        let connection = self.connections.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.connections.keys().map(String::as_str).collect();
            OpenError::UnknownConnection { name: name.into(), hint: crate::config::hint(name, &known, "there are") }
        })?;
        let provider = self.providers.iter().find(|p| p.name == connection.provider).ok_or_else(|| {
            let known: Vec<&str> = self.providers.iter().map(|p| p.name).collect();
            OpenError::UnknownProvider {
                connection: name.into(),
                provider: connection.provider.clone(),
                hint: crate::config::hint(&connection.provider, &known, "the types are"),
            }
        })?;
        let mut params = self.connection_params(connection, provider, env)?;
        params.set(MEMORY_LIMIT, memory_limit.to_string());
        (provider.build)(&params).map_err(|error| OpenError::Warehouse { connection: name.into(), error })
    }

    fn connection_params(
        &self,
        connection: &Connection,
        provider: &Provider,
        env: Environment<'_>,
    ) -> Result<ConnectionParams, OpenError> {
        let mut params = ConnectionParams::new(&connection.name, &self.root);
        for declared in provider.parameters {
            if let Some(default) = declared.default {
                params.set(declared.name, default);
            }
        }
        for (name, written) in &connection.parameters {
            let value = resolve(written, &self.root, env, &self.vault).map_err(|error| OpenError::Unresolved {
                connection: connection.name.clone(),
                parameter: name.clone(),
                error,
            })?;
            if let Some(declared) = provider.parameters.iter().find(|p| p.name == name) {
                parameter::check(declared.kind, &value).map_err(|expected| OpenError::Invalid {
                    connection: connection.name.clone(),
                    parameter: name.clone(),
                    expected,
                })?;
            }
            params.set(name, value);
        }
        Ok(params)
    }
}

/// Does a connection of the project use a sealed authorization?
pub fn uses_authorizations(project: &Project) -> bool {
    let mut written = project.connections.values().flat_map(|connection| connection.parameters.values());
    written.any(|text| parts(text).is_ok_and(|parts| parts.iter().any(|part| matches!(part, Part::Auth(..)))))
}

/// Every reference of the project's connections that gives no usable value now, each at its place.
pub fn unresolved(project: &Project) -> Vec<ConfigError> {
    unresolved_with(project, &process_environment)
}

/// [`unresolved`] with this environment.
pub fn unresolved_with(project: &Project, env: Environment<'_>) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for connection in project.connections.values() {
        let provider = project.providers.iter().find(|p| p.name == connection.provider);
        for (name, written) in connection.parameters.iter().filter(|(_, written)| has_reference(written)) {
            let at = |code, message| connection.spans.error(name, code, Path::new(PROJECT_FILE), message);
            match resolve(written, &project.root, env, &project.vault) {
                Err(error) => errors.push(
                    at(error.code(), format!("connection `{}`, `{name}`: {error}", connection.name))
                        .with_hint(error.hint()),
                ),
                Ok(value) => {
                    let declared = provider.and_then(|p| p.parameters.iter().find(|d| d.name == name));
                    if let Some(Err(expected)) = declared.map(|d| parameter::check(d.kind, &value)) {
                        errors.push(
                            at("invalid-parameter", format!("`{name}` has to be {expected}"))
                                .with_hint("check the variable or file that the value comes from"),
                        );
                    }
                }
            }
        }
    }
    errors
}
