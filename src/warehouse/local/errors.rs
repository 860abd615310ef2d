//! From the errors of the libraries below to ours: who can mend it, in which words, with which hint.

use std::error::Error;

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use deltalake::DeltaTableError;

use crate::warehouse::{WarehouseError, WarehouseErrorKind};

/// So that an error of ours can travel through DataFusion.
pub(super) fn boxed(error: WarehouseError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Looks through what wraps a warehouse's error, and sorts the rest.
pub(super) fn from_datafusion(error: &DataFusionError) -> WarehouseError {
    if let Some(ours) = find::<WarehouseError>(error) {
        return ours.clone();
    }
    if let Some(store) = find::<object_store::Error>(error) {
        return from_object_store(store);
    }
    if let Some(delta) = find::<DeltaTableError>(error) {
        return from_delta(delta);
    }
    let root = error.find_root();
    let mut mapped = match root {
        DataFusionError::ResourcesExhausted(message) => {
            return WarehouseError::configuration(format!("the query needs more memory: {}", first_line(message)))
                .with_hint("raise `--memory-limit`, or aggregate and filter earlier in the query");
        }
        DataFusionError::IoError(e) => WarehouseError::configuration(format!("reading or spilling failed: {e}"))
            .with_hint("ensure that the files can be read and that the temporary directory has room"),
        DataFusionError::ParquetError(e) => {
            WarehouseError::configuration(format!("a Parquet file cannot be read: {e}"))
                .with_hint("it may be damaged or only half written")
        }
        DataFusionError::ArrowError(e, _) => from_arrow(e),
        // a call with arguments of other types than the function takes is called internal
        DataFusionError::Internal(text) if text.contains("failed to match any signature") => {
            WarehouseError::sql(first_line(&message(root)).trim_start_matches("Internal error: "))
                .with_hint("cast the argument to a type that the function takes; a CSV column without values is text")
        }
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) | DataFusionError::Substrait(_) => {
            WarehouseError::bug(message(root))
        }
        // the parser's own words say where
        DataFusionError::SQL(e, _) => {
            let text = e.to_string();
            return WarehouseError::sql(text.trim_start_matches("sql parser error: "));
        }
        DataFusionError::SchemaError(e, _) => {
            let mapped = WarehouseError::sql(message(root));
            match e.as_ref() {
                SchemaError::AmbiguousReference { field } => {
                    mapped.with_hint(format!("say which table it comes from, as in `table_name.{}`", field.name))
                }
                _ => mapped,
            }
        }
        _ => WarehouseError::sql(message(root)),
    };
    if mapped.kind == WarehouseErrorKind::Sql
        && let Some(diagnostic) = error.diagnostic()
    {
        if let Some(span) = diagnostic.span {
            mapped.message = format!("line {}, column {}: {}", span.start.line, span.start.column, mapped.message);
        }
        let helps: Vec<&str> = diagnostic.helps.iter().map(|h| h.message.as_str()).collect();
        if mapped.hint.is_none() && !helps.is_empty() {
            mapped.hint = Some(helps.join("; "));
        }
    }
    mapped
}

fn from_arrow(error: &ArrowError) -> WarehouseError {
    match error {
        ArrowError::IoError(message, _) => WarehouseError::configuration(format!("reading failed: {message}")),
        ArrowError::CsvError(message) | ArrowError::JsonError(message) | ArrowError::ParseError(message) => {
            WarehouseError::configuration(format!("a row cannot be read: {}", first_line(message)))
                .with_hint("mend the row in its file; if the file was being written, run again")
        }
        other => WarehouseError::sql(other.to_string()),
    }
}

/// Network trouble outlives the client's own retries only when it lasts, so it is worth another try later.
pub(super) fn from_object_store(error: &object_store::Error) -> WarehouseError {
    use object_store::Error as Store;
    let text = error.to_string();
    match error {
        Store::NotFound { path, .. } => WarehouseError::configuration(format!("{path} does not exist"))
            .with_hint("if it was there a moment ago, it was replaced while it was read: run again"),
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => WarehouseError::configuration(text)
            .with_hint("ensure that the credentials in the environment may list and read the path"),
        Store::Generic { store, .. } if *store == "LocalFileSystem" => {
            WarehouseError::configuration(text).with_hint("ensure that the files can be read")
        }
        Store::Generic { .. } | Store::JoinError { .. } => {
            WarehouseError::retry(text).with_hint("the object store did not answer; it may be overloaded")
        }
        _ => WarehouseError::configuration(text),
    }
}

pub(super) fn from_delta(error: &DeltaTableError) -> WarehouseError {
    if let Some(store) = find::<object_store::Error>(error) {
        return from_object_store(store);
    }
    WarehouseError::configuration(format!("a Delta table cannot be read: {}", first_line(&error.to_string())))
}

/// The first error of that type in the chain of sources.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn message(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    // whom to tell about a bug is ours to say
    let text = text.split("This issue was likely caused by a bug in DataFusion").next().unwrap_or_default();
    text.trim_start_matches("Error during planning: ").trim_end().to_owned()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
