//! The pages to sign in, to sign out, to found the first admin, and to set a password.
//!
//! These check for themselves who asks: a form's session and its token, a link's secret, or a password.

use axum::Form;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::people::passwords::SHORTEST;
use crate::people::sessions::{NewSession, csrf_token};
use crate::people::users::User;
use crate::people::{LoginError, PeopleError};
use crate::server::answer::ApiError;
use crate::server::browser::{self, ClientAddress, local_path};
use crate::server::extract::{Path, Query};
use crate::server::pages::{self, Account, ChoosePassword, Login, Message, go, page};
use crate::server::state::App;

/// A form that could not be read is answered as one that was left empty.
type Filled<T> = Result<Form<T>, FormRejection>;

#[derive(Debug, Default, Deserialize)]
struct Next {
    #[serde(default)]
    next: String,
}

/// The page to sign in.
#[utoipa::path(get, path = "/login", tag = "signing in", params(("next" = Option<String>, Query, description = "the path to go on to")),
    responses((status = 200, description = "HTML"), (status = 303, description = "signed in already")), security(()))]
async fn login_page(State(app): State<App>, headers: HeaderMap, Query(Next { next }): Query<Next>) -> Response {
    let next = local_path(&next);
    if session(&app, &headers).await.is_some() {
        return go(next, None);
    }
    page(StatusCode::OK, &Login { error: None, email: "", next, provider: app.people.has_provider() })
}

#[derive(Debug, Deserialize)]
struct LoginForm {
    email: String,
    password: SecretString,
    #[serde(default)]
    next: String,
}

/// Signs in with a password.
#[utoipa::path(post, path = "/login", tag = "signing in",
    responses((status = 303, description = "signed in: the cookie is set"), (status = 401, description = "HTML"), (status = 429, description = "HTML")), security(()))]
async fn log_in(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    form: Filled<LoginForm>,
) -> Response {
    // else another site could sign its visitors in as somebody it chose
    if let Err(refused) = browser::check_origin(&headers, &app.options) {
        return refused.into_response();
    }
    let Ok(Form(form)) = form else { return bad_form() };
    let next = local_path(&form.next);
    match app.people.log_in(&form.email, form.password, address).await {
        Ok(session) => signed_in(&app, &session, next),
        Err(error) => {
            let shown = refusal(error);
            let mut response = page(
                shown.status,
                &Login { error: Some(&shown.message), email: &form.email, next, provider: app.people.has_provider() },
            );
            shown.add_retry_after(response.headers_mut());
            response
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct CsrfForm {
    #[serde(default)]
    csrf_token: String,
}

/// Ends the session.
#[utoipa::path(post, path = "/logout", tag = "signing in", responses((status = 303, description = "to /login")), security(()))]
async fn log_out(State(app): State<App>, headers: HeaderMap, form: Filled<CsrfForm>) -> Result<Response, ApiError> {
    if let Some(cookie) = browser::session_cookie(&headers, &app.options) {
        let given = given_token(&headers, form.map(|form| form.0.csrf_token).unwrap_or_default());
        browser::check_meant(&headers, &app.options, &cookie, &given)?;
        app.people.log_out(&cookie).await?;
    }
    Ok(go("/login", browser::remove_session_cookie(&app.options)))
}

/// Who one is, and the way to another password.
#[utoipa::path(get, path = "/account", tag = "signing in",
    responses((status = 200, description = "HTML"), (status = 303, description = "to /login")), security(()))]
async fn account(State(app): State<App>, headers: HeaderMap) -> Response {
    match session(&app, &headers).await {
        Some((cookie, user)) => account_page(StatusCode::OK, &cookie, &user, None, None),
        None => go("/login?next=/account", None),
    }
}

#[derive(Debug, Deserialize)]
struct PasswordForm {
    #[serde(default)]
    csrf_token: String,
    old_password: SecretString,
    password: SecretString,
    again: SecretString,
}

/// Changes one's own password; other sessions end.
#[utoipa::path(post, path = "/account/password", tag = "signing in",
    responses((status = 200, description = "HTML"), (status = 303, description = "to /login"), (status = 400, description = "HTML")), security(()))]
async fn change_password(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    form: Filled<PasswordForm>,
) -> Result<Response, ApiError> {
    let Some((cookie, user)) = session(&app, &headers).await else { return Ok(go("/login?next=/account", None)) };
    let Ok(Form(form)) = form else { return Ok(bad_form()) };
    browser::check_meant(&headers, &app.options, &cookie, &form.csrf_token)?;
    if form.password.expose_secret() != form.again.expose_secret() {
        return Ok(account_page(StatusCode::BAD_REQUEST, &cookie, &user, Some(NOT_ALIKE), None));
    }
    match app.people.change_password(&cookie, form.old_password, form.password, address).await {
        Ok(()) => {
            let done = "The password was changed; other sessions ended.";
            Ok(account_page(StatusCode::OK, &cookie, &user, None, Some(done)))
        }
        Err(LoginError::Refused) => {
            let error = "The present password is wrong.";
            Ok(account_page(StatusCode::BAD_REQUEST, &cookie, &user, Some(error), None))
        }
        Err(error) => {
            let shown = refusal(error);
            Ok(account_page(shown.status, &cookie, &user, Some(&shown.message), None))
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct LinkQuery {
    #[serde(default)]
    token: String,
}

/// The page to found the first admin, behind the link that the first start prints.
#[utoipa::path(get, path = "/first-admin", tag = "signing in", params(("token" = String, Query, description = "the link's secret")),
    responses((status = 200, description = "HTML"), (status = 410, description = "HTML")), security(()))]
async fn first_admin_page(State(app): State<App>, Query(LinkQuery { token }): Query<LinkQuery>) -> Response {
    match app.people.first_admin_offered(&token).await {
        Ok(true) => page(StatusCode::OK, &first_admin_form(&token, "", None)),
        Ok(false) => dead(PeopleError::DeadLink),
        Err(error) => dead(error),
    }
}

#[derive(Debug, Deserialize)]
struct LinkForm {
    token: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    name: String,
    password: SecretString,
    again: SecretString,
}

/// Founds the first admin, and signs them in.
#[utoipa::path(post, path = "/first-admin", tag = "signing in",
    responses((status = 303, description = "signed in"), (status = 400, description = "HTML"), (status = 410, description = "HTML")), security(()))]
async fn first_admin(State(app): State<App>, headers: HeaderMap, form: Filled<LinkForm>) -> Result<Response, ApiError> {
    browser::check_origin(&headers, &app.options)?;
    let Ok(Form(form)) = form else { return Ok(bad_form()) };
    let again = |error: &str| page(StatusCode::BAD_REQUEST, &first_admin_form(&form.token, &form.email, Some(error)));
    if form.password.expose_secret() != form.again.expose_secret() {
        return Ok(again(NOT_ALIKE));
    }
    match app.people.found_first_admin(&form.token, &form.email, &form.name, form.password.clone()).await {
        Ok(user) => {
            Ok(signed_in(&app, &app.people.begin_session(user, "with the first admin's link").await?, "/account"))
        }
        Err(error @ PeopleError::Invalid { .. }) => Ok(again(&sentence(&error))),
        Err(error) => Ok(dead(error)),
    }
}

/// The page to set a password, behind an invitation.
#[utoipa::path(get, path = "/invitation/{token}", tag = "signing in", params(("token" = String, Path, description = "the link's secret")),
    responses((status = 200, description = "HTML"), (status = 410, description = "HTML")), security(()))]
async fn invitation_page(State(app): State<App>, Path(token): Path<String>) -> Response {
    match app.people.invited(&token).await {
        Ok(user) => page(StatusCode::OK, &invitation_form(&token, &user, None)),
        Err(error) => dead(error),
    }
}

/// Sets the password of the invited, and signs them in.
#[utoipa::path(post, path = "/invitation", tag = "signing in",
    responses((status = 303, description = "signed in"), (status = 400, description = "HTML"), (status = 410, description = "HTML")), security(()))]
async fn invitation(State(app): State<App>, headers: HeaderMap, form: Filled<LinkForm>) -> Result<Response, ApiError> {
    browser::check_origin(&headers, &app.options)?;
    let Ok(Form(form)) = form else { return Ok(bad_form()) };
    let user = match app.people.invited(&form.token).await {
        Ok(user) => user,
        Err(error) => return Ok(dead(error)),
    };
    let again = |error: &str| page(StatusCode::BAD_REQUEST, &invitation_form(&form.token, &user, Some(error)));
    if form.password.expose_secret() != form.again.expose_secret() {
        return Ok(again(NOT_ALIKE));
    }
    match app.people.accept_invitation(&form.token, form.password.clone()).await {
        Ok(user) => Ok(signed_in(&app, &app.people.begin_session(user, "with an invitation").await?, "/account")),
        Err(error @ PeopleError::Invalid { .. }) => Ok(again(&sentence(&error))),
        Err(error) => Ok(dead(error)),
    }
}

/// The pages' style sheet.
#[utoipa::path(get, path = "/pages.css", tag = "signing in", responses((status = 200, description = "CSS")), security(()))]
async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, pages::STYLE).into_response()
}

const NOT_ALIKE: &str = "The two passwords are not alike.";

/// Whose session the browser has.
async fn session(app: &App, headers: &HeaderMap) -> Option<(String, User)> {
    let cookie = browser::session_cookie(headers, &app.options)?;
    let identity = app.people.authenticate_session(&cookie).await.ok()?;
    let user = app.people.user(identity.user_id.as_deref()?).await.ok()?;
    Some((cookie, user))
}

pub(super) fn signed_in(app: &App, session: &NewSession, next: &str) -> Response {
    go(next, browser::set_session_cookie(&session.secret, &app.options))
}

fn given_token(headers: &HeaderMap, of_form: String) -> String {
    let of_header = headers.get(browser::CSRF_HEADER).and_then(|value| value.to_str().ok());
    of_header.map_or(of_form, String::from)
}

fn account_page(status: StatusCode, cookie: &str, user: &User, error: Option<&str>, done: Option<&str>) -> Response {
    let csrf_token = csrf_token(cookie);
    let account = Account {
        email: &user.email,
        name: &user.name,
        role: user.role.title(),
        csrf_token: &csrf_token,
        has_password: user.has_password,
        error,
        done,
        shortest: SHORTEST,
    };
    page(status, &account)
}

fn first_admin_form<'a>(token: &'a str, email: &'a str, error: Option<&'a str>) -> ChoosePassword<'a> {
    let (title, action) = ("The first admin", "/first-admin");
    ChoosePassword { title, action, error, token, email, asks_email: true, shortest: SHORTEST }
}

fn invitation_form<'a>(token: &'a str, user: &'a User, error: Option<&'a str>) -> ChoosePassword<'a> {
    let (title, action) = ("Set your password", "/invitation");
    ChoosePassword { title, action, error, token, email: &user.email, asks_email: false, shortest: SHORTEST }
}

/// What a page says of a refusal.
struct Shown {
    status: StatusCode,
    message: String,
    retry_after: Option<u64>,
}

impl Shown {
    fn add_retry_after(&self, headers: &mut HeaderMap) {
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
    }
}

fn refusal(error: LoginError) -> Shown {
    let of = |status, message: String| Shown { status, message, retry_after: None };
    match error {
        LoginError::Refused => of(StatusCode::UNAUTHORIZED, "The e-mail or the password is wrong.".into()),
        LoginError::TooMany { retry_after } => {
            let seconds = retry_after.as_secs_f64().ceil() as u64;
            let wait = humantime::format_duration(std::time::Duration::from_secs(seconds));
            let message = format!("There were too many attempts. Try again in {wait}.");
            Shown { status: StatusCode::TOO_MANY_REQUESTS, message, retry_after: Some(seconds) }
        }
        LoginError::People(PeopleError::Busy) => {
            of(StatusCode::SERVICE_UNAVAILABLE, "Many people sign in at the moment. Try again in a few seconds.".into())
        }
        LoginError::People(error) if !error.is_internal() => of(StatusCode::BAD_REQUEST, sentence(&error)),
        LoginError::People(error) => {
            tracing::error!(%error, "a login failed");
            of(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong here.".into())
        }
    }
}

/// An error as a page says it.
fn sentence(error: &PeopleError) -> String {
    let said = error.to_string();
    let mut characters = said.chars();
    let first = characters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", characters.as_str())
}

fn dead(error: PeopleError) -> Response {
    if error.is_internal() {
        return ApiError::from(error).into_response();
    }
    let hint = error.hint().unwrap_or_default();
    page(StatusCode::GONE, &Message { title: "This does not work", message: &sentence(&error), hint: &hint })
}

fn bad_form() -> Response {
    let message = Message {
        title: "This does not work",
        message: "The form could not be read.",
        hint: "Go back and fill in every field.",
    };
    page(StatusCode::BAD_REQUEST, &message)
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login_page, log_in))
        .routes(routes!(log_out))
        .routes(routes!(account))
        .routes(routes!(change_password))
        .routes(routes!(first_admin_page, first_admin))
        .routes(routes!(invitation_page))
        .routes(routes!(invitation))
        .routes(routes!(style))
}
