//! One profile, by an identity.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::catalog::AsOf;
use crate::profiles::Profile;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Caller, Path, Query};
use crate::server::state::App;
use crate::values::json::timestamp;

/// A profile: what of it was asked for, and may be seen.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct FoundProfile {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, example = "0197b2c4-6f0e-7c31-a1de-0b6a2b0f9a11")]
    profile_id: Option<String>,
    /// When the identity that founded the profile was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, example = "2026-01-31T12:00:00Z")]
    created_at: Option<String>,
    /// Identity field -> its values, newest first.
    identities: BTreeMap<String, Vec<String>>,
    /// `cc_<slug>_<column>` -> value, of each model that the profile is in; nulls included.
    #[schema(value_type = Object)]
    attributes: Map<String, Value>,
    memberships: Vec<ProfileMembership>,
}

/// That a profile is in a model.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct ProfileMembership {
    /// The model's slug.
    model: String,
    #[schema(example = "2026-01-31T12:00:00Z")]
    since: String,
}

/// What of a profile is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// As a run (its id) left things, or as of a time (RFC 3339, or a date). Slower.
    as_of: Option<String>,
    /// Only these, with commas between them: attributes (`cc_<slug>_<column>`), memberships (`cc_<slug>_membership`),
    /// identity fields, `profile_id`, `created_at`. Everything when left out.
    fields: Option<String>,
}

/// One profile, by any value of an identity field.
///
/// The value is normalized as the project says. A public token asks by the identity fields in `public_identities` and
/// sees the fields in `public_fields`.
#[utoipa::path(get, path = "/v2/entity/user/{field}/{value}", tag = "profiles",
    params(("field" = String, Path, description = "an identity field", example = "email"),
        ("value" = String, Path, description = "its value, URL-encoded", example = "ada@example.com"), Wanted),
    responses((status = 200, body = Answer<FoundProfile>), (status = 404, description = "nobody has it (`no-profile`), or there is no such identity field", body = Errors)),
    security(("token" = ["profiles:lookup"])))]
pub async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((field, value)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Answer<FoundProfile>, ApiError> {
    let engine = app.service.engine();
    let service = &engine.project.service;
    let asked: Option<BTreeSet<&str>> = wanted
        .fields
        .as_deref()
        .map(|fields| fields.split(',').map(str::trim).filter(|field| !field.is_empty()).collect());
    let shown = if caller.is_public() {
        if !service.public_identities.contains(&field) {
            return Err(ApiError::forbidden(format!("a public token may not look up by `{field}`"))
                .with_hint(allowed("public_identities", &service.public_identities)));
        }
        if wanted.as_of.is_some() {
            return Err(ApiError::forbidden("a public token sees profiles as they are now"));
        }
        let public: BTreeSet<&str> = service.public_fields.iter().map(String::as_str).collect();
        if let Some(hidden) = asked.iter().flatten().find(|field| !public.contains(*field)) {
            return Err(ApiError::forbidden(format!("`{hidden}` is not public"))
                .with_hint(allowed("public_fields", &service.public_fields)));
        }
        Some(asked.unwrap_or(public))
    } else {
        asked
    };
    let found = match wanted.as_of.as_deref().map(str::parse::<AsOf>).transpose()? {
        Some(as_of) => app.profiles.lookup_as_of(&field, &value, &as_of).await?,
        None => app.profiles.lookup(&field, &value).await?,
    };
    // neither here nor in the log: whose value it was
    let missing =
        || ApiError::new(axum::http::StatusCode::NOT_FOUND, "no-profile", format!("no profile has that `{field}`"));
    let profile = found.ok_or_else(missing)?;
    Ok(Answer::of(FoundProfile::of(profile, shown.as_ref())))
}

fn allowed(setting: &str, fields: &[String]) -> String {
    match fields {
        [] => format!("`service: {{ {setting}: [] }}` in cloud-connect.yml allows none"),
        fields => format!("`service: {{ {setting} }}` in cloud-connect.yml allows {}", fields.join(", ")),
    }
}

impl FoundProfile {
    /// `shown`: only these fields; none: everything.
    fn of(profile: Profile, shown: Option<&BTreeSet<&str>>) -> Self {
        let shows = |field: &str| shown.is_none_or(|shown| shown.contains(field));
        let Profile { profile_id, created_at, mut identities, mut attributes, memberships } = profile;
        if shown.is_some() {
            identities.retain(|field, _| shows(field));
            attributes.retain(|field, _| shows(field));
        }
        let memberships =
            memberships.into_iter().filter(|(model, _)| shown.is_none() || shows(&format!("cc_{model}_membership")));
        Self {
            profile_id: shows("profile_id").then_some(profile_id),
            created_at: shows("created_at").then(|| timestamp(created_at)),
            identities,
            attributes,
            memberships: memberships
                .map(|(model, since)| ProfileMembership { model, since: timestamp(since) })
                .collect(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use chrono::DateTime;
    use serde_json::json;

    fn profile() -> Profile {
        let time = DateTime::from_timestamp(1_700_000_000, 250_000_000).unwrap();
        let attributes = json!({ "cc_vip_plan": "gold", "cc_vip_spent": null, "cc_new_n": 1 });
        Profile {
            profile_id: "p".into(),
            created_at: time,
            identities: BTreeMap::from([("email".into(), vec!["new@x".into(), "old@x".into()])]),
            attributes: attributes.as_object().unwrap().clone(),
            memberships: BTreeMap::from([("vip".into(), time), ("new".into(), time)]),
        }
    }

    #[test]
    fn everything_is_shown_when_nothing_is_named() {
        let all = serde_json::to_value(FoundProfile::of(profile(), None)).unwrap();
        let time = "2023-11-14T22:13:20.250Z";
        let expected = json!({
            "profile_id": "p", "created_at": time, "identities": { "email": ["new@x", "old@x"] },
            "attributes": { "cc_vip_plan": "gold", "cc_vip_spent": null, "cc_new_n": 1 },
            "memberships": [{ "model": "new", "since": time }, { "model": "vip", "since": time }],
        });
        assert_eq!(all, expected);
    }

    #[test]
    fn nothing_but_what_is_named_is_shown() {
        let of = |fields: &[&str]| {
            serde_json::to_value(FoundProfile::of(profile(), Some(&fields.iter().copied().collect()))).unwrap()
        };
        assert_eq!(of(&[]), json!({ "identities": {}, "attributes": {}, "memberships": [] }));
        assert_eq!(
            of(&["cc_vip_plan", "cc_new_membership"]),
            json!({
                "identities": {}, "attributes": { "cc_vip_plan": "gold" },
                "memberships": [{ "model": "new", "since": "2023-11-14T22:13:20.250Z" }],
            })
        );
        assert_eq!(of(&["email", "profile_id"])["profile_id"], json!("p"));
    }
}
