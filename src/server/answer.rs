//! What every answer looks like: `{status, request_id, data, _meta}`, or `{status, request_id, errors: […]}`.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::catalog::CatalogError;
use crate::clock::{Clock, SystemClock};
use crate::config::ConfigError;
use crate::people::AuthError;
use crate::profiles::ProfilesError;
use crate::secrets::OpenError;
use crate::sync::SyncError;
use crate::warehouse::{WarehouseError, WarehouseErrorKind};

tokio::task_local! {
    /// The id of the request under way.
    pub(super) static REQUEST_ID: String;
}

/// The id of the request under way; empty outside of one.
pub fn request_id() -> String {
    REQUEST_ID.try_with(Clone::clone).unwrap_or_default()
}

/// A successful answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Answer<T> {
    /// The HTTP status.
    #[schema(example = 200)]
    status: u16,
    /// Names the request in the logs.
    request_id: String,
    data: T,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    meta: Option<Meta>,
    #[serde(skip)]
    etag: Option<String>,
}

/// What is said about a list.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Meta {
    /// Give it as `?cursor=` for the next page; null at the end.
    pub next_cursor: Option<String>,
    /// How many there are in all, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

impl<T> Answer<T> {
    pub fn of(data: T) -> Self {
        Self { status: 200, request_id: request_id(), data, meta: None, etag: None }
    }

    /// 201.
    pub fn created(data: T) -> Self {
        Self { status: 201, ..Self::of(data) }
    }

    /// 202: it was taken on, and is not done yet.
    pub fn accepted(data: T) -> Self {
        Self { status: 202, ..Self::of(data) }
    }

    /// A page of a list.
    pub fn page(data: T, next_cursor: Option<String>) -> Self {
        Self { meta: Some(Meta { next_cursor, total: None }), ..Self::of(data) }
    }

    /// The revision that an update names in `If-Match`.
    #[must_use]
    pub fn with_revision(mut self, revision: i64) -> Self {
        self.etag = Some(format!("\"{revision}\""));
        self
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = json(status, &self);
        if let Some(etag) = self.etag.as_deref().and_then(|etag| HeaderValue::from_str(etag).ok()) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response
    }
}

/// A JSON response.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            *response.status_mut() = status;
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A failed answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Errors {
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// Names the request in the logs.
    request_id: String,
    errors: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// A stable name of the kind of fault.
    #[schema(example = "not-found")]
    pub code: String,
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub hint: Option<String>,
    /// Which part of the request is meant, for example `joined_to.foreign_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub field: Option<String>,
    #[schema(example = "error")]
    pub level: &'static str,
    pub timestamp: chrono::DateTime<chrono::Utc>,
}

/// An error on its way to becoming a failed answer.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    faults: Vec<Fault>,
    /// For `Retry-After`.
    retry_after: Option<std::time::Duration>,
    /// Where to log in.
    challenge: bool,
}

impl ApiError {
    pub fn new(status: StatusCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        let fault = Fault {
            code: code.into(),
            message: message.into(),
            hint: None,
            field: None,
            level: "error",
            timestamp: SystemClock.now(),
        };
        Self { status, faults: vec![fault], retry_after: None, challenge: false }
    }

    /// 400.
    pub fn bad_request(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self { challenge: true, ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message) }
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// 409.
    pub fn conflict(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 412: `If-Match` names another revision.
    pub fn changed_meanwhile() -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "changed-meanwhile", "it was changed since you read it")
            .with_hint("read it again, and send its ETag in If-Match")
    }

    /// 429.
    pub fn too_many(message: impl Into<String>, retry_after: std::time::Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", message)
        }
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// 500; what went wrong is for the log, not for the caller.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, request_id = request_id(), "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something went wrong here")
            .with_hint("the service's log tells more, under this request_id")
    }

    /// Everything that is wrong with what was sent.
    pub fn faults(errors: &[ConfigError]) -> Self {
        Self::faults_in_words(errors, |_, _| {})
    }

    /// [`Self::faults`] in the words of the request: `say` changes each fault, and names the field that is meant.
    pub fn faults_in_words(errors: &[ConfigError], say: impl Fn(&ConfigError, &mut Fault)) -> Self {
        let mut all = Self::bad_request("invalid", "the definition cannot be used");
        if !errors.is_empty() {
            let at = SystemClock.now();
            all.faults = errors
                .iter()
                .map(|e| {
                    let mut fault = Fault {
                        code: e.code.into(),
                        message: e.message.clone(),
                        hint: e.hint.clone(),
                        field: None,
                        level: "error",
                        timestamp: at,
                    };
                    say(e, &mut fault);
                    fault
                })
                .collect();
        }
        all
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(fault) = self.faults.last_mut() {
            fault.hint = Some(hint.into());
        }
        self
    }

    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        if let Some(fault) = self.faults.last_mut() {
            fault.field = Some(field.into());
        }
        self
    }

    fn hinted(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.with_hint(hint),
            None => self,
        }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> String {
        self.faults.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// What is wrong, when that is what was asked for.
    pub fn into_faults(self) -> Vec<Fault> {
        self.faults
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Errors { status: self.status.as_u16(), request_id: request_id(), errors: self.faults };
        let mut response = json(self.status, &body);
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.challenge {
            let challenge = HeaderValue::from_static("Bearer realm=\"cloud-connect\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<AuthError> for ApiError {
    fn from(e: AuthError) -> Self {
        let hint = e.hint();
        match e {
            AuthError::Catalog(e) => Self::internal(e),
            other => Self::unauthorized(other.to_string()).hinted(hint.map(String::from)),
        }
    }
}

impl From<CatalogError> for ApiError {
    fn from(e: CatalogError) -> Self {
        match e {
            CatalogError::NoSuchRun(_) => Self::not_found(e.to_string()).with_hint("GET /v2/run lists them"),
            CatalogError::AmbiguousRun(_) => {
                Self::bad_request("ambiguous-run", e.to_string()).with_hint("give more of its id")
            }
            CatalogError::NotAMoment(_) => Self::bad_request("not-a-moment", e.to_string())
                .with_hint("a run's id, a time like 2026-11-22T10:00:00Z, or a date"),
            other => Self::internal(other),
        }
    }
}

impl From<WarehouseError> for ApiError {
    fn from(e: WarehouseError) -> Self {
        let status = match e.kind {
            WarehouseErrorKind::Sql | WarehouseErrorKind::Configuration => StatusCode::UNPROCESSABLE_ENTITY,
            WarehouseErrorKind::Retry { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, "warehouse", e.to_string()).hinted(e.hint)
    }
}

impl From<OpenError> for ApiError {
    fn from(e: OpenError) -> Self {
        match e {
            OpenError::UnknownConnection { .. } => Self::not_found(e.to_string()).hinted(e.hint()),
            OpenError::Warehouse { error, .. } => error.into(),
            other => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "connection", other.to_string()).hinted(other.hint()),
        }
    }
}

impl From<SyncError> for ApiError {
    fn from(e: SyncError) -> Self {
        let hint = e.hint();
        match e {
            SyncError::Warehouse(e) => e.into(),
            SyncError::Connection(e) => e.into(),
            SyncError::Catalog(e) => e.into(),
            SyncError::NoSuchModel(slug) => {
                Self::not_found(format!("no model `{slug}`")).with_hint("GET /v2/datamodel lists them")
            }
            SyncError::AlreadyRunning { .. } => Self::conflict("already-running", e.to_string()),
            SyncError::Inactive(_) => Self::conflict("inactive", e.to_string()).hinted(hint),
            SyncError::NothingHeld(_) | SyncError::HoldEnded { .. } => {
                Self::conflict("nothing-held", e.to_string()).hinted(hint)
            }
            SyncError::Store(_) | SyncError::Io(_) | SyncError::Arrow(_) | SyncError::Bug(_) | SyncError::Key(_) => {
                Self::internal(e)
            }
            other => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "run", other.to_string()).hinted(hint),
        }
    }
}

impl From<ProfilesError> for ApiError {
    fn from(e: ProfilesError) -> Self {
        let hint = e.hint();
        match e {
            ProfilesError::UnknownField { .. } | ProfilesError::UnknownModel { .. } => {
                Self::not_found(e.to_string()).hinted(hint)
            }
            ProfilesError::NotAQuery { .. } => Self::bad_request("not-a-query", e.to_string()).hinted(hint),
            ProfilesError::Query(_) | ProfilesError::DuplicateColumn { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "query", e.to_string()).hinted(hint)
            }
            other => Self::internal(other),
        }
    }
}

/// The header that carries the request's id.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
