//! Rows through S3: Redshift writes the result there as Parquet, and it is read from there.
//!
//! ```text
//! UNLOAD ('<query>') TO 's3://bucket/prefix/cc-<uuid>/' … PARQUET MANIFEST
//!     --> manifest --> files, a few at a time, row group by row group --> adapted batches --> channel (2) --> stream
//!     --> the folder is removed: at the end, after a failure, after a cancel
//! ```
//!
//! Every slice of the cluster writes at once, so this is the fast way. What it cannot keep goes through the cursor:
//! samples, and results that are both ordered and in need of rendering. An ordered result is written by one slice
//! (`PARALLEL OFF`), which keeps the order across files.
//!
//! `UNLOAD` runs by itself, outside the read-only transaction in which the query was described; by its grammar it takes
//! nothing but a query, and it writes to S3 only. Once the files are there, the query is never run again: a download
//! that breaks off goes on where it stopped.

mod adapt;
mod bucket;
mod files;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;

pub(super) use self::bucket::Bucket;
use self::bucket::Folder;
use super::config::Role;
use super::cursor::{Stop, failed};
use super::dialect::quote_text;
use super::session::Described;
use super::types::Via;
use crate::warehouse::postgres::connect::Connector;
use crate::warehouse::postgres::session::Session;
use crate::warehouse::postgres::sql::ReadingStatement;
use crate::warehouse::postgres::types::Plan;
use crate::warehouse::task::{Batches, End, StopQuery, start as start_task};
use crate::warehouse::{QueryOptions, RunningQuery, WarehouseError};

/// A result that can go through S3.
#[derive(Debug)]
pub(super) struct UnloadPlan {
    plan: Plan,
    /// What is unloaded: the model's SQL, or a query around it.
    select: String,
    /// May every slice write? (Then order is lost.)
    parallel: bool,
}

/// How a described statement is unloaded; none when it has to go through the cursor.
pub(super) fn plan(
    described: &Described,
    statement: &ReadingStatement,
    options: &QueryOptions,
) -> Result<Option<UnloadPlan>, WarehouseError> {
    if options.limit.is_some() {
        return Ok(None);
    }
    let plan = described.plan(Via::Parquet)?;
    // UNLOAD takes no LIMIT outside parentheses, and files have no two columns of one name
    let wrap = !plan.is_as_is() || statement.is_limited || !has_distinct_names(&plan);
    if wrap && statement.is_ordered {
        tracing::info!("a result in order that has to be rendered is read through a cursor, not through S3");
        return Ok(None);
    }
    let select = if wrap { plan.wrapped(&statement.text, None).0 } else { statement.text.clone() };
    Ok(Some(UnloadPlan { plan, select, parallel: !statement.is_ordered }))
}

fn has_distinct_names(plan: &Plan) -> bool {
    let mut names: Vec<_> = plan.schema.fields().iter().map(|f| f.name().to_lowercase()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    names.len() == count && names.iter().all(|n| !n.is_empty() && n != "?column?")
}

/// What the reading task works with.
pub(super) struct Unloading {
    connector: Arc<Connector>,
    bucket: Arc<Bucket>,
    folder: Folder,
    session: Session,
    plan: UnloadPlan,
    /// Might the server still be writing?
    writing: Arc<AtomicBool>,
    began: Instant,
}

/// Stops an unloading, and removes what it wrote.
struct StopUnloading {
    stop: Stop,
    writing: Arc<AtomicBool>,
    bucket: Arc<Bucket>,
    folder: Folder,
}

/// What the server writes while it hears of the cancel is removed after so long.
const LAST_WRITES: Duration = Duration::from_secs(1);

#[async_trait]
impl StopQuery for StopUnloading {
    async fn stop(&self) -> Result<(), WarehouseError> {
        let writing = self.writing.load(Ordering::Acquire);
        let (stop, bucket, folder) = (self.stop.clone(), self.bucket.clone(), self.folder.clone());
        // a task of its own: it goes on when nobody waits any more, and whatever comes of the cancel
        let removal = tokio::spawn(async move {
            let stopped = if writing { stop.stop().await } else { Ok(()) };
            bucket.remove(&folder).await;
            if writing {
                tokio::time::sleep(LAST_WRITES).await;
                bucket.remove(&folder).await;
            }
            stopped
        });
        removal.await.unwrap_or_else(|e| Err(WarehouseError::bug(format!("the removal of unloaded files ended: {e}"))))
    }
}

impl Unloading {
    pub(super) fn new(connector: Arc<Connector>, bucket: Arc<Bucket>, session: Session, plan: UnloadPlan) -> Self {
        let folder = bucket.new_folder();
        let writing = Arc::new(AtomicBool::new(true));
        Self { connector, bucket, folder, session, plan, writing, began: Instant::now() }
    }

    fn statement(&self) -> String {
        let config = &self.bucket.config;
        let role = match &config.role {
            Role::Default => "default".to_string(),
            Role::Arn(arn) => quote_text(arn),
        };
        let mut statement = format!(
            "UNLOAD ({})\nTO {}\nIAM_ROLE {role}\nFORMAT AS PARQUET\nMANIFEST",
            quote_text(&self.plan.select),
            quote_text(&self.bucket.url_of(&self.folder)),
        );
        if let Some(region) = &config.region {
            statement.push_str(&format!("\nREGION AS {}", quote_text(region)));
        }
        if !self.plan.parallel {
            statement.push_str("\nPARALLEL OFF");
        }
        statement
    }

    /// Has the server write; tells how many rows it wrote, as far as it says.
    async fn write(&mut self, limit: Duration) -> Result<Option<u64>, WarehouseError> {
        // the transaction in which the query was described
        self.session.execute("COMMIT", None).await?;
        self.began = Instant::now();
        let statement = self.statement();
        let client = &self.session.client;
        let written = self.session.driver.drive(client.batch_execute(&statement)).await;
        // an answer, good or bad, is the end of its writing; a lost connection is not
        let answered = written.as_ref().map_or_else(|e| e.as_db_error().is_some(), |()| true);
        self.writing.store(!answered, Ordering::Release);
        written.map_err(|e| failed(&self.session, &e, None, self.began, limit))?;
        let rows = self.session.rows("SELECT pg_last_unload_count()::bigint", &[]).await?;
        Ok(rows.first().and_then(|row| row.try_get::<_, i64>(0).ok()).and_then(|n| u64::try_from(n).ok()))
    }

    async fn read(mut self, options: QueryOptions, mut batches: Batches) -> Result<End, WarehouseError> {
        let limit = self.connector.statement_timeout(options.timeout);
        let written = self.write(limit).await?;
        let Self { session, bucket, folder, plan, .. } = self;
        // its work is done, and connections to a cluster are few
        session.close().await;
        let files = bucket.files(&folder, written).await?;
        let rows = match files::read(&bucket, files, &plan.plan, options.batch_rows, &mut batches).await? {
            files::Read::All { rows } => rows,
            files::Read::Enough => return Ok(End::Abandoned),
        };
        if let Some(written) = written.filter(|written| *written != rows) {
            return Err(WarehouseError::retry(format!("{rows} rows came out of S3 where Redshift wrote {written}"))
                .with_hint("something else may have removed files below `unload_bucket` meanwhile; try again"));
        }
        bucket.remove(&folder).await;
        Ok(End::Complete)
    }
}

/// Starts the unloading and the reading; the session is inside the transaction of its description.
pub(super) fn start(unloading: Unloading, options: &QueryOptions) -> RunningQuery {
    let stop = StopUnloading {
        stop: Stop {
            connector: unloading.connector.clone(),
            token: unloading.session.client.cancel_token(),
            peer: unloading.session.peer,
        },
        writing: unloading.writing.clone(),
        bucket: unloading.bucket.clone(),
        folder: unloading.folder.clone(),
    };
    let schema = unloading.plan.plan.schema.clone();
    let options = options.clone();
    start_task(schema, None, Arc::new(stop), |batches| async move { unloading.read(options, batches).await })
}

/// Does it all with a result of one row.
pub(super) async fn test(unloading: Unloading) -> Result<(), WarehouseError> {
    let mut running = start(unloading, &QueryOptions::default());
    let mut rows = 0;
    while let Some(batch) = running.stream.next().await {
        rows += match batch {
            Ok(batch) => batch.num_rows(),
            Err(datafusion::error::DataFusionError::External(e)) => {
                return Err(e.downcast::<WarehouseError>().map_or_else(|e| WarehouseError::bug(e.to_string()), |e| *e));
            }
            Err(e) => return Err(WarehouseError::bug(e.to_string())),
        };
    }
    if rows == 1 { Ok(()) } else { Err(WarehouseError::bug(format!("{rows} rows came back where one was written"))) }
}
