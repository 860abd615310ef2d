//! E-mail over SMTP, as text and as HTML. The `Message-ID` is the same at every attempt, so that a mailbox can tell a
//! repetition; `References` keeps the letters of an incident together.
//!
//! The server's address is not guarded as a webhook's is: mail servers live in private networks, and only who owns the
//! project's files can name one.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use askama::Template;
use lettre::message::header::{InReplyTo, References};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::AsyncSmtpTransport;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters, TlsParametersBuilder};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncTransport, Message, Tokio1Executor};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::SendError;
use crate::alerts::definition::{Email, Security};
use crate::alerts::notice::{Notice, NoticeKind};
use crate::secrets::ResolveError;

/// Of one step of the conversation.
const STEP_LIMIT: Duration = Duration::from_secs(20);
/// Of the whole.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Template)]
#[template(path = "alert.html")]
struct Html<'a> {
    title: &'a str,
    color: &'a str,
    summary: &'a str,
    error: Option<&'a str>,
    hint: Option<&'a str>,
    facts: &'a [(&'static str, String)],
    url: Option<&'a str>,
}

pub(super) async fn send(
    email: &Email,
    notice: &Notice,
    root: &Path,
    value: impl Fn(&str) -> Result<String, ResolveError>,
) -> Result<(), SendError> {
    let host = value(&email.host)?;
    let from = mailbox(&value(&email.from)?)?;
    let mut to = Vec::with_capacity(email.to.len());
    for address in &email.to {
        to.push(mailbox(&value(address)?)?);
    }
    let letter = letter(notice, from.clone(), to)?;
    let authorities = match email.ssl_root_cert.as_deref().map(&value).transpose()? {
        Some(file) => Some(authorities(&root.join(file))?),
        None => None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&host)
        .port(email.port.unwrap_or(usual_port(email.security)))
        .timeout(Some(STEP_LIMIT))
        .hello_name(ClientId::Domain(from.email.domain().to_string()))
        .tls(tls(email.security, &host, authorities)?);
    if let Some(user) = &email.user {
        let password = email.password.as_deref().map(&value).transpose()?.unwrap_or_default();
        builder = builder.credentials(Credentials::new(value(user)?, password));
    }
    match tokio::time::timeout(LIMIT, builder.build().send(letter)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => {
            let mut message = format!("the mail server {host}: {e}");
            if let Some(cause) = std::error::Error::source(&e).filter(|cause| !message.contains(&cause.to_string())) {
                message = format!("{message}: {cause}");
            }
            Err(SendError::passing(message)
                .with_hint("check the channel's host, port, security, ssl_root_cert, user and password"))
        }
        Err(_) => Err(SendError::passing(format!("the mail server {host} gave no answer in time"))),
    }
}

pub(in crate::alerts) fn usual_port(security: Security) -> u16 {
    match security {
        Security::StartTls => 587,
        Security::Tls => 465,
        Security::None => 25,
    }
}

/// Is it this machine? Only to it do letters (and the password) go unencrypted.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `authorities`: trusted in place of the system's.
fn tls(security: Security, host: &str, authorities: Option<Vec<Certificate>>) -> Result<Tls, SendError> {
    let parameters = || {
        let mut parameters = TlsParameters::builder(host.to_string());
        if let Some(authorities) = authorities {
            parameters = parameters.certificate_store(CertificateStore::None);
            parameters = authorities.into_iter().fold(parameters, TlsParametersBuilder::add_root_certificate);
        }
        parameters.build().map_err(|e| SendError::passing(e.to_string()))
    };
    match security {
        Security::StartTls => Ok(Tls::Required(parameters()?)),
        Security::Tls => Ok(Tls::Wrapper(parameters()?)),
        Security::None if is_loopback(host) => Ok(Tls::None),
        Security::None => Err(SendError::passing("an unencrypted mail server may only be on this machine")
            .with_hint("use `security: starttls` or `security: tls`")),
    }
}

/// The certificates of a PEM file.
fn authorities(file: &Path) -> Result<Vec<Certificate>, SendError> {
    let fault = |what: String| {
        SendError::passing(format!("the root certificate file {} {what}", file.display()))
            .with_hint("`ssl_root_cert` is a PEM file with one or more certificates (-----BEGIN CERTIFICATE-----)")
    };
    let found = CertificateDer::pem_file_iter(file).map_err(|e| fault(format!("cannot be read: {e}")))?;
    let found: Vec<CertificateDer<'_>> =
        found.collect::<Result<_, _>>().map_err(|e| fault(format!("is not valid PEM: {e}")))?;
    if found.is_empty() {
        return Err(fault("holds no certificate".into()));
    }
    let usable = |one: CertificateDer<'_>| Certificate::from_der(one.to_vec());
    found.into_iter().map(usable).collect::<Result<_, _>>().map_err(|e| fault(format!("cannot be used: {e}")))
}

fn mailbox(text: &str) -> Result<Mailbox, SendError> {
    text.parse().map_err(|e| {
        SendError::passing(format!("an address of the channel cannot be used: {e}"))
            .with_hint("write `name@example.com` or `Name <name@example.com>`")
    })
}

fn letter(notice: &Notice, from: Mailbox, to: Vec<Mailbox>) -> Result<Message, SendError> {
    let domain = from.email.domain().to_string();
    let title = notice.title();
    let subject = match notice.kind {
        NoticeKind::Test => title.clone(),
        _ => format!("[cloud-connect] {title}"),
    };
    let thread = format!("<{}.incident@{domain}>", notice.incident);
    let mut builder = Message::builder()
        .from(from)
        .subject(subject)
        .date(SystemTime::from(notice.at))
        .message_id(Some(format!("<{}@{domain}>", notice.id)))
        .header(InReplyTo::from(thread.clone()))
        .header(References::from(thread));
    for address in to {
        builder = builder.to(address);
    }
    let facts = notice.facts();
    let html = Html {
        title: &title,
        color: match notice.kind {
            NoticeKind::Alert | NoticeKind::Reminder => "#b91c1c",
            NoticeKind::Recovery => "#15803d",
            NoticeKind::Test => "#1d4ed8",
        },
        summary: &notice.finding.summary,
        error: notice.finding.error.as_deref(),
        hint: notice.finding.hint.as_deref(),
        facts: &facts,
        url: notice.url.as_deref(),
    };
    let html = html.render().map_err(|e| SendError::for_good(format!("the letter cannot be written: {e}")))?;
    builder
        .multipart(MultiPart::alternative_plain_html(plain(notice, &facts), html))
        .map_err(|e| SendError::for_good(format!("the letter cannot be written: {e}")))
}

fn plain(notice: &Notice, facts: &[(&'static str, String)]) -> String {
    let mut text = format!("{}\n\n{}\n", notice.title(), notice.finding.summary);
    if let Some(error) = &notice.finding.error {
        text.push_str(&format!("\n{error}\n"));
    }
    if let Some(hint) = &notice.finding.hint {
        text.push_str(&format!("\nWhat to do: {hint}\n"));
    }
    text.push('\n');
    for (label, value) in facts {
        text.push_str(&format!("{label}: {value}\n"));
    }
    if let Some(url) = &notice.url {
        text.push_str(&format!("\n{url}\n"));
    }
    text
}
