//! What differs between the servers that speak this protocol.

use std::time::Duration;

use tokio_postgres::error::DbError;

use super::error;
use super::sql::Strings;
use crate::warehouse::WarehouseErrorKind;

/// Who can mend an error, and what to do about it.
pub(in crate::warehouse) type Verdict = (WarehouseErrorKind, Option<&'static str>);

/// A kind of server.
#[derive(Debug)]
pub(in crate::warehouse) struct Dialect {
    pub product: &'static str,
    /// How its lexer reads backslashes in plain strings.
    pub strings: Strings,
    /// What a session begins with (`options` of the startup packet), where the server takes settings there.
    pub startup_options: Option<fn(Duration) -> String>,
    /// Has it types that the client does not know, and no catalog in the form that the client would look them up in?
    pub unknown_types: bool,
    /// How to judge an error that the server reports.
    pub classify: fn(&DbError) -> Verdict,
    /// What to do when nobody answers at its address.
    pub unreachable: &'static str,
    /// What to do when it asks for a kind of login that the client does not know.
    pub unknown_login: &'static str,
}

pub(in crate::warehouse) static POSTGRES: Dialect = Dialect {
    product: "PostgreSQL",
    strings: Strings::Standard,
    startup_options: Some(startup_options),
    unknown_types: false,
    classify: |db| error::classify(db.code()),
    unreachable: "is the server up, and does it listen there (`listen_addresses`, `port`, firewall)?",
    unknown_login: "let the server take a password for this user (scram-sha-256 or md5 in pg_hba.conf)",
};

/// What a session begins with. Texts that the server renders (for types that have no decoder here) must not depend on
/// its configuration, so their style is set too.
fn startup_options(statement_timeout: Duration) -> String {
    format!(
        "-c default_transaction_read_only=on -c statement_timeout={} -c timezone=UTC -c datestyle=ISO,MDY \
         -c intervalstyle=iso_8601 -c bytea_output=hex -c standard_conforming_strings=on",
        statement_timeout.as_millis()
    )
}
