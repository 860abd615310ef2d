//! Who the connection is: a personal access token as it is, or an OAuth token of a service principal, which is kept until
//! shortly before its end and renewed when the service refuses it early.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::config::{Credentials, DatabricksConfig};
use super::error::said;
use super::wire::TokenAnswer;
use crate::warehouse::WarehouseError;
use crate::warehouse::http::{self, Failure};

/// A token is not used in the last moments of its life (or last tenth, when it lives shortly).
const MARGIN: Duration = Duration::from_secs(60);
/// The documented life of a token, when the answer does not tell.
const LIFE: Duration = Duration::from_secs(3600);
/// No answer is believed beyond it.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);

pub(super) struct Auth {
    credentials: Credentials,
    token_url: Url,
    http: Client,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    token: SecretString,
    until: Instant,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Auth {
    pub(super) fn new(config: &DatabricksConfig, http: Client) -> Self {
        let mut token_url = config.url.clone();
        token_url.set_path("/oidc/v1/token");
        Self { credentials: config.credentials.clone(), token_url, http, kept: Mutex::new(None) }
    }

    /// Can a refused token be replaced?
    pub(super) fn renews(&self) -> bool {
        matches!(self.credentials, Credentials::Machine { .. })
    }

    /// How it logs in, for people.
    pub(super) fn describe(&self) -> &'static str {
        match self.credentials {
            Credentials::AccessToken(_) => "a personal access token",
            Credentials::Machine { .. } => "OAuth of a service principal",
        }
    }

    /// A token that is good as far as is known here; not `refused`, which the service did not accept.
    pub(super) async fn token(&self, refused: Option<&SecretString>) -> Result<SecretString, WarehouseError> {
        let (client_id, client_secret) = match &self.credentials {
            Credentials::AccessToken(token) => return Ok(token.clone()),
            Credentials::Machine { client_id, client_secret } => (client_id, client_secret),
        };
        // whoever comes while a token is being fetched waits for it
        let mut kept = self.kept.lock().await;
        if let Some(Kept { token, until }) = &*kept
            && Instant::now() < *until
            && refused.is_none_or(|refused| refused.expose_secret() != token.expose_secret())
        {
            return Ok(token.clone());
        }
        *kept = None;
        let asked = Instant::now();
        let answer = self.log_in(client_id, client_secret).await?;
        let life = answer.expires_in.map_or(LIFE, Duration::from_secs).min(LONGEST_LIFE);
        let token = SecretString::from(answer.access_token);
        *kept = Some(Kept { token: token.clone(), until: asked + life - MARGIN.min(life / 10) });
        Ok(token)
    }

    async fn log_in(&self, client_id: &str, client_secret: &SecretString) -> Result<TokenAnswer, WarehouseError> {
        const WHAT: &str = "the login";
        let request = self
            .http
            .post(self.token_url.clone())
            .basic_auth(client_id, Some(client_secret.expose_secret()))
            .form(&[("grant_type", "client_credentials"), ("scope", "all-apis")]);
        let response = match http::send(request, WHAT).await {
            Ok(response) => response,
            Err(Failure::Transport(e)) => return Err(e),
            Err(Failure::Refused(refusal)) => {
                let said = self.redact(&said(&refusal.body)).await;
                let bad = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
                if bad.contains(&refusal.status) {
                    let message = format!("{REFUSED}: {said}");
                    return Err(WarehouseError::configuration(message).with_hint(LOGIN_HINT));
                }
                return Err(refusal.into_error(WHAT, &said));
            }
        };
        let body = http::body(response, WHAT).await?;
        // the parser's own words may quote the body
        serde_json::from_slice(&body).map_err(|_| WarehouseError::bug("the login was answered without a token"))
    }

    /// The text without the credentials, should a server repeat them.
    pub(super) async fn redact(&self, text: &str) -> String {
        let mut text = text.to_string();
        let mut hide = |secret: &SecretString| {
            if !secret.expose_secret().is_empty() {
                text = text.replace(secret.expose_secret(), "[secret]");
            }
        };
        match &self.credentials {
            Credentials::AccessToken(token) => hide(token),
            Credentials::Machine { client_secret, .. } => hide(client_secret),
        }
        // not waited for: a login under way holds it, and has no token yet
        if let Ok(kept) = self.kept.try_lock()
            && let Some(kept) = &*kept
        {
            hide(&kept.token);
        }
        text
    }

    /// The service does not accept the token, nor a new one.
    pub(super) fn refused(&self, said: &str) -> WarehouseError {
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        match self.credentials {
            Credentials::AccessToken(_) => WarehouseError::configuration(format!(
                "the login was refused: the access token is not accepted{said}"
            ))
            .with_hint(
                "it may have ended or been revoked, or belong to another workspace: make a new one and check `host`",
            ),
            Credentials::Machine { .. } => {
                WarehouseError::configuration(format!("{REFUSED}: the OAuth token is not accepted{said}"))
                    .with_hint(LOGIN_HINT)
            }
        }
    }
}

/// How errors begin that tell of a refused login.
pub(super) const REFUSED: &str = "the login was refused";

const LOGIN_HINT: &str = "check `client_id` (the service principal's application ID) and `client_secret`, and that the \
                          service principal was added to this workspace";
