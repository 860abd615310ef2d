//! Connections and models that were made through the API, judged by the same rules as the files.
//!
//! A stored definition is JSON, which is YAML too: it is read by the readers of the files. A faulty one is left out
//! and told of, so that one bad definition (its connection was removed from the files, say) stops nothing else.

use std::path::PathBuf;

use super::decode::{File, Text};
use super::load::{check_external_keys, check_field_names};
use super::parameter::decode_connection;
use super::project::Top;
use super::source::{Source, Span};
use super::{ConfigError, Model, Project, models, names, sql, yaml};
use crate::catalog::definitions::{StoredDefinition, StoredDefinitions};

/// A stored definition that cannot be used, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Unusable {
    /// `connection` or `model`.
    pub kind: &'static str,
    pub id: String,
    pub faults: Vec<ConfigError>,
}

/// Where the API's definitions stand in messages.
fn place(kind: &str, id: &str) -> PathBuf {
    PathBuf::from(format!("api/{kind}/{id}"))
}

/// The project of the files with the stored definitions that can be used added, and those that cannot.
pub fn with_stored(files: &Project, stored: &StoredDefinitions) -> (Project, Vec<Unusable>) {
    let mut project = files.clone();
    let mut unusable = Vec::new();
    for definition in &stored.connections {
        let faults = add_connection(&mut project, definition);
        if !faults.is_empty() {
            unusable.push(Unusable { kind: "connection", id: definition.id.clone(), faults });
        }
    }
    for definition in &stored.models {
        let faults = add_model(&mut project, definition);
        if !faults.is_empty() {
            unusable.push(Unusable { kind: "model", id: definition.id.clone(), faults });
        }
    }
    (project, unusable)
}

fn add_connection(project: &mut Project, stored: &StoredDefinition) -> Vec<ConfigError> {
    let place = place("connection", &stored.id);
    if project.connections.contains_key(&stored.id) {
        let message = format!("a connection `{}` is in {}, which wins", stored.id, super::PROJECT_FILE);
        return vec![ConfigError::of_file("name-used-twice", place, message).with_hint("remove one of the two")];
    }
    if let Err(why) = names::check_name(&stored.id) {
        let message = format!("`{}` cannot be the name of a connection: {why}", stored.id);
        return vec![
            ConfigError::of_file("invalid-name", place, message).with_hint("use letters, digits, `_` and `-`"),
        ];
    }
    let (file, node) = match parse(place, stored) {
        Ok(parsed) => parsed,
        Err(fault) => return vec![*fault],
    };
    let name = Text { value: &stored.id, span: Span::START };
    let connection = node.and_then(|node| decode_connection(&file, name, &node, &project.providers));
    let faults = file.into_faults();
    if let (Some(mut connection), true) = (connection, faults.is_empty()) {
        connection.in_files = false;
        project.connections.insert(stored.id.clone(), connection);
    }
    faults
}

fn add_model(project: &mut Project, stored: &StoredDefinition) -> Vec<ConfigError> {
    let place = place("model", &stored.id);
    if let Some(model) = project.models.get(&stored.id) {
        let message = format!("a model `{}` is in {}, which wins", stored.id, model.config_file.display());
        return vec![ConfigError::of_file("slug-used-twice", place, message).with_hint("remove one of the two")];
    }
    if !names::is_slug(&stored.id) {
        let hint = "a slug starts with a-z and holds a-z, 0-9 and `_`, at most 64 of them";
        let message = format!("`{}` is not a slug", stored.id);
        return vec![ConfigError::of_file("invalid-slug", place, message).with_hint(hint)];
    }
    let (file, node) = match parse(place.clone(), stored) {
        Ok(parsed) => parsed,
        Err(fault) => return vec![*fault],
    };
    let top = Top::of(project);
    let model = models::decode(&file, node.as_deref(), &stored.id, &top);
    let mut faults = file.into_faults();
    let provider = model.as_ref().and_then(|m| project.connections.get(&m.connection)).map(|c| c.provider.as_str());
    let text = stored.sql.as_deref().unwrap_or_default();
    let sql_file = place.join("sql");
    match (model, sql::statement(&Source::new(sql_file.clone(), text, Vec::new()), text, provider)) {
        (Some(mut model), Ok(sql)) if faults.is_empty() => {
            (model.sql, model.sql_file, model.config_file, model.in_files) = (sql, sql_file, place, false);
            // the new one last: a conflict is told of it, not of the one that was there
            let mut all: Vec<_> =
                project.models.values().filter(|other| may_conflict(other, &model)).cloned().collect();
            all.push(model.clone());
            let mut conflicts = Vec::new();
            check_external_keys(&all, &mut conflicts);
            check_field_names(&all, &mut conflicts);
            faults.extend(conflicts.into_iter().filter(|fault| fault.file == model.config_file));
            if faults.is_empty() {
                project.models.insert(stored.id.clone(), model);
            }
        }
        (_, Err(fault)) => faults.push(*fault),
        _ => {}
    }
    faults
}

/// The few models that a conflict can be with: those that match the same rows with something else, and those whose
/// fields' names begin alike (slug `a` with column `b_c`, and slug `a_b` with column `c`). Comparing each with all would take a project of a
/// thousand models seconds.
fn may_conflict(other: &Model, model: &Model) -> bool {
    let begins = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'));
    let same_rows = other.connection == model.connection && other.primary_key == model.primary_key;
    (same_rows && other.external_key != model.external_key)
        || begins(&other.slug, &model.slug)
        || begins(&model.slug, &other.slug)
}

type Parsed = (File, Option<std::rc::Rc<yaml::Node>>);

fn parse(place: PathBuf, stored: &StoredDefinition) -> Result<Parsed, Box<ConfigError>> {
    let text = serde_json::Value::Object(stored.definition.clone()).to_string();
    match yaml::parse(&text) {
        Ok(node) => {
            // nobody wrote this text, so no snippet of it helps
            let hidden = std::iter::once(0..text.len()).collect();
            Ok((File::new(Source::new(place, &text, hidden)), node))
        }
        Err(error) => {
            // the text may hold a secret; what is wrong with it is said without it
            Err(Box::new(ConfigError::of_file("yaml-syntax", place, error.message)))
        }
    }
}
