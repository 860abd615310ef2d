//! Spans over OTLP (HTTP, protobuf), where the standard variables name a collector: `OTEL_EXPORTER_OTLP_ENDPOINT` or
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, with `…_HEADERS` and `…_TIMEOUT`; `OTEL_SERVICE_NAME` and
//! `OTEL_RESOURCE_ATTRIBUTES` describe the process, `OTEL_TRACES_SAMPLER` says how many are kept, and
//! `OTEL_SDK_DISABLED=true` switches all of it off.
//!
//! The collector is the operator's own, and may be in a private network: its address is not guarded.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::WithHttpConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

const SERVICE_NAME: &str = "cloud-connect";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// At the end, spans that are not out by then are lost.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// The exporter, with the spans that are not sent yet.
#[derive(Debug, Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be exported: {0}")]
pub struct TracesError(String);

impl Traces {
    /// What the environment asks for; None: nothing. Call it inside the runtime that is to send.
    pub fn from_environment() -> Result<Option<Self>, TracesError> {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let disabled = given("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || given("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let endpoint = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| given("OTEL_EXPORTER_OTLP_ENDPOINT"));
        if disabled || endpoint.is_none() {
            return Ok(None);
        }
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().with_http_client(Client::new()?);
        Ok(Some(Self::with_exporter(exporter.build().map_err(|e| TracesError(e.to_string()))?)))
    }

    /// To that address, whatever the environment says.
    #[cfg(test)]
    pub(super) fn to(endpoint: &str) -> Result<Self, TracesError> {
        use opentelemetry_otlp::WithExportConfig as _;
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().with_http_client(Client::new()?);
        let exporter = exporter.with_endpoint(endpoint).build().map_err(|e| TracesError(e.to_string()))?;
        Ok(Self::with_exporter(exporter))
    }

    fn with_exporter(exporter: opentelemetry_otlp::SpanExporter) -> Self {
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(SERVICE_NAME);
        }
        let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.with_attribute(version).build())
            .build();
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        Self { provider }
    }

    /// The layer that hands spans over.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + Send + Sync + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer(SERVICE_NAME))
    }

    /// Sends what is left.
    pub async fn shutdown(self) {
        // it waits for a thread, which waits for this runtime
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(SHUTDOWN_LIMIT)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Sends for the exporter, whose thread is none of the runtime's.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

impl Client {
    fn new() -> Result<Self, TracesError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|e| TracesError(e.to_string()))?;
        let client = reqwest::Client::builder()
            .user_agent(concat!("cloud-connect/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| TracesError(e.to_string()))?;
        Ok(Self { client, runtime })
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, request) = (self.client.clone(), reqwest::Request::try_from(request)?);
        let sent = self.runtime.spawn(async move {
            // the address may hold a token, so it stays out of errors
            let response = client.execute(request).await.map_err(reqwest::Error::without_url)?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, response.bytes().await.map_err(reqwest::Error::without_url)?))
        });
        let (status, body) = sent.await??;
        Ok(Response::builder().status(status).body(body)?)
    }
}
