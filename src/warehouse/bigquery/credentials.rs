//! What a token is asked for with: a service account's key, a person's consent, or what the environment provides.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::config::{Authorization, BigQueryConfig};
use crate::warehouse::WarehouseError;
use crate::warehouse::http::is_loopback;

/// Enough to run queries and to read their results, not more.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/bigquery";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const KEY_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
const METADATA_HOST: &str = "GCE_METADATA_HOST";
/// How long a signed request for a token is good for: the most that Google accepts.
const ASSERTION_SECONDS: u64 = 3600;

/// A way to a token. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub(super) enum Credentials {
    ServiceAccount {
        email: String,
        key_id: Option<String>,
        private_key: SecretString,
        token_uri: Url,
    },
    User {
        client_id: String,
        client_secret: SecretString,
        refresh_token: SecretString,
        token_uri: Url,
    },
    /// The service account that the machine runs as.
    Metadata {
        host: String,
    },
    /// A stand-in on this machine, which asks for none.
    StandIn,
}

/// The files that Google's tools write, of either type.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "type")]
    kind: String,
    client_email: Option<String>,
    private_key: Option<SecretString>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    refresh_token: Option<SecretString>,
}

impl Credentials {
    /// Finds what the configuration names. Reads files for the application default credentials; asks nobody.
    pub(super) fn find(config: &BigQueryConfig) -> Result<Self, WarehouseError> {
        match &config.authorization {
            Authorization::ServiceAccountKey(key) => match Self::of_file(key, config, "`service_account_key`")? {
                found @ Self::ServiceAccount { .. } => Ok(found),
                _ => Err(WarehouseError::configuration("`service_account_key` is not the key of a service account")
                    .with_hint("it is the JSON that `gcloud iam service-accounts keys create` writes")),
            },
            Authorization::User { client_id, client_secret, refresh_token } => Ok(Self::User {
                client_id: client_id.clone(),
                client_secret: client_secret.clone(),
                refresh_token: refresh_token.clone(),
                token_uri: user_token_uri(config)?,
            }),
            Authorization::ApplicationDefault => Self::application_default(config),
        }
    }

    /// In the order of Google's own libraries: the file that the environment names, gcloud's, the metadata server.
    fn application_default(config: &BigQueryConfig) -> Result<Self, WarehouseError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(file) = variable(KEY_FILE) {
            let name = format!("the file that {KEY_FILE} names");
            let text = std::fs::read_to_string(&file).map_err(|e| {
                WarehouseError::configuration(format!("{name} cannot be read: {file}: {e}"))
                    .with_hint("correct the variable, or give the connection a `service_account_key`")
            })?;
            return Self::of_file(&SecretString::from(text), config, &name);
        }
        let host = variable(METADATA_HOST);
        if config.is_stand_in() && host.is_none() {
            return Ok(Self::StandIn);
        }
        if let Some(file) = well_known_file()
            && host.is_none()
            && file.exists()
        {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(&file).map_err(|e| {
                WarehouseError::configuration(format!("{name} cannot be read: {e}"))
                    .with_hint("correct its rights, or give the connection a `service_account_key`")
            })?;
            return Self::of_file(&SecretString::from(text), config, &name);
        }
        Ok(Self::Metadata { host: host.unwrap_or_else(|| "metadata.google.internal".into()) })
    }

    /// Where application default credentials were looked for in vain, for people.
    pub(super) fn looked_for() -> String {
        let file = well_known_file().map_or("gcloud's file".into(), |f: PathBuf| f.display().to_string());
        format!("{KEY_FILE} is not set, {file} does not exist, and the metadata server gave none")
    }

    fn of_file(text: &SecretString, config: &BigQueryConfig, name: &str) -> Result<Self, WarehouseError> {
        let file: File = serde_json::from_str(text.expose_secret()).map_err(|e| {
            // not the parser's own words: they may quote the key
            WarehouseError::configuration(format!(
                "{name} is not a key file: line {}, column {} is not as expected",
                e.line(),
                e.column()
            ))
            .with_hint("it is the JSON that `gcloud iam service-accounts keys create` writes, whole")
        })?;
        let lacks = |what: &str| {
            WarehouseError::configuration(format!("{name} has no `{what}`"))
                .with_hint("it is the JSON that `gcloud` writes, whole")
        };
        match file.kind.as_str() {
            "service_account" => Ok(Self::ServiceAccount {
                email: file.client_email.ok_or_else(|| lacks("client_email"))?,
                key_id: file.private_key_id,
                private_key: file.private_key.ok_or_else(|| lacks("private_key"))?,
                token_uri: checked_token_uri(file.token_uri.as_deref().unwrap_or(TOKEN_URI))?,
            }),
            "authorized_user" => Ok(Self::User {
                client_id: file.client_id.ok_or_else(|| lacks("client_id"))?,
                client_secret: file.client_secret.ok_or_else(|| lacks("client_secret"))?,
                refresh_token: file.refresh_token.ok_or_else(|| lacks("refresh_token"))?,
                token_uri: user_token_uri(config)?,
            }),
            kind => Err(WarehouseError::configuration(format!("{name} is of type `{kind}`, which is not supported"))
                .with_hint("use the key of a service account, or `gcloud auth application-default login`")),
        }
    }

    /// As grants name it: `serviceAccount:…`, where it is known.
    pub(super) fn member(&self) -> Option<String> {
        match self {
            Self::ServiceAccount { email, .. } => Some(format!("serviceAccount:{email}")),
            _ => None,
        }
    }

    /// What it is, for people.
    pub(super) fn title(&self) -> String {
        match self {
            Self::ServiceAccount { email, .. } => email.clone(),
            Self::User { .. } => "a person's refresh token".into(),
            Self::Metadata { .. } => "the machine's service account".into(),
            Self::StandIn => "no credentials: a stand-in on this machine".into(),
        }
    }
}

fn well_known_file() -> Option<PathBuf> {
    let directory = match std::env::var_os("CLOUDSDK_CONFIG") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(&std::env::var_os("HOME")?).join(".config/gcloud"),
    };
    Some(directory.join("application_default_credentials.json"))
}

/// A person's token comes from Google; a stand-in gives its own, so that no real one is asked for by a test.
fn user_token_uri(config: &BigQueryConfig) -> Result<Url, WarehouseError> {
    match config.is_stand_in() {
        true => config.endpoint.join("/token").map_err(|e| WarehouseError::bug(e.to_string())),
        false => checked_token_uri(TOKEN_URI),
    }
}

fn checked_token_uri(text: &str) -> Result<Url, WarehouseError> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "https" || url.scheme() == "http" && is_loopback(url));
    url.ok_or_else(|| {
        WarehouseError::configuration("the key's `token_uri` is not an https address")
            .with_hint("download the key anew: gcloud iam service-accounts keys create")
    })
}

/// A signed request for a token: a JSON Web Token, RS256 (RFC 7523).
pub(super) fn assertion(
    email: &str,
    key_id: Option<&str>,
    private_key: &SecretString,
    token_uri: &Url,
    now: u64,
) -> Result<SecretString, WarehouseError> {
    let unusable = |why: &str| {
        WarehouseError::configuration(format!("the private key of `service_account_key` cannot be used: {why}"))
            .with_hint("download the key anew: gcloud iam service-accounts keys create")
    };
    // keys that went through an environment variable often have their line breaks as two characters
    let pem = private_key.expose_secret().replace("\\n", "\n");
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable("it is not PEM"))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| unusable("it is not an RSA key"))?;
    let signer =
        key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).ok_or_else(|| unusable("it is not an RSA key"))?;

    let mut header = serde_json::json!({ "alg": "RS256", "typ": "JWT" });
    if let Some(key_id) = key_id {
        header["kid"] = key_id.into();
    }
    let claims = serde_json::json!({
        "iss": email, "scope": SCOPE, "aud": token_uri.as_str(), "iat": now, "exp": now + ASSERTION_SECONDS,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = signer.sign(signed.as_bytes()).map_err(|_| unusable("it does not sign"))?;
    Ok(SecretString::from(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::warehouse::ConnectionParams;

    fn find(key: &str) -> Result<Credentials, WarehouseError> {
        let mut params = ConnectionParams::new("shop", "/");
        params.set("project", "p");
        params.set("service_account_key", key);
        Credentials::find(&BigQueryConfig::from_params(&params).unwrap())
    }

    #[test]
    fn a_key_file_is_read_and_not_shown() {
        let key = r#"{"type":"service_account","client_email":"a@p.iam.gserviceaccount.com","private_key":"hunter2","extra":1}"#;
        let found = find(key).unwrap();
        assert_eq!(found.member().unwrap(), "serviceAccount:a@p.iam.gserviceaccount.com");
        assert!(!format!("{found:?}").contains("hunter2"));
        let Credentials::ServiceAccount { email, private_key, token_uri, .. } = found else { panic!("{found:?}") };
        let error = assertion(&email, None, &private_key, &token_uri, 0).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2") && error.message.contains("PEM"), "{error}");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for (key, says) in [
            ("hunter2", "not a key file"),
            (r#"{"type":"service_account","private_key":"hunter2"}"#, "has no `client_email`"),
            (r#"{"type":"external_account","secret":"hunter2"}"#, "external_account"),
            (
                r#"{"type":"authorized_user","client_id":"i","client_secret":"hunter2","refresh_token":"r"}"#,
                "not the key of",
            ),
            (
                r#"{"type":"service_account","client_email":"a","private_key":"hunter2","token_uri":"http://evil.example"}"#,
                "token_uri",
            ),
        ] {
            let error = find(key).unwrap_err();
            assert!(error.message.contains(says) && !format!("{error:?}").contains("hunter2"), "{error}");
        }
    }
}
