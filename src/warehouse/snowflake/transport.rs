//! Requests. The crate `snowflake-api` makes those that it knows (its `Connection`); a middleware of ours brings them to
//! the connection's address and delivers them through [`crate::warehouse::http`]: tries again, patience, typed failures.
//! What the crate has no request for goes the same way without it.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Client, Method, Request, RequestBuilder, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use snowflake_api::connection::{Connection, ConnectionError, QueryType};
use url::Url;

use super::config::SnowflakeConfig;
use super::wire::Answer;
use crate::warehouse::WarehouseError;
use crate::warehouse::http::{self, Failure, Refusal, Timeouts};

/// What the crate takes for an account; the middleware puts the connection's address in its place.
const PLACEHOLDER: &str = "account";

/// The way to one account.
pub(super) struct Transport {
    connection: Connection,
    client: Client,
    /// For the object store: it gets no credential of ours.
    files: Client,
    endpoint: Url,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({})", self.endpoint)
    }
}

impl Transport {
    pub(super) fn new(config: &SnowflakeConfig) -> Result<Self, WarehouseError> {
        let timeouts = Timeouts { connect: config.connect_timeout, idle: config.idle_timeout };
        let client = http::client(timeouts)?;
        let endpoint = config.account.endpoint.clone();
        let deliver = Deliver { client: client.clone(), endpoint: endpoint.clone() };
        let connection = Connection::new_with_middware(ClientBuilder::new(client.clone()).with(deliver).build());
        Ok(Self { connection, client, files: http::file_client(timeouts)?, endpoint })
    }

    /// A request that the crate knows.
    pub(super) async fn request<D: DeserializeOwned>(
        &self,
        kind: QueryType,
        params: &[(&str, &str)],
        token: Option<&SecretString>,
        body: &Value,
        what: &str,
    ) -> Result<Answer<D>, WarehouseError> {
        let token = token.map(authorization);
        let token = token.as_ref().map(ExposeSecret::expose_secret);
        match self.connection.request::<Answer<D>>(kind, PLACEHOLDER, params, token, body).await {
            Ok(answer) => Ok(answer),
            Err(error) => refused(of_crate(error, what), what),
        }
    }

    /// Another request, to a path (with its query) of the service.
    pub(super) async fn send<D: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: &SecretString,
        body: Option<&Value>,
        what: &str,
    ) -> Result<Answer<D>, WarehouseError> {
        // only the path: a session's token is for the connection's address
        let url = self.endpoint.join(path).ok().filter(|url| url.origin() == self.endpoint.origin());
        let Some(url) = url else {
            return Err(WarehouseError::bug("the service names a result at another address"));
        };
        let mut request = self.client.request(method, url).header(ACCEPT, "application/snowflake");
        let mut auth = HeaderValue::from_str(authorization(token).expose_secret())
            .map_err(|_| WarehouseError::bug("the session's token does not fit a header"))?;
        auth.set_sensitive(true);
        request = request.header(AUTHORIZATION, auth);
        if let Some(body) = body {
            request = request.json(body);
        }
        match http::send(request, what).await {
            Ok(response) => decode(response, what).await,
            Err(failure) => refused(failure, what),
        }
    }

    /// A file of the result, from the object store.
    pub(super) async fn file(
        &self,
        url: &SecretString,
        headers: &HashMap<String, SecretString>,
        what: &str,
    ) -> Result<Result<Bytes, WarehouseError>, Failure> {
        let url = Url::parse(url.expose_secret())
            .map_err(|_| Failure::Transport(WarehouseError::bug(format!("{what} has no valid link"))))?;
        // the link, and the key that may go with it, open the rows to whoever listens
        if url.scheme() != "https" && !(http::is_loopback(&url) && http::is_loopback(&self.endpoint)) {
            return Err(Failure::Transport(WarehouseError::bug(format!("{what} has a link that is not encrypted"))));
        }
        let mut request = self.files.get(url);
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value.expose_secret())
                .map_err(|_| Failure::Transport(WarehouseError::bug(format!("{what} has no valid header"))))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let response = http::send(request, what).await?;
        Ok(http::body(response, what).await)
    }
}

fn authorization(token: &SecretString) -> SecretString {
    format!("Snowflake Token=\"{}\"", token.expose_secret()).into()
}

async fn decode<D: DeserializeOwned>(response: Response, what: &str) -> Result<Answer<D>, WarehouseError> {
    let body = http::body(response, what).await?;
    serde_json::from_slice(&body).map_err(|e| unreadable(&e, what))
}

/// An answer in another form. The parser's own message may quote it, a token too.
fn unreadable(error: &serde_json::Error, what: &str) -> WarehouseError {
    let (line, column) = (error.line(), error.column());
    WarehouseError::bug(format!(
        "{what} was answered with something else than was asked for (at line {line}, column {column})"
    ))
}

/// An error status may carry an answer like any other: an expired session, for example.
fn refused<D: DeserializeOwned>(failure: Failure, what: &str) -> Result<Answer<D>, WarehouseError> {
    let refusal = match failure {
        Failure::Transport(error) => return Err(error),
        Failure::Refused(refusal) => refusal,
    };
    let answer: Option<Answer<Value>> = serde_json::from_str(&refusal.body).ok();
    let said = answer.as_ref().and_then(|a| a.message.clone()).unwrap_or_default();
    let passing = http::is_passing(refusal.status) || refusal.status.is_server_error();
    match answer {
        Some(answer) if answer.code.is_some() && !passing => {
            Ok(Answer { success: false, code: answer.code, message: answer.message, data: None })
        }
        _ => Err(of_refusal(refusal, what, &said)),
    }
}

fn of_refusal(refusal: Refusal, what: &str, said: &str) -> WarehouseError {
    let unknown = what == LOGIN && matches!(refusal.status.as_u16(), 403 | 404);
    let error = refusal.into_error(what, said);
    if unknown {
        return error
            .with_hint("there is no such account at that address: check `account` (with its region) and `host`");
    }
    error
}

pub(super) const LOGIN: &str = "the login";

/// A failure inside of the crate's request: ours comes through its middleware's error.
fn of_crate(error: ConnectionError, what: &str) -> Failure {
    use reqwest_middleware::Error::{Middleware, Reqwest};
    Failure::Transport(match error {
        ConnectionError::RequestMiddlewareError(Middleware(error)) => match error.downcast::<Undelivered>() {
            Ok(undelivered) => return undelivered.0,
            Err(error) => WarehouseError::bug(format!("{what} could not be sent: {error}")),
        },
        ConnectionError::RequestMiddlewareError(Reqwest(error)) | ConnectionError::RequestError(error) => {
            match std::error::Error::source(&error).and_then(|e| e.downcast_ref::<serde_json::Error>()) {
                Some(error) => unreadable(error, what),
                None => http::of_transport(error, what),
            }
        }
        // neither shows what was sent
        ConnectionError::UrlParsing(error) => WarehouseError::bug(format!("{what} has no valid address: {error}")),
        ConnectionError::InvalidHeader(_) => WarehouseError::bug(format!("{what} has no valid token")),
        ConnectionError::Deserialization(error) => unreadable(&error, what),
    })
}

/// Brings a request of the crate to the connection's address, and delivers it.
struct Deliver {
    client: Client,
    endpoint: Url,
}

/// A failure on its way through the crate.
#[derive(Debug)]
struct Undelivered(Failure);

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request failed")
    }
}

impl std::error::Error for Undelivered {}

#[async_trait]
impl Middleware for Deliver {
    async fn handle(
        &self,
        mut request: Request,
        _: &mut object_store::Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        *request.url_mut() = readdressed(request.url(), &self.endpoint);
        let what = match request.url().path() {
            "/session/v1/login-request" => LOGIN,
            "/session/token-request" => "the session's renewal",
            "/queries/v1/query-request" => "the query",
            _ => "the session's end",
        };
        let request = RequestBuilder::from_parts(self.client.clone(), request);
        http::send(request, what).await.map_err(|failure| reqwest_middleware::Error::middleware(Undelivered(failure)))
    }
}

/// The same path and parameters at the connection's address. A parameter given twice keeps its last value: the crate
/// makes a `requestId` of its own, and ours (by which a query is cancelled, and told from its repetition) follows it.
fn readdressed(url: &Url, endpoint: &Url) -> Url {
    let mut params: Vec<(String, String)> = Vec::new();
    for (name, value) in url.query_pairs() {
        match params.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value.into_owned(),
            None => params.push((name.into_owned(), value.into_owned())),
        }
    }
    let mut to = endpoint.clone();
    // the crate doubles a slash
    to.set_path(&format!("/{}", url.path().trim_start_matches('/')));
    to.query_pairs_mut().clear().extend_pairs(params);
    to
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_the_crate_comes_to_our_address_with_our_id() {
        let url = "https://account.snowflakecomputing.com//session/token-request?requestId=a&x=1%202&requestId=b";
        let to = readdressed(&Url::parse(url).unwrap(), &Url::parse("http://127.0.0.1:8080/").unwrap());
        assert_eq!(to.as_str(), "http://127.0.0.1:8080/session/token-request?requestId=b&x=1+2");
    }
}
