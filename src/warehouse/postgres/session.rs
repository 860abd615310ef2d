//! One session: a client, and the conversation that it needs driven.
//!
//! The conversation is not spawned but driven by whoever waits for an answer, in the same task: rows need no hop
//! between threads, nothing is read from the socket while nobody takes the rows (back-pressure down to the server),
//! and dropping the session ends the connection.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::{Client, Connection, Error};

use super::dialect::Dialect;
use super::error::{self, Sent};
use super::known_types::ServerTypes;
use crate::warehouse::WarehouseError;

/// A logged-in session.
pub(in crate::warehouse) struct Session {
    pub client: Client,
    pub driver: Driver,
    /// The address that it talks to.
    pub peer: SocketAddr,
    pub dialect: &'static Dialect,
    /// Kept where the client is shown known types only.
    pub server_types: ServerTypes,
}

impl Session {
    /// Runs a statement of our own.
    pub(in crate::warehouse) async fn execute(
        &mut self,
        statement: &str,
        sent: Option<Sent<'_>>,
    ) -> Result<(), WarehouseError> {
        let execute = self.client.batch_execute(statement);
        let executed = self.driver.drive(execute).await;
        executed.map_err(|e| self.failed(&e, sent))
    }

    /// What an error of the client means.
    pub(in crate::warehouse) fn failed(&self, error: &Error, sent: Option<Sent<'_>>) -> WarehouseError {
        error::of_session(error, self.driver.failure.as_ref(), sent, self.dialect)
    }

    /// Begins the read-only transaction in which everything is done.
    pub(in crate::warehouse) async fn begin(&mut self) -> Result<(), WarehouseError> {
        // A killed process cannot cancel its query. Since version 14 the server can notice that the client is gone;
        // not on every system, and then it refuses the setting, which is as well.
        if self.driver.major_version() >= 14 {
            let set = self.client.batch_execute("SET client_connection_check_interval = '5s'");
            if let Err(e) = self.driver.drive(set).await
                && e.as_db_error().is_none()
            {
                return Err(self.failed(&e, None));
            }
        }
        // Such a database may hold bytes that are no text in any encoding. Asked for UTF-8, the server would fail the
        // whole query at the first of them; asked for bytes as they are, only their rows are lost.
        let begin = match self.driver.server_encoding.as_str() {
            "SQL_ASCII" => "SET client_encoding = 'SQL_ASCII'; BEGIN READ ONLY",
            _ => "BEGIN READ ONLY",
        };
        self.execute(begin, None).await
    }

    /// Prepares a statement.
    pub(in crate::warehouse) async fn prepare(
        &mut self,
        statement: &str,
        sent: Option<Sent<'_>>,
    ) -> Result<tokio_postgres::Statement, WarehouseError> {
        let prepare = self.client.prepare(statement);
        let prepared = self.driver.drive(prepare).await;
        prepared.map_err(|e| self.failed(&e, sent))
    }

    /// Runs a query of our own and returns its few rows.
    pub(in crate::warehouse) async fn rows(
        &mut self,
        statement: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, WarehouseError> {
        let query = self.client.query(statement, parameters);
        let rows = self.driver.drive(query).await;
        rows.map_err(|e| self.failed(&e, None))
    }

    /// Says goodbye, so that the server does not log a lost connection. Waits no longer than a moment.
    pub(in crate::warehouse) async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        let _ = tokio::time::timeout(Duration::from_secs(1), poll_fn(|cx| driver.poll(cx))).await;
    }
}

type Conversation = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// The conversation with the server. Nothing moves unless it is polled.
pub(in crate::warehouse) struct Driver {
    conversation: Option<Conversation>,
    /// What ended it, if an error did.
    pub failure: Option<Error>,
    pub server_version: String,
    pub server_encoding: String,
}

impl Driver {
    pub(in crate::warehouse) fn new<S, T>(connection: Connection<S, T>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let parameter = |name: &str| connection.parameter(name).unwrap_or_default().to_string();
        Self {
            server_version: parameter("server_version"),
            server_encoding: parameter("server_encoding"),
            conversation: Some(Box::pin(connection)),
            failure: None,
        }
    }

    /// `15` of `15.18 (Debian …)`; 0 when the server does not say.
    pub(in crate::warehouse) fn major_version(&self) -> u32 {
        let digits = self.server_version.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.server_version.len());
        self.server_version[..digits].parse().unwrap_or(0)
    }

    /// Ready when the conversation has ended.
    pub(in crate::warehouse) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(conversation) = &mut self.conversation else { return Poll::Ready(()) };
        match conversation.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                self.conversation = None;
                self.failure = result.err();
                Poll::Ready(())
            }
        }
    }

    /// Waits for `answer`, which the conversation brings.
    pub(in crate::warehouse) async fn drive<F: Future>(&mut self, answer: F) -> F::Output {
        let mut answer = pin!(answer);
        poll_fn(|cx| {
            if let Poll::Ready(output) = answer.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            // once it has ended, `answer` ends with an error of its own
            let _ = self.poll(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }
}
