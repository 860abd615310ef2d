//! Every key of the configuration. `docs/configuration.md` describes each, and a test holds the two together.

pub(super) const PROJECT: &[&str] = &["store", "memory_limit", "profile", "connections", "alerts", "service"];
pub(super) const ALERTS: &[&str] = &["channels", "rules"];
/// Of whatever type: which keys belong to which is looked at once the type is known.
pub(super) const ANY_CHANNEL: &[&str] =
    &["type", "url", "secret", "host", "port", "security", "ssl_root_cert", "user", "password", "from", "to"];
pub(super) const WEBHOOK: &[&str] = &["type", "url", "secret"];
pub(super) const CHAT: &[&str] = &["type", "url"];
pub(super) const EMAIL: &[&str] =
    &["type", "host", "port", "security", "ssl_root_cert", "user", "password", "from", "to"];
pub(super) const RULE: &[&str] = &[
    "channels",
    "models",
    "connections",
    "on",
    "late_after",
    "quarantined_percent",
    "size",
    "change_rate",
    "recovery",
    "remind_every",
];
pub(super) const SIZE: &[&str] = &["min", "max", "variance_percent", "runs"];
pub(super) const RATE: &[&str] = &["min_percent", "max_percent", "variance_percent", "runs"];
pub(super) const PROFILE: &[&str] = &["identities"];
pub(super) const IDENTITY: &[&str] = &["field", "normalize"];
pub(super) const SERVICE: &[&str] =
    &["public_fields", "public_identities", "serving_files", "public_url", "allow_private_addresses", "oidc"];
pub(super) const OIDC: &[&str] = &["issuer", "client_id", "client_secret", "roles", "default_role", "allowed_domains"];
pub(super) const OIDC_ROLES: &[&str] = &["claim", "map"];
pub(super) const MODEL: &[&str] = &[
    "name",
    "description",
    "connection",
    "primary_key",
    "external_key",
    "activated_fields",
    "identities",
    "schedule",
    "create_profiles",
    "active",
    "guard",
    "columns",
    "timeout",
];
pub(super) const SCHEDULE: &[&str] = &["every", "cron", "time_zone"];
pub(super) const GUARD: &[&str] = &["max_removed", "max_removed_percent"];
pub(super) const COLUMN: &[&str] = &["type", "not_null"];

/// Where each list of keys belongs, as in "`store` belongs in …".
pub(super) const ALL: &[(&str, &[&str])] = &[
    ("the top level of cloud-connect.yml", PROJECT),
    ("`profile` in cloud-connect.yml", PROFILE),
    ("an entry of `identities` in cloud-connect.yml", IDENTITY),
    ("`service` in cloud-connect.yml", SERVICE),
    ("`alerts` in cloud-connect.yml", ALERTS),
    ("a `webhook` channel", WEBHOOK),
    ("a `slack` or `teams` channel", CHAT),
    ("an `email` channel", EMAIL),
    ("a rule of `alerts`", RULE),
    ("a rule's `size`", SIZE),
    ("a rule's `change_rate`", RATE),
    ("`oidc` under `service` in cloud-connect.yml", OIDC),
    ("`roles` under `oidc` in cloud-connect.yml", OIDC_ROLES),
    ("the top level of a model's file", MODEL),
    ("a model's `schedule`", SCHEDULE),
    ("a model's `guard`", GUARD),
    ("a column under a model's `columns`", COLUMN),
];

/// For a key that is known, but not here.
pub(super) fn elsewhere(key: &str, here: &'static [&'static str]) -> Option<String> {
    let (place, _) = ALL.iter().find(|(_, keys)| *keys != here && keys.contains(&key))?;
    Some(format!("`{key}` belongs in {place}"))
}
