//! Why somebody was not let in, and why a change to users or tokens was refused.

use std::time::Duration;

use crate::catalog::CatalogError;
use crate::people::passwords::HashError;
use crate::people::role::{Permissions, Role};
use crate::people::secret::NoRandomness;

/// Why a request's credentials were not accepted. Says nothing of the credentials themselves.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("the request has no credentials")]
    Missing,
    #[error("the `Authorization` header holds no token of this service")]
    Malformed,
    /// No such token or session, or its secret is wrong.
    #[error("the credentials are not known")]
    Unknown,
    #[error("the credentials have expired")]
    Expired,
    #[error("the token was revoked")]
    Revoked,
    #[error("the user is disabled")]
    Disabled,
    /// The service's own trouble.
    #[error("the credentials could not be checked: {0}")]
    Catalog(#[from] CatalogError),
}

impl AuthError {
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("send `Authorization: Bearer <token>`, or sign in at /login"),
            Self::Malformed => Some("send `Authorization: Bearer <token>`; a token begins with `cc_`"),
            Self::Unknown => Some("check that the whole token was copied, and that it is of this service"),
            Self::Expired | Self::Revoked => Some("make a new one with `cloud-connect token create`, or sign in again"),
            Self::Disabled => Some("an admin can enable the user again"),
            Self::Catalog(_) => None,
        }
    }
}

/// Why a user, a token or a link could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    #[error("there is no token `{0}`")]
    NoSuchToken(String),
    #[error("the token `{0}` was revoked before")]
    AlreadyRevoked(String),
    /// What was given breaks a rule.
    #[error("{message}")]
    Invalid { message: String, hint: String },
    /// Somebody gives away more than they have.
    #[error("{what} would be allowed what you are not: {}", names(*missing))]
    TooMuch { what: String, missing: Permissions },
    #[error("there is no user `{0}`")]
    NoSuchUser(String),
    #[error("there is a user with the e-mail {0} already")]
    EmailTaken(String),
    /// Somebody else was faster.
    #[error("{0} was changed since you read it")]
    ChangedMeanwhile(String),
    #[error("nobody would be left to administer the service")]
    LastAdmin,
    #[error("the link does not work: it was used, has expired, or was replaced by a newer one")]
    DeadLink,
    #[error("too many logins are under way")]
    Busy,
    #[error("passwords cannot be hashed: {0}")]
    Hashing(String),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    #[error("{0}")]
    Catalog(#[from] CatalogError),
}

fn names(permissions: Permissions) -> String {
    permissions.iter().map(|p| format!("`{p}`")).collect::<Vec<_>>().join(", ")
}

impl PeopleError {
    pub(super) fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: hint.into() }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSuchToken(_) => {
                Some("`cloud-connect token list` shows them; the id is the part after `cc_`".into())
            }
            Self::AlreadyRevoked(_) => None,
            Self::Invalid { hint, .. } => Some(hint.clone()),
            Self::TooMuch { .. } => {
                let admin = Role::Admin.title();
                Some(format!("choose a smaller role or narrower scopes, or ask somebody with the role {admin}"))
            }
            Self::NoSuchUser(_) => Some("`cloud-connect user list` shows them".into()),
            Self::EmailTaken(_) => Some("change that user instead, or invite them anew".into()),
            Self::ChangedMeanwhile(_) => Some("read it again, and repeat what is still wanted".into()),
            Self::LastAdmin => Some("make somebody else an admin first".into()),
            Self::DeadLink => {
                Some("ask an admin for a new one; a start of the service without users prints one".into())
            }
            Self::Busy => Some("try again in a few seconds".into()),
            Self::Hashing(_) | Self::Randomness(_) | Self::Catalog(_) => None,
        }
    }

    /// Is it the service's own trouble, and not what was asked?
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Hashing(_) | Self::Randomness(_) | Self::Catalog(_) | Self::Busy)
    }
}

impl From<HashError> for PeopleError {
    fn from(e: HashError) -> Self {
        match e {
            HashError::Busy => Self::Busy,
            HashError::Broken(why) => Self::Hashing(why),
        }
    }
}

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No such user, a wrong password, a disabled user: which, is not told.
    #[error("the e-mail or the password is wrong")]
    Refused,
    #[error("there were too many attempts")]
    TooMany { retry_after: Duration },
    #[error("{0}")]
    People(#[from] PeopleError),
}

impl From<CatalogError> for LoginError {
    fn from(e: CatalogError) -> Self {
        Self::People(e.into())
    }
}
