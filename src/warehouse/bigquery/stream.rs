//! One stream of rows: from its session to its end, over every break.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as proto;
use proto::ReadRowsRequest;
use proto::read_rows_response::Rows;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tonic::Status;

use super::api::Api;
use super::error::Asker;
use super::ipc::Decoder;
use super::storage::{Storage, decoder};
use super::{status, types};
use crate::warehouse::{WarehouseError, http};

/// Who asks for more patience gets it from the run, which can be watched and cancelled.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a stream stopped.
pub(super) enum Stopped {
    /// The server or the network ended it.
    Status(Status),
    Fault(WarehouseError),
    /// Nobody wants more rows.
    Enough,
}

impl From<Status> for Stopped {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<WarehouseError> for Stopped {
    fn from(error: WarehouseError) -> Self {
        Self::Fault(error)
    }
}

/// Tries again without end as long as rows come between the failures, and a few times when none do.
pub(super) struct Patience {
    waits: Box<dyn Iterator<Item = Duration> + Send>,
    renewed: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Self { waits: Box::new(http::waits()), renewed: false }
    }
}

impl Patience {
    /// Waits until it is worth another try, or says why it is not.
    pub(super) async fn after(
        &mut self,
        status: &Status,
        token: &SecretString,
        api: &Api,
        asker: &Asker,
    ) -> Result<(), WarehouseError> {
        if status.code() == tonic::Code::Unauthenticated {
            api.tokens.refused(token).await;
            if !std::mem::replace(&mut self.renewed, true) {
                return Ok(());
            }
        }
        let asked_for = status::patience(status).unwrap_or_default();
        let again = status::is_passing(status) && asked_for <= LONGEST_WAIT;
        match self.waits.next().filter(|_| again) {
            Some(wait) => {
                let wait = wait.max(asked_for);
                tracing::debug!(code = ?status.code(), wait_ms = wait.as_millis() as u64, "a read failed, trying again");
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(status::into_error(status, asker)),
        }
    }
}

/// One stream of a session, on its way to the reading task.
pub(super) struct RowStream {
    storage: Arc<Storage>,
    /// Given for sorted rows: then a session that has expired is made anew.
    table: Option<String>,
    name: String,
    decoder: Decoder,
    schema: SchemaRef,
    /// Rows of this session's stream that have come: where it is taken up.
    received: i64,
    /// Rows that a session before this one has brought.
    skip: i64,
    handed_on: i64,
    sender: mpsc::Sender<Result<RecordBatch, WarehouseError>>,
}

impl RowStream {
    pub(super) fn new(
        storage: Arc<Storage>,
        table: Option<String>,
        name: String,
        decoder: Decoder,
        schema: SchemaRef,
        sender: mpsc::Sender<Result<RecordBatch, WarehouseError>>,
    ) -> Self {
        Self { storage, table, name, decoder, schema, received: 0, skip: 0, handed_on: 0, sender }
    }

    pub(super) async fn read_to_the_end(mut self, asker: Asker) {
        if let Err(error) = self.read_on(&asker).await {
            let _ = self.sender.send(Err(error)).await;
        }
    }

    async fn read_on(&mut self, asker: &Asker) -> Result<(), WarehouseError> {
        let mut patience = Patience::default();
        // sessions made anew without a new row since
        let mut in_vain = 0;
        loop {
            let token = self.storage.api.tokens.token().await?;
            let (before, handed_on) = (self.received, self.handed_on);
            let stopped = match self.read_from_offset(&token).await {
                Ok(()) | Err(Stopped::Enough) => return Ok(()),
                Err(Stopped::Fault(e)) => return Err(e),
                Err(Stopped::Status(status)) => status,
            };
            if self.received > before {
                patience = Patience::default();
            }
            if self.handed_on > handed_on {
                in_vain = 0;
            }
            match self.table.clone() {
                Some(table) if status::is_expired(&stopped) && in_vain < 2 => {
                    in_vain += 1;
                    self.begin_anew(&table, asker).await?;
                }
                _ => patience.after(&stopped, &token, &self.storage.api, asker).await?,
            }
        }
    }

    /// Reads from where it stopped to its end.
    async fn read_from_offset(&mut self, token: &SecretString) -> Result<(), Stopped> {
        let storage = self.storage.clone();
        let message = ReadRowsRequest { read_stream: self.name.clone(), offset: self.received };
        let request = Storage::request(message, token, ("read_stream", &self.name))?;
        let mut answers =
            storage.in_time(async { storage.client.clone().read_rows(request).await }).await?.into_inner();
        while let Some(answer) = storage.in_time(answers.message()).await? {
            let batches = match answer.rows {
                Some(Rows::ArrowRecordBatch(batch)) => self.decoder.decode(batch.serialized_record_batch)?,
                Some(Rows::AvroRows(_)) => return Err(WarehouseError::bug("BigQuery sent Avro rows").into()),
                None => continue,
            };
            for batch in batches {
                self.hand_on(batch).await?;
            }
        }
        Ok(())
    }

    async fn hand_on(&mut self, batch: RecordBatch) -> Result<(), Stopped> {
        let rows = i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        let known = self.skip.min(rows);
        if known < rows {
            let known = usize::try_from(known).unwrap_or_default();
            let fields = self.schema.fields().iter().zip(batch.columns());
            let columns = fields.map(|(field, column)| types::adapt(&column.slice(known, column.len() - known), field));
            let batch = RecordBatch::try_new(self.schema.clone(), columns.collect::<Result<Vec<_>, _>>()?)
                .map_err(|e| WarehouseError::bug(format!("the rows do not fit their schema: {e}")))?;
            if self.sender.send(Ok(batch)).await.is_err() {
                return Err(Stopped::Enough);
            }
        }
        self.skip -= known;
        self.received += rows;
        self.handed_on += rows - known;
        Ok(())
    }

    /// Another session over the same table. Its rows come in the same order, so the first ones are known.
    async fn begin_anew(&mut self, table: &str, asker: &Asker) -> Result<(), WarehouseError> {
        let session = self.storage.session_with_patience(table, 1, asker).await?;
        let [stream] = session.streams.as_slice() else {
            return Err(WarehouseError::retry("the read session expired and could not be made anew"));
        };
        tracing::info!(rows = self.handed_on, "a read session expired and was made anew");
        self.decoder = decoder(&session, &self.schema)?;
        self.name = stream.name.clone();
        (self.received, self.skip) = (0, self.handed_on);
        Ok(())
    }
}
