//! From a name to a read-only session, step by step: resolve, connect, encrypt, log in.
//!
//! The steps are our own rather than the client's, so that each failure says where it happened, and a second
//! connection (for a cancel) can be made to the very same address.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_postgres::config::{SslMode as ClientSslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, NoTls, TlsConnect};
use tokio_postgres::{CancelToken, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::config::{PostgresConfig, SslMode};
use super::dialect::Dialect;
use super::error;
use super::known_types::{KnownTypes, ServerTypes};
use super::session::{Driver, Session};
use super::tls::{self, Encrypted};
use crate::warehouse::steps::Trace;
use crate::warehouse::text::{chain, human};
use crate::warehouse::{WarehouseError, stricter_timeout};

/// Rows come in many small messages; reading far ahead of them saves system calls.
const READ_BUFFER: usize = 256 * 1024;
/// How long a cancel may take before it is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

type Plain = BufReader<TcpStream>;
type Secure = <MakeRustlsConnect as MakeTlsConnect<Plain>>::Stream;

enum Wire {
    Plain(Plain),
    Secure(Box<Secure>),
}

/// Makes the sessions of one connection.
#[derive(Debug)]
pub(in crate::warehouse) struct Connector {
    pub config: PostgresConfig,
    dialect: &'static Dialect,
    /// Made at first use: it reads the certificate files.
    tls: OnceCell<Option<TlsConfig>>,
}

#[derive(Clone)]
struct TlsConfig(MakeRustlsConnect);

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConfig")
    }
}

impl Connector {
    pub(in crate::warehouse) fn new(config: PostgresConfig, dialect: &'static Dialect) -> Self {
        Self { config, dialect, tls: OnceCell::new() }
    }

    /// A session whose statements stop after `statement_timeout` (none: after the connection's own limit).
    pub(in crate::warehouse) async fn open(&self, timeout: Option<Duration>) -> Result<Session, WarehouseError> {
        self.open_traced(timeout, &mut Trace::default()).await
    }

    /// The same, telling how each step went.
    pub(in crate::warehouse) async fn open_traced(
        &self,
        timeout: Option<Duration>,
        trace: &mut Trace,
    ) -> Result<Session, WarehouseError> {
        let deadline = Instant::now() + self.config.connect_timeout;
        let address = self.config.address();
        let addresses = trace
            .step("resolve name", self.within(deadline, "resolving the name", self.resolve()), |found| {
                found.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>().join(", ")
            })
            .await?;
        let (tcp, peer) =
            trace.step("connect", self.within(deadline, "connecting", self.reach(&addresses)), |_| address).await?;
        let wire = trace
            .step("TLS", self.within(deadline, "the TLS handshake", self.encrypt(tcp)), |wire| match wire {
                Wire::Plain(_) => "not encrypted".to_string(),
                Wire::Secure(_) => "encrypted".to_string(),
            })
            .await?;
        let limit = self.statement_timeout(timeout);
        trace
            .step("log in", self.within(deadline, "logging in", self.log_in(wire, peer, limit)), |_| {
                format!("as `{}` to database `{}`", self.config.user, self.config.database)
            })
            .await
    }

    /// The stricter of the connection's limit and the query's. Zero: no limit.
    pub(in crate::warehouse) fn statement_timeout(&self, query: Option<Duration>) -> Duration {
        stricter_timeout(self.config.statement_timeout, query).unwrap_or_default()
    }

    async fn within<T>(
        &self,
        deadline: Instant,
        doing: &str,
        attempt: impl Future<Output = Result<T, WarehouseError>>,
    ) -> Result<T, WarehouseError> {
        tokio::time::timeout_at(deadline, attempt).await.unwrap_or_else(|_| {
            let waited = human(self.config.connect_timeout);
            Err(WarehouseError::retry(format!("{} did not answer within {waited} ({doing})", self.config.address()))
                .with_hint("a firewall may drop the packets: check `host`, `port` and the allowed addresses; or raise `connect_timeout`"))
        })
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, WarehouseError> {
        let PostgresConfig { host, port, .. } = &self.config;
        // the resolver does not tell a name that does not exist from one that it cannot look up just now
        let failed = |why: String| {
            WarehouseError::retry(format!("the name `{host}` cannot be resolved: {why}"))
                .with_hint("check `host` of the connection, and this machine's name server")
        };
        let found: Vec<_> =
            tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|e| failed(e.to_string()))?.collect();
        if found.is_empty() {
            return Err(failed("it has no address".to_string()));
        }
        Ok(found)
    }

    /// The first address that answers.
    async fn reach(&self, addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), WarehouseError> {
        let mut last = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    prepare_socket(&stream);
                    return Ok((stream, *address));
                }
                Err(e) => last = Some(e),
            }
        }
        let why = last.map(|e| e.to_string()).unwrap_or_default();
        Err(WarehouseError::retry(format!("{} cannot be reached: {why}", self.config.address()))
            .with_hint(self.dialect.unreachable))
    }

    async fn encrypt(&self, tcp: TcpStream) -> Result<Wire, WarehouseError> {
        let tls =
            self.tls.get_or_try_init(|| async { Ok(tls::connector(&self.config)?.map(TlsConfig)) }).await?.clone();
        let mut wire = BufReader::with_capacity(READ_BUFFER, tcp);
        let Some(TlsConfig(mut tls)) = tls else { return Ok(Wire::Plain(wire)) };

        let lost = |e: std::io::Error| {
            WarehouseError::retry(format!("{} ended the connection before encryption: {e}", self.config.address()))
                .with_hint(format!("is it a {} server, and are its connections not used up?", self.dialect.product))
        };
        // SSLRequest: length 8, code 80877103; the answer is one byte
        wire.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.map_err(lost)?;
        wire.flush().await.map_err(lost)?;
        match wire.read_u8().await.map_err(lost)? {
            b'S' if wire.buffer().is_empty() => {}
            // bytes that were there before the handshake did not come through it
            b'S' => {
                return Err(WarehouseError::configuration("unencrypted data came before the TLS handshake")
                    .with_hint("somebody between may be meddling with the connection"));
            }
            b'N' => {
                return Err(WarehouseError::configuration(format!(
                    "{} does not offer encryption",
                    self.config.address()
                ))
                .with_hint("set `ssl = on` in the server, or `sslmode: disable` in a network that you trust"));
            }
            _ => {
                return Err(WarehouseError::configuration(format!(
                    "{} is not a {} server",
                    self.config.address(),
                    self.dialect.product
                ))
                .with_hint("check `host` and `port`"));
            }
        }
        let connect = MakeTlsConnect::<Plain>::make_tls_connect(&mut tls, &self.config.host).map_err(|e| {
            WarehouseError::configuration(format!("`{}` cannot be used for TLS: {e}", self.config.host))
        })?;
        let secure = connect.connect(wire).await.map_err(|e| self.handshake_failed(&e))?;
        Ok(Wire::Secure(Box::new(secure)))
    }

    fn handshake_failed(&self, error: &std::io::Error) -> WarehouseError {
        let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
            return WarehouseError::retry(format!("the TLS handshake broke off: {error}"))
                .with_hint("the server or something between ended the connection; try again");
        };
        use rustls::CertificateError::{
            Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
        };
        let hint = match tls {
            rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
                "the certificate is for another host name: put that name into `host`, or use `sslmode: require`"
            }
            rustls::Error::InvalidCertificate(UnknownIssuer) => {
                "the certificate's authority is not trusted here: give its PEM file as `ssl_root_cert`"
            }
            rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
                "the server's certificate has expired: renew it"
            }
            _ => "check the server's certificate and TLS versions (1.2 or 1.3), and `ssl_root_cert`",
        };
        WarehouseError::configuration(format!("the TLS handshake failed: {tls}")).with_hint(hint)
    }

    async fn log_in(&self, wire: Wire, peer: SocketAddr, limit: Duration) -> Result<Session, WarehouseError> {
        let mut config = Config::new();
        config
            .user(&self.config.user)
            .dbname(&self.config.database)
            .application_name("cloud-connect")
            .ssl_mode(if self.config.ssl_mode == SslMode::Disable {
                ClientSslMode::Disable
            } else {
                ClientSslMode::Require
            })
            // the handshake is done: the client must not ask for one
            .ssl_negotiation(SslNegotiation::Direct);
        if let Some(options) = self.dialect.startup_options {
            config.options(options(limit));
        }
        if let Some(password) = &self.config.password {
            config.password(password.expose_secret());
        }
        let types = ServerTypes::default();
        match (wire, self.dialect.unknown_types) {
            (Wire::Plain(stream), false) => self.begin(&config, stream, NoTls, peer, types).await,
            (Wire::Secure(stream), false) => self.begin(&config, *stream, Encrypted, peer, types).await,
            (Wire::Plain(stream), true) => {
                self.begin(&config, KnownTypes::new(stream, types.clone()), NoTls, peer, types).await
            }
            (Wire::Secure(stream), true) => {
                self.begin(&config, KnownTypes::new(*stream, types.clone()), Encrypted, peer, types).await
            }
        }
    }

    async fn begin<S, T>(
        &self,
        config: &Config,
        stream: S,
        tls: T,
        peer: SocketAddr,
        server_types: ServerTypes,
    ) -> Result<Session, WarehouseError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: TlsConnect<S>,
        T::Stream: Unpin + Send + 'static,
    {
        // the client's login is a large future, so it lives on the heap
        let login = Box::pin(config.connect_raw(stream, tls));
        let (client, connection) = login.await.map_err(|e| self.login_failed(&e))?;
        Ok(Session { client, driver: Driver::new(connection), peer, dialect: self.dialect, server_types })
    }

    fn login_failed(&self, error: &tokio_postgres::Error) -> WarehouseError {
        if let Some(db) = error.as_db_error() {
            return error::of_server(db, None, self.dialect);
        }
        if error.is_closed() || error::is_network(error) {
            return WarehouseError::retry(format!("the server ended the connection during login: {}", chain(error)))
                .with_hint(format!("is it a {} server, and are its connections not used up?", self.dialect.product));
        }
        let mut failed = WarehouseError::configuration(format!("the login failed: {}", chain(error)));
        if failed.message.contains("unknown authentication tag") {
            return failed.with_hint(self.dialect.unknown_login);
        }
        failed.hint = Some(match &self.config.password {
            None => "the server asks for a password: set `password`, for example `${env:APP_DB_PASSWORD}`".to_string(),
            Some(_) => "check `user`, `password`, and the server's login method (scram-sha-256 or md5)".to_string(),
        });
        failed
    }

    /// Asks the server at `peer` to stop what the session of `token` does. Returns when it was asked, or when it could
    /// not be reached within a few seconds.
    pub(in crate::warehouse) async fn cancel(&self, token: &CancelToken, peer: SocketAddr) {
        let ask = async {
            let (tcp, _) = self.reach(&[peer]).await?;
            let sent = match self.encrypt(tcp).await? {
                Wire::Plain(stream) => token.cancel_query_raw(stream, NoTls).await,
                Wire::Secure(stream) => token.cancel_query_raw(*stream, Encrypted).await,
            };
            sent.map_err(|e| WarehouseError::retry(chain(&e)))
        };
        match tokio::time::timeout(CANCEL_TIMEOUT, ask).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "a query could not be cancelled in the server"),
            Err(_) => tracing::warn!("a query could not be cancelled in the server: no answer"),
        }
    }
}

/// A long query sends nothing for a long time: without probes a dead peer would not be noticed, and a firewall between
/// might forget the connection.
fn prepare_socket(stream: &TcpStream) {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    let set = stream.set_nodelay(true).and_then(|()| socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(e) = set {
        tracing::debug!(error = %e, "keep-alive is not available on this connection");
    }
}
