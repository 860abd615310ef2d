//! A message in the form of its channel, sent once.

mod email;
mod slack;
mod teams;
mod webhook;

pub(crate) use email::is_loopback;

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::definition::{Channel, ChannelKind};
use super::notice::Notice;
use crate::config::Project;
use crate::outgoing::{Answer, Outgoing, OutgoingError};
use crate::secrets::{ResolveError, process_environment, resolve};

/// Of one request to a webhook.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// Why an attempt failed. Holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    pub message: String,
    pub hint: Option<String>,
    /// The receiver asked for that much patience.
    pub retry_after: Option<Duration>,
    /// Another attempt cannot help.
    for_good: bool,
}

impl SendError {
    pub fn passing(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, retry_after: None, for_good: false }
    }

    pub fn for_good(message: impl Into<String>) -> Self {
        Self { for_good: true, ..Self::passing(message) }
    }

    pub fn is_for_good(&self) -> bool {
        self.for_good
    }

    #[must_use]
    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<OutgoingError> for SendError {
    fn from(e: OutgoingError) -> Self {
        // a name that leads into a private network today may lead elsewhere tomorrow: only attempts end that
        let error = Self::passing(e.to_string());
        match e.hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

impl From<ResolveError> for SendError {
    fn from(e: ResolveError) -> Self {
        Self::passing(e.to_string()).with_hint(e.hint())
    }
}

/// Makes one attempt.
pub async fn send(
    channel: &Channel,
    notice: &Notice,
    project: &Project,
    outgoing: &Outgoing,
    now: DateTime<Utc>,
) -> Result<(), SendError> {
    let value = |text: &str| resolve(text, &project.root, &process_environment, &project.vault);
    match &channel.kind {
        ChannelKind::Webhook { url, secret } => {
            let secret = secret.as_deref().map(value).transpose()?;
            let body = webhook::body(notice)?;
            let headers = webhook::headers(&notice.id, now, &body, secret.as_deref())?;
            answered(outgoing.post(&value(url)?, headers, body, REQUEST_LIMIT).await?)
        }
        ChannelKind::Slack { url } => post_json(outgoing, &value(url)?, &slack::body(notice)).await,
        ChannelKind::Teams { url } => post_json(outgoing, &value(url)?, &teams::body(notice)).await,
        ChannelKind::Email(email) => email::send(email, notice, &project.root, value).await,
    }
}

async fn post_json(outgoing: &Outgoing, url: &str, body: &serde_json::Value) -> Result<(), SendError> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    answered(outgoing.post(url, headers, body.to_string(), REQUEST_LIMIT).await?)
}

fn answered(answer: Answer) -> Result<(), SendError> {
    if answer.is_success() {
        return Ok(());
    }
    // the start of what it says, on one line: `invalid_payload`, `no_service` …
    let said: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = match said.as_str() {
        "" => format!("the receiver answered {}", answer.status),
        said => format!("the receiver answered {}: {said}", answer.status),
    };
    Err(match answer.status {
        // the receiver wants no more of it
        410 => SendError::for_good(message),
        300..=399 => SendError { retry_after: answer.retry_after, ..SendError::passing(message) }
            .with_hint("redirects are not followed: write the address that the receiver has now"),
        401 | 403 | 404 => SendError { retry_after: answer.retry_after, ..SendError::passing(message) }
            .with_hint("check the channel's address: it may have been revoked"),
        _ => SendError { retry_after: answer.retry_after, ..SendError::passing(message) },
    })
}

/// At most so many characters, the last of them an ellipsis where something was cut.
fn cut(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_string();
    }
    let mut cut: String = text.chars().take(characters.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests;
