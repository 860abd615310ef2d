//! What Redshift refuses and PostgreSQL does not, with Redshift's own words (from its documentation and the trackers of
//! clients that met them).

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use regex::Regex;

/// SQLSTATE and message.
pub type Refusal = (&'static str, String);

/// Settings that Redshift has (of those that a client may think of).
const SETTINGS: &[&str] = &[
    "statement_timeout",
    "timezone",
    "datestyle",
    "search_path",
    "query_group",
    "client_encoding",
    "enable_case_sensitive_identifier",
    "extra_float_digits",
];
/// What it takes in the startup packet.
pub const STARTUP: &[&str] = &["user", "database", "application_name", "client_encoding"];

fn is(pattern: &str, sql: &str) -> bool {
    static KNOWN: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().expect("no panic");
    let regex = known.entry(pattern.to_string());
    regex.or_insert_with(|| Regex::new(&format!("(?is){pattern}")).expect("a pattern")).is_match(sql)
}

/// Would Redshift refuse this statement of a client?
pub fn refusal(sql: &str) -> Option<Refusal> {
    let sql = sql.trim();
    if is(r"^copy\b.*\bto\s+stdout", sql) {
        return Some(("42601", "syntax error at or near \"stdout\"".into()));
    }
    if is(r"\btyparray\b", sql) {
        return Some(("42703", "column t.typarray does not exist".into()));
    }
    for relation in ["pg_range", "pg_enum", "pg_stat_ssl", "pg_extension"] {
        if is(&format!(r"\b{relation}\b"), sql) {
            return Some(("42P01", format!("relation \"pg_catalog.{relation}\" does not exist")));
        }
    }
    for function in ["to_jsonb", "to_regclass", "has_any_column_privilege", "textin", "array_out", "format_type_be"] {
        if is(&format!(r"\b{function}\s*\("), sql) {
            return Some(("42883", format!("function {function}(unknown) does not exist")));
        }
    }
    if is(r"\barray\s*\[", sql) || is(r"::\w+\[\]", sql) {
        return Some(("0A000", "Array type not supported".into()));
    }
    if is(r"^values\b|\(\s*values\b", sql) {
        return Some(("0A000", "VALUES lists as constant tables are not supported".into()));
    }
    if is(r"^declare\s+\S+\s+(binary|insensitive|scroll|no)\b|^declare\b.*\bwith(out)?\s+hold\b", sql) {
        return Some(("0A000", "DECLARE CURSOR with options is not supported".into()));
    }
    if is(r"\bfilter\s*\(\s*where\b|\blateral\b", sql) {
        return Some(("42601", "syntax error".into()));
    }
    if is(r"^(insert|update|delete|merge|create|alter|drop|truncate|grant|vacuum|copy)\b", sql) {
        return Some(("25006", "this client only reads".into()));
    }
    static SET: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?is)^set\s+(\w+)\s*(?:to|=)\s*(.*)$").expect("a pattern"));
    if let Some(found) = SET.captures(sql) {
        let (name, value) = (found[1].to_lowercase(), found[2].trim().to_string());
        if !SETTINGS.contains(&name.as_str()) {
            return Some(("42704", format!("unrecognized configuration parameter \"{name}\"")));
        }
        let number = value.parse::<i64>();
        if name == "extra_float_digits" && !number.as_ref().is_ok_and(|n| (-15..=2).contains(n)) {
            let range = "is outside the valid range for parameter \"extra_float_digits\" (-15 .. 2)";
            return Some(("22023", format!("{value} {range}")));
        }
        if name == "statement_timeout" && number.is_err() {
            return Some(("22023", format!("parameter \"statement_timeout\" requires an integer value, not {value}")));
        }
    }
    if is(r"^show\s+(transaction_read_only|server_version_num)", sql) {
        return Some(("42704", "unrecognized configuration parameter".into()));
    }
    None
}

/// Would it refuse to unload this query?
pub fn of_unload(select: &str) -> Option<Refusal> {
    // the documentation: the query cannot use a LIMIT clause in the outer SELECT
    let mut depth = 0;
    let outer: String = select
        .chars()
        .filter(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            depth == 0
        })
        .collect();
    is(r"\b(limit|top)\b", &outer).then(|| ("0A000", "Limit clause is not supported".into()))
}
