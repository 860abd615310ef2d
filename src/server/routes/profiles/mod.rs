//! Reading profiles: one by an identity, SQL over all, the log of their changes.

mod changes;
mod lookup;
mod members;
mod sql;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::profiles::serving::ServingError;
use crate::server::answer::ApiError;
use crate::server::state::App;

pub use sql::QuerySlots;

impl From<ServingError> for ApiError {
    fn from(e: ServingError) -> Self {
        match e {
            ServingError::Profiles(e) => e.into(),
            ServingError::Catalog(e) => e.into(),
            ServingError::Sync(e) => e.into(),
            ServingError::Position(e) => Self::bad_request("invalid-cursor", e.to_string())
                .with_hint("take `_meta.next_cursor` of an earlier page, `latest`, or none for the beginning"),
        }
    }
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(lookup::get))
        .routes(routes!(sql::query))
        .routes(routes!(changes::list))
        .routes(routes!(members::list))
}
