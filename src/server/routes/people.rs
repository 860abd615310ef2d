//! Users, tokens, and who one is.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::people::links::Link;
use crate::people::sessions::csrf_token;
use crate::people::tokens::{NewToken, Token, TokenStatus};
use crate::people::users::{NewUser, User, UserChange};
use crate::people::{LoginError, Means, PeopleError, Permission, Role};
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::browser;
use crate::server::extract::{Caller, IfMatch, Json, Page, Path, Query};
use crate::server::idempotency::Unrepeatable;
use crate::server::state::App;

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserView {
    id: String,
    email: String,
    name: String,
    role: Role,
    /// Cannot sign in, and neither can the tokens made in their name.
    disabled: bool,
    /// Can sign in with a password.
    has_password: bool,
    /// Has signed in at the identity provider.
    has_provider: bool,
    created: DateTime<Utc>,
    created_by: String,
    updated: DateTime<Utc>,
    updated_by: String,
    last_login: Option<DateTime<Utc>>,
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.clone(),
            email: user.email.clone(),
            name: user.name.clone(),
            role: user.role,
            disabled: user.disabled,
            has_password: user.has_password,
            has_provider: user.subject.is_some(),
            created: user.created_at,
            created_by: user.created_by.clone(),
            updated: user.updated_at,
            updated_by: user.updated_by.clone(),
            last_login: user.last_login_at,
        }
    }
}

/// A link to set a password with, to be handed to its user. It works once.
#[derive(Debug, Serialize, ToSchema)]
pub struct Invitation {
    /// What follows the service's address. Shown only now.
    #[schema(example = "/invitation/4Tn…")]
    path: String,
    expires: DateTime<Utc>,
}

impl From<&Link> for Invitation {
    fn from(link: &Link) -> Self {
        Self { path: format!("/invitation/{}", link.secret.expose_secret()), expires: link.expires_at }
    }
}

/// A user that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct InvitedUser {
    #[serde(flatten)]
    user: UserView,
    invitation: Invitation,
}

/// A user to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    email: String,
    /// Left out: the e-mail.
    #[serde(default)]
    name: String,
    role: Role,
}

/// What to change of a user; what is left out stays. The e-mail does not change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeUser {
    name: Option<String>,
    role: Option<Role>,
    disabled: Option<bool>,
}

/// Every user, by e-mail.
#[utoipa::path(get, path = "/v2/user", tag = "people", params(Page),
    responses((status = 200, body = Answer<Vec<UserView>>)), security(("token" = ["people:read"])))]
async fn list_users(State(app): State<App>, Query(page): Query<Page>) -> Result<Answer<Vec<UserView>>, ApiError> {
    let limit = page.limit();
    let mut users = app.people.list_users(page.cursor.as_deref(), limit as u32 + 1).await?;
    let next = next_cursor(&mut users, limit, |user| &user.id);
    Ok(Answer::page(users.iter().map(UserView::from).collect(), next))
}

/// Makes a user, and a link for them to set a password. Nobody makes a user who may do more than they.
#[utoipa::path(post, path = "/v2/user", tag = "people", request_body = CreateUser,
    responses((status = 201, body = Answer<InvitedUser>), (status = 400, body = Errors), (status = 409, body = Errors)),
    security(("token" = ["people:write"])))]
async fn create_user(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<CreateUser>,
) -> Result<(Extension<Unrepeatable>, Answer<InvitedUser>), ApiError> {
    let new = NewUser { email: new.email, name: new.name, role: new.role };
    let (user, link) = app.people.create_user(&caller, new).await?;
    let made = InvitedUser { user: UserView::from(&user), invitation: Invitation::from(&link) };
    Ok((Extension(Unrepeatable), Answer::created(made).with_revision(user.revision)))
}

/// One user.
#[utoipa::path(get, path = "/v2/user/{id}", tag = "people", params(("id" = String, Path, description = "the user's id")),
    responses((status = 200, body = Answer<UserView>), (status = 404, body = Errors)),
    security(("token" = ["people:read"])))]
async fn get_user(State(app): State<App>, Path(id): Path<String>) -> Result<Answer<UserView>, ApiError> {
    let user = app.people.user(&id).await?;
    Ok(Answer::of(UserView::from(&user)).with_revision(user.revision))
}

/// Changes a user's name or role, or disables or enables them. Sessions of a disabled user end.
#[utoipa::path(put, path = "/v2/user/{id}", tag = "people", request_body = ChangeUser,
    params(("id" = String, Path, description = "the user's id")),
    responses((status = 200, body = Answer<UserView>), (status = 404, body = Errors), (status = 409, body = Errors), (status = 412, body = Errors)),
    security(("token" = ["people:write"])))]
async fn put_user(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    if_match: IfMatch,
    Json(change): Json<ChangeUser>,
) -> Result<Answer<UserView>, ApiError> {
    let change = UserChange { name: change.name, role: change.role, disabled: change.disabled };
    let user = app.people.change_user(&caller, &id, change, if_match.0).await?;
    Ok(Answer::of(UserView::from(&user)).with_revision(user.revision))
}

/// Removes a user with their sessions and tokens.
#[utoipa::path(delete, path = "/v2/user/{id}", tag = "people", params(("id" = String, Path, description = "the user's id")),
    responses((status = 200, body = Answer<UserView>), (status = 404, body = Errors), (status = 409, body = Errors)),
    security(("token" = ["people:write"])))]
async fn delete_user(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    if_match: IfMatch,
) -> Result<Answer<UserView>, ApiError> {
    let user = app.people.user(&id).await?;
    if_match.check(user.revision)?;
    app.people.remove_user(&caller, &id).await?;
    Ok(Answer::of(UserView::from(&user)))
}

/// Makes a new link to set a password with; earlier ones work no longer. For who lost the link, or the password.
#[utoipa::path(post, path = "/v2/user/{id}/invitation", tag = "people", params(("id" = String, Path, description = "the user's id")),
    responses((status = 201, body = Answer<Invitation>), (status = 404, body = Errors)),
    security(("token" = ["people:write"])))]
async fn invite_user(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(Extension<Unrepeatable>, Answer<Invitation>), ApiError> {
    let link = app.people.invite(&caller, &id).await?;
    Ok((Extension(Unrepeatable), Answer::created(Invitation::from(&link))))
}

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenView {
    /// The part of the token that may be shown.
    id: String,
    label: String,
    role: Role,
    /// The only permissions of the role that it has; null: all of them.
    scopes: Option<Vec<Permission>>,
    /// `valid`, `expired` or `revoked`.
    status: &'static str,
    /// In whose name it was made: it ends with that user.
    user_id: Option<String>,
    created: DateTime<Utc>,
    created_by: String,
    /// Null: never.
    expires: Option<DateTime<Utc>>,
    /// To a minute.
    last_used: Option<DateTime<Utc>>,
    revoked: Option<DateTime<Utc>>,
}

impl TokenView {
    fn of(token: &Token, now: DateTime<Utc>) -> Self {
        Self {
            id: token.id.clone(),
            label: token.label.clone(),
            role: token.role,
            scopes: token.scopes.map(|scopes| scopes.iter().collect()),
            status: TokenStatus::as_str(token.status(now)),
            user_id: token.user_id.clone(),
            created: token.created_at,
            created_by: token.created_by.clone(),
            expires: token.expires_at,
            last_used: token.last_used_at,
            revoked: token.revoked_at,
        }
    }
}

/// A token that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeToken {
    #[serde(flatten)]
    about: TokenView,
    /// What to send in `Authorization`. Shown only now.
    #[schema(example = "cc_4k9m2x7qpa_…")]
    token: String,
}

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What it is for.
    #[serde(default)]
    label: String,
    role: Role,
    /// Narrows the role to these of its permissions.
    scopes: Option<Vec<Permission>>,
    /// How long it works, a year at most; 90 days when left out.
    #[schema(example = "90d")]
    expires_in: Option<String>,
    /// Makes one that works until it is revoked.
    #[serde(default)]
    no_expiry: bool,
}

/// Every token, newest first, also those that ended.
#[utoipa::path(get, path = "/v2/token", tag = "people", params(Page),
    responses((status = 200, body = Answer<Vec<TokenView>>)), security(("token" = ["people:read"])))]
async fn list_tokens(State(app): State<App>, Query(page): Query<Page>) -> Result<Answer<Vec<TokenView>>, ApiError> {
    let limit = page.limit();
    let mut tokens = app.people.list_tokens(page.cursor.as_deref(), limit as u32 + 1).await?;
    let next = next_cursor(&mut tokens, limit, |token| &token.id);
    let now = app.service.clock().now();
    Ok(Answer::page(tokens.iter().map(|token| TokenView::of(token, now)).collect(), next))
}

/// Makes a token. Nobody makes one that may do more than they.
#[utoipa::path(post, path = "/v2/token", tag = "people", request_body = CreateToken,
    responses((status = 201, body = Answer<MadeToken>), (status = 400, body = Errors), (status = 403, body = Errors)),
    security(("token" = ["people:write"])))]
async fn create_token(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<CreateToken>,
) -> Result<(Extension<Unrepeatable>, Answer<MadeToken>), ApiError> {
    let life = match (new.expires_in, new.no_expiry) {
        (Some(_), true) => {
            return Err(ApiError::bad_request("invalid", "`expires_in` and `no_expiry` exclude each other"));
        }
        (None, true) => None,
        (given, false) => Some(humantime::parse_duration(given.as_deref().unwrap_or("90d")).map_err(|e| {
            ApiError::bad_request("invalid", format!("`expires_in` is not a duration: {e}"))
                .with_hint("for example `90d`")
                .with_field("expires_in")
        })?),
    };
    let scopes = new.scopes.map(|scopes| scopes.into_iter().collect());
    let made = app.people.create_token(&caller, NewToken { label: new.label, role: new.role, scopes, life }).await?;
    let about = TokenView::of(&made.token, app.service.clock().now());
    let token = made.secret.expose_secret().to_string();
    Ok((Extension(Unrepeatable), Answer::created(MadeToken { about, token })))
}

/// Ends a token: at once here, within five seconds in other processes of the project.
#[utoipa::path(delete, path = "/v2/token/{id}", tag = "people", params(("id" = String, Path, description = "the token's id")),
    responses((status = 200, body = Answer<TokenView>), (status = 404, body = Errors), (status = 409, body = Errors)),
    security(("token" = ["people:write"])))]
async fn revoke_token(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<TokenView>, ApiError> {
    let token = app.people.revoke_token(&caller, &id).await?;
    Ok(Answer::of(TokenView::of(&token, app.service.clock().now())))
}

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    /// How the audit trail names you.
    #[schema(example = "user:ada@example.com")]
    actor: String,
    role: Role,
    permissions: Vec<Permission>,
    user_id: Option<String>,
    token_id: Option<String>,
    /// With a session: what a change has to carry as X-CSRF-Token.
    csrf_token: Option<String>,
}

/// Who one is, and what one may do.
#[utoipa::path(get, path = "/v2/me", tag = "people", responses((status = 200, body = Answer<Me>), (status = 401, body = Errors)),
    security(("token" = [])))]
async fn me(State(app): State<App>, caller: Caller, headers: HeaderMap) -> Answer<Me> {
    let of_session = caller.means == Means::Session;
    let cookie = of_session.then(|| browser::session_cookie(&headers, &app.options)).flatten();
    Answer::of(Me {
        actor: caller.actor.clone(),
        role: caller.role,
        permissions: caller.permissions.iter().collect(),
        user_id: caller.user_id.clone(),
        token_id: caller.token_id.clone(),
        csrf_token: cookie.map(|cookie| csrf_token(&cookie)),
    })
}

/// A new password for oneself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    #[schema(value_type = String)]
    old_password: SecretString,
    #[schema(value_type = String)]
    new_password: SecretString,
}

/// Changes one's own password; all other sessions end. Only for who is signed in with a session.
#[utoipa::path(put, path = "/v2/me/password", tag = "people", request_body = ChangePassword,
    responses((status = 200, body = Answer<String>), (status = 400, body = Errors), (status = 403, body = Errors)),
    security(("token" = [])))]
async fn change_password(
    State(app): State<App>,
    caller: Caller,
    address: browser::ClientAddress,
    headers: HeaderMap,
    Json(change): Json<ChangePassword>,
) -> Result<Answer<String>, ApiError> {
    let cookie = (caller.means == Means::Session).then(|| browser::session_cookie(&headers, &app.options)).flatten();
    let Some(cookie) = cookie else {
        return Err(ApiError::forbidden("a token has no password").with_hint("sign in at /login to change yours"));
    };
    app.people.change_password(&cookie, change.old_password, change.new_password, address.0).await?;
    Ok(Answer::of("the password was changed; other sessions ended".into()))
}

/// Cuts a page that was read with one row more than it has; that row says that there is a next page.
fn next_cursor<T>(items: &mut Vec<T>, limit: usize, id: impl Fn(&T) -> &String) -> Option<String> {
    let more = items.len() > limit;
    items.truncate(limit);
    items.last().filter(|_| more).map(|last| id(last).clone())
}

impl From<PeopleError> for ApiError {
    fn from(e: PeopleError) -> Self {
        let (message, hint) = (e.to_string(), e.hint());
        let error = match e {
            PeopleError::NoSuchUser(_) => return Self::not_found(message).with_hint("GET /v2/user lists them"),
            PeopleError::NoSuchToken(_) => return Self::not_found(message).with_hint("GET /v2/token lists them"),
            PeopleError::ChangedMeanwhile(_) => return Self::changed_meanwhile(),
            PeopleError::AlreadyRevoked(_) => Self::conflict("already-revoked", message),
            PeopleError::EmailTaken(_) => Self::conflict("email-taken", message),
            PeopleError::LastAdmin => Self::conflict("last-admin", message),
            PeopleError::DeadLink => Self::new(StatusCode::GONE, "dead-link", message),
            PeopleError::Invalid { .. } => Self::bad_request("invalid", message),
            PeopleError::TooMuch { .. } => Self::forbidden(message),
            PeopleError::Busy => Self::unavailable(message),
            PeopleError::Hashing(_) | PeopleError::Randomness(_) | PeopleError::Catalog(_) => Self::internal(e),
        };
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(e: LoginError) -> Self {
        match e {
            LoginError::Refused => Self::forbidden("the password is wrong"),
            LoginError::TooMany { retry_after } => Self::too_many("there were too many attempts", retry_after),
            LoginError::People(e) => e.into(),
        }
    }
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_users, create_user))
        .routes(routes!(get_user, put_user, delete_user))
        .routes(routes!(invite_user))
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(me))
        .routes(routes!(change_password))
}
