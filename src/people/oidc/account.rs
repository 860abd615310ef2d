//! Which user somebody is whom the provider vouches for.

use serde_json::Value;

use super::id_token::Claims;
use super::{Callback, OidcConfig, OidcError, Start};
use crate::people::sessions::NewSession;
use crate::people::users::{Subject, User};
use crate::people::{People, PeopleError, Role};

/// Who the audit trail says did it.
const ACTOR: &str = "identity_provider";

/// The role that the provider gives; none when it says nothing of one that is known here.
fn role_of(claims: &Claims, config: &OidcConfig) -> Option<Role> {
    let path = config.roles_claim.as_deref()?;
    let found = claims.others.get(path).or_else(|| {
        let mut parts = path.split('.');
        let first = claims.others.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    })?;
    let values = match found {
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let roles = values.iter().filter_map(Value::as_str).filter_map(|name| config.roles.get(name));
    // in several groups: the role that may most
    roles.copied().min_by_key(|role| Role::ALL.iter().position(|r| r == role))
}

fn is_allowed(email: &str, domains: &[String]) -> bool {
    let domain = email.rsplit_once('@').map_or("", |(_, domain)| domain);
    domains.is_empty() || domains.iter().any(|allowed| allowed.eq_ignore_ascii_case(domain))
}

impl People {
    /// Begins a sign-in at the identity provider.
    pub async fn start_at_provider(&self, redirect_uri: String, next: &str) -> Result<Start, OidcError> {
        self.provider.as_ref().ok_or(OidcError::NotConfigured)?.start(redirect_uri, next).await
    }

    /// Ends it: the session, and where to go on to. `binding`: the browser's cookie.
    pub async fn finish_at_provider(
        &self,
        callback: Callback,
        binding: Option<&str>,
    ) -> Result<(NewSession, String), OidcError> {
        let provider = self.provider.as_ref().ok_or(OidcError::NotConfigured)?;
        let (claims, next) = provider.finish(callback, binding).await?;
        let user = self.user_of_claims(&claims, &provider.config).await?;
        Ok((self.begin_session(user, "at the identity provider").await?, next))
    }

    pub(super) async fn user_of_claims(&self, claims: &Claims, config: &OidcConfig) -> Result<User, OidcError> {
        let refused = |why: &str| OidcError::Refused(why.into());
        let email = claims
            .verified_email()
            .ok_or_else(|| refused("the identity provider does not vouch for an e-mail address of yours"))?
            .to_lowercase();
        if !is_allowed(&email, &config.allowed_domains) {
            return Err(refused("people of your e-mail domain do not get in here"));
        }
        let role = role_of(claims, config).or(config.default_role);
        let no_role = || refused("you have no role here: ask an admin");
        // with a claim the provider decides, also that somebody is no longer to get in
        if config.roles_claim.is_some() && role.is_none() {
            return Err(no_role());
        }
        let subject = Subject { issuer: config.issuer.clone(), id: claims.sub.clone() };
        let known = match self.catalog.user_by_subject(&subject).await? {
            Some(user) => Some(user),
            // who was invited, or had a password before there was a provider
            None => self.catalog.user_by_email(&email).await?.map(|found| found.user),
        };
        let Some(known) = known else {
            return self.user_from_provider(&email, claims, role.ok_or_else(no_role)?, subject).await;
        };
        if known.disabled {
            return Err(refused("the user is disabled: ask an admin"));
        }
        if known.subject.as_ref().is_some_and(|known| *known != subject) {
            return Err(refused("another person at the identity provider has this e-mail address here: ask an admin"));
        }
        let role = if config.roles_claim.is_some() { role.unwrap_or(known.role) } else { known.role };
        let after = User { subject: Some(subject), role, ..known.clone() };
        if after == known {
            return Ok(known);
        }
        match self.write_user(ACTOR, &known, after.clone()).await {
            Err(PeopleError::LastAdmin) => {
                tracing::warn!(user = known.id, "the identity provider takes the last admin's role away: it is kept");
                let kept = User { role: known.role, ..after };
                if kept == known { Ok(known) } else { Ok(self.write_user(ACTOR, &known, kept).await?) }
            }
            written => Ok(written?),
        }
    }

    async fn user_from_provider(
        &self,
        email: &str,
        claims: &Claims,
        role: Role,
        subject: Subject,
    ) -> Result<User, OidcError> {
        // a name that does not keep our rules is no reason to keep its bearer out
        let name = claims.name.as_deref().unwrap_or_default();
        let now = self.clock.now();
        let user = User::new(email, name, role, ACTOR, now).or_else(|_| User::new(email, "", role, ACTOR, now))?;
        let user = User { subject: Some(subject), ..user };
        let event = self.user_event(ACTOR, &user, "created", "the user came from the identity provider");
        if !self.catalog.add_user(&user, None, &event).await? {
            return Err(PeopleError::EmailTaken(email.into()).into());
        }
        Ok(user)
    }
}
