//! One session: its login, its renewal in the middle of whatever it does, its requests, its end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use snowflake_api::connection::QueryType;
use tokio::time::Instant;
use uuid::Uuid;

use super::auth;
use super::config::SnowflakeConfig;
use super::error::{Sent, of_answer, of_refused_login};
use super::transport::{LOGIN, Transport};
use super::wire::{
    Answer, IN_PROGRESS, LOGIN_EXPIRED, LoginData, NOT_RUNNING, QueryData, RenewedData, SESSION_EXPIRED, SessionInfo,
};
use crate::warehouse::WarehouseError;
use std::sync::Arc;

/// Renewals and new logins of one request.
const MAX_RENEWALS: usize = 3;
/// How long a goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two questions for a result, when the service does not hold them back itself.
/// Seconds: what `STATEMENT_TIMEOUT_IN_SECONDS` takes.
const LONGEST_TIMEOUT: u64 = 604_800;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A session that is logged in.
#[derive(Debug)]
pub(super) struct Session {
    pub transport: Arc<Transport>,
    config: Arc<SnowflakeConfig>,
    /// Of every statement, in seconds.
    timeout: Option<u64>,
    tokens: Mutex<Tokens>,
    /// One renewal at a time.
    renewing: tokio::sync::Mutex<()>,
    sequence: AtomicU64,
    pub info: SessionInfo,
    pub server_version: String,
}

#[derive(Debug, Clone)]
struct Tokens {
    session: SecretString,
    master: Option<SecretString>,
}

enum Request<'a> {
    /// `query-request`, by the crate.
    Query {
        id: &'a str,
        body: &'a Value,
    },
    Get {
        path: &'a str,
    },
    Post {
        path: &'a str,
        body: &'a Value,
    },
}

impl Session {
    /// Logs in. `limit`: how long a statement may run.
    pub(super) async fn open(
        transport: Arc<Transport>,
        config: Arc<SnowflakeConfig>,
        limit: Option<Duration>,
    ) -> Result<Self, WarehouseError> {
        let timeout = limit.map(|l| (l.as_secs() + u64::from(l.subsec_nanos() > 0)).clamp(1, LONGEST_TIMEOUT));
        let data = log_in(&transport, &config, timeout).await?;
        let (tokens, data) = tokens_of(data)?;
        Ok(Self {
            transport,
            config,
            timeout,
            tokens: Mutex::new(tokens),
            renewing: tokio::sync::Mutex::new(()),
            sequence: AtomicU64::new(0),
            info: data.session_info.unwrap_or_default(),
            server_version: data.server_version.unwrap_or_else(|| "unknown".to_string()),
        })
    }

    fn tokens(&self) -> Tokens {
        self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn set_tokens(&self, tokens: Tokens) {
        *self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = tokens;
    }

    /// Has the service describe a statement, without running it.
    pub(super) async fn describe(&self, sql: &str, sent: Sent<'_>) -> Result<QueryData, WarehouseError> {
        let answer = self.submit(sql, &Uuid::new_v4(), true).await?;
        self.checked(answer, Some(sent)).map_err(|(e, _)| e)
    }

    /// Runs a statement and waits for its result. By its id it can be aborted meanwhile. An error comes with its code.
    pub(super) async fn execute(
        &self,
        sql: &str,
        id: &Uuid,
        sent: Option<Sent<'_>>,
    ) -> Result<QueryData, (WarehouseError, String)> {
        let uncoded = |e| (e, String::new());
        let mut answer = self.submit(sql, id, false).await.map_err(uncoded)?;
        let mut pause = Duration::from_millis(50);
        while answer.has_code(&IN_PROGRESS) {
            let data = answer.data.as_ref();
            let path =
                data.and_then(|d| d.get_result_url.clone()).or_else(|| Some(result_path(data?.query_id.as_deref()?)));
            let path =
                path.ok_or_else(|| uncoded(WarehouseError::bug("a query in progress has no result to ask for")))?;
            let asked = Instant::now();
            answer = self.result_at(&path).await.map_err(uncoded)?;
            if asked.elapsed() < pause {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        self.checked(answer, sent)
    }

    /// The finished result once more, with fresh links; the query does not run again.
    pub(super) async fn result_again(&self, query_id: &str) -> Result<QueryData, WarehouseError> {
        let answer = self.result_at(&result_path(query_id)).await?;
        self.checked(answer, None).map_err(|(e, _)| e)
    }

    async fn submit(&self, sql: &str, id: &Uuid, describe: bool) -> Result<Answer<QueryData>, WarehouseError> {
        let body = json!({
            "sqlText": sql,
            "asyncExec": false,
            "sequenceId": self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            "isInternal": false,
            "describeOnly": describe,
        });
        self.send(&Request::Query { id: &id.to_string(), body: &body }, "the query").await
    }

    async fn result_at(&self, path: &str) -> Result<Answer<QueryData>, WarehouseError> {
        self.send(&Request::Get { path }, "the query's result").await
    }

    /// Tells the service to stop a query. One that it does not know yet may be on its way: it is told again.
    pub(super) async fn abort(&self, sql: &str, id: &Uuid) -> Result<(), WarehouseError> {
        let body = json!({ "sqlText": sql, "requestId": id.to_string() });
        for pause in [0, 200, 400, 800] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let path = format!("/queries/v1/abort-request?requestId={}", Uuid::new_v4());
            let answer: Answer<Value> =
                self.send(&Request::Post { path: &path, body: &body }, "the query's stop").await?;
            if answer.success {
                return Ok(());
            }
            if !answer.has_code(&[NOT_RUNNING]) {
                let said = self.config.redact(answer.message.as_deref().unwrap_or_default());
                return Err(WarehouseError::retry(format!("the query could not be stopped: {said}")));
            }
        }
        // it has ended by itself
        Ok(())
    }

    /// Sends a request; renews the session, or logs in anew, when it has expired. A request that was refused for that
    /// has done nothing, and results belong to the user and role, not to the session: nothing is lost or run twice.
    async fn send<D: DeserializeOwned>(&self, request: &Request<'_>, what: &str) -> Result<Answer<D>, WarehouseError> {
        for _ in 0..=MAX_RENEWALS {
            let token = self.tokens().session;
            let answer: Answer<D> = match request {
                Request::Query { id, body } => {
                    let params = [("requestId", *id)];
                    self.transport.request(QueryType::ArrowQuery, &params, Some(&token), body, what).await?
                }
                Request::Get { path } => self.transport.send(Method::GET, path, &token, None, what).await?,
                Request::Post { path, body } => {
                    self.transport.send(Method::POST, path, &token, Some(body), what).await?
                }
            };
            if answer.success || !(answer.has_code(&[SESSION_EXPIRED]) || answer.has_code(&LOGIN_EXPIRED)) {
                return Ok(answer);
            }
            self.renew(&token, answer.has_code(&[SESSION_EXPIRED])).await?;
        }
        Err(WarehouseError::retry(format!("{what} failed: the session ended again and again"))
            .with_hint("another program may be closing the user's sessions; try again"))
    }

    /// Replaces `stale`, unless somebody else has done so meanwhile.
    async fn renew(&self, stale: &SecretString, by_master: bool) -> Result<(), WarehouseError> {
        let _one = self.renewing.lock().await;
        let tokens = self.tokens();
        if tokens.session.expose_secret() != stale.expose_secret() {
            return Ok(());
        }
        if let (true, Some(master)) = (by_master, &tokens.master) {
            let body = json!({ "oldSessionToken": tokens.session.expose_secret(), "requestType": "RENEW" });
            let answer: Answer<RenewedData> = self
                .transport
                .request(QueryType::TokenRequest, &[], Some(master), &body, "the session's renewal")
                .await?;
            if let (true, Some(data)) = (answer.success, answer.data)
                && let Some(session) = data.session_token
            {
                tracing::debug!("a Snowflake session was renewed");
                self.set_tokens(Tokens { session, master: data.master_token.or(tokens.master) });
                return Ok(());
            }
        }
        tracing::debug!("a Snowflake session has ended; logging in anew");
        let (tokens, _) = tokens_of(log_in(&self.transport, &self.config, self.timeout).await?)?;
        self.set_tokens(tokens);
        Ok(())
    }

    /// A result, or the error that stands in its place, with its code.
    fn checked(
        &self,
        answer: Answer<QueryData>,
        sent: Option<Sent<'_>>,
    ) -> Result<QueryData, (WarehouseError, String)> {
        if !answer.success {
            let message = self.config.redact(answer.message.as_deref().unwrap_or_default());
            return Err((of_answer(&answer, &message, sent), answer.code.unwrap_or_default()));
        }
        answer.data.ok_or_else(|| (WarehouseError::bug("the query was answered without a result"), String::new()))
    }

    /// Ends the session. What goes wrong then is of no interest: it ends by itself, later.
    pub(super) async fn close(&self) {
        let (token, body) = (self.tokens().session, json!({}));
        let goodbye = self.transport.request::<Value>(
            QueryType::CloseSession,
            &[("delete", "true")],
            Some(&token),
            &body,
            "the session's end",
        );
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

fn result_path(query_id: &str) -> String {
    let id: String = query_id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    format!("/queries/{id}/result")
}

async fn log_in(
    transport: &Transport,
    config: &SnowflakeConfig,
    timeout: Option<u64>,
) -> Result<LoginData, WarehouseError> {
    let body = auth::body(config, timeout).await?;
    let places = auth::places(config);
    let answer: Answer<LoginData> = transport.request(QueryType::LoginRequest, &places, None, &body, LOGIN).await?;
    if !answer.success {
        let message = config.redact(answer.message.as_deref().unwrap_or_default());
        return Err(of_refused_login(answer.code.as_deref().unwrap_or_default(), &message));
    }
    answer.data.ok_or_else(|| WarehouseError::bug("the login was answered without a session"))
}

fn tokens_of(data: LoginData) -> Result<(Tokens, LoginData), WarehouseError> {
    let Some(session) = data.token.clone() else {
        return Err(WarehouseError::configuration("the login asks for more than a credential").with_hint(
            "the user needs a second factor or a new password; give a service a key pair or an access token",
        ));
    };
    Ok((Tokens { session, master: data.master_token.clone() }, data))
}
