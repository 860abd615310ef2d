//! Connections: made, changed, tried and looked into.
//!
//! ```text
//! request ─► compose (the entry that a file would hold; credentials as references) ─► validate (the rules of the files)
//!         ─► catalog, with its event ─► every user of the project sees the new engine
//! ```
//!
//! Actors: [`change`] makes, changes and removes; [`define`] is between a request and what is stored; [`confine`] says
//! what a value may be that comes over the network; [`look`] shows; [`scan`], [`schema`] and [`test`] ask the warehouse.
//!
//! Invariants: no secret is in an answer or an event; a connection of the files is shown and never changed; what comes
//! through the API reads neither the server's environment nor its files outside the project.

mod change;
mod confine;
mod define;
mod logs;
mod look;
mod parameters;
mod scan;
mod schema;
mod summary;
mod test;
mod types;
mod view;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use utoipa_axum::router::OpenApiRouter;

use crate::config;
use crate::server::answer::ApiError;
use crate::server::state::App;
use crate::server::window::Window;
use crate::sync::Engine;
use crate::warehouse::Warehouse;

pub(super) use confine::Confines;
pub(super) use define::{change_parameters, free_id, label, text_of, users_of};
pub(super) use logs::EventView;
pub(super) use parameters::Parameters;

/// Questions to one warehouse, of each kind, that may be asked within [`QUESTION_WINDOW`].
const MAX_QUESTIONS: usize = 10;
const QUESTION_WINDOW: Duration = Duration::from_secs(10);

/// What these endpoints share between requests.
#[derive(Debug)]
pub struct Connections {
    /// One change of connections and authorizations at a time: each is judged by what the one before it left.
    changing: Mutex<()>,
    questions: Window,
    schemas: schema::Schemas,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            changing: Mutex::default(),
            questions: Window::new(MAX_QUESTIONS, QUESTION_WINDOW),
            schemas: schema::Schemas::default(),
        }
    }
}

impl Connections {
    /// Waits for its turn to change something.
    pub(super) async fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Counts a question to a warehouse; `kind` tells questions apart that are counted apart.
    fn ask(&self, kind: &str, connection: &str) -> Result<(), ApiError> {
        self.questions.admit(&format!("{kind} {connection}")).map_err(|wait| {
            ApiError::too_many(format!("connection `{connection}` was asked {MAX_QUESTIONS} times in 10 seconds"), wait)
                .with_hint("wait as long as Retry-After says")
        })
    }
}

/// A connection that can be used.
fn usable<'a>(engine: &'a Engine, id: &str) -> Result<&'a config::Connection, ApiError> {
    if let Some(connection) = engine.project.connections.get(id) {
        return Ok(connection);
    }
    match engine.unusable.iter().find(|unusable| unusable.kind == "connection" && unusable.id == id) {
        Some(unusable) => Err(ApiError::faults(&unusable.faults)),
        None => Err(no_such(id)),
    }
}

fn no_such(id: &str) -> ApiError {
    ApiError::not_found(format!("no connection `{id}`")).with_hint("GET /v2/connection lists them")
}

/// The warehouse of a connection that was found.
fn open(engine: &Engine, id: &str) -> Result<Arc<dyn Warehouse>, ApiError> {
    Ok(engine.project.open_connection(id, engine.memory.query)?)
}

/// Changes whenever the connection leads elsewhere or logs in differently. Says nothing of what it was made from.
fn fingerprint(engine: &Engine, connection: &config::Connection) -> u64 {
    let mut hasher = DefaultHasher::new();
    connection.provider.hash(&mut hasher);
    connection.parameters.hash(&mut hasher);
    for value in connection.parameters.values() {
        if let Some((id, _)) = define::authorization_of(value) {
            engine.project.vault.authorization(id).map(|sealed| sealed.revision).hash(&mut hasher);
        }
    }
    hasher.finish()
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(look::router())
        .merge(change::router())
        .merge(scan::router())
        .merge(schema::router())
        .merge(test::router())
        .merge(types::router())
        .merge(summary::router())
        .merge(logs::router())
}
