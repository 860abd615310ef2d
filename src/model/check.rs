//! A model against what its warehouse says the query returns.

use arrow::datatypes::{Field, Schema};

use super::Model;
use crate::config::{ConfigError, Project, RESERVED_PREFIX, suggest};
use crate::values::ValueType;
use crate::values::convert::converts;
use crate::warehouse::UNCONVERTIBLE_COLUMN;

/// Every way in which the result does not fit the model, each at its line of the model's file (or of its SQL, when
/// the query itself has to change). Empty when the model can run.
pub fn check_columns(model: &Model, schema: &Schema, project: &Project) -> Vec<ConfigError> {
    let provider = project.connections.get(&model.connection).map_or("", |c| c.provider.as_str());
    let fields: Vec<&Field> =
        schema.fields().iter().map(AsRef::as_ref).filter(|f| f.name() != UNCONVERTIBLE_COLUMN).collect();
    let check = Check { model, fields, provider };
    let mut errors = check.names();
    errors.extend(check.column("primary_key", &model.primary_key, check_key_type));
    for column in &model.activated_fields {
        errors.extend(check.column(&format!("activated_fields.{column}"), column, |_| None));
    }
    for column in &model.identities {
        errors.extend(check.column(&format!("identities.{column}"), column, check_key_type));
    }
    for (column, contract) in &model.columns {
        if let Some(wanted) = contract.value_type {
            errors.extend(check.contract(column, wanted));
        }
    }
    errors
}

/// Why values of the type identify nobody.
fn check_key_type(value_type: ValueType) -> Option<&'static str> {
    match value_type {
        ValueType::Float => Some("a float is not exact, so two equal keys may differ"),
        ValueType::List => Some("a list is not one value"),
        ValueType::Json => Some("JSON can be written in many ways, so two equal keys may differ"),
        ValueType::Bool => Some("true and false tell two people apart at most"),
        _ => None,
    }
}

struct Check<'a> {
    model: &'a Model,
    fields: Vec<&'a Field>,
    provider: &'a str,
}

impl Check<'_> {
    fn error(&self, path: &str, code: &'static str, message: String) -> ConfigError {
        self.model.spans.error(path, code, &self.model.config_file, message)
    }

    /// Where the model uses the column.
    fn path_of(&self, column: &str) -> Option<String> {
        let lists = [("activated_fields", &self.model.activated_fields), ("identities", &self.model.identities)];
        if self.model.primary_key == column {
            return Some("primary_key".into());
        }
        let (list, _) = lists.into_iter().find(|(_, columns)| columns.iter().any(|c| c == column))?;
        Some(format!("{list}.{column}"))
    }

    /// Faults of the result as such.
    fn names(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for (index, field) in self.fields.iter().enumerate() {
            let name = field.name();
            let at_sql = |code, message| match self.path_of(name) {
                Some(path) => self.error(&path, code, message),
                None => ConfigError::of_file(code, &self.model.sql_file, message),
            };
            let same = |other: &&Field| other.name() == name;
            let is_second = self.fields[..index].iter().filter(|f| same(f)).count() == 1;
            if is_second {
                let times = self.fields.iter().filter(|f| same(f)).count();
                errors.push(
                    at_sql("duplicate-column", format!("the query returns {times} columns that are named `{name}`"))
                        .with_hint("name the columns in the SELECT, and give each its own name with AS"),
                );
            }
            if name.starts_with(RESERVED_PREFIX) {
                errors.push(
                    at_sql(
                        "reserved-name",
                        format!("the query returns `{name}`, and names that start with `_cc_` are reserved"),
                    )
                    .with_hint("give the column another name with AS"),
                );
            }
        }
        errors
    }

    fn column(
        &self,
        path: &str,
        column: &str,
        refuse: impl Fn(ValueType) -> Option<&'static str>,
    ) -> Option<ConfigError> {
        let Some(field) = self.fields.iter().find(|f| f.name() == column) else {
            return Some(
                self.error(path, "missing-column", format!("the query returns no column `{column}`"))
                    .with_hint(self.missing_hint(column)),
            );
        };
        let Some(actual) = ValueType::of(field) else {
            let message = format!("`{column}` is of type {}, which a profile cannot hold", field.data_type());
            return Some(
                self.error(path, "unsupported-type", message)
                    .with_hint("convert it in the SQL, for example to text with CAST"),
            );
        };
        let why = refuse(actual)?;
        let message = format!("`{column}` is a {actual}, which cannot identify a person: {why}");
        let hint = "convert it in the SQL, for example to text with CAST, or use another column";
        Some(self.error(path, "key-type", message).with_hint(hint))
    }

    fn missing_hint(&self, column: &str) -> String {
        let names: Vec<&str> = self.fields.iter().map(|f| f.name().as_str()).collect();
        let returns = format!("the query returns: {}", suggest::list(&names));
        match suggest::nearest(column, names.iter().copied()) {
            Some(near) if near.eq_ignore_ascii_case(column) => {
                let why = match self.provider {
                    "postgres" => " (PostgreSQL turns unquoted names to lower case)".to_string(),
                    "redshift" => " (Redshift turns names to lower case)".to_string(),
                    "snowflake" => format!(
                        " (Snowflake turns unquoted names to upper case: write `{near}` in the model, or AS \"{column}\" in the SQL)"
                    ),
                    _ => String::new(),
                };
                format!("did you mean `{near}`?{why} {returns}")
            }
            Some(near) => format!("did you mean `{near}`? {returns}"),
            None => returns,
        }
    }

    fn contract(&self, column: &str, wanted: ValueType) -> Option<ConfigError> {
        // a column that is missing or cannot be held is reported where it is used
        let field = self.fields.iter().find(|f| f.name() == column)?;
        let actual = ValueType::of(field)?;
        if converts(actual, field, wanted) {
            return None;
        }
        let message = format!("`{column}` has to be {wanted}, and the query returns {actual}");
        let hint = format!("write `type: {actual}`, or convert the column in the SQL with CAST");
        Some(self.error(&format!("columns.{column}.type"), "contract-mismatch", message).with_hint(hint))
    }
}
