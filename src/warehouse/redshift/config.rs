//! A connection's parameters, checked and typed. Pure: no file is read and no name is resolved here.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::endpoint::Endpoint;
use crate::warehouse::params::Reading;
use crate::warehouse::postgres::config::{CONNECT_TIMEOUT, PostgresConfig, SSL_MODE, SSL_ROOT_CERT, STATEMENT_TIMEOUT};
use crate::warehouse::{ConnectionParams, Parameter, ParameterKind, WarehouseError};

const fn text(name: &'static str, help: &'static str) -> Parameter {
    Parameter { name, kind: ParameterKind::Text, required: false, default: None, help }
}

const fn secret(name: &'static str, help: &'static str) -> Parameter {
    Parameter { name, kind: ParameterKind::Secret, required: false, default: None, help }
}

/// What a connection of `type: redshift` takes, in the order in which help shows it.
pub(super) const PARAMETERS: &[Parameter] = &[
    text(
        "endpoint",
        "Endpoint of the cluster or workgroup: host, host:port/database as the console shows it, or the JDBC URL",
    ),
    text("host", "Host name, instead of `endpoint`"),
    Parameter {
        name: "port",
        kind: ParameterKind::Integer { min: 1, max: 65535 },
        required: false,
        default: Some("5439"),
        help: "TCP port, when the endpoint does not name it",
    },
    text("database", "Database to read, when the endpoint does not name it"),
    text("schema", "Schema in which unqualified table names are looked up; otherwise the user's search path"),
    Parameter {
        name: "user",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        help: "Database user to log in as, with SELECT only; `IAM:name` or `IAMA:name` with temporary credentials",
    },
    secret("password", "The user's password, or the temporary one of GetClusterCredentials"),
    SSL_MODE,
    SSL_ROOT_CERT,
    STATEMENT_TIMEOUT,
    CONNECT_TIMEOUT,
    Parameter {
        name: "idle_timeout",
        kind: ParameterKind::Duration,
        required: false,
        default: Some("5m"),
        help: "Give up when rows under way stop coming for this long; 0s for no limit",
    },
    text(
        "query_group",
        "Label of the queries (SET query_group): finds them in the system views, and routes them in WLM",
    ),
    Parameter {
        name: "fetch_rows",
        kind: ParameterKind::Integer { min: 1, max: 1_000_000 },
        required: false,
        default: Some("10000"),
        help: "Rows asked for at a time (without unload_bucket); single-node clusters are asked for 1000 at most",
    },
    text(
        "unload_bucket",
        "s3://bucket/prefix for the fast path: results go there as Parquet (UNLOAD), and are removed when read",
    ),
    Parameter {
        name: "unload_role",
        kind: ParameterKind::Text,
        required: false,
        default: Some("default"),
        help: "ARN of the IAM role with which Redshift writes to unload_bucket, or `default`",
    },
    text("s3_region", "Region of unload_bucket; otherwise AWS_REGION. Named to Redshift too when given here"),
    text("s3_endpoint", "Endpoint of the S3 service, when it is not AWS's; plain http on this machine only"),
    secret(
        "s3_access_key_id",
        "Access key that reads and deletes in unload_bucket; otherwise the AWS_* environment or instance role",
    ),
    secret("s3_secret_access_key", "Its secret"),
    secret("s3_session_token", "Session token of temporary credentials"),
];

/// One connection's settings.
#[derive(Debug)]
pub(super) struct RedshiftConfig {
    /// What is the same for PostgreSQL.
    pub server: PostgresConfig,
    pub schema: Option<String>,
    pub query_group: Option<String>,
    /// Zero: no limit.
    pub idle_timeout: Duration,
    pub fetch_rows: usize,
    pub unload: Option<UnloadConfig>,
}

/// The way over S3.
#[derive(Debug, Clone)]
pub(super) struct UnloadConfig {
    pub bucket: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
    pub role: Role,
    pub region: Option<String>,
    pub endpoint: Option<Url>,
    pub access_key_id: Option<SecretString>,
    pub secret_access_key: Option<SecretString>,
    pub session_token: Option<SecretString>,
    pub connect_timeout: Duration,
    /// Zero: no limit.
    pub idle_timeout: Duration,
}

/// With whose rights Redshift writes to S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// The cluster's default role.
    Default,
    Arn(String),
}

impl RedshiftConfig {
    /// Reads the parameters; the ones left out take the defaults that [`PARAMETERS`] declares.
    pub(super) fn from_params(params: &ConnectionParams) -> Result<Self, WarehouseError> {
        let read = Reading { params, declared: PARAMETERS };
        let endpoint = match (params.text("endpoint"), params.text("host")) {
            (Some(_), Some(_)) => return Err(read.invalid("host", "left out when `endpoint` is given")),
            (Some(endpoint), None) => Endpoint::parse(endpoint).map_err(|why| {
                WarehouseError::configuration(format!("connection `{}`: `endpoint` is {why}", params.connection))
                    .with_hint("`endpoint` is as the console shows it: host:5439/database")
            })?,
            (None, Some(_)) => Endpoint { host: read.named("host")?, port: None, database: None },
            (None, None) => {
                return Err(WarehouseError::configuration(format!(
                    "connection `{}` has no `endpoint`",
                    params.connection
                ))
                .with_hint(
                    "add `endpoint:` to the connection in cloud-connect.yml; the console shows it: host:5439/database",
                ));
            }
        };
        // what was left out may have been filled in with its default
        let given = |name: &str| params.text(name).map(str::trim).filter(|value| Some(*value) != read.default(name));
        let port = match (endpoint.port, given("port")) {
            (Some(port), Some(given)) if given != port.to_string() => {
                return Err(read.invalid("port", "left out when the endpoint names another"));
            }
            (Some(port), _) => port,
            (None, _) => read.port("port")?,
        };
        let database = match (endpoint.database, params.text("database")) {
            (Some(database), Some(given)) if given.trim() != database => {
                return Err(read.invalid("database", "left out when the endpoint names another"));
            }
            (Some(database), _) => database,
            (None, _) => read.named("database")?,
        };
        let optional = |name: &str| params.text(name).map(|value| read.usable(name, value)).transpose();
        let fetch_rows = read.text("fetch_rows").parse().ok().filter(|rows| (1..=1_000_000).contains(rows));
        let connect_timeout = read.some_duration("connect_timeout")?;
        let idle_timeout = read.duration("idle_timeout")?;
        let server = PostgresConfig {
            host: endpoint.host,
            port,
            database,
            user: read.named("user")?,
            password: params.secret("password"),
            ssl_mode: read.ssl_mode()?,
            ssl_root_cert: params.text("ssl_root_cert").map(|file| params.project_root.join(file)),
            statement_timeout: read.duration("statement_timeout")?,
            connect_timeout,
        };
        let unload = match params.text("unload_bucket") {
            Some(location) => Some(UnloadConfig::read(&read, location, connect_timeout, idle_timeout)?),
            None => {
                let alone = ["unload_role", "s3_region", "s3_endpoint", "s3_access_key_id"];
                if let Some(name) = alone.into_iter().find(|name| given(name).is_some()) {
                    return Err(read.invalid(name, "of use with `unload_bucket` only"));
                }
                None
            }
        };
        Ok(Self {
            server,
            schema: optional("schema")?,
            query_group: optional("query_group")?,
            idle_timeout,
            fetch_rows: fetch_rows.ok_or_else(|| read.invalid("fetch_rows", "a number from 1 to 1000000"))?,
            unload,
        })
    }

    /// Where a table named without a schema is looked for.
    pub(super) fn default_schema(&self) -> &str {
        self.schema.as_deref().unwrap_or("public")
    }
}

impl UnloadConfig {
    fn read(
        read: &Reading<'_>,
        location: &str,
        connect_timeout: Duration,
        idle_timeout: Duration,
    ) -> Result<Self, WarehouseError> {
        let place = location.trim().strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.!*()/=+@:,".contains(c);
        let (bucket, prefix) = place
            .filter(|(bucket, prefix)| !bucket.is_empty() && bucket.chars().chain(prefix.chars()).all(plain))
            .ok_or_else(|| {
                read.invalid("unload_bucket", "of the form `s3://bucket/prefix`, without quotes and blanks")
            })?;
        let role = match read.text("unload_role").trim() {
            role if role.eq_ignore_ascii_case("default") => Role::Default,
            arn if arn.starts_with("arn:") && arn.chars().all(plain) => Role::Arn(arn.to_string()),
            _ => {
                return Err(read.invalid("unload_role", "the ARN of an IAM role (arn:aws:iam::…:role/…), or `default`"));
            }
        };
        let region = read.params.text("s3_region").map(|region| read.usable("s3_region", region)).transpose()?;
        if region.as_ref().is_some_and(|r| !r.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')) {
            return Err(read.invalid("s3_region", "a region such as `eu-central-1`"));
        }
        let endpoint = read.params.text("s3_endpoint").map(|endpoint| s3_endpoint(read, endpoint)).transpose()?;
        let (id, secret) = (read.params.secret("s3_access_key_id"), read.params.secret("s3_secret_access_key"));
        if id.is_some() != secret.is_some() {
            return Err(read.invalid("s3_access_key_id", "given together with `s3_secret_access_key`, or not at all"));
        }
        Ok(Self {
            bucket: bucket.to_string(),
            prefix: prefix.trim_matches('/').to_string(),
            role,
            region,
            endpoint,
            access_key_id: id,
            secret_access_key: secret,
            session_token: read.params.secret("s3_session_token"),
            connect_timeout,
            idle_timeout,
        })
    }
}

fn s3_endpoint(read: &Reading<'_>, text: &str) -> Result<Url, WarehouseError> {
    let url = Url::parse(text.trim()).ok().filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or_else(|| read.invalid("s3_endpoint", "an https:// URL"))?;
    let loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() == "http" && !loopback {
        return Err(
            read.invalid("s3_endpoint", "an https:// URL; plain http is accepted on this machine (127.0.0.1) only")
        );
    }
    Ok(url)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn params(values: &[(&str, &str)]) -> ConnectionParams {
        let mut params = ConnectionParams::new("dwh", "/project");
        for (name, value) in [("endpoint", "h.example.com:5440/dev"), ("user", "reader")].iter().chain(values) {
            params.set(*name, *value);
        }
        params
    }

    #[test]
    fn left_out_parameters_take_their_declared_defaults() {
        let config = RedshiftConfig::from_params(&params(&[])).unwrap();
        assert_eq!((config.server.host.as_str(), config.server.port), ("h.example.com", 5440));
        assert_eq!((config.server.database.as_str(), config.fetch_rows), ("dev", 10_000));
        assert!(config.unload.is_none());
        let filled_in = RedshiftConfig::from_params(&params(&[("port", "5439"), ("unload_role", "default")])).unwrap();
        assert_eq!(filled_in.server.port, 5440);
        let config = RedshiftConfig::from_params(&params(&[("unload_bucket", "s3://b/p/q/")])).unwrap();
        let unload = config.unload.unwrap();
        assert_eq!((unload.bucket.as_str(), unload.prefix.as_str(), unload.role), ("b", "p/q", Role::Default));
    }

    #[test]
    fn a_faulty_parameter_is_named_with_what_it_takes() {
        for (values, name) in [
            (&[("host", "other")][..], "host"),
            (&[("port", "5441")], "port"),
            (&[("database", "other")], "database"),
            (&[("endpoint", "https://h")], "endpoint"),
            (&[("fetch_rows", "0")], "fetch_rows"),
            (&[("idle_timeout", "ten")], "idle_timeout"),
            (&[("unload_bucket", "gs://b")], "unload_bucket"),
            (&[("unload_bucket", "s3://b/it's")], "unload_bucket"),
            (&[("unload_bucket", "s3://b"), ("unload_role", "x' y")], "unload_role"),
            (&[("unload_bucket", "s3://b"), ("s3_endpoint", "http://s3.example.com")], "s3_endpoint"),
            (&[("unload_bucket", "s3://b"), ("s3_access_key_id", "a")], "s3_access_key_id"),
            (&[("unload_role", "arn:aws:iam::1:role/r")], "unload_role"),
        ] {
            let error = RedshiftConfig::from_params(&params(values)).unwrap_err();
            assert!(error.message.contains(name), "{error}");
            assert!(error.hint.is_some(), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = RedshiftConfig::from_params(&params(&[
            ("password", "hunter2"),
            ("unload_bucket", "s3://b"),
            ("s3_access_key_id", "AKIAhunter"),
            ("s3_secret_access_key", "hunter3"),
            ("s3_session_token", "hunter4"),
        ]));
        assert!(!format!("{:?}", config.unwrap()).contains("hunter"));
    }
}
