//! What a connection of `type: bigquery` takes, in the order in which help shows it.

use crate::warehouse::{Parameter, ParameterKind};

const fn optional(name: &'static str, kind: ParameterKind, help: &'static str) -> Parameter {
    Parameter { name, kind, required: false, default: None, help }
}

const fn defaulted(name: &'static str, kind: ParameterKind, default: &'static str, help: &'static str) -> Parameter {
    Parameter { name, kind, required: false, default: Some(default), help }
}

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "project",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        help: "ID of the project in which queries run and which is billed; tables may lie in others",
    },
    optional("dataset", ParameterKind::Text, "Dataset (or project.dataset) of tables that are named without one"),
    optional(
        "location",
        ParameterKind::Text,
        "Where queries run, for example EU or europe-west1; left out: where the data is",
    ),
    optional("service_account_key", ParameterKind::Secret, "JSON key of a service account, typically ${file:…}"),
    optional("oauth_refresh_token", ParameterKind::Secret, "Refresh token of a person, instead of a service account"),
    optional("oauth_client_id", ParameterKind::Text, "OAuth client that the refresh token was given to"),
    optional("oauth_client_secret", ParameterKind::Secret, "Secret of that client"),
    optional(
        "maximum_bytes_billed",
        ParameterKind::Bytes,
        "Queries that would read more are refused, for example 500 GB",
    ),
    optional("labels", ParameterKind::Text, "Labels of every query's job: key=value,key=value"),
    defaulted("use_query_cache", ParameterKind::Bool, "true", "Let BigQuery answer from its cache, at no cost"),
    defaulted(
        "endpoint",
        ParameterKind::Text,
        "https://bigquery.googleapis.com",
        "REST API, where it is not the public one (Private Service Connect)",
    ),
    defaulted(
        "storage_endpoint",
        ParameterKind::Text,
        "https://bigquerystorage.googleapis.com",
        "Storage Read API (gRPC), where it is not the public one",
    ),
    defaulted(
        "statement_timeout",
        ParameterKind::Duration,
        "30m",
        "BigQuery stops a query after this long; 0s for no limit",
    ),
    defaulted("connect_timeout", ParameterKind::Duration, "10s", "Longest time until a connection is encrypted"),
    defaulted("idle_timeout", ParameterKind::Duration, "60s", "Longest silence while an answer or rows are awaited"),
];
