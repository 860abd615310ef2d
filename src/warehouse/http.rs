//! HTTP as every warehouse service needs it: one guarded client, tries again after passing trouble, and errors that
//! say where a request failed, without a URL (it may be signed) and without a credential.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode};

use tokio_util::sync::CancellationToken;

use super::text::{chain, human};
use super::{WarehouseError, WarehouseErrorKind};

/// Tries of one request, the first included.
const MAX_TRIES: usize = 5;
/// A server that asks for more patience than this gets it from the run, which can be watched and cancelled.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Of an error's body, no more is read.
const ERROR_BODY_BYTES: usize = 64 * 1024;

/// The client's time limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// From the name's resolution to the end of the TLS handshake.
    pub connect: Duration,
    /// Longest silence while an answer is awaited or read.
    pub idle: Duration,
}

/// The one way to make a client. It follows no redirect (a credential must not be carried to another host), trusts the
/// system's certificate authorities (`SSL_CERT_FILE` overrides them) and honours `HTTPS_PROXY`.
pub(crate) fn client(timeouts: Timeouts) -> Result<Client, WarehouseError> {
    built(builder(timeouts))
}

/// The same, for files of rows: what is compressed stays so until it is decoded piece by piece.
pub(super) fn file_client(timeouts: Timeouts) -> Result<Client, WarehouseError> {
    built(builder(timeouts).no_gzip())
}

fn builder(timeouts: Timeouts) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("cloud-connect/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeouts.connect)
        .read_timeout(timeouts.idle)
        .tcp_keepalive(Duration::from_secs(60))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
}

fn built(builder: ClientBuilder) -> Result<Client, WarehouseError> {
    builder.build().map_err(|e| WarehouseError::bug(format!("no HTTP client can be made: {}", chain(&e))))
}

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: StatusCode,
    /// Its `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The start of its body.
    pub body: String,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server answered, but not with success. Throttling and overload were tried again already.
    Refused(Refusal),
    /// There was no (whole) answer. Tried again already where that can help.
    Transport(WarehouseError),
}

/// Sends a request, again (at most five times) after throttling (429), overload (502, 503, 504) and lost connections.
/// Only for requests that may be repeated. `what` names the request in errors, for example `the login`.
pub(super) async fn send(request: RequestBuilder, what: &str) -> Result<Response, Failure> {
    send_again(request, what, &CancellationToken::new(), |failure, _| match failure {
        Failure::Refused(refusal) => is_passing(refusal.status),
        Failure::Transport(e) => e.is_retryable(),
    })
    .await
    .map_err(|(failure, _)| failure)
}

/// As [`send`], for a request that must not be carried out twice: again only when no connection was made (so nothing was
/// sent), and when the server says that it did not take it (429, 503). An answer that was lost is an error.
///
/// Once it is `unwanted` it is not sent again.
pub(super) async fn send_unrepeatable(
    request: RequestBuilder,
    what: &str,
    unwanted: &CancellationToken,
) -> Result<Response, Failure> {
    let sent = send_again(request, what, unwanted, |failure, unsent| match failure {
        Failure::Refused(refusal) => matches!(refusal.status.as_u16(), 429 | 503),
        Failure::Transport(e) => unsent && e.is_retryable(),
    });
    sent.await.map_err(|(failure, unsent)| match failure {
        Failure::Transport(e) if !unsent => Failure::Transport(lost(e)),
        failure => failure,
    })
}

/// Sends a request, again while `again` says so of the failure (and of whether the request was never sent).
async fn send_again(
    request: RequestBuilder,
    what: &str,
    unwanted: &CancellationToken,
    again: impl Fn(&Failure, bool) -> bool,
) -> Result<Response, (Failure, bool)> {
    let mut waits = waits();
    loop {
        let Some(attempt) = request.try_clone() else {
            return Err((Failure::Transport(WarehouseError::bug(format!("{what} cannot be repeated"))), true));
        };
        let (failure, unsent) = match attempt.send().await {
            Ok(response) if response.status().is_success() => return Ok(response),
            Ok(response) => (Failure::Refused(refusal(response).await), false),
            Err(e) => {
                let unsent = e.is_connect();
                (Failure::Transport(of_transport(e, what)), unsent)
            }
        };
        let asked_for = match &failure {
            Failure::Refused(refusal) => refusal.retry_after.unwrap_or_default(),
            Failure::Transport(_) => Duration::ZERO,
        };
        match waits.next() {
            Some(wait) if again(&failure, unsent) && asked_for <= LONGEST_WAIT => {
                let wait = wait.max(asked_for);
                tracing::debug!(what, wait_ms = wait.as_millis() as u64, "a request failed, trying again");
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = unwanted.cancelled() => return Err((failure, unsent)),
                }
            }
            _ => return Err((failure, unsent)),
        }
    }
}

/// The answer to a request was lost that must not be carried out twice.
pub(super) fn lost(error: WarehouseError) -> WarehouseError {
    if !error.is_retryable() {
        return error;
    }
    let message = format!("{}; whether the service took the request is not known", error.message);
    WarehouseError { message, ..error }
        .with_hint("the query may run in the service without being read: its query history shows it")
}

/// The pauses between tries: half a second, doubling, with jitter; one fewer than there are tries.
pub(super) fn waits() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(15))
        .with_max_times(MAX_TRIES - 1)
        .with_jitter()
        .build()
}

/// Sends a request once.
pub(super) async fn send_once(request: RequestBuilder, what: &str) -> Result<Response, Failure> {
    let response = request.send().await.map_err(|e| Failure::Transport(of_transport(e, what)))?;
    if response.status().is_success() {
        return Ok(response);
    }
    Err(Failure::Refused(refusal(response).await))
}

async fn refusal(response: Response) -> Refusal {
    let status = response.status();
    let retry_after = retry_after(&response);
    let body = start_of(response).await;
    Refusal { status, retry_after, body }
}

/// Is the status a passing trouble of the server?
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504)
}

impl Refusal {
    /// The sorting that needs nothing but the status. `said` is what the server said, without a secret.
    pub(super) fn into_error(self, what: &str, said: &str) -> WarehouseError {
        let status = self.status;
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let message = format!("{what} was refused with {status}{said}");
        match status.as_u16() {
            401 => WarehouseError::configuration(message).with_hint("check the connection's credentials"),
            403 => WarehouseError::configuration(message)
                .with_hint("grant the connection's user what it needs; docs/warehouses/ has the statements"),
            404 => WarehouseError::configuration(message).with_hint("check the connection's host and names"),
            429 => WarehouseError::new(WarehouseErrorKind::Retry { after: self.retry_after }, message)
                .with_hint("the service limits its requests; try again later, or spread the models' schedules"),
            408 | 500..=599 => WarehouseError::new(WarehouseErrorKind::Retry { after: self.retry_after }, message)
                .with_hint("the service has trouble of its own; try again"),
            300..=399 => WarehouseError::configuration(message)
                .with_hint("the service lives at another address: check the connection's host"),
            _ => WarehouseError::bug(message),
        }
    }
}

/// Where a request failed: the name, the connection, TLS, or the answer.
pub(super) fn of_transport(error: reqwest::Error, what: &str) -> WarehouseError {
    let (connect, timeout, decode) = (error.is_connect(), error.is_timeout(), error.is_decode());
    let error = error.without_url();
    let text = chain(&error);
    if let Some(tls) = source_of::<rustls::Error>(&error) {
        return WarehouseError::configuration(format!("{what} failed in the TLS handshake: {tls}")).with_hint(
            "the certificate is not trusted here or is for another name: check the host; behind a proxy that opens TLS, \
             put its authority into the file that SSL_CERT_FILE names",
        );
    }
    if text.contains("dns error") {
        return WarehouseError::retry(format!("{what} failed: the name cannot be resolved: {text}"))
            .with_hint("check the connection's host or account, and this machine's name server");
    }
    if connect {
        let hint = "check the host, and that a firewall lets this machine out to it";
        return WarehouseError::retry(format!("{what} failed: the service cannot be reached: {text}")).with_hint(hint);
    }
    if timeout {
        return WarehouseError::retry(format!("{what} failed: no answer came in time"))
            .with_hint("the service or the network is slow; try again, or raise `idle_timeout`");
    }
    // a body that breaks off is told as one that cannot be decoded; HTTP/2 names no I/O error as its cause
    let broke = source_of::<std::io::Error>(&error).is_some() || broke_in_body(&error);
    if decode && !broke {
        return WarehouseError::bug(format!("{what} was answered with something else than was asked for: {text}"));
    }
    WarehouseError::retry(format!("{what} failed: the connection was lost: {text}")).with_hint("try again")
}

/// Is one of the causes the client's own error of a body?
fn broke_in_body(error: &reqwest::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<reqwest::Error>().is_some_and(|e| e.is_body() || e.is_timeout()) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// The first cause of that type. An I/O error keeps its own cause inside.
fn source_of<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<T>() {
            return Some(found);
        }
        next = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    None
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at: SystemTime = chrono::DateTime::parse_from_rfc2822(text).ok()?.into();
    #[expect(clippy::disallowed_methods, reason = "how long from now, by the wall clock of both sides")]
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

async fn start_of(mut response: Response) -> String {
    let mut body = Vec::new();
    while body.len() < ERROR_BODY_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            _ => break,
        }
    }
    body.truncate(ERROR_BODY_BYTES);
    String::from_utf8_lossy(&body).into_owned()
}

/// An answer's whole body, of a size that the server's own chunking bounds.
pub(super) async fn body(response: Response, what: &str) -> Result<bytes::Bytes, WarehouseError> {
    response.bytes().await.map_err(|e| of_transport(e, what))
}

/// Is it this machine? Only to it does anything go that is not encrypted.
pub(crate) fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

/// A statement that ran for longer than it may.
pub(super) fn statement_timeout(limit: Duration) -> WarehouseError {
    WarehouseError::sql(format!("the query was stopped by the statement timeout of {}", human(limit)))
        .with_hint("narrow the query; or raise `statement_timeout` of the connection, or the model's timeout")
}
