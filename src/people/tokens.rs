//! API tokens: what programs prove themselves with.
//!
//! A token reads `cc_<id>_<secret>`: ten characters that name it and may be shown, then 32 random bytes that are shown
//! once, when it is made. The catalog keeps a digest of the whole text ([`super::secret`]).
//!
//! Invariants: a token may do what its role *and* its scopes *and* the user in whose name it was made may do; one that
//! ended (expired, revoked, user disabled) works for no longer than [`cache::LIFETIME`] more, and in the process that
//! ended it, not at all.

mod cache;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;

pub(super) use cache::Cache;

use super::caller::{Identity, Means};
use super::secret::{self, Digest, ID_LENGTH};
use super::{AuthError, People, PeopleError, Permissions, Role};
use crate::catalog::people::TokenWithUser;
use crate::events::{Event, Subject, SubjectKind};

/// What every token begins with, so that scanners of leaked secrets know one.
pub const PREFIX: &str = "cc_";
/// The longest life that a token may be given, other than for ever.
/// A leap year: `1y` is a quarter of a day longer than 365 days.
pub const LONGEST_LIFE: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const LONGEST_LABEL: usize = 100;
/// How exact `last_used_at` is: a write a request would cost more than the request.
const USE_NOTED_EVERY: TimeDelta = TimeDelta::seconds(60);

/// A token as everybody who may may see it: all but the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub label: String,
    pub role: Role,
    /// None: all that the role may.
    pub scopes: Option<Permissions>,
    pub created_at: DateTime<Utc>,
    pub created_by: String,
    /// The user in whose name it was made; none for one of the command line.
    pub user_id: Option<String>,
    /// None: never.
    pub expires_at: Option<DateTime<Utc>>,
    /// To a minute.
    pub last_used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// How a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenStatus {
    Valid,
    Expired,
    Revoked,
}

impl TokenStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl Token {
    pub fn status(&self, now: DateTime<Utc>) -> TokenStatus {
        if self.revoked_at.is_some() {
            TokenStatus::Revoked
        } else if self.expires_at.is_some_and(|at| at <= now) {
            TokenStatus::Expired
        } else {
            TokenStatus::Valid
        }
    }

    pub fn permissions(&self) -> Permissions {
        let of_role = self.role.permissions();
        self.scopes.map_or(of_role, |scopes| scopes.intersection(of_role))
    }

    /// How the audit trail names it. Labels may repeat, ids do not.
    pub fn actor(&self) -> String {
        if self.label.is_empty() { format!("token:{}", self.id) } else { format!("token:{}#{}", self.label, self.id) }
    }
}

/// A token to make.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub label: String,
    pub role: Role,
    /// None: all that the role may.
    pub scopes: Option<Permissions>,
    /// None: for ever.
    pub life: Option<Duration>,
}

/// A token that was just made.
#[derive(Debug)]
pub struct MadeToken {
    pub token: Token,
    /// Its text, which nobody can show again.
    pub secret: SecretString,
}

/// The id and the whole text of a token in an `Authorization` header: `Bearer <token>`, or the token alone.
fn read_header(header: &str) -> Result<(&str, &str), AuthError> {
    let header = header.trim();
    if header.is_empty() {
        return Err(AuthError::Missing);
    }
    let text = match header.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
        Some(_) => return Err(AuthError::Malformed),
        None => header,
    };
    let id = text.strip_prefix(PREFIX).and_then(|rest| rest.get(..ID_LENGTH)).ok_or(AuthError::Malformed)?;
    Ok((id, text))
}

impl People {
    /// Who sent this `Authorization` header.
    pub async fn authenticate_token(&self, header: &str) -> Result<Arc<Identity>, AuthError> {
        let (id, text) = read_header(header)?;
        let digest = Digest::of(text);
        let now = self.clock.now();
        if let Some(found) = self.tokens.get(&digest, now) {
            return Ok(found);
        }
        let asked = self.tokens.ask();
        let Some(found) = self.catalog.token(id).await? else { return Err(AuthError::Unknown) };
        if found.digest != digest {
            return Err(AuthError::Unknown);
        }
        let identity = Arc::new(identity_of(&found, now)?);
        self.tokens.put(asked, digest, Arc::clone(&identity), found.token.expires_at, now);
        if found.token.last_used_at.is_none_or(|at| at + USE_NOTED_EVERY <= now) {
            self.note_use(found.token.id, now);
        }
        Ok(identity)
    }

    /// Notes a token's use without keeping its request waiting.
    fn note_use(&self, id: String, now: DateTime<Utc>) {
        let catalog = self.catalog.clone();
        tokio::spawn(async move {
            if let Err(error) = catalog.token_used(&id, now).await {
                tracing::warn!(token = id, %error, "the use of a token could not be noted");
            }
        });
    }

    /// Makes a token in the name of `by`, who gives away no more than they have.
    pub async fn create_token(&self, by: &Identity, new: NewToken) -> Result<MadeToken, PeopleError> {
        let label = new.label.trim();
        if label.chars().count() > LONGEST_LABEL || label.chars().any(char::is_control) {
            let message = format!("a label has at most {LONGEST_LABEL} characters, in one line");
            return Err(PeopleError::invalid(message, "say in a few words what the token is for, for example `ci`"));
        }
        if let Some(beyond) = new.scopes.map(|s| s.without(new.role.permissions())).and_then(|s| s.iter().next()) {
            let message = format!("the role `{}` does not have the permission `{beyond}`", new.role);
            return Err(PeopleError::invalid(message, "scopes only narrow a role; docs/security.md has the table"));
        }
        if new.scopes.is_some_and(Permissions::is_empty) {
            return Err(PeopleError::invalid("no scope is given", "leave the scopes out to allow all of the role"));
        }
        if new.life.is_some_and(|life| life > LONGEST_LIFE || life < Duration::from_secs(1)) {
            let hint = "give for example `90d`; a token that never expires has to be asked for as such";
            return Err(PeopleError::invalid("a token expires after a second at least and a year at most", hint));
        }
        let now = self.clock.now();
        let id = secret::random_id()?;
        let text = format!("{PREFIX}{id}_{}", secret::random_text()?);
        let token = Token {
            id,
            label: label.into(),
            role: new.role,
            scopes: new.scopes,
            created_at: now,
            created_by: by.actor.clone(),
            user_id: by.user_id.clone(),
            expires_at: new.life.and_then(|life| now.checked_add_signed(TimeDelta::from_std(life).ok()?)),
            last_used_at: None,
            revoked_at: None,
        };
        let missing = token.permissions().without(by.permissions);
        if !missing.is_empty() {
            return Err(PeopleError::TooMuch { what: "the token".into(), missing });
        }
        let event = self.token_event(by, &token, "created", "the token was made");
        self.catalog.add_token(&token, &Digest::of(&text), &event).await?;
        Ok(MadeToken { token, secret: text.into() })
    }

    /// Newest first, after the token that a page ended with.
    pub async fn list_tokens(&self, after: Option<&str>, limit: u32) -> Result<Vec<Token>, PeopleError> {
        Ok(self.catalog.tokens(after, limit).await?)
    }

    /// Ends a token: in this process at once, in others within [`cache::LIFETIME`].
    pub async fn revoke_token(&self, by: &Identity, id: &str) -> Result<Token, PeopleError> {
        let known = self.catalog.token(id).await?.ok_or_else(|| PeopleError::NoSuchToken(id.into()))?.token;
        let event = self.token_event(by, &known, "revoked", "the token was revoked");
        let revoked = self.catalog.revoke_token(id, &event).await?;
        self.tokens.forget();
        if !revoked {
            return Err(PeopleError::AlreadyRevoked(id.into()));
        }
        Ok(Token { revoked_at: Some(event.at), ..known })
    }

    fn token_event(&self, by: &Identity, token: &Token, verb: &str, message: &str) -> Event {
        let details = serde_json::json!({
            "label": token.label,
            "role": token.role,
            "scopes": token.scopes.map(|scopes| scopes.iter().collect::<Vec<_>>()),
            "expires_at": token.expires_at,
        });
        let subject = Subject::new(SubjectKind::Token, &token.id);
        Event::new(self.clock.now(), subject, verb, message).by(&by.actor).with(details)
    }
}

fn identity_of(found: &TokenWithUser, now: DateTime<Utc>) -> Result<Identity, AuthError> {
    let token = &found.token;
    match token.status(now) {
        TokenStatus::Valid => {}
        TokenStatus::Expired => return Err(AuthError::Expired),
        TokenStatus::Revoked => return Err(AuthError::Revoked),
    }
    let mut permissions = token.permissions();
    if let Some((role, disabled)) = found.user {
        if disabled {
            return Err(AuthError::Disabled);
        }
        permissions = permissions.intersection(role.permissions());
    }
    Ok(Identity {
        actor: token.actor(),
        role: token.role,
        permissions,
        user_id: token.user_id.clone(),
        token_id: Some(token.id.clone()),
        means: Means::Token,
    })
}

#[cfg(test)]
mod tests;
