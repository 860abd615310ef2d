//! What was made through the API, written into files.

use serde_json::json;

use super::Service;
use super::connections::{connect, database};
use super::models::{make, people, shop, with};
use crate::postgres_server::READER_PASSWORD;
use crate::project::PEOPLE;

#[test]
fn what_was_made_through_the_api_is_pulled_into_files() {
    let project = shop();
    let service = Service::start(&project);
    let more = json!({ "sync_period": 7200, "columns": { "spent": { "type": "decimal(12,2)", "not_null": true } },
        "description": "yes: \"all\" of them" });
    make(&service, &with(people(), more));
    assert_eq!(service.run("everybody")["status"], "published");
    let before = service.get("/v2/datamodel/everybody").data();

    project.write("models/everybody.sql", "SELECT 1");
    project.write("models/everybody.yml", PEOPLE);
    let refused = project.cc(&["pull"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("models/everybody.sql, models/everybody.yml"), "{refused:?}");
    let pulled = project.cc(&["pull", "--force", "--remove", "--output", "json"]).ok().json();
    assert_eq!(pulled["removed"], json!(["model everybody"]));
    let yml = std::fs::read_to_string(project.path().join("models/everybody.yml")).unwrap();
    for line in
        ["schedule: every 2h", "active: true", "columns:", "  spent: { type: \"decimal(12,2)\", not_null: true }"]
    {
        assert!(yml.lines().any(|l| l == line), "{line}\n{yml}");
    }
    project.cc(&["check"]).ok();
    // the service reads the file, and knows the same model
    let after = service
        .wait_for("/v2/datamodel/everybody", |model| model["origin"] == "files" && model["name"] == before["name"]);
    for key in ["name", "description", "sql", "primary_keys", "joined_to", "activated_fields", "columns", "guard"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!((&after["status"], &after["needs_backfill"]), (&json!("active"), &json!(false)));
    assert_eq!(project.cc(&["pull", "everybody"]).code, Some(2));
    assert!(project.cc(&["pull"]).ok().stderr.contains("no model was made through the API"));
}

#[test]
fn a_connection_made_through_the_api_comes_first_then_the_models_that_use_it() {
    let server = database();
    let project = shop();
    let mut service = Service::start(&project);
    connect(&service, &server, READER_PASSWORD);
    let files = json!({ "label": "Other files", "provider_slug": "local", "config": { "path": "data" } });
    assert_eq!(service.post("/v2/connection", &files).status, 201);
    make(&service, &with(people(), json!({ "connection_id": "other_files" })));
    assert_eq!(service.run("everybody")["status"], "published");

    // a file whose connection is nowhere would be a fault: the model waits
    let pulled = project.cc(&["pull"]);
    assert_eq!(pulled.code, Some(1), "{pulled:?}");
    assert!(pulled.stderr.contains("left everybody: its connection `other_files` is not in"), "{pulled:?}");
    assert!(!project.path().join("models/everybody.sql").exists());
    assert!(pulled.stdout.starts_with("connections:\n") && !format!("{pulled:?}").contains("r3ader"), "{pulled:?}");
    assert!(pulled.stdout.contains("${auth:reader/password}"), "{pulled:?}");
    // pasted, as it says
    let entries = pulled.stdout.strip_prefix("connections:\n").unwrap();
    let file = std::fs::read_to_string(project.path().join("cloud-connect.yml")).unwrap();
    project.write("cloud-connect.yml", &format!("{}\n{entries}", file.trim_end()));
    project.cc(&["check"]).ok();
    project.cc(&["connection", "test", "app_db"]).ok();

    let pulled = project.cc(&["pull", "--remove", "--output", "json"]).ok().json();
    assert_eq!(pulled["written"], json!(["models/everybody.sql", "models/everybody.yml"]));
    assert_eq!((&pulled["left"], &pulled["connections"]), (&json!([]), &json!({})));
    let removed = ["model everybody", "connection app_db", "connection other_files"];
    assert_eq!(pulled["removed"], json!(removed));
    for path in ["/v2/datamodel/everybody", "/v2/connection/app_db", "/v2/connection/other_files"] {
        service.wait_for(path, |one| one["origin"] == "files");
    }
    // the same model, also for a service that knows nothing else
    assert_eq!(service.stop(), 0);
    service = Service::start(&project);
    assert_eq!(service.run("everybody")["status"], "unchanged");
    assert_eq!(service.delete("/v2/auth/postgres/reader").error(409), "in-use");
}
