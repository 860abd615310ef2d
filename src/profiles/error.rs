//! What can go wrong when profiles are read.

use datafusion::error::DataFusionError;

use crate::store::{StoreError, TableId};

/// What can go wrong when profiles are read. Nothing here is retried: reading changes nothing, so a person may.
#[derive(Debug, thiserror::Error)]
pub enum ProfilesError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`{field}` is not an identity field")]
    UnknownField { field: String, known: Vec<String> },
    #[error("there is no model `{slug}`")]
    UnknownModel { slug: String, known: Vec<String> },
    #[error("two columns of `profiles` would be called `{column}`")]
    DuplicateColumn { column: String },
    #[error("only queries are allowed here, not `{statement}`")]
    NotAQuery { statement: String },
    #[error("{}", .0.strip_backtrace())]
    Query(#[from] DataFusionError),
    #[error("data file {file}: {source}")]
    DataFile { file: String, source: parquet::errors::ParquetError },
    #[error("serving file {file}: {source}")]
    ServingFile { file: String, source: std::io::Error },
    #[error("`{table}` holds something this version does not understand: {message}")]
    Corrupt { table: TableId, message: String },
}

impl ProfilesError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownField { field, known } => Some(choose(field, "identity fields", known)),
            Self::UnknownModel { slug, known } => Some(choose(slug, "models", known)),
            Self::DuplicateColumn { .. } => {
                Some("rename the activated column in the model's SQL (AS …), the model, or the identity field".into())
            }
            Self::NotAQuery { .. } => Some(
                "profiles change only through runs; use SELECT, EXPLAIN, DESCRIBE or SHOW TABLES, \
                 and save a result with --output"
                    .into(),
            ),
            Self::Query(error) => match error.find_root() {
                DataFusionError::ResourcesExhausted(_) => {
                    Some("raise --memory-limit, or ask for fewer columns or models at once".into())
                }
                DataFusionError::SchemaError(..) => Some("`DESCRIBE profiles` lists the columns".into()),
                DataFusionError::Plan(message) if message.contains("not found") => {
                    Some("`SHOW TABLES` lists the tables".into())
                }
                _ => None,
            },
            Self::ServingFile { .. } => {
                Some("serving files can be removed at any time: they are written anew from the store".into())
            }
            Self::Store(e) => e.hint().map(String::from),
            Self::DataFile { .. } | Self::Corrupt { .. } => None,
        }
    }
}

fn choose(given: &str, what: &str, known: &[String]) -> String {
    if known.is_empty() {
        return format!("there are no {what}");
    }
    let near = known.iter().map(|name| (datafusion::common::utils::datafusion_strsim::levenshtein(given, name), name));
    match near.min() {
        Some((distance, name)) if distance <= 1 + name.len() / 3 => {
            format!("did you mean `{name}`? The {what}: {}", known.join(", "))
        }
        _ => format!("the {what}: {}", known.join(", ")),
    }
}
