//! HTTP requests, watched: a span and the metrics, by the route's template and never by the path, which anyone may
//! choose.

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, StatusCode};
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TraceContextExt as _;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::names;

/// One request under way.
#[derive(Debug)]
pub struct Watched {
    method: &'static str,
    route: String,
    began: Instant,
    span: Span,
}

impl Watched {
    /// `route`: the template, for example `/v2/run/{id}`.
    pub fn begin(method: &Method, route: &str, headers: &HeaderMap, request_id: &str) -> Self {
        let method = word(method);
        let span = tracing::info_span!(
            "request",
            request_id,
            http.request.method = method,
            http.route = route,
            http.response.status_code = tracing::field::Empty,
            otel.name = format!("{method} {route}"),
            otel.kind = "server",
            otel.status_code = tracing::field::Empty,
        );
        let parent = opentelemetry::global::get_text_map_propagator(|p| p.extract(&Headers(headers)));
        if parent.span().span_context().is_valid() && span.set_parent(parent).is_err() {
            tracing::trace!("nothing exports spans: the caller's trace is not continued");
        }
        metrics::gauge!(names::HTTP_ACTIVE).increment(1.0);
        Self { method, route: route.to_string(), began: Instant::now(), span }
    }

    /// What the request's work is done in.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Counts the answer. Returns how long it took.
    pub fn answered(&self, status: StatusCode) -> Duration {
        let elapsed = self.began.elapsed();
        // signed: collectors would get any other number as text
        self.span.record("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            self.span.record("otel.status_code", "ERROR");
        }
        let (method, route) = (self.method, self.route.clone());
        let labels =
            [("method", method.to_string()), ("route", route.clone()), ("status", status.as_str().to_string())];
        metrics::counter!(names::HTTP_REQUESTS, &labels).increment(1);
        metrics::histogram!(names::HTTP_SECONDS, "method" => method, "route" => route).record(elapsed.as_secs_f64());
        elapsed
    }
}

/// Counts down also when the client goes away.
impl Drop for Watched {
    fn drop(&mut self) {
        metrics::gauge!(names::HTTP_ACTIVE).decrement(1.0);
    }
}

/// A client may send any word as a method.
fn word(method: &Method) -> &'static str {
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
