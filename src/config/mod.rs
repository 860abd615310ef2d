//! The project as its owner wrote it: `cloud-connect.yml` and `models/`, loaded and validated.
//!
//! Loading is pure but for reading the files: no warehouse is asked, no secret is resolved. Every fault of every file
//! is found in one pass and reported at once, each with its file, line, a caret and a hint ([`ConfigErrors`]).
//!
//! ```text
//! text -> yaml (tree with places) -> mask (what may be shown) -> decode (key by key) -> load (checks over all files)
//! ```
//!
//! Invariants:
//! - the value of a secret is in no message, no snippet and no `Debug` text;
//! - a [`Project`] that exists is valid: what uses it checks nothing again;
//! - every key that is read is listed in `keys` and described in `docs/configuration.md`.

mod alerts;
mod decode;
pub(crate) mod emit;
mod error;
mod keys;
mod load;
mod mask;
mod models;
mod names;
mod oidc;
pub(crate) mod parameter;
mod project;
mod service;
mod source;
mod sql;
mod stored;
pub(crate) mod suggest;
#[cfg(test)]
mod tests;
pub mod write;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::people::oidc::OidcConfig;
use crate::vault::Vault;
use crate::warehouse::Provider;

pub use crate::model::{ColumnContract, Guard, Model, Schedule};
pub use error::{ConfigError, ConfigErrors};
pub use load::{load, load_with};
pub(crate) use names::{RESERVED_PREFIX, check_column, is_slug};
pub use source::{Source, Span, Spans};
pub use stored::{Unusable, with_stored};
pub(crate) use suggest::hint;

/// The file that makes a directory a project.
pub const PROJECT_FILE: &str = "cloud-connect.yml";
/// The models' directory in a project.
pub const MODELS_DIR: &str = "models";

/// A whole, validated project.
#[derive(Debug, Clone)]
pub struct Project {
    /// The directory that holds `cloud-connect.yml`; absolute.
    pub root: PathBuf,
    /// Where the state lives.
    pub store: StoreLocation,
    /// The memory that a run may use, in bytes, when the project sets it.
    pub memory_limit: Option<u64>,
    /// The fields that identify a profile, in order of preference. At least one.
    pub identities: Vec<IdentityField>,
    /// How `serve` answers.
    pub service: ServiceConfig,
    /// By name.
    pub connections: BTreeMap<String, Connection>,
    /// By slug.
    pub models: BTreeMap<String, Model>,
    /// Who is told of what.
    pub alerts: crate::alerts::definition::Definitions,
    /// The kinds of connections that there are.
    pub providers: Arc<[Provider]>,
    /// The sealed authorizations that `${auth:ID/NAME}` refers to.
    pub vault: Arc<Vault>,
}

/// How the service answers, and what it may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// What a public token sees of a profile, by the wide view's names. Nothing when empty.
    pub public_fields: Vec<String>,
    /// The identity fields that a public token may ask by.
    pub public_identities: Vec<String>,
    /// Are files kept that make lookups fast?
    pub serving_files: bool,
    /// The address that people reach the service at, without a `/` at its end.
    pub public_url: Option<String>,
    /// Special addresses that requests to user-given URLs may reach all the same.
    pub allow_private_addresses: Vec<ipnet::IpNet>,
    /// The identity provider that people sign in at.
    pub oidc: Option<OidcConfig>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            public_fields: Vec::new(),
            public_identities: Vec::new(),
            serving_files: true,
            public_url: None,
            allow_private_addresses: Vec::new(),
            oidc: None,
        }
    }
}

/// Where the state lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// An absolute directory.
    Directory(PathBuf),
    /// `s3://`, `gs://`, `abfss://` …
    ObjectStore(url::Url),
}

/// A field that identifies a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityField {
    pub field: String,
    /// Applied to a value, in order, before it is compared or stored.
    pub normalize: Vec<Normalization>,
}

/// One step of normalizing an identity value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// White space off both ends.
    Trim,
    /// Unicode lower case.
    Lowercase,
}

/// A connection as configured. Values still hold their references (`${env:NAME}`, `${file:PATH}`); they are resolved
/// when the connection is opened, so that a missing secret stops only what needs it.
#[derive(Clone)]
pub struct Connection {
    pub name: String,
    /// The `type:`; the name of a [`crate::warehouse::Provider`].
    pub provider: String,
    /// Parameter name -> value as written.
    pub parameters: BTreeMap<String, String>,
    /// Where each parameter stands in `cloud-connect.yml`.
    pub spans: Spans,
    /// False: it was made through the API.
    pub in_files: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // a secret may have been written straight into the file, so no value is shown
        f.debug_struct("Connection")
            .field("name", &self.name)
            .field("provider", &self.provider)
            .field("parameters", &self.parameters.keys().collect::<Vec<_>>())
            .finish()
    }
}
