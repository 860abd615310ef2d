//! What a login sends.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::config::{Credential, SnowflakeConfig};
use crate::warehouse::WarehouseError;

/// The service answers in Arrow only to drivers that it knows, by this name. A driver of another's making therefore
/// names the one whose requests it makes (the crate `snowflake-api` does the same); who we are stands in `APPLICATION`,
/// which the account's administrators see in LOGIN_HISTORY and SESSIONS.
const CLIENT: (&str, &str) = ("Go", "1.14.0");

/// The parameters of a session's login that stand in its URL.
pub(super) fn places(config: &SnowflakeConfig) -> Vec<(&'static str, &str)> {
    let places = [
        ("databaseName", Some(config.database.as_str())),
        ("schemaName", config.schema.as_deref()),
        ("warehouse", config.warehouse.as_deref()),
        ("roleName", config.role.as_deref()),
    ];
    places.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The login's body. `timeout` is in seconds.
pub(super) async fn body(config: &SnowflakeConfig, timeout: Option<u64>) -> Result<Value, WarehouseError> {
    let mut session = json!({
        "QUERY_TAG": config.query_tag,
        // what has no zone is taken as UTC; a result does not depend on the user's settings
        "TIMEZONE": "UTC",
        "GO_QUERY_RESULT_FORMAT": "ARROW",
        // MB: the smallest that is accepted
        "CLIENT_RESULT_CHUNK_SIZE": 48,
        // a query whose client has vanished does not go on using credits
        "ABORT_DETACHED_QUERY": true,
        "MULTI_STATEMENT_COUNT": 1,
        // a database, schema, warehouse or role that is not there fails the login instead of a later query
        "CLIENT_VALIDATE_DEFAULT_PARAMETERS": true,
    });
    if let Some(seconds) = timeout {
        session["STATEMENT_TIMEOUT_IN_SECONDS"] = json!(seconds);
    }
    let mut data = json!({
        "CLIENT_APP_ID": CLIENT.0,
        "CLIENT_APP_VERSION": CLIENT.1,
        "SVN_REVISION": "",
        "ACCOUNT_NAME": config.account.name,
        "LOGIN_NAME": config.user,
        "SESSION_PARAMETERS": session,
        "CLIENT_ENVIRONMENT": {
            "APPLICATION": "cloud_connect",
            "OS": std::env::consts::OS,
            "OS_VERSION": std::env::consts::ARCH,
        },
    });
    match &config.credential {
        Credential::Password(secret) => data["PASSWORD"] = json!(secret.expose_secret()),
        Credential::PrivateKey(pem) => {
            data["AUTHENTICATOR"] = json!("SNOWFLAKE_JWT");
            data["TOKEN"] = json!(token(config, pem.clone()).await?.expose_secret());
        }
    }
    Ok(json!({ "data": data }))
}

/// The token that a private key signs. The crate gives it a day; Snowflake takes a token "for at most one hour after
/// [it] is issued, even if you specify a longer expiration time" (Authenticating to the SQL API), so it is accepted; and
/// each login makes a new one.
async fn token(config: &SnowflakeConfig, pem: SecretString) -> Result<SecretString, WarehouseError> {
    let subject = format!("{}.{}", config.account.issuer(), config.user.to_uppercase());
    // a signature takes milliseconds
    let made = tokio::task::spawn_blocking(move || snowflake_jwt::generate_jwt_token(pem.expose_secret(), &subject));
    match made.await {
        Ok(Ok(token)) => Ok(token.into()),
        // which may describe the key's structure, never its numbers; but nothing is gained by it
        Ok(Err(_)) => Err(WarehouseError::configuration("`private_key` is not an RSA key in the PKCS#8 form")
            .with_hint("make one: openssl genrsa 2048 | openssl pkcs8 -topk8 -nocrypt -out rsa_key.p8")),
        Err(_) => Err(WarehouseError::bug("the login's token could not be made")),
    }
}
