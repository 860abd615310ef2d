//! `google.cloud.bigquery.storage.v1.BigQueryRead`: sessions and streams.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use bytes::{Buf, BufMut};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use super::wire::{Writer, bytes, number, text};
use super::{Answer, LOCATION, PROJECT, Session, State};

const BATCH_ROWS: u64 = 4096;
/// A fault strikes after so many batches of a read.
const GOOD_BATCHES: u64 = 3;

pub async fn serve(listener: TcpListener, state: Arc<State>) {
    let service = Server::builder().add_service(Reads(state));
    service.serve_with_incoming(TcpIncoming::from(listener)).await.expect("the server");
}

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

#[derive(Clone)]
struct Reads(Arc<State>);

impl NamedService for Reads {
    const NAME: &'static str = "google.cloud.bigquery.storage.v1.BigQueryRead";
}

impl Service<http::Request<Body>> for Reads {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_string();
            Ok(match method.as_str() {
                "CreateReadSession" => Grpc::new(Raw).unary(CreateReadSession(service.0), request).await,
                "ReadRows" => Grpc::new(Raw).server_streaming(ReadRows(service.0), request).await,
                other => Status::unimplemented(other).into_http(),
            })
        })
    }
}

/// What every call needs: a good token and the routing header.
fn check(state: &State, request: &Request<Vec<u8>>, route: &str) -> Result<(), Status> {
    let header = |name: &str| request.metadata().get(name).and_then(|value| value.to_str().ok());
    if !state.is_valid(header("authorization")) {
        return Err(Status::unauthenticated("Request had invalid authentication credentials."));
    }
    let route: String = url::form_urlencoded::byte_serialize(route.as_bytes()).collect();
    if !header("x-goog-request-params").is_some_and(|given| given.ends_with(&format!("={route}"))) {
        return Err(Status::invalid_argument("Missing or invalid routing header."));
    }
    let mut inner = state.inner();
    if let Some((times, seconds)) = inner.faults.throttle_reads.as_mut().filter(|(times, _)| *times > 0) {
        *times = times.saturating_sub(1);
        let info = Writer::default().message(1, Writer::default().number(1, *seconds));
        let any = Writer::default().bytes(1, b"type.googleapis.com/google.rpc.RetryInfo").message(2, info);
        let details = Writer::default().number(1, 8).bytes(2, b"slow down").message(3, any);
        return Err(Status::with_details(Code::ResourceExhausted, "Quota exceeded for reads", details.0.into()));
    }
    Ok(())
}

struct CreateReadSession(Arc<State>);

impl UnaryService<Vec<u8>> for CreateReadSession {
    type Response = Vec<u8>;
    type Future = Ready<Result<Response<Vec<u8>>, Status>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        ready(create(&self.0, &request).map(Response::new))
    }
}

fn create(state: &State, request: &Request<Vec<u8>>) -> Result<Vec<u8>, Status> {
    let message = request.get_ref();
    let (parent, asked, most) = (text(message, 1), bytes(message, 2), number(message, 3));
    let table = text(asked, 6);
    check(state, request, &table)?;
    if parent != format!("projects/{PROJECT}") || number(asked, 3) != 2 {
        return Err(Status::invalid_argument(format!("parent {parent}, format {}", number(asked, 3))));
    }
    let mut inner = state.inner();
    if let Some(message) = &inner.faults.deny_sessions {
        return Err(Status::permission_denied(message.clone()));
    }
    let job = table.rsplit_once("/tables/anon_").map(|(_, job)| job.to_string()).unwrap_or_default();
    let Some(answer) = inner.jobs.get(&job).and_then(|job| (state.script)(&job.query).ok()) else {
        return Err(Status::not_found(format!("Not found: Table {table}")));
    };
    // options (8): arrow (3): buffer_compression (2)
    let compressed = number(bytes(bytes(asked, 8), 3), 2) == 1;
    let streams = match answer.rows {
        0 => 0,
        rows => rows.div_ceil(BATCH_ROWS).min(if most == 0 { 8 } else { most }),
    };
    inner.sessions.push(Session { job, streams, compressed, expired: false });
    let name = format!("projects/{PROJECT}/locations/{LOCATION}/sessions/{}", inner.sessions.len() - 1);
    let mut schema = message_bytes(&answer.schema, None, compressed);
    if state.marks_end {
        schema.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    }
    let mut session = Writer::default()
        .bytes(1, name.as_bytes())
        .number(3, 2)
        .message(5, Writer::default().bytes(1, &schema))
        .bytes(6, table.as_bytes());
    for stream in 0..streams {
        session = session.message(10, Writer::default().bytes(1, format!("{name}/streams/{stream}").as_bytes()));
    }
    Ok(session.number(14, answer.rows).0)
}

/// The schema's message, or a batch's.
fn message_bytes(schema: &Schema, batch: Option<&RecordBatch>, compressed: bool) -> Vec<u8> {
    let compression = compressed.then_some(CompressionType::LZ4_FRAME);
    let options = IpcWriteOptions::default().try_with_compression(compression).expect("options");
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), schema, options).expect("a writer");
    let start = writer.get_ref().len();
    match batch {
        None => writer.get_ref().clone(),
        Some(batch) => {
            writer.write(batch).expect("a batch");
            writer.get_ref()[start..].to_vec()
        }
    }
}

struct ReadRows(Arc<State>);

impl ServerStreamingService<Vec<u8>> for ReadRows {
    type Response = Vec<u8>;
    type ResponseStream = BoxStream<'static, Result<Vec<u8>, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        ready(read(&self.0, &request).map(Response::new))
    }
}

fn read(state: &Arc<State>, request: &Request<Vec<u8>>) -> Result<BoxStream<'static, Result<Vec<u8>, Status>>, Status> {
    let (name, offset) = (text(request.get_ref(), 1), number(request.get_ref(), 2));
    check(state, request, &name)?;
    let invalid = || Status::invalid_argument(format!("no stream {name}"));
    let mut parts = name.rsplit('/');
    let stream: u64 = parts.next().and_then(|n| n.parse().ok()).ok_or_else(invalid)?;
    let number: usize = parts.nth(1).and_then(|n| n.parse().ok()).ok_or_else(invalid)?;
    let mut inner = state.inner();
    let session = inner.sessions.get(number).cloned().ok_or_else(invalid)?;
    if session.expired {
        return Err(expired(&name));
    }
    inner.reads.push((name.clone(), offset));
    if offset > inner.sent.get(&name).copied().unwrap_or_default() {
        return Err(Status::failed_precondition(format!("offset {offset} has not been allocated yet")));
    }
    let answer = inner.jobs.get(&session.job).and_then(|job| (state.script)(&job.query).ok()).ok_or_else(invalid)?;
    drop(inner);
    let share = |n: u64| answer.rows * n / session.streams;
    let rows = Rows {
        state: state.clone(),
        from: share(stream) + offset,
        start: share(stream),
        end: share(stream + 1),
        answer,
        session: number,
        compressed: session.compressed,
        name,
        batches: 0,
        broken: false,
        resumed: offset > 0,
    };
    Ok(stream::unfold(rows, |mut rows| async move {
        let next = rows.next()?;
        Some((next, rows))
    })
    .boxed())
}

fn expired(name: &str) -> Status {
    Status::failed_precondition(format!(
        "there was an error operating on '{name}': session expired at 2026-01-01T00:00:00Z"
    ))
}

struct Rows {
    state: Arc<State>,
    answer: Answer,
    session: usize,
    compressed: bool,
    name: String,
    from: u64,
    start: u64,
    end: u64,
    batches: u64,
    broken: bool,
    resumed: bool,
}

impl Rows {
    fn next(&mut self) -> Option<Result<Vec<u8>, Status>> {
        if self.broken || self.from >= self.end {
            return None;
        }
        if let Some(status) = self.fault() {
            self.broken = true;
            return Some(Err(status));
        }
        let count = BATCH_ROWS.min(self.end - self.from);
        let batch = (self.answer.make)(self.from, count);
        self.state.batches_made.fetch_add(1, Ordering::Relaxed);
        self.from += count;
        self.batches += 1;
        let mut inner = self.state.inner();
        let sent = inner.sent.entry(self.name.clone()).or_default();
        *sent = (*sent).max(self.from - self.start);
        let message = message_bytes(&self.answer.schema, Some(&batch), self.compressed);
        Some(Ok(Writer::default().message(4, Writer::default().bytes(1, &message)).number(6, count).0))
    }

    fn fault(&mut self) -> Option<Status> {
        let mut inner = self.state.inner();
        let due = self.batches >= GOOD_BATCHES;
        if inner.faults.breaks > 0 && (due || self.resumed) {
            inner.faults.breaks = inner.faults.breaks.saturating_sub(1);
            return Some(Status::unavailable("The service is currently unavailable."));
        }
        if inner.faults.expire_tokens > 0 && due {
            inner.faults.expire_tokens -= 1;
            inner.tokens.clear();
            return Some(Status::unauthenticated("Request had invalid authentication credentials."));
        }
        if inner.faults.expire_sessions > 0 && due {
            inner.faults.expire_sessions -= 1;
            for session in &mut inner.sessions {
                session.expired = true;
            }
            let _ = self.session;
            return Some(expired(&self.name));
        }
        None
    }
}
