//! `serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::{CliError, Context, Outcome, output};
use crate::alerts::Alerts;
use crate::clock::{self, Clock};
use crate::people::People;
use crate::people::oidc::Provider;
use crate::profiles::serving::ProfileService;
use crate::scheduler::planner::Limits;
use crate::scheduler::{Scheduler, SchedulerOptions};
use crate::server::{self, Actors, ServeOptions};
use crate::service::{Service, ServiceOptions};
use crate::telemetry::{self, LogFormat, Telemetry, TelemetryOptions};
use crate::uploads::{UploadOptions, Uploads};

/// Run the service: models on their schedules, the REST API, metrics and alerts
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloud-connect serve                                         # on this machine only
  cloud-connect serve --listen 0.0.0.0:8443 --tls-cert chain.pem --tls-key key.pem
  cloud-connect serve --listen 0.0.0.0:8080 --behind-proxy    # a proxy in front ends TLS
  cloud-connect token create --role admin --expires 90d       # a token for the API")]
pub struct Serve {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", env = "CLOUD_CONNECT_LISTEN")]
    listen: SocketAddr,
    /// The certificate and its chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A proxy in front ends TLS: listen in the clear on any address
    #[arg(long)]
    behind_proxy: bool,
    /// Runs at once; they share the memory limit
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    max_runs: u16,
    /// Of these, at once on one connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    max_runs_per_connection: u16,
    /// The most that a model waits after its due time, so that not all begin at once
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    schedule_jitter: Duration,
    /// A model that has not started so long after its time is late
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = humantime::parse_duration)]
    late_after: Duration,
    /// How long running requests and runs may take to end after a stop signal
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// Requests a second by token or user (0: no limit)
    #[arg(long, value_name = "N", default_value_t = 100)]
    rate_limit: u32,
    /// Profile lookups a second by token (0: no limit)
    #[arg(long, value_name = "N", default_value_t = 0)]
    lookup_rate_limit: u32,
    /// The largest body of an upload, decompressed
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    max_upload: bytesize::ByteSize,
    /// How long collected events wait for each other, to be written together
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    collect_every: Duration,
    /// How log lines are written; CLOUD_CONNECT_LOG says which, for example `debug`
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "CLOUD_CONNECT_LOG_FORMAT")]
    log_format: LogFormat,
}

impl Serve {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let clock = clock::of_process();
        let telemetry = TelemetryOptions { log_format: self.log_format, ansi: output::color_stderr() };
        let telemetry = Arc::new(telemetry::install(telemetry, &*clock)?);
        let served = self.serve(context, clock, Arc::clone(&telemetry)).await;
        telemetry.shutdown().await;
        served
    }

    async fn serve(
        &self,
        context: &Context,
        clock: Arc<dyn Clock>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Outcome, CliError> {
        let project = context.load()?;
        let options = ServeOptions {
            listen: self.listen,
            tls: self.tls_cert.clone().zip(self.tls_key.clone()),
            behind_proxy: self.behind_proxy,
            rate_limit: self.rate_limit,
            lookup_rate_limit: self.lookup_rate_limit,
            uploads: UploadOptions {
                max_bytes: self.max_upload.as_u64(),
                flush_every: self.collect_every,
                ..UploadOptions::default()
            },
            grace: self.grace,
        };
        // before anything is opened: a refused address should leave no trace
        options.check()?;
        let service_options = ServiceOptions {
            root: project.root.clone(),
            providers: context.providers.clone(),
            memory_limit: context.memory_limit(&project),
            max_runs: usize::from(self.max_runs),
        };
        let provider = Provider::of(&project, Arc::clone(&clock))
            .map_err(|e| CliError::usage(e.to_string(), "docs/security.md tells how to set an identity provider up"))?;
        let public_url = project.service.public_url.clone();
        let limits = Limits {
            max_runs: usize::from(self.max_runs),
            max_runs_per_connection: usize::from(self.max_runs_per_connection),
            jitter: self.schedule_jitter,
            late_after: self.late_after,
        };
        let stop = context.cancel.clone();
        let service = Service::open(project, service_options, clock).await?;
        let scheduler = Scheduler::open(service.clone(), SchedulerOptions { limits }).await?;
        let engines = service.clone();
        let profiles = Arc::new(ProfileService::new(Box::new(move || engines.engine())));
        let people = People::new(service.catalog(), service.clock());
        let people = provider.into_iter().fold(people, People::with_provider);
        let first_admin = people.first_admin_link().await?;
        let uploading = service.clone();
        let uploads = Uploads::open(Arc::new(move || uploading.engine()), options.uploads);
        uploads.start();
        let alerts = Arc::new(Alerts::start(service.clone(), None).await);
        let actors = Actors {
            service,
            scheduler: scheduler.clone(),
            people,
            profiles: profiles.clone(),
            uploads: uploads.clone(),
            alerts: alerts.clone(),
            telemetry,
        };
        let (app, router) = server::app(actors, options.clone())?;
        let forgetting = tokio::spawn(async move {
            let mut minutes = tokio::time::interval(Duration::from_secs(60));
            loop {
                minutes.tick().await;
                app.limits.forget_idle();
            }
        });
        let stop_reading = stop.clone();
        let fresh = tokio::spawn(async move { profiles.keep_fresh(stop_reading).await });
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let (beginning, failed) = (scheduler.clone(), stop.clone());
        let served = server::serve(router, &options, stop.clone(), |address| {
            // on standard output, and at once: scripts wait for it
            output::line(format!("listening on {scheme}://{address}")).ok();
            if let Some(link) = first_admin {
                let local = if address.ip().is_unspecified() {
                    format!("localhost:{}", address.port())
                } else {
                    address.to_string()
                };
                let here = public_url.unwrap_or_else(|| format!("{scheme}://{local}"));
                let (secret, until) = (link.secret.expose_secret(), output::time(link.expires_at));
                output::line(format!("first admin, once and until {until}: {here}/first-admin?token={secret}")).ok();
            }
            // not before: a start that fails on its address has queried nothing
            tokio::spawn(async move {
                if let Err(error) = beginning.begin().await {
                    tracing::error!(%error, "the schedule cannot be followed: the service stops");
                    failed.cancel();
                }
            });
        });
        // requests and runs end side by side
        let (grace, stopping) = (self.grace, stop.clone());
        let ended = tokio::spawn(async move {
            stopping.cancelled().await;
            scheduler.shutdown(grace).await;
        });
        let served = served.await;
        // also when the server ended by itself
        stop.cancel();
        ended.await.ok();
        fresh.await.ok();
        forgetting.abort();
        if tokio::time::timeout(grace, uploads.shutdown()).await.is_err() {
            tracing::warn!("uploads were still under way after the grace period; what was not committed is discarded");
        }
        // after the last runs, whose ends it may have to tell
        alerts.shutdown().await;
        served?;
        Ok(Outcome::Fine)
    }
}
