//! Users: people with an e-mail address and a role.
//!
//! Invariants: an address belongs to one user, however its letters are cased; nobody makes, changes or removes a user
//! who may do more than they; there is always an enabled admin, once there was one.

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use uuid::Uuid;

use super::links::Link;
use super::passwords::check_rule;
use super::secret::Digest;
use super::{Identity, People, PeopleError, Role};
use crate::catalog::people::Changed;
use crate::events::{Event, Subject as EventSubject, SubjectKind};

const LONGEST_EMAIL: usize = 254;
const LONGEST_NAME: usize = 200;

/// A user as everybody who may may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: String,
    /// In lower case.
    pub email: String,
    pub name: String,
    pub role: Role,
    pub disabled: bool,
    /// Can sign in with a password.
    pub has_password: bool,
    /// Who the identity provider says it is, once it signed in there.
    pub subject: Option<Subject>,
    pub created_at: DateTime<Utc>,
    pub created_by: String,
    pub updated_at: DateTime<Utc>,
    pub updated_by: String,
    pub last_login_at: Option<DateTime<Utc>>,
    /// Counts up with every change.
    pub revision: i64,
}

/// A person as an identity provider names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub issuer: String,
    pub id: String,
}

impl User {
    pub(super) fn new(email: &str, name: &str, role: Role, by: &str, now: DateTime<Utc>) -> Result<Self, PeopleError> {
        let email = fold_email(email)?;
        let name = check_name(name)?;
        check_role(role)?;
        Ok(Self {
            id: Uuid::now_v7().to_string(),
            name: if name.is_empty() { email.clone() } else { name },
            email,
            role,
            disabled: false,
            has_password: false,
            subject: None,
            created_at: now,
            created_by: by.into(),
            updated_at: now,
            updated_by: by.into(),
            last_login_at: None,
            revision: 1,
        })
    }

    /// How the audit trail names it.
    pub fn actor(&self) -> String {
        format!("user:{}", self.email)
    }
}

/// A user to make.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub email: String,
    /// Empty: the e-mail.
    pub name: String,
    pub role: Role,
}

/// What to change of a user; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    pub name: Option<String>,
    pub role: Option<Role>,
    pub disabled: Option<bool>,
}

/// The address in lower case, if it looks like one. Whether mail arrives there only mail can tell.
pub fn fold_email(email: &str) -> Result<String, PeopleError> {
    let folded = email.trim().to_lowercase();
    let plausible = folded.len() <= LONGEST_EMAIL
        && !folded.contains(|c: char| c.is_whitespace() || c.is_control())
        && matches!(folded.rsplit_once('@'), Some((local, domain)) if !local.is_empty() && !domain.is_empty() && !local.contains('@'));
    if plausible {
        Ok(folded)
    } else {
        Err(PeopleError::invalid("that is no e-mail address", "for example ada@example.com"))
    }
}

fn check_name(name: &str) -> Result<String, PeopleError> {
    let name = name.trim();
    if name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
        let message = format!("a name has at most {LONGEST_NAME} characters, in one line");
        return Err(PeopleError::invalid(message, "give the name as colleagues know it"));
    }
    Ok(name.into())
}

fn check_role(role: Role) -> Result<(), PeopleError> {
    if role == Role::Public {
        let hint = "public is for tokens that everybody may see; the least a user can be is viewer";
        return Err(PeopleError::invalid("a user cannot have the role public", hint));
    }
    Ok(())
}

/// Nobody manages those who may do more.
fn check_reach(by: &Identity, role: Role) -> Result<(), PeopleError> {
    let missing = role.permissions().without(by.permissions);
    if missing.is_empty() { Ok(()) } else { Err(PeopleError::TooMuch { what: format!("the role `{role}`"), missing }) }
}

impl People {
    /// Makes a user, and a link for them to set a password.
    pub async fn create_user(&self, by: &Identity, new: NewUser) -> Result<(User, Link), PeopleError> {
        let user = self.add_user(by, new, None).await?;
        let link = self.invite(by, &user.id).await?;
        Ok((user, link))
    }

    /// Makes a user; with a password, they can sign in at once.
    pub async fn add_user(
        &self,
        by: &Identity,
        new: NewUser,
        password: Option<SecretString>,
    ) -> Result<User, PeopleError> {
        let mut user = User::new(&new.email, &new.name, new.role, &by.actor, self.clock.now())?;
        check_reach(by, user.role)?;
        let hash = match password {
            Some(password) => {
                check_rule(&password, &user.email)?;
                Some(self.passwords.hash(password).await?)
            }
            None => None,
        };
        user.has_password = hash.is_some();
        let event = self.user_event(&by.actor, &user, "created", "the user was made");
        if !self.catalog.add_user(&user, hash.as_deref(), &event).await? {
            return Err(PeopleError::EmailTaken(user.email));
        }
        Ok(user)
    }

    pub async fn user(&self, id: &str) -> Result<User, PeopleError> {
        let found = self.catalog.user(id).await?.ok_or_else(|| PeopleError::NoSuchUser(id.into()))?;
        Ok(found.user)
    }

    /// By id, or by e-mail.
    pub async fn find_user(&self, name: &str) -> Result<User, PeopleError> {
        if let Some(found) = self.catalog.user_by_email(&name.trim().to_lowercase()).await? {
            return Ok(found.user);
        }
        self.user(name).await
    }

    /// By e-mail, after the user that a page ended with.
    pub async fn list_users(&self, after: Option<&str>, limit: u32) -> Result<Vec<User>, PeopleError> {
        Ok(self.catalog.users(after, limit).await?)
    }

    /// Changes a user, if it is still of that revision (none: of any).
    pub async fn change_user(
        &self,
        by: &Identity,
        id: &str,
        change: UserChange,
        revision: Option<i64>,
    ) -> Result<User, PeopleError> {
        let before = self.user(id).await?;
        if revision.is_some_and(|revision| revision != before.revision) {
            return Err(PeopleError::ChangedMeanwhile(before.email));
        }
        let mut after = before.clone();
        if let Some(name) = change.name {
            after.name = check_name(&name)?;
        }
        after.role = change.role.unwrap_or(before.role);
        after.disabled = change.disabled.unwrap_or(before.disabled);
        check_role(after.role)?;
        check_reach(by, before.role)?;
        check_reach(by, after.role)?;
        if after == before {
            return Ok(before);
        }
        self.write_user(&by.actor, &before, after).await
    }

    /// Writes a changed user. Its tokens heed it at once.
    pub(super) async fn write_user(&self, by: &str, before: &User, after: User) -> Result<User, PeopleError> {
        let (verb, message) = match (before.disabled, after.disabled) {
            (false, true) => ("disabled", "the user was disabled"),
            (true, false) => ("enabled", "the user was enabled"),
            _ => ("updated", "the user was changed"),
        };
        let mut event = self.user_event(by, &after, verb, message);
        event.details["before"] = serde_json::json!({ "name": before.name, "role": before.role });
        let changed = self.catalog.change_user(&after, &event).await?;
        self.tokens.forget();
        match changed {
            Changed::Done => self.user(&after.id).await,
            Changed::Meanwhile => Err(PeopleError::ChangedMeanwhile(after.email)),
            Changed::LastAdmin => Err(PeopleError::LastAdmin),
        }
    }

    /// Removes a user with their sessions and tokens.
    pub async fn remove_user(&self, by: &Identity, id: &str) -> Result<(), PeopleError> {
        let user = self.user(id).await?;
        check_reach(by, user.role)?;
        let event =
            self.user_event(&by.actor, &user, "deleted", "the user was removed, with their sessions and tokens");
        let changed = self.catalog.remove_user(id, &event).await?;
        self.tokens.forget();
        match changed {
            Changed::Done => Ok(()),
            Changed::Meanwhile => Err(PeopleError::NoSuchUser(id.into())),
            Changed::LastAdmin => Err(PeopleError::LastAdmin),
        }
    }

    /// Makes a link to set a new password with; links made before work no longer.
    pub async fn invite(&self, by: &Identity, id: &str) -> Result<Link, PeopleError> {
        let user = self.user(id).await?;
        check_reach(by, user.role)?;
        if user.disabled {
            let hint = "enable the user first";
            return Err(PeopleError::invalid(format!("{} is disabled", user.email), hint));
        }
        let link = Link::new(self.clock.now())?;
        let event = self.user_event(&by.actor, &user, "invited", "a link to set a password was made");
        self.catalog.invite(&link.digest(), id, link.expires_at, &event).await?;
        Ok(link)
    }

    /// Sets somebody's password, without knowing the old one. Their sessions end.
    pub async fn set_password(&self, by: &Identity, id: &str, password: SecretString) -> Result<(), PeopleError> {
        let user = self.user(id).await?;
        check_reach(by, user.role)?;
        self.write_password(&by.actor, &user, password, None).await
    }

    pub(super) async fn write_password(
        &self,
        by: &str,
        user: &User,
        password: SecretString,
        keep: Option<&Digest>,
    ) -> Result<(), PeopleError> {
        check_rule(&password, &user.email)?;
        let hash = self.passwords.hash(password).await?;
        let event = self.user_event(by, user, "password_set", "a new password was set; other sessions ended");
        if !self.catalog.set_password(&user.id, &hash, keep, &event).await? {
            return Err(PeopleError::NoSuchUser(user.id.clone()));
        }
        Ok(())
    }

    pub(super) fn user_event(&self, by: &str, user: &User, verb: &str, message: &str) -> Event {
        let details = serde_json::json!({
            "email": user.email,
            "name": user.name,
            "role": user.role,
            "disabled": user.disabled,
        });
        let subject = EventSubject::new(SubjectKind::User, &user.id);
        Event::new(self.clock.now(), subject, verb, message).by(by).with(details)
    }
}
