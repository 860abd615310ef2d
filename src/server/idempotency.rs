//! `Idempotency-Key` on POST: a request that is repeated (its answer was lost) gets the first one's answer and changes
//! nothing.
//!
//! The key counts for its caller, for a day. The same key with another request is refused; while the first one is
//! under way, so is the second. An answer that holds a secret is never kept: a repeated request is told so.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::answer::ApiError;
use super::extract::Caller;
use super::state::App;
use crate::catalog::idempotency::Claim;

/// The header's name.
pub const HEADER: &str = "idempotency-key";
/// Larger bodies are not creates.
const MAX_BODY: usize = 4 << 20;

/// Put into the extensions of an answer that holds a secret, so that it is not kept.
#[derive(Debug, Clone, Copy)]
pub struct Unrepeatable;

/// The middleware; behind `authorize`, since a key belongs to its caller.
pub async fn idempotent(State(app): State<App>, request: Request, next: Next) -> Response {
    let key = request.headers().get(HEADER).cloned();
    match (key, request.extensions().get::<Caller>().cloned()) {
        // uploads are told apart by their own record
        (Some(key), Some(caller))
            if request.method() == Method::POST && !request.uri().path().starts_with("/v2/upload") =>
        {
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
    let mut hash = Sha256::new();
    hash.update(parts.method.as_str());
    hash.update([0]);
    hash.update(parts.uri.to_string());
    hash.update([0]);
    hash.update(&body);
    let fingerprint = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash.finalize());
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
        Claim::Answered { status, answer: Some(answer) } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let headers = [("content-type", "application/json"), ("idempotent-replayed", "true")];
            return Ok((status, headers, answer).into_response());
        }
        Claim::Answered { answer: None, .. } => {
            return Err(ApiError::conflict("done-already", "this was done already, and its answer is shown only once")
                .with_hint("list what is there; remove and make it anew if the answer was lost"));
        }
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        catalog.release_request(&caller.actor, key).await?;
        return Ok(response);
    }
    let secret = response.extensions().get::<Unrepeatable>().is_some();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(ApiError::internal)?;
    let kept = if secret { None } else { std::str::from_utf8(&body).ok() };
    catalog.answer_request(&caller.actor, key, status.as_u16(), kept).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}
