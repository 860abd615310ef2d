//! `service:` in `cloud-connect.yml`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::decode::{Decoder, File, Text};
use super::{IdentityField, ServiceConfig, keys, oidc, suggest};

/// What the names of attributes and memberships begin with.
const ATTRIBUTE: &str = "cc_";

/// `identities`: none when they could not be read.
pub(super) fn decode(file: &File, top: &Decoder<'_>, identities: Option<&[IdentityField]>) -> ServiceConfig {
    let default = ServiceConfig::default();
    let Some(entry) = top.given("service") else { return default };
    let Some(service) = Decoder::new(file, "`service`", entry.key.span, entry.node, keys::SERVICE) else {
        return default;
    };
    let known: Vec<&str> = identities.unwrap_or_default().iter().map(|identity| identity.field.as_str()).collect();
    let public_fields = service.texts("public_fields").unwrap_or_default();
    for field in &public_fields {
        // which attributes there are, only the models know, and some of these are made through the API
        let attribute = field.value.starts_with(ATTRIBUTE);
        let own = ["profile_id", "created_at"].contains(&field.value);
        if !attribute && !own && identities.is_some() && !known.contains(&field.value) {
            let message = format!("`{}` is not a field of a profile", field.value);
            let hint = "name attributes (cc_<slug>_<column>), memberships (cc_<slug>_membership), identity fields, \
                        `profile_id` or `created_at`";
            file.fault("unknown-field", field.span, message, hint);
        }
    }
    let public_identities = service.texts("public_identities").unwrap_or_default();
    for field in &public_identities {
        if identities.is_some() && !known.contains(&field.value) {
            let message = format!("`{}` is not an identity field", field.value);
            file.fault(
                "unknown-field",
                field.span,
                message,
                suggest::hint(field.value, &known, "the identity fields are"),
            );
        }
    }
    let texts = |fields: Vec<super::decode::Text<'_>>| fields.iter().map(|field| field.value.to_string()).collect();
    ServiceConfig {
        public_fields: texts(public_fields),
        public_identities: texts(public_identities),
        serving_files: service.bool("serving_files").unwrap_or(default.serving_files),
        public_url: service.text("public_url").and_then(|url| decode_url(file, url)),
        allow_private_addresses: allowed(file, &service),
        oidc: service.given("oidc").and_then(|entry| oidc::decode(file, entry)),
    }
}

fn decode_url(file: &File, text: Text<'_>) -> Option<String> {
    let url = url::Url::parse(text.value).ok().filter(|url| {
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        matches!(url.scheme(), "http" | "https") && bare && url.password().is_none()
    });
    if url.is_none() {
        let hint = "write scheme and host, for example `public_url: https://cloud-connect.example.com`";
        file.fault("invalid-url", text.span, "`public_url` is not the address of a service", hint);
    }
    url.map(|url| url.origin().ascii_serialization())
}

fn allowed(file: &File, service: &Decoder<'_>) -> Vec<IpNet> {
    let mut found = Vec::new();
    for text in service.texts("allow_private_addresses").unwrap_or_default() {
        match text.value.parse::<IpNet>().or_else(|_| text.value.parse::<IpAddr>().map(IpNet::from)) {
            Ok(net) => found.push(net),
            Err(_) => {
                let message = format!("`{}` is not a network", text.value);
                file.fault("invalid-network", text.span, message, "for example `10.0.0.0/8`, or one address");
            }
        }
    }
    found
}
