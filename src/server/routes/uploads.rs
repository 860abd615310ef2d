//! Profiles that are handed in: bulk uploads, and small events.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{self, Caller, Path, Query};
use crate::server::idempotency;
use crate::server::state::App;
use crate::sync::{SyncError, Uploaded};
use crate::uploads::{Collected, Encoding, Format, UploadError, UploadReport, UploadRequest};

/// An upload as it ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct Upload {
    #[serde(flatten)]
    report: UploadReport,
    /// It had been done before: this is what was said then, and nothing was added now.
    replayed: bool,
}

/// Where an upload goes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Target {
    /// The stream's name: a-z, 0-9 and `_`.
    stream: String,
}

/// Which uploads are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Only those to this stream.
    stream: Option<String>,
    /// At most so many; 100 when left out, at most 1,000.
    limit: Option<u32>,
    /// `_meta.next_cursor` of the page before.
    cursor: Option<String>,
}

/// Adds profiles in bulk. The body is NDJSON (`application/x-ndjson`), CSV with a line of names (`text/csv`), or Parquet
/// (`application/vnd.apache.parquet`); the first two may be compressed (`Content-Encoding: gzip`). All of it becomes
/// visible at once; rows that cannot be used are set aside and told. Repeated with its `Idempotency-Key` (or, without one,
/// with the same body) it adds nothing again.
#[utoipa::path(post, path = "/v2/upload", tag = "uploads",
    params(Target, ("Idempotency-Key" = Option<String>, Header, description = "makes a repetition recognizable")),
    request_body(content(
        (String = "application/x-ndjson", example = "{\"email\": \"ada@example.com\", \"plan\": \"pro\"}\n"),
        (String = "text/csv", example = "email,plan\nada@example.com,pro\n"),
        (Vec<u8> = "application/vnd.apache.parquet"))),
    responses((status = 200, body = Answer<Upload>), (status = 400, body = Errors), (status = 409, body = Errors),
        (status = 413, body = Errors), (status = 415, body = Errors), (status = 422, body = Errors)),
    security(("token" = ["profiles:write"])))]
async fn upload(
    State(app): State<App>,
    caller: Caller,
    Query(target): Query<Target>,
    headers: HeaderMap,
    request: Request,
) -> Result<Answer<Upload>, ApiError> {
    let format = format(&headers)?;
    let encoding = encoding(&headers, format)?;
    let limit = app.uploads.options().max_bytes;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(UploadError::TooLarge { limit }.into());
    }
    let key = headers.get(idempotency::HEADER).map(|key| key.to_str().unwrap_or_default().to_string());
    let wanted = UploadRequest { stream: target.stream, format, encoding, key, actor: caller.actor.clone() };
    let Uploaded { report, replayed } = app.uploads.upload(wanted, request.into_body().into_data_stream()).await?;
    Ok(Answer::of(Upload { report, replayed }))
}

/// The uploads, newest first.
#[utoipa::path(get, path = "/v2/upload", tag = "uploads", params(Wanted),
    responses((status = 200, body = Answer<Vec<UploadReport>>), (status = 400, body = Errors)),
    security(("token" = ["runs:read"])))]
async fn list(State(app): State<App>, Query(wanted): Query<Wanted>) -> Result<Answer<Vec<UploadReport>>, ApiError> {
    let limit = wanted.limit.unwrap_or(100).clamp(1, 1000);
    let catalog = app.service.catalog();
    let mut found = catalog.uploads(wanted.stream.as_deref(), wanted.cursor.as_deref(), limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Answer::page(found, next))
}

/// One upload.
#[utoipa::path(get, path = "/v2/upload/{id}", tag = "uploads", params(("id" = String, Path, description = "the upload's id")),
    responses((status = 200, body = Answer<UploadReport>), (status = 404, body = Errors)),
    security(("token" = ["runs:read"])))]
async fn get(State(app): State<App>, Path(id): Path<String>) -> Result<Answer<UploadReport>, ApiError> {
    let found = app.service.catalog().upload(&id).await?;
    let missing = || ApiError::not_found("no such upload").with_hint("GET /v2/upload lists them");
    found.map(Answer::of).ok_or_else(missing)
}

/// Takes small events: one JSON object, a list of them, or NDJSON; at most 1,000 and 1 MiB. What was accepted is on disk
/// when the answer comes, and visible within seconds. Events without an identity are refused, each with its index.
#[utoipa::path(post, path = "/collect/json/{stream}", tag = "uploads",
    params(("stream" = String, Path, description = "the stream's name: a-z, 0-9 and `_`")),
    request_body(content = serde_json::Value, description = "an object, a list of objects, or one object a line",
        example = json!({"email": "ada@example.com", "event": "signed_up"})),
    responses((status = 202, body = Answer<Collected>), (status = 400, body = Errors), (status = 413, body = Errors),
        (status = 503, body = Errors)),
    security(("token" = ["profiles:write"])))]
async fn collect(
    State(app): State<App>,
    Path(stream): Path<String>,
    request: Request,
) -> Result<Answer<Collected>, ApiError> {
    let body: Bytes = extract::body(request, &app).await?;
    let collected = app.uploads.collect(&stream, &body).await?;
    match collected.refused.first() {
        Some(first) if collected.accepted == 0 => Err(ApiError::bad_request(
            "no-event-accepted",
            format!(
                "none of {} events was accepted; event {}: {}",
                collected.refused.len(),
                first.index,
                first.message
            ),
        )),
        _ => Ok(Answer::accepted(collected)),
    }
}

fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Format::of_media_type(given).ok_or_else(|| {
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unknown-format", "the Content-Type is none of an upload's")
            .with_hint("send application/x-ndjson, text/csv or application/vnd.apache.parquet")
    })
}

fn encoding(headers: &HeaderMap, format: Format) -> Result<Encoding, ApiError> {
    let given = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or_default());
    match given.unwrap_or("identity").trim().to_ascii_lowercase().as_str() {
        "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" if format != Format::Parquet => Ok(Encoding::Gzip),
        _ => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unknown-encoding",
            "the Content-Encoding is not known here",
        )
        .with_hint("send NDJSON or CSV plain or with gzip; Parquet is compressed inside")),
    }
}

impl From<UploadError> for ApiError {
    fn from(e: UploadError) -> Self {
        let status = match &e {
            UploadError::TooLarge { .. } | UploadError::TooManyRows { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            UploadError::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            UploadError::Busy(_) => StatusCode::CONFLICT,
            UploadError::Full { .. } | UploadError::Crowded | UploadError::Closing => StatusCode::SERVICE_UNAVAILABLE,
            // `normalize:` of the project differs from what the store was written with
            UploadError::Sync(SyncError::Renormalized { .. }) => StatusCode::CONFLICT,
            UploadError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            UploadError::Journal(_) | UploadError::Sync(_) | UploadError::Io(_) => return Self::internal(e),
            _ => StatusCode::BAD_REQUEST,
        };
        let error = Self::new(status, e.code(), e.to_string());
        match e.hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(upload, list)).routes(routes!(get)).routes(routes!(collect))
}
