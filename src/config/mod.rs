//! The project as its owner wrote it: `cloud-connect.yml` and `models/`, loaded and validated.
//!
//! Loading is pure but for reading the files: no warehouse is asked, no secret is resolved. Every fault of every file
//! is found in one pass and reported at once, each with its file, line, a caret and a hint ([`ConfigErrors`]).

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use crate::model::{ColumnContract, Guard, Model, Schedule};

/// A whole, validated project.
#[derive(Debug, Clone)]
pub struct Project {
    /// The directory that holds `cloud-connect.yml`.
    pub root: PathBuf,
    /// Where the state lives.
    pub store: StoreLocation,
    /// The fields that identify a profile, in order of preference. At least one.
    pub identities: Vec<IdentityField>,
    /// By name.
    pub connections: BTreeMap<String, Connection>,
    /// By slug.
    pub models: BTreeMap<String, Model>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
