//! A definition tried before it is used: against the rules of the files, and against its warehouse.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};

use super::definition;
use crate::catalog::definitions::{DefinitionKind, StoredDefinition, StoredDefinitions};
use crate::config::{Project, with_stored};
use crate::model::{Model, check_columns};
use crate::server::answer::ApiError;
use crate::sync::{Engine, SyncError};
use crate::warehouse::{CostEstimate, UNCONVERTIBLE_COLUMN, WarehouseError, WarehouseErrorKind};

/// How long a warehouse may take to describe a query: less than a request may take.
const DESCRIBE: Duration = Duration::from_secs(40);
/// How long it may take to say what a query costs, which is worth less.
const ESTIMATE: Duration = Duration::from_secs(10);

/// The project as it would be with a definition.
#[derive(Debug)]
pub struct Trial {
    project: Arc<Project>,
    slug: String,
    definition: definition::Definition,
    sent_period: bool,
}

impl Trial {
    /// Judges the definition by the rules of the files, beside everything else that is stored. `sent_period`: the
    /// schedule was given in seconds.
    pub fn of(
        engine: &Engine,
        mut stored: StoredDefinitions,
        new: &StoredDefinition,
        sent_period: bool,
    ) -> Result<Self, ApiError> {
        stored.models.retain(|other| other.id != new.id);
        stored.models.push(new.clone());
        // as the catalog hands them out: which of two definitions a conflict is told of does not depend on who was tried
        stored.models.sort_by(|a, b| a.id.cmp(&b.id));
        let (mut project, unusable) = with_stored(engine.files(), &stored);
        let is_model = |kind: &str| kind == DefinitionKind::Model.as_str();
        if let Some(own) = unusable.iter().find(|u| is_model(u.kind) && u.id == new.id) {
            return Err(definition::faults(&own.faults, &new.definition, sent_period));
        }
        let was_unusable = |kind: &str, id: &str| engine.unusable.iter().any(|u| u.kind == kind && u.id == id);
        if let Some(broken) = unusable.iter().find(|u| !was_unusable(u.kind, &u.id)) {
            let why = broken.faults.first().map(|fault| fault.message.clone()).unwrap_or_default();
            return Err(ApiError::conflict(
                "breaks-another",
                format!("with this, {} `{}` could not be used: {why}", broken.kind, broken.id),
            )
            .with_hint("change the other one first"));
        }
        project.vault = Arc::clone(&engine.project.vault);
        let definition = new.definition.clone();
        Ok(Self { project: Arc::new(project), slug: new.id.clone(), definition, sent_period })
    }

    pub fn model(&self) -> Result<&Model, ApiError> {
        self.project.models.get(&self.slug).ok_or_else(|| SyncError::NoSuchModel(self.slug.clone()).into())
    }

    /// The type of the model's connection.
    pub fn provider(&self) -> Result<&str, ApiError> {
        let connection = &self.model()?.connection;
        Ok(self.project.connections.get(connection).map_or("", |c| c.provider.as_str()))
    }

    /// An engine that has the definition, to plan with.
    pub fn engine(&self, engine: &Engine) -> Engine {
        let mut engine = engine.clone();
        engine.project = Arc::clone(&self.project);
        engine
    }

    /// Asks the warehouse what the query returns, and holds that against the definition.
    pub async fn ask(&self, engine: &Engine) -> Result<(), ApiError> {
        self.fit(&*self.describe(engine).await?)
    }

    /// What the query returns, as its warehouse describes it.
    pub async fn describe(&self, engine: &Engine) -> Result<SchemaRef, ApiError> {
        let model = self.model()?;
        let warehouse = self.project.open_connection(&model.connection, engine.memory.query)?;
        let schema = match tokio::time::timeout(DESCRIBE, warehouse.describe(&model.sql)).await {
            Ok(schema) => schema.map_err(of_query)?,
            Err(_) => {
                return Err(ApiError::new(
                    axum::http::StatusCode::GATEWAY_TIMEOUT,
                    "timeout",
                    format!(
                        "connection `{}` did not describe the query within {} s",
                        model.connection,
                        DESCRIBE.as_secs()
                    ),
                )
                .with_hint("try again: a warehouse that slept takes a while to wake up"));
            }
        };
        if shown(&schema).next().is_none() {
            return Err(ApiError::bad_request("no-columns", "the query returns no columns")
                .with_hint("a model is one SELECT with the key and the activated fields in its result")
                .with_field("sql"));
        }
        Ok(schema)
    }

    /// Does such a result fit the definition?
    pub fn fit(&self, schema: &Schema) -> Result<(), ApiError> {
        let faults = check_columns(self.model()?, schema, &self.project);
        if faults.is_empty() { Ok(()) } else { Err(definition::faults(&faults, &self.definition, self.sent_period)) }
    }

    /// What the query costs, where the warehouse tells without running it.
    pub async fn cost(&self, engine: &Engine) -> Option<CostEstimate> {
        let model = self.model().ok()?;
        let warehouse = self.project.open_connection(&model.connection, engine.memory.query).ok()?;
        let cost = tokio::time::timeout(ESTIMATE, warehouse.estimate(&model.sql)).await.ok()?;
        cost.unwrap_or_else(|error| {
            tracing::warn!(model = model.slug, %error, "the query's cost is not known");
            None
        })
    }
}

/// The columns that the query itself returns.
pub fn shown(schema: &Schema) -> impl Iterator<Item = &arrow::datatypes::Field> {
    schema.fields().iter().map(AsRef::as_ref).filter(|field| field.name() != UNCONVERTIBLE_COLUMN)
}

fn of_query(error: WarehouseError) -> ApiError {
    let in_sql = error.kind == WarehouseErrorKind::Sql;
    let error = ApiError::from(error);
    if in_sql { error.with_field("sql") } else { error }
}
