//! From the service's error codes to ours: who can mend it, in its own words, with the line of the model's SQL.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;

use super::wire::{Answer, QueryData};
use crate::warehouse::http::statement_timeout;
use crate::warehouse::statement::point_at_line;
use crate::warehouse::{WarehouseError, WarehouseErrorKind};

/// The model's SQL as it was sent: inside a statement of ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    pub sql: &'a str,
    /// Lines of ours before it.
    pub lines_before: usize,
}

#[expect(clippy::unwrap_used, reason = "a constant")]
static PLACE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"line (\d+) at position (\d+)").unwrap());

/// An answer to a query that is no success. `message` is the server's, without a secret.
pub(super) fn of_answer(answer: &Answer<QueryData>, message: &str, sent: Option<Sent<'_>>) -> WarehouseError {
    let code = answer.code.as_deref().unwrap_or_default();
    let data = answer.data.as_ref();
    let state = data.and_then(|d| d.sql_state.as_deref()).unwrap_or_default();
    let mut message = if message.is_empty() { "the query failed".to_string() } else { message.trim().to_string() };
    let (kind, hint) = classify(code, state, &message);
    if let Some(sent) = sent {
        let told = PLACE.captures(&message).and_then(|found| Some((found[1].parse().ok()?, found[2].parse().ok()?)));
        let told = told.or_else(|| {
            let data = data?;
            Some((usize::try_from(data.line?).ok()?, usize::try_from(data.pos?).ok()?))
        });
        // lines count from 1, positions from 0
        if let Some((line, position)) = told
            && let Some(line) = usize::checked_sub(line, sent.lines_before).filter(|line| *line > 0)
        {
            message = PLACE.replace_all(&message, format!("line {line} at position $2")).into_owned();
            if let Some(pointer) = point_at_line(sent.sql, line, position.saturating_add(1)) {
                message.push('\n');
                message.push_str(&pointer);
            }
        }
    }
    if !code.is_empty() {
        message = format!("{code}: {message}");
    }
    WarehouseError { kind, message, hint: hint.map(str::to_string) }
}

fn classify(code: &str, state: &str, message: &str) -> (WarehouseErrorKind, Option<&'static str>) {
    use WarehouseErrorKind::{Cancelled, Configuration, Sql};
    let retry = WarehouseErrorKind::Retry { after: None };
    match code {
        "000606" | "000607" => (
            Configuration,
            Some(
                "name the connection's `warehouse`, and let its role use it: GRANT USAGE ON WAREHOUSE … TO ROLE …; a warehouse \
                 without AUTO_RESUME is started with ALTER WAREHOUSE … RESUME",
            ),
        ),
        "090073" => (
            Configuration,
            Some("a resource monitor has used up its credits: raise its quota, or wait for its next interval"),
        ),
        "090105" => (Configuration, Some("check `database` of the connection, or write the database before the name")),
        "090106" => (Configuration, Some("set `schema` of the connection, or write the schema before the name")),
        "003001" => (
            Configuration,
            Some(
                "grant the connection's role the right to read: GRANT USAGE ON DATABASE … TO ROLE …; GRANT USAGE ON SCHEMA … TO \
                 ROLE …; GRANT SELECT ON … TO ROLE …; see docs/warehouses/snowflake.md",
            ),
        ),
        "002003" | "002043" => (
            Sql,
            Some(
                "check the name, and in which database and schema it is; what the role may not read does not exist for it: \
                 GRANT SELECT ON … TO ROLE …; `connection tables` lists what it can read",
            ),
        ),
        "000904" => (
            Sql,
            Some(
                "check the column's name (in double quotes when it has small letters); `connection columns` lists them",
            ),
        ),
        "000630" => (
            Sql,
            Some("narrow the query; or raise STATEMENT_TIMEOUT_IN_SECONDS of the warehouse, the user or the account"),
        ),
        "000604" => {
            (Cancelled, Some("somebody (SYSTEM$CANCEL_QUERY, Snowsight) or a limit of the warehouse stopped it"))
        }
        "000629" | "000625" => (retry, Some("the warehouse's queue is full or the table is locked; try again")),
        _ => match state {
            "42501" => {
                (Configuration, Some("grant the connection's role the right to read: GRANT SELECT ON … TO ROLE …"))
            }
            "XX000" => {
                (retry, Some("the service failed inside; try again, and give its support the message when it stays"))
            }
            s if s.starts_with("08") => (retry, Some("try again")),
            s if s.starts_with("28") => (Configuration, Some("check the connection's credentials")),
            _ if code.starts_with("390") => (Configuration, Some(of_login(code, message))),
            _ if code.starts_with("300") => {
                (retry, Some("the service failed inside; try again, and give its support the message when it stays"))
            }
            _ => (Sql, None),
        },
    }
}

/// A login that is refused.
pub(super) fn of_refused_login(code: &str, message: &str) -> WarehouseError {
    let said = if message.is_empty() { "the login was refused" } else { message.trim() };
    let shown = if code.is_empty() { said.to_string() } else { format!("{code}: {said}") };
    WarehouseError::configuration(shown).with_hint(of_login(code, message))
}

fn of_login(code: &str, message: &str) -> &'static str {
    match code {
        "390100" | "390101" => "check `user` and the credential of the connection",
        "390102" => "the user is disabled: ALTER USER … SET DISABLED = FALSE",
        "390144" => {
            "the key does not fit the user, or this machine's clock is wrong: DESC USER … shows RSA_PUBLIC_KEY_FP; set the key with \
             ALTER USER … SET RSA_PUBLIC_KEY = '…'; an administrator sees more through SYSTEM$GET_LOGIN_FAILURE_DETAILS"
        }
        code if code.starts_with("3943") => "the key does not fit the user: ALTER USER … SET RSA_PUBLIC_KEY = '…'",
        "390106" | "390107" => "the password has expired or must be changed; use a key pair for a service",
        "390197" | "394508" | "394512" => {
            "the user needs a second factor; give a service a key pair or an access token instead"
        }
        "390189" | "390186" => "let the user have the role: GRANT ROLE … TO USER …; or check `role` of the connection",
        "390201" => "check `warehouse`, `database` and `schema` of the connection, and GRANT USAGE ON … TO ROLE …",
        "390422" | "390421" | "390420" | "390432" => {
            "a network policy refuses this machine's address: allow it for the user (CREATE NETWORK RULE …, ALTER NETWORK POLICY …)"
        }
        _ if message.contains("Multi-factor") => "the user needs a second factor; give a service a key pair instead",
        _ if message.contains("role") => {
            "let the user have the role: GRANT ROLE … TO USER …; or check `role` of the connection"
        }
        _ => "check `account`, `user` and the credential of the connection",
    }
}

/// Why the warehouse stopped a query: ours, when it ran for as long as it may.
pub(super) fn of_stopped(error: WarehouseError, code: &str, ran: Duration, limit: Option<Duration>) -> WarehouseError {
    match limit {
        // it tells of its own limit with one code, and of the stop that follows with another
        Some(limit) if matches!(code, "000630" | "000604") && ran + Duration::from_secs(1) >= limit => {
            statement_timeout(limit)
        }
        _ => error,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn of(json: &str, sent: Option<Sent<'_>>) -> WarehouseError {
        let answer: Answer<QueryData> = serde_json::from_str(json).unwrap();
        of_answer(&answer, answer.message.as_deref().unwrap_or_default(), sent)
    }

    #[test]
    fn the_place_is_told_in_the_models_own_lines() {
        let sql = "SELECT email,\n  spend\nFROM people";
        let json = r#"{"success":false,"code":"000904","message":"SQL compilation error: error line 3 at position 2\ninvalid identifier 'SPEND'","data":{"line":3,"pos":2,"sqlState":"42000"}}"#;
        let error = of(json, Some(Sent { sql, lines_before: 1 }));
        let wanted = "000904: SQL compilation error: error line 2 at position 2\ninvalid identifier 'SPEND'\nLINE 2:   spend\n          ^";
        assert_eq!((error.kind, error.message.as_str()), (WarehouseErrorKind::Sql, wanted));
        // a place outside the model's SQL, or none
        let error = of(
            r#"{"code":"001003","message":"syntax error","data":{"line":-1,"pos":-1}}"#,
            Some(Sent { sql, lines_before: 0 }),
        );
        assert_eq!(error.message, "001003: syntax error");
    }

    #[test]
    fn codes_and_states_say_who_can_mend_it() {
        use WarehouseErrorKind::{Cancelled, Configuration, Retry, Sql};
        for (code, state, kind) in [
            ("000606", "57P03", Configuration),
            ("003001", "42501", Configuration),
            ("002003", "42S02", Sql),
            ("001003", "42000", Sql),
            ("100038", "22018", Sql),
            ("000604", "57014", Cancelled),
            ("000603", "XX000", Retry { after: None }),
            ("390189", "", Configuration),
            ("090105", "22000", Configuration),
        ] {
            assert_eq!(classify(code, state, "").0, kind, "{code}");
        }
        assert!(of_refused_login("390189", "Role 'X' …").hint.unwrap().contains("GRANT ROLE"));
    }

    #[test]
    fn a_stop_after_the_limit_is_the_limits() {
        let stopped = || WarehouseError::new(WarehouseErrorKind::Cancelled, "000604: canceled");
        let limit = Some(Duration::from_secs(5));
        assert!(of_stopped(stopped(), "000604", Duration::from_secs(5), limit).message.contains("5s"));
        assert_eq!(of_stopped(stopped(), "000604", Duration::from_secs(1), limit).kind, WarehouseErrorKind::Cancelled);
    }
}
