//! Browsers that are signed in, and how one signs in with a password.
//!
//! A session is a random secret in a cookie; the catalog keeps its digest. Every request asks the catalog, so that a
//! session that ended works nowhere. What a cookie authenticates may have been sent by another site's page, so changes
//! need a second proof: a token that only who can read the cookie's answers knows ([`csrf_token`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::caller::{Identity, Means};
use super::passwords::LONGEST;
use super::secret::{self, Digest};
use super::throttle::Key;
use super::users::User;
use super::{AuthError, LoginError, People, PeopleError};

/// Signed out after so long without a request.
pub const IDLE: TimeDelta = TimeDelta::hours(12);
/// Signed out after so long, whatever happens.
pub const LONGEST_SESSION: TimeDelta = TimeDelta::days(7);
/// How exact "without a request" is: no write a request.
const SEEN_NOTED_EVERY: TimeDelta = TimeDelta::seconds(60);

/// A session that just began.
#[derive(Debug)]
pub struct NewSession {
    /// For the cookie.
    pub secret: SecretString,
    pub user: User,
    pub expires_at: DateTime<Utc>,
}

/// What a page of this session sends with a change, in `X-CSRF-Token` or a hidden field: made from the cookie's secret,
/// which a page of another site cannot read.
pub fn csrf_token(cookie: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, cookie.as_bytes());
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, b"cloud-connect csrf"))
}

/// Is it the session's token?
pub fn is_csrf_token(cookie: &str, given: &str) -> bool {
    csrf_token(cookie).as_bytes().ct_eq(given.as_bytes()).into()
}

impl People {
    /// Signs in with a password. Whether there is such a user, takes as long and is answered alike.
    pub async fn log_in(
        &self,
        email: &str,
        password: SecretString,
        address: Option<IpAddr>,
    ) -> Result<NewSession, LoginError> {
        let email = email.trim().to_lowercase();
        let now = self.clock.now();
        let keys: Vec<Key> = [Some(Key::account(&email)), address.map(Key::address)].into_iter().flatten().collect();
        if let Err(wait) = self.throttle.attempt(&keys, now) {
            return Err(LoginError::TooMany { retry_after: wait.to_std().unwrap_or(Duration::from_secs(1)) });
        }
        let found = self.catalog.user_by_email(&email).await?;
        let hash = found.as_ref().filter(|found| !found.user.disabled).and_then(|found| found.password_hash.clone());
        let too_long = password.expose_secret().len() > LONGEST;
        let right = !too_long && self.passwords.verify(password, hash).await.map_err(PeopleError::from)?;
        let Some(found) = found.filter(|_| right) else {
            // what was typed stays out of the log: it may be a password in the wrong field
            tracing::info!(address = address.map(tracing::field::display), "a login was refused");
            return Err(LoginError::Refused);
        };
        self.throttle.success(&keys);
        Ok(self.begin_session(found.user, "with a password").await?)
    }

    /// Signs a user in who proved it `how`: with a link, or at the identity provider.
    pub async fn begin_session(&self, user: User, how: &str) -> Result<NewSession, PeopleError> {
        let secret = secret::random_text()?;
        let event = self.user_event(&user.actor(), &user, "signed_in", &format!("signed in {how}"));
        let expires_at = event.at + LONGEST_SESSION;
        self.catalog.add_session(&Digest::of(&secret), &user.id, expires_at, &event).await?;
        Ok(NewSession { secret: secret.into(), user, expires_at })
    }

    /// Whose session the cookie's value is.
    pub async fn authenticate_session(&self, cookie: &str) -> Result<Arc<Identity>, AuthError> {
        let digest = Digest::of(cookie);
        let now = self.clock.now();
        let session = self.catalog.session(&digest).await?.ok_or(AuthError::Unknown)?;
        if session.expires_at <= now || session.last_seen_at + IDLE <= now {
            return Err(AuthError::Expired);
        }
        if session.user.disabled {
            return Err(AuthError::Disabled);
        }
        if session.last_seen_at + SEEN_NOTED_EVERY <= now {
            let catalog = self.catalog.clone();
            // the request need not wait for it
            tokio::spawn(async move {
                if let Err(error) = catalog.session_seen(&digest, now).await {
                    tracing::warn!(%error, "the use of a session could not be noted");
                }
            });
        }
        let user = session.user;
        Ok(Arc::new(Identity {
            actor: user.actor(),
            role: user.role,
            permissions: user.role.permissions(),
            user_id: Some(user.id),
            token_id: None,
            means: Means::Session,
        }))
    }

    /// Ends the session.
    pub async fn log_out(&self, cookie: &str) -> Result<(), PeopleError> {
        self.catalog.remove_session(&Digest::of(cookie)).await?;
        Ok(())
    }

    /// Changes one's own password, who knows the old one. All sessions but this end.
    pub async fn change_password(
        &self,
        cookie: &str,
        old: SecretString,
        new: SecretString,
        address: Option<IpAddr>,
    ) -> Result<(), LoginError> {
        let identity = self.authenticate_session(cookie).await.map_err(|_| LoginError::Refused)?;
        let id = identity.user_id.as_deref().ok_or(LoginError::Refused)?;
        let found = self.catalog.user(id).await?.ok_or(LoginError::Refused)?;
        let keys: Vec<Key> =
            [Some(Key::account(&found.user.email)), address.map(Key::address)].into_iter().flatten().collect();
        if let Err(wait) = self.throttle.attempt(&keys, self.clock.now()) {
            return Err(LoginError::TooMany { retry_after: wait.to_std().unwrap_or(Duration::from_secs(1)) });
        }
        if !self.passwords.verify(old, found.password_hash).await.map_err(PeopleError::from)? {
            return Err(LoginError::Refused);
        }
        self.throttle.success(&keys);
        self.write_password(&identity.actor, &found.user, new, Some(&Digest::of(cookie))).await?;
        Ok(())
    }
}
