//! A webhook for programs, in the form of the Standard Webhooks specification (standardwebhooks.com): `webhook-id`
//! (the same at every attempt), `webhook-timestamp` (seconds), and `webhook-signature` over
//! `id.timestamp.body` with HMAC-SHA256.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use serde::Serialize;

use super::SendError;
use crate::alerts::notice::Notice;

/// `docs/alerts.md` describes it.
#[derive(Serialize)]
struct Payload<'a> {
    r#type: String,
    timestamp: DateTime<Utc>,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    title: String,
    #[serde(flatten)]
    notice: &'a Notice,
}

pub(super) fn body(notice: &Notice) -> Result<String, SendError> {
    let payload = Payload {
        r#type: format!("alert.{}", notice.kind.as_str()),
        timestamp: notice.at,
        data: Data { title: notice.title(), notice },
    };
    serde_json::to_string(&payload).map_err(|e| SendError::for_good(format!("the message cannot be written: {e}")))
}

pub(super) fn headers(id: &str, now: DateTime<Utc>, body: &str, secret: Option<&str>) -> Result<HeaderMap, SendError> {
    let timestamp = now.timestamp();
    let value = |text: String| HeaderValue::try_from(text).map_err(|e| SendError::for_good(e.to_string()));
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("webhook-id"), value(id.to_string())?);
    headers.insert(HeaderName::from_static("webhook-timestamp"), value(timestamp.to_string())?);
    if let Some(secret) = secret {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key_of(secret)?);
        let tag = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(tag.as_ref()));
        headers.insert(HeaderName::from_static("webhook-signature"), value(signature)?);
    }
    Ok(headers)
}

/// `whsec_` and base64, as the specification writes a key; any other text is the key itself.
fn key_of(secret: &str) -> Result<Vec<u8>, SendError> {
    match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| {
            SendError::passing("the channel's secret begins with whsec_ and is no base64 after it")
                .with_hint("write the whole secret, or one without that prefix")
        }),
        None => Ok(secret.as_bytes().to_vec()),
    }
}
