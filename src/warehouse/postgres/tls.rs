//! TLS: what is checked of the server's certificate, by `sslmode`.
//!
//! | `sslmode` | `ssl_root_cert` | Encrypted | Chain checked against | Host name checked |
//! |---|---|---|---|---|
//! | `disable` | - | no | - | - |
//! | `require` | left out | yes | nothing, as libpq does | no |
//! | `require` | given | yes | that file | no |
//! | `verify-full` | left out | yes | the system's authorities | yes |
//! | `verify-full` | given | yes | that file | yes |
//!
//! The signature that proves the server to own its certificate is checked in every encrypted mode.

use std::future::{Ready, ready};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::tls::{TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::config::{PostgresConfig, SslMode};
use crate::warehouse::WarehouseError;

/// The TLS connector of a connection, or none when `sslmode` is `disable`. Reads the certificate files.
pub(in crate::warehouse) fn connector(config: &PostgresConfig) -> Result<Option<MakeRustlsConnect>, WarehouseError> {
    // the provider is named here, so nothing depends on a process-wide default
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| WarehouseError::bug(format!("TLS cannot be set up: {e}")))?;
    let roots = config.ssl_root_cert.as_deref().map(roots_of_file).transpose()?;

    let client = match (config.ssl_mode, roots) {
        (SslMode::Disable, _) => return Ok(None),
        (SslMode::Require, roots) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ChainVerifier { roots, provider }))
            .with_no_client_auth(),
        (SslMode::VerifyFull, roots) => {
            let roots = match roots {
                Some(roots) => roots,
                None => system_roots()?,
            };
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(Some(MakeRustlsConnect::new(client)))
}

fn roots_of_file(file: &Path) -> Result<RootCertStore, WarehouseError> {
    let fault = |what: String| {
        WarehouseError::configuration(format!("the root certificate file {} {what}", file.display()))
            .with_hint("`ssl_root_cert` is a PEM file with one or more certificates (-----BEGIN CERTIFICATE-----)")
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|e| fault(format!("cannot be read: {e}")))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| fault(format!("is not valid PEM: {e}")))?;
        roots.add(certificate).map_err(|e| fault(format!("holds a certificate that cannot be used: {e}")))?;
    }
    if roots.is_empty() {
        return Err(fault("holds no certificate".to_string()));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, WarehouseError> {
    let mut roots = RootCertStore::empty();
    // one authority that does not parse must not hide the others
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(WarehouseError::configuration(
            "this system has no certificate authorities to check the server with",
        )
        .with_hint("install the package `ca-certificates`, or name the server's authority with `ssl_root_cert`"));
    }
    Ok(roots)
}

/// Checks the chain when there are roots, and never the host name: what `require` means.
#[derive(Debug)]
struct ChainVerifier {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Hands the client a stream whose handshake is already done, so that a failed handshake and a failed login are told
/// apart by where they happen. Channel binding still works: the stream knows the server's certificate.
pub(in crate::warehouse) struct Encrypted;

impl<S: TlsStream + Unpin> TlsConnect<S> for Encrypted {
    type Stream = S;
    type Error = std::io::Error;
    type Future = Ready<Result<S, std::io::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(stream))
    }
}
