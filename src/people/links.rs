//! Links that work once: to found the first admin, and to set a password without one being sent in clear.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};

use super::passwords::check_rule;
use super::secret::{self, Digest, NoRandomness};
use super::users::User;
use super::{People, PeopleError, Role};
use crate::catalog::people::Claim;

/// How long a link works.
pub const LIFETIME: TimeDelta = TimeDelta::hours(24);

/// A link that was just made.
#[derive(Debug)]
pub struct Link {
    /// What the address ends with. Shown once.
    pub secret: SecretString,
    pub expires_at: DateTime<Utc>,
}

impl Link {
    pub(super) fn new(now: DateTime<Utc>) -> Result<Self, NoRandomness> {
        Ok(Self { secret: secret::random_text()?.into(), expires_at: now + LIFETIME })
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(self.secret.expose_secret())
    }
}

impl People {
    /// The link that founds the first admin, as long as there is no user. The one that was printed before works no
    /// longer.
    pub async fn first_admin_link(&self) -> Result<Option<Link>, PeopleError> {
        let now = self.clock.now();
        let link = Link::new(now)?;
        let offered = self.catalog.offer_first_admin(&link.digest(), now, link.expires_at).await?;
        Ok(offered.then_some(link))
    }

    /// Would this link found the first admin?
    pub async fn first_admin_offered(&self, secret: &str) -> Result<bool, PeopleError> {
        Ok(self.catalog.first_admin_offered(&Digest::of(secret), self.clock.now()).await?)
    }

    /// Founds the first admin.
    pub async fn found_first_admin(
        &self,
        secret: &str,
        email: &str,
        name: &str,
        password: SecretString,
    ) -> Result<User, PeopleError> {
        // before the work of hashing: this is asked by anybody
        if !self.first_admin_offered(secret).await? {
            return Err(PeopleError::DeadLink);
        }
        let mut user = User::new(email, name, Role::Admin, "first_admin_link", self.clock.now())?;
        user.has_password = true;
        check_rule(&password, &user.email)?;
        let hash = self.passwords.hash(password).await?;
        let event = self.user_event(
            "first_admin_link",
            &user,
            "created",
            "the first admin was founded by the link of the start",
        );
        match self.catalog.claim_first_admin(&Digest::of(secret), &user, &hash, &event).await? {
            Claim::Done => Ok(user),
            Claim::Invalid => Err(PeopleError::DeadLink),
        }
    }

    /// Whom this link invites.
    pub async fn invited(&self, secret: &str) -> Result<User, PeopleError> {
        self.catalog.invited(&Digest::of(secret), self.clock.now()).await?.ok_or(PeopleError::DeadLink)
    }

    /// Sets the password of the invited user.
    pub async fn accept_invitation(&self, secret: &str, password: SecretString) -> Result<User, PeopleError> {
        let user = self.invited(secret).await?;
        check_rule(&password, &user.email)?;
        let hash = self.passwords.hash(password).await?;
        let event = self.user_event(&user.actor(), &user, "password_set", "a password was set with an invitation");
        match self.catalog.claim_invitation(&Digest::of(secret), &hash, &event).await? {
            Claim::Done => Ok(user),
            Claim::Invalid => Err(PeopleError::DeadLink),
        }
    }
}
