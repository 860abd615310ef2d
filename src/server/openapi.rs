//! The API's description: generated from the handlers, served at `/openapi.json`, committed as `docs/openapi.json`.

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, ContactBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;

use super::routes;
use super::state::App;

/// The name of the security scheme whose scopes are permissions.
const TOKEN: &str = "token";

const ABOUT: &str = "SQL models in a warehouse become profile attributes and audience memberships.

Every answer is `{status, request_id, data, _meta}`, or `{status, request_id, errors: [{code, message, hint, level, timestamp}]}`. Lists page by \
cursor: give `_meta.next_cursor` as `?cursor=`. A POST with an `Idempotency-Key` header can be repeated: it changes something once. An update \
with `If-Match` (the ETag of what was read) is refused when somebody else was faster. Send `Authorization: Bearer TOKEN`; each endpoint \
lists the permissions that it needs.";

/// The router of all endpoints, and their description.
pub fn router() -> (axum::Router<App>, OpenApi) {
    let api = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("cloud-connect")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(ABOUT))
                .license(Some(License::new("Apache-2.0")))
                .contact(Some(ContactBuilder::new().name(Some("cloud-connect")).build()))
                .build(),
        )
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme(TOKEN, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
                .build(),
        ))
        .build();
    OpenApiRouter::with_openapi(api).merge(routes::router()).split_for_parts()
}

/// The description as it is served and committed.
pub fn document(api: &OpenApi) -> Result<String, serde_json::Error> {
    api.to_pretty_json().map(|text| text + "\n")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::server::authorize::Requirements;

    #[test]
    fn the_committed_description_is_the_one_of_the_code() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let generated = document(&router().1).unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == generated,
            "docs/openapi.json is not what the code says: UPDATE_DOCS=1 cargo test openapi"
        );
    }

    #[test]
    fn every_endpoint_says_who_may_use_it() {
        let requirements = Requirements::of(&router().1).unwrap();
        assert!(requirements.iter().count() > 10);
    }
}
