//! Why somebody was not let in, and why a change to users or tokens was refused.

use crate::catalog::CatalogError;
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
            Self::Randomness(_) | Self::Catalog(_) => None,
        }
    }
}
