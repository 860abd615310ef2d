//! The endpoints: one file an area, merged here.

mod alerts;
mod auths;
pub mod connections;
mod events;
mod health;
mod login;
mod metrics;
pub mod models;
mod oidc;
mod people;
pub mod profiles;
mod runs;
mod schedule;
mod uploads;

use utoipa_axum::router::OpenApiRouter;

use super::state::App;

/// All of them.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(health::router())
        .merge(connections::router())
        .merge(auths::router())
        .merge(events::router())
        .merge(metrics::router())
        .merge(alerts::router())
        .merge(models::router())
        .merge(runs::router())
        .merge(schedule::router())
        .merge(uploads::router())
        .merge(login::router())
        .merge(oidc::router())
        .merge(people::router())
        .merge(profiles::router())
}
