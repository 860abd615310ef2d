//! Parameters as requests give them.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Parameters by name. Neither `Debug` nor an error of reading them repeats a value: it may be a secret, also one in a
/// wrong place.
#[derive(Clone, Default)]
pub struct Parameters(pub Map<String, Value>);

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Object(parameters) => Ok(Self(parameters)),
            Value::Null => Ok(Self::default()),
            _ => Err(D::Error::custom("has to be an object: parameters by name")),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_a_wrong_place_is_not_repeated() {
        let error = serde_json::from_str::<Parameters>("\"hunter2\"").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let given: Parameters = serde_json::from_str(r#"{"password": "hunter2"}"#).unwrap();
        assert_eq!(format!("{given:?}"), r#"{"password"}"#);
    }
}
