//! The audit trail: who did what, when; and how far back it goes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clock::Clock;
use super::{Service, secret_of, token};
use crate::project::{PEOPLE, Project, person};

/// The one event of that verb about that subject.
fn one(service: &Service, kind: &str, subject: &str, verb: &str) -> Value {
    let found = service.get(&format!("/v2/event?kind={kind}&subject={subject}&verb={verb}")).data();
    assert_eq!(found.as_array().unwrap().len(), 1, "{kind} {subject} {verb}: {found}");
    assert_eq!((&found[0]["kind"], &found[0]["subject"]), (&json!(kind), &json!(subject)));
    found[0].clone()
}

#[test]
fn the_trail_tells_who_did_what_and_when() {
    let rows: Vec<Value> = (0..10).map(|n| person(&format!("p{n}"), "Bonn", n)).collect();
    let project = Project::with_people(&rows);
    project.model(
        "people",
        &format!("{PEOPLE}guard: {{ max_removed: 1, max_removed_percent: 1 }}\n"),
        "SELECT * FROM people",
    );
    let clock = Clock::at(&project, "2025-01-01T00:00:00Z");
    let service = clock.start(&[], &[]);
    let actor = |token: &str| service.ask_as(Some(token), "GET", "/v2/me", None).data()["actor"].clone();
    let admin = actor(&service.token);
    let judge = token(&project, &["--role", "data_manager", "--label", "judge"]);
    let told = |event: &Value, who: &Value, when: &str| {
        assert_eq!((&event["actor"], &event["timestamp"]), (who, &json!(when)), "{event}");
    };

    clock.set("2025-01-01T01:00:00Z");
    let user = service.post("/v2/user", &json!({ "email": "eve@example.com", "role": "viewer" })).data();
    let user = user["id"].as_str().unwrap();
    let made = one(&service, "user", user, "created");
    told(&made, &admin, "2025-01-01T01:00:00Z");
    assert_eq!((&made["details"]["email"], &made["details"]["role"]), (&json!("eve@example.com"), &json!("viewer")));
    clock.set("2025-01-01T02:00:00Z");
    service.put(&format!("/v2/user/{user}"), &json!({ "role": "editor" })).data();
    let changed = one(&service, "user", user, "updated");
    told(&changed, &admin, "2025-01-01T02:00:00Z");
    assert!(
        changed["details"].to_string().contains("viewer") && changed["details"].to_string().contains("editor"),
        "{changed}"
    );
    clock.set("2025-01-01T03:00:00Z");
    service.delete(&format!("/v2/user/{user}")).data();
    told(&one(&service, "user", user, "deleted"), &admin, "2025-01-01T03:00:00Z");

    clock.set("2025-01-01T04:00:00Z");
    let made = service.post("/v2/token", &json!({ "label": "ci", "role": "viewer", "expires_in": "1d" })).data();
    let (id, text) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let created = one(&service, "token", id, "created");
    told(&created, &admin, "2025-01-01T04:00:00Z");
    assert_eq!((&created["details"]["label"], &created["details"]["role"]), (&json!("ci"), &json!("viewer")));
    clock.set("2025-01-01T05:00:00Z");
    service.delete(&format!("/v2/token/{id}")).data();
    told(&one(&service, "token", id, "revoked"), &admin, "2025-01-01T05:00:00Z");
    assert!(!service.get("/v2/event").text.contains(secret_of(text)), "a secret is in the trail");

    clock.set("2025-01-01T06:00:00Z");
    assert_eq!(service.run("people")["status"], "published");
    told(&one(&service, "model", "people", "run_started"), &admin, "2025-01-01T06:00:00Z");
    told(&one(&service, "model", "people", "run_finished"), &admin, "2025-01-01T06:00:00Z");
    project.rows("people", &rows[5..]);
    clock.set("2025-01-01T07:00:00Z");
    let run = service.run("people");
    let held = one(&service, "model", "people", "run_held");
    told(&held, &admin, "2025-01-01T07:00:00Z");
    assert_eq!((&held["details"]["run_id"], &held["details"]["removed"]), (&run["run_id"], &json!(5)), "{held}");
    let judged = |run: &Value, how: &str| {
        service.ask_as(Some(&judge), "POST", &format!("/v2/run/{}/{how}", run["run_id"].as_str().unwrap()), None).data()
    };
    clock.set("2025-01-01T08:00:00Z");
    judged(&run, "reject");
    let rejected = one(&service, "model", "people", "rejected");
    told(&rejected, &actor(&judge), "2025-01-01T08:00:00Z");
    assert_eq!(rejected["details"], json!({ "run_id": run["run_id"], "removed": 5 }));
    let run = service.run("people");
    clock.set("2025-01-01T09:00:00Z");
    let approval = judged(&run, "approve");
    let approved = one(&service, "model", "people", "approved");
    told(&approved, &actor(&judge), "2025-01-01T09:00:00Z");
    let details = json!({ "run_id": run["run_id"], "removed": 5, "approved_by_run": approval["run"]["run_id"] });
    assert_eq!(approved["details"], details);

    // newest first, whatever it is about; the command line has a clock of its own
    let all = service.get("/v2/event?limit=1000").data();
    let events = all.as_array().unwrap().iter().filter(|event| event["actor"] != "cli");
    let times: Vec<&str> = events.map(|event| event["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older) && times.len() >= 12, "{times:?}");
}

#[test]
fn answers_are_kept_for_a_day_and_events_for_four_hundred() {
    let project = Project::new();
    project.rows("people", &[person("ada", "Bonn", 1)]);
    let clock = Clock::at(&project, "2024-01-01T00:00:00Z");
    let service = clock.start(&[], &[]);
    let make = |label: &str| {
        let body = json!({ "label": label, "provider_slug": "local", "config": { "path": "data" } });
        let key = format!("key of {label}");
        let made = service.send("POST", "/v2/connection", |request| {
            request.bearer_auth(&service.token).header("idempotency-key", key).json(&body)
        });
        (made.data()["id"].as_str().unwrap().to_string(), made.header("idempotent-replayed") == "true")
    };
    let events = |subject: &str| service.get(&format!("/v2/event?kind=connection&subject={subject}")).data();
    let count = |subject: &str| events(subject).as_array().unwrap().len();
    assert_eq!(make("old"), ("old".into(), false));
    // an hour before and an hour after its 400 days
    clock.set("2025-02-03T23:00:00Z");
    assert_eq!(make("young"), ("young".into(), false));
    clock.set("2025-02-04T01:00:00Z");
    assert_eq!((count("old"), count("young")), (1, 1));

    // the house is kept each minute
    let until = Instant::now() + Duration::from_secs(90);
    while count("old") > 0 {
        assert!(Instant::now() < until, "old events stay: {}", events("old"));
        std::thread::sleep(Duration::from_millis(250));
    }
    assert_eq!(count("young"), 1);
    assert_eq!(make("young"), ("young".into(), true), "two hours old");
    assert_eq!(make("old"), ("old_2".into(), false), "its answer is forgotten");
    // what was made stays
    assert_eq!(service.get("/v2/connection/old").status, 200);
}
