//! The steps of a connection test, as they went.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::text::human;
use super::{TestStep, WarehouseError};

/// Collects the steps; what follows a failed one is not tried.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub steps: Vec<TestStep>,
}

impl Trace {
    pub(super) fn ok(&mut self, step: &str, detail: impl Into<String>) {
        self.steps.push(TestStep { step: step.to_string(), ok: true, detail: detail.into() });
    }

    pub(super) fn failed(&mut self, step: &str, error: &WarehouseError) {
        let hint = error.hint.as_deref().map(|h| format!("; {h}")).unwrap_or_default();
        self.steps.push(TestStep { step: step.to_string(), ok: false, detail: format!("{error}{hint}") });
    }

    /// Keeps what came of a step; `detail` tells how it went well.
    pub(super) async fn step<T>(
        &mut self,
        step: &str,
        attempt: impl Future<Output = Result<T, WarehouseError>>,
        detail: impl FnOnce(&T) -> String,
    ) -> Result<T, WarehouseError> {
        let result = attempt.await;
        match &result {
            Ok(value) => self.ok(step, detail(value)),
            Err(e) => self.failed(step, e),
        }
        result
    }

    /// The steps `resolve name` and `connect` to the host of an HTTP service. (The client opens connections of its own
    /// afterwards, so that TLS and what follows are told apart by their errors: see [`super::http`].)
    pub(super) async fn reach(&mut self, url: &url::Url, timeout: Duration) -> Result<(), WarehouseError> {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(WarehouseError::configuration(format!("`{url}` names no host")));
        };
        if proxied(url.scheme()) {
            self.ok("resolve name", "left to the proxy that the environment names");
            return Ok(());
        }
        // an IPv6 address stands in brackets in a URL
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let found = self
            .step("resolve name", resolve(name, port), |found| {
                found.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>().join(", ")
            })
            .await?;
        let reached = async {
            let attempt = tokio::time::timeout(timeout, connect(&found));
            let failed = |why: String| {
                WarehouseError::retry(format!("{host}:{port} cannot be reached: {why}"))
                    .with_hint("a firewall may drop the packets: check the host and the allowed outgoing addresses")
            };
            match attempt.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(e)) => Err(failed(e.to_string())),
                Err(_) => Err(failed(format!("no answer within {}", human(timeout)))),
            }
        };
        self.step("connect", reached, |()| format!("{host}:{port}")).await
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, WarehouseError> {
    let failed = |why: String| {
        WarehouseError::retry(format!("the name `{host}` cannot be resolved: {why}"))
            .with_hint("check the connection's host or account, and this machine's name server")
    };
    let found: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(|e| failed(e.to_string()))?.collect();
    if found.is_empty() { Err(failed("it has no address".to_string())) } else { Ok(found) }
}

async fn connect(addresses: &[SocketAddr]) -> std::io::Result<()> {
    let mut last = std::io::Error::other("no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(()),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Does the environment send such requests through a proxy?
fn proxied(scheme: &str) -> bool {
    let names: &[&str] = match scheme {
        "https" => &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
        _ => &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
    };
    names.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
