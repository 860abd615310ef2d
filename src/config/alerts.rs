//! `alerts:` in `cloud-connect.yml`: channels and rules.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::decode::{Decoder, Entry, File, Text, entries};
use super::source::Spans;
use super::yaml::{Node, Value};
use super::{ConfigError, MODELS_DIR, Model, PROJECT_FILE, keys, names, suggest};
use crate::alerts::anomaly::{DEFAULT_RUNS, LEAST_RUNS, Limits, MAX_RUNS};
use crate::alerts::definition::{Channel, ChannelKind, Definitions, Email, LATE_AFTER, Rule, Security};
use crate::alerts::send::is_loopback;
use crate::secrets;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The largest percentage that a limit may be given as.
const MAX_PERCENT: f64 = 1_000_000.0;
const TYPES: &[&str] = &["webhook", "slack", "teams", "email"];
const ON: &[&str] = &["failed", "held", "late", "empty"];

pub(super) fn decode(file: &File, entry: Entry<'_>, connections: &[String]) -> Definitions {
    let mut found = Definitions::default();
    let Some(alerts) = Decoder::new(file, "`alerts`", entry.key.span, entry.node, keys::ALERTS) else { return found };
    let mut channel_names = Vec::new();
    for entry in named(file, &alerts, "channels") {
        channel_names.push(entry.key.value.to_string());
        if let Some(channel) = channel(file, entry) {
            found.channels.insert(channel.name.clone(), channel);
        }
    }
    for entry in named(file, &alerts, "rules") {
        if let Some(rule) = rule(file, entry, &channel_names, connections) {
            found.rules.insert(rule.name.clone(), rule);
        }
    }
    found
}

/// The entries under a key, with names that can be names.
fn named<'a>(file: &File, alerts: &Decoder<'a>, key: &str) -> Vec<Entry<'a>> {
    let Some(entry) = alerts.given(key) else { return Vec::new() };
    let found = entries(file, &format!("`{key}`"), entry.key.span, entry.node).unwrap_or_default();
    for entry in &found {
        if let Err(why) = names::check_name(entry.key.value) {
            let message = format!("`{}` cannot be a name under `{key}`: {why}", entry.key.value);
            file.fault("invalid-name", entry.key.span, message, "use letters, digits, `_` and `-`");
        }
    }
    found
}

fn channel(file: &File, entry: Entry<'_>) -> Option<Channel> {
    let name = entry.key;
    let what = format!("channel `{}`", name.value);
    let known = match type_of(entry.node) {
        Some("webhook") => keys::WEBHOOK,
        Some("slack" | "teams") => keys::CHAT,
        Some("email") => keys::EMAIL,
        _ => keys::ANY_CHANNEL,
    };
    let channel = Decoder::new(file, what, name.span, entry.node, known)?;
    let kind = channel.required_text("type", &format!("the types are {}", suggest::list(TYPES)))?;
    if !TYPES.contains(&kind.value) {
        let hint = suggest::hint(kind.value, TYPES, "the types are");
        file.fault("unknown-type", kind.span, format!("`{}` is not a type of channel", kind.value), hint);
        return None;
    }
    let mut spans = Spans::new(Arc::clone(&file.source));
    for key in known {
        spans.insert(*key, channel.place(key));
    }
    let kind = match kind.value {
        "webhook" => {
            let url = url(file, &channel, "for example `url: \"${env:ALERT_WEBHOOK}\"`");
            ChannelKind::Webhook { url: url?, secret: value(file, &channel, "secret") }
        }
        "slack" => ChannelKind::Slack { url: url(file, &channel, "the incoming webhook's address")? },
        "teams" => ChannelKind::Teams { url: url(file, &channel, "the workflow's address")? },
        _ => ChannelKind::Email(email(file, &channel)?),
    };
    Some(Channel { name: name.value.into(), kind, spans })
}

/// The `type`, as far as it can be seen before it is known which keys there may be.
fn type_of(node: &Node) -> Option<&str> {
    let Value::Mapping(pairs) = &node.value else { return None };
    let of_type = |node: &Node| matches!(&node.value, Value::Scalar(key, _) if key == "type");
    match &pairs.iter().find(|(key, _)| of_type(key))?.1.value {
        Value::Scalar(text, _) => Some(text),
        _ => None,
    }
}

/// A text whose references are well formed.
fn value(file: &File, channel: &Decoder<'_>, key: &str) -> Option<String> {
    checked(file, key, channel.text(key)?)
}

fn required(file: &File, channel: &Decoder<'_>, key: &str, hint: &str) -> Option<String> {
    checked(file, key, channel.required_text(key, hint)?)
}

fn checked(file: &File, key: &str, text: Text<'_>) -> Option<String> {
    match secrets::check_syntax(text.value) {
        Ok(()) => Some(text.value.to_string()),
        Err(error) => {
            file.fault(error.code(), text.span, format!("`{key}`: {error}"), error.hint());
            None
        }
    }
}

fn url(file: &File, channel: &Decoder<'_>, hint: &str) -> Option<String> {
    let url = required(file, channel, "url", hint)?;
    if !secrets::has_reference(&url) {
        let fits = url::Url::parse(url.trim()).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !fits {
            // the value stays out of the message: who knows such an address may post to it
            let hint = "write it in full, for example `https://hooks.example.com/…`";
            file.fault("invalid-url", channel.place("url"), "`url` is not a URL of http or https", hint);
            return None;
        }
    }
    Some(url)
}

fn email(file: &File, channel: &Decoder<'_>) -> Option<Email> {
    let host = required(file, channel, "host", "the SMTP server, for example `host: smtp.example.com`");
    let from = required(file, channel, "from", "for example `from: Cloud Connect <alerts@example.com>`");
    let to = channel.required("to", "for example `to: [data@example.com]`").and_then(|_| channel.texts("to"));
    let to: Option<Vec<String>> = to.map(|to| to.into_iter().filter_map(|text| checked(file, "to", text)).collect());
    let security = match channel.text("security") {
        None => Security::StartTls,
        Some(text) => match Security::ALL.iter().find(|(word, _)| *word == text.value) {
            Some((_, security)) => *security,
            None => {
                let words: Vec<&str> = Security::ALL.iter().map(|(word, _)| *word).collect();
                let message = format!("`{}` is not a kind of `security`", text.value);
                file.fault("unknown-security", text.span, message, suggest::hint(text.value, &words, "there are"));
                return None;
            }
        },
    };
    let port = match channel.u64("port") {
        None => None,
        Some(port) => match u16::try_from(port) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                let message = "`port` has to be from 1 to 65535";
                file.fault("out-of-range", channel.place("port"), message, "for example `port: 587`");
                return None;
            }
        },
    };
    if let (Security::None, Some(host)) = (security, &host)
        && !secrets::has_reference(host)
        && !is_loopback(host)
    {
        let hint = "use `security: starttls` or `security: tls`";
        file.fault("unencrypted", channel.place("security"), "only a server on this machine may be unencrypted", hint);
    }
    let ssl_root_cert = value(file, channel, "ssl_root_cert");
    let (user, password) = (value(file, channel, "user"), value(file, channel, "password"));
    if user.is_none() && password.is_some() {
        let hint = "add `user:`, or remove the password";
        file.fault("missing-key", channel.place("password"), "a `password` without a `user`", hint);
    }
    for address in from.iter().chain(to.iter().flatten()).filter(|address| !secrets::has_reference(address)) {
        if address.parse::<lettre::message::Mailbox>().is_err() {
            let key = if Some(address) == from.as_ref() { "from" } else { "to" };
            let message = format!("`{address}` is not an e-mail address");
            file.fault(
                "invalid-address",
                channel.place(key),
                message,
                "write `name@example.com` or `Name <name@example.com>`",
            );
        }
    }
    let to = to.filter(|to| !to.is_empty());
    if to.is_none() && channel.given("to").is_some() {
        file.fault("empty", channel.place("to"), "`to` names nobody", "for example `to: [data@example.com]`");
    }
    Some(Email { host: host?, port, security, ssl_root_cert, user, password, from: from?, to: to? })
}

fn rule(file: &File, entry: Entry<'_>, channels: &[String], connections: &[String]) -> Option<Rule> {
    let name = entry.key;
    let rule = Decoder::new(file, format!("rule `{}`", name.value), name.span, entry.node, keys::RULE)?;
    let mut spans = Spans::new(Arc::clone(&file.source));
    for key in keys::RULE {
        spans.insert(*key, rule.place(key));
    }
    let told = rule.required("channels", "name the channels to tell, for example `channels: [data-team]`");
    let told = told.and_then(|_| rule.texts("channels")).unwrap_or_default();
    known(file, &told, channels, "channel", "`channels` are");
    let watched = rule.texts("connections").unwrap_or_default();
    known(file, &watched, connections, "connection", "the connections are");
    let models = rule.texts("models").unwrap_or_default();
    for model in &models {
        spans.insert(format!("models.{}", model.value), model.span);
    }
    let on = match rule.texts("on") {
        Some(on) => on.iter().map(|text| text.value).collect(),
        // a list that is empty switches them off; one that is not there does not
        None if rule.given("on").is_some() => Vec::new(),
        None => vec!["failed", "held", "late"],
    };
    for text in rule.texts("on").unwrap_or_default() {
        if !ON.contains(&text.value) {
            let hint = match text.value {
                "quarantine" | "quarantined" => "write `quarantined_percent: 5`, for example".into(),
                "anomaly" => "write `size:` or `change_rate:` with `min`, `max` or `variance_percent`".into(),
                "recovery" => "recoveries are told unless `recovery: false` is written".into(),
                other => suggest::hint(other, ON, "there are"),
            };
            let message = format!("`{}` is not a condition of `on`", text.value);
            file.fault("unknown-condition", text.span, message, hint);
        }
    }
    let late_after = rule.duration("late_after", MINUTE..=7 * DAY);
    let decoded = Rule {
        name: name.value.into(),
        channels: told.iter().map(|text| text.value.to_string()).collect(),
        models: models.iter().map(|text| text.value.to_string()).collect(),
        connections: watched.iter().map(|text| text.value.to_string()).collect(),
        failed: on.contains(&"failed"),
        held: on.contains(&"held"),
        empty: on.contains(&"empty"),
        late_after: on.contains(&"late").then(|| late_after.unwrap_or(LATE_AFTER)),
        quarantined_percent: rule.f64("quarantined_percent", 0.0..=100.0),
        size: limits(file, &rule, "size"),
        change_rate: limits(file, &rule, "change_rate"),
        recovery: rule.bool("recovery").unwrap_or(true),
        remind_every: rule.duration("remind_every", 5 * MINUTE..=30 * DAY),
        spans,
    };
    Some(decoded)
}

/// Names that have to be among the known ones.
fn known(file: &File, given: &[Text<'_>], known: &[String], what: &str, otherwise: &str) {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    for text in given.iter().filter(|text| !known.contains(&text.value)) {
        let hint = suggest::hint(text.value, &known, otherwise);
        file.fault("unknown-name", text.span, format!("there is no {what} `{}`", text.value), hint);
    }
}

/// What a size or a change rate has to keep to.
fn limits(file: &File, rule: &Decoder<'_>, key: &str) -> Option<Limits> {
    let entry = rule.given(key)?;
    let rate = key == "change_rate";
    let limits =
        Decoder::new(file, format!("`{key}`"), entry.key.span, entry.node, if rate { keys::RATE } else { keys::SIZE })?;
    // per cent as millionths, and as hundredths of a per cent
    let millionths = |key: &str| limits.f64(key, 0.0..=MAX_PERCENT).map(|percent| (percent * 10_000.0).round() as u64);
    let (min, max) = if rate {
        (millionths("min_percent"), millionths("max_percent"))
    } else {
        (limits.u64("min"), limits.u64("max"))
    };
    let variance = limits.f64("variance_percent", 0.0..=MAX_PERCENT).map(|percent| (percent * 100.0).round() as u64);
    let runs = limits.u64("runs").unwrap_or(DEFAULT_RUNS as u64) as usize;
    if !(LEAST_RUNS..=MAX_RUNS).contains(&runs) {
        let message = format!("`runs` has to be from {LEAST_RUNS} to {MAX_RUNS}");
        file.fault("out-of-range", limits.place("runs"), message, format!("left out, it is {DEFAULT_RUNS}"));
    }
    if min.is_none() && max.is_none() && variance.is_none() {
        let hint = if rate {
            "write `max_percent`, `min_percent` or `variance_percent`"
        } else {
            "write `min`, `max` or `variance_percent`"
        };
        file.fault("missing-key", entry.key.span, format!("`{key}` sets no limit"), hint);
    }
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        file.fault(
            "out-of-range",
            entry.key.span,
            format!("`{key}` allows nothing"),
            "the least is more than the most",
        );
    }
    Some(Limits { min, max, variance, runs })
}

/// The models that rules name have to be there.
pub(super) fn check_models(alerts: &Definitions, root: &Path, models: &[Model], faults: &mut Vec<ConfigError>) {
    let slugs: Vec<&str> = models.iter().map(|model| model.slug.as_str()).collect();
    for rule in alerts.rules.values() {
        for model in rule.models.iter().filter(|model| !slugs.contains(&model.as_str())) {
            // a model whose files are faulty is there all the same
            let file = |extension: &str| root.join(MODELS_DIR).join(format!("{model}.{extension}"));
            if ["yml", "yaml", "sql"].iter().any(|extension| file(extension).exists()) {
                continue;
            }
            let message = format!("there is no model `{model}` in {MODELS_DIR}/");
            let fault = rule.spans.error(&format!("models.{model}"), "unknown-name", Path::new(PROJECT_FILE), message);
            faults.push(fault.with_hint(suggest::hint(model, &slugs, "the models are")));
        }
    }
}
