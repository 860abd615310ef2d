//! A connection's parameters, checked and typed. Pure: no file is read and no name is resolved here.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::warehouse::params::Reading;
use crate::warehouse::{ConnectionParams, Parameter, ParameterKind, WarehouseError};

const SSL_MODES: &[&str] = &["disable", "require", "verify-full"];

/// What a connection of `type: postgres` takes, in the order in which help shows it.
pub(in crate::warehouse) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "host",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        help: "Host name or IP address of the server, or better of a read replica",
    },
    Parameter {
        name: "port",
        kind: ParameterKind::Integer { min: 1, max: 65535 },
        required: false,
        default: Some("5432"),
        help: "TCP port of the server",
    },
    Parameter { name: "database", kind: ParameterKind::Text, required: true, default: None, help: "Database to read" },
    Parameter {
        name: "user",
        kind: ParameterKind::Text,
        required: true,
        default: None,
        help: "User (role) to log in as; give it SELECT only",
    },
    Parameter {
        name: "password",
        kind: ParameterKind::Secret,
        required: false,
        default: None,
        help: "The user's password, when the server asks for one",
    },
    SSL_MODE,
    SSL_ROOT_CERT,
    STATEMENT_TIMEOUT,
    CONNECT_TIMEOUT,
];

// declared once, for Redshift too
pub(in crate::warehouse) const SSL_MODE: Parameter = Parameter {
    name: "sslmode",
    kind: ParameterKind::Choice(SSL_MODES),
    required: false,
    default: Some("require"),
    help: "disable: no encryption; require: encrypted (and checked against ssl_root_cert when that is given); \
           verify-full: encrypted, certificate and host name checked",
};

pub(in crate::warehouse) const SSL_ROOT_CERT: Parameter = Parameter {
    name: "ssl_root_cert",
    kind: ParameterKind::File,
    required: false,
    default: None,
    help: "PEM file with the certificate authorities to trust, instead of the system's",
};

pub(in crate::warehouse) const STATEMENT_TIMEOUT: Parameter = Parameter {
    name: "statement_timeout",
    kind: ParameterKind::Duration,
    required: false,
    default: Some("30m"),
    help: "The server stops a query after this long; 0s for no limit",
};

pub(in crate::warehouse) const CONNECT_TIMEOUT: Parameter = Parameter {
    name: "connect_timeout",
    kind: ParameterKind::Duration,
    required: false,
    default: Some("10s"),
    help: "Longest time from the name's resolution to the end of the login",
};

/// How a connection is encrypted and what is checked of the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SslMode {
    /// Not encrypted.
    Disable,
    /// Encrypted. With a root certificate, the chain is checked too (not the host name).
    Require,
    /// Encrypted, chain and host name checked.
    VerifyFull,
}

/// One connection's settings.
#[derive(Debug, Clone)]
pub(crate) struct PostgresConfig {
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub password: Option<SecretString>,
    pub ssl_mode: SslMode,
    pub ssl_root_cert: Option<PathBuf>,
    /// Zero: no limit.
    pub statement_timeout: Duration,
    pub connect_timeout: Duration,
}

impl PostgresConfig {
    /// Reads the parameters; the ones left out take the defaults that [`PARAMETERS`] declares.
    pub(crate) fn from_params(params: &ConnectionParams) -> Result<Self, WarehouseError> {
        let read = Reading { params, declared: PARAMETERS };
        Ok(Self {
            host: read.named("host")?,
            port: read.port("port")?,
            database: read.named("database")?,
            user: read.named("user")?,
            password: params.secret("password"),
            ssl_mode: read.ssl_mode()?,
            ssl_root_cert: params.text("ssl_root_cert").map(|file| params.project_root.join(file)),
            statement_timeout: read.duration("statement_timeout")?,
            connect_timeout: read.some_duration("connect_timeout")?,
        })
    }

    /// `host:port`, for messages.
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The parameters of every server that speaks the protocol.
impl Reading<'_> {
    pub(in crate::warehouse) fn port(&self, name: &str) -> Result<u16, WarehouseError> {
        let port = self.text(name).parse::<u16>().ok().filter(|port| *port > 0);
        port.ok_or_else(|| self.invalid(name, "a number from 1 to 65535"))
    }

    pub(in crate::warehouse) fn ssl_mode(&self) -> Result<SslMode, WarehouseError> {
        match self.text("sslmode") {
            "disable" => Ok(SslMode::Disable),
            "require" => Ok(SslMode::Require),
            "verify-full" => Ok(SslMode::VerifyFull),
            _ => Err(self.invalid("sslmode", "one of `disable`, `require`, `verify-full`")),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn params(values: &[(&str, &str)]) -> ConnectionParams {
        let mut params = ConnectionParams::new("shop", "/project");
        for (name, value) in [("host", "db.example.com"), ("database", "shop"), ("user", "reader")] {
            params.set(name, value);
        }
        for (name, value) in values {
            params.set(*name, *value);
        }
        params
    }

    #[test]
    fn left_out_parameters_take_their_declared_defaults() {
        let config = PostgresConfig::from_params(&params(&[])).unwrap();
        assert_eq!((config.port, config.ssl_mode), (5432, SslMode::Require));
        assert_eq!(config.statement_timeout, Duration::from_secs(1800));
        assert_eq!(config.connect_timeout, Duration::from_secs(10));
    }

    #[test]
    fn a_faulty_parameter_is_named_with_what_it_takes() {
        for (name, value) in [
            ("port", "0"),
            ("port", "70000"),
            ("sslmode", "prefer"),
            ("statement_timeout", "ten"),
            ("connect_timeout", "0s"),
        ] {
            let error = PostgresConfig::from_params(&params(&[(name, value)])).unwrap_err();
            assert!(error.message.contains(name), "{error}");
            assert!(error.hint.unwrap().contains(name));
        }
        let error = PostgresConfig::from_params(&ConnectionParams::new("shop", "/")).unwrap_err();
        assert_eq!(error.message, "connection `shop` has no `host`");
    }

    #[test]
    fn debug_shows_no_password() {
        let config = PostgresConfig::from_params(&params(&[("password", "hunter2")])).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn the_root_certificate_is_found_from_the_project() {
        let config = PostgresConfig::from_params(&params(&[("ssl_root_cert", "certs/ca.pem")])).unwrap();
        assert_eq!(config.ssl_root_cert.unwrap(), PathBuf::from("/project/certs/ca.pem"));
    }
}
