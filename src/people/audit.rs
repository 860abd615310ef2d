//! What is written down of changes to users and tokens.

use super::tokens::Token;
use super::{Identity, People, PeopleError};

impl People {
    pub(super) async fn record_token(
        &self,
        by: &Identity,
        token: &Token,
        verb: &str,
        message: &str,
    ) -> Result<(), PeopleError> {
        tracing::info!(actor = by.actor, token = token.id, role = token.role.as_str(), verb, "{message}");
        Ok(())
    }
}
