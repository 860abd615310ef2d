//! Connections and models that were made through the API.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Catalog, CatalogError, events};
use crate::events::Event;

/// What a definition defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefinitionKind {
    Connection,
    Model,
}

impl DefinitionKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Model => "model",
        }
    }
}

/// A connection or a model as the API stored it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDefinition {
    /// The connection's name, the model's slug.
    pub id: String,
    /// The keys and values that the files have: a connection's entry, or a model's `.yml`.
    pub definition: serde_json::Map<String, serde_json::Value>,
    /// A model's SQL.
    pub sql: Option<String>,
    pub label: Option<String>,
    pub description: Option<String>,
    /// The authorizations that a connection's secrets come from.
    pub auth_ids: Vec<String>,
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub updated_by: String,
    pub updated_at: DateTime<Utc>,
    /// Counts up with every change; 0 before it is stored.
    pub revision: i64,
}

/// Everything that was made through the API.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredDefinitions {
    pub connections: Vec<StoredDefinition>,
    pub models: Vec<StoredDefinition>,
}

impl Catalog {
    /// All definitions, by id.
    pub async fn definitions(&self) -> Result<StoredDefinitions, CatalogError> {
        let rows = sqlx::query("SELECT * FROM definitions ORDER BY id").fetch_all(&self.pool).await?;
        let mut all = StoredDefinitions::default();
        for row in rows {
            let kind: &str = row.try_get("kind")?;
            let list = if kind == DefinitionKind::Model.as_str() { &mut all.models } else { &mut all.connections };
            list.push(definition_of(&row)?);
        }
        Ok(all)
    }

    /// One definition.
    pub async fn definition(&self, kind: DefinitionKind, id: &str) -> Result<Option<StoredDefinition>, CatalogError> {
        let row = sqlx::query("SELECT * FROM definitions WHERE kind = ?1 AND id = ?2")
            .bind(kind.as_str())
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(definition_of).transpose()
    }

    /// Adds a definition with its event; false when there is one of that id.
    pub async fn add_definition(
        &self,
        kind: DefinitionKind,
        new: &StoredDefinition,
        event: &Event,
    ) -> Result<bool, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query(
            "INSERT INTO definitions (kind, id, definition, sql, label, description, auth_ids, created_by, created_at, updated_by, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?8, ?9) ON CONFLICT (kind, id) DO NOTHING",
        )
        .bind(kind.as_str())
        .bind(&new.id)
        .bind(serde_json::to_string(&new.definition)?)
        .bind(&new.sql)
        .bind(&new.label)
        .bind(&new.description)
        .bind(serde_json::to_string(&new.auth_ids)?)
        .bind(&new.created_by)
        .bind(new.created_at.timestamp_micros())
        .execute(&mut *tx)
        .await?;
        events::commit_if(done.rows_affected() > 0, tx, event).await
    }

    /// Replaces a definition with its event, if it is still of that revision; false when it is not.
    pub async fn replace_definition(
        &self,
        kind: DefinitionKind,
        new: &StoredDefinition,
        event: &Event,
    ) -> Result<bool, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let replaced = replace(&mut tx, kind, new).await?;
        events::commit_if(replaced, tx, event).await
    }

    /// Removes a definition with its event; false when there is none.
    pub async fn remove_definition(&self, kind: DefinitionKind, id: &str, event: &Event) -> Result<bool, CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query("DELETE FROM definitions WHERE kind = ?1 AND id = ?2")
            .bind(kind.as_str())
            .bind(id)
            .execute(&mut *tx)
            .await?;
        events::commit_if(done.rows_affected() > 0, tx, event).await
    }
}

/// Replaces a definition within a transaction, if it is still of that revision; false when it is not.
pub(super) async fn replace(
    connection: &mut SqliteConnection,
    kind: DefinitionKind,
    new: &StoredDefinition,
) -> Result<bool, CatalogError> {
    let done = sqlx::query(
        "UPDATE definitions SET definition = ?3, sql = ?4, label = ?5, description = ?6, auth_ids = ?7,
                updated_by = ?8, updated_at = ?9, revision = revision + 1
         WHERE kind = ?1 AND id = ?2 AND revision = ?10",
    )
    .bind(kind.as_str())
    .bind(&new.id)
    .bind(serde_json::to_string(&new.definition)?)
    .bind(&new.sql)
    .bind(&new.label)
    .bind(&new.description)
    .bind(serde_json::to_string(&new.auth_ids)?)
    .bind(&new.updated_by)
    .bind(new.updated_at.timestamp_micros())
    .bind(new.revision)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

fn definition_of(row: &SqliteRow) -> Result<StoredDefinition, CatalogError> {
    Ok(StoredDefinition {
        id: row.try_get("id")?,
        definition: serde_json::from_str(row.try_get("definition")?)?,
        sql: row.try_get("sql")?,
        label: row.try_get("label")?,
        description: row.try_get("description")?,
        auth_ids: serde_json::from_str(row.try_get("auth_ids")?)?,
        created_by: row.try_get("created_by")?,
        created_at: super::time(row.try_get("created_at")?),
        updated_by: row.try_get("updated_by")?,
        updated_at: super::time(row.try_get("updated_at")?),
        revision: row.try_get("revision")?,
    })
}
