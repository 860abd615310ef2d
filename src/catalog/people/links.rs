//! Links that work once. Using one and what it is for happen in one transaction.

use chrono::{DateTime, Utc};
use sqlx::{Row, SqliteConnection};

use super::users::{self, user_of};
use crate::catalog::{Catalog, CatalogError, events};
use crate::events::Event;
use crate::people::secret::Digest;
use crate::people::users::User;

/// What came of using a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Done,
    /// Used, expired, replaced, or never made; or, for the first admin, there are users by now.
    Invalid,
}

impl Catalog {
    /// Makes the link to found the first admin; the one before works no longer. False when there are users.
    pub async fn offer_first_admin(
        &self,
        digest: &Digest,
        now: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<bool, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        if any_user(&mut tx).await? {
            return Ok(false);
        }
        sqlx::query("DELETE FROM one_time_links WHERE kind = 'first_admin'").execute(&mut *tx).await?;
        sqlx::query(
            "INSERT INTO one_time_links (digest, kind, created_at, expires_at) VALUES (?1, 'first_admin', ?2, ?3)",
        )
        .bind(digest.as_slice())
        .bind(now.timestamp_micros())
        .bind(expires_at.timestamp_micros())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Would the link found the first admin now?
    pub async fn first_admin_offered(&self, digest: &Digest, now: DateTime<Utc>) -> Result<bool, CatalogError> {
        let mut connection = self.pool.acquire().await?;
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM one_time_links
             WHERE digest = ?1 AND kind = 'first_admin' AND used_at IS NULL AND expires_at > ?2",
        )
        .bind(digest.as_slice())
        .bind(now.timestamp_micros())
        .fetch_one(&mut *connection)
        .await?;
        Ok(open == 1 && !any_user(&mut connection).await?)
    }

    /// Uses the link: the user is the first admin.
    pub async fn claim_first_admin(
        &self,
        digest: &Digest,
        user: &User,
        password_hash: &str,
        event: &Event,
    ) -> Result<Claim, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        if any_user(&mut tx).await? || use_link(&mut tx, digest, "first_admin", event.at).await?.is_none() {
            return Ok(Claim::Invalid);
        }
        if !users::insert(&mut tx, user, Some(password_hash)).await? {
            return Ok(Claim::Invalid);
        }
        events::insert(&mut tx, event).await?;
        tx.commit().await?;
        Ok(Claim::Done)
    }

    /// Makes a link to set the user's password; the ones before work no longer.
    pub async fn invite(
        &self,
        digest: &Digest,
        user: &str,
        expires_at: DateTime<Utc>,
        event: &Event,
    ) -> Result<(), CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM one_time_links WHERE user_id = ?1").bind(user).execute(&mut *tx).await?;
        sqlx::query(
            "INSERT INTO one_time_links (digest, kind, user_id, created_at, expires_at) VALUES (?1, 'invitation', ?2, ?3, ?4)",
        )
        .bind(digest.as_slice())
        .bind(user)
        .bind(event.at.timestamp_micros())
        .bind(expires_at.timestamp_micros())
        .execute(&mut *tx)
        .await?;
        events::insert(&mut tx, event).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whom the link invites, while it works. A disabled user is not invited.
    pub async fn invited(&self, digest: &Digest, now: DateTime<Utc>) -> Result<Option<User>, CatalogError> {
        let row = sqlx::query(
            "SELECT u.* FROM one_time_links l JOIN users u ON u.user_id = l.user_id
             WHERE l.digest = ?1 AND l.kind = 'invitation' AND l.used_at IS NULL AND l.expires_at > ?2 AND u.disabled = 0",
        )
        .bind(digest.as_slice())
        .bind(now.timestamp_micros())
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| user_of(&row)).transpose()
    }

    /// Uses the link: the invited user has this password.
    pub async fn claim_invitation(
        &self,
        digest: &Digest,
        password_hash: &str,
        event: &Event,
    ) -> Result<Claim, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let Some(Some(user)) = use_link(&mut tx, digest, "invitation", event.at).await? else {
            return Ok(Claim::Invalid);
        };
        if !users::write_password(&mut tx, &user, password_hash, None, event).await? {
            return Ok(Claim::Invalid);
        }
        tx.commit().await?;
        Ok(Claim::Done)
    }
}

async fn any_user(connection: &mut SqliteConnection) -> Result<bool, CatalogError> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM users)").fetch_one(connection).await?)
}

/// Whose link it is (nobody's, for the first admin); none when it does not work.
async fn use_link(
    connection: &mut SqliteConnection,
    digest: &Digest,
    kind: &str,
    now: DateTime<Utc>,
) -> Result<Option<Option<String>>, CatalogError> {
    let row = sqlx::query(
        "UPDATE one_time_links SET used_at = ?3
         WHERE digest = ?1 AND kind = ?2 AND used_at IS NULL AND expires_at > ?3 RETURNING user_id",
    )
    .bind(digest.as_slice())
    .bind(kind)
    .bind(now.timestamp_micros())
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| row.try_get("user_id")).transpose()?)
}
