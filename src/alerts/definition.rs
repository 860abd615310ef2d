//! What people write of alerts: the channels, and the rules that use them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::anomaly::Limits;
use crate::config::Spans;
use crate::model::Model;

/// How long after its time a model counts as late, where the rule does not say.
pub const LATE_AFTER: Duration = Duration::from_secs(15 * 60);

/// Everything that was written.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// By name.
    pub channels: BTreeMap<String, Channel>,
    /// By name.
    pub rules: BTreeMap<String, Rule>,
}

/// A way to reach people. Values still hold their references (`${env:NAME}`, `${file:PATH}`), which are resolved when
/// something is sent, so that a missing secret stops only its channel.
#[derive(Clone)]
pub struct Channel {
    pub name: String,
    pub kind: ChannelKind,
    /// Where each key stands in `cloud-connect.yml`.
    pub spans: Spans,
}

/// What a channel is.
#[derive(Clone)]
pub enum ChannelKind {
    /// Any HTTP receiver; with a `secret`, what it gets is signed.
    Webhook {
        url: String,
        secret: Option<String>,
    },
    /// A Slack incoming webhook.
    Slack {
        url: String,
    },
    /// A Microsoft Teams workflow ("When a Teams webhook request is received").
    Teams {
        url: String,
    },
    Email(Email),
}

/// An SMTP server and the letters' ends.
#[derive(Clone)]
pub struct Email {
    pub host: String,
    /// None: as usual for the kind of security.
    pub port: Option<u16>,
    pub security: Security,
    /// A PEM file, from the project's directory: only what its authorities signed is trusted. None: the system's store.
    pub ssl_root_cert: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub from: String,
    pub to: Vec<String>,
}

/// How the connection to an SMTP server is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Encrypted after a greeting; refused when the server cannot (port 587).
    StartTls,
    /// Encrypted from the first byte (port 465).
    Tls,
    /// Only to this machine (port 25).
    None,
}

impl Security {
    pub const ALL: &[(&str, Self)] = &[("starttls", Self::StartTls), ("tls", Self::Tls), ("none", Self::None)];
}

impl ChannelKind {
    /// The `type:`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Teams { .. } => "teams",
            Self::Email(_) => "email",
        }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the address of a webhook is a secret: who knows it may post there
        f.debug_struct("Channel").field("name", &self.name).field("type", &self.kind.as_str()).finish_non_exhaustive()
    }
}

/// What an alert can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The last run failed, or its process died.
    Failed,
    /// Removals wait for a person.
    Held,
    /// The model's time came, and no run began.
    Late,
    /// The result has no rows, and had some before.
    Empty,
    /// More rows were set aside than the rule allows.
    Quarantine,
    /// The number of rows is not what the rule expects.
    Size,
    /// The share of rows that changed is not what the rule expects.
    ChangeRate,
}

impl Condition {
    pub const ALL: &[Self] =
        &[Self::Failed, Self::Held, Self::Late, Self::Empty, Self::Quarantine, Self::Size, Self::ChangeRate];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Late => "late",
            Self::Empty => "empty",
            Self::Quarantine => "quarantine",
            Self::Size => "size",
            Self::ChangeRate => "change_rate",
        }
    }

    /// The inverse of `as_str`.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.as_str() == word)
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which conditions, of which models, are told to whom.
#[derive(Debug, Clone)]
pub struct Rule {
    pub name: String,
    /// Names of channels; at least one.
    pub channels: Vec<String>,
    /// Only these models; empty: all.
    pub models: Vec<String>,
    /// Only models of these connections; empty: all.
    pub connections: Vec<String>,
    pub failed: bool,
    pub held: bool,
    pub empty: bool,
    /// How long after its time a model is late.
    pub late_after: Option<Duration>,
    /// Of the rows that the query returned.
    pub quarantined_percent: Option<f64>,
    pub size: Option<Limits>,
    pub change_rate: Option<Limits>,
    /// Tell the end of a condition too.
    pub recovery: bool,
    /// Tell again while a condition lasts.
    pub remind_every: Option<Duration>,
    /// Where each key stands in `cloud-connect.yml`.
    pub spans: Spans,
}

impl Rule {
    /// Is the model one that the rule watches? A model is named, or its connection is, or neither is.
    pub fn covers(&self, model: &Model) -> bool {
        let everything = self.models.is_empty() && self.connections.is_empty();
        everything || self.models.contains(&model.slug) || self.connections.contains(&model.connection)
    }

    /// Does the rule look at this condition?
    pub fn watches(&self, condition: Condition) -> bool {
        match condition {
            Condition::Failed => self.failed,
            Condition::Held => self.held,
            Condition::Late => self.late_after.is_some(),
            Condition::Empty => self.empty,
            Condition::Quarantine => self.quarantined_percent.is_some(),
            Condition::Size => self.size.is_some(),
            Condition::ChangeRate => self.change_rate.is_some(),
        }
    }
}
