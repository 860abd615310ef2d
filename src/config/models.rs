//! One model's `.yml`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::decode::{Decoder, File, Text, entries, text};
use super::project::Top;
use super::source::{Span, Spans};
use super::yaml::{Node, Value};
use super::{ColumnContract, Guard, Model, Schedule, keys, names, suggest};
use crate::model::{MAX_ACTIVATED_FIELDS, ScheduleError};
use crate::values::ValueType;

/// A query's limit in the warehouse.
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);

/// A model as far as it could be read; `None` after a fault that leaves no model. `sql` and both files are filled in
/// by the caller.
pub(super) fn decode(file: &File, root_node: Option<&Node>, slug: &str, top: &Top) -> Option<Model> {
    let empty = Node { span: Span::START, value: Value::Mapping(Vec::new()) };
    let at = Span::START;
    let model = Decoder::new(file, "a model", at, root_node.unwrap_or(&empty), keys::MODEL)?;
    let mut spans = Spans::new(Arc::clone(&file.source));
    for key in keys::MODEL {
        spans.insert(*key, model.place(key));
    }
    let connection = model.required_text("connection", &connection_hint(top));
    if let Some(connection) = connection {
        check_connection(file, connection, top);
    }
    let primary_key = primary_key(file, &model);
    let external_key = model.required_text("external_key", &external_key_hint(top));
    if let Some(external_key) = external_key {
        check_is_identity(file, external_key, top, "`external_key`");
    }
    let activated = activated_fields(file, &model, primary_key);
    let identities = identities(file, &model, external_key, top);
    let columns = columns(file, &model, &mut spans);
    for (path, texts) in [("activated_fields", &activated), ("identities", &identities)] {
        for text in texts {
            spans.insert(format!("{path}.{}", text.value), text.span);
        }
    }
    for (path, text) in [("connection", connection), ("primary_key", primary_key), ("external_key", external_key)] {
        if let Some(text) = text {
            spans.insert(path, text.span);
        }
    }
    let owned = |texts: Vec<Text<'_>>| texts.into_iter().map(|t| t.value.to_string()).collect::<Vec<_>>();
    let name = model.text("name").map_or_else(|| slug.to_string(), |t| t.value.to_string());
    let description = model.text("description").map(|t| t.value.trim_end().to_string());
    let schedule = schedule(file, &model);
    let create_profiles = model.bool("create_profiles").unwrap_or(true);
    let active = model.bool("active").unwrap_or(true);
    let guard = guard(file, &model);
    let timeout = model.duration("timeout", TIMEOUT);
    let model = Model {
        slug: slug.into(),
        name,
        description,
        connection: connection?.value.into(),
        primary_key: primary_key?.value.into(),
        external_key: external_key?.value.into(),
        activated_fields: owned(activated),
        identities: owned(identities),
        schedule,
        create_profiles,
        active,
        guard,
        columns,
        timeout,
        sql: String::new(),
        sql_file: Default::default(),
        config_file: file.source.file.clone(),
        spans,
        in_files: true,
    };
    check_contracts_are_used(file, &model);
    Some(model)
}

fn connection_hint(top: &Top) -> String {
    match top.connection_names.as_deref() {
        Some(names) if !names.is_empty() => {
            format!("the connections of cloud-connect.yml are {}", suggest::list(names))
        }
        _ => "name a connection of cloud-connect.yml".into(),
    }
}

fn check_connection(file: &File, connection: Text<'_>, top: &Top) {
    let Some(known) = &top.connection_names else { return };
    if !known.iter().any(|name| name == connection.value) {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let hint = suggest::hint(connection.value, &known, "the connections of cloud-connect.yml are");
        file.fault(
            "unknown-connection",
            connection.span,
            format!("there is no connection `{}`", connection.value),
            hint,
        );
    }
}

fn external_key_hint(top: &Top) -> String {
    match &top.identities {
        Some(known) => {
            let known: Vec<&str> = known.iter().map(|i| i.field.as_str()).collect();
            format!(
                "add `external_key:` with the profile identity that the primary key holds: {}",
                suggest::list(&known)
            )
        }
        None => "add `external_key:` with the profile identity that the primary key holds".into(),
    }
}

fn check_is_identity(file: &File, field: Text<'_>, top: &Top, what: &str) {
    let Some(known) = &top.identities else { return };
    let known: Vec<&str> = known.iter().map(|i| i.field.as_str()).collect();
    if !known.contains(&field.value) {
        let message = format!("{what} has to be a profile identity, and `{}` is none", field.value);
        let hint =
            suggest::hint(field.value, &known, "add it under `profile.identities` in cloud-connect.yml, or use one of");
        file.fault("unknown-identity", field.span, message, hint);
    }
}

/// A result column: not reserved, and a name that a table can hold.
fn check_column(file: &File, column: Text<'_>) {
    if let Err(why) = names::check_column(column.value) {
        let code = if column.value.starts_with(names::RESERVED_PREFIX) { "reserved-name" } else { "invalid-name" };
        let hint = "give the column another name in the SQL: `… AS another_name`";
        file.fault(code, column.span, format!("`{}` cannot be used: {why}", column.value), hint);
    }
}

fn primary_key<'a>(file: &File, model: &Decoder<'a>) -> Option<Text<'a>> {
    let hint = "add `primary_key:` with the result column that identifies a row";
    let entry = model.required("primary_key", hint)?;
    let columns = model.texts("primary_key")?;
    match columns.as_slice() {
        [column] => {
            check_column(file, *column);
            Some(*column)
        }
        [] => {
            if matches!(&entry.node.value, Value::Sequence(items) if items.is_empty()) {
                file.fault("missing-key", entry.key.span, "`primary_key` is empty", hint);
            }
            None
        }
        [_, second, ..] => {
            let all: Vec<&str> = columns.iter().map(|c| c.value).collect();
            let hint =
                format!("join them in the SQL, for example `{} AS row_key`, and name that", all.join(" || '|' || "));
            file.fault("several-key-columns", second.span, "`primary_key` has to be one column", hint);
            None
        }
    }
}

fn activated_fields<'a>(file: &File, model: &Decoder<'a>, primary_key: Option<Text<'_>>) -> Vec<Text<'a>> {
    let mut fields: Vec<Text<'a>> = Vec::new();
    for field in model.texts("activated_fields").unwrap_or_default() {
        let column = field.value;
        check_column(file, field);
        if let Some(first) = fields.iter().find(|f| f.value.eq_ignore_ascii_case(column)) {
            let (message, hint) = if first.value == column {
                (format!("`{column}` is activated twice"), "remove one of them")
            } else {
                let message = format!("`{column}` and `{}` differ only by case, and cannot both be kept", first.value);
                (message, "give one of them another name in the SQL: `… AS another_name`")
            };
            file.fault("duplicate-field", field.span, message, hint);
            continue;
        }
        if primary_key.is_some_and(|key| key.value == column) {
            let hint = "remove it: the key is already kept as the profile's identity";
            file.fault("key-activated", field.span, format!("`{column}` is the primary key"), hint);
        }
        if matches!(column.to_ascii_lowercase().as_str(), "membership" | "membership_since") {
            let message = format!("`{column}` cannot be activated: every model has a field of that name already");
            file.fault(
                "reserved-name",
                field.span,
                message,
                "give the column another name in the SQL: `… AS another_name`",
            );
        }
        fields.push(field);
    }
    if let Some(beyond) = fields.get(MAX_ACTIVATED_FIELDS) {
        let message = format!("{} fields are activated, and a model may have {MAX_ACTIVATED_FIELDS}", fields.len());
        let hint = "leave out what no audience or destination uses, or split the model in two";
        file.fault("too-many-fields", beyond.span, message, hint);
    }
    fields
}

fn identities<'a>(file: &File, model: &Decoder<'a>, external_key: Option<Text<'_>>, top: &Top) -> Vec<Text<'a>> {
    let mut found: Vec<Text<'a>> = Vec::new();
    for identity in model.texts("identities").unwrap_or_default() {
        let name = identity.value;
        check_is_identity(file, identity, top, "an entry of `identities`");
        if external_key.is_some_and(|key| key.value == name) {
            let hint = "remove it: the external key is always kept; `identities` names further ones";
            file.fault("identity-is-external-key", identity.span, format!("`{name}` is the external key"), hint);
        }
        if found.iter().any(|i| i.value == name) {
            file.fault("duplicate-identity", identity.span, format!("`{name}` is given twice"), "remove one of them");
            continue;
        }
        found.push(identity);
    }
    found
}

fn schedule(file: &File, model: &Decoder<'_>) -> Option<Schedule> {
    let entry = model.given("schedule")?;
    let (span, parsed) = if let Value::Mapping(_) = entry.node.value {
        let schedule = Decoder::new(file, "`schedule`", entry.key.span, entry.node, keys::SCHEDULE)?;
        match (schedule.text("every"), schedule.text("cron"), schedule.text("time_zone")) {
            (Some(every), None, None) => (every.span, Schedule::every(every.value)),
            (None, Some(cron), zone) => {
                let parsed = Schedule::cron(cron.value, zone.map(|z| z.value));
                let at_zone = matches!(parsed, Err(ScheduleError::TimeZone(_)));
                (zone.filter(|_| at_zone).map_or(cron.span, |z| z.span), parsed)
            }
            _ => {
                let message = "`schedule` needs either `every`, or `cron` with an optional `time_zone`";
                let hint = "write `{ every: 1h }`, or `{ cron: \"0 6 * * 1-5\", time_zone: Europe/Berlin }`";
                file.fault("invalid-schedule", entry.key.span, message, hint);
                return None;
            }
        }
    } else {
        let text = text(file, "`schedule`", entry.node)?;
        (text.span, text.value.parse())
    };
    parsed.map_err(|e: ScheduleError| file.fault("invalid-schedule", span, e.to_string(), e.hint())).ok()
}

fn guard(file: &File, model: &Decoder<'_>) -> Guard {
    let default = Guard::default();
    let Some(entry) = model.given("guard") else { return default };
    let Some(guard) = Decoder::new(file, "`guard`", entry.key.span, entry.node, keys::GUARD) else { return default };
    Guard {
        max_removed: guard.u64("max_removed").unwrap_or(default.max_removed),
        max_removed_percent: guard.f64("max_removed_percent", 0.0..=100.0).unwrap_or(default.max_removed_percent),
    }
}

fn columns(file: &File, model: &Decoder<'_>, spans: &mut Spans) -> BTreeMap<String, ColumnContract> {
    let mut contracts = BTreeMap::new();
    let Some(entry) = model.given("columns") else { return contracts };
    for column in entries(file, "`columns`", entry.key.span, entry.node).unwrap_or_default() {
        check_column(file, column.key);
        spans.insert(format!("columns.{}", column.key.value), column.key.span);
        // `email: string` is short for `email: { type: string }`
        let (type_text, not_null) = match &column.node.value {
            Value::Scalar(..) => (text(file, &format!("column `{}`", column.key.value), column.node), false),
            _ => {
                let what = format!("column `{}`", column.key.value);
                let Some(contract) = Decoder::new(file, what, column.key.span, column.node, keys::COLUMN) else {
                    continue;
                };
                (contract.text("type"), contract.bool("not_null").unwrap_or(false))
            }
        };
        let value_type = type_text.and_then(|text| decode_type(file, text));
        if let Some(text) = type_text {
            spans.insert(format!("columns.{}.type", column.key.value), text.span);
        }
        contracts.insert(column.key.value.to_string(), ColumnContract { value_type, not_null });
    }
    contracts
}

fn decode_type(file: &File, text: Text<'_>) -> Option<ValueType> {
    const TYPES: &[&str] = &["string", "int", "float", "decimal", "bool", "timestamp", "date", "list", "json"];
    text.value
        .parse()
        .map_err(|message: String| {
            let hint = if text.value.starts_with("decimal(") {
                // inside braces, YAML ends a text at its comma
                "write for example \"decimal(12,2)\", in quotes; the precision is 1 to 38, the scale at most as much"
                    .into()
            } else {
                suggest::hint(text.value, TYPES, "the types are")
            };
            file.fault("unknown-type", text.span, message, hint);
        })
        .ok()
}

/// A contract on a column that never leaves the warehouse would promise what nothing keeps.
fn check_contracts_are_used(file: &File, model: &Model) {
    for column in model.columns.keys() {
        let used = *column == model.primary_key
            || model.activated_fields.contains(column)
            || model.identities.contains(column);
        if !used {
            let span = model.spans.get(&format!("columns.{column}")).unwrap_or(Span::START);
            let fields = std::iter::once(&model.primary_key).chain(&model.activated_fields).chain(&model.identities);
            let hint = match suggest::nearest(column, fields.map(String::as_str)) {
                Some(candidate) => format!("did you mean `{candidate}`?"),
                None => "add it to `activated_fields`, or remove it here".into(),
            };
            file.fault("unused-contract", span, format!("the model does not use the column `{column}`"), hint);
        }
    }
}
