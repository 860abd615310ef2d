//! An authorization as answers show it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::catalog::authorizations::SealedAuthorization;
use crate::catalog::definitions::StoredDefinitions;
use crate::server::routes::connections::users_of;
use crate::sync::Engine;
use crate::vault::{self, Keyring};

/// An authorization, without what it holds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Authorization)]
pub struct AuthorizationView {
    id: String,
    label: String,
    description: String,
    /// The type of connection that it is for.
    #[serde(rename = "type")]
    #[schema(example = "postgres")]
    type_of: String,
    /// The same.
    provider_slug: String,
    /// Which parameters it holds. Their values are never shown.
    parameters: Vec<String>,
    /// The connections that use it.
    connections: Vec<String>,
    status: AuthorizationStatus,
    unhealthy: bool,
    /// The key that sealed it.
    key_id: String,
    author_id: String,
    /// Who changed it last.
    user_id: String,
    created: DateTime<Utc>,
    updated: DateTime<Utc>,
    updated_by_user_id: String,
    /// Counts up with every change; also the ETag.
    revision: i64,
}

/// Can it be used?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AuthorizationStatus {
    /// It opens. Whether the warehouse takes it, a connection's test tells.
    Healthy,
    /// The key that sealed it is lacking, or it was tampered with.
    Unhealthy,
}

impl AuthorizationView {
    pub fn of(engine: &Engine, keyring: &Keyring, stored: &StoredDefinitions, sealed: SealedAuthorization) -> Self {
        let opens = vault::open(keyring, &sealed).is_ok();
        Self {
            connections: users_of(engine, stored, &sealed.id),
            status: if opens { AuthorizationStatus::Healthy } else { AuthorizationStatus::Unhealthy },
            unhealthy: !opens,
            id: sealed.id,
            label: sealed.label,
            description: sealed.description,
            type_of: sealed.provider.clone(),
            provider_slug: sealed.provider,
            parameters: sealed.parameters,
            key_id: sealed.key_id,
            author_id: sealed.created_by,
            user_id: sealed.updated_by.clone(),
            created: sealed.created_at,
            updated: sealed.updated_at,
            updated_by_user_id: sealed.updated_by,
            revision: sealed.revision,
        }
    }
}
