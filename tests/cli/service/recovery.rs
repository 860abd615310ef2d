//! What comes back: after a crash of the service in the middle of a publication, and from a backup.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::clock::Clock;
use super::connections::{connect, database};
use super::{Service, token};
use crate::postgres_server::READER_PASSWORD;
use crate::project::{PEOPLE, Project, Ran, counts, person};

/// All changes, as (model, kind of change, whom), in the order of the alphabet.
fn changes(service: &Service) -> Vec<(String, String, String)> {
    let page = service.get("/v2/changes?limit=1000").data();
    assert_eq!(page["more"], false);
    let text = |change: &Value, key: &str| change[key].as_str().unwrap().to_string();
    let mut all: Vec<_> = page["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (text(change, "model"), text(change, "change"), text(change, "identity")))
        .collect();
    all.sort();
    all
}

fn of(service: &Service, list: &str, key: &str) -> Vec<String> {
    let listed = service.get(list).data();
    listed.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_string()).collect()
}

fn answer(service: &Service, query: &str) -> Value {
    service.post("/v2/sql", &json!({ "query": query })).data()["rows"].clone()
}

#[test]
fn a_service_that_crashes_while_it_publishes_has_published_once_or_not_at_all() {
    for (place, committed) in [
        ("extract-batch", false),
        ("before-commit", false),
        ("after-commit", true),
        ("after-identities", true),
        ("after-changes", true),
        ("after-catalog", true),
    ] {
        let project =
            Project::with_people(&[person("ada", "Bonn", 1), person("bob", "Bonn", 2), person("cyd", "Rom", 3)]);
        project.model("people", &format!("{PEOPLE}schedule: every 1h\n"), "SELECT * FROM people");
        let clock = Clock::at(&project, "2025-01-01T00:00:00Z");
        let service = clock.start(&[], &[]);
        service.wait_for("/v2/run", |runs| runs[0]["status"] == "published");
        assert_eq!(service.stop(), 0);

        project.rows("people", &[person("ada", "Oslo", 1), person("bob", "Bonn", 2), person("dan", "Ulm", 4)]);
        clock.set("2025-01-01T01:00:00Z");
        clock.start(&[], &[("CLOUD_CONNECT_ABORT_AT", place)]).crashed();

        let service = clock.start(&[], &[]);
        let expected: &[&str] =
            if committed { &["published", "published"] } else { &["published", "interrupted", "published"] };
        let statuses = |runs: &Value| -> Vec<String> {
            runs.as_array().unwrap().iter().map(|run| run["status"].as_str().unwrap().into()).collect()
        };
        service.wait_for("/v2/run", |runs| statuses(runs) == expected);
        let kinds = [
            ("changed", "ada"),
            ("entered", "ada"),
            ("entered", "bob"),
            ("entered", "cyd"),
            ("entered", "dan"),
            ("exited", "cyd"),
        ];
        let logged = kinds.map(|(kind, who)| ("people".into(), kind.to_string(), format!("{who}@example.com")));
        assert_eq!(changes(&service), logged, "{place}");
        let commits = std::fs::read_dir(project.store().join("records/people/_delta_log")).unwrap();
        assert_eq!(commits.count(), 2, "{place}");
        assert_eq!(
            answer(&service, "SELECT count(*), count(DISTINCT value) FROM identities"),
            json!([[4, 4]]),
            "{place}"
        );
        let mut members = of(&service, "/v2/datamodel/people/members", "identity");
        members.sort();
        assert_eq!(members, ["ada@example.com", "bob@example.com", "dan@example.com"], "{place}");
        let ada = service.get("/v2/entity/user/email/ada@example.com").data();
        assert_eq!(ada["attributes"]["cc_people_city"], "Oslo", "{place}");
        // the trail tells each end once
        assert_eq!(of(&service, "/v2/event?verb=run_finished", "subject").len(), 2, "{place}");

        assert_eq!(service.run("people")["status"], "unchanged", "{place}");
        assert_eq!(changes(&service).len(), kinds.len(), "{place}");
        let next = service.get("/v2/datamodel/people").data()["schedule"]["next_sync_time"].clone();
        assert_eq!(next, "2025-01-01T02:00:00Z", "{place}: its rhythm");
    }
}

/// As `cp -r` does, but for what the manual leaves out.
fn copy(from: &Path, to: &Path, without: &[&str]) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if without.iter().any(|left| name.to_string_lossy().starts_with(left)) {
            continue;
        }
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(name), &[]);
        } else {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// What belongs to one process, or is backed up on its own.
const APART: &[&str] = &["catalog.db", "sealing.keys", "spill", "serving", "locks"];

/// The three parts of a backup.
struct Backup(tempfile::TempDir);

impl Backup {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn part(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn catalog(&self, project: &Project) {
        let backup = format!(".backup '{}'", self.part("catalog.db").display());
        let ran: Ran =
            Command::new("sqlite3").arg(project.store().join("catalog.db")).arg(backup).output().unwrap().into();
        ran.ok();
    }

    fn store(&self, project: &Project) {
        copy(&project.store(), &self.part("store"), APART);
    }

    fn keys(&self, project: &Project) {
        std::fs::copy(project.store().join("sealing.keys"), self.part("sealing.keys")).unwrap();
    }

    /// Another directory with the project's files, and all that was backed up.
    fn restored(&self, project: &Project) -> Project {
        let restored = Project::new();
        copy(project.path(), restored.path(), &[".cloud-connect"]);
        copy(&self.part("store"), &restored.store(), &[]);
        for file in ["catalog.db", "sealing.keys"] {
            if self.part(file).exists() {
                std::fs::copy(self.part(file), restored.store().join(file)).unwrap();
            }
        }
        restored
    }
}

#[test]
fn a_backup_that_was_taken_while_runs_go_on_is_restored_elsewhere() {
    let server = database();
    let project = Project::with_people(&[person("p1", "Bonn", 1), person("ada", "Bonn", 2)]);
    // the third run of `people` is in the middle of its writing while the store is copied
    let service = Service::start_with(&project, &[], &[("FAILPOINTS", "after-rewrite=3*off->1*sleep(3000)")]);
    connect(&service, &server, READER_PASSWORD);
    let model = json!({ "name": "Buyers", "connection_id": "app_db", "sql": "SELECT email, spent FROM people",
        "primary_keys": ["email"], "joined_to": { "foreign_key": "email" }, "activated_fields": ["spent"] });
    assert_eq!(service.post("/v2/datamodel", &model).status, 201);
    service.put("/v2/datamodel/buyers", &json!({ "status": "active" })).data();
    service.post("/v2/user", &json!({ "email": "eve@example.com", "role": "editor" })).data();
    let viewer = token(&project, &["--role", "viewer"]);
    assert_eq!(service.run("buyers")["status"], "published");
    assert_eq!(service.run("people")["status"], "published");

    let backup = Backup::new();
    backup.catalog(&project);
    backup.keys(&project);
    // what is published from here on is newer than the catalog's copy
    project.rows("people", &[person("p1", "Oslo", 1), person("dan", "Ulm", 4)]);
    assert_eq!(counts(&service.run("people"), ["added", "changed", "removed"]), [1, 1, 1]);
    let seen = |service: &Service| {
        let mut all = Vec::new();
        for who in ["p1", "p2", "ada", "dan"] {
            let found = service.get(&format!("/v2/entity/user/email/{who}@example.com"));
            all.push(if found.status == 404 { Value::Null } else { found.data() });
        }
        for path in ["/v2/connection", "/v2/auth", "/v2/user"] {
            all.push(service.get(path).data());
        }
        let definition = service.get("/v2/datamodel/buyers").data();
        all.push(json!([definition["sql"], definition["status"], definition["author_id"], definition["created"]]));
        (all, changes(service))
    };
    let before = seen(&service);
    project.rows("people", &[person("late", "Rom", 9)]);
    let run = service.begin("people");
    service.wait_for(&format!("/v2/run/{run}"), |run| run["progress"]["stage"] == "writing");
    backup.store(&project);
    assert_eq!(service.get(&format!("/v2/run/{run}")).data()["status"], "running", "the copy took too long");
    assert_eq!(service.end_of(&run)["status"], "published");
    let admin = service.token.clone();
    service.kill();

    let restored = backup.restored(&project);
    let mut service = Service::start(&restored);
    // tokens of the old one are good here too
    service.token = admin;
    assert_eq!(seen(&service), before);
    assert_eq!(service.ask_as(Some(&viewer), "GET", "/v2/datamodel", None).status, 200);
    // the sealed password opens, and everything goes on
    assert_eq!(service.ask("POST", "/v2/connection/app_db/test", None).data()["ok"], true);
    assert_eq!(service.run("buyers")["status"], "unchanged");
    assert_eq!(counts(&service.run("people"), ["rows", "added", "removed"]), [1, 1, 2]);
}

#[test]
fn a_catalog_that_is_newer_than_its_store_says_which_version_is_missing() {
    let project = Project::with_people(&[person("ada", "Bonn", 1)]);
    project.run(&[]);
    let backup = Backup::new();
    backup.store(&project);
    for city in ["Oslo", "Rom"] {
        project.rows("people", &[person("ada", city, 1)]);
        project.run(&[]);
    }
    backup.catalog(&project);
    let restored = backup.restored(&project);
    let missing = "version 2 of `records/people` was published, and the store has none after version 0";
    let run = restored.run(&[]);
    assert_eq!((&run["status"], &run["error"]), (&json!("failed"), &json!(missing)));
    assert!(run["hint"].as_str().unwrap().contains("older than `catalog.db`"), "{run}");
    for question in [&["profile", "email", "ada@example.com"][..], &["plan"], &["sql", "SELECT * FROM profiles"]] {
        let asked = restored.cc(question);
        assert_eq!(asked.code, Some(1), "{asked:?}");
        assert!(format!("{asked:?}").contains(missing), "{asked:?}");
    }
    // nothing was written, so the way out that the hint names is open
    for file in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        std::fs::remove_file(restored.store().join(file)).ok();
    }
    assert_eq!(restored.profile("email", "ada@example.com")["attributes"]["cc_people_city"], "Bonn");
    assert_eq!(counts(&restored.run(&[]), ["changed", "added"]), [1, 0]);
    assert_eq!(restored.profile("email", "ada@example.com")["attributes"]["cc_people_city"], "Rom");
    std::fs::remove_dir_all(restored.store().join("records")).unwrap();
    let gone = restored.run(&[]);
    assert!(gone["error"].as_str().unwrap().ends_with("the store has nothing of it"), "{gone}");
}

#[test]
fn a_newer_catalog_is_refused_and_left_as_it_is() {
    let project = Project::with_people(&[person("ada", "Bonn", 1)]);
    project.run(&[]);
    let catalog = project.store().join("catalog.db");
    let newer = "INSERT INTO _sqlx_migrations VALUES (9000, 'later', '2030-01-01', TRUE, x'00', 0)";
    let ran: Ran = Command::new("sqlite3").arg(&catalog).arg(newer).output().unwrap().into();
    ran.ok();
    let before = std::fs::read(&catalog).unwrap();
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["run"], &["runs"]] {
        let refused = project.cc(arguments);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("newer") && refused.stderr.contains("9000"), "{refused:?}");
        // what is in it exists nowhere else
        assert!(refused.stderr.contains("help: ") && !refused.stderr.contains("deleted"), "{refused:?}");
    }
    assert!(std::fs::read(&catalog).unwrap() == before);
}
