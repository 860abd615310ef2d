//! Sealing what was given, and storing it.

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::{subject, values};
use crate::catalog::authorizations::SealedAuthorization;
use crate::events::{Event, Subject, SubjectKind};
use crate::server::answer::ApiError;
use crate::server::extract::Caller;
use crate::server::routes::connections::{Confines, Parameters, change_parameters, free_id};
use crate::server::state::App;
use crate::sync::Engine;
use crate::vault::{self, Custody, KeyError, Keyring, Vault, VaultError};
use crate::warehouse::Provider;

/// An authorization to be made.
#[derive(Debug)]
pub struct New {
    /// None: made of the label.
    pub id: Option<String>,
    pub provider: String,
    pub label: String,
    pub description: String,
    pub config: Parameters,
}

/// The keys and what they sealed, as they are now: `key rotate` may have replaced them since the engine was read.
pub async fn present(engine: &Engine) -> Result<(Keyring, Vec<SealedAuthorization>), ApiError> {
    let _custody = Custody::share(engine.state_folder()).await.map_err(ApiError::internal)?;
    let sealed = engine.catalog.authorizations().await?;
    // without a usable key they are shown all the same, as unhealthy
    let keyring = Keyring::load(engine.state_folder(), false).unwrap_or_else(|error| {
        tracing::error!(%error, hint = error.hint(), "the keys of stored credentials cannot be used");
        Keyring::default()
    });
    Ok((keyring, sealed))
}

/// Seals and stores a new authorization.
pub async fn make(app: &App, caller: &Caller, new: New) -> Result<SealedAuthorization, ApiError> {
    let engine = app.service.engine();
    let provider = provider(&engine, &new.provider)?;
    let given = values::judge(&Confines::of(&engine), provider, &new.config)?;
    let values: BTreeMap<String, SecretString> =
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    holds_something(&values)?;
    let there = engine.catalog.authorizations().await?;
    let taken = |id: &str| there.iter().any(|one| one.id == id);
    let id = match new.id {
        Some(id) => given_id(id)?,
        None => free_id(&new.label, "authorization", taken),
    };
    let now = engine.clock.now();
    let mut made = SealedAuthorization::new(id.clone(), new.provider, new.label, &caller.actor, now);
    made.description = new.description;
    // from the choice of the key until what it sealed is stored, nobody may drop the key
    let _custody = Custody::take(engine.state_folder()).await.map_err(ApiError::internal)?;
    let keyring = Keyring::load(engine.state_folder(), true).map_err(|e| no_keys(&e))?;
    vault::seal(&keyring, &mut made, &values).map_err(|e| cannot_seal(&e))?;
    let event = Event::new(now, subject(&id), "created", format!("authorization `{id}` was created"))
        .by(&caller.actor)
        .with(json!({ "type": made.provider, "label": made.label, "parameters": made.parameters }));
    if !engine.catalog.add_authorization(&made, &event).await? {
        return Err(ApiError::conflict("id-taken", format!("there is an authorization `{id}`"))
            .with_hint("PUT changes it; POST without an id makes one of the label"));
    }
    Ok(made)
}

/// Changes label, description and the values given; seals all of them anew when there are any.
pub async fn change(
    app: &App,
    caller: &Caller,
    old: SealedAuthorization,
    label: String,
    description: String,
    config: &Parameters,
) -> Result<SealedAuthorization, ApiError> {
    let engine = app.service.engine();
    let provider = provider(&engine, &old.provider)?;
    let given = values::judge(&Confines::of(&engine), provider, config)?;
    let now = engine.clock.now();
    let mut new =
        SealedAuthorization { label, description, updated_by: caller.actor.clone(), updated_at: now, ..old.clone() };
    let mut details = serde_json::Map::new();
    for (name, from, to) in [("label", &old.label, &new.label), ("description", &old.description, &new.description)] {
        if from != to {
            details.insert(name.into(), json!({ "from": from, "to": to }));
        }
    }
    let names = |set: bool| given.iter().filter(move |(_, value)| value.is_some() == set).map(|(name, _)| name);
    for (what, set) in [("replaced", true), ("removed", false)] {
        let names: Vec<&String> = names(set).collect();
        if !names.is_empty() {
            details.insert(what.into(), json!(names));
        }
    }
    if details.is_empty() {
        return Ok(old);
    }
    let _custody = Custody::take(engine.state_folder()).await.map_err(ApiError::internal)?;
    let mut others = Vec::new();
    if !given.is_empty() {
        let keyring = Keyring::load(engine.state_folder(), true).map_err(|e| no_keys(&e))?;
        let values = merged(&keyring, &old, given)?;
        holds_something(&values)?;
        vault::seal(&keyring, &mut new, &values).map_err(|e| cannot_seal(&e))?;
        let mut all = engine.catalog.authorizations().await?;
        all.retain(|one| one.id != new.id);
        all.push(new.clone());
        let stored = engine.catalog.definitions().await?;
        let vault = Arc::new(Vault::new(keyring, all.clone()));
        others = change_parameters(&engine, &stored, &all, &new.id, &vault)?;
    }
    let id = &new.id;
    let event = Event::new(now, subject(id), "updated", format!("authorization `{id}` was changed"))
        .by(&caller.actor)
        .with(Value::Object(details));
    let others = others.into_iter().map(|mut one| {
        (one.updated_by, one.updated_at) = (caller.actor.clone(), now);
        let message = format!("connection `{}`: the authorization `{id}` holds other parameters", one.id);
        let event = Event::new(now, Subject::new(SubjectKind::Connection, &one.id), "updated", message)
            .by(&caller.actor)
            .with(json!({ "authorization": id, "parameters": new.parameters }));
        (one, event)
    });
    let others: Vec<_> = others.collect();
    if !engine.catalog.replace_authorization(&new, &event, &others).await? {
        return Err(ApiError::changed_meanwhile());
    }
    new.revision += 1;
    Ok(new)
}

/// The old values with the given ones over them. What does not open any more need not, when all of it is given anew.
fn merged(
    keyring: &Keyring,
    old: &SealedAuthorization,
    given: BTreeMap<String, Option<SecretString>>,
) -> Result<BTreeMap<String, SecretString>, ApiError> {
    let mut values = match vault::open(keyring, old) {
        Ok(values) => values,
        Err(_) if old.parameters.iter().all(|name| given.contains_key(name)) => BTreeMap::new(),
        Err(error) => {
            return Err(ApiError::conflict("sealed", error.to_string()).with_hint(format!(
                "{}: give {}",
                error.hint(),
                old.parameters.join(", ")
            )));
        }
    };
    for (name, value) in given {
        match value {
            Some(value) => values.insert(name, value),
            None => values.remove(&name),
        };
    }
    Ok(values)
}

fn provider<'a>(engine: &'a Engine, name: &str) -> Result<&'a Provider, ApiError> {
    engine.project.providers.iter().find(|provider| provider.name == name).ok_or_else(|| {
        let known: Vec<&str> = engine.project.providers.iter().map(|provider| provider.name).collect();
        ApiError::bad_request("unknown-type", format!("`{name}` is not a type of connection"))
            .with_hint(crate::config::hint(name, &known, "the types are"))
            .with_field("type")
    })
}

/// An id is part of a reference (`${auth:ID/PARAMETER}`), and of a path.
fn given_id(id: String) -> Result<String, ApiError> {
    let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if plain && (1..=64).contains(&id.len()) {
        return Ok(id);
    }
    Err(ApiError::bad_request("invalid-id", "an authorization's id is 1 to 64 letters, digits, `_` and `-`")
        .with_hint("POST /v2/auth/{type} makes one of the label"))
}

fn holds_something(values: &BTreeMap<String, SecretString>) -> Result<(), ApiError> {
    if values.is_empty() {
        return Err(ApiError::bad_request("empty", "an authorization holds one value at least")
            .with_hint("for example `\"config\": {\"password\": \"…\"}`; GET /v2/connectionconfig says which there are")
            .with_field("config"));
    }
    Ok(())
}

/// Where the keys are is for the log, not for the caller.
fn no_keys(error: &KeyError) -> ApiError {
    tracing::error!(%error, hint = error.hint(), "credentials cannot be sealed");
    ApiError::unavailable("credentials cannot be sealed now: there is no usable key")
        .with_hint("the service's log says why")
}

fn cannot_seal(error: &VaultError) -> ApiError {
    ApiError::unavailable(error.to_string()).with_hint(error.hint())
}
