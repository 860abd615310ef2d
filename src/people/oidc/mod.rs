//! Signing in at an identity provider: OpenID Connect's authorization-code flow with PKCE.
//!
//! ```text
//! browser ─► /oidc/start ─► provider (who are you?) ─► /oidc/callback?code&state
//!              │ state, nonce, PKCE verifier kept here       │ code + verifier ─► provider's token endpoint
//!              └ a cookie binds them to this browser         └ ID token ─► id_token (signature, claims) ─► account
//! ```
//!
//! Invariants: an answer counts once, in the browser that asked and within [`PATIENCE`]; what an ID token says counts
//! only after its signature, issuer, audience, times and nonce were checked ([`id_token`]); whom the provider does not
//! vouch an e-mail address for does not get in.

mod account;
mod id_token;
mod metadata;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::Digest as _;
use url::Url;

use super::secret::{self, Digest};
use super::{PeopleError, Role};
use crate::catalog::CatalogError;
use crate::clock::Clock;
use crate::config::Project;
use crate::secrets::{self, ResolveError};
use crate::warehouse::http::{self, Timeouts};
use id_token::Claims;
use metadata::Metadata;

/// How long somebody may take at the provider.
pub const PATIENCE: TimeDelta = TimeDelta::minutes(10);
/// Sign-ins under way; `/oidc/start` is open to all, so their memory has a bound.
const MOST_PENDING: usize = 10_000;
const SCOPES: &str = "openid email profile";

/// The provider, and who may come from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// As the provider writes it, with or without a `/` at the end.
    pub issuer: String,
    pub client_id: String,
    /// As written: may hold references (`${env:NAME}`). None: a public client, which PKCE alone protects.
    pub client_secret: Option<WrittenSecret>,
    /// Which of the ID token's claims names roles or groups; a `.` goes into an object.
    pub roles_claim: Option<String>,
    /// What its values mean here.
    pub roles: BTreeMap<String, Role>,
    /// For whom the claim says nothing. None: they do not get in.
    pub default_role: Option<Role>,
    /// E-mail domains that may come in; empty: all.
    pub allowed_domains: Vec<String>,
}

/// A secret as it was written, which may be in the clear.
#[derive(Clone, PartialEq, Eq)]
pub struct WrittenSecret(pub String);

impl std::fmt::Debug for WrittenSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrittenSecret(…)")
    }
}

/// Can it be an issuer? If not, why.
pub fn check_issuer(issuer: &str) -> Result<(), String> {
    metadata::check_url(issuer).map(drop)
}

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("there is no identity provider")]
    NotConfigured,
    #[error("`client_secret` under `oidc`: {0}")]
    ClientSecret(ResolveError),
    /// Not this browser's, used, too late, or made up.
    #[error("this sign-in was not begun here, or it took too long")]
    Stale,
    /// What the provider said, as one of its codes.
    #[error("the identity provider refused: {0}")]
    Denied(String),
    /// The provider says who it is, and that is not enough.
    #[error("{0}")]
    Refused(String),
    /// The ID token does not hold. The reason is for the log.
    #[error("the identity provider's answer cannot be trusted: {0}")]
    Untrusted(String),
    /// No, or no usable, answer.
    #[error("the identity provider cannot be asked: {0}")]
    Provider(String),
    #[error("{0}")]
    People(#[from] PeopleError),
}

impl From<CatalogError> for OidcError {
    fn from(e: CatalogError) -> Self {
        Self::People(e.into())
    }
}

/// A sign-in that begins.
#[derive(Debug)]
pub struct Start {
    /// Where the browser goes.
    pub url: Url,
    /// For a cookie: the browser that brings it back is the one that began.
    pub binding: SecretString,
}

struct Pending {
    binding: Digest,
    nonce: String,
    verifier: SecretString,
    redirect_uri: String,
    next: String,
    until: DateTime<Utc>,
}

/// What the provider's redirect brings.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Callback {
    state: String,
    code: Option<String>,
    /// The issuer, against mixing providers up (RFC 9207).
    iss: Option<String>,
    error: Option<String>,
}

/// The configured provider.
pub struct Provider {
    config: OidcConfig,
    client_secret: Option<SecretString>,
    client: Client,
    clock: Arc<dyn Clock>,
    /// By the digest of the state.
    pending: Mutex<HashMap<[u8; 32], Pending>>,
    metadata: metadata::Kept,
}

impl Provider {
    /// The project's provider, when it has one. Asks no network.
    pub fn of(project: &Project, clock: Arc<dyn Clock>) -> Result<Option<Self>, OidcError> {
        let Some(config) = project.service.oidc.clone() else { return Ok(None) };
        let resolve = |written: &WrittenSecret| {
            secrets::resolve(&written.0, &project.root, &secrets::process_environment, &project.vault)
        };
        let secret = config.client_secret.as_ref().map(resolve).transpose().map_err(OidcError::ClientSecret)?;
        Self::new(config, secret.map(SecretString::from), clock).map(Some)
    }

    /// `client_secret`: with its references resolved.
    pub fn new(
        config: OidcConfig,
        client_secret: Option<SecretString>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OidcError> {
        check_issuer(&config.issuer).map_err(OidcError::Provider)?;
        let timeouts = Timeouts { connect: Duration::from_secs(5), idle: Duration::from_secs(10) };
        let client = http::client(timeouts).map_err(|e| OidcError::Provider(e.to_string()))?;
        Ok(Self {
            config,
            client_secret,
            client,
            clock,
            pending: Mutex::default(),
            metadata: metadata::Kept::default(),
        })
    }

    /// Begins a sign-in that ends at `redirect_uri` and then goes on to `next`.
    pub async fn start(&self, redirect_uri: String, next: &str) -> Result<Start, OidcError> {
        let metadata = self.metadata().await?;
        let text = || secret::random_text().map_err(PeopleError::from);
        let (state, nonce, verifier, binding) = (text()?, text()?, text()?, text()?);
        let challenge = URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(verifier.as_bytes()));
        let mut url = metadata.authorization_endpoint.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("scope", SCOPES)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        let now = self.clock.now();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() >= MOST_PENDING {
            pending.retain(|_, pending| now < pending.until);
        }
        if pending.len() >= MOST_PENDING {
            // whoever floods this shuts out who began long ago, not who begins now
            let oldest = pending.iter().min_by_key(|(_, pending)| pending.until).map(|(state, _)| *state);
            oldest.map(|state| pending.remove(&state));
        }
        pending.insert(
            *Digest::of(&state).bytes(),
            Pending {
                binding: Digest::of(&binding),
                nonce,
                verifier: verifier.into(),
                redirect_uri,
                next: next.into(),
                until: now + PATIENCE,
            },
        );
        Ok(Start { url, binding: binding.into() })
    }

    /// Ends a sign-in: who it is, and where to go on to. `binding`: the browser's cookie.
    async fn finish(&self, callback: Callback, binding: Option<&str>) -> Result<(Claims, String), OidcError> {
        let now = self.clock.now();
        let state = *Digest::of(&callback.state).bytes();
        // taken out before anything is checked: an answer counts once
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&state);
        let pending = pending.filter(|pending| now < pending.until).ok_or(OidcError::Stale)?;
        if binding.is_none_or(|binding| Digest::of(binding) != pending.binding) {
            return Err(OidcError::Stale);
        }
        if callback.iss.is_some_and(|iss| iss != self.config.issuer) {
            return Err(OidcError::Untrusted("the answer names another issuer".into()));
        }
        if let Some(error) = callback.error {
            // shown to people: a code, and not a text that somebody composed
            let code: String = error.chars().filter(|c| c.is_ascii_lowercase() || *c == '_').take(40).collect();
            return Err(OidcError::Denied(code));
        }
        let code = callback.code.ok_or(OidcError::Stale)?;
        let metadata = self.metadata().await?;
        let id_token = self.redeem(&metadata, &code, &pending).await?;
        let claims = self.verified(&metadata, &id_token, &pending.nonce).await?;
        Ok((claims, pending.next))
    }

    /// The ID token for a code.
    async fn redeem(&self, metadata: &Metadata, code: &str, pending: &Pending) -> Result<SecretString, OidcError> {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &pending.redirect_uri),
            ("code_verifier", pending.verifier.expose_secret()),
        ];
        let mut request = self.client.post(metadata.token_endpoint.clone());
        match &self.client_secret {
            Some(secret) if metadata.takes_basic() => {
                // form-encoded before they are joined (RFC 6749, 2.3.1)
                let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let (id, secret) = (encoded(&self.config.client_id), encoded(secret.expose_secret()));
                request = request.basic_auth(id, Some(secret));
            }
            Some(secret) => {
                form.extend([("client_id", self.config.client_id.as_str()), ("client_secret", secret.expose_secret())]);
            }
            None => form.push(("client_id", &self.config.client_id)),
        }
        #[derive(Deserialize)]
        struct Tokens {
            id_token: SecretString,
        }
        let tokens: Tokens = metadata::json(request.form(&form), "the token endpoint").await?;
        Ok(tokens.id_token)
    }

    async fn verified(&self, metadata: &Metadata, id_token: &SecretString, nonce: &str) -> Result<Claims, OidcError> {
        let header = id_token::header(id_token)?;
        let keys = self.keys(metadata, header.kid.as_deref()).await?;
        id_token::verify(id_token, &header, &keys, &self.config, nonce, self.clock.now())
    }
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("config", &self.config).finish_non_exhaustive()
    }
}
