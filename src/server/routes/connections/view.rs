//! A connection as answers show it: without a secret, and without where one comes from.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::define::{authorization_of, own_config};
use crate::catalog::definitions::StoredDefinition;
use crate::config::{ConfigError, Connection, PROJECT_FILE};
use crate::secrets::has_reference;
use crate::sync::Engine;
use crate::warehouse::{ParameterKind, Provider};

/// A connection.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Connection)]
pub struct ConnectionView {
    /// Its name: what models and commands call it.
    #[schema(example = "app_db")]
    pub id: String,
    pub label: String,
    pub description: String,
    /// Its type; GET /v2/connectionconfig lists them.
    #[schema(example = "postgres")]
    pub provider_slug: String,
    /// The authorizations whose credentials it uses.
    pub auth_ids: Vec<String>,
    /// Its parameters, but for those in `secrets`.
    #[schema(value_type = Object)]
    pub config: Map<String, Value>,
    /// Parameters that are set and not shown.
    pub secrets: Vec<SecretParameter>,
    /// Who made it; null for one of the files.
    pub author_id: Option<String>,
    pub created: Option<DateTime<Utc>>,
    pub updated: Option<DateTime<Utc>>,
    pub updated_by_user_id: Option<String>,
    pub origin: ConnectionOrigin,
    /// Counts up with every change; also the ETag. Null for one of the files.
    pub revision: Option<i64>,
    /// Why it cannot be used now; empty when it can.
    pub faults: Vec<ConnectionFault>,
}

/// Where a connection is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionOrigin {
    /// In cloud-connect.yml: changed there.
    Files,
    Api,
}

/// A parameter whose value is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SecretParameter {
    pub name: String,
    /// The authorization that holds it; null: the files give it, directly or as a reference.
    pub auth_id: Option<String>,
}

/// What is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConnectionFault {
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
}

impl From<&ConfigError> for ConnectionFault {
    fn from(error: &ConfigError) -> Self {
        Self { code: error.code.into(), message: error.message.clone(), hint: error.hint.clone() }
    }
}

impl ConnectionView {
    /// One of the files. What is declared a secret, and what is a reference, is named and not shown.
    pub fn of_files(connection: &Connection, provider: Option<&Provider>) -> Self {
        let mut view = Self {
            id: connection.name.clone(),
            label: connection.name.clone(),
            description: format!("defined in {PROJECT_FILE}"),
            provider_slug: connection.provider.clone(),
            auth_ids: Vec::new(),
            config: Map::new(),
            secrets: Vec::new(),
            author_id: None,
            created: None,
            updated: None,
            updated_by_user_id: None,
            origin: ConnectionOrigin::Files,
            revision: None,
            faults: Vec::new(),
        };
        for (name, value) in &connection.parameters {
            let declared = provider.and_then(|p| p.parameters.iter().find(|parameter| parameter.name == name));
            let open = declared.is_some_and(|parameter| parameter.kind != ParameterKind::Secret);
            if open && !has_reference(value) && !holds_login(value) {
                view.config.insert(name.clone(), value.clone().into());
                continue;
            }
            let auth_id = authorization_of(value).map(|(id, _)| id.to_string());
            view.auth_ids.extend(auth_id.clone().filter(|id| !view.auth_ids.contains(id)));
            view.secrets.push(SecretParameter { name: name.clone(), auth_id });
        }
        view
    }

    /// One that was made through the API.
    pub fn of_stored(stored: &StoredDefinition, faults: &[ConfigError]) -> Self {
        let secrets = stored.definition.iter().filter_map(|(name, value)| {
            let (id, _) = authorization_of(value.as_str()?)?;
            Some(SecretParameter { name: name.clone(), auth_id: Some(id.to_string()) })
        });
        Self {
            id: stored.id.clone(),
            label: stored.label.clone().unwrap_or_else(|| stored.id.clone()),
            description: stored.description.clone().unwrap_or_default(),
            provider_slug: stored.definition.get("type").and_then(Value::as_str).unwrap_or_default().to_string(),
            auth_ids: stored.auth_ids.clone(),
            config: own_config(&stored.definition),
            secrets: secrets.collect(),
            author_id: Some(stored.created_by.clone()),
            created: Some(stored.created_at),
            updated: Some(stored.updated_at),
            updated_by_user_id: Some(stored.updated_by.clone()),
            origin: ConnectionOrigin::Api,
            revision: Some(stored.revision),
            faults: faults.iter().map(ConnectionFault::from).collect(),
        }
    }

    /// Of the files if it is there, else as stored.
    pub fn find(engine: &Engine, stored: &[StoredDefinition], id: &str) -> Option<Self> {
        if let Some(connection) = engine.files().connections.get(id) {
            let provider = engine.project.providers.iter().find(|p| p.name == connection.provider);
            return Some(Self::of_files(connection, provider));
        }
        let found = stored.iter().find(|one| one.id == id)?;
        let unusable = engine.unusable.iter().find(|one| one.kind == "connection" && one.id == id);
        Some(Self::of_stored(found, unusable.map_or(&[], |unusable| &unusable.faults)))
    }
}

/// `scheme://user:password@…`
fn holds_login(value: &str) -> bool {
    url::Url::parse(value).is_ok_and(|url| url.password().is_some())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_the_files_shows_neither_secrets_nor_references() {
        let dir = tempfile::tempdir().unwrap();
        let text = "profile:\n  identities: [{ field: email }]\nconnections:\n  db: { type: postgres, host: h, port: 1, \
                    database: d, user: '${env:USER_NAME}', password: hunter2 }\n";
        std::fs::write(dir.path().join(PROJECT_FILE), text).unwrap();
        let project = crate::config::load(dir.path(), crate::warehouse::registry()).unwrap();
        let provider = crate::warehouse::provider("postgres");
        let view = ConnectionView::of_files(&project.connections["db"], provider);
        let shown = serde_json::to_value(&view).unwrap();
        assert_eq!(shown["config"], serde_json::json!({ "host": "h", "port": "1", "database": "d" }));
        assert_eq!(view.secrets.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["password", "user"]);
        for hidden in ["hunter2", "USER_NAME"] {
            assert!(!shown.to_string().contains(hidden), "{shown}");
        }
    }
}
