//! HTTP requests, watched: a span and the metrics, by the route's template and never by the path, which anyone may
//! choose.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::propagation::Extractor;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::names;

/// The id of a request, as its log lines and its answer carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

/// A middleware for `Router::route_layer` (where the matched path is known) or `Router::layer`.
pub async fn observe(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_string();
    let method = method(request.method());
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
        request_id,
    );
    let parent = opentelemetry::global::get_text_map_propagator(|p| p.extract(&Headers(request.headers())));
    // without a layer that exports there is nothing to be a child of
    let _ = span.set_parent(parent);
    let active = Active::new();
    let began = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    drop(active);
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    let elapsed = began.elapsed();
    metrics::counter!(names::HTTP_REQUESTS, "method" => method, "route" => route.clone(), "status" => status.as_u16().to_string())
        .increment(1);
    metrics::histogram!(names::HTTP_SECONDS, "method" => method, "route" => route).record(elapsed.as_secs_f64());
    tracing::debug!(parent: &span, ms = elapsed.as_millis() as u64, status = status.as_u16(), "answered");
    response
}

/// A client may send any word as a method.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Counts down also when the client goes away.
struct Active;

impl Active {
    fn new() -> Self {
        metrics::gauge!(names::HTTP_ACTIVE).increment(1.0);
        Self
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        metrics::gauge!(names::HTTP_ACTIVE).decrement(1.0);
    }
}

/// `traceparent`, where a caller traces too.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}
