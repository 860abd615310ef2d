//! Alerts and metrics of the running service, at a real receiver.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Service;
use super::receiver::Receiver;
use crate::project::{PEOPLE, Project, person};

/// A project whose failures are told to the receiver, at an address that the file does not show.
fn project(allow: &str) -> Project {
    let project = Project::with_people(&[person("ada", "Berlin", 1)]);
    let file = project.path().join("cloud-connect.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    let service =
        format!("service: {{ public_url: 'https://connect.example.com', allow_private_addresses: [{allow}] }}");
    let alerts = "alerts:\n  channels: { hook: { type: webhook, url: '${env:HOOK}', secret: '${env:HOOK_SECRET}' } }\n  \
                  rules: { all: { channels: hook } }";
    project.write("cloud-connect.yml", &format!("{text}\n{service}\n{alerts}\n"));
    project
}

#[test]
fn a_failed_run_of_any_process_is_told_and_its_recovery_too() {
    let project = project("127.0.0.1");
    let receiver = Receiver::start();
    let hook = receiver.url("/t0psecret");
    let service = Service::start_with(&project, &[], &[("HOOK", hook.as_str()), ("HOOK_SECRET", "hunter2")]);
    let channels = service.get("/v2/alertchannel").data();
    assert_eq!(channels, json!([{ "name": "hook", "type": "webhook", "rules": ["all"], "signed": true }]));
    assert_eq!(service.post("/v2/alertchannel/hook/test", &json!({})).status, 200);
    assert_eq!(receiver.wait_for(1)[0].json()["type"], "alert.test");
    assert_eq!(service.post("/v2/alertchannel/nothing/test", &json!({})).error(404), "not-found");

    // the command line fails, and the service hears of it
    project.write("models/people.sql", "SELECT * FROM not_there");
    project.cc(&["run"]);
    let told = receiver.wait_for(2)[1].json();
    assert_eq!((&told["type"], &told["data"]["condition"]), (&json!("alert.alert"), &json!("failed")), "{told}");
    assert_eq!(told["data"]["model"], "people");
    let url = told["data"]["url"].as_str().unwrap();
    assert!(url.starts_with("https://connect.example.com/v2/run/"), "{url}");
    let rules = service.get("/v2/alert").data();
    assert_eq!(rules[0]["incidents"][0]["condition"], "failed");

    project.write("models/people.sql", "SELECT * FROM people");
    project.cc(&["run"]).ok();
    assert_eq!(receiver.wait_for(3)[2].json()["type"], "alert.recovery");
    let done = |deliveries: &Value| deliveries.as_array().unwrap().iter().all(|d| d["status"] == "delivered");
    let deliveries = service.wait_for("/v2/alert/delivery?limit=1", done);
    assert_eq!(deliveries.as_array().unwrap().len(), 1);
    let page = service.get("/v2/alert/delivery?limit=1").json();
    let cursor = page["_meta"]["next_cursor"].as_str().unwrap();
    let next = service.get(&format!("/v2/alert/delivery?limit=1&cursor={cursor}")).data();
    assert_eq!(next[0]["kind"], "alert");
    assert_eq!(service.get("/v2/alert/delivery?cursor=x").error(400), "invalid-cursor");
    assert!(!service.logged().contains("t0psecret") && !service.logged().contains("hunter2"));
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_channel_in_a_private_network_is_refused_with_the_way_out() {
    let project = project("");
    let service = Service::start_with(&project, &[], &[("HOOK", "http://127.0.0.1:9/t0psecret"), ("HOOK_SECRET", "x")]);
    let refused = service.post("/v2/alertchannel/hook/test", &json!({}));
    assert_eq!(refused.error(422), "not-delivered");
    let error = &refused.json()["errors"][0];
    assert!(error["message"].as_str().unwrap().contains("this machine"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("allow_private_addresses"), "{error}");
    assert!(!refused.text.contains("t0psecret"));
    // three at once, and then no more for a while
    let statuses: Vec<u16> = (0..4).map(|_| service.post("/v2/alertchannel/hook/test", &json!({})).status).collect();
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
}

#[test]
fn metrics_count_requests_by_route_and_never_by_path() {
    let project = Project::with_people(&[person("ada", "Berlin", 1)]);
    let service = Service::start(&project);
    service.post("/v2/alertchannel/somebodys_choice/test", &json!({}));
    let reply = service.get("/metrics");
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let line =
        "cloud_connect_http_requests_total{method=\"POST\",route=\"/v2/alertchannel/{name}/test\",status=\"404\"} 1";
    assert!(reply.text.contains(line), "{}", reply.text);
    assert!(!reply.text.contains("somebodys_choice"));
    for name in ["cloud_connect_build_info", "process_resident_memory_bytes", "cloud_connect_queue_depth 0"] {
        assert!(reply.text.contains(name), "{name}");
    }
}

#[test]
fn a_run_is_counted_with_its_rows_bytes_and_stages() {
    let project = Project::with_people(&[person("ada", "Berlin", 1), person("bob", "Rome", 2)]);
    project.model("people", &format!("{PEOPLE}schedule: every 1h\n"), "SELECT * FROM people");
    // due at once, since it never ran
    let service = Service::start_with(&project, &["--schedule-jitter", "0s"], &[]);
    let until = Instant::now() + Duration::from_secs(60);
    let text = loop {
        let text = service.get("/metrics").text;
        if text.contains("cloud_connect_runs_total{model=\"people\",status=\"published\"} 1") {
            break text;
        }
        assert!(Instant::now() < until, "{text}\n{}", service.logged());
        std::thread::sleep(Duration::from_millis(100));
    };
    for line in [
        "cloud_connect_run_rows_total{model=\"people\"} 2",
        "cloud_connect_run_changes_total{model=\"people\",change=\"added\"} 2",
        "cloud_connect_model_rows{model=\"people\"} 2",
        "cloud_connect_run_seconds_count{status=\"published\"} 1",
        "cloud_connect_run_stage_seconds_count{stage=\"query\"} 1",
        "cloud_connect_run_stage_seconds_count{stage=\"commit\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("cloud_connect_run_bytes_total{model=\"people\"} 0"));
}

#[test]
fn log_lines_are_json_when_that_is_asked_for() {
    let project = Project::new();
    let service = Service::start_with(&project, &["--log-format", "json"], &[]);
    let id = service.send("GET", "/v2/alert", |r| r.header("x-request-id", "mine-1")).status;
    assert_eq!(id, 401);
    let logged = service.logged();
    let line = logged.lines().find(|line| line.contains("mine-1")).unwrap_or_else(|| panic!("{logged}"));
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["spans"][0]["request_id"], "mine-1");
    assert_eq!(line["spans"][0]["http.route"], "/v2/alert");
}
