//! Users. Every change carries its event; none leaves the project without an admin who can sign in.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{named, time};
use crate::catalog::{Catalog, CatalogError, events};
use crate::events::Event;
use crate::people::secret::Digest;
use crate::people::users::{Subject, User};

/// A user with what checking a password needs.
#[derive(Debug)]
pub struct UserWithPassword {
    pub user: User,
    pub password_hash: Option<String>,
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    Done,
    /// There is none, or it is of another revision by now.
    Meanwhile,
    /// It would leave no enabled admin.
    LastAdmin,
}

const ENABLED_ADMINS: &str = "SELECT count(*) FROM users WHERE role = 'admin' AND disabled = 0";

impl Catalog {
    /// Adds a user with its event; false when the e-mail is taken.
    pub async fn add_user(
        &self,
        user: &User,
        password_hash: Option<&str>,
        event: &Event,
    ) -> Result<bool, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let added = insert(&mut tx, user, password_hash).await?;
        events::commit_if(added, tx, event).await
    }

    pub async fn user(&self, id: &str) -> Result<Option<UserWithPassword>, CatalogError> {
        let row = sqlx::query("SELECT * FROM users WHERE user_id = ?1").bind(id).fetch_optional(&self.pool).await?;
        row.map(|row| with_password(&row)).transpose()
    }

    /// `email` in lower case.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<UserWithPassword>, CatalogError> {
        let row = sqlx::query("SELECT * FROM users WHERE email = ?1").bind(email).fetch_optional(&self.pool).await?;
        row.map(|row| with_password(&row)).transpose()
    }

    pub async fn user_by_subject(&self, subject: &Subject) -> Result<Option<User>, CatalogError> {
        let row = sqlx::query("SELECT * FROM users WHERE oidc_issuer = ?1 AND oidc_subject = ?2")
            .bind(&subject.issuer)
            .bind(&subject.id)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| user_of(&row)).transpose()
    }

    /// By e-mail, after the user that a page ended with.
    pub async fn users(&self, after: Option<&str>, limit: u32) -> Result<Vec<User>, CatalogError> {
        let rows = sqlx::query(
            "SELECT * FROM users WHERE ?1 IS NULL OR email > (SELECT email FROM users WHERE user_id = ?1)
             ORDER BY email LIMIT ?2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(user_of).collect()
    }

    /// Writes the name, the role, the provider's subject and whether the user is disabled, if it is still of that
    /// revision. A disabled user's sessions end.
    pub async fn change_user(&self, user: &User, event: &Event) -> Result<Changed, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let before: i64 = sqlx::query_scalar(ENABLED_ADMINS).fetch_one(&mut *tx).await?;
        let done = sqlx::query(
            "UPDATE users SET name = ?2, role = ?3, disabled = ?4, oidc_issuer = ?5, oidc_subject = ?6,
                    updated_at = ?7, updated_by = ?8, revision = revision + 1
             WHERE user_id = ?1 AND revision = ?9",
        )
        .bind(&user.id)
        .bind(&user.name)
        .bind(user.role.as_str())
        .bind(user.disabled)
        .bind(user.subject.as_ref().map(|s| &s.issuer))
        .bind(user.subject.as_ref().map(|s| &s.id))
        .bind(event.at.timestamp_micros())
        .bind(&event.actor)
        .bind(user.revision)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(Changed::Meanwhile);
        }
        if user.disabled {
            end_sessions(&mut tx, &user.id, None).await?;
        }
        if before > 0 && sqlx::query_scalar::<_, i64>(ENABLED_ADMINS).fetch_one(&mut *tx).await? == 0 {
            return Ok(Changed::LastAdmin);
        }
        events::insert(&mut tx, event).await?;
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Removes a user with its sessions, tokens and links.
    pub async fn remove_user(&self, id: &str, event: &Event) -> Result<Changed, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let before: i64 = sqlx::query_scalar(ENABLED_ADMINS).fetch_one(&mut *tx).await?;
        let done = sqlx::query("DELETE FROM users WHERE user_id = ?1").bind(id).execute(&mut *tx).await?;
        if done.rows_affected() == 0 {
            return Ok(Changed::Meanwhile);
        }
        if before > 0 && sqlx::query_scalar::<_, i64>(ENABLED_ADMINS).fetch_one(&mut *tx).await? == 0 {
            return Ok(Changed::LastAdmin);
        }
        events::insert(&mut tx, event).await?;
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Sets a password. The user's other sessions and unused links end.
    pub async fn set_password(
        &self,
        id: &str,
        password_hash: &str,
        keep: Option<&Digest>,
        event: &Event,
    ) -> Result<bool, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        if !write_password(&mut tx, id, password_hash, keep, event).await? {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }
}

/// False when the e-mail is taken.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    user: &User,
    password_hash: Option<&str>,
) -> Result<bool, CatalogError> {
    let done = sqlx::query(
        "INSERT INTO users (user_id, email, name, role, password_hash, oidc_issuer, oidc_subject, disabled,
                            created_at, created_by, updated_at, updated_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?9, ?10) ON CONFLICT (email) DO NOTHING",
    )
    .bind(&user.id)
    .bind(&user.email)
    .bind(&user.name)
    .bind(user.role.as_str())
    .bind(password_hash)
    .bind(user.subject.as_ref().map(|s| &s.issuer))
    .bind(user.subject.as_ref().map(|s| &s.id))
    .bind(user.disabled)
    .bind(user.created_at.timestamp_micros())
    .bind(&user.created_by)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Within a transaction; false when there is no such user.
pub(super) async fn write_password(
    connection: &mut SqliteConnection,
    id: &str,
    password_hash: &str,
    keep: Option<&Digest>,
    event: &Event,
) -> Result<bool, CatalogError> {
    let done = sqlx::query(
        "UPDATE users SET password_hash = ?2, updated_at = ?3, updated_by = ?4, revision = revision + 1 WHERE user_id = ?1",
    )
    .bind(id)
    .bind(password_hash)
    .bind(event.at.timestamp_micros())
    .bind(&event.actor)
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    end_sessions(connection, id, keep).await?;
    sqlx::query("DELETE FROM one_time_links WHERE user_id = ?1 AND used_at IS NULL")
        .bind(id)
        .execute(&mut *connection)
        .await?;
    events::insert(connection, event).await?;
    Ok(true)
}

async fn end_sessions(
    connection: &mut SqliteConnection,
    user: &str,
    keep: Option<&Digest>,
) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM sessions WHERE user_id = ?1 AND (?2 IS NULL OR digest <> ?2)")
        .bind(user)
        .bind(keep.map(Digest::as_slice))
        .execute(connection)
        .await?;
    Ok(())
}

fn with_password(row: &SqliteRow) -> Result<UserWithPassword, CatalogError> {
    Ok(UserWithPassword { user: user_of(row)?, password_hash: row.try_get("password_hash")? })
}

pub(super) fn user_of(row: &SqliteRow) -> Result<User, CatalogError> {
    let at = |column: &str| -> Result<DateTime<Utc>, CatalogError> { Ok(time(row, column)?.unwrap_or_default()) };
    let issuer: Option<String> = row.try_get("oidc_issuer")?;
    let id: Option<String> = row.try_get("oidc_subject")?;
    Ok(User {
        id: row.try_get("user_id")?,
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        role: named(row, "role")?,
        disabled: row.try_get("disabled")?,
        has_password: row.try_get::<Option<&str>, _>("password_hash")?.is_some(),
        subject: issuer.zip(id).map(|(issuer, id)| Subject { issuer, id }),
        created_at: at("created_at")?,
        created_by: row.try_get("created_by")?,
        updated_at: at("updated_at")?,
        updated_by: row.try_get("updated_by")?,
        last_login_at: time(row, "last_login_at")?,
        revision: row.try_get("revision")?,
    })
}
