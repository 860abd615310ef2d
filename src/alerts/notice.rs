//! What a message says, before it takes the form of its channel.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::anomaly::Breach;
use super::definition::Condition;
use crate::sync::report::RunReport;

/// Of an error's text, no more than this many characters are told; the run's report has it all.
const ERROR_CHARACTERS: usize = 1500;

/// Why a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A condition began.
    Alert,
    /// It lasts.
    Reminder,
    /// It ended.
    Recovery,
    /// Somebody tries the channel.
    Test,
}

impl NoticeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Reminder => "reminder",
            Self::Recovery => "recovery",
            Self::Test => "test",
        }
    }
}

/// A run, as far as a message tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    pub run_id: String,
    pub status: String,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub rows: u64,
    pub added: u64,
    pub changed: u64,
    pub removed: u64,
    pub quarantined: u64,
}

impl RunFacts {
    pub fn of(report: &RunReport) -> Self {
        Self {
            run_id: report.run_id.clone(),
            status: report.status.as_str().into(),
            started_at: report.started_at,
            finished_at: report.finished_at,
            rows: report.rows,
            added: report.added,
            changed: report.changed,
            removed: report.removed,
            quarantined: report.quarantined,
        }
    }
}

/// What was found of a condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// When what it tells of happened. In a message, `at` is the message's own time.
    #[serde(rename = "happened_at")]
    pub at: DateTime<Utc>,
    /// One sentence, lower case, without a period.
    pub summary: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breach: Option<Breach>,
}

impl Finding {
    pub fn of_run(report: &RunReport, summary: impl Into<String>) -> Self {
        Self {
            at: report.finished_at.unwrap_or(report.started_at),
            summary: summary.into(),
            run: Some(RunFacts::of(report)),
            error: report.error.as_deref().map(shortened),
            hint: report.hint.clone(),
            breach: None,
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(ERROR_CHARACTERS) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_string(),
    }
}

/// A message to one channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The same at every try, so that a receiver can tell a repetition.
    pub id: String,
    pub kind: NoticeKind,
    /// None: a test.
    pub condition: Option<Condition>,
    /// The same for the alert, its reminders and its recovery.
    pub incident: String,
    pub rule: String,
    /// The model's slug.
    pub model: String,
    pub model_name: String,
    pub connection: String,
    /// When the condition began.
    pub since: DateTime<Utc>,
    /// When the message was made.
    pub at: DateTime<Utc>,
    #[serde(flatten)]
    pub finding: Finding,
    /// Where the run can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl Notice {
    /// A message that tries a channel.
    pub fn test(id: String, channel: &str, by: &str, at: DateTime<Utc>, url: Option<String>) -> Self {
        let summary = format!("a test of the channel {channel}, sent by {by}: messages arrive");
        Self {
            incident: id.clone(),
            id,
            kind: NoticeKind::Test,
            condition: None,
            rule: String::new(),
            model: String::new(),
            model_name: String::new(),
            connection: String::new(),
            since: at,
            at,
            finding: Finding { at, summary, run: None, error: None, hint: None, breach: None },
            url,
        }
    }

    /// One line.
    pub fn title(&self) -> String {
        let what = match self.condition {
            Some(Condition::Failed) => "failed",
            Some(Condition::Held) => "removals wait for approval",
            Some(Condition::Late) => "is late",
            Some(Condition::Empty) => "returns no rows",
            Some(Condition::Quarantine) => "many rows set aside",
            Some(Condition::Size) => "unusual size",
            Some(Condition::ChangeRate) => "unusual change rate",
            None => return "Test of an alert channel".into(),
        };
        match self.kind {
            NoticeKind::Recovery => format!("{}: recovered ({what})", self.model),
            NoticeKind::Reminder => format!("{}: still: {what}", self.model),
            NoticeKind::Alert | NoticeKind::Test => format!("{}: {what}", self.model),
        }
    }

    /// Label and value, in the order of reading.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        if self.kind == NoticeKind::Test {
            return facts;
        }
        facts.push(("Model", format!("{} ({})", self.model_name, self.model)));
        facts.push(("Connection", self.connection.clone()));
        facts.push(("Since", time(self.since)));
        if self.kind == NoticeKind::Recovery {
            facts.push(("Until", time(self.finding.at)));
        }
        if let Some(run) = &self.finding.run {
            facts.push(("Run", format!("{} ({})", run.run_id, run.status)));
            let counts = [
                ("rows", run.rows),
                ("added", run.added),
                ("changed", run.changed),
                ("removed", run.removed),
                ("quarantined", run.quarantined),
            ];
            let counts = counts.iter().filter(|(name, n)| *n > 0 || *name == "rows");
            let counts: Vec<String> = counts.map(|(name, n)| format!("{n} {name}")).collect();
            facts.push(("Counts", counts.join(", ")));
        }
        facts.push(("Rule", self.rule.clone()));
        facts
    }
}

/// To the second.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
