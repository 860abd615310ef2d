//! Profiles that are handed in over HTTP, and what a crash leaves of them.

use serde_json::{Value, json};

use super::{Reply, Service};
use crate::project::Project;

const NDJSON: &str = "application/x-ndjson";

/// Events are not left to wait in tests.
const SOON: &[&str] = &["--collect-every", "200ms"];

/// Each step of an upload's commit, and some before it.
const PLACES: [&str; 7] = [
    "upload-batch",
    "after-additions",
    "before-commit",
    "after-commit",
    "after-identities",
    "after-changes",
    "after-catalog",
];

/// With a model whose rows wait for profiles, and a connection that reads the streams.
fn project() -> Project {
    let project = Project::new();
    project.write(
        "cloud-connect.yml",
        "profile:\n  identities:\n    - field: user_id\n    - field: email\n      normalize: [trim, lowercase]\n\
         connections:\n  files: { type: local, path: data }\n  streams: { type: local, path: .cloud-connect/streams }\n",
    );
    let waits = "name: Scores\nconnection: files\nprimary_key: email\nexternal_key: email\nactivated_fields: [score]\n\
                 create_profiles: false\n";
    project.model("scores", waits, "SELECT email, score FROM scores");
    project.rows("scores", &(0..10).map(|i| json!({ "email": email(i), "score": i })).collect::<Vec<_>>());
    assert_eq!(project.run(&[])["waiting"], 10);
    project
}

fn email(i: usize) -> String {
    format!("p{i}@example.com")
}

fn rows(count: usize) -> String {
    (0..count).map(|i| format!("{}\n", json!({ "email": email(i), "user_id": i, "plan": "pro" }))).collect()
}

impl Service {
    pub fn upload(&self, stream: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
        self.try_send(&format!("/v2/upload?stream={stream}"), content_type, None, body).unwrap()
    }
}

/// Profiles, identity values, rows of the stream, members of the model, and memberships that began.
fn state(project: &Project, stream: &str) -> [u64; 5] {
    let count = |query: &str| project.sql(query)[0]["n"].as_u64().unwrap();
    let table = project.store().join("streams").join(stream).join("_delta_log/00000000000000000000.json");
    let rows = if table.exists() {
        let query = format!("SELECT count(*) AS n FROM {stream}");
        let answer = project.cc(&["connection", "query", "streams", &query, "--output", "json"]).ok().json();
        answer[0]["n"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    } else {
        0
    };
    let owners =
        project.sql("SELECT field, value, count(*) AS n FROM identities GROUP BY field, value HAVING count(*) > 1");
    assert!(owners.is_empty(), "a value has two owners: {owners:?}");
    [
        count("SELECT count(*) AS n FROM profiles"),
        count("SELECT count(*) AS n FROM identities"),
        rows,
        count("SELECT count(*) AS n FROM memberships WHERE model = 'scores'"),
        count("SELECT count(*) AS n FROM changes WHERE change = 'entered'"),
    ]
}

#[test]
fn an_upload_is_answered_with_its_report_and_listed() {
    let project = project();
    let service = Service::start(&project);
    let body = "email,plan\nADA@example.com,pro\np1@example.com,free\n,none\n";
    let reply = service.upload("crm", "text/csv; charset=utf-8", body);
    let report = reply.data();
    assert_eq!(report["status"], "published");
    assert_eq!([&report["rows"], &report["profiles_created"], &report["entered"]], [3, 2, 1]);
    assert_eq!(report["quarantine"]["counts"]["no_identity"], 1);
    // who entered a model by it is in the change log under that model
    for query in ["", "?model=scores"] {
        let log = service.wait_for(&format!("/v2/changes{query}"), |page| page["changes"][0].is_object());
        let entered = &log["changes"][0];
        assert_eq!(
            [&entered["model"], &entered["change"], &entered["run_id"]],
            [&json!("scores"), &json!("entered"), &report["id"]]
        );
    }
    assert_eq!(report["quarantine"]["samples"][0]["line"], 4);
    assert_eq!(report["replayed"], false);
    assert!(report["actor"].as_str().unwrap().starts_with("token:"));
    let again = service.upload("crm", "text/csv", body).data();
    assert_eq!((&again["id"], &again["replayed"]), (&report["id"], &json!(true)));

    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, rows(3).as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let reply = service.send("POST", "/v2/upload?stream=crm", |request| {
        let request = request.header("authorization", format!("Bearer {}", service.token)).body(packed);
        request.header("content-type", NDJSON).header("content-encoding", "gzip")
    });
    assert_eq!(reply.data()["rows"], 3);

    let list = service.get("/v2/upload?stream=crm&limit=1").json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    let cursor = list["_meta"]["next_cursor"].as_str().unwrap();
    let next = service.get(&format!("/v2/upload?limit=1&cursor={cursor}")).json();
    assert_eq!((&next["data"][0]["id"], &next["_meta"]["next_cursor"]), (&report["id"], &Value::Null));
    let one = service.get(&format!("/v2/upload/{}", report["id"].as_str().unwrap())).data();
    assert_eq!(one["profiles_created"], 2);
    assert_eq!(service.get("/v2/upload/none").error(404), "not-found");
    assert_eq!(service.upload("crm", "application/json", "{}").error(415), "unknown-format");
    assert_eq!(service.upload("Crm", NDJSON, rows(1)).error(400), "invalid-stream");
    assert_eq!(service.upload("crm", NDJSON, "nothing\n").error(400), "unreadable-body");
    assert_eq!(service.upload("crm", NDJSON, "").error(400), "empty-body");
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let project = project();
    let service = Service::start_with(&project, &["--max-upload", "1KB"], &[]);
    assert_eq!(service.upload("crm", NDJSON, rows(100)).error(413), "too-large");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, rows(100).as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 1000);
    let reply = service.send("POST", "/v2/upload?stream=crm", |request| {
        let request = request.header("authorization", format!("Bearer {}", service.token)).body(packed);
        request.header("content-type", NDJSON).header("content-encoding", "gzip")
    });
    assert_eq!(reply.error(413), "too-large");
    assert_eq!(service.upload("crm", NDJSON, rows(5)).data()["rows"], 5);
}

#[test]
fn a_crash_at_each_step_of_an_upload_leaves_all_or_nothing_and_its_repetition_adds_once() {
    for place in PLACES {
        let project = project();
        let (nothing, all) = ([0; 5], [20, 40, 20, 10, 10]);
        assert_eq!(state(&project, "crm"), nothing);
        let service = Service::start_with(&project, &[], &[("CLOUD_CONNECT_ABORT_AT", place)]);
        let reply = service.try_send("/v2/upload?stream=crm", NDJSON, Some("k"), rows(20));
        assert!(reply.is_none(), "{place} was not reached: {reply:?}");
        service.crashed();
        let committed = PLACES.iter().position(|p| *p == place) >= PLACES.iter().position(|p| *p == "after-commit");
        assert_eq!(state(&project, "crm"), if committed { all } else { nothing }, "{place}: the commit decides");

        let service = Service::start(&project);
        let report = service.try_send("/v2/upload?stream=crm", NDJSON, Some("k"), rows(20)).unwrap().data();
        assert_eq!((&report["status"], &report["replayed"]), (&json!("published"), &json!(committed)), "{place}");
        assert_eq!(state(&project, "crm"), all, "{place}");
        let listed = service.get("/v2/upload").data();
        assert!(listed.as_array().unwrap().iter().all(|upload| upload["status"] != "running"), "{place}: {listed}");
        let spilled = std::fs::read_dir(project.store().join("spill")).unwrap().count();
        assert_eq!(spilled, 0, "{place}: bodies are left behind");
    }
}

#[test]
fn collected_events_survive_every_crash_and_are_taken_once() {
    for place in [&PLACES[..], &["none"]].concat() {
        let project = project();
        let service = Service::start_with(&project, SOON, &[("CLOUD_CONNECT_ABORT_AT", place)]);
        let accepted = service.try_send("/collect/json/events", "application/json", None, rows(20)).unwrap();
        assert_eq!((accepted.status, &accepted.data()["accepted"]), (202, &json!(20)));
        if place == "none" {
            service.kill();
        } else {
            service.crashed();
        }
        let service = Service::start_with(&project, SOON, &[]);
        service.wait_for("/v2/upload?stream=events", |uploads| {
            uploads.as_array().unwrap().iter().any(|upload| upload["status"] == "published")
        });
        // whatever might come twice would come with the next events
        service.post("/collect/json/events", &json!({ "email": "late@example.com" })).data();
        service.wait_for("/v2/upload?stream=events", |uploads| {
            let published = uploads.as_array().unwrap().iter().filter(|upload| upload["status"] == "published");
            published.map(|upload| upload["rows"].as_u64().unwrap()).sum::<u64>() >= 21
        });
        assert_eq!(state(&project, "events"), [21, 41, 21, 10, 10], "{place}");
        assert_eq!(service.stop(), 0);
    }
}

#[test]
fn events_without_an_identity_are_refused_with_their_index() {
    let project = project();
    let service = Service::start(&project);
    let body = json!([{ "email": "ada@example.com" }, { "plan": "pro" }, { "email": ["a"] }]);
    let reply = service.post("/collect/json/events", &body);
    assert_eq!(reply.status, 202);
    let refused = &reply.data()["refused"];
    assert_eq!([&refused[0]["index"], &refused[1]["index"]], [1, 2]);
    assert_eq!(service.post("/collect/json/events", &json!({ "plan": "pro" })).error(400), "no-event-accepted");
    assert_eq!(service.post("/collect/json/e-1", &body).error(400), "invalid-stream");
    let large = json!({ "email": "ada@example.com", "note": "x".repeat(1 << 20) });
    assert_eq!(service.post("/collect/json/events", &large).error(413), "too-large");
}

#[test]
fn runs_and_uploads_go_on_side_by_side() {
    let project = project();
    let people =
        "name: People\nconnection: files\nprimary_key: email\nexternal_key: email\nactivated_fields: [score]\n";
    project.model("people", people, "SELECT email, score FROM scores");
    let service = Service::start(&project);
    std::thread::scope(|scope| {
        let runs = scope.spawn(|| {
            for round in 0..4 {
                let rows = (0..50).map(|i| json!({ "email": email(i), "score": round })).collect::<Vec<_>>();
                project.rows("scores", &rows);
                assert_eq!(project.run(&["people"])["status"], "published");
            }
        });
        for round in 0..8_usize {
            let rows: String =
                (round * 10..round * 10 + 20).map(|i| format!("{}\n", json!({ "email": email(i) }))).collect();
            assert_eq!(service.upload("crm", NDJSON, rows).data()["status"], "published");
        }
        runs.join().unwrap();
    });
    let [profiles, identities, rows, ..] = state(&project, "crm");
    assert_eq!([profiles, identities, rows], [90, 90, 160]);
}
