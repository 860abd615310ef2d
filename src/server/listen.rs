//! The socket: TLS, patience with clients, and the end.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio_util::sync::CancellationToken;

use super::{ServeError, ServeOptions};

/// How long a request's head may take, and a connection may rest between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves until `stop`, then lets running requests end within the grace period. `listening` is told the address.
pub async fn serve(
    router: axum::Router,
    options: &ServeOptions,
    stop: CancellationToken,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    options.check()?;
    let refused = |error| ServeError::Listen { address: options.listen, error };
    let listener = TcpListener::bind(options.listen).map_err(refused)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let handle = Handle::new();
    let ending = handle.clone();
    let grace = options.grace;
    let ender = tokio::spawn(async move {
        stop.cancelled().await;
        ending.graceful_shutdown(Some(grace));
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let served = match &options.tls {
        Some((certificate, key)) => {
            // two providers are compiled in, so one has to be named; an error means that one is set already
            let _ = rustls::crypto::ring::default_provider().install_default();
            let tls = RustlsConfig::from_pem_file(certificate, key).await.map_err(ServeError::Tls)?;
            listening(address);
            let mut server = axum_server::from_tcp_rustls(listener, tls)?;
            hurry(server.http_builder());
            server.handle(handle).serve(service).await
        }
        None => {
            listening(address);
            let mut server = axum_server::from_tcp(listener)?;
            hurry(server.http_builder());
            server.handle(handle).serve(service).await
        }
    };
    ender.abort();
    Ok(served?)
}

/// A client that does not send a whole head in time holds no connection.
fn hurry(builder: &mut Builder<TokioExecutor>) {
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_takes_tls_or_a_proxy() {
        let at = |listen: &str| ServeOptions {
            listen: listen.parse().unwrap(),
            tls: None,
            behind_proxy: false,
            rate_limit: 0,
            lookup_rate_limit: 0,
            uploads: crate::uploads::UploadOptions::default(),
            grace: std::time::Duration::ZERO,
        };
        for safe in ["127.0.0.1:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
            assert!(at(safe).check().is_ok(), "{safe}");
        }
        for open in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:8080", "[::ffff:10.0.0.1]:80"] {
            assert!(matches!(at(open).check(), Err(ServeError::Unencrypted(_))), "{open}");
            assert!(ServeOptions { behind_proxy: true, ..at(open) }.check().is_ok());
        }
    }
}
