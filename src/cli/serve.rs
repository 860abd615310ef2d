//! `serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::{CliError, Context, Outcome, output};
use crate::clock::SystemClock;
use crate::people::People;
use crate::people::oidc::Provider;
use crate::server::{self, ServeOptions};
use crate::service::{Service, ServiceOptions};

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
    /// How long running requests and runs may take to end after a stop signal
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// Requests a second by token or user (0: no limit)
    #[arg(long, value_name = "N", default_value_t = 100)]
    rate_limit: u32,
    /// Profile lookups a second by token (0: no limit)
    #[arg(long, value_name = "N", default_value_t = 0)]
    lookup_rate_limit: u32,
}

impl Serve {
    pub async fn run(&self, context: &Context) -> Result<Outcome, CliError> {
        let project = context.load()?;
        let options = ServeOptions {
            listen: self.listen,
            tls: self.tls_cert.clone().zip(self.tls_key.clone()),
            behind_proxy: self.behind_proxy,
            rate_limit: self.rate_limit,
            lookup_rate_limit: self.lookup_rate_limit,
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
        let provider = Provider::of(&project, crate::clock::of_process())
            .map_err(|e| CliError::usage(e.to_string(), "docs/security.md tells how to set an identity provider up"))?;
        let public_url = project.service.public_url.clone();
        let service = Service::open(project, service_options, Arc::new(SystemClock)).await?;
        let people = People::new(service.catalog(), service.clock());
        let people = provider.into_iter().fold(people, People::with_provider);
        let first_admin = people.first_admin_link().await?;
        let (app, router) = server::app(Arc::clone(&service), people, options.clone())?;
        let (profiles, stop) = (Arc::clone(&app.profiles), context.cancel.clone());
        let fresh = tokio::spawn(async move { profiles.keep_fresh(stop).await });
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        server::serve(router, &options, context.cancel.clone(), |address| {
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
        })
        .await?;
        fresh.await.ok();
        Ok(Outcome::Fine)
    }
}
