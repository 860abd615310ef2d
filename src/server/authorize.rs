//! Who may ask for what: each endpoint says in its OpenAPI description which permissions it needs, and nothing else does.
//!
//! Invariants: an endpoint whose description says nothing is refused to everybody; the answer to a stranger does not
//! tell whether what was asked for exists.

use std::collections::HashMap;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, header, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::OpenApi;

use super::answer::ApiError;
use super::state::App;
use crate::people::{Permission, Permissions};

/// What an endpoint asks of its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Nothing: whoever reaches the service.
    Open,
    /// All of these.
    Permissions(Permissions),
}

/// What each endpoint asks for.
#[derive(Debug, Default)]
pub struct Requirements {
    endpoints: HashMap<(Method, String), Access>,
}

/// An endpoint whose description does not say who may use it.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path}: {reason}")]
pub struct Undescribed {
    method: Method,
    path: String,
    reason: String,
}

impl Requirements {
    /// Reads the `security` of each operation.
    pub fn of(api: &OpenApi) -> Result<Self, Undescribed> {
        let mut endpoints = HashMap::new();
        for (path, item) in &api.paths.paths {
            let operations = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::DELETE, &item.delete),
                (Method::PATCH, &item.patch),
            ];
            for (method, operation) in operations {
                let Some(operation) = operation else { continue };
                let undescribed = |reason: String| Undescribed { method: method.clone(), path: path.clone(), reason };
                // as JSON, since the library keeps a requirement's parts to itself
                let security = serde_json::to_value(&operation.security).map_err(|e| undescribed(e.to_string()))?;
                let access = access(&security).map_err(undescribed)?;
                endpoints.insert((method, path.clone()), access);
            }
        }
        Ok(Self { endpoints })
    }

    /// What the endpoint asks for; none when it is not described.
    pub fn endpoint(&self, method: &Method, path: &str) -> Option<&Access> {
        // HEAD is answered by GET's handler
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.endpoints.get(&(method.clone(), path.to_string()))
    }

    /// Every endpoint with what it asks for.
    pub fn iter(&self) -> impl Iterator<Item = (&Method, &str, &Access)> {
        self.endpoints.iter().map(|((method, path), access)| (method, path.as_str(), access))
    }
}

fn access(security: &serde_json::Value) -> Result<Access, String> {
    let alternatives = security.as_array().ok_or("says nothing about who may use it")?;
    match alternatives.as_slice() {
        [one] => {
            let schemes = one.as_object().ok_or("its security is no object")?;
            let Some((_, scopes)) = schemes.iter().next() else { return Ok(Access::Open) };
            let names = scopes.as_array().ok_or("its scopes are no list")?;
            let mut permissions = Vec::new();
            for name in names {
                let name = name.as_str().unwrap_or_default();
                permissions.push(name.parse::<Permission>().map_err(|e| e.to_string())?);
            }
            Ok(Access::Permissions(permissions.into_iter().collect()))
        }
        _ => Err("has to have one `security` entry".into()),
    }
}

/// The middleware: finds the caller, checks its permissions, and hands it to the handler.
pub async fn authorize(State(app): State<App>, request: Request, next: Next) -> Response {
    // the body is not looked at, and cannot be shared between threads
    let (mut parts, body) = request.into_parts();
    match check(&app, &mut parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refused) => refused.into_response(),
    }
}

async fn check(app: &App, request: &mut request::Parts) -> Result<(), ApiError> {
    let template = request.extensions.get::<MatchedPath>().map(|path| path.as_str().to_string());
    let access = template.as_deref().and_then(|path| app.requirements.endpoint(&request.method, path));
    let wanted = match access {
        Some(Access::Open) => return Ok(()),
        Some(Access::Permissions(wanted)) => *wanted,
        None => return Err(ApiError::forbidden("this endpoint does not say who may use it")),
    };
    let caller = app.identify(request).await?;
    let lacking = wanted.without(caller.permissions);
    if !lacking.is_empty() {
        let lacking: Vec<&str> = lacking.iter().map(Permission::as_str).collect();
        return Err(ApiError::forbidden(format!("{} may not do this: it lacks {}", caller.actor, lacking.join(", ")))
            .with_hint("ask an admin for a role, or a token, that has it"));
    }
    app.limits.check(caller.id(), template.as_deref().unwrap_or_default())?;
    // nothing behind this needs it, and what is not there cannot be logged
    request.headers.remove(header::AUTHORIZATION);
    request.extensions.insert(caller);
    Ok(())
}
