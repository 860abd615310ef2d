//! What roles may do is done: every endpoint with things that are there, by a token and by a browser's session of each
//! role. What a role may not do is refused, and leaves the same things as they were.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::authorization::{ENDPOINTS, ROLES};
use super::people::PASSWORD;
use super::receiver::Receiver;
use super::{Reply, Service, token};
use crate::project::{PEOPLE, Project, person};

/// In the order in which each caller asks: method, path, body, and what who may is answered. Words in capitals are the
/// caller's own things, `TAG` its name.
const CALLS: &[(&str, &str, &str, &[u16])] = &[
    ("GET", "/v2/me", "", &[200]),
    ("GET", "/v2/connection", "", &[200]),
    ("POST", "/v2/connection", r#"{"label": "new_TAG", "provider_slug": "local", "config": {"path": "data"}}"#, &[201]),
    ("GET", "/v2/connection/c_TAG", "", &[200]),
    ("PUT", "/v2/connection/c_TAG", r#"{"description": "changed"}"#, &[200]),
    ("POST", "/v2/connection/c_TAG/scan", r#"{"query": "SELECT * FROM people"}"#, &[200]),
    ("POST", "/v2/connection/c_TAG/test", "{}", &[200]),
    ("GET", "/v2/connection/c_TAG/schema", "", &[200]),
    ("GET", "/v2/connection/c_TAG/schema/people", "", &[200]),
    ("GET", "/v2/connection/c_TAG/summary", "", &[200]),
    ("GET", "/v2/connection/c_TAG/logs", "", &[200]),
    ("DELETE", "/v2/connection/c_TAG", "", &[200]),
    ("GET", "/v2/connectionconfig", "", &[200]),
    ("GET", "/v2/connectionconfig/local", "", &[200]),
    ("GET", "/v2/auth", "", &[200]),
    ("POST", "/v2/auth", r#"{"type": "postgres", "label": "new_TAG", "config": {"password": "p"}}"#, &[201]),
    ("POST", "/v2/auth/postgres", r#"{"label": "newer_TAG", "config": {"password": "p"}}"#, &[201]),
    ("POST", "/v2/auth/postgres/newest_TAG", r#"{"label": "x", "config": {"password": "p"}}"#, &[201]),
    ("GET", "/v2/auth/postgres/a_TAG", "", &[200]),
    ("PUT", "/v2/auth/postgres/a_TAG", r#"{"label": "changed"}"#, &[200]),
    ("DELETE", "/v2/auth/postgres/a_TAG", "", &[200]),
    ("GET", "/v2/event", "", &[200]),
    ("GET", "/v2/schedule", "", &[200]),
    ("GET", "/metrics", "", &[200]),
    ("GET", "/v2/alert", "", &[200]),
    ("GET", "/v2/alert/delivery", "", &[200]),
    ("GET", "/v2/alertchannel", "", &[200]),
    ("POST", "/v2/alertchannel/hook_TAG/test", "{}", &[200]),
    ("GET", "/v2/user", "", &[200]),
    ("POST", "/v2/user", r#"{"email": "new_TAG@example.com", "role": "viewer"}"#, &[201]),
    ("GET", "/v2/user/USER", "", &[200]),
    ("PUT", "/v2/user/USER", r#"{"role": "editor"}"#, &[200]),
    ("POST", "/v2/user/USER/invitation", "{}", &[201]),
    ("DELETE", "/v2/user/USER", "", &[200]),
    ("GET", "/v2/token", "", &[200]),
    ("POST", "/v2/token", r#"{"role": "viewer", "label": "new_TAG"}"#, &[201]),
    ("DELETE", "/v2/token/TOKEN", "", &[200]),
    ("GET", "/v2/entity/user/email/ada@example.com", "", &[200]),
    ("POST", "/v2/sql", r#"{"query": "SELECT email FROM profiles"}"#, &[200]),
    ("GET", "/v2/changes", "", &[200]),
    ("GET", "/v2/datamodel", "", &[200]),
    ("POST", "/v2/datamodel", MODEL, &[201]),
    ("POST", "/v2/datamodel/plan", OTHER_MODEL, &[200]),
    ("POST", "/v2/datamodel/validate", OTHER_MODEL, &[200]),
    ("GET", "/v2/datamodel/m_TAG", "", &[200]),
    ("PUT", "/v2/datamodel/m_TAG", r#"{"description": "changed"}"#, &[200]),
    ("POST", "/v2/datamodel/m_TAG/plan", "{}", &[200]),
    ("GET", "/v2/datamodel/m_TAG/logs", "", &[200]),
    ("GET", "/v2/data/datamodel/m_TAG/size", "", &[200]),
    ("GET", "/v2/data/datamodel/size?ids=m_TAG", "", &[200]),
    ("DELETE", "/v2/datamodel/m_TAG", "", &[200]),
    ("DELETE", "/v2/datamodel?ids=d_TAG", "", &[200]),
    ("GET", "/v2/datamodel/people/members", "", &[200]),
    ("POST", "/v2/datamodel/r_TAG/pause", "{}", &[200]),
    ("POST", "/v2/datamodel/r_TAG/resume", "{}", &[200]),
    ("GET", "/v2/datamodel/r_TAG/sync/start", "", &[202]),
    // the run waits, is under way, or has ended by now
    ("POST", "/v2/datamodel/r_TAG/sync/start", "{}", &[200, 202]),
    ("POST", "/v2/datamodel/r_TAG/sync/stop", "{}", &[200, 202]),
    ("GET", "/v2/run", "", &[200]),
    ("GET", "/v2/run/APPROVED", "", &[200]),
    ("GET", "/v2/run/APPROVED/hold", "", &[200]),
    ("POST", "/v2/run/APPROVED/approve", "{}", &[200]),
    ("POST", "/v2/run/REJECTED/reject", "{}", &[200]),
    // it ended long ago
    ("POST", "/v2/run/REJECTED/cancel", "{}", &[409]),
    ("POST", "/v2/upload?stream=up_TAG", r#"{"email": "TAG@example.com"}"#, &[200]),
    ("GET", "/v2/upload", "", &[200]),
    ("GET", "/v2/upload/UPLOAD", "", &[200]),
    ("POST", "/collect/json/site_TAG", r#"{"email": "TAG@example.com"}"#, &[202]),
];

const MODEL: &str = r#"{"slug": "new_TAG", "connection_id": "files", "sql": "SELECT * FROM people",
    "primary_keys": ["email"], "joined_to": {"foreign_key": "email"}}"#;
const OTHER_MODEL: &str = r#"{"slug": "newer_TAG", "connection_id": "files", "sql": "SELECT * FROM people",
    "primary_keys": ["email"], "joined_to": {"foreign_key": "email"}}"#;

/// Somebody of a role, and how they prove it.
struct Caller {
    tag: String,
    role: &'static str,
    may: BTreeSet<&'static str>,
    headers: Vec<(&'static str, String)>,
    /// What the words in capitals stand for.
    own: BTreeMap<&'static str, String>,
}

impl Caller {
    /// One of each role, by `token` or by `session`.
    fn all(way: &str) -> Vec<Self> {
        // nobody signs in as public
        let roles = ROLES.iter().filter(|(role, _)| way == "token" || *role != "public");
        let of = |(role, may): &(&'static str, &'static str)| Self {
            tag: format!("{role}_{way}"),
            role,
            may: may.split_whitespace().collect(),
            headers: Vec::new(),
            own: BTreeMap::new(),
        };
        roles.map(of).collect()
    }

    fn may(&self, takes: &str) -> bool {
        takes.split_whitespace().all(|permission| self.may.contains(permission))
    }

    fn is_session(&self) -> bool {
        self.tag.ends_with("session")
    }

    /// Signs in, or makes a token.
    fn prove(&mut self, project: &Project, service: &Service) {
        self.headers = if self.is_session() {
            let email = format!("{}@example.com", self.role);
            service.with_user(&email, self.role);
            let cookie = service.signed_in(&email, PASSWORD);
            vec![("x-csrf-token", service.csrf_token(&cookie)), ("cookie", cookie)]
        } else {
            vec![("authorization", format!("Bearer {}", token(project, &["--role", self.role])))]
        };
    }

    fn filled(&self, text: &str) -> String {
        let text = text.replace("TAG", &self.tag);
        self.own.iter().fold(text, |text, (word, value)| text.replace(word, value))
    }

    fn ask(&self, service: &Service, method: &str, path: &str, body: &str) -> Reply {
        service.send(method, path, |request| {
            let request = self.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
            let kind = if path.starts_with("/v2/upload") { "application/x-ndjson" } else { "application/json" };
            if body.is_empty() { request } else { request.header("content-type", kind).body(body.to_string()) }
        })
    }
}

/// The endpoint that a path leads to, with what it takes: the one with the most words in common.
fn endpoint(method: &str, path: &str) -> (&'static str, &'static str) {
    let path = path.split('?').next().unwrap();
    let alike = |template: &str| {
        let (ours, theirs): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), template.split('/').collect());
        let fits = |(a, b): (&&str, &&str)| a == b || b.starts_with('{');
        (ours.len() == theirs.len() && ours.iter().zip(&theirs).all(fits))
            .then(|| ours.iter().zip(&theirs).filter(|(a, b)| a == b).count())
    };
    let candidates = ENDPOINTS.iter().filter(|(m, template, _)| *m == method && alike(template).is_some());
    let (_, template, takes) = candidates.max_by_key(|(_, template, _)| alike(template)).unwrap();
    (template, takes)
}

/// A model of the files for each caller, one that is published, and held runs for those who may decide on them.
fn project(callers: &mut [Caller], receiver: &Receiver) -> Project {
    let rows: Vec<Value> = ["ada", "ben", "cyd", "dan"].map(|name| person(name, "Oslo", 1)).into();
    let project = Project::with_people(&rows);
    project.rows("leaving", &rows);
    let guarded = format!("{PEOPLE}guard: {{ max_removed: 0, max_removed_percent: 0 }}\n");
    let (mut channels, mut models) = (String::new(), vec!["people".to_string(), "held".into()]);
    for caller in callers.iter() {
        let tag = &caller.tag;
        channels.push_str(&format!("    hook_{tag}: {{ type: webhook, url: '{}' }}\n", receiver.url("/hook")));
        project.model(&format!("r_{tag}"), PEOPLE, "SELECT * FROM people");
        for held in ["approved", "rejected"].iter().filter(|_| caller.may("runs:approve")) {
            models.push(format!("{held}_{tag}"));
            project.model(&format!("{held}_{tag}"), &guarded, "SELECT * FROM leaving");
        }
    }
    project.model("held", &guarded, "SELECT * FROM leaving");
    let file = std::fs::read_to_string(project.path().join("cloud-connect.yml")).unwrap();
    let service =
        "service: { allow_private_addresses: [127.0.0.1], public_identities: [email], public_fields: [email] }";
    project.write("cloud-connect.yml", &format!("{file}{service}\nalerts:\n  channels:\n{channels}"));

    let run = ["run", "--output", "json"].into_iter().chain(models.iter().map(String::as_str)).collect::<Vec<_>>();
    project.cc(&run).ok();
    project.rows("leaving", &rows[..1]);
    let held = project.cc(&run);
    assert_eq!(held.code, Some(3), "{held:?}");
    let id_of = |model: &str| {
        let report = held.json().as_array().unwrap().iter().find(|report| report["model"] == model)?.clone();
        assert_eq!(report["status"], "held", "{report}");
        Some(report["run_id"].as_str().unwrap().to_string())
    };
    for caller in callers {
        for (word, model) in [("APPROVED", "approved"), ("REJECTED", "rejected")] {
            let own = id_of(&format!("{model}_{}", caller.tag)).or_else(|| id_of("held"));
            caller.own.insert(word, own.unwrap());
        }
    }
    project
}

/// What is made through the API for the caller, by an admin.
fn prepare(service: &Service, caller: &mut Caller) {
    let connection = json!({ "label": "c_TAG", "provider_slug": "local", "config": { "path": "data" } });
    let auth = json!({ "label": "a_TAG", "config": { "password": "p" } });
    for (path, body) in [
        ("/v2/connection", connection.to_string()),
        ("/v2/auth/postgres/a_TAG", auth.to_string()),
        ("/v2/datamodel", MODEL.replace("new_", "m_")),
        ("/v2/datamodel", MODEL.replace("new_", "d_")),
    ] {
        let body = serde_json::from_str(&caller.filled(&body)).unwrap();
        assert_eq!(service.post(&caller.filled(path), &body).status, 201, "{path}");
    }
    let id = |reply: Reply| reply.data()["id"].as_str().unwrap().to_string();
    let user = json!({ "email": caller.filled("u_TAG@example.com"), "role": "viewer" });
    caller.own.insert("USER", id(service.post("/v2/user", &user)));
    caller.own.insert("TOKEN", id(service.post("/v2/token", &json!({ "role": "viewer" }))));
    let uploaded = service.upload("shared", "application/x-ndjson", caller.filled("{\"email\":\"TAG@x\"}\n"));
    caller.own.insert("UPLOAD", id(uploaded));
}

#[test]
fn what_a_role_may_is_done_for_its_token_and_what_it_may_not_changes_nothing() {
    everybody_asks("token");
}

#[test]
fn what_a_role_may_is_done_for_its_session_and_what_it_may_not_changes_nothing() {
    everybody_asks("session");
}

fn everybody_asks(way: &str) {
    let receiver = Receiver::start();
    let mut callers = Caller::all(way);
    let project = project(&mut callers, &receiver);
    let service = Service::start_with(&project, &["--rate-limit", "0"], &[]);
    let api = service.get("/openapi.json").json();
    let mut undescribed = BTreeSet::new();
    for caller in &mut callers {
        caller.prove(&project, &service);
        prepare(&service, caller);
        for (method, path, body, expected) in CALLS {
            let (path, body) = (caller.filled(path), caller.filled(body));
            let (template, takes) = endpoint(method, &path);
            let reply = caller.ask(&service, method, &path, &body);
            // another site's page can make a browser follow a link: no change by GET
            let by_link = caller.is_session() && *method == "GET" && path.contains("/sync/");
            if caller.may(takes) && !by_link {
                assert!(expected.contains(&reply.status), "{} {method} {path}: {reply:?}", caller.tag);
                let described = &api["paths"][template][method.to_lowercase()]["responses"];
                if described[reply.status.to_string()].is_null() {
                    undescribed.insert((method, template, reply.status));
                }
            } else {
                assert_eq!(reply.error(403), "forbidden", "{} {method} {path}: {reply:?}", caller.tag);
            }
        }
        let me = caller.ask(&service, "GET", "/v2/me", "").data();
        let permissions: BTreeSet<&str> =
            me["permissions"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        assert_eq!(permissions, caller.may, "{}", caller.tag);
    }
    assert!(undescribed.is_empty(), "openapi.json does not say that these can be answered: {undescribed:?}");

    // what is gone was deleted by who may, and what is there is as it was made
    let refused = |permission: &str| -> Vec<&Caller> { callers.iter().filter(|c| !c.may(permission)).collect() };
    for caller in &callers {
        for (path, permission) in [
            ("/v2/connection/c_TAG", "connections:write"),
            ("/v2/auth/postgres/a_TAG", "authorizations:write"),
            ("/v2/datamodel/m_TAG", "models:write"),
            ("/v2/datamodel/d_TAG", "models:write"),
            ("/v2/user/USER", "people:write"),
        ] {
            let left = service.get(&caller.filled(path));
            let expected = if caller.may(permission) { 404 } else { 200 };
            assert_eq!(left.status, expected, "{} {path}: {left:?}", caller.tag);
            assert!(!left.text.contains("changed"), "{} {path}: {left:?}", caller.tag);
        }
    }
    for (path, permission, names) in [
        ("/v2/connection", "connections:write", &["new_TAG"] as &[&str]),
        ("/v2/auth", "authorizations:write", &["new_TAG", "newer_TAG", "newest_TAG"]),
        ("/v2/datamodel", "models:write", &["new_TAG"]),
        ("/v2/user", "people:write", &["new_TAG@example.com"]),
        ("/v2/upload", "profiles:write", &["up_TAG"]),
    ] {
        let listed = service.get(path).text;
        for caller in refused(permission) {
            let made: Vec<_> =
                names.iter().filter(|name| listed.contains(&format!("\"{}\"", caller.filled(name)))).collect();
            assert!(made.is_empty(), "{} made {made:?}", caller.tag);
        }
    }
    let held = service.get(&refused("runs:approve")[0].filled("/v2/run/APPROVED/hold")).data();
    assert_eq!(held["status"], "waiting", "{held}");
}

#[test]
fn every_endpoint_that_takes_a_permission_is_called() {
    let called: BTreeSet<_> = CALLS.iter().map(|(method, path, ..)| (*method, endpoint(method, path).0)).collect();
    let all = ENDPOINTS.iter().filter(|(_, _, takes)| !takes.is_empty());
    let missing: Vec<_> = all.filter(|(method, path, _)| !called.contains(&(*method, *path))).collect();
    // `sync/{state}` is called as GET to start and as POST to stop
    assert!(missing.is_empty(), "no call with real things for {missing:?}");
}

#[test]
fn nobody_becomes_a_user_who_is_public() {
    let project = Project::new();
    let service = Service::start(&project);
    let id = service.with_user("ada@example.com", "viewer");
    assert_eq!(service.put(&format!("/v2/user/{id}"), &json!({ "role": "public" })).error(400), "invalid");
    assert_eq!(service.post("/v2/user", &json!({ "email": "b@example.com", "role": "public" })).error(400), "invalid");
    assert_eq!(project.cc(&["user", "add", "c@example.com", "--role", "public"]).code, Some(2));
    assert_eq!(project.cc(&["user", "set-role", "ada@example.com", "public"]).code, Some(2));
    assert_eq!(service.get("/v2/user").data().as_array().unwrap().len(), 1);
}
