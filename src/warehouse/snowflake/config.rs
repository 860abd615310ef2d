//! A connection's parameters, checked and typed. Pure: no file is read and no name is resolved here.

use std::time::Duration;

use base64::Engine;
use secrecy::{ExposeSecret, SecretString};

use super::account::Account;
use crate::warehouse::params::Reading;
use crate::warehouse::{ConnectionParams, Parameter, ParameterKind, WarehouseError};

/// A parameter that may be left out.
const fn optional(
    name: &'static str,
    kind: ParameterKind,
    default: Option<&'static str>,
    help: &'static str,
) -> Parameter {
    Parameter { name, kind, required: false, default, help }
}

const fn required(name: &'static str, help: &'static str) -> Parameter {
    Parameter { name, kind: ParameterKind::Text, required: true, default: None, help }
}

/// What a connection of `type: snowflake` takes, in the order in which help shows it.
pub(super) const PARAMETERS: &[Parameter] = &[
    optional(
        "account",
        ParameterKind::Text,
        None,
        "The account: orgname-accountname, a locator with its region (xy12345.eu-central-1), or the host that you log in at",
    ),
    optional(
        "host",
        ParameterKind::Text,
        None,
        "Address to use instead of the account's own: PrivateLink, or http://127.0.0.1:PORT for a stand-in",
    ),
    required("user", "User to log in as; give its role SELECT only"),
    optional(
        "private_key",
        ParameterKind::Secret,
        None,
        "RSA private key of the user (PKCS#8 PEM, not encrypted): the way for services",
    ),
    optional("access_token", ParameterKind::Secret, None, "Programmatic access token of the user, instead of a key"),
    optional("password", ParameterKind::Secret, None, "Password of the user, where its policies still allow that"),
    optional("role", ParameterKind::Text, None, "Role to read as (default: the user's)"),
    optional("warehouse", ParameterKind::Text, None, "Virtual warehouse that runs the queries (default: the user's)"),
    required("database", "Database that names without a database belong to, and whose tables are listed"),
    optional("schema", ParameterKind::Text, None, "Schema that names without a schema belong to"),
    optional(
        "query_tag",
        ParameterKind::Text,
        Some("cloud-connect"),
        "QUERY_TAG of every query, to find them and their cost in QUERY_HISTORY",
    ),
    optional(
        "statement_timeout",
        ParameterKind::Duration,
        Some("30m"),
        "The warehouse stops a query after this long (whole seconds, waiting in its queue included); 0s for no limit",
    ),
    optional(
        "connect_timeout",
        ParameterKind::Duration,
        Some("10s"),
        "Longest time from a name's resolution to the end of the TLS handshake",
    ),
    optional(
        "idle_timeout",
        ParameterKind::Duration,
        Some("2m"),
        "Longest silence of the service; it answers long queries every 45 seconds",
    ),
];

/// How the user proves who it is.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    /// A password, or a programmatic access token, which takes its place.
    Password(SecretString),
    /// A PKCS#8 PEM.
    PrivateKey(SecretString),
}

/// One connection's settings.
#[derive(Debug, Clone)]
pub(super) struct SnowflakeConfig {
    pub account: Account,
    pub user: String,
    pub credential: Credential,
    pub role: Option<String>,
    pub warehouse: Option<String>,
    pub database: String,
    pub schema: Option<String>,
    pub query_tag: String,
    /// Zero: no limit.
    pub statement_timeout: Duration,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
}

impl SnowflakeConfig {
    /// Reads the parameters; the ones left out take the defaults that [`PARAMETERS`] declares.
    pub(super) fn from_params(params: &ConnectionParams) -> Result<Self, WarehouseError> {
        let read = Reading { params, declared: PARAMETERS };
        let maybe = |name: &str| read.optional(name).map(str::to_string);

        let account = Account::new(params.text("account"), params.text("host")).map_err(|mut e| {
            e.message = format!("connection `{}`: {}", params.connection, e.message);
            e
        })?;
        let query_tag = read.text("query_tag").to_string();
        if query_tag.chars().count() > 2000 {
            return Err(read.invalid("query_tag", "at most 2000 characters long"));
        }
        Ok(Self {
            account,
            user: read.named("user")?,
            credential: credential(params)?,
            role: maybe("role"),
            warehouse: maybe("warehouse"),
            database: read.named("database")?,
            schema: maybe("schema"),
            query_tag,
            statement_timeout: read.duration("statement_timeout")?,
            connect_timeout: read.some_duration("connect_timeout")?,
            idle_timeout: read.some_duration("idle_timeout")?,
        })
    }

    /// A text of the server without our credential, should it ever repeat one.
    pub(super) fn redact(&self, text: &str) -> String {
        let (Credential::Password(secret) | Credential::PrivateKey(secret)) = &self.credential;
        let secret = secret.expose_secret();
        if secret.is_empty() { text.to_string() } else { text.replace(secret, "***") }
    }
}

fn credential(params: &ConnectionParams) -> Result<Credential, WarehouseError> {
    let given: Vec<_> = ["private_key", "access_token", "password"]
        .into_iter()
        .filter_map(|name| params.secret(name).filter(|s| !s.expose_secret().trim().is_empty()).map(|s| (name, s)))
        .collect();
    let fault = |message: &str, hint: &str| {
        WarehouseError::configuration(format!("connection `{}`: {message}", params.connection)).with_hint(hint)
    };
    let one = "give exactly one of `private_key`, `access_token` and `password`; see docs/warehouses/snowflake.md";
    match given.as_slice() {
        [("private_key", key)] => pem(key.expose_secret())
            .map(Credential::PrivateKey)
            .map_err(|(what, hint)| fault(&format!("`private_key` {what}"), hint)),
        [(_, secret)] => Ok(Credential::Password(secret.expose_secret().trim_end_matches(['\r', '\n']).into())),
        [] => Err(fault("there is no credential", one)),
        _ => Err(fault("there is more than one credential", one)),
    }
}

/// A PKCS#8 PEM, from a file, from a variable with `\n` for its line ends, or from its bare base64.
fn pem(key: &str) -> Result<SecretString, (&'static str, &'static str)> {
    let key = key.replace("\\n", "\n").replace('\r', "");
    let key = key.trim();
    if key.contains("BEGIN ENCRYPTED PRIVATE KEY") || key.contains("Proc-Type: 4,ENCRYPTED") {
        return Err((
            "is encrypted, which is not supported",
            "decrypt it (openssl pkcs8 -in rsa_key.p8 -out rsa_key_plain.p8) and keep the result in a secret store",
        ));
    }
    if key.contains("BEGIN RSA PRIVATE KEY") {
        return Err(("is in the PKCS#1 form", "convert it: openssl pkcs8 -topk8 -nocrypt -in key.pem -out rsa_key.p8"));
    }
    if key.contains("BEGIN PUBLIC KEY") {
        return Err((
            "is the public key",
            "the public key belongs to the user in Snowflake; give the private one here",
        ));
    }
    let whole =
        "give the whole file that `openssl genrsa 2048 | openssl pkcs8 -topk8 -nocrypt` wrote, from BEGIN to END";
    if key.contains("BEGIN PRIVATE KEY") {
        return if key.contains("END PRIVATE KEY") {
            Ok(format!("{key}\n").into())
        } else {
            Err(("breaks off", whole))
        };
    }
    let bare: String = key.split_whitespace().collect();
    if base64::engine::general_purpose::STANDARD.decode(&bare).is_err() {
        return Err(("is not a PEM", whole));
    }
    let lines: Vec<&str> = (0..bare.len()).step_by(64).map(|at| &bare[at..(at + 64).min(bare.len())]).collect();
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")).into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn params(values: &[(&str, &str)]) -> ConnectionParams {
        let mut params = ConnectionParams::new("shop", "/project");
        for (name, value) in [("account", "myorg-shop"), ("user", "reader"), ("database", "SHOP")] {
            params.set(name, value);
        }
        for (name, value) in values {
            params.set(*name, *value);
        }
        params
    }

    fn error(values: &[(&str, &str)]) -> WarehouseError {
        SnowflakeConfig::from_params(&params(values)).unwrap_err()
    }

    #[test]
    fn left_out_parameters_take_their_declared_defaults() {
        let config = SnowflakeConfig::from_params(&params(&[("password", "hunter2")])).unwrap();
        assert_eq!((config.query_tag.as_str(), config.statement_timeout), ("cloud-connect", Duration::from_secs(1800)));
        assert_eq!((config.connect_timeout, config.idle_timeout), (Duration::from_secs(10), Duration::from_secs(120)));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.redact("said hunter2"), "said ***");
    }

    #[test]
    fn exactly_one_credential_is_wanted() {
        assert!(error(&[]).message.contains("no credential"));
        assert!(error(&[("password", "a"), ("access_token", "b")]).message.contains("more than one"));
        assert!(error(&[("password", " ")]).hint.unwrap().contains("private_key"));
    }

    #[test]
    fn keys_that_cannot_be_read_are_told_apart() {
        let says = |key: &str, what: &str| {
            let e = error(&[("private_key", key)]);
            assert!(e.message.contains(what), "{e}");
        };
        says("-----BEGIN ENCRYPTED PRIVATE KEY-----\nabc\n-----END ENCRYPTED PRIVATE KEY-----", "encrypted");
        says("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "PKCS#1");
        says("-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----", "public key");
        says("-----BEGIN PRIVATE KEY-----\nabc", "breaks off");
        says("what?", "not a PEM");
        for key in ["-----BEGIN PRIVATE KEY-----\\nYWJj\\n-----END PRIVATE KEY-----", "YWJj"] {
            let config = SnowflakeConfig::from_params(&params(&[("private_key", key)])).unwrap();
            let Credential::PrivateKey(pem) = config.credential else { unreachable!() };
            assert_eq!(pem.expose_secret(), "-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----\n");
        }
    }

    #[test]
    fn a_faulty_parameter_is_named_with_what_it_takes() {
        for (name, value) in [
            ("statement_timeout", "ten"),
            ("connect_timeout", "0s"),
            ("idle_timeout", "0s"),
            ("user", " "),
            ("database", ""),
        ] {
            let e = error(&[("password", "a"), (name, value)]);
            assert!(e.message.contains(name) && e.hint.is_some(), "{e}");
        }
        assert!(error(&[("password", "a"), ("account", "no such")]).message.contains("connection `shop`"));
    }
}
