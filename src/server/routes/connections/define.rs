//! Between what a request says and what is stored: the entry that `cloud-connect.yml` would hold.
//!
//! Credentials are in it as references to authorizations (`${auth:ID/PARAMETER}`), one for each parameter that an
//! authorization in `auth_ids` holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Confines;
use crate::catalog::authorizations::SealedAuthorization;
use crate::catalog::definitions::{StoredDefinition, StoredDefinitions};
use crate::config::{self, Project};
use crate::secrets;
use crate::server::answer::ApiError;
use crate::sync::Engine;
use crate::vault::Vault;
use crate::warehouse::{ParameterKind, Provider};

const MAX_LABEL: usize = 200;
const MAX_DESCRIPTION: usize = 4000;
/// Characters of an id.
const MAX_ID: usize = 64;

/// A label, or a description, that can be shown in a list.
pub fn label(label: &str, description: &str) -> Result<(), ApiError> {
    if label.trim().is_empty() || label.chars().count() > MAX_LABEL {
        let message = format!("`label` has to be 1 to {MAX_LABEL} characters long");
        return Err(ApiError::bad_request("invalid-label", message).with_field("label"));
    }
    if description.chars().count() > MAX_DESCRIPTION {
        let message = format!("`description` may be {MAX_DESCRIPTION} characters long at most");
        return Err(ApiError::bad_request("invalid-description", message).with_field("description"));
    }
    Ok(())
}

/// An id that is made of a label and not taken: letters and digits, `_` between them, a number behind where it has to be.
pub fn free_id(label: &str, otherwise: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut id = String::new();
    for c in label.trim().chars() {
        match c {
            c if c.is_ascii_alphanumeric() || c == '-' => id.push(c.to_ascii_lowercase()),
            _ if !id.is_empty() && !id.ends_with('_') => id.push('_'),
            _ => {}
        }
    }
    // room for a number
    id.truncate(MAX_ID - 8);
    let id = id.trim_end_matches('_');
    let id = if id.is_empty() { otherwise } else { id };
    let mut free = id.to_string();
    let mut number = 2_u32;
    while taken(&free) {
        free = format!("{id}_{number}");
        number += 1;
    }
    free
}

/// A parameter's value as text; none for what has no text.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The authorization, and which of its values, that a stored value is.
pub fn authorization_of(value: &str) -> Option<(&str, &str)> {
    value.strip_prefix("${auth:")?.strip_suffix('}')?.split_once('/')
}

/// The provider of that name.
pub fn provider<'a>(project: &'a Project, name: &str) -> Result<&'a Provider, ApiError> {
    project.providers.iter().find(|provider| provider.name == name).ok_or_else(|| {
        let known: Vec<&str> = project.providers.iter().map(|provider| provider.name).collect();
        ApiError::bad_request("unknown-type", format!("`{name}` is not a type of connection"))
            .with_hint(config::hint(name, &known, "the types are"))
            .with_field("provider_slug")
    })
}

/// The entry of a connection with these parameters and authorizations.
pub fn compose(
    engine: &Engine,
    authorizations: &[SealedAuthorization],
    provider_slug: &str,
    config: &Map<String, Value>,
    auth_ids: &[String],
) -> Result<Map<String, Value>, ApiError> {
    let provider = provider(&engine.project, provider_slug)?;
    let confines = Confines::of(engine);
    let mut definition = Map::from_iter([("type".to_string(), Value::from(provider.name))]);
    for (name, value) in config.iter().filter(|(_, value)| !value.is_null()) {
        let field = format!("config.{name}");
        if name == "type" {
            return Err(ApiError::bad_request("unknown-parameter", "`type` is not a parameter")
                .with_hint("name the type in provider_slug")
                .with_field(field));
        }
        if let Some(declared) = provider.parameters.iter().find(|parameter| parameter.name == name) {
            if declared.kind == ParameterKind::Secret {
                return Err(ApiError::bad_request("secret-in-config", format!("`{name}` is a secret"))
                    .with_hint(format!(
                        "put it into an authorization (POST /v2/auth/{provider_slug}) and name that in auth_ids"
                    ))
                    .with_field(field));
            }
            if let Some(text) = text_of(value) {
                confines.check(provider.name, declared, &text)?;
            }
        }
        definition.insert(name.clone(), value.clone());
    }
    attach(&mut definition, provider.name, authorizations, auth_ids)?;
    Ok(definition)
}

/// Adds the references to what the authorizations hold.
fn attach(
    definition: &mut Map<String, Value>,
    provider: &str,
    authorizations: &[SealedAuthorization],
    auth_ids: &[String],
) -> Result<(), ApiError> {
    let refused = |code: &str, message: String| ApiError::bad_request(code, message).with_field("auth_ids");
    let mut seen = BTreeSet::new();
    for id in auth_ids {
        if !seen.insert(id) {
            return Err(refused("named-twice", format!("the authorization `{id}` is named twice")));
        }
        let found = authorizations.iter().find(|one| one.id == *id);
        let found = found.ok_or_else(|| {
            refused("unknown-authorization", format!("there is no authorization `{id}`"))
                .with_hint("GET /v2/auth lists them; POST /v2/auth makes one")
        })?;
        if found.provider != provider {
            let message =
                format!("the authorization `{id}` is for `{}`, and the connection is `{provider}`", found.provider);
            return Err(refused("other-provider", message));
        }
        for name in &found.parameters {
            if definition.contains_key(name) {
                return Err(refused(
                    "given-twice",
                    format!("`{name}` is given, and the authorization `{id}` holds it too"),
                )
                .with_hint("leave it out of config, or name another authorization"));
            }
            definition.insert(name.clone(), Value::from(format!("${{auth:{id}/{name}}}")));
        }
    }
    Ok(())
}

/// What of an entry its owner gave: without the type and the references to authorizations.
pub fn own_config(definition: &Map<String, Value>) -> Map<String, Value> {
    let own = |(name, value): &(&String, &Value)| {
        name.as_str() != "type" && value.as_str().is_none_or(|text| authorization_of(text).is_none())
    };
    definition.iter().filter(own).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Judges a definition by the rules of the files, among all that are stored; `open`: can its warehouse be built of it?
/// Asks no network.
pub fn validate(
    engine: &Engine,
    stored: &StoredDefinitions,
    candidate: &StoredDefinition,
    vault: Arc<Vault>,
) -> Result<(), ApiError> {
    let mut stored = stored.clone();
    stored.connections.retain(|one| one.id != candidate.id);
    stored.connections.push(candidate.clone());
    let (mut project, unusable) = config::with_stored(engine.files(), &stored);
    if let Some(unusable) = unusable.iter().find(|one| one.kind == "connection" && one.id == candidate.id) {
        return Err(ApiError::faults(&unusable.faults));
    }
    project.vault = vault;
    project.open_connection(&candidate.id, engine.memory.query)?;
    Ok(())
}

/// The connections that use an authorization: those made through the API, and those of the files.
pub fn users_of(engine: &Engine, stored: &StoredDefinitions, authorization: &str) -> Vec<String> {
    let named = stored.connections.iter().filter(|one| one.auth_ids.iter().any(|id| id == authorization));
    let mut users: BTreeSet<String> = named.map(|one| one.id.clone()).collect();
    let reference = format!("${{auth:{authorization}/");
    for connection in engine.project.connections.values() {
        let refers =
            connection.parameters.values().any(|value| secrets::has_reference(value) && value.contains(&reference));
        if refers {
            users.insert(connection.name.clone());
        }
    }
    users.into_iter().collect()
}

/// The definitions that have to change when an authorization comes to hold other parameters: the references in them are
/// one for each that it holds. Refused when one of them could not be used any more.
pub fn change_parameters(
    engine: &Engine,
    stored: &StoredDefinitions,
    authorizations: &[SealedAuthorization],
    changed: &str,
    vault: &Arc<Vault>,
) -> Result<Vec<StoredDefinition>, ApiError> {
    let mut changing = Vec::new();
    for one in stored.connections.iter().filter(|one| one.auth_ids.iter().any(|id| id == changed)) {
        let type_of = one.definition.get("type").and_then(Value::as_str).unwrap_or_default();
        let definition = compose(engine, authorizations, type_of, &own_config(&one.definition), &one.auth_ids)?;
        let candidate = StoredDefinition { definition, ..one.clone() };
        // also when its entry stays the same: the values in it do not
        if engine.project.connections.get(&one.id).is_some_and(|connection| !connection.in_files) {
            validate(engine, stored, &candidate, Arc::clone(vault))?;
        }
        if candidate.definition != one.definition {
            changing.push(candidate);
        }
    }
    Ok(changing)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_is_made_of_the_label_and_free() {
        let none = |_: &str| false;
        assert_eq!(free_id("  App DB (prod) ", "connection", none), "app_db_prod");
        assert_eq!(free_id("a-b_c", "connection", none), "a-b_c");
        assert_eq!(free_id("データ", "connection", none), "connection");
        assert_eq!(free_id("x", "connection", |id| ["x", "x_2"].contains(&id)), "x_3");
        let long = free_id(&"y".repeat(500), "connection", |id| id.len() < 57);
        assert!((57..=MAX_ID).contains(&long.len()), "{long}");
    }

    #[test]
    fn references_to_authorizations_are_told_from_what_was_given() {
        let definition = json!({ "type": "postgres", "host": "h", "port": 1, "password": "${auth:prod/password}" });
        let Value::Object(definition) = definition else { return };
        assert_eq!(Value::Object(own_config(&definition)), json!({ "host": "h", "port": 1 }));
        assert_eq!(authorization_of("${auth:prod/password}"), Some(("prod", "password")));
        assert_eq!(authorization_of("$${auth:prod/password}"), None);
    }
}
