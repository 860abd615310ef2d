//! What surrounds every request: its id, its time limit, its line in the log, and the headers of its answer.

use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::answer::{ApiError, REQUEST_ID, X_REQUEST_ID};
use super::idempotency;
use crate::telemetry::http::Watched;

/// How long a request may take until its answer begins.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bodies of gigabytes take their time.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);
/// Where they are sent to.
const UPLOAD: &str = "/v2/upload";

/// The outermost middleware.
pub async fn surround(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let method = request.method().clone();
    // the template, not the path: a looked-up e-mail address belongs in no log
    let route = request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str).to_string();
    let watched = Watched::begin(&method, &route, request.headers(), &id);
    let span = watched.span();
    let limit = if route.starts_with(UPLOAD) { UPLOAD_TIMEOUT } else { TIMEOUT };
    let scoped = REQUEST_ID.scope(id.clone(), async {
        let mut response = match tokio::time::timeout(limit, to_its_end(&route, request, next)).await {
            Ok(response) => response,
            Err(_) => ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "it took too long")
                .with_hint("ask for less at once")
                .into_response(),
        };
        let took_ms = watched.answered(response.status()).as_millis() as u64;
        let status = response.status().as_u16();
        if route.starts_with("/v2/entity/") || matches!(route.as_str(), "/healthz" | "/readyz" | "/metrics") {
            // thousands a second, or every few seconds for ever
            tracing::debug!(status, took_ms, "answered");
        } else {
            tracing::info!(status, took_ms, "answered");
        }
        add_headers(response.headers_mut(), &id);
        response
    });
    scoped.instrument(span).await
}

/// A change goes on when its caller is gone or tired of waiting: half of it would be worse than either end. A question
/// is given up, with its query in the warehouse.
async fn to_its_end(route: &str, request: Request, next: Next) -> Response {
    if request.method().is_safe() || idempotency::is_question(route) {
        return next.run(request).await;
    }
    let change = REQUEST_ID.scope(super::answer::request_id(), next.run(request)).in_current_span();
    match tokio::spawn(change).await {
        Ok(response) => response,
        Err(error) => ApiError::internal(error).into_response(),
    }
}

/// The caller's own id for the request, if it is harmless in a log; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(&X_REQUEST_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(id)
            if (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) =>
        {
            id.to_string()
        }
        _ => uuid::Uuid::now_v7().to_string(),
    }
}

fn add_headers(headers: &mut HeaderMap, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID.clone(), id);
    }
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in fixed {
        // pages have a policy of their own
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
