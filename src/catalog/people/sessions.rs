//! Browsers that are signed in.

use chrono::{DateTime, Utc};

use super::time;
use super::users::user_of;
use crate::catalog::{Catalog, CatalogError, events};
use crate::events::Event;
use crate::people::secret::Digest;
use crate::people::users::User;

/// A session with its user.
#[derive(Debug)]
pub struct SessionWithUser {
    pub user: User,
    pub last_seen_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

impl Catalog {
    /// Begins a session with its event, and forgets those that are over.
    pub async fn add_session(
        &self,
        digest: &Digest,
        user: &str,
        expires_at: DateTime<Utc>,
        event: &Event,
    ) -> Result<(), CatalogError> {
        let now = event.at.timestamp_micros();
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM sessions WHERE expires_at <= ?1").bind(now).execute(&mut *tx).await?;
        sqlx::query(
            "INSERT INTO sessions (digest, user_id, created_at, last_seen_at, expires_at) VALUES (?1, ?2, ?3, ?3, ?4)",
        )
        .bind(digest.as_slice())
        .bind(user)
        .bind(now)
        .bind(expires_at.timestamp_micros())
        .execute(&mut *tx)
        .await?;
        sqlx::query("UPDATE users SET last_login_at = ?2 WHERE user_id = ?1")
            .bind(user)
            .bind(now)
            .execute(&mut *tx)
            .await?;
        events::insert(&mut tx, event).await?;
        tx.commit().await?;
        Ok(())
    }

    pub async fn session(&self, digest: &Digest) -> Result<Option<SessionWithUser>, CatalogError> {
        let row = sqlx::query(
            "SELECT u.*, s.last_seen_at AS seen_at, s.expires_at AS expires_at
             FROM sessions s JOIN users u ON u.user_id = s.user_id WHERE s.digest = ?1",
        )
        .bind(digest.as_slice())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(SessionWithUser {
            user: user_of(&row)?,
            last_seen_at: time(&row, "seen_at")?.unwrap_or_default(),
            expires_at: time(&row, "expires_at")?.unwrap_or_default(),
        }))
    }

    pub async fn session_seen(&self, digest: &Digest, now: DateTime<Utc>) -> Result<(), CatalogError> {
        sqlx::query("UPDATE sessions SET last_seen_at = ?2 WHERE digest = ?1 AND last_seen_at < ?2")
            .bind(digest.as_slice())
            .bind(now.timestamp_micros())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// False when there is none.
    pub async fn remove_session(&self, digest: &Digest) -> Result<bool, CatalogError> {
        let done =
            sqlx::query("DELETE FROM sessions WHERE digest = ?1").bind(digest.as_slice()).execute(&self.pool).await?;
        Ok(done.rows_affected() == 1)
    }
}
