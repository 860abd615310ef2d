//! What every handler can reach.

use std::ops::Deref;
use std::sync::Arc;

use axum::http::{header, request};

use super::answer::ApiError;
use super::authorize::Requirements;
use super::browser;
use super::extract::Caller;
use super::idempotency::Fingerprints;
use super::limits::Limits;
use super::routes::connections::Connections;
use super::routes::models;
use super::routes::profiles::QuerySlots;
use super::{Actors, ServeOptions};

/// The state of the server: cheap to clone.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

/// The parts of the state.
#[derive(Debug)]
pub struct Parts {
    pub(super) actors: Actors,
    /// What the endpoints of models share.
    pub models: models::Shared,
    /// The SQL queries that are under way.
    pub queries: QuerySlots,
    pub requirements: Requirements,
    pub limits: Limits,
    pub fingerprints: Fingerprints,
    pub connections: Connections,
    pub options: ServeOptions,
    /// The OpenAPI document as it is served.
    pub openapi: String,
}

impl App {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Who sends the request, by its token or its cookie.
    pub(super) async fn identify(&self, request: &request::Parts) -> Result<Caller, ApiError> {
        let Some(value) = request.headers.get(header::AUTHORIZATION) else {
            return Ok(Caller(browser::identify(self, request).await?));
        };
        let value = value.to_str().map_err(|_| ApiError::unauthorized("the Authorization header is not text"))?;
        Ok(Caller(self.people.authenticate_token(value).await?))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Deref for Parts {
    type Target = Actors;

    fn deref(&self) -> &Actors {
        &self.actors
    }
}
