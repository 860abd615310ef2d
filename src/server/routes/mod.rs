//! The endpoints: one file an area, merged here.

mod alerts;
mod health;
mod metrics;
pub mod profiles;
mod uploads;

use utoipa_axum::router::OpenApiRouter;

use super::state::App;

/// All of them.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(health::router())
        .merge(metrics::router())
        .merge(alerts::router())
        .merge(profiles::router())
        .merge(uploads::router())
}
