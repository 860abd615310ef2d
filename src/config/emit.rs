//! A definition as YAML that people go on editing: one key a line, texts in quotes only where YAML needs them.

use serde_json::{Map, Value};

use super::yaml::{self, Kind};

/// Lists and mappings that are longer are written with an entry a line.
const LINE: usize = 100;
/// Not text to every reader of YAML.
const WORDS: [&str; 8] = ["yes", "no", "on", "off", "y", "n", "true", "false"];

/// The mapping, a key a line, each indented by so many spaces.
pub fn mapping(entries: &Map<String, Value>, indent: usize) -> String {
    let mut out = String::new();
    for (key, value) in entries {
        let (margin, key) = (" ".repeat(indent), scalar(key));
        let flow = flow(value);
        match value {
            Value::Object(inner) if inner.values().any(Value::is_object) || flow.len() > LINE => {
                out.push_str(&format!("{margin}{key}:\n{}", mapping(inner, indent + 2)));
            }
            Value::Array(items) if flow.len() > LINE => {
                out.push_str(&format!("{margin}{key}:\n"));
                for item in items {
                    out.push_str(&format!("{margin}  - {}\n", self::flow(item)));
                }
            }
            _ => out.push_str(&format!("{margin}{key}: {flow}\n")),
        }
    }
    out
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) if entries.is_empty() => "{}".into(),
        Value::Object(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{}: {}", scalar(key), flow(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

/// The text as it is where it is read back as the same text, inside of brackets and outside; else in quotes.
fn scalar(text: &str) -> String {
    let begins_as_a_word = text.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let is_word = WORDS.contains(&text.to_ascii_lowercase().as_str());
    if begins_as_a_word && !is_word && !text.contains(char::is_control) && is_read_back(text) {
        text.to_string()
    } else {
        Value::from(text).to_string()
    }
}

fn is_read_back(text: &str) -> bool {
    let same = |node: &yaml::Node| matches!(&node.value, yaml::Value::Scalar(back, Kind::Text) if back == text);
    let read = yaml::parse(&format!("[{text}]"));
    let inside = match read.as_ref().ok().and_then(Option::as_ref).map(|node| &node.value) {
        Some(yaml::Value::Sequence(items)) => items.len() == 1 && same(&items[0]),
        _ => false,
    };
    let read = yaml::parse(&format!("key: {text}\n"));
    let outside = match read.as_ref().ok().and_then(Option::as_ref).map(|node| &node.value) {
        Some(yaml::Value::Mapping(pairs)) => pairs.len() == 1 && same(&pairs[0].1),
        _ => false,
    };
    inside && outside
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What the readers of the files make of it.
    fn read_back(node: &yaml::Node) -> Value {
        match &node.value {
            yaml::Value::Scalar(_, Kind::Null) => Value::Null,
            yaml::Value::Scalar(_, Kind::Bool(value)) => (*value).into(),
            yaml::Value::Scalar(_, Kind::Integer(value)) => (*value).into(),
            yaml::Value::Scalar(_, Kind::Float(value)) => (*value).into(),
            yaml::Value::Scalar(text, Kind::Text) => text.clone().into(),
            yaml::Value::Sequence(items) => items.iter().map(|item| read_back(item)).collect(),
            yaml::Value::Mapping(pairs) => {
                let key = |node: &yaml::Node| read_back(node).as_str().unwrap_or("?").to_string();
                pairs.iter().map(|(k, v)| (key(k), read_back(v))).collect::<Map<_, _>>().into()
            }
        }
    }

    fn round_trip(value: &Value) {
        let text = mapping(value.as_object().unwrap(), 0);
        let node = yaml::parse(&text).unwrap_or_else(|_| unreachable!("{text}"));
        assert_eq!(node.map_or(json!({}), |node| read_back(&node)), *value, "{text}");
    }

    #[test]
    fn it_reads_as_people_write_it() {
        let model = json!({
            "name": "Holiday buyers", "connection": "ebikes", "primary_key": "email",
            "activated_fields": ["brand", "no"], "schedule": "cron 0 6 * * 1-5 Europe/Berlin", "active": false,
            "guard": { "max_removed": 10, "max_removed_percent": 2.5 },
            "columns": { "spent": { "type": "decimal(12,2)", "not_null": true }, "email": { "type": "string" } },
        });
        let expected = "name: Holiday buyers
connection: ebikes
primary_key: email
activated_fields: [brand, \"no\"]
schedule: cron 0 6 * * 1-5 Europe/Berlin
active: false
guard: { max_removed: 10, max_removed_percent: 2.5 }
columns:
  spent: { type: \"decimal(12,2)\", not_null: true }
  email: { type: string }
";
        assert_eq!(mapping(model.as_object().unwrap(), 0), expected);
        round_trip(&model);
        let many: Vec<String> = (0..25).map(|n| format!("column_{n}")).collect();
        round_trip(&json!({ "activated_fields": many, "empty": [], "nothing": {} }));
    }

    #[test]
    fn what_yaml_would_take_for_something_else_is_quoted() {
        for text in [
            "", " a", "a ", "1", "1.5", "null", "~", "a: b", "a #b", "- a", "a, b", "${env:X}", "'a'", "\"", "&a",
            "*a", "!a", "@a", "%a", "`a", "a\nb", "0x1f", ".inf", "?", "|", ">", "---", "...",
        ] {
            round_trip(&json!({ "key": text, "list": [text], "map": { "inner": { "a": text } } }));
        }
    }

    proptest! {
        #[test]
        fn every_text_is_read_back(text in "\\PC*", key in "[a-z]{1,9}") {
            round_trip(&json!({ key: [text.clone()], "key with spaces": text }));
        }
    }
}
