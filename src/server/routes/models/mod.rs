//! Data models: made, changed, looked at, run.
//!
//! ```text
//! request ─► shape ─► definition (the `.yml` that it stands for) ─► trial (the files' rules, the warehouse) ─► catalog
//! answer  ◄─ shape ◄─ view ◄─ model or stored definition, runs, schedule, record store
//! ```
//!
//! Invariants:
//! - what the API stores would pass as a file, and breaks no definition that worked before;
//! - a model that is in the project's files is changed there and nowhere else;
//! - a new model starts inactive, and an inactive one is queried only by a person's plan;
//! - what a record store is keyed by (slug, connection, key) does not change after creation.

mod change;
mod crud;
mod definition;
mod entry;
mod health;
mod logs;
mod plan;
mod shape;
mod sizes;
mod stores;
pub(super) mod sync;
mod trial;
mod view;

use utoipa_axum::router::OpenApiRouter;

use crate::server::state::App;

/// What the handlers share over requests.
#[derive(Debug, Default)]
pub struct Shared {
    stores: stores::RecordStores,
    plans: plan::Plans,
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(crud::router())
        .merge(logs::router())
        .merge(plan::router())
        .merge(sizes::router())
        .merge(sync::router())
}
