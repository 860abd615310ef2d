//! A connection's parameters, checked and typed. Pure: no name is resolved here.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::warehouse::http::is_loopback;
use crate::warehouse::params::Reading;
use crate::warehouse::{ConnectionParams, Parameter, ParameterKind, WarehouseError};

/// What a connection of `type: databricks` takes, in the order in which help shows it.
pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "host",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        help: "The workspace's host, for example dbc-a1b2c3d4-e5f6.cloud.databricks.com (\"Server hostname\" of the SQL warehouse)",
    },
    Parameter {
        name: "http_path",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        help: "\"HTTP path\" of the SQL warehouse, for example /sql/1.0/warehouses/abcdef0123456789",
    },
    Parameter {
        name: "access_token",
        kind: ParameterKind::Secret,
        required: false,
        default: None,
        help: "A personal access token; or else client_id and client_secret",
    },
    Parameter {
        name: "client_id",
        kind: ParameterKind::Text,
        required: false,
        default: None,
        help: "OAuth: the service principal's application ID",
    },
    Parameter {
        name: "client_secret",
        kind: ParameterKind::Secret,
        required: false,
        default: None,
        help: "OAuth: a secret of the service principal",
    },
    Parameter {
        name: "catalog",
        kind: ParameterKind::Text,
        required: false,
        default: None,
        help: "Catalog of names that give none; left out: the workspace's default",
    },
    Parameter {
        name: "schema",
        kind: ParameterKind::Text,
        required: false,
        default: None,
        help: "Schema of names that give none; left out: `default`",
    },
    Parameter {
        name: "statement_timeout",
        kind: ParameterKind::Duration,
        required: false,
        default: Some("30m"),
        help: "A query that runs for longer is cancelled (the start of a stopped warehouse counts); 0s for no limit",
    },
    Parameter {
        name: "connect_timeout",
        kind: ParameterKind::Duration,
        required: false,
        default: Some("10s"),
        help: "Longest time from the name's resolution to the end of the TLS handshake",
    },
    Parameter {
        name: "idle_timeout",
        kind: ParameterKind::Duration,
        required: false,
        default: Some("60s"),
        help: "Longest silence while an answer is awaited or read",
    },
];

/// How the connection proves who it is.
#[derive(Debug, Clone)]
pub(super) enum Credentials {
    AccessToken(SecretString),
    /// OAuth, machine to machine.
    Machine {
        client_id: String,
        client_secret: SecretString,
    },
}

/// One connection's settings.
#[derive(Debug, Clone)]
pub(super) struct DatabricksConfig {
    /// The connection's name in the project: it tags the statements.
    pub connection: String,
    /// `https://host/`, or plain HTTP to this machine.
    pub url: Url,
    pub warehouse_id: String,
    pub credentials: Credentials,
    pub catalog: Option<String>,
    pub schema: Option<String>,
    /// Zero: no limit.
    pub statement_timeout: Duration,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
}

impl DatabricksConfig {
    /// Reads the parameters; the ones left out take the defaults that [`PARAMETERS`] declares.
    pub(super) fn from_params(params: &ConnectionParams) -> Result<Self, WarehouseError> {
        let read = Reading { params, declared: PARAMETERS };
        let url = base_url(params.required("host")?.trim()).map_err(|want| read.invalid("host", want))?;
        let warehouse_id =
            warehouse_id(params.required("http_path")?.trim()).map_err(|want| read.invalid("http_path", want))?;
        Ok(Self {
            connection: params.connection.clone(),
            url,
            warehouse_id,
            credentials: credentials(params)?,
            catalog: read.optional("catalog").map(str::to_string),
            schema: read.optional("schema").map(str::to_string),
            statement_timeout: read.duration("statement_timeout")?,
            connect_timeout: read.some_duration("connect_timeout")?,
            idle_timeout: read.some_duration("idle_timeout")?,
        })
    }
}

/// Exactly one way to log in.
fn credentials(params: &ConnectionParams) -> Result<Credentials, WarehouseError> {
    let given = |name: &str| params.text(name).is_some_and(|v| !v.trim().is_empty());
    let hint = "give `access_token` (a personal access token), or `client_id` and `client_secret` (OAuth of a service \
                principal), from ${env:…} or ${file:…}";
    let fault = |what: &str| {
        Err(WarehouseError::configuration(format!("connection `{}`: {what}", params.connection)).with_hint(hint))
    };
    match (given("access_token"), given("client_id"), given("client_secret")) {
        (true, false, false) => match params.secret("access_token") {
            Some(token) => Ok(Credentials::AccessToken(trimmed(&token))),
            None => fault("there is no way to log in"),
        },
        (false, true, true) => match (params.text("client_id"), params.secret("client_secret")) {
            (Some(id), Some(secret)) => {
                Ok(Credentials::Machine { client_id: id.trim().to_string(), client_secret: trimmed(&secret) })
            }
            _ => fault("there is no way to log in"),
        },
        (false, false, false) => fault("there is no way to log in"),
        (false, true, false) => fault("`client_id` needs `client_secret`"),
        (false, false, true) => fault("`client_secret` needs `client_id`"),
        (true, _, _) => fault("`access_token` and `client_id` are two ways to log in"),
    }
}

/// Secrets out of files end in a newline.
fn trimmed(secret: &SecretString) -> SecretString {
    use secrecy::ExposeSecret;
    SecretString::from(secret.expose_secret().trim().to_string())
}

/// A host, or a URL as it stands in a browser.
fn base_url(host: &str) -> Result<Url, &'static str> {
    const WANT: &str = "the workspace's host, for example `dbc-a1b2c3d4-e5f6.cloud.databricks.com`, \
                        `adb-1234567890123456.7.azuredatabricks.net` or `1234567890123456.7.gcp.databricks.com`";
    let text = if host.contains("://") { host.to_string() } else { format!("https://{host}") };
    let mut url = Url::parse(&text).map_err(|_| WANT)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a host without a user; the token goes into `access_token`");
    }
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => {}
        ("http", Some(_)) if is_loopback(&url) => {}
        ("http", Some(_)) => return Err("reached through https; plain http is for this machine only"),
        _ => return Err(WANT),
    }
    url.set_path("/");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

fn warehouse_id(path: &str) -> Result<String, &'static str> {
    const WANT: &str =
        "the HTTP path of a SQL warehouse, `/sql/1.0/warehouses/<id>`, as its connection details show it";
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let id = match parts[..] {
        ["sql", "1.0", "warehouses" | "endpoints", id] | [id] => id,
        ["sql", "protocolv1", ..] => {
            return Err(
                "the path of a SQL warehouse, `/sql/1.0/warehouses/<id>`; this one is of a cluster, which the \
                        Statement Execution API cannot use",
            );
        }
        _ => return Err(WANT),
    };
    let fits = !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if fits { Ok(id.to_string()) } else { Err(WANT) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn params(values: &[(&str, &str)]) -> ConnectionParams {
        let mut params = ConnectionParams::new("lake", "/project");
        for (name, value) in [("host", "dbc-1.cloud.databricks.com"), ("http_path", "/sql/1.0/warehouses/abc123")] {
            params.set(name, value);
        }
        for (name, value) in values {
            params.set(*name, *value);
        }
        params
    }

    #[test]
    fn hosts_and_pasted_urls_lead_to_the_workspace() {
        for (host, url) in [
            ("dbc-1.cloud.databricks.com", "https://dbc-1.cloud.databricks.com/"),
            ("https://adb-1.7.azuredatabricks.net/?o=1#x", "https://adb-1.7.azuredatabricks.net/"),
            ("https://1.7.gcp.databricks.com/sql/warehouses", "https://1.7.gcp.databricks.com/"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/"),
        ] {
            let config = DatabricksConfig::from_params(&params(&[("host", host), ("access_token", "dapi1")])).unwrap();
            assert_eq!(config.url.as_str(), url);
            assert_eq!(config.statement_timeout, Duration::from_secs(1800));
        }
        for host in ["http://dbc-1.cloud.databricks.com", "ftp://x", "", "https://token:x@host", "a b"] {
            let error = DatabricksConfig::from_params(&params(&[("host", host), ("access_token", "t")])).unwrap_err();
            assert!(error.message.contains("host"), "{host}: {error}");
        }
    }

    #[test]
    fn only_a_warehouses_path_is_taken() {
        for path in ["/sql/1.0/warehouses/abc123", "sql/1.0/endpoints/abc123/", "abc123"] {
            assert_eq!(warehouse_id(path), Ok("abc123".to_string()));
        }
        let cluster = warehouse_id("/sql/protocolv1/o/123/0101-abc").unwrap_err();
        assert!(cluster.contains("cluster"), "{cluster}");
        for path in ["", "/", "/sql/1.0/warehouses/", "/sql/1.0/warehouses/a?b", "/jdbc/x"] {
            assert!(warehouse_id(path).is_err(), "{path}");
        }
    }

    #[test]
    fn there_is_exactly_one_way_to_log_in() {
        for values in [
            &[][..],
            &[("client_id", "a")],
            &[("client_secret", "a")],
            &[("access_token", "a"), ("client_id", "b"), ("client_secret", "c")],
            &[("access_token", " ")],
        ] {
            let error = DatabricksConfig::from_params(&params(values)).unwrap_err();
            assert!(error.hint.unwrap().contains("access_token"), "{values:?}");
        }
        for values in [&[("access_token", "hunter2\n")][..], &[("client_id", "a"), ("client_secret", "hunter2")]] {
            let config = DatabricksConfig::from_params(&params(values)).unwrap();
            assert!(!format!("{config:?}").contains("hunter2"));
        }
    }
}
