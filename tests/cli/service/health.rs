//! What monitors, clients and browsers ask first.

use serde_json::json;

use super::Service;
use crate::project::{PEOPLE, Project, person};

#[test]
fn it_says_how_it_stands_and_what_can_be_asked() {
    let project = Project::with_people(&[person("ada", "Berlin", 1)]);
    let service = Service::start(&project);
    let alive = service.ask_as(None, "GET", "/healthz", None);
    assert_eq!(alive.status, 200);
    assert!(!alive.header("x-request-id").is_empty());
    assert_eq!(alive.header("x-content-type-options"), "nosniff");
    assert_eq!(service.ask_as(None, "GET", "/readyz", None).data()["status"], "ready");
    let api = service.ask_as(None, "GET", "/openapi.json", None).json();
    assert!(api["openapi"].as_str().unwrap().starts_with("3."));
    assert!(api["paths"]["/healthz"]["get"].is_object());
    let page = service.ask_as(None, "GET", "/docs/", None);
    assert!(page.text.contains("swagger"), "{}", page.text);
    assert!(page.header("content-security-policy").contains("script-src 'self'"));
    for part in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        assert_eq!(service.ask_as(None, "GET", &format!("/docs/{part}"), None).status, 200, "{part}");
    }
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_request_keeps_its_own_id_when_that_is_harmless() {
    let project = Project::new();
    let service = Service::start(&project);
    let with = |id: &str| {
        let reply = service.send("GET", "/healthz", |request| request.header("x-request-id", id));
        (reply.header("x-request-id").to_string(), reply.json()["request_id"].clone())
    };
    assert_eq!(with("abc-1.2_3"), ("abc-1.2_3".into(), json!("abc-1.2_3")));
    for odd in ["a b", "<script>", &"x".repeat(65)] {
        assert_ne!(with(odd).0, odd);
    }
}

#[test]
fn what_is_not_there_is_told_in_the_same_shape() {
    let project = Project::new();
    let service = Service::start(&project);
    let missing = service.get("/v2/nothing");
    assert_eq!(missing.error(404), "not-found");
    let error = missing.json();
    assert_eq!(error["status"], 404);
    assert_eq!(error["request_id"], missing.header("x-request-id"));
    assert_eq!(error["errors"][0]["level"], "error");
    assert!(error["errors"][0]["timestamp"].as_str().unwrap().contains('T'));
    assert_eq!(service.ask("DELETE", "/healthz", None).error(405), "method");
}

#[test]
fn files_that_change_are_read_and_faulty_ones_leave_the_last_good_ones_in_use() {
    let project = Project::with_people(&[person("ada", "Berlin", 1)]);
    let service = Service::start(&project);
    project.model("people", &PEOPLE.replace("primary_key", "primary_kee"), "SELECT * FROM people");
    let degraded = service.wait_for("/readyz", |data| data["status"] == "degraded");
    assert_eq!(degraded["checks"][1]["name"], "files");
    assert_eq!(service.get("/v2/datamodel/people").data()["primary_keys"], json!(["email"]));
    project.model("people", &PEOPLE.replace("name: People", "name: Persons"), "SELECT * FROM people");
    service.wait_for("/readyz", |data| data["status"] == "ready");
    service.wait_for("/v2/datamodel/people", |data| data["name"] == "Persons");
}

#[test]
fn it_speaks_tls_with_the_certificate_that_it_is_given() {
    let project = Project::new();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string()]).unwrap();
    project.write("tls/cert.pem", &made.cert.pem());
    project.write("tls/key.pem", &made.signing_key.serialize_pem());
    let file = |name: &str| project.path().join("tls").join(name).display().to_string();
    let service = Service::start_with(&project, &["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")], &[]);
    assert!(service.url.starts_with("https://"), "{}", service.url);
    let trusted = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().add_root_certificate(trusted).no_proxy().build().unwrap();
    let status = service
        .runtime
        .block_on(async { client.get(format!("{}/readyz", service.url)).send().await.unwrap().status().as_u16() });
    assert_eq!(status, 200);
    assert!(
        service.runtime.block_on(async { service.client.get(format!("{}/readyz", service.url)).send().await }).is_err(),
        "a client that does not know the certificate is not talked to in the clear"
    );
}

#[test]
fn an_address_that_others_reach_is_refused_without_tls() {
    let project = Project::new();
    let refused = project.cc(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("--behind-proxy") && refused.stderr.contains("--tls-cert"), "{}", refused.stderr);
    assert!(!project.store().exists(), "a refused start leaves no trace");
    let busy = Service::start(&project);
    let other = Project::new();
    let second = other.cc(&["serve", "--listen", busy.url.strip_prefix("http://").unwrap()]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another process listens there"), "{}", second.stderr);
}

#[test]
fn what_is_stored_and_cannot_be_taken_over_yet_is_taken_over_later() {
    let project = Project::with_people(&[person("ada", "Berlin", 1)]);
    let service = Service::start(&project);
    let keys = project.store().join("sealing.keys");
    std::fs::write(&keys, "no key\n").unwrap();
    let connection = json!({ "label": "Other files", "provider_slug": "local", "config": { "path": "data" } });
    assert_eq!(service.post("/v2/connection", &connection).status, 500);
    assert_eq!(service.get("/v2/connection/other_files/schema").error(404), "not-found");
    service.wait_for("/readyz", |data| data["status"] == "degraded");
    std::fs::remove_file(&keys).unwrap();
    service.wait_for("/v2/connection/other_files/schema", |tables| tables[0]["table_name"] == "people");
    service.wait_for("/readyz", |data| data["status"] == "ready");
}
