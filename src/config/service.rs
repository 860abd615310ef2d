//! `service:` in `cloud-connect.yml`.

use std::net::IpAddr;

use ipnet::IpNet;
use url::Url;

use super::decode::{Decoder, Entry, File};
use super::{ServiceSettings, keys};

pub(super) fn decode(file: &File, entry: Entry<'_>) -> ServiceSettings {
    let mut found = ServiceSettings::default();
    let Some(service) = Decoder::new(file, "`service`", entry.key.span, entry.node, keys::SERVICE) else {
        return found;
    };
    if let Some(text) = service.text("public_url") {
        match Url::parse(text.value.trim()) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.username().is_empty() => {
                found.public_url = Some(url);
            }
            _ => {
                let hint = "write where people reach the service, for example `https://connect.example.com`";
                file.fault("invalid-url", text.span, "`public_url` is not a URL of http or https", hint);
            }
        }
    }
    for text in service.texts("allow_private_addresses").unwrap_or_default() {
        let net = text.value.parse::<IpNet>().or_else(|_| text.value.parse::<IpAddr>().map(IpNet::from));
        match net {
            Ok(net) => found.allow_private_addresses.push(net),
            Err(_) => {
                let message = format!("`{}` is not a network", text.value);
                file.fault("invalid-network", text.span, message, "for example `10.0.0.0/8`, or one address");
            }
        }
    }
    found
}
