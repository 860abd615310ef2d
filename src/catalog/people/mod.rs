//! Users, tokens, sessions and one-time links in the catalog: rows in and out. Who may do what is decided in
//! [`crate::people`].

mod links;
mod sessions;
mod tokens;
mod users;

use std::str::FromStr;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::CatalogError;
use crate::people::secret::Digest;

pub use links::Claim;
pub use sessions::SessionWithUser;
pub use tokens::TokenWithUser;
pub use users::{Changed, UserWithPassword};

fn micros(time: Option<DateTime<Utc>>) -> Option<i64> {
    time.map(|t| t.timestamp_micros())
}

fn time(row: &SqliteRow, column: &str) -> Result<Option<DateTime<Utc>>, CatalogError> {
    let micros: Option<i64> = row.try_get(column)?;
    Ok(micros.and_then(DateTime::from_timestamp_micros))
}

/// A text column that names something of ours.
fn named<T>(row: &SqliteRow, column: &str) -> Result<T, CatalogError>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|e: T::Err| sqlx::Error::ColumnDecode { index: column.into(), source: Box::new(e) }.into())
}

fn digest(row: &SqliteRow, column: &str) -> Result<Digest, CatalogError> {
    let no_digest = || sqlx::Error::ColumnDecode { index: column.into(), source: "not 32 bytes".into() };
    Ok(Digest::from_slice(row.try_get(column)?).ok_or_else(no_digest)?)
}
