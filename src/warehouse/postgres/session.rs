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

use super::error::{self, Sent};
use crate::warehouse::WarehouseError;

/// A logged-in session.
pub(super) struct Session {
    pub client: Client,
    pub driver: Driver,
    /// The address that it talks to.
    pub peer: SocketAddr,
}

impl Session {
    pub(super) fn new(client: Client, driver: Driver, peer: SocketAddr) -> Self {
        Self { client, driver, peer }
    }

    /// Begins the read-only transaction in which everything is done.
    pub(super) async fn begin(&mut self) -> Result<(), WarehouseError> {
        // A killed process cannot cancel its query. Since version 14 the server can notice that the client is gone;
        // not on every system, and then it refuses the setting, which is as well.
        if self.driver.major_version() >= 14 {
            let set = self.client.batch_execute("SET client_connection_check_interval = '5s'");
            if let Err(e) = self.driver.drive(set).await
                && e.as_db_error().is_none()
            {
                return Err(error::of_session(&e, self.driver.failure.as_ref(), None));
            }
        }
        // Such a database may hold bytes that are no text in any encoding. Asked for UTF-8, the server would fail the
        // whole query at the first of them; asked for bytes as they are, only their rows are lost.
        let begin = match self.driver.server_encoding.as_str() {
            "SQL_ASCII" => "SET client_encoding = 'SQL_ASCII'; BEGIN READ ONLY",
            _ => "BEGIN READ ONLY",
        };
        let begin = self.client.batch_execute(begin);
        self.driver.drive(begin).await.map_err(|e| error::of_session(&e, self.driver.failure.as_ref(), None))
    }

    /// Prepares a statement.
    pub(super) async fn prepare(
        &mut self,
        statement: &str,
        sent: Option<Sent<'_>>,
    ) -> Result<tokio_postgres::Statement, WarehouseError> {
        let prepare = self.client.prepare(statement);
        self.driver.drive(prepare).await.map_err(|e| error::of_session(&e, self.driver.failure.as_ref(), sent))
    }

    /// Runs a query of our own and returns its few rows.
    pub(super) async fn rows(
        &mut self,
        statement: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, WarehouseError> {
        let query = self.client.query(statement, parameters);
        self.driver.drive(query).await.map_err(|e| error::of_session(&e, self.driver.failure.as_ref(), None))
    }

    /// Says goodbye, so that the server does not log a lost connection. Waits no longer than a moment.
    pub(super) async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        let _ = tokio::time::timeout(Duration::from_secs(1), poll_fn(|cx| driver.poll(cx))).await;
    }
}

type Conversation = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// The conversation with the server. Nothing moves unless it is polled.
pub(super) struct Driver {
    conversation: Option<Conversation>,
    /// What ended it, if an error did.
    pub failure: Option<Error>,
    pub server_version: String,
    pub server_encoding: String,
}

impl Driver {
    pub(super) fn new<S, T>(connection: Connection<S, T>) -> Self
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
    pub(super) fn major_version(&self) -> u32 {
        let digits = self.server_version.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.server_version.len());
        self.server_version[..digits].parse().unwrap_or(0)
    }

    /// Ready when the conversation has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
    pub(super) async fn drive<F: Future>(&mut self, answer: F) -> F::Output {
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
