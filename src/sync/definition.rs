//! What a record store was made from, kept in its Delta metadata, so that a changed model is noticed.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Schema};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::config::{IdentityField, Normalization};
use crate::diff::row_hash::ROW_ENCODING;
use crate::model::Model;
use crate::profiles::ModelShape;
use crate::values::ValueType;
use crate::values::convert::TargetColumn;

use super::SyncError;

/// The table configuration key that holds it.
pub const CONFIGURATION_KEY: &str = "cloud-connect.definition";

/// A model as far as its record store depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// See `diff::row_hash`.
    pub row_encoding: u32,
    pub connection: String,
    /// xxh3-128 of the SQL, in hexadecimal.
    pub sql: String,
    pub primary_key: String,
    pub external_key: String,
    pub create_profiles: bool,
    /// Name and value type of the key, the activated fields and the further identities, in order.
    pub columns: Vec<(String, String)>,
    /// How many of `columns` are activated fields (they follow the key).
    pub activated: usize,
    /// The further identity fields.
    pub identities: Vec<String>,
    /// The identity fields that the model uses, and how their values were normalized.
    #[serde(default)]
    pub normalization: BTreeMap<String, Vec<Normalization>>,
}

/// How a model differs from what its record store was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DefinitionChange {
    None,
    /// The rows may differ, their shape does not: row hashes stay comparable.
    Source,
    /// Columns or types differ: rows are compared value by value.
    Shape,
}

impl Definition {
    /// The definition of `model` given the columns that its query returns.
    pub fn of(
        model: &Model,
        fields: &[IdentityField],
        result: &Schema,
        before: Option<&Self>,
    ) -> Result<Self, SyncError> {
        let used = |field: &&IdentityField| model.uses_identity(&field.field);
        let normalization = fields.iter().filter(used).map(|field| (field.field.clone(), field.normalize.clone()));
        let mut names = vec![model.primary_key.clone()];
        names.extend(model.activated_fields.iter().cloned());
        let activated = names.len() - 1;
        let further = model.identities.iter().filter(|name| !model.activated_fields.contains(name));
        names.extend(further.cloned());
        let mut columns = Vec::with_capacity(names.len());
        for (position, name) in names.into_iter().enumerate() {
            let field = result.field_with_name(&name).map_err(|_| SyncError::missing_column(&name, result))?;
            let contract = model.declared_type(&name);
            let known = before.and_then(|before| before.columns.iter().find(|(known, _)| *known == name));
            let value_type = match (contract, field.data_type()) {
                // an identity is text, whatever its contract says
                _ if position > activated => ValueType::String.to_string(),
                (Some(declared), _) => declared.to_string(),
                // a column of nothing but nulls has no type of its own
                (None, DataType::Null) => known.map_or_else(|| ValueType::String.to_string(), |(_, t)| t.clone()),
                (None, data_type) => {
                    ValueType::of(field).ok_or_else(|| SyncError::unsupported_column(&name, data_type))?.to_string()
                }
            };
            columns.push((name, value_type));
        }
        Ok(Self {
            row_encoding: ROW_ENCODING,
            connection: model.connection.clone(),
            sql: sql_hash(&model.sql),
            primary_key: model.primary_key.clone(),
            external_key: model.external_key.clone(),
            create_profiles: model.create_profiles,
            columns,
            activated,
            identities: model.identities.clone(),
            normalization: normalization.collect(),
        })
    }

    /// The definition of a stream (`super::upload`): it identifies by any field, and has no query. `used` are the fields
    /// that the upload brings.
    pub fn of_stream<'a>(
        fields: &[IdentityField],
        used: impl Iterator<Item = &'a IdentityField>,
        before: Option<&Self>,
    ) -> Self {
        let mut normalization = before.map(|before| before.normalization.clone()).unwrap_or_default();
        normalization.extend(used.map(|field| (field.field.clone(), field.normalize.clone())));
        Self {
            row_encoding: ROW_ENCODING,
            connection: String::new(),
            sql: String::new(),
            primary_key: String::new(),
            external_key: String::new(),
            create_profiles: true,
            columns: Vec::new(),
            activated: 0,
            identities: fields.iter().map(|field| field.field.clone()).collect(),
            normalization,
        }
    }

    /// The columns to convert the result to.
    pub fn targets(&self, model: &Model) -> Result<Vec<TargetColumn>, SyncError> {
        let target = |(position, (name, value_type)): (usize, &(String, String))| {
            let value_type = match model.declared_type(name).filter(|_| position > self.activated) {
                // stored as text, but only when it is what the contract says
                Some(declared) => declared,
                None => value_type.parse().map_err(|e: String| SyncError::Bug(e))?,
            };
            let not_null = model.columns.get(name).is_some_and(|contract| contract.not_null);
            // a null key is counted as such, whatever the contract says
            Ok(TargetColumn { name: name.clone(), value_type, not_null: not_null && *name != self.primary_key })
        };
        self.columns.iter().enumerate().map(target).collect()
    }

    /// What readers need to know of the model.
    pub fn shape(&self, slug: &str) -> ModelShape {
        let activated = self.columns.iter().skip(1).take(self.activated);
        ModelShape {
            slug: slug.to_string(),
            external_key: self.external_key.clone(),
            primary_key: self.primary_key.clone(),
            activated_fields: activated.map(|(name, _)| name.clone()).collect(),
            identities: self.identities.clone(),
        }
    }

    /// Are these the steps with which the model's values of an identity field were stored?
    pub fn check_steps(&self, field: &str, steps: &[Normalization]) -> Result<(), SyncError> {
        match self.normalization.get(field) {
            Some(stored) if stored != steps => {
                Err(SyncError::Renormalized { field: field.to_string(), before: steps_text(stored) })
            }
            _ => Ok(()),
        }
    }

    /// Does the model say something else than what the record store was made from? As far as that is known without the
    /// types of its result.
    pub fn is_outdated(&self, model: &Model) -> bool {
        let further = model.identities.iter().filter(|name| !model.activated_fields.contains(name));
        let names = std::iter::once(&model.primary_key).chain(&model.activated_fields).chain(further);
        let retyped =
            self.columns.iter().take(self.activated + 1).any(|(name, stored)| {
                model.declared_type(name).is_some_and(|declared| declared.to_string() != *stored)
            });
        retyped
            || !names.eq(self.columns.iter().map(|(name, _)| name))
            || self.activated != model.activated_fields.len()
            || self.identities != model.identities
            || self.sql != sql_hash(&model.sql)
            || self.connection != model.connection
            || self.create_profiles != model.create_profiles
            || self.row_encoding != ROW_ENCODING
    }

    /// What changed since `before`. Another key is refused: every membership would end and begin anew.
    pub fn compare(&self, model: &Model, before: Option<&Self>) -> Result<DefinitionChange, SyncError> {
        let Some(before) = before else { return Ok(DefinitionChange::None) };
        if (&self.primary_key, &self.external_key) != (&before.primary_key, &before.external_key)
            || self.columns[0].1 != before.columns[0].1
        {
            return Err(SyncError::KeyChanged {
                before: format!("{} ({}) -> {}", before.primary_key, before.columns[0].1, before.external_key),
                now: format!("{} ({}) -> {}", self.primary_key, self.columns[0].1, self.external_key),
            });
        }
        for (field, steps) in &self.normalization {
            before.check_steps(field, steps)?;
        }
        let source_changed = self.sql != before.sql || self.connection != before.connection;
        if self.columns == before.columns
            && self.activated == before.activated
            && self.identities == before.identities
            && self.row_encoding == before.row_encoding
        {
            let changed = source_changed || self.create_profiles != before.create_profiles;
            return Ok(if changed { DefinitionChange::Source } else { DefinitionChange::None });
        }
        let names = |d: &Self| d.columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        if !source_changed && names(self) == names(before) {
            // a type that is declared is meant
            let mut pairs = self.columns.iter().zip(&before.columns);
            let retyped = pairs.find(|(now, then)| now.1 != then.1 && model.declared_type(&now.0).is_none());
            if let Some((now, then)) = retyped {
                return Err(SyncError::Retyped { column: now.0.clone(), before: then.1.clone(), now: now.1.clone() });
            }
        }
        Ok(DefinitionChange::Shape)
    }
}

fn sql_hash(sql: &str) -> String {
    format!("{:032x}", xxh3_128(sql.as_bytes()))
}

/// As `normalize:` is written.
fn steps_text(steps: &[Normalization]) -> String {
    let names = steps.iter().map(|step| match step {
        Normalization::Trim => "trim",
        Normalization::Lowercase => "lowercase",
    });
    format!("[{}]", names.collect::<Vec<_>>().join(", "))
}
