//! From the server's errors to ours: who can mend it, in the server's own words, with the line of the model's SQL.

use std::time::Duration;

use tokio_postgres::error::{DbError, ErrorPosition, SqlState};

use super::dialect::{Dialect, Verdict};
use crate::warehouse::text::{chain, human, point_at};
use crate::warehouse::{WarehouseError, WarehouseErrorKind};

/// The model's SQL as it was sent: inside a statement of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub sql: &'a str,
    /// Characters of ours before it.
    pub prefix: usize,
}

/// An error of a session that is logged in. `fatal` is what ended the connection, if it has ended.
pub(crate) fn of_session(
    error: &tokio_postgres::Error,
    fatal: Option<&tokio_postgres::Error>,
    sent: Option<Sent<'_>>,
    dialect: &Dialect,
) -> WarehouseError {
    if let Some(db) = error.as_db_error().or_else(|| fatal.and_then(|e| e.as_db_error())) {
        return of_server(db, sent, dialect);
    }
    let cause = if error.is_closed() { fatal.unwrap_or(error) } else { error };
    if cause.is_closed() || is_network(cause) {
        return WarehouseError::retry(format!("the connection to the server was lost: {}", chain(cause)))
            .with_hint("the server restarted, or the network or a proxy between ended the connection; try again");
    }
    WarehouseError::bug(format!("the conversation with the server broke: {}", chain(cause)))
}

/// An error that the server reported.
pub(crate) fn of_server(db: &DbError, sent: Option<Sent<'_>>, dialect: &Dialect) -> WarehouseError {
    let mut message = db.message().to_string();
    if let Some(detail) = db.detail() {
        message.push_str(". ");
        message.push_str(detail);
    }
    if let (Some(sent), Some(ErrorPosition::Original(position))) = (sent, db.position())
        && let Some(at) = (*position as usize).checked_sub(1 + sent.prefix)
        && let Some(pointer) = point_at(sent.sql, at)
    {
        message.push('\n');
        message.push_str(&pointer);
    }

    let (kind, hint) = (dialect.classify)(db);
    let hint = hint.map(str::to_string).or_else(|| db.hint().map(str::to_string));
    WarehouseError { kind, message, hint }
}

/// By SQLSTATE, as PostgreSQL gives them.
pub(in crate::warehouse) fn classify(code: &SqlState) -> Verdict {
    use WarehouseErrorKind::{Configuration, Sql};
    let retry = WarehouseErrorKind::Retry { after: None };
    match code.code() {
        "57P04" => (Configuration, Some("the database was dropped; check `database` of the connection")),
        "57P01" | "57P02" => {
            (retry, Some("the server is restarting, or an administrator ended the session; try again"))
        }
        "57P03" => (retry, Some("the server is starting up or shutting down; try again in a moment")),
        "53300" => {
            (retry, Some("the server has no free connection; try again, or raise max_connections or the user's limit"))
        }
        "53100" | "53200" | "53400" => {
            (retry, Some("the server ran out of disk, memory or another resource; try again later"))
        }
        "40001" | "40P01" => {
            (retry, Some("the query collided with other work (on a replica: with replication); try again"))
        }
        "55P03" | "55006" => (retry, Some("the table is locked by somebody else; try again")),
        "28P01" => (Configuration, Some("check `user` and `password` of the connection")),
        "28000" => (
            Configuration,
            Some(
                "the server's pg_hba.conf refuses this user, address or encryption; check `user`, `database` and `sslmode`",
            ),
        ),
        "3D000" => (Configuration, Some("check `database` of the connection")),
        "42501" => (
            Configuration,
            Some(
                "grant the connection's user the right to read: GRANT USAGE ON SCHEMA … TO …; GRANT SELECT ON … TO …; \
                 see docs/warehouses/postgres.md",
            ),
        ),
        "25006" => (Sql, Some("a model only reads: use SELECT, WITH … SELECT, VALUES or TABLE")),
        "42P01" => (Sql, Some("check the table's name and schema; `connection tables` lists what this user can read")),
        "42703" => (Sql, Some("check the column's name; `connection columns` lists a table's columns")),
        "42P02" => (Sql, Some("a model takes no parameters; write the value into the SQL")),
        other => match other.get(..2) {
            Some("08" | "53" | "40" | "58" | "57") => (retry, None),
            Some("28") => (Configuration, Some("check `user` and `password` of the connection")),
            _ => (Sql, None),
        },
    }
}

/// Why the server stopped a query (SQLSTATE 57014 does not say).
pub(crate) fn of_stopped(db: &DbError, cancelled: bool, ran: Duration, limit: Duration) -> WarehouseError {
    if cancelled {
        return WarehouseError::new(WarehouseErrorKind::Cancelled, "the query was cancelled");
    }
    // the server's clock started after ours did, so ours cannot show less than the limit
    if !limit.is_zero() && ran >= limit {
        return WarehouseError::sql(format!("the query was stopped by the statement timeout of {}", human(limit))).with_hint(
            "narrow the query or add an index; or raise `statement_timeout` of the connection, or the model's timeout",
        );
    }
    WarehouseError::new(WarehouseErrorKind::Cancelled, format!("the query was stopped in the server: {}", db.message()))
        .with_hint("an administrator (pg_cancel_backend) or a rule of the server stopped it")
}

/// Did the network, rather than the server, end it?
pub(crate) fn is_network(error: &tokio_postgres::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other};
    let io = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    io.is_some_and(|e| !matches!(e.kind(), InvalidData | InvalidInput | Other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstate_says_who_can_mend_it() {
        use WarehouseErrorKind::{Configuration, Retry, Sql};
        for (code, kind) in [
            ("08006", Retry { after: None }),
            ("57P01", Retry { after: None }),
            ("53300", Retry { after: None }),
            ("40001", Retry { after: None }),
            ("28P01", Configuration),
            ("3D000", Configuration),
            ("42501", Configuration),
            ("42P01", Sql),
            ("42601", Sql),
            ("22012", Sql),
        ] {
            assert_eq!(classify(&SqlState::from_code(code)).0, kind, "{code}");
        }
    }
}
