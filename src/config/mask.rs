//! What of a file may never be shown: found before the first fault is reported, so that no snippet can hold a secret.
//!
//! Inside `connections:` a value is shown only when its provider declares the parameter and does not call it a secret:
//! a misspelt `pasword:` is a fault, and its value is still a password. Inside `alerts:` every URL is hidden: who knows
//! a webhook's address may post there. Elsewhere, what is named like a secret is hidden. References (`${env:NAME}`) are shown, for they hold no secret. A text that is no YAML has no tree, so it is
//! read line by line with the same rules.

use std::ops::Range;

use super::yaml::{Kind, Node, Value};
use crate::secrets;
use crate::warehouse::{ParameterKind, Provider};

const SECRET_WORDS: &[&str] =
    &["password", "passwd", "pwd", "passphrase", "secret", "token", "credential", "private_key", "api_key", "apikey"];

fn sounds_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// `scheme://user:password@host`
fn holds_login(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.split_once('@').is_some_and(|(login, _)| login.contains(':'))
}

/// The byte ranges of a parsed file that may not be shown.
pub(super) fn in_tree(root: &Node, providers: &[Provider]) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    walk(root, &mut hidden);
    for (key, value) in entries(root) {
        if matches!(&key.value, Value::Scalar(name, _) if name == "connections") {
            match &value.value {
                Value::Mapping(connections) => {
                    connections.iter().for_each(|(_, connection)| in_connection(connection, providers, &mut hidden));
                }
                _ => hide(value, &mut hidden),
            }
        }
        if matches!(&key.value, Value::Scalar(name, _) if name == "alerts") {
            in_alerts(value, &mut hidden);
        }
    }
    hidden
}

/// Under whatever key: `ulr: https://…` is a fault, and the address of a webhook all the same.
fn in_alerts(node: &Node, hidden: &mut Vec<Range<usize>>) {
    match &node.value {
        Value::Scalar(text, _) if text.contains("://") => hide(node, hidden),
        Value::Scalar(..) => {}
        Value::Sequence(items) => items.iter().for_each(|item| in_alerts(item, hidden)),
        Value::Mapping(pairs) => pairs.iter().for_each(|(_, value)| in_alerts(value, hidden)),
    }
}

fn entries(node: &Node) -> impl Iterator<Item = (&Node, &Node)> {
    let pairs = if let Value::Mapping(pairs) = &node.value { pairs.as_slice() } else { &[] };
    pairs.iter().map(|(k, v)| (k.as_ref(), v.as_ref()))
}

fn in_connection(connection: &Node, providers: &[Provider], hidden: &mut Vec<Range<usize>>) {
    if !matches!(connection.value, Value::Mapping(_)) {
        return hide(connection, hidden);
    }
    let text = |node: &Node| if let Value::Scalar(text, _) = &node.value { Some(text.clone()) } else { None };
    let type_of = entries(connection).find(|(k, _)| text(k).as_deref() == Some("type")).and_then(|(_, v)| text(v));
    let provider = providers.iter().find(|p| Some(p.name) == type_of.as_deref());
    for (key, value) in entries(connection) {
        let name = text(key).unwrap_or_default();
        let shown = name == "type" || provider.is_some_and(|p| is_open(p, &name));
        if !shown {
            hide(value, hidden);
        }
    }
}

fn is_open(provider: &Provider, name: &str) -> bool {
    provider.parameters.iter().any(|p| p.name == name && p.kind != ParameterKind::Secret)
}

fn walk(node: &Node, hidden: &mut Vec<Range<usize>>) {
    match &node.value {
        Value::Scalar(text, _) if holds_login(text) => hidden.push(node.span.range()),
        Value::Scalar(..) => {}
        Value::Sequence(items) => items.iter().for_each(|item| walk(item, hidden)),
        Value::Mapping(pairs) => {
            for (key, value) in pairs {
                walk(key, hidden);
                match &key.value {
                    Value::Scalar(name, _) if sounds_secret(name) => hide(value, hidden),
                    _ => walk(value, hidden),
                }
            }
        }
    }
}

/// Hides every value of a node that is not only a reference.
fn hide(node: &Node, hidden: &mut Vec<Range<usize>>) {
    match &node.value {
        Value::Scalar(_, Kind::Null) => {}
        Value::Scalar(text, _) if secrets::is_reference(text) => {}
        Value::Scalar(..) => hidden.push(node.span.range()),
        Value::Sequence(items) => items.iter().for_each(|item| hide(item, hidden)),
        Value::Mapping(pairs) => pairs.iter().for_each(|(_, value)| hide(value, hidden)),
    }
}

/// The byte ranges that may not be shown of a text that is no YAML.
pub(super) fn in_text(text: &str, providers: &[Provider]) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let (mut in_connections, mut in_alerts) = (false, false);
    // the indentation of a hidden key: deeper lines continue its value
    let mut continues: Option<usize> = None;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let indent = content.len() - content.trim_start().len();
        let start = offset;
        offset += line.len();
        if content.is_empty() {
            continue;
        }
        if continues.is_some_and(|deeper| indent > deeper) {
            hidden.push(start + indent..start + content.len());
            continue;
        }
        continues = None;
        if indent == 0 && !content.starts_with(['#', '-', '}', ']']) {
            in_connections = content.starts_with("connections");
            in_alerts = content.starts_with("alerts");
        }
        for (colon, _) in content.match_indices(':') {
            let (before, after) = (&content[..colon], &content[colon + 1..]);
            if !after.is_empty() && !after.starts_with([' ', '\t']) && !before.ends_with(['"', '\'']) {
                continue;
            }
            let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
            let before = before.trim_end().trim_end_matches(['"', '\'']);
            let name = &before[before
                .rfind(|c| !is_name(c))
                .map_or(0, |i| i + before[i..].chars().next().map_or(1, char::len_utf8))..];
            let value = after.trim();
            let opens = value.is_empty() || value.starts_with('{');
            let open_in_connections = || name == "type" || providers.iter().any(|p| is_open(p, name)) || opens;
            let secret = sounds_secret(name) || (in_connections && !open_in_connections());
            if secret && !secrets::is_reference(value) {
                if !value.is_empty() {
                    hidden.push(start + colon + 1 + (after.len() - after.trim_start().len())..start + content.len());
                }
                continues = Some(indent);
                break;
            }
        }
        if holds_login(content) || in_alerts && content.contains("://") {
            hidden.push(start + indent..start + content.len());
        }
    }
    hidden
}
