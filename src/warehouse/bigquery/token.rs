//! Access tokens: asked for once, kept until shortly before their end, asked for anew after the service refused one.
//!
//! `gcp-bigquery-client` brings yup-oauth2 for this. It is not used: its authenticators go round `HTTPS_PROXY` and our
//! time limits, cannot be told that a token was refused in mid-run, and its errors carry the request. What the crate
//! needs is an [`Authenticator`], which [`CurrentToken`] is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use gcp_bigquery_client::auth::Authenticator;
use gcp_bigquery_client::error::BQError;
use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::config::BigQueryConfig;
use super::credentials::{Credentials, SCOPE, assertion};
use crate::warehouse::http::{self, Failure};
use crate::warehouse::{WarehouseError, WarehouseErrorKind};

/// A token is renewed so long before its end.
const MARGIN: Duration = Duration::from_secs(120);
/// Elsewhere than on Google's machines nobody answers under the metadata server's name.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

struct Held {
    token: SecretString,
    until: Instant,
}

#[derive(Default)]
struct State {
    credentials: Option<Credentials>,
    held: Option<Held>,
}

/// The connection's tokens.
pub(super) struct Tokens {
    config: Arc<BigQueryConfig>,
    http: Client,
    /// Held while a token is asked for, so that many requests at once ask once.
    state: Mutex<State>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Denied {
    error: String,
    error_description: String,
}

impl Tokens {
    pub(super) fn new(config: Arc<BigQueryConfig>, http: Client) -> Self {
        Self { config, http, state: Mutex::new(State::default()) }
    }

    /// A token that is good for a while.
    pub(super) async fn token(&self) -> Result<SecretString, WarehouseError> {
        let mut state = self.state.lock().await;
        if let Some(held) = state.held.as_ref().filter(|held| held.until > Instant::now()) {
            return Ok(held.token.clone());
        }
        let credentials = match &state.credentials {
            Some(found) => found.clone(),
            None => state.credentials.insert(Credentials::find(&self.config)?).clone(),
        };
        let Granted { access_token, expires_in } = self.ask(&credentials).await?;
        // no answer is believed beyond a day
        let lifetime = Duration::from_secs(expires_in.min(86_400));
        // a short-lived token is used for half its life
        let until = Instant::now() + lifetime.saturating_sub(MARGIN).max(lifetime / 2);
        state.held = Some(Held { token: access_token.clone(), until });
        Ok(access_token)
    }

    /// The service refused this token: the next one is asked for anew.
    pub(super) async fn refused(&self, token: &SecretString) {
        let mut state = self.state.lock().await;
        if state.held.as_ref().is_some_and(|held| held.token.expose_secret() == token.expose_secret()) {
            state.held = None;
        }
    }

    /// What the connection logs in with, once a token was asked for.
    pub(super) async fn credentials(&self) -> Option<Credentials> {
        self.state.lock().await.credentials.clone()
    }

    async fn ask(&self, credentials: &Credentials) -> Result<Granted, WarehouseError> {
        let what = "the login";
        let request: RequestBuilder = match credentials {
            Credentials::ServiceAccount { email, key_id, private_key, token_uri } => {
                let assertion = assertion(email, key_id.as_deref(), private_key, token_uri, seconds_since_1970())?;
                self.http.post(token_uri.clone()).form(&[
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                    ("assertion", assertion.expose_secret()),
                ])
            }
            Credentials::User { client_id, client_secret, refresh_token, token_uri } => {
                self.http.post(token_uri.clone()).form(&[
                    ("grant_type", "refresh_token"),
                    ("client_id", client_id),
                    ("client_secret", client_secret.expose_secret()),
                    ("refresh_token", refresh_token.expose_secret()),
                ])
            }
            Credentials::Metadata { host } => {
                let request = self
                    .http
                    .get(format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token"))
                    .query(&[("scopes", SCOPE)])
                    .header("Metadata-Flavor", "Google")
                    .timeout(METADATA_TIMEOUT);
                let failed = |why: String| {
                    WarehouseError::configuration(format!(
                        "no credentials were found: {} ({why})",
                        Credentials::looked_for()
                    ))
                    .with_hint(
                        "give the connection a `service_account_key`, or run `gcloud auth application-default login`",
                    )
                };
                return match http::send_once(request, what).await {
                    Ok(response) => granted(response).await,
                    Err(Failure::Refused(refusal)) if !http::is_passing(refusal.status) => {
                        Err(failed(format!("it answered {}", refusal.status)))
                    }
                    Err(Failure::Refused(refusal)) => Err(refusal.into_error("the metadata server's token", "")),
                    Err(Failure::Transport(e)) => Err(failed(e.message)),
                };
            }
            Credentials::StandIn => return Ok(Granted { access_token: "stand-in".into(), expires_in: 3600 }),
        };
        match http::send(request, what).await {
            Ok(response) => granted(response).await,
            Err(Failure::Transport(e)) => Err(e),
            Err(Failure::Refused(refusal)) if http::is_passing(refusal.status) => Err(refusal.into_error(what, "")),
            Err(Failure::Refused(refusal)) => {
                let Denied { error, error_description } = serde_json::from_str(&refusal.body).unwrap_or_default();
                let hint = match error.as_str() {
                    "invalid_grant" => {
                        "the key was deleted or the consent withdrawn, or this machine's clock is wrong; make a new key, or \
                         a new refresh token"
                    }
                    "invalid_client" | "unauthorized_client" => {
                        "check `oauth_client_id` and `oauth_client_secret`, and that the refresh token was given to that client"
                    }
                    _ => "check the connection's credentials",
                };
                let said: Vec<_> = [error, error_description].into_iter().filter(|text| !text.is_empty()).collect();
                let mut failed = refusal.into_error(what, &said.join(": "));
                if !failed.is_retryable() {
                    failed.kind = WarehouseErrorKind::Configuration;
                    failed.hint = Some(hint.to_string());
                }
                Err(failed)
            }
        }
    }
}

async fn granted(response: reqwest::Response) -> Result<Granted, WarehouseError> {
    let body = http::body(response, "the login").await?;
    // not the parser's own words: they may quote the token
    serde_json::from_slice(&body).map_err(|_| WarehouseError::bug("the login was answered without a token"))
}

fn seconds_since_1970() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the token server compares it with its own wall clock")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The tokens as `gcp-bigquery-client` takes them.
#[derive(Clone)]
pub(super) struct CurrentToken(pub Arc<Tokens>);

#[async_trait]
impl Authenticator for CurrentToken {
    async fn access_token(&self) -> Result<String, BQError> {
        // why there is none is told by whoever asks `Tokens` first: see `Api::call`
        self.0.token().await.map(|token| token.expose_secret().to_string()).map_err(|_| BQError::NoToken)
    }
}
