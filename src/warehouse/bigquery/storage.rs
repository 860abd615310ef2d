//! Rows through the Storage Read API.
//!
//! ```text
//! result table --session--> stream 0 --task: decode, adapt--\
//!                           stream 1 --task: decode, adapt---> channel (4) --> reading task
//!                           …                               /
//! ```
//!
//! A stream that breaks is taken up at its offset: rows handed on already are not sent again, and the query is not run
//! again. When nobody takes the batches the tasks wait, read nothing, and so the server waits too.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use gcp_bigquery_client::model::table_reference::TableReference;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as proto;
use proto::arrow_serialization_options::CompressionCodec;
use proto::big_query_read_client::BigQueryReadClient;
use proto::read_rows_response::Rows;
use proto::read_session::table_read_options::OutputFormatSerializationOptions;
use proto::read_session::{Schema, TableReadOptions};
use proto::{ArrowSerializationOptions, CreateReadSessionRequest, DataFormat, ReadRowsRequest, ReadSession};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::api::Api;
use super::error::Asker;
use super::ipc::Decoder;
use super::{status, types};
use crate::warehouse::task::{Batches, End};
use crate::warehouse::text::chain;
use crate::warehouse::{WarehouseError, http};

/// Streams that are read side by side, where the rows have no order.
const STREAMS: i32 = 4;
/// Batches that may wait for the reading task.
const WAITING_BATCHES: usize = 4;
/// An answer holds at most 100 MiB of rows; no more is taken.
const MESSAGE_BYTES: usize = 128 << 20;
/// What may be under way on the network, of one stream and of all.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// A silent connection is asked whether it still lives.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Reads results.
pub(super) struct Storage {
    api: Arc<Api>,
    client: BigQueryReadClient<Channel>,
}

/// Why a stream stopped.
enum Stopped {
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

impl Storage {
    /// Connects with the first call.
    pub(super) fn new(api: Arc<Api>) -> Result<Self, WarehouseError> {
        let config = &api.config;
        let invalid = |e: tonic::transport::Error| {
            WarehouseError::configuration(format!("`storage_endpoint` cannot be used: {}", chain(&e)))
        };
        let mut endpoint = Endpoint::from_shared(config.storage_endpoint.to_string())
            .map_err(invalid)?
            .connect_timeout(config.connect_timeout)
            .tcp_keepalive(Some(KEEP_ALIVE))
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(config.idle_timeout)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .user_agent(concat!("cloud-connect/", env!("CARGO_PKG_VERSION")))
            .map_err(invalid)?;
        if config.storage_endpoint.scheme() == "https" {
            // without it, a TLS connection would have to guess between the providers that are linked in
            let _ = rustls::crypto::ring::default_provider().install_default();
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(invalid)?;
        }
        let client = BigQueryReadClient::new(endpoint.connect_lazy()).max_decoding_message_size(MESSAGE_BYTES);
        Ok(Self { api, client })
    }

    /// Hands over the rows of `table` as batches of `schema`; `ordered`: in their order.
    pub(super) async fn read(
        self: Arc<Self>,
        table: &TableReference,
        schema: SchemaRef,
        ordered: bool,
        batch_rows: usize,
        batches: &mut Batches,
    ) -> Result<End, WarehouseError> {
        let TableReference { project_id, dataset_id, table_id } = table;
        let table = format!("projects/{project_id}/datasets/{dataset_id}/tables/{table_id}");
        let asker = self.api.asker().await;
        let session = self.session_with_patience(&table, if ordered { 1 } else { STREAMS }, &asker).await?;
        // rows that one stream alone sends have one order, so another session's stream can stand in for it
        let alone = session.streams.len() == 1;
        let (sender, mut receiver) = mpsc::channel(WAITING_BATCHES);
        // the tasks end with this call, however it ends
        let mut tasks = JoinSet::new();
        for stream in &session.streams {
            let stream = RowStream {
                storage: self.clone(),
                table: alone.then(|| table.clone()),
                name: stream.name.clone(),
                decoder: decoder(&session, &schema)?,
                schema: schema.clone(),
                received: 0,
                skip: 0,
                handed_on: 0,
                sender: sender.clone(),
            };
            tasks.spawn(stream.read_to_the_end(asker.clone()));
        }
        drop(sender);
        while let Some(batch) = receiver.recv().await {
            if let Err(enough) = batches.send_sliced(&batch?, batch_rows).await {
                return Ok(enough.into());
            }
        }
        while let Some(ended) = tasks.join_next().await {
            // a task that crashed has not sent its error
            ended.map_err(|e| WarehouseError::bug(format!("the reading of a stream ended: {e}")))?;
        }
        Ok(End::Complete)
    }

    /// A request with its token and with where it has to go.
    fn request<T>(message: T, token: &SecretString, route: (&str, &str)) -> Result<Request<T>, WarehouseError> {
        let unusable = |_| WarehouseError::bug("the access token is not a header's value");
        let mut bearer: MetadataValue<_> = format!("Bearer {}", token.expose_secret()).parse().map_err(unusable)?;
        bearer.set_sensitive(true);
        let value: String = url::form_urlencoded::byte_serialize(route.1.as_bytes()).collect();
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer);
        request
            .metadata_mut()
            .insert("x-goog-request-params", format!("{}={value}", route.0).parse().map_err(unusable)?);
        Ok(request)
    }

    async fn session(&self, table: &str, streams: i32, token: &SecretString) -> Result<ReadSession, Stopped> {
        let arrow = ArrowSerializationOptions {
            buffer_compression: CompressionCodec::Lz4Frame.into(),
            ..ArrowSerializationOptions::default()
        };
        let message = CreateReadSessionRequest {
            parent: format!("projects/{}", self.api.config.project),
            read_session: Some(ReadSession {
                table: table.to_string(),
                data_format: DataFormat::Arrow.into(),
                read_options: Some(TableReadOptions {
                    output_format_serialization_options: Some(
                        OutputFormatSerializationOptions::ArrowSerializationOptions(arrow),
                    ),
                    ..TableReadOptions::default()
                }),
                ..ReadSession::default()
            }),
            max_stream_count: streams,
            ..CreateReadSessionRequest::default()
        };
        let request = Self::request(message, token, ("read_session.table", table))?;
        let call = async { self.client.clone().create_read_session(request).await };
        Ok(self.in_time(call).await?.into_inner())
    }

    /// A session; tried again after passing trouble, and once with a new token.
    async fn session_with_patience(
        &self,
        table: &str,
        streams: i32,
        asker: &Asker,
    ) -> Result<ReadSession, WarehouseError> {
        let mut patience = Patience::default();
        loop {
            let token = self.api.tokens.token().await?;
            match self.session(table, streams, &token).await {
                Ok(session) => return Ok(session),
                Err(Stopped::Status(status)) => patience.after(&status, &token, &self.api, asker).await?,
                Err(Stopped::Fault(e)) => return Err(e),
                Err(Stopped::Enough) => return Err(WarehouseError::bug("a session was given up")),
            }
        }
    }

    /// Fails when nothing comes for too long.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let silent = |_| Err(Status::deadline_exceeded("no answer came in time (`idle_timeout`)"));
        tokio::time::timeout(self.api.config.idle_timeout, call).await.unwrap_or_else(silent)
    }
}

fn decoder(session: &ReadSession, schema: &SchemaRef) -> Result<Decoder, WarehouseError> {
    let Some(Schema::ArrowSchema(sent)) = &session.schema else {
        return Err(WarehouseError::bug("the read session has no Arrow schema"));
    };
    let decoder = Decoder::new(sent.serialized_schema.clone())?;
    types::check(schema, &decoder.schema)?;
    Ok(decoder)
}

/// Tries again without end as long as rows come between the failures, and a few times when none do.
struct Patience {
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
    async fn after(
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
struct RowStream {
    storage: Arc<Storage>,
    /// Given when the session has this stream only: then a session that has expired is made anew.
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
    async fn read_to_the_end(mut self, asker: Asker) {
        if let Err(error) = self.read_on(&asker).await {
            let _ = self.sender.send(Err(error)).await;
        }
    }

    async fn read_on(&mut self, asker: &Asker) -> Result<(), WarehouseError> {
        let mut patience = Patience::default();
        loop {
            let token = self.storage.api.tokens.token().await?;
            let before = self.received;
            let stopped = match self.read_from_offset(&token).await {
                Ok(()) | Err(Stopped::Enough) => return Ok(()),
                Err(Stopped::Fault(e)) => return Err(e),
                Err(Stopped::Status(status)) => status,
            };
            if self.received > before {
                patience = Patience::default();
            }
            match self.table.clone() {
                Some(table) if status::is_expired(&stopped) => self.begin_anew(&table, asker).await?,
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

    /// Another session over the same table. Its rows come in the same order (one stream), so the first ones are known.
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
