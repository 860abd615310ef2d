//! What a handler takes from a request: bodies, queries and headers, each with an error that says what is wrong.

use std::ops::Deref;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::answer::ApiError;
use crate::people::{Identity, Role};

/// Who asks: put into the request by `authorize`.
#[derive(Debug, Clone)]
pub struct Caller(pub Arc<Identity>);

impl Caller {
    /// Only allow-listed fields may be asked for and shown.
    pub fn is_public(&self) -> bool {
        self.role == Role::Public
    }

    /// What limits are counted by: the token or the user.
    pub fn id(&self) -> &str {
        let id = self.token_id.as_deref().or(self.user_id.as_deref());
        id.unwrap_or(&self.actor)
    }
}

impl Deref for Caller {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // put there by `authorize`; without it the endpoint is open to all and has no caller
        parts.extensions.get::<Self>().cloned().ok_or_else(|| ApiError::unauthorized("who asks is not known"))
    }
}

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let content_type =
            request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" && !essence.ends_with("+json") {
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", "the body has to be JSON")
                .with_hint("send `Content-Type: application/json`"));
        }
        let bytes = body(request, state).await?;
        parse(&bytes).map(Self)
    }
}

/// The whole body, up to the endpoint's limit.
pub async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        let status = rejection.status();
        let code = if status == StatusCode::PAYLOAD_TOO_LARGE { "too-large" } else { "unreadable-body" };
        ApiError::new(status, code, rejection.body_text())
    })
}

/// JSON whose faults name their place.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let fault = |path: String, error: serde_json::Error| {
        let code = if error.is_data() { "invalid" } else { "json-syntax" };
        let error = ApiError::bad_request(code, error.to_string());
        if path.is_empty() || path == "." { error } else { error.with_field(path) }
    };
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let path = e.path().to_string();
        fault(path, e.into_inner())
    })?;
    reader.end().map_err(|e| fault(String::new(), e))?;
    Ok(value)
}

/// The query's parameters.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(query) => Ok(Self(query.0)),
            Err(rejection) => Err(ApiError::bad_request("invalid-query", rejection.body_text())),
        }
    }
}

/// The parts of the path.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(path) => Ok(Self(path.0)),
            Err(rejection) => Err(ApiError::bad_request("invalid-path", rejection.body_text())),
        }
    }
}

/// The revision that `If-Match` names; none when the header is missing or `*`.
#[derive(Debug, Clone, Copy)]
pub struct IfMatch(pub Option<i64>);

impl IfMatch {
    /// Refuses when it is another revision than the present one.
    pub fn check(self, present: i64) -> Result<(), ApiError> {
        if self.0.is_some_and(|wanted| wanted != present) { Err(ApiError::changed_meanwhile()) } else { Ok(()) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if_match(&parts.headers).map(Self)
    }
}

fn if_match(headers: &HeaderMap) -> Result<Option<i64>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    // intermediaries may have weakened it: the revision counts
    let text = text.strip_prefix("W/").unwrap_or(text);
    let revision = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).and_then(|t| t.parse().ok());
    revision.map(Some).ok_or_else(|| {
        ApiError::bad_request("invalid-if-match", "`If-Match` is not an ETag of this service")
            .with_hint("send the ETag header of the answer that you read, with its quotes")
    })
}

/// Where a page of a list starts and how long it is.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// At most so many; 100 when left out, at most 1,000.
    pub limit: Option<u32>,
    /// `_meta.next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl Page {
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(100).clamp(1, 1000) as usize
    }

    /// A page of a list that is whole in memory and sorted by `key`, which the cursor holds.
    pub fn of<T>(&self, items: impl IntoIterator<Item = T>, key: impl Fn(&T) -> &str) -> (Vec<T>, Option<String>) {
        let after = self.cursor.as_deref();
        let mut rest = items.into_iter().filter(|item| after.is_none_or(|after| key(item) > after));
        let page: Vec<T> = rest.by_ref().take(self.limit()).collect();
        let next = rest.next().and_then(|_| page.last().map(|last| key(last).to_string()));
        (page, next)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_on_after_the_last_of_its_page() {
        let all = ["a", "b", "c", "d", "e"];
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = Page { limit: Some(2), cursor };
            let (items, next) = page.of(all, |item| item);
            seen.extend(items);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn an_etag_is_read_weak_or_strong_and_nothing_else_is() {
        let of = |text: &str| if_match(&HeaderMap::from_iter([(header::IF_MATCH, text.parse().unwrap())]));
        assert_eq!(of("\"7\"").unwrap(), Some(7));
        assert_eq!(of("W/\"7\"").unwrap(), Some(7));
        assert_eq!(of("*").unwrap(), None);
        assert!(of("7").is_err());
        assert!(IfMatch(Some(6)).check(7).is_err());
    }

    #[test]
    fn a_fault_in_json_names_its_place_and_what_follows_is_refused() {
        #[derive(Debug, serde::Deserialize)]
        struct Body {
            #[expect(dead_code, reason = "only its type matters")]
            inner: Vec<u32>,
        }
        assert!(parse::<Body>(br#"{"inner": [1, "x"]}"#).is_err());
        assert!(parse::<Body>(br#"{"inner": []} trailing"#).is_err());
        assert!(parse::<Body>(br#"{"inner": [1]}"#).is_ok());
    }
}
