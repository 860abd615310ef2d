//! `oidc:` under `service:` in `cloud-connect.yml`: the identity provider that people sign in at.

use std::collections::BTreeMap;

use super::decode::{Decoder, Entry, File, Text, entries, text};
use super::keys;
use crate::people::Role;
use crate::people::oidc::{OidcConfig, WrittenSecret, check_issuer};
use crate::people::role::UnknownName;
use crate::secrets;

pub(super) fn decode(file: &File, entry: Entry<'_>) -> Option<OidcConfig> {
    let oidc = Decoder::new(file, "`oidc`", entry.key.span, entry.node, keys::OIDC)?;
    let issuer = oidc.required_text("issuer", "for example `issuer: https://accounts.google.com`");
    if let Some(issuer) = issuer
        && let Err(why) = check_issuer(issuer.value)
    {
        let hint =
            "write the issuer as the provider's /.well-known/openid-configuration does; http is for this machine only";
        file.fault("invalid-issuer", issuer.span, format!("`issuer` cannot be used: {why}"), hint);
    }
    let client_id = oidc.required_text("client_id", "the provider gave it when this service was registered there");
    let client_secret = oidc.text("client_secret");
    if let Some(secret) = client_secret
        && let Err(error) = secrets::check_syntax(secret.value)
    {
        file.fault(error.code(), secret.span, format!("`client_secret`: {error}"), error.hint());
    }
    let (roles_claim, roles) = oidc.given("roles").and_then(|entry| decode_roles(file, entry)).unwrap_or_default();
    let default_role = oidc.text("default_role").and_then(|name| decode_role(file, name));
    let domains = oidc.texts("allowed_domains").unwrap_or_default();
    for domain in &domains {
        if domain.value.contains(['@', '/', ' ']) {
            let message = format!("`{}` is not a domain", domain.value);
            file.fault("invalid-domain", domain.span, message, "write what follows the @, for example `example.com`");
        }
    }
    if oidc.given("roles").is_none() && oidc.given("default_role").is_none() {
        let message = "nobody new could sign in: `oidc` gives no role";
        file.fault(
            "no-role",
            entry.key.span,
            message,
            "add `default_role: viewer`, or `roles` with a `claim` and a `map`",
        );
    }
    Some(OidcConfig {
        issuer: issuer?.value.into(),
        client_id: client_id?.value.into(),
        client_secret: client_secret.map(|secret| WrittenSecret(secret.value.into())),
        roles_claim,
        roles,
        default_role,
        allowed_domains: domains.iter().map(|domain| domain.value.to_lowercase()).collect(),
    })
}

fn decode_roles(file: &File, entry: Entry<'_>) -> Option<(Option<String>, BTreeMap<String, Role>)> {
    const HINT: &str = "for example `roles: { claim: groups, map: { data-team: data_manager } }`";
    let roles = Decoder::new(file, "`roles`", entry.key.span, entry.node, keys::OIDC_ROLES)?;
    let claim = roles.required_text("claim", HINT)?;
    let map = roles.required("map", HINT)?;
    let mut found = BTreeMap::new();
    for entry in entries(file, "`map`", map.key.span, map.node)? {
        let role = text(file, &format!("`{}`", entry.key.value), entry.node).and_then(|name| decode_role(file, name));
        if let Some(role) = role {
            found.insert(entry.key.value.to_string(), role);
        }
    }
    Some((Some(claim.value.into()), found))
}

fn decode_role(file: &File, name: Text<'_>) -> Option<Role> {
    match name.value.parse() {
        Ok(Role::Public) => {
            let hint = "public is for tokens that everybody may see; the least a user can be is viewer";
            file.fault("invalid-role", name.span, "a user cannot have the role public", hint);
            None
        }
        Ok(role) => Some(role),
        Err(error) => {
            let UnknownName { hint, .. } = &error;
            file.fault("unknown-role", name.span, error.to_string(), hint);
            None
        }
    }
}
