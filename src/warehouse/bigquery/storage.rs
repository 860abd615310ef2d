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

use arrow::datatypes::SchemaRef;
use gcp_bigquery_client::model::table_reference::TableReference;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as proto;
use proto::arrow_serialization_options::CompressionCodec;
use proto::big_query_read_client::BigQueryReadClient;
use proto::read_session::table_read_options::OutputFormatSerializationOptions;
use proto::read_session::{Schema, TableReadOptions};
use proto::{ArrowSerializationOptions, CreateReadSessionRequest, DataFormat, ReadSession};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::api::Api;
use super::config::BigQueryConfig;
use super::error::Asker;
use super::ipc::Decoder;
use super::stream::{Patience, RowStream, Stopped};
use super::types;
use crate::warehouse::WarehouseError;
use crate::warehouse::task::{Batches, End};
use crate::warehouse::text::chain;

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

/// Reads one result.
pub(super) struct Storage {
    pub api: Arc<Api>,
    pub client: BigQueryReadClient<Channel>,
}

/// Where the Storage Read API is, and how it is reached. Connects to nothing.
pub(super) fn endpoint(config: &BigQueryConfig) -> Result<Endpoint, WarehouseError> {
    let invalid = |e: tonic::transport::Error| {
        WarehouseError::configuration(format!("`storage_endpoint` cannot be used: {}", chain(&e)))
    };
    let endpoint = Endpoint::from_shared(config.storage_endpoint.to_string())
        .map_err(invalid)?
        .connect_timeout(config.connect_timeout)
        .tcp_keepalive(Some(KEEP_ALIVE))
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(config.idle_timeout)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .user_agent(concat!("cloud-connect/", env!("CARGO_PKG_VERSION")))
        .map_err(invalid)?;
    if config.storage_endpoint.scheme() != "https" {
        return Ok(endpoint);
    }
    // without it, a TLS connection would have to guess between the providers that are linked in
    let _ = rustls::crypto::ring::default_provider().install_default();
    endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(invalid)
}

impl Storage {
    /// Connects with the first call. Each result has a connection of its own: on a shared one, a result whose reader is
    /// slow would take up what may be under way, and hold back the others.
    pub(super) fn new(api: Arc<Api>, endpoint: &Endpoint) -> Self {
        let client = BigQueryReadClient::new(endpoint.connect_lazy()).max_decoding_message_size(MESSAGE_BYTES);
        Self { api, client }
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
        let (sender, mut receiver) = mpsc::channel(WAITING_BATCHES);
        // the tasks end with this call, however it ends
        let mut tasks = JoinSet::new();
        for stream in &session.streams {
            // sorted rows come in their order from any session's only stream, so another session can stand in
            let table = ordered.then(|| table.clone());
            let (name, decoder) = (stream.name.clone(), decoder(&session, &schema)?);
            let stream = RowStream::new(self.clone(), table, name, decoder, schema.clone(), sender.clone());
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
    pub(super) fn request<T>(
        message: T,
        token: &SecretString,
        route: (&str, &str),
    ) -> Result<Request<T>, WarehouseError> {
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
    pub(super) async fn session_with_patience(
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
    pub(super) async fn in_time<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let silent = |_| Err(Status::deadline_exceeded("no answer came in time (`idle_timeout`)"));
        tokio::time::timeout(self.api.config.idle_timeout, call).await.unwrap_or_else(silent)
    }
}

pub(super) fn decoder(session: &ReadSession, schema: &SchemaRef) -> Result<Decoder, WarehouseError> {
    let Some(Schema::ArrowSchema(sent)) = &session.schema else {
        return Err(WarehouseError::bug("the read session has no Arrow schema"));
    };
    let decoder = Decoder::new(sent.serialized_schema.clone())?;
    types::check(schema, &decoder.schema)?;
    Ok(decoder)
}
