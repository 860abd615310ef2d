//! From the service's errors to ours: who can mend it, in the service's own words, with the line of the model's SQL.
//!
//! A statement's error begins with Spark's error class and ends with an SQLSTATE and a place:
//! `[TABLE_OR_VIEW_NOT_FOUND] The table or view … SQLSTATE: 42P01; line 1 pos 14`. Requests that are refused have
//! `{"error_code": …, "message": …}` as their body.

use super::wire::{ServiceError, Status};
use crate::warehouse::http::Refusal;
use crate::warehouse::statement::point_at_line;
use crate::warehouse::{WarehouseError, WarehouseErrorKind};

/// The model's SQL as it was sent: below lines of ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    pub sql: &'a str,
    pub lines_before: usize,
}

const GRANT_HINT: &str = "GRANT USE CATALOG ON CATALOG … TO `<user or application ID>`; GRANT USE SCHEMA ON SCHEMA … TO …; \
                          GRANT SELECT ON TABLE … TO …; see docs/warehouses/databricks.md";
const WAREHOUSE_HINT: &str = "give the connection's user CAN USE on the SQL warehouse (SQL Warehouses, Permissions), or \
                              check `http_path`; reading a table needs a GRANT as well: see docs/warehouses/databricks.md";

/// What a refusal's body says: a service error, an OAuth error, or a short text.
pub(super) fn said(body: &str) -> String {
    if let Ok(error) = serde_json::from_str::<ServiceError>(body) {
        match (error.error_code.is_empty(), error.message.is_empty()) {
            (_, false) => return error.message,
            (false, true) => return error.error_code,
            _ => {}
        }
    }
    if let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(body) {
        let text = |name: &str| fields.get(name).and_then(|v| v.as_str()).unwrap_or_default();
        return [text("error"), text("error_description")]
            .iter()
            .filter(|t| !t.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(": ");
    }
    // a page for a browser says nothing to a reader of messages
    if body.trim_start().starts_with('<') { String::new() } else { body.trim().chars().take(500).collect() }
}

/// Is it the credential that is refused? (An unknown personal access token is refused with 403.)
pub(super) fn is_login(refusal: &Refusal) -> bool {
    const WORDS: &[&str] = &["invalid access token", "invalid token", "token expired", "token is expired"];
    match refusal.status.as_u16() {
        401 => true,
        400 | 403 => {
            let said = said(&refusal.body).to_ascii_lowercase();
            WORDS.iter().any(|words| said.starts_with(words))
        }
        _ => false,
    }
}

/// A refused request. `said` is what its body says, without a secret.
pub(super) fn of_refusal(refusal: Refusal, what: &str, said: &str, sent: Option<Sent<'_>>) -> WarehouseError {
    let code = serde_json::from_str::<ServiceError>(&refusal.body).map(|e| e.error_code).unwrap_or_default();
    let lower = said.to_ascii_lowercase();
    match refusal.status.as_u16() {
        400 | 404
            if !said.starts_with('[')
                && (code == "RESOURCE_DOES_NOT_EXIST"
                    || lower.contains("endpoint")
                    || lower.starts_with("warehouse")) =>
        {
            WarehouseError::configuration(format!("{what} was refused: {said}"))
                .with_hint("check `http_path`: the SQL warehouse does not exist (any more) in this workspace")
        }
        400 if lower.contains("external_links") => {
            WarehouseError::configuration(format!("{what} was refused: {said}"))
                .with_hint("results come through links to the workspace's storage (EXTERNAL_LINKS): have Databricks' support allow them")
        }
        400 | 413 if sent.is_some() => of_text(&code, "", said, sent),
        403 if sqlstate(said).is_some() => of_text(&code, "", said, sent),
        403 if lower.contains("ip acl") || lower.contains("ip access list") => {
            WarehouseError::configuration(format!("{what} was refused: {said}"))
                .with_hint("allow this machine's address in the IP access lists of the workspace")
        }
        403 => WarehouseError::configuration(format!("{what} was refused: {said}")).with_hint(WAREHOUSE_HINT),
        404 if sent.is_some() && sqlstate(said).is_some() => of_text(&code, "", said, sent),
        _ => refusal.into_error(what, said),
    }
}

/// A statement that ended otherwise than well.
pub(super) fn of_status(status: &Status, said: &str, sent: Option<Sent<'_>>) -> WarehouseError {
    let code = status.error.as_ref().map(|e| e.error_code.as_str()).unwrap_or_default();
    match status.state.as_str() {
        "FAILED" => of_text(code, status.sql_state.as_deref().unwrap_or_default(), said, sent),
        "CANCELED" => {
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            WarehouseError::new(WarehouseErrorKind::Cancelled, format!("the query was stopped in the warehouse{said}"))
                .with_hint("somebody cancelled it, or a limit of the warehouse (STATEMENT_TIMEOUT) stopped it")
        }
        "CLOSED" => gone(),
        state => WarehouseError::bug(format!("the statement is in a state that is not known here: `{state}`")),
    }
}

/// The result cannot be had any more.
pub(super) fn gone() -> WarehouseError {
    WarehouseError::retry("the result is no longer available in the warehouse")
        .with_hint("results are kept for one hour: the rows were read too slowly; try again")
}

fn of_text(code: &str, state: &str, said: &str, sent: Option<Sent<'_>>) -> WarehouseError {
    let state = if state.is_empty() { sqlstate(said).unwrap_or_default() } else { state };
    let (kind, hint) = classify(code, state, error_class(said));
    let mut message = if said.is_empty() { format!("the statement failed: {code}") } else { said.to_string() };
    if let Some(sent) = sent {
        message = placed(&message, sent);
    }
    let mut error = WarehouseError::new(kind, message);
    error.hint = hint.map(str::to_string);
    error
}

fn classify(code: &str, state: &str, class: &str) -> (WarehouseErrorKind, Option<&'static str>) {
    use WarehouseErrorKind::{Cancelled, Configuration, Sql};
    let retry = WarehouseErrorKind::Retry { after: None };
    let is_denied = |text: &str| {
        ["INSUFFICIENT_PERMISSIONS", "INSUFFICIENT_PRIVILEGES", "PERMISSION_DENIED", "UNAUTHORIZED_ACCESS"]
            .contains(&text)
    };
    if is_denied(class) || is_denied(code) || state == "42501" {
        return (Configuration, Some(GRANT_HINT));
    }
    match class {
        "TABLE_OR_VIEW_NOT_FOUND" => {
            return (
                Sql,
                Some("check the table's name, schema and catalog; `connection tables` lists what this login can see"),
            );
        }
        "UNRESOLVED_COLUMN" => {
            return (Sql, Some("check the column's name; `connection columns` lists a table's columns"));
        }
        "CATALOG_NOT_FOUND" | "NO_SUCH_CATALOG_EXCEPTION" => {
            return (
                Configuration,
                Some("check `catalog` of the connection, and that the login has USE CATALOG on it"),
            );
        }
        "SCHEMA_NOT_FOUND" => {
            return (Sql, Some("check the schema's name, and `catalog` and `schema` of the connection"));
        }
        "UNBOUND_SQL_PARAMETER" => return (Sql, Some("a model takes no parameters; write the value into the SQL")),
        _ => {}
    }
    match state.get(..2) {
        // the SQL, or a value in the data that it cannot work with
        Some("07" | "0A" | "21" | "22" | "23" | "42" | "44" | "P0") => return (Sql, None),
        Some("08" | "40" | "53" | "57" | "58") => return (retry, None),
        _ => {}
    }
    match code {
        "CANCELLED" => (Cancelled, None),
        "TEMPORARILY_UNAVAILABLE" | "SERVICE_UNDER_MAINTENANCE" | "WORKSPACE_TEMPORARILY_UNAVAILABLE" => {
            (retry, Some("the service has trouble of its own; try again"))
        }
        "RESOURCE_EXHAUSTED" | "REQUEST_LIMIT_EXCEEDED" => {
            (retry, Some("the SQL warehouse is overloaded; try again later, or give it more clusters"))
        }
        "IO_ERROR" | "ABORTED" | "DEADLINE_EXCEEDED" | "INTERNAL_ERROR" | "UNKNOWN" => (retry, None),
        "UNAUTHENTICATED" => (Configuration, Some("check the connection's credentials")),
        "NOT_FOUND" => (Configuration, Some("check `http_path`, `catalog` and `schema` of the connection")),
        _ => (Sql, None),
    }
}

/// `TABLE_OR_VIEW_NOT_FOUND` of `[TABLE_OR_VIEW_NOT_FOUND] …`, without what follows a full stop.
fn error_class(message: &str) -> &str {
    let class = message.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(class, _)| class);
    let class = class.split('.').next().unwrap_or_default();
    if class.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') { class } else { "" }
}

fn sqlstate(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("SQLSTATE: ")?;
    rest.get(..5).filter(|s| s.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// The message with its place in the model's own SQL instead of the one in what was sent.
fn placed(message: &str, sent: Sent<'_>) -> String {
    // a copy of what was sent follows parse errors, and the plan those of the analysis
    let message = message.split("\n\n== SQL").next().unwrap_or(message);
    let Some(place) = place(message) else { return message.trim_end().to_string() };
    let before = message[..place.start].trim_end().trim_end_matches([';', '(']).trim_end();
    let line = place.line.checked_sub(sent.lines_before).filter(|line| *line > 0);
    match line.and_then(|line| point_at_line(sent.sql, line, place.position.saturating_add(1))) {
        Some(pointer) => format!("{before}\n{pointer}"),
        None => before.to_string(),
    }
}

struct Place {
    /// Where its text begins in the message.
    start: usize,
    /// From 1.
    line: usize,
    /// From 0.
    position: usize,
}

/// `line 1 pos 14` or `line 1, pos 14`.
fn place(message: &str) -> Option<Place> {
    message.match_indices("line ").find_map(|(start, word)| {
        let (line, rest) = number(&message[start + word.len()..])?;
        let rest = rest.strip_prefix(',').unwrap_or(rest);
        let (position, _) = number(rest.strip_prefix(" pos ")?)?;
        Some(Place { start, line, position })
    })
}

fn number(text: &str) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn failed(code: &str, state: Option<&str>, message: &str, sent: Option<Sent<'_>>) -> WarehouseError {
        let error = Some(ServiceError { error_code: code.into(), message: message.into() });
        of_status(&Status { state: "FAILED".into(), error, sql_state: state.map(str::to_string) }, message, sent)
    }

    #[test]
    fn the_place_is_shown_in_the_models_own_sql() {
        let sql = "SELECT a,\n  spend FROM t";
        let sent = Some(Sent { sql, lines_before: 1 });
        let message = "[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column with name `spend` cannot be resolved. \
                       SQLSTATE: 42703; line 3 pos 2;\n'Project [a, 'spend]\n+- 'UnresolvedRelation";
        let error = failed("BAD_REQUEST", None, message, sent);
        assert_eq!(error.kind, WarehouseErrorKind::Sql);
        assert_eq!(
            error.message,
            "[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column with name `spend` cannot be resolved. SQLSTATE: 42703\n\
             LINE 2:   spend FROM t\n          ^"
        );
        let message = "[PARSE_SYNTAX_ERROR] Syntax error at or near 'FROM'. SQLSTATE: 42601 (line 1, pos 7)\n\n== SQL ==\nSELECT FROM\n-------^^^";
        let error = failed("BAD_REQUEST", Some("42601"), message, Some(Sent { sql: "SELECT FROM", lines_before: 0 }));
        assert!(error.message.ends_with("SQLSTATE: 42601\nLINE 1: SELECT FROM\n               ^"), "{}", error.message);
        // a place in a line of ours
        let error = failed("BAD_REQUEST", None, "[X] y; line 1 pos 3", sent);
        assert_eq!(error.message, "[X] y");
    }

    #[test]
    fn errors_are_sorted_by_who_can_mend_them() {
        use WarehouseErrorKind::{Configuration, Retry, Sql};
        let retry = Retry { after: None };
        for (code, state, message, kind) in [
            ("BAD_REQUEST", None, "[INSUFFICIENT_PERMISSIONS] Insufficient privileges: …", Configuration),
            ("PERMISSION_DENIED", None, "User does not have USE CATALOG on Catalog 'x'.", Configuration),
            ("BAD_REQUEST", None, "[TABLE_OR_VIEW_NOT_FOUND] … SQLSTATE: 42P01", Sql),
            ("BAD_REQUEST", Some("22012"), "[DIVIDE_BY_ZERO] Division by zero.", Sql),
            ("BAD_REQUEST", None, "[CATALOG_NOT_FOUND] … SQLSTATE: 42P08", Configuration),
            ("INTERNAL_ERROR", None, "something broke", retry),
            ("TEMPORARILY_UNAVAILABLE", None, "", retry),
            ("IO_ERROR", None, "storage", retry),
        ] {
            let error = failed(code, state, message, None);
            assert_eq!(error.kind, kind, "{code} {message}");
            if kind == Configuration && !message.contains("CATALOG_NOT") {
                assert!(error.hint.unwrap().contains("GRANT"));
            }
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        use WarehouseErrorKind::{Configuration, Retry, Sql};
        let sent = Some(Sent { sql: "SELECT 1", lines_before: 0 });
        for (status, body, kind, hint) in [
            (
                403,
                r#"{"error_code":"PERMISSION_DENIED","message":"You are not allowed to use this."}"#,
                Configuration,
                "CAN USE",
            ),
            (
                403,
                r#"{"error_code":"403","message":"Source IP address: 1.2.3.4 is blocked by Databricks IP ACL"}"#,
                Configuration,
                "IP access lists",
            ),
            (
                400,
                r#"{"error_code":"INVALID_PARAMETER_VALUE","message":"x is not a valid endpoint id."}"#,
                Configuration,
                "http_path",
            ),
            (404, r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"gone"}"#, Configuration, "http_path"),
            (
                400,
                r#"{"error_code":"BAD_REQUEST","message":"disposition EXTERNAL_LINKS is disabled"}"#,
                Configuration,
                "support",
            ),
            (400, r#"{"error_code":"BAD_REQUEST","message":"[PARSE_SYNTAX_ERROR] x. SQLSTATE: 42601"}"#, Sql, ""),
            (503, r#"{"error_code":"TEMPORARILY_UNAVAILABLE","message":"busy"}"#, Retry { after: None }, "try again"),
        ] {
            let status = reqwest::StatusCode::from_u16(status).unwrap();
            let refusal = Refusal { status, retry_after: None, body: body.into() };
            assert!(!is_login(&refusal), "{body}");
            let error = of_refusal(refusal, "the query", &said(body), sent);
            assert_eq!(error.kind, kind, "{body}");
            assert!(error.hint.unwrap_or_default().contains(hint), "{body}");
        }
        for (status, body) in [(401, ""), (403, r#"{"error_code":"403","message":"Invalid access token. [ReqId: 1]"}"#)]
        {
            let status = reqwest::StatusCode::from_u16(status).unwrap();
            assert!(is_login(&Refusal { status, retry_after: None, body: body.into() }));
        }
    }

    #[test]
    fn bodies_of_all_kinds_are_read() {
        for (body, want) in [
            (r#"{"error_code":"PERMISSION_DENIED","message":"no"}"#, "no"),
            (r#"{"error_code":403,"message":"Invalid access token."}"#, "Invalid access token."),
            (
                r#"{"error":"invalid_client","error_description":"Client authentication failed"}"#,
                "invalid_client: Client authentication failed",
            ),
            ("<html>oops</html>", ""),
            ("busy", "busy"),
        ] {
            assert_eq!(said(body), want);
        }
    }
}
