//! What the provider says of itself: its endpoints and its keys. Both are kept for a while.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::jwk::Jwk;
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::{OidcError, Provider};
use crate::warehouse::http::is_loopback;

/// How long endpoints and keys are kept.
const KEPT_FOR: TimeDelta = TimeDelta::hours(1);
/// A token that names an unknown key has them read anew, but no more often than this: whoever sends tokens with made-up
/// keys must not make us ask the provider each time.
const KEYS_AT_MOST_EVERY: TimeDelta = TimeDelta::seconds(10);
/// Of an answer, no more is read.
const LARGEST_ANSWER: usize = 1 << 20;

/// The provider's endpoints.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    issuer: String,
    pub authorization_endpoint: Url,
    pub token_endpoint: Url,
    jwks_uri: Url,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Metadata {
    /// How the client's secret is sent: `client_secret_basic`, unless the provider does not take that.
    pub fn takes_basic(&self) -> bool {
        let methods = self.token_endpoint_auth_methods_supported.as_deref();
        methods.is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"))
    }
}

/// What was read, and when.
#[derive(Debug, Default)]
pub struct Kept {
    metadata: Mutex<Option<Dated<Arc<Metadata>>>>,
    keys: Mutex<Option<Dated<Arc<Vec<Jwk>>>>>,
}

type Dated<T> = (DateTime<Utc>, T);

/// Secrets and identities travel there: over TLS, or within this machine.
pub fn check_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "its address is not a URL".to_string())?;
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
        return Err("its address does not begin with https://".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("its address holds credentials".into());
    }
    Ok(url)
}

/// A successful answer's JSON.
pub async fn json<T: DeserializeOwned>(request: RequestBuilder, what: &str) -> Result<T, OidcError> {
    let failed = |why: &dyn std::fmt::Display| OidcError::Provider(format!("{what}: {why}"));
    let mut response = request.send().await.map_err(|e| failed(&e.without_url()))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| failed(&e.without_url()))? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(failed(&"the answer is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        // `invalid_client`, `invalid_grant` …: what an admin needs to know
        let said = serde_json::from_slice::<Value>(&body).ok();
        let code = said.as_ref().and_then(|said| said["error"].as_str()).unwrap_or("no reason given");
        return Err(failed(&format!("it answered {status}: {}", code.chars().take(60).collect::<String>())));
    }
    // the error's text may quote the answer, which may be a token
    serde_json::from_slice(&body)
        .map_err(|e| failed(&format!("its answer is not as expected, at column {}", e.column())))
}

impl Provider {
    /// The endpoints.
    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, OidcError> {
        let now = self.clock.now();
        let mut kept = self.metadata.metadata.lock().await;
        if let Some((at, metadata)) = &*kept
            && now < *at + KEPT_FOR
        {
            return Ok(Arc::clone(metadata));
        }
        let issuer = self.config.issuer.trim_end_matches('/');
        let request = self.client.get(format!("{issuer}/.well-known/openid-configuration"));
        let metadata: Metadata = json(request, "its description").await?;
        if metadata.issuer != self.config.issuer {
            return Err(OidcError::Provider("its description is of another issuer than `issuer` says".into()));
        }
        for url in [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri] {
            check_url(url.as_str()).map_err(OidcError::Provider)?;
        }
        let metadata = Arc::new(metadata);
        *kept = Some((now, Arc::clone(&metadata)));
        Ok(metadata)
    }

    /// The keys; read anew when none has that id.
    pub(super) async fn keys(&self, metadata: &Metadata, kid: Option<&str>) -> Result<Arc<Vec<Jwk>>, OidcError> {
        let now = self.clock.now();
        let mut kept = self.metadata.keys.lock().await;
        if let Some((at, keys)) = &*kept {
            let known = kid.is_none_or(|kid| keys.iter().any(|key| key.common.key_id.as_deref() == Some(kid)));
            let fresh = now < *at + if known { KEPT_FOR } else { KEYS_AT_MOST_EVERY };
            if fresh {
                return Ok(Arc::clone(keys));
            }
        }
        #[derive(Deserialize)]
        struct Keys {
            keys: Vec<Value>,
        }
        let read: Keys = json(self.client.get(metadata.jwks_uri.clone()), "its keys").await?;
        // one of a kind that is not known here must not hide the others
        let keys: Vec<Jwk> = read.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect();
        let keys = Arc::new(keys);
        *kept = Some((now, Arc::clone(&keys)));
        Ok(keys)
    }
}
