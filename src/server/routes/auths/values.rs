//! The values of an authorization as a request gives them, against what the provider declares.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::Value;

use crate::config::{self, parameter};
use crate::server::answer::ApiError;
use crate::server::routes::connections::{Confines, Parameters, text_of};
use crate::warehouse::{ParameterKind, Provider};

/// A key or a certificate takes a few thousand characters.
const MAX_VALUE: usize = 64 << 10;

/// What to keep by name; none: to remove. No error repeats a value.
pub fn judge(
    confines: &Confines<'_>,
    provider: &Provider,
    given: &Parameters,
) -> Result<BTreeMap<String, Option<SecretString>>, ApiError> {
    let mut values = BTreeMap::new();
    for (name, value) in &given.0 {
        let field = format!("config.{name}");
        let declared = provider.parameters.iter().find(|parameter| parameter.name == name).ok_or_else(|| {
            let known: Vec<&str> = provider.parameters.iter().map(|parameter| parameter.name).collect();
            let otherwise = format!("the parameters of `{}` are", provider.name);
            let message = format!("`{name}` is not a parameter of a `{}` connection", provider.name);
            ApiError::bad_request("unknown-parameter", message)
                .with_hint(config::hint(name, &known, &otherwise))
                .with_field(field.clone())
        })?;
        if value.is_null() {
            values.insert(name.clone(), None);
            continue;
        }
        let invalid = |message: String| {
            ApiError::bad_request("invalid-parameter", message).with_hint(declared.help).with_field(field.clone())
        };
        let text = match value {
            // a service account's key is JSON, and is easily sent as such
            Value::Object(_) if declared.kind == ParameterKind::Secret => Some(value.to_string()),
            value => text_of(value),
        };
        let text = text.ok_or_else(|| invalid(format!("`{name}` has to be text")))?;
        if text.len() > MAX_VALUE {
            return Err(invalid(format!("`{name}` is longer than {MAX_VALUE} bytes")));
        }
        parameter::check(declared.kind, &text).map_err(|expected| invalid(format!("`{name}` has to be {expected}")))?;
        confines.check(provider.name, declared, &text)?;
        values.insert(name.clone(), Some(SecretString::from(text)));
    }
    Ok(values)
}
