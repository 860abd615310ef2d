//! Who is in a model.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::profiles::Member;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Caller, Page, Path, Query};
use crate::server::state::App;
use crate::values::json::timestamp;

/// A profile in a model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelMember {
    profile_id: String,
    /// The external key's value.
    identity: String,
    #[schema(example = "2026-01-31T12:00:00Z")]
    since: String,
}

impl From<Member> for ModelMember {
    fn from(member: Member) -> Self {
        let Member { profile_id, identity, since } = member;
        Self { profile_id, identity, since: timestamp(since) }
    }
}

/// The members of a model, by profile id.
///
/// Each page reads the keys of all members, and counts as a query (see `POST /v2/sql`, which streams all of them at
/// once). Who enters or leaves between two pages may be missed: `GET /v2/changes` tells.
#[utoipa::path(get, path = "/v2/datamodel/{id}/members", tag = "profiles",
    params(("id" = String, Path, description = "the model's slug"), Page),
    responses((status = 200, body = Answer<Vec<ModelMember>>), (status = 404, body = Errors), (status = 429, description = "a query is under way", body = Errors)),
    security(("token" = ["profiles:query"])))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(slug): Path<String>,
    Query(page): Query<Page>,
) -> Result<Answer<Vec<ModelMember>>, ApiError> {
    let _slot = app.queries.take(caller.id())?;
    let limit = page.limit();
    // one more tells whether there is a next page
    let mut members = app.profiles.members_after(slug, page.cursor, limit + 1).await?;
    let more = members.len() > limit;
    members.truncate(limit);
    let next = members.last().filter(|_| more).map(|last| last.profile_id.clone());
    Ok(Answer::page(members.into_iter().map(ModelMember::from).collect(), next))
}
