//! `cloud-connect.yml`.

use std::collections::BTreeMap;
use std::path::Path;

use super::decode::{Decoder, File, Text, entries, text};
use super::parameter::decode_connection;
use super::source::Span;
use super::yaml::{Kind, Node, Value};
use super::{
    Connection, IdentityField, Normalization, ServiceConfig, StoreLocation, alerts, keys, names, service, suggest,
};
use crate::alerts::definition::Definitions;
use crate::memory::MIN_MEMORY_LIMIT;
use crate::secrets::{self, Environment};
use crate::vault::Vault;
use crate::warehouse::Provider;

/// The top level as far as it could be read; `None` where a fault hides what is meant.
#[derive(Default)]
pub(super) struct Top {
    pub store: Option<StoreLocation>,
    pub memory_limit: Option<u64>,
    pub identities: Option<Vec<IdentityField>>,
    /// Every name, also of a connection that is faulty.
    pub connection_names: Option<Vec<String>>,
    pub connections: BTreeMap<String, Connection>,
    pub alerts: Definitions,
    pub service: ServiceConfig,
}

impl Top {
    /// What a project that was loaded offers to further definitions.
    pub fn of(project: &super::Project) -> Self {
        Self {
            store: Some(project.store.clone()),
            memory_limit: project.memory_limit,
            identities: Some(project.identities.clone()),
            connection_names: Some(project.connections.keys().cloned().collect()),
            connections: project.connections.clone(),
            alerts: project.alerts.clone(),
            service: project.service.clone(),
        }
    }
}

pub(super) fn decode(
    file: &File,
    root_node: Option<&Node>,
    root: &Path,
    providers: &[Provider],
    env: Environment<'_>,
) -> Top {
    let empty = Node { span: Span::START, value: Value::Mapping(Vec::new()) };
    let node = root_node.unwrap_or(&empty);
    let Some(top) = Decoder::new(file, "cloud-connect.yml", Span::START, node, keys::PROJECT) else {
        return Top::default();
    };
    let store = match top.text("store") {
        Some(text) => decode_store(file, text, root, env),
        None => Some(StoreLocation::Directory(root.join(".cloud-connect"))),
    };
    let memory_limit = top.given("memory_limit").and_then(|e| decode_memory(file, e.node));
    let identities = decode_identities(file, &top);
    let mut connections = BTreeMap::new();
    let mut connection_names = None;
    let hint = "add `connections:` with a name and a `type` for each warehouse, for example `shop: { type: local, path: data }`";
    if let Some(entry) = top.required("connections", hint)
        && let Some(found) = entries(file, "`connections`", entry.key.span, entry.node)
    {
        if found.is_empty() {
            file.fault("missing-key", entry.key.span, "`connections` names no connection", hint);
        }
        connection_names = Some(found.iter().map(|e| e.key.value.to_string()).collect());
        for entry in found {
            if let Err(why) = names::check_name(entry.key.value) {
                let message = format!("`{}` cannot be the name of a connection: {why}", entry.key.value);
                file.fault("invalid-name", entry.key.span, message, "use letters, digits, `_` and `-`");
            }
            if let Some(connection) = decode_connection(file, entry.key, entry.node, providers) {
                connections.insert(connection.name.clone(), connection);
            }
        }
    }
    let alerts = top.given("alerts");
    let alerts = alerts.map(|entry| alerts::decode(file, entry, connection_names.as_deref().unwrap_or_default()));
    let alerts = alerts.unwrap_or_default();
    let service = service::decode(file, &top, identities.as_deref());
    Top { store, memory_limit, identities, connection_names, connections, alerts, service }
}

fn decode_store(file: &File, text: Text<'_>, root: &Path, env: Environment<'_>) -> Option<StoreLocation> {
    const HINT: &str =
        "write a directory (relative to the project), or a URL that starts with s3://, gs://, abfss:// or az://";
    let value = match secrets::resolve(text.value, root, env, &Vault::default()) {
        Ok(value) => value,
        Err(error) => {
            file.fault(error.code(), text.span, format!("`store`: {error}"), error.hint());
            return None;
        }
    };
    if value.trim().is_empty() {
        file.fault("invalid-store", text.span, "`store` is empty", HINT);
        return None;
    }
    let Some((scheme, _)) = value.split_once("://") else {
        return Some(StoreLocation::Directory(root.join(value)));
    };
    // the value itself stays out of messages: it may come from the environment
    let Ok(url) = url::Url::parse(&value) else {
        file.fault("invalid-store", text.span, "`store` is not a URL", HINT);
        return None;
    };
    if url.password().is_some() || !url.username().is_empty() && matches!(scheme, "s3" | "gs") {
        let hint = "give credentials through the environment (AWS_…, GOOGLE_…, AZURE_…), not in the URL";
        file.fault("secret-in-url", text.span, "`store` holds credentials", hint);
        return None;
    }
    match url.scheme() {
        "s3" | "gs" | "abfss" | "az" if url.host_str().is_some_and(|h| !h.is_empty()) => {
            return Some(StoreLocation::ObjectStore(url));
        }
        "s3" | "gs" | "abfss" | "az" => file.fault("invalid-store", text.span, "`store` names no bucket", HINT),
        "file" => match url.to_file_path() {
            Ok(path) => return Some(StoreLocation::Directory(path)),
            Err(()) => file.fault("invalid-store", text.span, "`store` is not a local path", HINT),
        },
        _ => file.fault("invalid-store", text.span, format!("`store` cannot be on `{scheme}://`"), HINT),
    }
    None
}

fn decode_memory(file: &File, node: &Node) -> Option<u64> {
    const HINT: &str = "for example `memory_limit: 512MiB`";
    let parsed = match &node.value {
        Value::Scalar(text, Kind::Text | Kind::Integer(_)) => text.parse::<bytesize::ByteSize>().ok(),
        _ => None,
    };
    let Some(size) = parsed else {
        file.fault("invalid-size", node.span, "`memory_limit` has to be a size in bytes", HINT);
        return None;
    };
    if size.as_u64() < MIN_MEMORY_LIMIT {
        let least = MIN_MEMORY_LIMIT / (1024 * 1024);
        file.fault("out-of-range", node.span, format!("`memory_limit` has to be {least}MiB or more"), HINT);
        return None;
    }
    Some(size.as_u64())
}

fn decode_identities<'a>(file: &'a File, top: &Decoder<'a>) -> Option<Vec<IdentityField>> {
    const HINT: &str = "name the fields that identify a person, for example `identities: [{ field: email, normalize: [trim, lowercase] }]`";
    let profile = top.required("profile", HINT)?;
    let profile = Decoder::new(file, "`profile`", profile.key.span, profile.node, keys::PROFILE)?;
    let entry = profile.required("identities", HINT)?;
    let Value::Sequence(items) = &entry.node.value else {
        let message = format!("`identities` has to be a list, not {}", entry.node.describe());
        file.fault("wrong-type", entry.key.span, message, HINT);
        return None;
    };
    if items.is_empty() {
        file.fault("no-identity", entry.key.span, "`identities` names no field", HINT);
        return None;
    }
    let mut found: Vec<(Text<'_>, Vec<Normalization>)> = Vec::new();
    let mut whole = true;
    for item in items {
        let Some((field, normalize)) = decode_identity(file, item) else {
            whole = false;
            continue;
        };
        if let Some((first, _)) = found.iter().find(|(f, _)| f.value.eq_ignore_ascii_case(field.value)) {
            let message = format!("the identity `{}` is given twice", field.value);
            let hint = format!("it is first given in line {}; keep one of them", first.span.line);
            file.fault("duplicate-identity", field.span, message, hint);
            continue;
        }
        found.push((field, normalize));
    }
    // with one entry unread, a model's external key cannot be judged
    whole.then(|| {
        found.into_iter().map(|(field, normalize)| IdentityField { field: field.value.into(), normalize }).collect()
    })
}

fn decode_identity<'a>(file: &'a File, item: &'a Node) -> Option<(Text<'a>, Vec<Normalization>)> {
    let (field, normalize) = match &item.value {
        Value::Scalar(..) => (text(file, "an identity", item)?, Vec::new()),
        _ => {
            let identity = Decoder::new(file, "an identity", item.span, item, keys::IDENTITY)?;
            let normalize = identity.texts("normalize").unwrap_or_default();
            let steps = normalize.iter().filter_map(|step| decode_normalization(file, *step)).collect();
            (identity.required_text("field", "for example `field: email`")?, steps)
        }
    };
    if let Err(why) = names::check_identity(field.value) {
        let message = format!("`{}` cannot be an identity field: {why}", field.value);
        file.fault("invalid-name", field.span, message, "use letters, digits and `_`, starting with a letter");
    }
    Some((field, normalize))
}

fn decode_normalization(file: &File, step: Text<'_>) -> Option<Normalization> {
    match step.value {
        "trim" => Some(Normalization::Trim),
        "lowercase" => Some(Normalization::Lowercase),
        other => {
            let hint = suggest::hint(other, &["trim", "lowercase"], "the steps are");
            file.fault("unknown-normalization", step.span, format!("`{other}` is not a way to normalize"), hint);
            None
        }
    }
}
