//! Data models over HTTP: made, activated, run, changed, held, deleted.

use serde_json::{Value, json};

use super::{Reply, Service, token};
use crate::project::{PEOPLE, Project, counts, person};

/// A project with rows and no model.
pub fn shop() -> Project {
    let project = Project::new();
    project.rows("people", &[person("ada", "Berlin", 1), person("bob", "Köln", 2), person("cyd", "Rom", 3)]);
    project
}

pub fn people() -> Value {
    json!({
        "name": "Everybody", "slug": "everybody", "description": "All people", "connection_id": "files",
        "sql": "SELECT * FROM people;", "primary_keys": ["email"],
        "joined_to": { "primary_key": "email", "foreign_key": "email", "foreign_table": "user" },
        "activated_fields": ["city", "spent"],
    })
}

pub fn with(mut model: Value, changes: Value) -> Value {
    model.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    model
}

/// The code and the field of the first error.
fn fault(reply: &Reply, status: u16) -> (String, String) {
    let code = reply.error(status);
    (code, reply.json()["errors"][0]["field"].as_str().unwrap_or_default().to_string())
}

fn of(code: &str, field: &str) -> (String, String) {
    (code.into(), field.into())
}

/// Made, and activated.
pub fn make(service: &Service, model: &Value) {
    assert_eq!(service.post("/v2/datamodel", model).status, 201);
    let path = format!("/v2/datamodel/{}", model["slug"].as_str().unwrap());
    service.put(&path, &json!({ "status": "active" })).data();
}

#[test]
fn a_model_lives_from_its_making_to_its_deletion() {
    let project = shop();
    let service = Service::start_with(&project, &["--schedule-jitter", "0s"], &[]);
    let made = service.post("/v2/datamodel", &people());
    assert_eq!(made.status, 201, "{made:?}");
    let model = made.data();
    for (key, expected) in [
        ("id", json!("everybody")),
        ("status", json!("inactive")),
        ("is_draft", json!(true)),
        ("needs_backfill", json!(false)),
        ("origin", json!("api")),
        ("sql_dialect", json!("local")),
        ("primary_keys", json!(["email"])),
        ("table", json!("user")),
        ("sync_errors", json!([])),
        ("sync_period", Value::Null),
    ] {
        assert_eq!(model[key], expected, "{key}: {model}");
    }
    assert_eq!(model["joined_to"], people()["joined_to"]);
    assert_eq!(model["health"]["status"], "inactive");
    assert!(model["author_id"].as_str().unwrap().starts_with("token:"), "{model}");
    assert_eq!(made.header("etag"), "\"1\"");

    // an inactive model is never queried, but by a person's plan
    let refused = service.ask("POST", "/v2/datamodel/everybody/sync/start", None);
    assert_eq!(refused.error(409), "inactive");
    let plan = service.ask("POST", "/v2/datamodel/everybody/plan", None).data();
    assert_eq!(counts(&plan, ["rows", "added"]), [3, 3]);
    assert_eq!(plan["samples"]["added"].as_array().unwrap().len(), 3);
    assert_eq!(service.get("/v2/run").data(), json!([]));

    // activated, with a period; somebody else's revision is not overwritten
    let change = json!({ "status": "active", "sync_period": 3600 });
    let stale = service.send("PUT", "/v2/datamodel/everybody", |request| {
        request.bearer_auth(&service.token).header("if-match", "\"7\"").json(&change)
    });
    assert_eq!(stale.error(412), "changed-meanwhile");
    let active = service.put("/v2/datamodel/everybody", &change);
    assert_eq!((active.data()["status"].clone(), active.header("etag")), (json!("active"), "\"2\""));
    assert_eq!(active.data()["schedule"]["text"], "every 1h");
    assert_eq!(active.data()["is_draft"], false);

    // its time had come: it never ran
    let model = service.wait_for("/v2/datamodel/everybody?sizes=1", |model| model["health"]["status"] == "healthy");
    assert_eq!((&model["size"], &model["sync_period"]), (&json!(3), &json!(3600)));
    assert!(model["schedule"]["prev_sync_time"].is_string() && model["schedule"]["next_sync_time"].is_string());
    let size = json!({ "id": "everybody", "name": "Everybody", "slug_name": "everybody", "record_store_size": 3 });
    assert_eq!(service.get("/v2/data/datamodel/everybody/size").data(), size);
    assert_eq!(service.get("/v2/data/datamodel/size?ids=everybody").data(), json!([size]));
    assert_eq!(service.get("/v2/data/datamodel/size?ids=everybody,nobody").error(404), "not-found");

    // run at once, and told in full
    project.rows("people", &[person("ada", "Oslo", 1), person("bob", "Köln", 2), person("dan", "Bern", 4)]);
    let report = service.run("everybody");
    assert_eq!(counts(&report, ["rows", "added", "changed", "removed"]), [3, 1, 1, 1]);
    assert_eq!((&report["hold"], &report["progress"]), (&Value::Null, &Value::Null));
    let start_of_id = &report["run_id"].as_str().unwrap()[..30];
    assert_eq!(service.get(&format!("/v2/run/{start_of_id}")).data(), report);

    // changed: the next run compares with it
    let changed = service.put("/v2/datamodel/everybody", &json!({ "activated_fields": ["city"] })).data();
    assert_eq!(changed["needs_backfill"], true);
    assert_eq!(service.run("everybody")["error"], Value::Null);
    let model = service.get("/v2/datamodel/everybody").data();
    assert_eq!(model["needs_backfill"], false);
    // read, and sent back: nothing changes
    let same = service.put("/v2/datamodel/everybody", &model);
    assert_eq!((same.status, same.header("etag")), (200, "\"3\""), "{same:?}");

    // a failure is told until the next run is fine
    std::fs::remove_file(project.path().join("data/people.ndjson")).unwrap();
    assert_eq!(service.run("everybody")["status"], "failed");
    let failing = service.get("/v2/datamodel/everybody").data();
    assert_eq!(failing["health"]["status"], "failing");
    assert_eq!(failing["sync_errors"].as_array().unwrap().len(), 1);

    // all of it is in the log
    let verbs = |reply: &Reply| -> Vec<String> {
        reply.data().as_array().unwrap().iter().map(|log| log["verb"].as_str().unwrap().into()).collect()
    };
    let logs = service.get("/v2/datamodel/everybody/logs");
    let all = verbs(&logs);
    for verb in ["created", "activated", "updated", "run_requested", "run_started", "run_finished", "run_failed"] {
        assert!(all.iter().any(|seen| seen == verb), "{verb}: {all:?}");
    }
    let page = service.get("/v2/datamodel/everybody/logs?limit=2");
    let cursor = page.json()["_meta"]["next_cursor"].as_str().unwrap().to_string();
    let rest = service.get(&format!("/v2/datamodel/everybody/logs?cursor={cursor}"));
    assert_eq!([verbs(&page), verbs(&rest)].concat(), all);
    assert!(rest.json()["_meta"]["next_cursor"].is_null());

    // deleted: it is shown no more, and its log stays
    let gone = service.delete("/v2/datamodel/everybody").data();
    assert_eq!(gone, json!({ "id": "everybody", "deleted": true, "reason": null }));
    assert_eq!(service.get("/v2/datamodel/everybody").error(404), "not-found");
    assert_eq!(verbs(&service.get("/v2/datamodel/everybody/logs"))[0], "deleted");
    assert_eq!(project.sql("SELECT count(*) AS n FROM memberships")[0]["n"], 0);
    project.rows("people", &[person("ada", "Oslo", 1)]);
    // with another key it would be another model under an old name
    let other = with(people(), json!({ "joined_to": { "foreign_key": "user_id" } }));
    assert_eq!(fault(&service.post("/v2/datamodel", &other), 409), of("slug-has-history", "slug"));
    assert_eq!(service.post("/v2/datamodel", &people()).status, 201);
    assert_eq!(service.stop(), 0);
}

#[test]
fn what_would_not_pass_as_a_file_is_refused_with_its_field() {
    let project = shop();
    project.model("people", PEOPLE, "SELECT * FROM people");
    let service = Service::start(&project);
    let columns: Vec<String> = (0..26).map(|n| format!("c{n}")).collect();
    let wide = columns.iter().map(|c| format!("1 AS {c}")).collect::<Vec<_>>().join(", ");
    let wide = format!("SELECT email, {wide} FROM people");
    let cases = [
        (json!({ "activated_fields": columns, "sql": wide }), 400, of("too-many-fields", "activated_fields")),
        (json!({ "primary_keys": ["email", "city"] }), 400, of("several-key-columns", "primary_keys")),
        (json!({ "status": "active" }), 400, of("starts-inactive", "status")),
        (json!({ "sync_period": 59 }), 400, of("invalid-schedule", "sync_period")),
        (json!({ "schedule": "now and then" }), 400, of("invalid-schedule", "schedule")),
        (json!({ "slug": "Every Body" }), 400, of("invalid-slug", "slug")),
        (json!({ "slug": "validate" }), 400, of("invalid-slug", "slug")),
        (json!({ "slug": "people" }), 409, of("exists", "slug")),
        (json!({ "connection_id": "elsewhere" }), 400, of("unknown-connection", "connection_id")),
        (json!({ "joined_to": { "foreign_key": "phone" } }), 400, of("unknown-identity", "joined_to.foreign_key")),
        // the model in the files matches the same rows by e-mail
        (
            json!({ "joined_to": { "foreign_key": "user_id" } }),
            400,
            of("external-key-conflict", "joined_to.foreign_key"),
        ),
        (json!({ "activated_fields": ["town"] }), 400, of("missing-column", "activated_fields")),
        (json!({ "sql": "SELECT 1; SELECT 2" }), 400, of("several-statements", "sql")),
        (json!({ "sql": "SELECT * FROM nowhere" }), 422, of("warehouse", "sql")),
        (json!({ "sql_dialect": "snowflake" }), 400, of("dialect-mismatch", "sql_dialect")),
        (json!({ "guard": { "max_removed_percent": 101 } }), 400, of("out-of-range", "guard")),
        (json!({ "sql_period": 60 }), 400, of("invalid", "sql_period")),
    ];
    for (changes, status, expected) in cases {
        let model = with(people(), changes.clone());
        let reply = service.post("/v2/datamodel", &model);
        assert_eq!(fault(&reply, status), expected, "{changes}: {reply:?}");
        // and asked before, it is told the same
        let asked = service.post("/v2/datamodel/validate", &model);
        if asked.status == 200 {
            assert_eq!(asked.data()["valid"], false);
            assert_eq!(asked.data()["errors"][0]["code"], expected.0, "{changes}: {asked:?}");
        }
    }
    assert_eq!(service.get("/v2/datamodel/everybody").error(404), "not-found");
    let valid = service.post("/v2/datamodel/validate", &people()).data();
    assert_eq!((&valid["valid"], &valid["errors"]), (&json!(true), &json!([])));
    let city = json!({ "column_name": "city", "column_datatype": "string", "nullable": true });
    assert!(valid["columns"].as_array().unwrap().contains(&city), "{valid}");
    let plan = service.post("/v2/datamodel/plan", &people()).data();
    assert_eq!(counts(&plan, ["rows", "added"]), [3, 3]);
    assert_eq!(service.get("/v2/datamodel").data().as_array().unwrap().len(), 1);
    let report = service.post("/v2/datamodel", &with(people(), json!({ "slug": null }))).data();
    assert_eq!(report["slug"], "everybody");

    // what the record store is keyed by does not change
    for (change, field) in [
        (json!({ "slug": "others" }), "slug"),
        (json!({ "connection_id": "other" }), "connection_id"),
        (json!({ "primary_keys": ["city"] }), "primary_keys"),
        (json!({ "joined_to": { "foreign_key": "user_id" } }), "joined_to.foreign_key"),
    ] {
        assert_eq!(fault(&service.put("/v2/datamodel/everybody", &change), 400), of("immutable", field));
    }
    // and a change is judged as a new model is
    let broken = service.put("/v2/datamodel/everybody", &json!({ "sql": "SELECT email FROM people" }));
    assert_eq!(fault(&broken, 400), of("missing-column", "activated_fields"));
    assert_eq!(broken.json()["errors"].as_array().unwrap().len(), 2);
    std::fs::remove_file(project.path().join("data/people.ndjson")).unwrap();
    let activated = service.put("/v2/datamodel/everybody", &json!({ "status": "active" }));
    assert_eq!(activated.error(422), "warehouse");
    assert_eq!(service.get("/v2/datamodel/everybody").data()["status"], "inactive");
}

#[test]
fn a_model_in_files_is_read_and_run_and_changed_nowhere_else() {
    let project = shop();
    project.model("people", PEOPLE, "SELECT * FROM people");
    let service = Service::start(&project);
    let model = service.get("/v2/datamodel/people").data();
    assert_eq!((&model["origin"], &model["file"]), (&json!("files"), &json!("models/people.yml")));
    assert_eq!((&model["author_id"], &model["is_draft"]), (&Value::Null, &json!(false)));
    assert_eq!(model["health"]["status"], "never_run");
    let refused = service.put("/v2/datamodel/people", &json!({ "name": "x" }));
    assert_eq!(refused.error(409), "defined-in-files");
    assert!(refused.text.contains("models/people.yml"));
    assert_eq!(service.run("people")["status"], "published");
    let paused = service.ask("POST", "/v2/datamodel/people/pause", None).data();
    assert_eq!((&paused["schedule"]["paused"], &paused["health"]["status"]), (&json!(true), &json!("paused")));
    let resumed = service.ask("POST", "/v2/datamodel/people/resume", None).data();
    assert_eq!((&resumed["schedule"]["paused"], &resumed["health"]["status"]), (&json!(false), &json!("healthy")));
    // the form that clients of Lytics send
    let started = service.get("/v2/datamodel/people/sync/start");
    assert_eq!((started.status, &started.data()["slug"]), (202, &json!("people")));
    let id = started.data()["run_id"].as_str().unwrap().to_string();
    service.wait_for(&format!("/v2/run/{id}"), |run| run["status"] == "unchanged");
    let stopped = service.ask("POST", "/v2/datamodel/people/sync/stop", None).data();
    assert_eq!((&stopped["state"], &stopped["run_id"]), (&json!("idle"), &Value::Null));
    assert_eq!(service.ask("POST", &format!("/v2/run/{id}/cancel"), None).error(409), "run-ended");

    // each model that was to be deleted is answered for
    make(&service, &people());
    let done = service.delete("/v2/datamodel?ids=people,everybody,nobody").data();
    let told: Vec<_> =
        done.as_array().unwrap().iter().map(|one| (one["id"].as_str().unwrap(), &one["deleted"])).collect();
    assert_eq!(told, [("people", &json!(false)), ("everybody", &json!(true)), ("nobody", &json!(false))]);
    assert!(done[0]["reason"].as_str().unwrap().contains("models/people.yml"), "{done}");
    assert!(done[2]["reason"].as_str().unwrap().contains("no model `nobody`"), "{done}");
    assert_eq!(fault(&service.delete("/v2/datamodel?ids=,"), 400), of("missing-field", "ids"));
}

#[test]
fn held_removals_are_approved_and_rejected_and_samples_are_for_who_may_see_them() {
    let project = shop();
    let service = Service::start(&project);
    let rows: Vec<Value> = (0..10).map(|n| person(&format!("p{n}"), "Bonn", n)).collect();
    project.rows("people", &rows);
    make(&service, &with(people(), json!({ "guard": { "max_removed": 3, "max_removed_percent": 20 } })));
    assert_eq!(service.run("everybody")["status"], "published");
    project.rows("people", &rows[5..]);
    let held = service.run("everybody");
    assert_eq!((&held["status"], &held["hold"]["removed"]), (&json!("held"), &json!(5)));
    assert_eq!(service.get("/v2/datamodel/everybody").data()["health"]["status"], "held");
    let path = |run: &Value, what: &str| format!("/v2/run/{}/{what}", run["run_id"].as_str().unwrap());

    let hold = service.get(&path(&held, "hold")).data();
    assert_eq!((&hold["of"], &hold["status"]), (&json!(10), &json!("waiting")));
    assert_eq!(hold["samples"].as_array().unwrap().len(), 5);
    let viewer = token(&project, &["--role", "viewer"]);
    let seen = service.ask_as(Some(&viewer), "GET", &path(&held, "hold"), None);
    assert_eq!((&seen.data()["removed"], &seen.data()["samples"]), (&json!(5), &json!([])));
    assert!(!service.ask_as(Some(&viewer), "GET", "/v2/run", None).text.contains("@example.com"));
    assert_eq!(service.ask_as(Some(&viewer), "POST", &path(&held, "approve"), None).error(403), "forbidden");

    let rejected = service.ask("POST", &path(&held, "reject"), None);
    assert_eq!(rejected.status, 200, "{rejected:?}");
    assert_eq!(service.ask("POST", &path(&held, "approve"), None).error(409), "nothing-held");
    assert_eq!(project.sql("SELECT count(*) AS n FROM memberships")[0]["n"], 10);

    let held = service.run("everybody");
    let approved = service.ask("POST", &path(&held, "approve"), None).data();
    assert_eq!(approved["done"], true);
    assert_eq!(counts(&approved["run"], ["removed", "exited"]), [5, 5]);
    assert_eq!(project.sql("SELECT count(*) AS n FROM memberships")[0]["n"], 5);
    assert_eq!(service.get(&path(&approved["run"], "hold")).error(404), "not-found");

    // who did it is in the log
    let logs = service.get("/v2/datamodel/everybody/logs").data();
    let by = |verb: &str| {
        let log = logs.as_array().unwrap().iter().find(|log| log["verb"] == verb);
        log.unwrap_or_else(|| panic!("{verb}: {logs}"))["actor"].as_str().unwrap().to_string()
    };
    assert!(by("approved").starts_with("token:") && by("rejected").starts_with("token:"), "{logs}");

    // the list of runs, by page, model and status
    let all = service.get("/v2/run?model=everybody").data();
    assert_eq!(all.as_array().unwrap().len(), 4);
    let mut seen = Vec::new();
    let mut path = "/v2/run?limit=3".to_string();
    loop {
        let page = service.get(&path);
        seen.extend(page.data().as_array().unwrap().clone());
        let Some(cursor) = page.json()["_meta"]["next_cursor"].as_str().map(String::from) else { break };
        path = format!("/v2/run?limit=3&cursor={cursor}");
    }
    assert_eq!(json!(seen), all);
    assert_eq!(service.get("/v2/run?status=held").data().as_array().unwrap().len(), 2);
    assert_eq!(service.get("/v2/run?status=odd").error(400), "invalid-query");
    assert_eq!(fault(&service.get("/v2/run?cursor=odd"), 400), of("invalid-cursor", "cursor"));
    assert_eq!(service.get("/v2/run/ffffffff").error(404), "not-found");
}

#[test]
fn sizes_are_told_where_they_are_asked_for() {
    let project = shop();
    project.model("people", PEOPLE, "SELECT * FROM people");
    project.model("idle", &format!("{PEOPLE}active: false\n"), "SELECT * FROM people");
    let service = Service::start(&project);
    make(&service, &with(people(), json!({ "sql": "SELECT * FROM people WHERE spent > 1" })));
    for model in ["people", "everybody"] {
        assert_eq!(service.run(model)["status"], "published");
    }
    let sizes = |query: &str| -> Vec<Value> {
        service
            .get(&format!("/v2/datamodel{query}"))
            .data()
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["size"].clone())
            .collect()
    };
    for asked in ["?sizes", "?sizes=true", "?sizes=1"] {
        assert_eq!(sizes(asked), [json!(2), json!(0), json!(3)], "{asked}");
    }
    for unasked in ["", "?sizes=false", "?sizes=0"] {
        assert_eq!(sizes(unasked), [Value::Null, Value::Null, Value::Null], "{unasked:?}");
    }
    assert_eq!(sizes("?sizes=true&limit=1"), [json!(2)]);
    assert_eq!(service.get("/v2/datamodel?sizes=some").error(400), "invalid-query");
    let told = service.get("/v2/data/datamodel/size?ids=people,%20idle,people").data();
    let told: Vec<_> = told.as_array().unwrap().iter().map(|one| (&one["id"], &one["record_store_size"])).collect();
    assert_eq!(told, [(&json!("people"), &json!(3)), (&json!("idle"), &json!(0))]);
    for ids in ["", "?ids=", "?ids=,%20,"] {
        assert_eq!(service.get(&format!("/v2/data/datamodel/size{ids}")).status, 400, "{ids}");
    }
}
