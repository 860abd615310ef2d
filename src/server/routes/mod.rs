//! The endpoints: one file an area, merged here.

mod health;
pub mod models;
pub mod profiles;
mod runs;

use utoipa_axum::router::OpenApiRouter;

use super::state::App;

/// All of them.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(health::router()).merge(models::router()).merge(profiles::router()).merge(runs::router())
}
