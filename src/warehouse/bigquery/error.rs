//! From BigQuery's errors to ours: the `reason` of a REST error or of a failed job, and gRPC's codes.
//!
//! Source: "Error messages" and "Troubleshoot quota errors" in Google's documentation.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use serde::Deserialize;

use crate::warehouse::http::Refusal;
use crate::warehouse::statement::point_at_line;
use crate::warehouse::{WarehouseError, WarehouseErrorKind};

/// The least that a longer-term quota needs to recover.
const QUOTA_PATIENCE: Duration = Duration::from_secs(600);

/// The model's SQL as it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    pub sql: &'a str,
    /// Lines of ours before it.
    pub lines_before: usize,
}

/// Who asks, and for what: what a hint needs to know.
#[derive(Debug, Clone, Default)]
pub(super) struct Asker {
    /// Where jobs run.
    pub project: String,
    /// `serviceAccount:…`, where it is known.
    pub member: Option<String>,
}

/// An error that the service reported, by REST or as the result of a job.
#[derive(Debug, Clone, Default)]
pub(super) struct ApiError {
    /// HTTP's status; 0 for the result of a job.
    pub code: u16,
    pub reason: String,
    pub message: String,
    pub retry_after: Option<Duration>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    error: Inner,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Inner {
    message: String,
    status: String,
    errors: Vec<Item>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Item {
    reason: String,
    message: String,
}

impl ApiError {
    pub(super) fn of_refusal(refusal: Refusal) -> Self {
        let Inner { message, status, errors } = serde_json::from_str::<Body>(&refusal.body).unwrap_or_default().error;
        let first = errors.into_iter().next().unwrap_or_default();
        let reason = if first.reason.is_empty() { status } else { first.reason };
        let said = if message.is_empty() { first.message } else { message };
        let message = if said.is_empty() { format!("the service answered {}", refusal.status) } else { said };
        Self { code: refusal.status.as_u16(), reason, message, retry_after: refusal.retry_after }
    }

    /// Was the token refused?
    pub(super) fn is_unauthorized(&self) -> bool {
        self.code == 401
    }

    /// Does nobody have to mend it? Then after at least so long.
    pub(super) fn passing(&self) -> Option<Duration> {
        let passing = match self.reason.as_str() {
            "rateLimitExceeded"
            | "jobRateLimitExceeded"
            | "backendError"
            | "internalError"
            | "jobBackendError"
            | "jobInternalError"
            | "tableUnavailable"
            | "resourceInUse" => true,
            "quotaExceeded" => false,
            _ => matches!(self.code, 408 | 429 | 500..=599),
        };
        passing.then(|| self.retry_after.unwrap_or_default())
    }

    /// `what` names the request, for example `the dry run`.
    pub(super) fn into_error(self, what: &str, sent: Option<Sent<'_>>, asker: &Asker) -> WarehouseError {
        if let Some(asked_for) = self.passing() {
            let after = (!asked_for.is_zero()).then_some(asked_for);
            return WarehouseError::new(
                WarehouseErrorKind::Retry { after },
                format!("{what} failed: {}", self.message),
            )
            .with_hint("BigQuery has too much to do, or trouble of its own; try again later");
        }
        let message = format!("{what} was refused: {}", self.message);
        let configuration = |hint: &str| WarehouseError::configuration(message.clone()).with_hint(hint.to_string());
        match self.reason.as_str() {
            "quotaExceeded" => {
                let after = Some(self.retry_after.unwrap_or(QUOTA_PATIENCE));
                WarehouseError::new(WarehouseErrorKind::Retry { after }, message).with_hint(
                    "a quota of the project is used up for now: spread the models' schedules, or raise it (IAM & Admin > Quotas)",
                )
            }
            "bytesBilledLimitExceeded" => {
                configuration("narrow the query (columns, partitions), or raise `maximum_bytes_billed` of the connection")
            }
            "billingNotEnabled" => configuration("enable billing for the project that `project` names"),
            "accessNotConfigured" | "SERVICE_DISABLED" => {
                configuration("enable the APIs: gcloud services enable bigquery.googleapis.com bigquerystorage.googleapis.com")
            }
            "accessDenied" | "forbidden" | "PERMISSION_DENIED" => {
                WarehouseError::configuration(message).with_hint(grant(&self.message, asker))
            }
            "stopped" => WarehouseError::new(WarehouseErrorKind::Cancelled, message)
                .with_hint("somebody cancelled the job in BigQuery"),
            "notFound" if self.message.contains("Table") || sent.is_some() && !self.message.contains("Project") => {
                of_sql(&self.message, sent).with_hint(
                    "check the table's name, and the `dataset` and `location` of the connection; `connection tables` lists \
                     what can be read",
                )
            }
            "notFound" => configuration("check `project`, `dataset` and `location` of the connection"),
            "responseTooLarge" => of_sql(&self.message, sent).with_hint("select fewer columns or rows"),
            "resourcesExceeded" => of_sql(&self.message, sent)
                .with_hint("the query needs more than one query may have: split it, or sort and join less at once"),
            _ if self.code == 401 => configuration("check the connection's credentials"),
            _ if self.code == 403 => WarehouseError::configuration(message).with_hint(grant(&self.message, asker)),
            "invalidQuery" | "invalid" | "timeout" | "INVALID_ARGUMENT" if sent.is_some() => of_sql(&self.message, sent),
            _ if sent.is_some() => of_sql(&self.message, sent),
            _ => WarehouseError::bug(message),
        }
    }
}

/// A fault of the SQL, with its place: BigQuery says `… at [line:column]`.
fn of_sql(message: &str, sent: Option<Sent<'_>>) -> WarehouseError {
    #[expect(clippy::unwrap_used, reason = "a constant")]
    static PLACE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\s*(?:; )?at \[(\d+):(\d+)\]").unwrap());
    let found = sent.and_then(|sent| {
        let place = PLACE.captures(message)?;
        let number = |i: usize| place.get(i)?.as_str().parse::<usize>().ok();
        let pointer = point_at_line(sent.sql, number(1)?.checked_sub(sent.lines_before)?, number(2)?)?;
        Some(format!("{}\n{pointer}", PLACE.replace(message, "").trim_end()))
    });
    WarehouseError::sql(found.unwrap_or_else(|| message.to_string()))
}

/// Which role is missing, and how to grant it.
pub(super) fn grant(message: &str, asker: &Asker) -> String {
    let member = asker.member.as_deref().unwrap_or("serviceAccount:…");
    let project = &asker.project;
    let on_project = |role: &str| {
        format!("grant it: gcloud projects add-iam-policy-binding {project} --member={member} --role={role}")
    };
    if message.contains("bigquery.jobs.") {
        on_project("roles/bigquery.jobUser")
    } else if message.contains("readsessions") {
        on_project("roles/bigquery.readSessionUser")
    } else {
        #[expect(clippy::unwrap_used, reason = "a constant")]
        static DATASET: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"(?:Table|Dataset|View) ([\w.:-]+):(\w+)[.:]").unwrap());
        let dataset = DATASET.captures(message).map(|found| format!("{}.{}", &found[1], &found[2]));
        format!(
            "grant it the right to read the data: GRANT `roles/bigquery.dataViewer` ON SCHEMA `{}` TO \"{member}\"; \
             see docs/warehouses/bigquery.md",
            dataset.as_deref().unwrap_or("project.dataset")
        )
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn error(code: u16, reason: &str, message: &str) -> WarehouseError {
        let api = ApiError { code, reason: reason.into(), message: message.into(), retry_after: None };
        let sent = Sent { sql: "SELECT id,\n  nam\nFROM people", lines_before: 0 };
        api.into_error("the dry run", Some(sent), &Asker { project: "p".into(), member: Some("user:a@b.c".into()) })
    }

    #[test]
    fn the_reason_says_who_can_mend_it() {
        use WarehouseErrorKind::{Cancelled, Configuration, Retry, Sql};
        for (code, reason, kind) in [
            (400, "invalidQuery", Sql),
            (404, "notFound", Sql),
            (400, "resourcesExceeded", Sql),
            (403, "accessDenied", Configuration),
            (400, "bytesBilledLimitExceeded", Configuration),
            (401, "authError", Configuration),
            (0, "stopped", Cancelled),
            (403, "rateLimitExceeded", Retry { after: None }),
            (503, "backendError", Retry { after: None }),
            (0, "jobInternalError", Retry { after: None }),
            (502, "", Retry { after: None }),
            (403, "quotaExceeded", Retry { after: Some(Duration::from_secs(600)) }),
        ] {
            assert_eq!(error(code, reason, "Table x").kind, kind, "{reason}");
        }
    }

    #[test]
    fn the_place_in_the_sql_is_pointed_at() {
        let error = error(400, "invalidQuery", "Unrecognized name: nam; Did you mean name? at [2:3]");
        assert_eq!(error.message, "Unrecognized name: nam; Did you mean name?\nLINE 2:   nam\n          ^");
        let wrapped = Sent { sql: "SELECT\nnam", lines_before: 1 };
        assert_eq!(of_sql("Bad at [3:1]", Some(wrapped)).message, "Bad\nLINE 2: nam\n        ^");
        // a place that is not in the model's SQL is left in the server's words
        assert_eq!(of_sql("Bad at [1:1]", Some(wrapped)).message, "Bad at [1:1]");
    }

    #[test]
    fn the_missing_role_is_named() {
        for (message, role) in [
            ("Access Denied: Project p: User does not have bigquery.jobs.create permission", "roles/bigquery.jobUser"),
            ("Access Denied: Table p:d.t: User does not have permission to query table", "roles/bigquery.dataViewer"),
            ("the caller does not have 'bigquery.readsessions.create'", "roles/bigquery.readSessionUser"),
        ] {
            let hint = error(403, "accessDenied", message).hint.unwrap();
            assert!(hint.contains(role) && hint.contains("user:a@b.c"), "{hint}");
        }
        let denied = "Access Denied: Table example.com:p:shop.hidden: User does not have permission";
        assert!(grant(denied, &Asker::default()).contains("ON SCHEMA `example.com:p.shop` TO"));
    }
}
