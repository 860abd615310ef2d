//! `Idempotency-Key` on POST: a request that is repeated (its answer was lost) gets the first one's answer and changes
//! nothing.
//!
//! The key counts for its caller, for a day. The same key with another request is refused; while the first one is
//! under way, so is the second. An answer that holds a secret is never kept: a repeated request is told so.
//!
//! A request's body may hold a secret, and one that can be guessed: what is kept of it is a keyed hash, whose key is in
//! a file of its own beside the catalog ([`Fingerprints`]). A copy of the catalog alone confirms no guess.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::answer::ApiError;
use super::extract::Caller;
use super::state::App;
use crate::catalog::idempotency::{Answer, Claim};

/// The header's name.
pub const HEADER: &str = "idempotency-key";
const KEY_BYTES: usize = 32;
/// Larger bodies are not creates.
const MAX_BODY: usize = 4 << 20;

/// Put into the extensions of an answer that holds a secret, so that it is not kept.
#[derive(Debug, Clone, Copy)]
pub struct Unrepeatable;

/// Tells requests apart without keeping them.
#[derive(Debug)]
pub struct Fingerprints(hmac::Key);

impl Fingerprints {
    /// With the key in the project's local state, which is made when it is missing. A key of another length (its disk
    /// was full, say) is replaced: the answers that are kept then count for nobody.
    pub fn open(state: &Path) -> io::Result<Self> {
        let path = state.join("idempotency.key");
        match std::fs::read(&path) {
            Ok(key) if key.len() == KEY_BYTES => return Ok(Self::with(&key)),
            Ok(_) => std::fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut key = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut key).map_err(|_| io::Error::other("the system gave no random bytes"))?;
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&key)?;
        file.sync_all()?;
        Ok(Self::with(&key))
    }

    fn with(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    fn of(&self, method: &str, uri: &str, body: &[u8]) -> String {
        let mut hash = hmac::Context::with_key(&self.0);
        for part in [method.as_bytes(), &[0], uri.as_bytes(), &[0], body] {
            hash.update(part);
        }
        STANDARD.encode(hash.sign())
    }
}

/// Asked with POST, and changes nothing. The answers are rows of people: those are not kept.
pub(super) fn is_question(path: &str) -> bool {
    path == "/v2/sql"
        || (path.starts_with("/v2/connection/") && path.ends_with("/scan"))
        || (path.starts_with("/v2/datamodel/") && (path.ends_with("/plan") || path.ends_with("/validate")))
}

/// Uploads are told apart by their own record.
fn is_exempt(path: &str) -> bool {
    path.starts_with("/v2/upload") || is_question(path)
}

/// The middleware; behind `authorize`, since a key belongs to its caller.
pub async fn idempotent(State(app): State<App>, request: Request, next: Next) -> Response {
    let key = request.headers().get(HEADER).cloned();
    match (key, request.extensions().get::<Caller>().cloned()) {
        (Some(key), Some(caller)) if request.method() == Method::POST && !is_exempt(request.uri().path()) => {
            match once(&app, &caller, key.to_str().unwrap_or_default(), request, next).await {
                Ok(response) => response,
                Err(refused) => refused.into_response(),
            }
        }
        _ => next.run(request).await,
    }
}

async fn once(app: &App, caller: &Caller, key: &str, request: Request, next: Next) -> Result<Response, ApiError> {
    if key.is_empty() || key.len() > 255 {
        return Err(ApiError::bad_request("invalid-idempotency-key", "an Idempotency-Key is 1 to 255 characters long"));
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is too large"))?;
    let fingerprint = app.fingerprints.of(parts.method.as_str(), &parts.uri.to_string(), &body);
    let catalog = app.service.catalog();
    let now = app.service.clock().now();
    match catalog.claim_request(&caller.actor, key, &fingerprint, now).await? {
        Claim::Mine => {}
        Claim::Another => {
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "this Idempotency-Key was used for another request",
            )
            .with_hint("make a new key for each request, and repeat it only with that request"));
        }
        Claim::UnderWay => {
            return Err(ApiError::conflict("under-way", "the first request with this Idempotency-Key is under way")
                .with_hint("wait a moment and repeat it"));
        }
        Claim::Lost => {
            let message = "the first request with this Idempotency-Key got no answer: its process ended before";
            return Err(ApiError::conflict("outcome-unknown", message)
                .with_hint("look whether it was done, and if not send it with a new key"));
        }
        Claim::Answered { status, answer: Some(answer) } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let headers = [("content-type", "application/json"), ("idempotent-replayed", "true")];
            let mut response = (status, headers, answer.body).into_response();
            if let Some(etag) = answer.etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
                response.headers_mut().insert(header::ETAG, etag);
            }
            return Ok(response);
        }
        Claim::Answered { answer: None, .. } => {
            return Err(ApiError::conflict("done-already", "this was done already, and its answer is shown only once")
                .with_hint("list what is there; remove and make it anew if the answer was lost"));
        }
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let status = response.status();
    // nothing was done, and another time it may be
    let passing = [StatusCode::TOO_MANY_REQUESTS, StatusCode::CONFLICT, StatusCode::PRECONDITION_FAILED];
    if status.is_server_error() || passing.contains(&status) {
        catalog.release_request(&caller.actor, key).await?;
        return Ok(response);
    }
    let secret = response.extensions().get::<Unrepeatable>().is_some();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(ApiError::internal)?;
    let kept = std::str::from_utf8(&body).ok().filter(|_| !secret).map(|body| {
        let etag = parts.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok());
        Answer { body: body.to_string(), etag: etag.map(String::from) }
    });
    catalog.answer_request(&caller.actor, key, status.as_u16(), kept.as_ref()).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_same_after_a_restart_and_another_in_another_project() {
        let dir = tempfile::tempdir().unwrap();
        let of = |dir: &Path| Fingerprints::open(dir).unwrap().of("POST", "/v2/auth", b"{}");
        let first = of(dir.path());
        assert_eq!(of(dir.path()), first);
        assert_ne!(of(tempfile::tempdir().unwrap().path()), first);
        std::fs::write(dir.path().join("idempotency.key"), b"").unwrap();
        assert_ne!(of(dir.path()), first);
    }

    #[test]
    fn method_path_and_body_all_count() {
        let of = Fingerprints::with(&[7; KEY_BYTES]);
        let all =
            [of.of("POST", "/a", b"x"), of.of("POST", "/a", b"y"), of.of("POST", "/b", b"x"), of.of("PUT", "/a", b"x")];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
