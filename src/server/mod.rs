//! The HTTP side of the service: the REST API, its description, and who may use it.
//!
//! ```text
//! connection ─► surround (request id, time limit, log) ─► authorize (who, may they, how often) ─► idempotent ─► handler
//! ```
//!
//! An endpoint is a handler with `#[utoipa::path]`: its path, its shapes, and (`security`) the permissions that it needs
//! are said there and nowhere else; the router, the OpenAPI document and [`authorize`] are made from it.
//!
//! Invariants: an endpoint that does not say who may use it is refused to everybody; nothing listens on an address that
//! others reach without TLS, unless a proxy is said to be in front; a secret is in no answer.

pub mod answer;
pub mod authorize;
mod browser;
pub mod extract;
pub mod idempotency;
mod limits;
mod listen;
mod openapi;
mod pages;
mod request;
mod routes;
mod rows;
pub mod state;
mod window;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate, SizeAbove};

use crate::alerts::Alerts;
use crate::people::People;
use crate::profiles::serving::ProfileService;
use crate::scheduler::Scheduler;
use crate::service::Service;
use crate::telemetry::Telemetry;
use crate::uploads::{UploadOptions, Uploads};
pub use listen::serve;

use answer::ApiError;
use authorize::Requirements;
use limits::Limits;
use routes::connections::Connections;
use routes::profiles::QuerySlots;
use state::{App, Parts};

/// Largest body of a request that is no upload, in bytes.
const MAX_BODY: usize = 2 << 20;

/// How the server listens and what it allows.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    pub listen: SocketAddr,
    /// Certificate chain and private key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// TLS ends at a proxy in front.
    pub behind_proxy: bool,
    /// Requests a second by caller; 0: no limit.
    pub rate_limit: u32,
    /// Lookups a second by caller; 0: no limit.
    pub lookup_rate_limit: u32,
    pub uploads: UploadOptions,
    /// How long running requests and runs may take to end.
    pub grace: Duration,
}

impl ServeOptions {
    /// Refuses what would carry tokens and people's data over a network in the clear.
    pub fn check(&self) -> Result<(), ServeError> {
        if self.listen.ip().to_canonical().is_loopback() || self.is_https() {
            return Ok(());
        }
        Err(ServeError::Unencrypted(self.listen))
    }

    /// Do browsers reach it over https?
    pub fn is_https(&self) -> bool {
        self.tls.is_some() || self.behind_proxy
    }
}

/// Why the server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("`{0}` can be reached by others, and the connection would not be encrypted")]
    Unencrypted(SocketAddr),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error("the certificate or its key cannot be used: {0}")]
    Tls(std::io::Error),
    #[error("the API's description is faulty: {0}")]
    Api(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl ServeError {
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unencrypted(_) => Some(
                "give --tls-cert and --tls-key, or --behind-proxy when a proxy in front ends TLS, or listen on 127.0.0.1",
            ),
            Self::Listen { error, .. } if error.kind() == std::io::ErrorKind::AddrInUse => {
                Some("another process listens there: choose another port with --listen")
            }
            Self::Tls(_) => Some("both are PEM files: the certificate first in its chain, the key unencrypted"),
            _ => None,
        }
    }
}

/// The parts of the process that work behind the endpoints.
#[derive(Debug, Clone)]
pub struct Actors {
    pub service: Arc<Service>,
    pub scheduler: Scheduler,
    pub people: People,
    /// The profiles that are visible now.
    pub profiles: Arc<ProfileService>,
    pub uploads: Uploads,
    pub alerts: Arc<Alerts>,
    pub telemetry: Arc<Telemetry>,
}

/// The state that handlers reach, and the router of all endpoints.
pub fn app(actors: Actors, options: ServeOptions) -> Result<(App, axum::Router), ServeError> {
    let (router, api) = openapi::router();
    let requirements = Requirements::of(&api).map_err(|e| ServeError::Api(e.to_string()))?;
    let openapi = openapi::document(&api).map_err(|e| ServeError::Api(e.to_string()))?;
    let limits = Limits::new(options.rate_limit, options.lookup_rate_limit);
    let queries = QuerySlots::default();
    let fingerprints = idempotency::Fingerprints::open(actors.service.engine().state_folder())?;
    let models = routes::models::Shared::default();
    let connections = Connections::default();
    let app =
        App::new(Parts { actors, models, queries, requirements, limits, fingerprints, connections, options, openapi });
    let router = router
        .route_layer(middleware::from_fn_with_state(app.clone(), idempotency::idempotent))
        .route_layer(middleware::from_fn_with_state(app.clone(), authorize::authorize))
        .route_layer(CatchPanicLayer::custom(panicked))
        .fallback(|| async { ApiError::not_found("there is nothing here").with_hint("/docs/ lists what there is") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "method", "this path does not take that method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(request::surround))
        .layer(CompressionLayer::new().compress_when(worth_compressing()))
        .with_state(app.clone());
    Ok((app, router))
}

/// A looked-up profile is a kilobyte: compressing it costs more than sending it.
fn worth_compressing() -> impl Predicate {
    DefaultPredicate::new().and(SizeAbove::new(4096))
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let said = panic.downcast_ref::<String>().cloned();
    let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
    ApiError::internal(format!("a handler panicked: {said}")).into_response()
}
