//! A connection's parameters against what its provider declares.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decode::{Entry, File, Text, entries};
use super::source::Spans;
use super::yaml::{Kind, Node, Value};
use super::{Connection, suggest};
use crate::secrets;
use crate::warehouse::{Parameter, ParameterKind, Provider};

/// Is the (resolved) value of that kind? If not: what it has to be, for example "a whole number".
pub(crate) fn check(kind: ParameterKind, value: &str) -> Result<(), String> {
    let fits = match kind {
        ParameterKind::Text | ParameterKind::Location | ParameterKind::File | ParameterKind::Secret => {
            !value.trim().is_empty()
        }
        ParameterKind::Integer { min, max } => value.parse::<i64>().is_ok_and(|v| (min..=max).contains(&v)),
        ParameterKind::Bool => matches!(value, "true" | "false"),
        ParameterKind::Choice(words) => words.contains(&value),
        ParameterKind::Duration => humantime::parse_duration(value).is_ok(),
        ParameterKind::Bytes => value.parse::<bytesize::ByteSize>().is_ok_and(|size| size.0 > 0),
    };
    if fits { Ok(()) } else { Err(expected(kind)) }
}

fn expected(kind: ParameterKind) -> String {
    match kind {
        ParameterKind::Text | ParameterKind::Secret => "text that is not empty".into(),
        ParameterKind::Location => "a directory, a file or an object-store URL".into(),
        ParameterKind::File => "a file's path".into(),
        ParameterKind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        ParameterKind::Bool => "true or false".into(),
        ParameterKind::Choice(words) => format!("one of {}", suggest::list(words)),
        ParameterKind::Duration => "a duration such as `30s`, `5m` or `2h`".into(),
        ParameterKind::Bytes => "a size such as `500 MB` or `2 TB`".into(),
    }
}

/// One connection; `None` when it could not be read at all.
pub(super) fn decode_connection(
    file: &File,
    name: Text<'_>,
    node: &Node,
    providers: &[Provider],
) -> Option<Connection> {
    let what = format!("connection `{}`", name.value);
    let entries = entries(file, &what, name.span, node)?;
    let types: Vec<&str> = providers.iter().map(|p| p.name).collect();
    let known_types = || format!("the types are {}", suggest::list(&types));
    let Some(type_entry) = entries.iter().find(|e| e.key.value == "type" && !e.node.is_null()) else {
        file.fault("missing-key", name.span, format!("{what} has no `type`"), known_types());
        return None;
    };
    let type_of = super::decode::text(file, "`type`", type_entry.node)?;
    let Some(provider) = providers.iter().find(|p| p.name == type_of.value) else {
        let message = format!("`{}` is not a type of connection", type_of.value);
        file.fault("unknown-type", type_of.span, message, suggest::hint(type_of.value, &types, "the types are"));
        return None;
    };
    let mut spans = Spans::new(Arc::clone(&file.source));
    let mut parameters = BTreeMap::new();
    for entry in entries.iter().filter(|e| e.key.value != "type") {
        if let Some(value) = decode_parameter(file, &what, entry, provider) {
            spans.insert(entry.key.value, entry.node.span);
            parameters.insert(entry.key.value.to_string(), value);
        }
    }
    for missing in provider.parameters.iter().filter(|p| p.required && p.default.is_none()) {
        let given = entries.iter().find(|e| e.key.value == missing.name);
        // a value that is given but faulty has been reported already
        if given.is_none_or(|e| e.node.is_null()) {
            let at = given.map_or(name.span, |e| e.key.span);
            let message = format!("{what} of type `{}` has no `{}`", provider.name, missing.name);
            file.fault("missing-parameter", at, message, format!("`{}`: {}", missing.name, missing.help));
        }
    }
    Some(Connection { name: name.value.into(), provider: provider.name.into(), parameters, spans, in_files: true })
}

fn decode_parameter(file: &File, what: &str, entry: &Entry<'_>, provider: &Provider) -> Option<String> {
    let name = entry.key.value;
    let Some(declared) = provider.parameters.iter().find(|p| p.name == name) else {
        let known: Vec<&str> = provider.parameters.iter().map(|p| p.name).collect();
        let message = format!("`{name}` is not a parameter of a `{}` connection", provider.name);
        let otherwise = format!("the parameters of `{}` are", provider.name);
        file.fault("unknown-parameter", entry.key.span, message, suggest::hint(name, &known, &otherwise));
        return None;
    };
    let Value::Scalar(text, kind) = &entry.node.value else {
        let at = if entry.node.span.length > 0 { entry.node.span } else { entry.key.span };
        let message =
            format!("`{name}` of {what} has to be {}, not {}", expected(declared.kind), entry.node.describe());
        file.fault("invalid-parameter", at, message, hint(declared));
        return None;
    };
    if *kind == Kind::Null {
        // a required one is reported as missing
        if !declared.required || declared.default.is_some() {
            let default = declared.default.map(|d| format!(" (then it is `{d}`)")).unwrap_or_default();
            let hint = format!("write a value, or remove the line{default}");
            file.fault("empty", entry.key.span, format!("`{name}` of {what} is empty"), hint);
        }
        return None;
    }
    if let Err(error) = secrets::check_syntax(text) {
        file.fault(error.code(), entry.node.span, format!("`{name}` of {what}: {error}"), error.hint());
        return None;
    }
    if !secrets::has_reference(text)
        && let Err(expected) = check(declared.kind, &text.replace("$${", "${"))
    {
        let message = format!("`{name}` of {what} has to be {expected}");
        file.fault("invalid-parameter", entry.node.span, message, hint(declared));
        return None;
    }
    Some(text.clone())
}

fn hint(parameter: &Parameter) -> String {
    match parameter.default {
        Some(default) => format!("{}; left out, it is `{default}`", parameter.help.trim_end_matches('.')),
        None => parameter.help.to_string(),
    }
}
