//! Who may ask for what: every role against every endpoint.
//!
//! [`ENDPOINTS`] and [`ROLES`] are written by hand, from the documentation and not from the code: an endpoint that is
//! not listed here, or asks for something else than is listed, fails the test.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{Service, token};
use crate::project::{Project, person};

/// Method, path, and the permissions that it takes; `""`: open to all.
pub const ENDPOINTS: &[(&str, &str, &str)] = &[
    ("GET", "/healthz", ""),
    ("GET", "/readyz", ""),
    ("GET", "/openapi.json", ""),
    ("GET", "/docs", ""),
    ("GET", "/docs/", ""),
    ("GET", "/docs/{*file}", ""),
    ("GET", "/v2/connection", "connections:read"),
    ("POST", "/v2/connection", "connections:write"),
    ("GET", "/v2/connection/{id}", "connections:read"),
    ("PUT", "/v2/connection/{id}", "connections:write"),
    ("DELETE", "/v2/connection/{id}", "connections:write"),
    ("POST", "/v2/connection/{id}/scan", "connections:query"),
    ("POST", "/v2/connection/{id}/test", "connections:query"),
    ("GET", "/v2/connection/{id}/schema", "connections:read"),
    ("GET", "/v2/connection/{id}/schema/{table}", "connections:read"),
    ("GET", "/v2/connection/{id}/summary", "connections:read"),
    ("GET", "/v2/connection/{id}/logs", "connections:read"),
    ("GET", "/v2/connectionconfig", "connections:read"),
    ("GET", "/v2/connectionconfig/{slug}", "connections:read"),
    ("GET", "/v2/auth", "authorizations:read"),
    ("POST", "/v2/auth", "authorizations:write"),
    ("POST", "/v2/auth/{type}", "authorizations:write"),
    ("GET", "/v2/auth/{type}/{id}", "authorizations:read"),
    ("POST", "/v2/auth/{type}/{id}", "authorizations:write"),
    ("PUT", "/v2/auth/{type}/{id}", "authorizations:write"),
    ("DELETE", "/v2/auth/{type}/{id}", "authorizations:write"),
    ("GET", "/v2/event", "events:read"),
    ("GET", "/v2/schedule", "runs:read"),
    ("GET", "/metrics", "operations:read"),
    ("GET", "/v2/alert", "alerts:read"),
    ("GET", "/v2/alert/delivery", "alerts:read"),
    ("GET", "/v2/alertchannel", "alerts:read"),
    ("POST", "/v2/alertchannel/{name}/test", "alerts:write"),
    // pages, which ask for a password, a link's secret, or a session and its token
    ("GET", "/login", ""),
    ("POST", "/login", ""),
    ("POST", "/logout", ""),
    ("GET", "/account", ""),
    ("POST", "/account/password", ""),
    ("GET", "/first-admin", ""),
    ("POST", "/first-admin", ""),
    ("GET", "/invitation/{token}", ""),
    ("POST", "/invitation", ""),
    ("GET", "/oidc/start", ""),
    ("GET", "/oidc/callback", ""),
    ("GET", "/pages.css", ""),
    // who is known may ask: no further permission
    ("GET", "/v2/me", ""),
    ("PUT", "/v2/me/password", ""),
    ("GET", "/v2/user", "people:read"),
    ("POST", "/v2/user", "people:write"),
    ("GET", "/v2/user/{id}", "people:read"),
    ("PUT", "/v2/user/{id}", "people:write"),
    ("DELETE", "/v2/user/{id}", "people:write"),
    ("POST", "/v2/user/{id}/invitation", "people:write"),
    ("GET", "/v2/token", "people:read"),
    ("POST", "/v2/token", "people:write"),
    ("DELETE", "/v2/token/{id}", "people:write"),
    ("GET", "/v2/entity/user/{field}/{value}", "profiles:lookup"),
    ("POST", "/v2/sql", "profiles:query"),
    ("GET", "/v2/changes", "profiles:query"),
    ("GET", "/v2/datamodel", "models:read"),
    ("POST", "/v2/datamodel", "models:write"),
    ("DELETE", "/v2/datamodel", "models:write"),
    ("GET", "/v2/datamodel/{id}", "models:read"),
    ("PUT", "/v2/datamodel/{id}", "models:write"),
    ("DELETE", "/v2/datamodel/{id}", "models:write"),
    ("GET", "/v2/datamodel/{id}/logs", "models:read events:read"),
    ("POST", "/v2/datamodel/{id}/plan", "models:run"),
    ("POST", "/v2/datamodel/plan", "connections:query models:write"),
    ("POST", "/v2/datamodel/validate", "models:write"),
    ("GET", "/v2/datamodel/{id}/sync/{state}", "models:run"),
    ("POST", "/v2/datamodel/{id}/sync/{state}", "models:run"),
    ("POST", "/v2/datamodel/{id}/pause", "models:run"),
    ("POST", "/v2/datamodel/{id}/resume", "models:run"),
    ("GET", "/v2/data/datamodel/size", "models:read"),
    ("GET", "/v2/data/datamodel/{id}/size", "models:read"),
    ("GET", "/v2/run", "runs:read"),
    ("GET", "/v2/run/{id}", "runs:read"),
    ("GET", "/v2/run/{id}/hold", "runs:read"),
    ("POST", "/v2/run/{id}/approve", "runs:approve"),
    ("POST", "/v2/run/{id}/reject", "runs:approve"),
    ("POST", "/v2/run/{id}/cancel", "models:run"),
    ("GET", "/v2/datamodel/{id}/members", "profiles:query"),
    ("POST", "/v2/upload", "profiles:write"),
    ("GET", "/v2/upload", "runs:read"),
    ("GET", "/v2/upload/{id}", "runs:read"),
    ("POST", "/collect/json/{stream}", "profiles:write"),
];

/// What each role may do, as docs/security.md says.
pub const ROLES: &[(&str, &str)] = &[
    (
        "admin",
        "connections:read connections:write connections:query models:read models:write models:run runs:read runs:approve \
         authorizations:read authorizations:write profiles:lookup profiles:write profiles:query people:read people:write \
         events:read alerts:read alerts:write operations:read",
    ),
    (
        "editor",
        "connections:read connections:query models:read models:write models:run runs:read runs:approve \
         authorizations:read profiles:lookup profiles:query events:read alerts:read operations:read",
    ),
    (
        "data_manager",
        "connections:read connections:write connections:query models:read models:write models:run runs:read runs:approve \
         authorizations:read authorizations:write profiles:lookup profiles:write profiles:query events:read alerts:read \
         alerts:write operations:read",
    ),
    (
        "audience_manager",
        "connections:read models:read runs:read profiles:lookup profiles:query events:read alerts:read",
    ),
    ("viewer", "connections:read models:read runs:read events:read alerts:read"),
    ("public", "profiles:lookup"),
];

#[test]
fn every_endpoint_is_listed_here_with_what_it_takes() {
    let project = Project::new();
    let service = Service::start(&project);
    let api = service.get("/openapi.json").json();
    let mut described = BTreeMap::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if !matches!(method.as_str(), "get" | "post" | "put" | "delete" | "patch") {
                continue;
            }
            let schemes = operation["security"][0].as_object().unwrap_or_else(|| panic!("{method} {path}"));
            let scopes: BTreeSet<String> =
                schemes.values().flat_map(|s| s.as_array().unwrap()).map(|s| s.as_str().unwrap().into()).collect();
            described.insert((method.to_uppercase(), path.clone()), scopes);
        }
    }
    let listed: BTreeMap<_, BTreeSet<String>> = ENDPOINTS
        .iter()
        .map(|(method, path, takes)| {
            ((method.to_string(), path.to_string()), takes.split_whitespace().map(String::from).collect())
        })
        .collect();
    let differ: Vec<String> = described
        .iter()
        .filter(|(endpoint, scopes)| listed.get(*endpoint) != Some(scopes))
        .map(|((method, path), scopes)| {
            let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
            format!("    (\"{method}\", \"{path}\", \"{}\"),", scopes.join(" "))
        })
        .collect();
    assert!(differ.is_empty(), "no authorization test for these, or another one:\n{}", differ.join("\n"));
    let gone: Vec<_> = listed.keys().filter(|endpoint| !described.contains_key(*endpoint)).collect();
    assert!(gone.is_empty(), "there is no such endpoint: {gone:?}");
}

#[test]
fn every_role_gets_what_it_may_and_nothing_else() {
    let project = Project::with_people(&[person("ada", "Berlin", 1)]);
    let service = Service::start_with(&project, &["--rate-limit", "0"], &[]);
    for (role, may) in ROLES {
        let may: BTreeSet<&str> = may.split_whitespace().collect();
        let token = token(&project, &["--role", role]);
        for (method, path, takes) in ENDPOINTS {
            let takes: BTreeSet<&str> = takes.split_whitespace().collect();
            let reply = service.ask_as(Some(&token), method, &filled(path), body(method));
            if takes.is_subset(&may) {
                let refused = matches!(reply.status, 401 | 403) && reply.text.contains("may not do this");
                assert!(!refused && reply.status != 401, "{role} {method} {path}: {reply:?}");
                assert!(reply.status < 500, "{role} {method} {path}: {reply:?}");
            } else {
                assert_eq!(reply.error(403), "forbidden", "{role} {method} {path}");
            }
        }
    }
}

#[test]
fn a_stranger_gets_nothing_but_what_is_open() {
    let project = Project::with_people(&[person("ada", "Berlin", 1)]);
    let service = Service::start(&project);
    let expired = token(&project, &["--role", "admin", "--label", "gone"]);
    let id = project.cc(&["token", "list", "--output", "json"]).ok().json()[0]["id"].as_str().unwrap().to_string();
    project.cc(&["token", "revoke", &id]).ok();
    let tampered = format!("{}x", service.token);
    for (method, path, takes) in ENDPOINTS.iter().filter(|(_, _, takes)| !takes.is_empty()) {
        for token in [None, Some(expired.as_str()), Some(tampered.as_str()), Some(""), Some("cc_"), Some("\u{e9}")] {
            let reply = service.ask_as(token, method, &filled(path), body(method));
            assert_eq!(reply.error(401), "unauthorized", "{method} {path} ({takes}) {token:?}");
            assert!(reply.header("www-authenticate").starts_with("Bearer"));
        }
    }
}

#[test]
fn a_token_is_narrowed_by_its_scopes() {
    let project = Project::with_people(&[person("ada", "Berlin", 1)]);
    let service = Service::start_with(&project, &["--rate-limit", "0"], &[]);
    let narrow = token(&project, &["--role", "admin", "--scope", "models:read", "--scope", "runs:read"]);
    for (method, path, takes) in ENDPOINTS.iter().filter(|(_, _, takes)| !takes.is_empty()) {
        let within = takes.split_whitespace().all(|p| matches!(p, "models:read" | "runs:read"));
        let reply = service.ask_as(Some(&narrow), method, &filled(path), body(method));
        assert_eq!(reply.status != 403, within, "{method} {path} ({takes}): {reply:?}");
    }
}

/// A path whose parts name nothing that is there.
fn filled(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some(start) = rest.find('{') {
        let end = rest[start..].find('}').unwrap() + start;
        out.push_str(&rest[..start]);
        out.push_str("nothing_of_that_name");
        rest = &rest[end + 1..];
    }
    out + rest
}

fn body(method: &str) -> Option<&'static serde_json::Value> {
    static EMPTY: std::sync::LazyLock<serde_json::Value> = std::sync::LazyLock::new(|| json!({}));
    matches!(method, "POST" | "PUT").then_some(&*EMPTY)
}
