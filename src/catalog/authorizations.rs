//! Sealed credentials. What is inside is the vault's business ([`crate::vault`]).

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::definitions::{self, DefinitionKind, StoredDefinition};
use super::{Catalog, CatalogError, events};
use crate::events::Event;

/// An authorization, still sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedAuthorization {
    pub id: String,
    /// The provider whose secrets it holds.
    pub provider: String,
    pub label: String,
    pub description: String,
    /// Which of the provider's parameters it holds.
    pub parameters: Vec<String>,
    /// The key that sealed it.
    pub key_id: String,
    pub sealed: Vec<u8>,
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub updated_by: String,
    pub updated_at: DateTime<Utc>,
    /// Counts up with every change; 0 before it is stored.
    pub revision: i64,
}

impl SealedAuthorization {
    /// A new one that holds nothing yet.
    pub fn new(id: String, provider: String, label: String, by: &str, now: DateTime<Utc>) -> Self {
        Self {
            id,
            provider,
            label,
            description: String::new(),
            parameters: Vec::new(),
            key_id: String::new(),
            sealed: Vec::new(),
            created_by: by.to_string(),
            created_at: now,
            updated_by: by.to_string(),
            updated_at: now,
            revision: 1,
        }
    }
}

impl std::fmt::Debug for SealedAuthorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedAuthorization")
            .field("id", &self.id)
            .field("provider", &self.provider)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

impl Catalog {
    /// Is it of a version that has authorizations?
    pub async fn knows_authorizations(&self) -> Result<bool, CatalogError> {
        let asked = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'authorizations')";
        Ok(sqlx::query_scalar(asked).fetch_one(&self.pool).await?)
    }

    /// All authorizations, by id.
    pub async fn authorizations(&self) -> Result<Vec<SealedAuthorization>, CatalogError> {
        let rows = sqlx::query("SELECT * FROM authorizations ORDER BY id").fetch_all(&self.pool).await?;
        rows.iter().map(authorization_of).collect()
    }

    /// Adds an authorization with its event; false when there is one of that id.
    pub async fn add_authorization(&self, new: &SealedAuthorization, event: &Event) -> Result<bool, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query(
            "INSERT INTO authorizations (id, provider, label, description, parameters, key_id, sealed, created_by, created_at, updated_by, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?8, ?9) ON CONFLICT (id) DO NOTHING",
        )
        .bind(&new.id)
        .bind(&new.provider)
        .bind(&new.label)
        .bind(&new.description)
        .bind(serde_json::to_string(&new.parameters)?)
        .bind(&new.key_id)
        .bind(&new.sealed)
        .bind(&new.created_by)
        .bind(new.created_at.timestamp_micros())
        .execute(&mut *tx)
        .await?;
        events::commit_if(done.rows_affected() > 0, tx, event).await
    }

    /// Replaces an authorization with its event, and the connections that are others by that with theirs: all of them, if
    /// all are still of that revision; false when one is not.
    pub async fn replace_authorization(
        &self,
        new: &SealedAuthorization,
        event: &Event,
        connections: &[(StoredDefinition, Event)],
    ) -> Result<bool, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query(
            "UPDATE authorizations SET label = ?2, description = ?3, parameters = ?4, key_id = ?5, sealed = ?6,
                    updated_by = ?7, updated_at = ?8, revision = revision + 1
             WHERE id = ?1 AND revision = ?9",
        )
        .bind(&new.id)
        .bind(&new.label)
        .bind(&new.description)
        .bind(serde_json::to_string(&new.parameters)?)
        .bind(&new.key_id)
        .bind(&new.sealed)
        .bind(&new.updated_by)
        .bind(new.updated_at.timestamp_micros())
        .bind(new.revision)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        for (connection, event) in connections {
            if !definitions::replace(&mut tx, DefinitionKind::Connection, connection).await? {
                return Ok(false);
            }
            events::insert(&mut tx, event).await?;
        }
        events::commit_if(true, tx, event).await
    }

    /// Removes an authorization with its event; false when there is none.
    pub async fn remove_authorization(&self, id: &str, event: &Event) -> Result<bool, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query("DELETE FROM authorizations WHERE id = ?1").bind(id).execute(&mut *tx).await?;
        events::commit_if(done.rows_affected() > 0, tx, event).await
    }

    /// Stores the same secrets under another key: all of them, or none.
    pub async fn reseal(&self, resealed: &[SealedAuthorization], event: &Event) -> Result<(), CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for one in resealed {
            sqlx::query("UPDATE authorizations SET key_id = ?2, sealed = ?3 WHERE id = ?1 AND revision = ?4")
                .bind(&one.id)
                .bind(&one.key_id)
                .bind(&one.sealed)
                .bind(one.revision)
                .execute(&mut *tx)
                .await?;
        }
        events::insert(&mut tx, event).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn authorization_of(row: &SqliteRow) -> Result<SealedAuthorization, CatalogError> {
    Ok(SealedAuthorization {
        id: row.try_get("id")?,
        provider: row.try_get("provider")?,
        label: row.try_get("label")?,
        description: row.try_get("description")?,
        parameters: serde_json::from_str(row.try_get("parameters")?)?,
        key_id: row.try_get("key_id")?,
        sealed: row.try_get("sealed")?,
        created_by: row.try_get("created_by")?,
        created_at: super::time(row.try_get("created_at")?),
        updated_by: row.try_get("updated_by")?,
        updated_at: super::time(row.try_get("updated_at")?),
        revision: row.try_get("revision")?,
    })
}
