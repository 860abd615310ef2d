//! People and programs that use the service: who they are, how they prove it, and what they may do.
//!
//! ```text
//! Authorization header ─► tokens   ┐
//! cookie               ─► sessions ┴─► Identity { role, permissions } ─► the server asks for a permission
//! ```
//!
//! [`role`] says who may do what; [`users`] have [`passwords`], or come by an identity provider; [`links`] let the
//! first admin and the invited in; `throttle` slows guessing down; `secret` makes random secrets and their digests.
//!
//! Invariants: no secret is stored, only what checks it; nobody gives away more than they have.

mod caller;
mod error;
pub mod links;
pub mod oidc;
pub mod passwords;
pub mod role;
pub(crate) mod secret;
pub mod sessions;
#[cfg(test)]
mod tests;
mod throttle;
pub mod tokens;
pub mod users;

use std::sync::Arc;

pub use caller::{Identity, Means};
pub use error::{AuthError, LoginError, PeopleError};
pub use role::{Permission, Permissions, Role};

use crate::catalog::Catalog;
use crate::clock::Clock;
use oidc::Provider;
use passwords::Passwords;
use throttle::Throttle;

/// Everything about people and tokens of one project. One a process: what it remembers is forgotten when it changes.
#[derive(Clone)]
pub struct People {
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    tokens: Arc<tokens::Cache>,
    passwords: Arc<Passwords>,
    throttle: Arc<Throttle>,
    provider: Option<Arc<Provider>>,
}

impl People {
    pub fn new(catalog: Catalog, clock: Arc<dyn Clock>) -> Self {
        Self {
            catalog,
            clock,
            tokens: Arc::default(),
            passwords: Arc::default(),
            throttle: Arc::default(),
            provider: None,
        }
    }

    /// With an identity provider to sign in at.
    #[must_use]
    pub fn with_provider(self, provider: Provider) -> Self {
        Self { provider: Some(Arc::new(provider)), ..self }
    }

    /// Can people sign in at an identity provider?
    pub fn has_provider(&self) -> bool {
        self.provider.is_some()
    }
}

impl std::fmt::Debug for People {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("People").finish_non_exhaustive()
    }
}
