//! The endpoints: one file an area, merged here.

mod auths;
pub mod connections;
mod events;
mod health;
pub mod profiles;

use utoipa_axum::router::OpenApiRouter;

use super::state::App;

/// All of them.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(health::router())
        .merge(connections::router())
        .merge(auths::router())
        .merge(events::router())
        .merge(profiles::router())
}
