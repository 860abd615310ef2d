//! What differs from PostgreSQL in the conversation, and what Redshift's errors mean.
//!
//! Redshift reports much of its own trouble with the SQLSTATE of an internal error (`XX000`), so its words have to tell.

use std::time::Duration;

use tokio_postgres::error::DbError;

use crate::warehouse::WarehouseErrorKind::{self, Configuration, Retry, Sql};
use crate::warehouse::postgres::dialect::{Dialect, Verdict};
use crate::warehouse::postgres::error;
use crate::warehouse::postgres::sql::Strings;

pub(super) static REDSHIFT: Dialect = Dialect {
    product: "Redshift",
    strings: Strings::Escapes,
    // settings are made after the login: Redshift takes few in the startup packet
    startup_options: None,
    unknown_types: true,
    classify,
    unreachable: "is the cluster running (not paused), and may this machine reach it (publicly accessible or in its VPC; \
                  security group open for this address and port)?",
    unknown_login: "the user's password is stored as a SHA-256 hash, for which Redshift asks for a login of its own kind: \
                    set it again in clear or as an MD5 hash (ALTER USER … PASSWORD '…'), or use temporary credentials",
};

const AGAIN: WarehouseErrorKind = Retry { after: None };

const GRANT: &str = "grant the connection's user the right to read: GRANT USAGE ON SCHEMA … TO …; GRANT SELECT ON … TO …; \
                     see docs/warehouses/redshift.md";

/// What can be told from the words of a message or its detail, in lower case.
const WORDS: &[(&str, WarehouseErrorKind, &str)] = &[
    (
        "query monitoring rule",
        Configuration,
        "a WLM rule of the cluster stopped the query: narrow the query, have the rule's limit raised, or name another queue's `query_group`",
    ),
    (
        "wlm",
        Configuration,
        "the cluster's workload management stopped the query: narrow it, have the queue's timeout raised, or name another queue's `query_group`",
    ),
    ("is paused", AGAIN, "resume the cluster (console: Actions, Resume), then try again"),
    ("is resuming", AGAIN, "the cluster is being resumed: try again in a few minutes"),
    ("is being resized", AGAIN, "the cluster is being resized: try again when it is available"),
    ("serializable isolation violation", AGAIN, "another session changed the same tables meanwhile; try again"),
    (
        "disk full",
        AGAIN,
        "the cluster ran out of disk for the query: try again when it is less busy, narrow the query, or resize the cluster",
    ),
    ("connection limit", AGAIN, "the cluster or user has no free connection: try again, or raise the limit"),
    (
        "not authorized to assume iam role",
        Configuration,
        "attach the role of `unload_role` to the cluster, and let its trust policy name redshift.amazonaws.com",
    ),
    (
        "default iam role",
        Configuration,
        "set a default IAM role for the cluster, or name the role's ARN in `unload_role`",
    ),
    (
        "s3serviceexception:access denied",
        Configuration,
        "the role of `unload_role` needs s3:PutObject, s3:GetBucketLocation and s3:ListBucket on `unload_bucket`",
    ),
    (
        "s3serviceexception",
        Configuration,
        "check `unload_bucket`, its region (`s3_region`) and the rights of `unload_role`",
    ),
    ("missing permissions", Configuration, GRANT),
    ("permission denied", Configuration, GRANT),
    (
        "not supported on redshift tables",
        Sql,
        "the query mixes tables with functions or system tables that only the leader node has; leave those out",
    ),
    ("json_serialize", Sql, "a SUPER value is too long for a text: select parts of it, for example `payload.name`"),
];

fn classify(db: &DbError) -> Verdict {
    let said = format!("{} {}", db.message(), db.detail().unwrap_or_default());
    by_words(&said, db.code().code()).unwrap_or_else(|| match error::classify(db.code()) {
        (Configuration, _) if db.code().code() == "42501" => (Configuration, Some(GRANT)),
        other => other,
    })
}

fn by_words(said: &str, code: &str) -> Option<Verdict> {
    let said = said.to_ascii_lowercase();
    if code.starts_with("28") || said.contains("password authentication failed") {
        // `IAM:name` and `IAMA:name` log in with credentials that last an hour at most
        let hint = if said.contains("\"iam:") || said.contains("\"iama:") {
            "temporary credentials expire after 15 minutes to an hour: get new ones (aws redshift get-cluster-credentials) \
             and set `user` and `password` again"
        } else {
            "check `user` and `password` of the connection"
        };
        return Some((Configuration, Some(hint)));
    }
    // words of the SQL itself must not be taken for the server's
    if matches!(code.get(..2), Some("42" | "22")) && code != "42501" {
        return None;
    }
    WORDS.iter().find(|(words, ..)| said.contains(words)).map(|(_, kind, hint)| (*kind, Some(*hint)))
}

/// What a session is set to, after the login. `statement_timeout` is in milliseconds: Redshift takes no units.
pub(super) fn settings(statement_timeout: Duration, schema: Option<&str>, query_group: Option<&str>) -> Vec<String> {
    let mut settings = vec![
        format!("SET statement_timeout TO {}", statement_timeout.as_millis()),
        "SET timezone TO 'UTC'".to_string(),
        "SET datestyle TO 'ISO, MDY'".to_string(),
    ];
    settings.extend(schema.map(|schema| format!("SET search_path TO {}", quote_name(schema))));
    settings.extend(query_group.map(|group| format!("SET query_group TO {}", quote_text(group))));
    settings
}

pub(super) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Backslashes escape in Redshift's strings.
pub(super) fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn redshifts_words_say_who_can_mend_it() {
        for (said, code, kind, hint) in [
            (
                "Query (500029) cancelled by WLM abort action of Query Monitoring Rule \"r\"",
                "57014",
                Configuration,
                "rule",
            ),
            ("Query (7) cancelled by WLM timeout", "57014", Configuration, "queue"),
            ("Cluster is paused", "57P03", AGAIN, "resume"),
            ("1023 Serializable isolation violation on table - 100", "XX000", AGAIN, "again"),
            ("Disk Full", "XX000", AGAIN, "disk"),
            (
                "User arn:aws:redshift:…:dbuser:c/u is not authorized to assume IAM Role arn:…",
                "XX000",
                Configuration,
                "attach",
            ),
            ("S3ServiceException:Access Denied,Status 403", "XX000", Configuration, "s3:PutObject"),
            ("password authentication failed for user \"IAMA:ann\"", "28000", Configuration, "get-cluster-credentials"),
            ("password authentication failed for user \"ann\"", "28000", Configuration, "`password`"),
        ] {
            let (found, advice) = by_words(said, code).unwrap();
            assert_eq!(found, kind, "{said}");
            assert!(advice.unwrap().contains(hint), "{said}: {advice:?}");
        }
        assert!(by_words("column \"disk full\" does not exist", "42703").is_none());
    }

    #[test]
    fn settings_quote_what_people_wrote() {
        let settings = settings(Duration::from_millis(1500), Some("my \"s"), Some(r"a\'b"));
        assert_eq!(settings[0], "SET statement_timeout TO 1500");
        assert_eq!(settings[3], r#"SET search_path TO "my ""s""#);
        assert_eq!(settings[4], r"SET query_group TO 'a\\''b'");
    }
}
