//! To the identity provider and back.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::login::signed_in;
use crate::people::oidc::{Callback, OidcError, PATIENCE};
use crate::server::answer::ApiError;
use crate::server::browser::{self, cookie_value, local_path, set_cookie};
use crate::server::extract::Query;
use crate::server::pages::{Message, go, page};
use crate::server::state::App;

#[derive(Debug, Default, Deserialize)]
struct Next {
    #[serde(default)]
    next: String,
}

/// The cookie that binds a sign-in to the browser that began it.
fn cookie_name(app: &App) -> &'static str {
    if app.options.is_https() { "__Host-cc_oidc" } else { "cc_oidc" }
}

/// Goes to the identity provider.
#[utoipa::path(get, path = "/oidc/start", tag = "signing in", params(("next" = Option<String>, Query, description = "the path to go on to")),
    responses((status = 303, description = "to the identity provider"), (status = 404, description = "there is none")), security(()))]
async fn start(State(app): State<App>, headers: HeaderMap, Query(Next { next }): Query<Next>) -> Response {
    let Some(here) = browser::public_url(&app, &headers) else {
        return ApiError::bad_request("no-host", "the request has no Host header").into_response();
    };
    match app.people.start_at_provider(format!("{here}/oidc/callback"), local_path(&next)).await {
        Ok(start) => {
            let binding = start.binding.expose_secret();
            go(start.url.as_str(), set_cookie(cookie_name(&app), binding, PATIENCE.num_seconds(), &app.options))
        }
        Err(error) => refused(error),
    }
}

/// Comes back from the identity provider.
#[utoipa::path(get, path = "/oidc/callback", tag = "signing in",
    params(("state" = Option<String>, Query, description = "what `start` made"), ("code" = Option<String>, Query, description = "what the provider made")),
    responses((status = 303, description = "signed in"), (status = 400, description = "HTML"), (status = 403, description = "HTML"), (status = 404, description = "there is none")), security(()))]
async fn callback(State(app): State<App>, headers: HeaderMap, Query(callback): Query<Callback>) -> Response {
    let binding = cookie_value(&headers, cookie_name(&app));
    let mut response = match app.people.finish_at_provider(callback, binding.as_deref()).await {
        Ok((session, next)) => signed_in(&app, &session, local_path(&next)),
        Err(error) => refused(error),
    };
    if let Some(removed) = set_cookie(cookie_name(&app), "", 0, &app.options) {
        response.headers_mut().append(header::SET_COOKIE, removed);
    }
    response
}

fn refused(error: OidcError) -> Response {
    let message = error.to_string();
    let (status, message, hint) = match &error {
        OidcError::NotConfigured => {
            return ApiError::not_found(message).with_hint("`service: { oidc: … }` names one").into_response();
        }
        OidcError::People(inner) if inner.is_internal() => return ApiError::internal(error).into_response(),
        OidcError::People(_) => (StatusCode::FORBIDDEN, message.as_str(), ""),
        OidcError::Stale => (StatusCode::BAD_REQUEST, message.as_str(), "Begin again."),
        OidcError::Denied(_) | OidcError::Refused(_) => (StatusCode::FORBIDDEN, message.as_str(), ""),
        // why, is for the log: it is of no use to who wants in, and of some to who should not be
        OidcError::ClientSecret(_) | OidcError::Untrusted(_) | OidcError::Provider(_) => {
            tracing::warn!(%error, "a sign-in at the identity provider failed");
            (
                StatusCode::BAD_GATEWAY,
                "the identity provider's answer could not be used",
                "The service's log tells why.",
            )
        }
    };
    page(status, &Message { title: "You are not signed in", message, hint })
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(start)).routes(routes!(callback))
}
