//! Requests with an `Idempotency-Key`, repeated.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clock::Clock;
use super::connections::{connect, database};
use super::{PATIENCE, Reply, Service, signal, token};
use crate::postgres_server::{DATABASE, PostgresServer, READER_PASSWORD};
use crate::project::{Project, person};

fn shop() -> Project {
    let project = Project::new();
    project.rows("people", &[person("ada", "Bonn", 1)]);
    project
}

fn connection() -> Value {
    json!({ "label": "More files", "provider_slug": "local", "config": { "path": "data" } })
}

fn model(connection: &str) -> Value {
    json!({ "name": "Everybody", "connection_id": connection, "sql": "SELECT email, spent FROM people",
        "primary_keys": ["email"], "joined_to": { "foreign_key": "email" }, "activated_fields": ["spent"] })
}

impl Service {
    fn keyed(&self, key: &str, path: &str, body: &Value) -> Reply {
        self.send("POST", path, |request| request.bearer_auth(&self.token).header("idempotency-key", key).json(body))
    }

    /// How many of the list's entries are not the files'.
    fn made(&self, list: &str) -> usize {
        self.get(list).data().as_array().unwrap().iter().filter(|one| one["origin"] == "api").count()
    }
}

#[test]
fn a_repeated_request_is_done_once_and_answered_alike() {
    let project = shop();
    let mut service = Service::start(&project);
    let cases = [("/v2/connection", connection(), "label"), ("/v2/datamodel", model("files"), "name")];
    for (path, body, name) in &cases {
        let first = service.keyed("one", &format!("{path}?n=1"), body);
        assert_eq!((first.status, first.header("etag"), first.header("idempotent-replayed")), (201, "\"1\"", ""));
        // its answer was lost, and meanwhile somebody else changed it
        let made = format!("{path}/{}", first.data()["id"].as_str().unwrap());
        service.put(&made, &json!({ "description": "changed" })).data();
        let again = service.keyed("one", &format!("{path}?n=1"), body);
        assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"), "{again:?}");
        assert_eq!((again.header("etag"), &again.text), ("\"1\"", &first.text));
        assert_eq!(again.header("content-type"), "application/json");
        // and so the client's next change does not overwrite that
        let stale = service.send("PUT", &made, |request| {
            request.bearer_auth(&service.token).header("if-match", again.header("etag")).json(&json!({ *name: "mine" }))
        });
        assert_eq!(stale.error(412), "changed-meanwhile");
        let mut other = body.clone();
        other[*name] = "Another".into();
        for (path, body) in [(format!("{path}?n=1"), &other), (format!("{path}?n=2"), body)] {
            let refused = service.keyed("one", &path, body);
            assert_eq!(refused.error(422), "idempotency-key-reused");
            assert!(refused.json()["errors"][0]["hint"].is_string(), "{refused:?}");
        }
        assert_eq!(service.made(path), 1);
        let kind = path.rsplit('/').next().unwrap().replace("data", "");
        let created = service.get(&format!("/v2/event?kind={kind}&verb=created")).data();
        assert_eq!(created.as_array().unwrap().len(), 1, "{created}");
        // another caller's key is another key
        service.token = token(&project, &["--role", "admin"]);
    }
    let own = service.keyed("one", "/v2/connection?n=1", &connection());
    assert_eq!((own.status, &own.data()["id"], own.header("idempotent-replayed")), (201, &json!("more_files_2"), ""));
    // answers outlast the process
    let caller = service.token.clone();
    assert_eq!(service.stop(), 0);
    let mut service = Service::start(&project);
    service.token = caller;
    let again = service.keyed("one", "/v2/connection?n=1", &connection());
    assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &own.text));
    assert_eq!(service.made("/v2/connection"), 2);
}

#[test]
fn refusals_that_may_pass_are_not_kept_and_others_are() {
    let project = shop();
    let service = Service::start(&project);
    for bad in ["", &"x".repeat(256)] {
        assert_eq!(service.keyed(bad, "/v2/connection", &connection()).error(400), "invalid-idempotency-key");
    }
    assert_eq!(service.keyed(&"x".repeat(255), "/v2/connection", &connection()).status, 201);

    let mut faulty = connection();
    faulty["config"] = json!({ "path": "/etc" });
    let refused = service.keyed("bad", "/v2/connection", &faulty);
    assert_eq!(refused.error(400), "outside-project");
    let again = service.keyed("bad", "/v2/connection", &faulty);
    assert_eq!((again.error(400).as_str(), again.header("idempotent-replayed")), ("outside-project", "true"));

    // the slug is taken, and then it is not
    let mut taken = model("files");
    taken["slug"] = "taken".into();
    assert_eq!(service.keyed("first", "/v2/datamodel", &taken).status, 201);
    assert_eq!(service.keyed("second", "/v2/datamodel", &taken).error(409), "exists");
    service.delete("/v2/datamodel/taken").data();
    let made = service.keyed("second", "/v2/datamodel", &taken);
    assert_eq!((made.status, made.header("idempotent-replayed")), (201, ""), "{made:?}");
    // questions take no key: nothing of people is kept
    let sql = |query: &str| service.keyed("asked", "/v2/sql", &json!({ "query": query })).data()["rows"].clone();
    assert_eq!((sql("SELECT 1"), sql("SELECT 2")), (json!([[1]]), json!([[2]])));
}

/// Nobody can read the table for so long; returns once that is so.
fn locked<'s>(threads: &'s std::thread::Scope<'s, '_>, server: &'s PostgresServer, seconds: u32) {
    threads.spawn(move || {
        server.psql(DATABASE, &format!("BEGIN; LOCK TABLE people; SELECT pg_sleep({seconds}); COMMIT"));
    });
    wait_for(server, "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted");
}

/// Waits until the warehouse is asked what the query returns, which it cannot tell yet.
fn described(server: &PostgresServer) {
    wait_for(server, "SELECT count(*) FROM pg_locks WHERE NOT granted");
}

fn wait_for(server: &PostgresServer, counts: &str) {
    let until = Instant::now() + PATIENCE;
    while server.psql(DATABASE, counts) == "0" {
        assert!(Instant::now() < until, "always none: {counts}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn while_the_first_is_under_way_the_second_is_refused() {
    let server = database();
    let project = shop();
    let service = Service::start(&project);
    connect(&service, &server, READER_PASSWORD);
    let make = || service.keyed("slow", "/v2/datamodel", &model("app_db"));
    std::thread::scope(|threads| {
        locked(threads, &server, 5);
        let first = threads.spawn(make);
        described(&server);
        let second = make();
        assert_eq!(second.error(409), "under-way");
        assert!(second.json()["errors"][0]["hint"].as_str().unwrap().contains("wait"), "{second:?}");
        let first = first.join().unwrap();
        assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""), "{first:?}");
        let third = make();
        assert_eq!((third.status, third.header("idempotent-replayed")), (201, "true"));
        assert_eq!((third.header("etag"), &third.text), (first.header("etag"), &first.text));
    });
    assert_eq!(service.made("/v2/datamodel"), 1);
}

#[test]
fn a_request_that_died_with_its_process_is_not_repeated_blindly() {
    let server = database();
    let project = shop();
    let clock = Clock::at(&project, "2025-01-01T00:00:00Z");
    let service = clock.start(&[], &[]);
    connect(&service, &server, READER_PASSWORD);
    let body = model("app_db").to_string();
    let make = |service: &Service| service.try_send("/v2/datamodel", "application/json", Some("lost"), body.as_str());
    std::thread::scope(|threads| {
        locked(threads, &server, 5);
        let first = threads.spawn(|| make(&service));
        described(&server);
        signal(service.pid(), "KILL");
        assert!(first.join().unwrap().is_none());
    });
    let caller = service.token.clone();
    service.crashed();
    let mut service = clock.start(&[], &[]);
    service.token = caller;
    assert_eq!(make(&service).unwrap().error(409), "under-way", "it may still be");
    clock.set("2025-01-01T00:11:00Z");
    let lost = make(&service).unwrap();
    assert_eq!(lost.error(409), "outcome-unknown");
    assert!(lost.json()["errors"][0]["hint"].as_str().unwrap().contains("new key"), "{lost:?}");
    assert_eq!(service.made("/v2/datamodel"), 0);
    assert_eq!(service.keyed("anew", "/v2/datamodel", &model("app_db")).status, 201);
}
