//! A request as the `.yml` that it stands for, and the faults of that in the words of the request.

use serde_json::{Map, Value, json};

use super::shape::{DataModelChange, ModelStatus, NewDataModel, PROFILES};
use crate::catalog::definitions::StoredDefinition;
use crate::config::ConfigError;
use crate::server::answer::{ApiError, Fault};

/// What a model's `.yml` holds.
pub type Definition = Map<String, Value>;

/// Slugs that would hide other endpoints.
const TAKEN: [&str; 2] = ["plan", "validate"];

/// The slug that a new model gets.
pub fn slug_of(new: &NewDataModel) -> Result<String, ApiError> {
    let slug = match (&new.slug, &new.name) {
        (Some(slug), _) => slug.clone(),
        (None, Some(name)) => from_name(name),
        (None, None) => {
            return Err(ApiError::bad_request("missing-field", "the model has neither `slug` nor `name`")
                .with_hint("give it a slug, for example `holiday_buyers`")
                .with_field("slug"));
        }
    };
    if TAKEN.contains(&slug.as_str()) {
        return Err(ApiError::bad_request(
            "invalid-slug",
            format!("`{slug}` cannot be a slug: the API has an endpoint there"),
        )
        .with_hint("choose another slug")
        .with_field("slug"));
    }
    Ok(slug)
}

/// `Holiday buyers (2026)` -> `holiday_buyers_2026`. What is no slug even so is refused later, with what a slug is.
fn from_name(name: &str) -> String {
    let words: Vec<String> = name
        .to_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(String::from)
        .collect();
    let mut slug = words.join("_");
    if slug.starts_with(|c: char| c.is_ascii_digit()) {
        slug.insert_str(0, "model_");
    }
    slug.truncate(64);
    slug.trim_end_matches('_').to_string()
}

/// The definition of a new model.
pub fn of_new(new: &NewDataModel, slug: &str) -> Result<Definition, ApiError> {
    let primary_key = only_key(&new.primary_keys)?;
    let join = &new.joined_to;
    if join.primary_key.as_ref().is_some_and(|key| *key != primary_key) {
        return Err(ApiError::bad_request(
            "key-mismatch",
            "`joined_to.primary_key` has to be the entry of `primary_keys`",
        )
        .with_hint(format!("write `{primary_key}`, or leave it out"))
        .with_field("joined_to.primary_key"));
    }
    check_table(join.foreign_table.as_deref())?;
    if new.status == Some(ModelStatus::Active) {
        return Err(ApiError::bad_request("starts-inactive", "a new model starts inactive")
            .with_hint("leave `status` out; look at the model's plan, then PUT `{\"status\": \"active\"}`")
            .with_field("status"));
    }
    let schedule = match (new.sync_period, &new.schedule) {
        (Some(_), Some(_)) => return Err(two_schedules()),
        (Some(seconds), None) => Some(every(seconds)),
        (None, text) => text.clone(),
    };
    let mut definition = Map::new();
    let mut set = |key: &str, value: Value| {
        definition.insert(key.into(), value);
    };
    set("name", new.name.as_deref().unwrap_or(slug).into());
    if let Some(description) = new.description.as_deref().filter(|text| !text.trim().is_empty()) {
        set("description", description.into());
    }
    set("connection", new.connection_id.clone().into());
    set("primary_key", primary_key.into());
    set("external_key", join.foreign_key.clone().into());
    set("activated_fields", new.activated_fields.clone().into());
    if !new.identities.is_empty() {
        set("identities", new.identities.clone().into());
    }
    if let Some(schedule) = schedule {
        set("schedule", schedule.into());
    }
    set("create_profiles", new.create_profiles.unwrap_or(true).into());
    set("active", false.into());
    if let Some(guard) = new.guard {
        set("guard", json!(guard));
    }
    if let Some(columns) = new.columns.as_ref().filter(|columns| !columns.is_empty()) {
        set("columns", json!(columns));
    }
    if let Some(timeout) = &new.timeout {
        set("timeout", timeout.clone().into());
    }
    Ok(definition)
}

fn only_key(keys: &[String]) -> Result<String, ApiError> {
    match keys {
        [key] => Ok(key.clone()),
        [] => Err(ApiError::bad_request("missing-field", "`primary_keys` is empty")
            .with_hint("name the result column that identifies a row")
            .with_field("primary_keys")),
        several => Err(ApiError::bad_request(
            "several-key-columns",
            format!("`primary_keys` has {} entries, and it has to have exactly one", several.len()),
        )
        .with_hint(format!(
            "join them in the SQL, for example `{} AS row_key`, and name that",
            several.join(" || '|' || ")
        ))
        .with_field("primary_keys")),
    }
}

fn check_table(table: Option<&str>) -> Result<(), ApiError> {
    match table {
        None | Some(PROFILES) => Ok(()),
        Some(other) => Err(ApiError::bad_request("unknown-table", format!("a model cannot be joined to `{other}`"))
            .with_hint("models are joined to profiles: write `user`, or leave it out")
            .with_field("joined_to.foreign_table")),
    }
}

fn two_schedules() -> ApiError {
    ApiError::bad_request("two-schedules", "both `sync_period` and `schedule` are given")
        .with_hint("give one of them: `sync_period` in seconds, or `schedule` as text")
        .with_field("schedule")
}

fn every(seconds: u64) -> String {
    format!("every {seconds}s")
}

/// The definition as the change leaves it. `present` is its schedule as text and in seconds.
pub fn changed(
    stored: &StoredDefinition,
    change: &DataModelChange,
    present: (Option<&str>, Option<u64>),
) -> Result<Definition, ApiError> {
    refuse_immutable(&stored.definition, &stored.id, change)?;
    let mut definition = stored.definition.clone();
    let mut put = |key: &str, value: Option<Value>| match value {
        Some(value) => drop(definition.insert(key.into(), value)),
        None => drop(definition.shift_remove(key)),
    };
    if let Some(name) = &change.name {
        put("name", Some(name.clone().into()));
    }
    if let Some(description) = &change.description {
        put("description", description.clone().filter(|text| !text.trim().is_empty()).map(Value::from));
    }
    if let Some(fields) = &change.activated_fields {
        put("activated_fields", Some(fields.clone().into()));
    }
    if let Some(identities) = &change.identities {
        put("identities", Some(identities.clone()).filter(|list| !list.is_empty()).map(Value::from));
    }
    // what was sent back as it was read is no change
    let text = change.schedule.as_ref().filter(|text| text.as_deref() != present.0);
    let period = change.sync_period.filter(|seconds| Some(*seconds) != present.1);
    match (text, period) {
        (Some(Some(_)), Some(_)) => return Err(two_schedules()),
        (_, Some(seconds)) => put("schedule", Some(every(seconds).into())),
        (Some(text), None) => put("schedule", text.clone().map(Value::from)),
        (None, None) => {}
    }
    if let Some(create) = change.create_profiles {
        put("create_profiles", Some(create.into()));
    }
    if let Some(status) = change.status {
        put("active", Some((status == ModelStatus::Active).into()));
    }
    if let Some(guard) = &change.guard {
        put("guard", guard.map(|guard| json!(guard)));
    }
    if let Some(columns) = &change.columns {
        put("columns", columns.as_ref().filter(|columns| !columns.is_empty()).map(|columns| json!(columns)));
    }
    if let Some(timeout) = &change.timeout {
        put("timeout", timeout.clone().map(Value::from));
    }
    Ok(definition)
}

/// What a record store is keyed by stays: with another key every membership would end and begin anew.
fn refuse_immutable(present: &Definition, slug: &str, change: &DataModelChange) -> Result<(), ApiError> {
    let is = |key: &str| present.get(key).and_then(Value::as_str).unwrap_or_default();
    let join = change.joined_to.as_ref();
    let differs = [
        ("slug", change.slug.as_deref().is_some_and(|new| new != slug), slug),
        ("connection_id", change.connection_id.as_deref().is_some_and(|new| new != is("connection")), is("connection")),
        (
            "primary_keys",
            change.primary_keys.as_ref().is_some_and(|new| new.as_slice() != [is("primary_key")]),
            is("primary_key"),
        ),
        (
            "joined_to.primary_key",
            join.and_then(|j| j.primary_key.as_deref()).is_some_and(|new| new != is("primary_key")),
            is("primary_key"),
        ),
        ("joined_to.foreign_key", join.is_some_and(|j| j.foreign_key != is("external_key")), is("external_key")),
        (
            "joined_to.foreign_table",
            join.and_then(|j| j.foreign_table.as_deref()).is_some_and(|new| new != PROFILES),
            PROFILES,
        ),
    ];
    match differs.into_iter().find(|(_, differs, _)| *differs) {
        None => Ok(()),
        Some((field, _, is)) => Err(ApiError::bad_request(
            "immutable",
            format!("`{field}` is `{is}`, and does not change after creation"),
        )
        .with_hint(
            "make a new model with another slug, and delete this one: its memberships would begin anew either way",
        )
        .with_field(field)),
    }
}

/// A dialect's name has to be that of the connection's type, or one that people use for it.
pub fn check_dialect(given: Option<&str>, provider: &str) -> Result<(), ApiError> {
    let Some(given) = given.map(str::trim).filter(|given| !given.is_empty()) else { return Ok(()) };
    let given_provider = match given.to_ascii_lowercase().as_str() {
        "postgresql" => "postgres".to_string(),
        "datafusion" => "local".to_string(),
        "googlesql" | "standardsql" => "bigquery".to_string(),
        other => other.to_string(),
    };
    if given_provider == provider {
        return Ok(());
    }
    Err(ApiError::bad_request("dialect-mismatch", format!("the connection's dialect is `{provider}`, not `{given}`"))
        .with_hint(format!("write `{provider}`, or leave `sql_dialect` out"))
        .with_field("sql_dialect"))
}

/// The faults of a stored definition in the words of the request that it came from.
pub fn faults(errors: &[ConfigError], definition: &Definition, sent_period: bool) -> ApiError {
    ApiError::faults_in_words(errors, |error, fault| say(error, fault, definition, sent_period))
}

fn say(error: &ConfigError, fault: &mut Fault, definition: &Definition, sent_period: bool) {
    fault.message = api_words(&fault.message, sent_period);
    fault.hint = fault.hint.as_deref().map(|hint| api_words(hint, sent_period));
    let field = if error.file.ends_with("sql") {
        Some("sql")
    } else if matches!(error.code, "invalid-slug" | "slug-used-twice") {
        Some("slug")
    } else {
        key_at(definition, error.column)
    };
    fault.field = field.map(|key| {
        match key {
            "connection" => "connection_id",
            "primary_key" => "primary_keys",
            "external_key" => "joined_to.foreign_key",
            "active" => "status",
            "schedule" if sent_period => "sync_period",
            other => other,
        }
        .to_string()
    });
}

/// The files' names of fields become the API's.
fn api_words(text: &str, sent_period: bool) -> String {
    let text = text.replace("`external_key:`", "`joined_to.foreign_key`").replace("`primary_key:`", "`primary_keys`");
    let text = text.replace("`external_key`", "`joined_to.foreign_key`").replace("`primary_key`", "`primary_keys`");
    let text = text.replace("the connections of cloud-connect.yml", "the connections");
    if sent_period { text.replace("`schedule`", "`sync_period`") } else { text }
}

/// The key whose entry stands at that column (in characters, from 1) of the definition's JSON; none for the whole.
fn key_at(definition: &Definition, column: usize) -> Option<&str> {
    let mut end = 1;
    if column <= end {
        return None;
    }
    for (key, value) in definition {
        // the colon and the comma
        end += Value::from(key.as_str()).to_string().chars().count() + value.to_string().chars().count() + 2;
        if column <= end {
            return Some(key);
        }
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn new(json: Value) -> NewDataModel {
        let mut all = json!({
            "slug": "buyers", "connection_id": "files", "sql": "SELECT 1", "primary_keys": ["email"],
            "joined_to": { "foreign_key": "email" },
        });
        all.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn stored() -> StoredDefinition {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        StoredDefinition {
            id: "buyers".into(),
            definition: of_new(&new(json!({ "sync_period": 3600.0, "timeout": "5m" })), "buyers").unwrap(),
            sql: Some("SELECT 1".into()),
            label: None,
            description: None,
            auth_ids: Vec::new(),
            created_by: "cli".into(),
            created_at: at,
            updated_by: "cli".into(),
            updated_at: at,
            revision: 1,
        }
    }

    fn code(error: ApiError) -> (String, Option<String>) {
        let fault = error.into_faults().remove(0);
        (fault.code, fault.field)
    }

    #[test]
    fn a_slug_is_made_from_the_name() {
        let slug = |name: &str| {
            let mut model = new(json!({ "name": name }));
            model.slug = None;
            slug_of(&model)
        };
        assert_eq!(slug("Holiday buyers (2026)").unwrap(), "holiday_buyers_2026");
        assert_eq!(slug("  2026: wer kauft? ").unwrap(), "model_2026_wer_kauft");
        assert_eq!(slug(&"long name ".repeat(20)).unwrap().len(), 64);
        assert_eq!(code(slug("Plan").unwrap_err()).0, "invalid-slug");
    }

    #[test]
    fn a_new_model_is_inactive_with_one_key_and_one_schedule() {
        let definition = stored().definition;
        assert_eq!(definition["active"], false);
        assert_eq!(definition["schedule"], "every 3600s");
        let refused = |json| code(of_new(&new(json), "buyers").unwrap_err());
        let of = |code: &str, field: &str| (code.to_string(), Some(field.to_string()));
        assert_eq!(refused(json!({ "primary_keys": ["a", "b"] })), of("several-key-columns", "primary_keys"));
        assert_eq!(refused(json!({ "primary_keys": [] })), of("missing-field", "primary_keys"));
        assert_eq!(refused(json!({ "status": "active" })), of("starts-inactive", "status"));
        assert_eq!(refused(json!({ "sync_period": 60, "schedule": "every 1h" })), of("two-schedules", "schedule"));
        let join = json!({ "joined_to": { "primary_key": "id", "foreign_key": "email" } });
        assert_eq!(refused(join), of("key-mismatch", "joined_to.primary_key"));
        let join = json!({ "joined_to": { "foreign_key": "email", "foreign_table": "orders" } });
        assert_eq!(refused(join), of("unknown-table", "joined_to.foreign_table"));
    }

    #[test]
    fn what_is_left_out_stays_and_null_removes() {
        let stored = stored();
        let change = |json: Value| serde_json::from_value::<DataModelChange>(json).unwrap();
        let present = (Some("every 1h"), Some(3600));
        let apply = |json| changed(&stored, &change(json), present).unwrap();
        assert_eq!(apply(json!({})), stored.definition);
        // read, and sent back
        assert_eq!(apply(json!({ "sync_period": 3600, "schedule": "every 1h", "timeout": "5m" })), stored.definition);
        assert_eq!(apply(json!({ "sync_period": 7200, "schedule": "every 1h" }))["schedule"], "every 7200s");
        assert_eq!(apply(json!({ "sync_period": 3600, "schedule": "every 2d" }))["schedule"], "every 2d");
        assert!(changed(&stored, &change(json!({ "sync_period": 60, "schedule": "every 2d" })), present).is_err());
        let gone = apply(json!({ "schedule": null, "timeout": null }));
        assert!(!gone.contains_key("schedule") && !gone.contains_key("timeout"));
        assert_eq!(apply(json!({ "status": "active" }))["active"], true);
    }

    #[test]
    fn what_a_record_store_is_keyed_by_does_not_change() {
        let stored = stored();
        for (field, json) in [
            ("slug", json!({ "slug": "other" })),
            ("connection_id", json!({ "connection_id": "other" })),
            ("primary_keys", json!({ "primary_keys": ["id"] })),
            ("joined_to.foreign_key", json!({ "joined_to": { "foreign_key": "user_id" } })),
        ] {
            let change: DataModelChange = serde_json::from_value(json).unwrap();
            let refused = code(changed(&stored, &change, (None, None)).unwrap_err());
            assert_eq!(refused, ("immutable".to_string(), Some(field.to_string())));
        }
        let same = json!({ "slug": "buyers", "connection_id": "files", "primary_keys": ["email"],
            "joined_to": { "primary_key": "email", "foreign_key": "email", "foreign_table": "user" } });
        assert!(changed(&stored, &serde_json::from_value(same).unwrap(), (None, None)).is_ok());
    }

    #[test]
    fn a_place_in_the_definition_is_told_as_the_key_there() {
        let definition = json!({ "name": "Käufer", "connection": "x", "primary_key": "y" });
        let definition = definition.as_object().unwrap();
        let text = Value::Object(definition.clone()).to_string();
        let column = |part: &str| text[..text.find(part).unwrap()].chars().count() + 1;
        assert_eq!(key_at(definition, column("\"name\"")), Some("name"));
        assert_eq!(key_at(definition, column("\"x\"")), Some("connection"));
        assert_eq!(key_at(definition, column("\"primary_key\"")), Some("primary_key"));
        assert_eq!(key_at(definition, column("\"y\"")), Some("primary_key"));
        assert_eq!(key_at(definition, 1), None);
    }

    #[test]
    fn a_dialect_is_that_of_the_connection() {
        assert!(check_dialect(None, "local").is_ok());
        assert!(check_dialect(Some("PostgreSQL"), "postgres").is_ok());
        assert!(check_dialect(Some("snowflake"), "postgres").is_err());
    }
}
