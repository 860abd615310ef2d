//! API tokens.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{digest, micros, named, time};
use crate::catalog::{Catalog, CatalogError, events};
use crate::events::Event;
use crate::people::secret::Digest;
use crate::people::tokens::Token;
use crate::people::{Permissions, Role};

/// A token with what checking it needs.
#[derive(Debug)]
pub struct TokenWithUser {
    pub token: Token,
    pub digest: Digest,
    /// The user in whose name it was made: the role now, and whether it is disabled.
    pub user: Option<(Role, bool)>,
}

impl Catalog {
    /// Adds a token with its event.
    pub async fn add_token(&self, token: &Token, digest: &Digest, event: &Event) -> Result<(), CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "INSERT INTO tokens (token_id, digest, label, role, scopes, created_at, created_by, user_id, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )
        .bind(&token.id)
        .bind(digest.as_slice())
        .bind(&token.label)
        .bind(token.role.as_str())
        .bind(token.scopes.map(scopes_to_text))
        .bind(token.created_at.timestamp_micros())
        .bind(&token.created_by)
        .bind(&token.user_id)
        .bind(micros(token.expires_at))
        .execute(&mut *tx)
        .await?;
        events::insert(&mut tx, event).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The token with this public id.
    pub async fn token(&self, id: &str) -> Result<Option<TokenWithUser>, CatalogError> {
        let row = sqlx::query(
            "SELECT t.*, u.role AS user_role, u.disabled AS user_disabled
             FROM tokens t LEFT JOIN users u ON u.user_id = t.user_id WHERE t.token_id = ?1",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let disabled: Option<bool> = row.try_get("user_disabled")?;
        let user = disabled.map(|disabled| Ok::<_, CatalogError>((named(&row, "user_role")?, disabled))).transpose()?;
        let digest = digest(&row, "digest")?;
        Ok(Some(TokenWithUser { token: token_of(&row)?, digest, user }))
    }

    /// Newest first, after the token that a page ended with.
    pub async fn tokens(&self, after: Option<&str>, limit: u32) -> Result<Vec<Token>, CatalogError> {
        let rows = sqlx::query(
            "SELECT * FROM tokens
             WHERE ?1 IS NULL OR (created_at, token_id) < (SELECT created_at, token_id FROM tokens WHERE token_id = ?1)
             ORDER BY created_at DESC, token_id DESC LIMIT ?2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(token_of).collect()
    }

    /// Ends a token, with its event; false when there is none, or it was revoked before.
    pub async fn revoke_token(&self, id: &str, event: &Event) -> Result<bool, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query(
            "UPDATE tokens SET revoked_at = ?2, revoked_by = ?3 WHERE token_id = ?1 AND revoked_at IS NULL",
        )
        .bind(id)
        .bind(event.at.timestamp_micros())
        .bind(&event.actor)
        .execute(&mut *tx)
        .await?;
        events::commit_if(done.rows_affected() > 0, tx, event).await
    }

    pub async fn token_used(&self, id: &str, now: DateTime<Utc>) -> Result<(), CatalogError> {
        sqlx::query("UPDATE tokens SET last_used_at = ?2 WHERE token_id = ?1 AND coalesce(last_used_at, 0) < ?2")
            .bind(id)
            .bind(now.timestamp_micros())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

fn scopes_to_text(scopes: Permissions) -> String {
    scopes.iter().map(|p| p.as_str()).collect::<Vec<_>>().join(" ")
}

fn token_of(row: &SqliteRow) -> Result<Token, CatalogError> {
    let scopes: Option<&str> = row.try_get("scopes")?;
    Ok(Token {
        id: row.try_get("token_id")?,
        label: row.try_get("label")?,
        role: named(row, "role")?,
        // a name that is not known here gives nothing
        scopes: scopes.map(|names| names.split(' ').filter_map(|name| name.parse().ok()).collect()),
        created_at: time(row, "created_at")?.unwrap_or_default(),
        created_by: row.try_get("created_by")?,
        user_id: row.try_get("user_id")?,
        expires_at: time(row, "expires_at")?,
        last_used_at: time(row, "last_used_at")?,
        revoked_at: time(row, "revoked_at")?,
    })
}
