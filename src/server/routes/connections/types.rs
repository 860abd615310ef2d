//! Which types of connections there are, and what each takes: what a form is drawn from.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::define::provider;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::Path;
use crate::server::state::App;
use crate::warehouse::{Parameter, ParameterKind, Provider};

/// A type of connection.
#[derive(Debug, Serialize, ToSchema)]
struct ConnectionConfig {
    /// What `provider_slug` names.
    #[schema(example = "postgres")]
    id: &'static str,
    slug: &'static str,
    provider_slug: &'static str,
    /// What it connects to.
    label: &'static str,
    /// `stable` or `preview`.
    maturity: &'static str,
    /// What it was tried on.
    verified: &'static str,
    parameters: Vec<ConfigParameter>,
}

/// A parameter of a type of connection.
#[derive(Debug, Serialize, ToSchema)]
struct ConfigParameter {
    name: &'static str,
    /// `text`, `integer`, `bool`, `choice`, `location` (a directory or an object store's URL), `file`, `secret`, `duration`
    /// or `bytes`.
    kind: &'static str,
    /// An authorization holds it, never `config`.
    secret: bool,
    required: bool,
    /// What counts when it is left out.
    default: Option<&'static str>,
    /// The words that a `choice` takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    choices: Option<&'static [&'static str]>,
    /// The least and the greatest `integer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<i64>,
    help: &'static str,
}

impl From<&Provider> for ConnectionConfig {
    fn from(provider: &Provider) -> Self {
        Self {
            id: provider.name,
            slug: provider.name,
            provider_slug: provider.name,
            label: provider.title,
            maturity: provider.maturity.grade.as_str(),
            verified: provider.maturity.verified,
            parameters: provider.parameters.iter().map(ConfigParameter::from).collect(),
        }
    }
}

impl From<&Parameter> for ConfigParameter {
    fn from(parameter: &Parameter) -> Self {
        let (mut choices, mut minimum, mut maximum) = (None, None, None);
        let kind = match parameter.kind {
            ParameterKind::Text => "text",
            ParameterKind::Integer { min, max } => {
                (minimum, maximum) = (Some(min), Some(max));
                "integer"
            }
            ParameterKind::Bool => "bool",
            ParameterKind::Choice(words) => {
                choices = Some(words);
                "choice"
            }
            ParameterKind::Location => "location",
            ParameterKind::File => "file",
            ParameterKind::Secret => "secret",
            ParameterKind::Duration => "duration",
            ParameterKind::Bytes => "bytes",
        };
        Self {
            name: parameter.name,
            kind,
            secret: parameter.kind == ParameterKind::Secret,
            required: parameter.required && parameter.default.is_none(),
            default: parameter.default,
            choices,
            minimum,
            maximum,
            help: parameter.help,
        }
    }
}

/// The types of connections, with their parameters.
#[utoipa::path(get, path = "/v2/connectionconfig", tag = "connections", responses((status = 200, body = Answer<Vec<ConnectionConfig>>)),
    security(("token" = ["connections:read"])))]
async fn list(State(app): State<App>) -> Answer<Vec<ConnectionConfig>> {
    Answer::of(app.service.engine().project.providers.iter().map(ConnectionConfig::from).collect())
}

/// One type of connection, with its parameters.
#[utoipa::path(get, path = "/v2/connectionconfig/{slug}", tag = "connections", params(("slug" = String, Path, description = "the type's name")),
    responses((status = 200, body = Answer<ConnectionConfig>), (status = 404, body = Errors)), security(("token" = ["connections:read"])))]
async fn get(State(app): State<App>, Path(slug): Path<String>) -> Result<Answer<ConnectionConfig>, ApiError> {
    let engine = app.service.engine();
    let found = provider(&engine.project, &slug).map_err(|_| {
        ApiError::not_found(format!("no type of connection `{slug}`")).with_hint("GET /v2/connectionconfig lists them")
    })?;
    Ok(Answer::of(found.into()))
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}
