//! Requests to URLs that a person gave: one client that cannot be turned against the network it runs in.
//!
//! Every name is resolved by [`Guarded`], and the connection is made to the very addresses that were judged, so that a
//! name cannot mean one thing when it is checked and another when it is used. A name with a refused address among its
//! addresses is refused as a whole. Hosts written as an address are judged before the request, in whatever notation:
//! the URL's parser has made `http://0x7f.1/` and `http://2130706433/` into `127.0.0.1` by then.
//!
//! Redirects are not followed, and proxies of the environment are not used: behind a proxy it would be the proxy that
//! resolves the name, in its own network.

mod address;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use url::{Host, Url};

pub use address::AddressPolicy;

/// From the name's resolution to the end of the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of an answer, no more is read.
const MAX_ANSWER: usize = 64 * 1024;

/// Why a request could not be made. Says nothing of a URL's path or query, which may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    #[error("this is not a URL")]
    NotAUrl,
    #[error("`{0}://` is not asked: only http and https are")]
    Scheme(String),
    #[error("the URL holds a user's name or password")]
    Login,
    #[error("{host} is {address}, which is {why}")]
    Refused { host: String, address: IpAddr, why: &'static str },
    #[error("{host}: {reason}")]
    Transport { host: String, reason: String },
    #[error("no HTTP client can be made: {0}")]
    Client(String),
}

impl OutgoingError {
    /// Is it a passing trouble, for which it is worth asking again?
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Transport { .. })
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotAUrl => "write it in full, for example https://hooks.example.com/alerts",
            Self::Scheme(_) => "write a URL that begins with https://",
            Self::Login => "leave the login out of the URL",
            Self::Refused { .. } => {
                "requests stay out of private networks; where this one is meant, allow its address under \
                 `service: allow_private_addresses:` in cloud-connect.yml"
            }
            Self::Transport { .. } => "check the host's name, its port and its certificate, and that it is up",
            Self::Client(_) => return None,
        })
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Its `Retry-After`, when that is a number of seconds.
    pub retry_after: Option<Duration>,
    /// The start of its body.
    pub body: Bytes,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A name's addresses.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Where names are looked up.
pub trait Names: Send + Sync {
    fn lookup(&self, name: &str) -> Lookup;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy)]
struct System;

impl Names for System {
    fn lookup(&self, name: &str) -> Lookup {
        let name = name.to_string();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// A refusal on its way through the HTTP client.
#[derive(Debug, thiserror::Error)]
#[error("{address} is {why}")]
struct RefusedAddress {
    address: IpAddr,
    why: &'static str,
}

/// Resolves names, and refuses those that lead where no request may go.
struct Guarded {
    policy: AddressPolicy,
    names: Arc<dyn Names>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, policy) = (self.names.lookup(name.as_str()), self.policy.clone());
        Box::pin(async move {
            let found = lookup.await?;
            for address in &found {
                if let Some(why) = policy.refusal(*address) {
                    return Err(RefusedAddress { address: *address, why }.into());
                }
            }
            if found.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into());
            }
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// The client.
#[derive(Debug, Clone)]
pub struct Outgoing {
    client: reqwest::Client,
    policy: AddressPolicy,
}

impl Outgoing {
    pub fn new(policy: AddressPolicy) -> Result<Self, OutgoingError> {
        Self::with_names(policy, Arc::new(System))
    }

    /// The same, with another resolver below the guard.
    pub fn with_names(policy: AddressPolicy, names: Arc<dyn Names>) -> Result<Self, OutgoingError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("cloud-connect/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .dns_resolver(Arc::new(Guarded { policy: policy.clone(), names }))
            .build()
            .map_err(|e| OutgoingError::Client(e.to_string()))?;
        Ok(Self { client, policy })
    }

    /// Which addresses it may reach.
    pub fn policy(&self) -> &AddressPolicy {
        &self.policy
    }

    /// A URL that may be asked, as far as can be told without a look-up.
    pub fn check(&self, url: &str) -> Result<Url, OutgoingError> {
        let url = Url::parse(url.trim()).map_err(|_| OutgoingError::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OutgoingError::Scheme(url.scheme().into()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OutgoingError::Login);
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err(OutgoingError::NotAUrl),
        };
        if let Some(address) = literal
            && let Some(why) = self.policy.refusal(address)
        {
            return Err(OutgoingError::Refused { host: host_of(&url), address, why });
        }
        Ok(url)
    }

    /// Sends a body, and reads the answer's beginning, within `limit`.
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: impl Into<Bytes>,
        limit: Duration,
    ) -> Result<Answer, OutgoingError> {
        let url = self.check(url)?;
        let host = host_of(&url);
        let failed = |e: reqwest::Error| of_transport(&host, e);
        let request = self.client.post(url).headers(headers).body(body.into()).timeout(limit);
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            let room = MAX_ANSWER - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() >= room {
                break;
            }
        }
        Ok(Answer { status, retry_after, body: body.into() })
    }
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_string()
}

/// The cause of a failure, without the URL.
fn of_transport(host: &str, error: reqwest::Error) -> OutgoingError {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(&error);
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<RefusedAddress>() {
            return OutgoingError::Refused { host: host.into(), address: refused.address, why: refused.why };
        }
        reason = inner.to_string();
        cause = inner.source();
    }
    if error.is_timeout() {
        reason = "no answer in time".into();
    }
    OutgoingError::Transport { host: host.into(), reason }
}

#[cfg(test)]
mod tests;
