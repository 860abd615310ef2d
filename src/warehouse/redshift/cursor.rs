//! Rows through a cursor.
//!
//! ```text
//! BEGIN READ ONLY; DECLARE cc_rows CURSOR FOR <query>
//! FETCH FORWARD n FROM cc_rows --binary rows--> RowDecoder --batches--> channel (2) --> stream
//! FETCH FORWARD n …            until one brings fewer than n
//! ```
//!
//! Redshift runs the query at the first `FETCH` and keeps its result on the leader node. Rows are decoded as they come,
//! so `n` bounds no memory here; it is how often the server is asked. When nobody takes the batches nothing is read from
//! the socket. A connection that breaks takes the cursor along: nothing can resume it, and the run tries again.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{CancelToken, Row, Statement};

use super::config::RedshiftConfig;
use super::session::{Way, begin};
use crate::warehouse::postgres::connect::Connector;
use crate::warehouse::postgres::decode::RowDecoder;
use crate::warehouse::postgres::error::{Sent, of_stopped};
use crate::warehouse::postgres::session::Session;
use crate::warehouse::postgres::types::Plan;
use crate::warehouse::task::{Batches, End, StopQuery, start as start_task};
use crate::warehouse::text::human;
use crate::warehouse::{QueryOptions, RunningQuery, WarehouseError};

/// Batches of wide rows end here, whatever their number of rows.
const BATCH_BYTES: usize = 4 << 20;
/// What a single-node cluster gives at a time.
const SINGLE_NODE_ROWS: usize = 1000;

/// A field as it came.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Stops a query through the protocol's own cancel.
#[derive(Clone)]
pub(super) struct Stop {
    pub connector: Arc<Connector>,
    pub token: CancelToken,
    pub peer: std::net::SocketAddr,
}

#[async_trait]
impl StopQuery for Stop {
    async fn stop(&self) -> Result<(), WarehouseError> {
        self.connector.cancel(&self.token, self.peer).await;
        Ok(())
    }
}

/// What the reading task works with.
struct Cursor {
    session: Session,
    plan: Plan,
    way: Way,
    statement: String,
    sql: String,
    /// Characters of ours before the model's SQL.
    prefix: usize,
    fetch_rows: usize,
    batch_rows: usize,
    limit: Duration,
    idle_timeout: Duration,
    began: Instant,
}

/// Starts reading; `session` is inside its transaction.
pub(super) fn start(
    connector: Arc<Connector>,
    config: &RedshiftConfig,
    session: Session,
    plan: Plan,
    way: Way,
    sql: &str,
    options: &QueryOptions,
) -> RunningQuery {
    let (inner, inner_prefix) = plan.statement(sql, options.limit);
    // lines of its own: the SQL may begin or end in a comment
    let before = "DECLARE cc_rows CURSOR FOR\n";
    let stop = Stop { connector: connector.clone(), token: session.client.cancel_token(), peer: session.peer };
    let schema = plan.schema.clone();
    let cursor = Cursor {
        session,
        plan,
        way,
        statement: format!("{before}{inner}"),
        sql: sql.to_string(),
        prefix: before.chars().count() + inner_prefix,
        fetch_rows: config.fetch_rows,
        batch_rows: options.batch_rows.max(1),
        limit: connector.statement_timeout(options.timeout),
        idle_timeout: config.idle_timeout,
        began: Instant::now(),
    };
    start_task(schema, options.limit, Arc::new(stop), |batches| async move { cursor.read(batches).await })
}

impl Cursor {
    async fn read(mut self, mut batches: Batches) -> Result<End, WarehouseError> {
        let mut fetch = self.declare().await?;
        let mut decoder = RowDecoder::new(self.plan.schema.clone(), self.plan.carriers(), self.batch_rows);
        let mut first = true;
        loop {
            let fetched = match self.fetch(&fetch, first, &mut decoder, &mut batches).await {
                // refused before anything ran
                Err(Fetched::Refused) if first && self.fetch_rows > SINGLE_NODE_ROWS => {
                    tracing::debug!("a single-node cluster: {SINGLE_NODE_ROWS} rows at a time");
                    self.fetch_rows = SINGLE_NODE_ROWS;
                    self.session.execute("ROLLBACK", None).await?;
                    begin(&mut self.session, self.way).await?;
                    fetch = self.declare().await?;
                    continue;
                }
                Err(Fetched::Refused) => return Err(WarehouseError::bug("the server refuses every size of a fetch")),
                Err(Fetched::Enough) => return Ok(End::Abandoned),
                Err(Fetched::Failed(e)) => return Err(*e),
                Ok(rows) => rows,
            };
            first = false;
            if fetched < self.fetch_rows {
                break;
            }
        }
        if decoder.rows() > 0 {
            // the rows are all read: if nobody wants the last ones there is nothing left to stop
            let _ = batches.send(decoder.take()?).await;
        }
        let Self { mut session, .. } = self;
        // ends the cursor too
        if let Err(e) = session.execute("COMMIT", None).await {
            tracing::debug!(error = %e, "the transaction could not be ended");
        }
        session.close().await;
        Ok(End::Complete)
    }

    /// Declares the cursor, and prepares the statement that fetches from it.
    async fn declare(&mut self) -> Result<Statement, WarehouseError> {
        let sent = Sent { sql: &self.sql, prefix: self.prefix };
        let client = &self.session.client;
        let declared = self.session.driver.drive(client.batch_execute(&self.statement)).await;
        declared.map_err(|e| self.failed(&e, Some(sent)))?;
        let fetch = format!("FETCH FORWARD {} FROM cc_rows", self.fetch_rows);
        self.session.prepare(&fetch, None).await
    }

    /// Fetches once; tells how many rows came.
    async fn fetch(
        &mut self,
        statement: &Statement,
        first: bool,
        decoder: &mut RowDecoder,
        batches: &mut Batches,
    ) -> Result<usize, Fetched> {
        let parameters = std::iter::empty::<&(dyn tokio_postgres::types::ToSql + Sync)>();
        let client = &self.session.client;
        let opened = self.session.driver.drive(client.query_raw(statement, parameters)).await;
        let mut rows = pin!(opened.map_err(|e| self.fetch_failed(&e))?);
        let mut count = 0;
        loop {
            // the query itself may take long before its first row; that is `statement_timeout`'s business
            let idle = (!(self.idle_timeout.is_zero() || first && count == 0)).then_some(self.idle_timeout);
            let next = self.session.driver.drive(rows.next());
            let next = match idle {
                Some(idle) => tokio::time::timeout(idle, next).await.map_err(|_| gone_quiet(idle))?,
                None => next.await,
            };
            let Some(row) = next else { return Ok(count) };
            let row = row.map_err(|e| self.fetch_failed(&e))?;
            append(&row, decoder)?;
            count += 1;
            if decoder.rows() >= self.batch_rows || decoder.bytes() >= BATCH_BYTES {
                batches.send(decoder.take()?).await.map_err(|_| Fetched::Enough)?;
            }
        }
    }

    fn fetch_failed(&self, error: &tokio_postgres::Error) -> Fetched {
        // Fetch size 10000 exceeds the limit of 1000 for a single node configuration.
        let refused = |m: &str| m.starts_with("Fetch size") && m.contains("exceeds the limit");
        if error.as_db_error().is_some_and(|db| refused(db.message())) {
            return Fetched::Refused;
        }
        Fetched::Failed(Box::new(self.failed(error, None)))
    }

    fn failed(&self, error: &tokio_postgres::Error, sent: Option<Sent<'_>>) -> WarehouseError {
        failed(&self.session, error, sent, self.began, self.limit)
    }
}

/// What an error of a running query means. Redshift reports a timeout and a cancel alike.
pub(super) fn failed(
    session: &Session,
    error: &tokio_postgres::Error,
    sent: Option<Sent<'_>>,
    began: Instant,
    limit: Duration,
) -> WarehouseError {
    match error.as_db_error() {
        Some(db) if *db.code() == SqlState::QUERY_CANCELED && !db.message().contains("WLM") => {
            of_stopped(db, false, began.elapsed(), limit)
        }
        _ => session.failed(error, sent),
    }
}

fn append(row: &Row, decoder: &mut RowDecoder) -> Result<(), WarehouseError> {
    for column in 0..row.len() {
        let field: Option<Raw<'_>> =
            row.try_get(column).map_err(|e| WarehouseError::bug(format!("a row cannot be read: {e}")))?;
        decoder.append(column, field.map(|raw| raw.0))?;
    }
    decoder.end_row();
    Ok(())
}

fn gone_quiet(idle: Duration) -> WarehouseError {
    WarehouseError::retry(format!("the rows stopped coming for {}", human(idle)))
        .with_hint("the network or the cluster hangs; try again, or raise `idle_timeout`")
}

/// How a fetch ended that did not bring its rows.
enum Fetched {
    /// So many rows are not given at a time.
    Refused,
    Enough,
    Failed(Box<WarehouseError>),
}

impl From<WarehouseError> for Fetched {
    fn from(error: WarehouseError) -> Self {
        Self::Failed(Box::new(error))
    }
}
