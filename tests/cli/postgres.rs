//! Models on a real PostgreSQL, through the whole pipeline.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::postgres_server::{DATABASE, PostgresServer, READER_PASSWORD};
use crate::project::{PEOPLE, Project, counts};

/// A project with these connections, all to the one server, whose password is in `APP_DB_PASSWORD`.
pub fn connected(server: &PostgresServer, connections: &[&str]) -> Project {
    let project = Project::new();
    let entry = |name: &&str| {
        format!(
            "  {name}: {{ type: postgres, host: 127.0.0.1, port: {}, database: {DATABASE}, user: reader, \
             password: '${{env:APP_DB_PASSWORD}}', sslmode: disable }}\n",
            server.port
        )
    };
    let connections: String = connections.iter().map(entry).collect();
    project.write(
        "cloud-connect.yml",
        &format!(
            "profile:\n  identities:\n    - field: email\n      normalize: [trim, lowercase]\nconnections:\n{connections}"
        ),
    );
    project
}

fn project(server: &PostgresServer) -> Project {
    connected(server, &["app_db"])
}

fn cc(project: &Project, args: &[&str]) -> crate::project::Ran {
    project.command(args).env("APP_DB_PASSWORD", READER_PASSWORD).output().unwrap().into()
}

fn server() -> PostgresServer {
    let server = PostgresServer::start(false);
    server.psql(
        DATABASE,
        "CREATE TABLE people (email text, city text, spent numeric(12,2), seen timestamptz, tags text[], extra jsonb);
         GRANT SELECT ON people TO reader;
         INSERT INTO people SELECT 'p' || i || '@example.com', 'city ' || i % 10, i + 0.25, '2026-01-01T00:00:00Z'::timestamptz + i * interval '1 hour',
             ARRAY['a', 'b' || i], jsonb_build_object('n', i) FROM generate_series(1, 5000) i;",
    );
    server
}

#[test]
fn a_model_on_postgres_becomes_profiles_and_follows_its_changes() {
    let server = server();
    let project = project(&server);
    let config = PEOPLE.replace("files", "app_db").replace("[city, spent]", "[city, spent, seen, tags, extra]");
    project.model("people", &config, "SELECT * FROM people -- all of them");
    let tested = cc(&project, &["connection", "test", "app_db"]);
    assert_eq!(tested.code, Some(0), "{}", tested.stdout);
    assert_eq!(cc(&project, &["check"]).code, Some(0));
    let first = cc(&project, &["run", "--output", "json"]).ok().json()[0].clone();
    assert_eq!(counts(&first, ["rows", "added", "profiles_created"]), [5000, 5000, 5000]);
    let profile = cc(&project, &["profile", "email", "P7@example.com", "--output", "json"]).ok().json();
    let attributes = &profile["attributes"];
    assert_eq!(attributes["cc_people_seen"], "2026-01-01T07:00:00Z");
    assert_eq!(attributes["cc_people_tags"], json!(["a", "b7"]));
    assert_eq!(attributes["cc_people_extra"], json!({ "n": 7 }));
    assert_eq!(attributes["cc_people_spent"].to_string().trim_matches('"'), "7.25");

    server.psql(
        DATABASE,
        "UPDATE people SET city = 'moved' WHERE email IN ('p1@example.com', 'p2@example.com');
         DELETE FROM people WHERE email = 'p3@example.com';
         INSERT INTO people (email, spent, seen) VALUES ('new@example.com', 'NaN', 'infinity'), ('other@example.com', 1, now());",
    );
    let second = cc(&project, &["run", "--output", "json"]).ok().json()[0].clone();
    assert_eq!(
        counts(&second, ["rows", "added", "changed", "removed", "unchanged", "quarantined"]),
        [5001, 1, 2, 1, 4997, 1]
    );
}

#[test]
fn a_fault_of_the_sql_is_shown_at_its_place_and_no_secret_with_it() {
    let server = server();
    let project = project(&server);
    project.model("people", &PEOPLE.replace("files", "app_db"), "SELECT email, city,\n  spend AS spent\nFROM people");
    let ran = cc(&project, &["run"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("column \"spend\" does not exist") && ran.stdout.contains('2'), "{}", ran.stdout);
    for args in [&["check"][..], &["run"], &["connection", "test", "app_db"], &["run", "--output", "json"], &["runs"]] {
        let ran: crate::project::Ran =
            project.command(args).env("APP_DB_PASSWORD", "wr0ng-s3cret").output().unwrap().into();
        assert!(!format!("{ran:?}").contains("wr0ng-s3cret"), "{ran:?}");
    }
    let unset = project.cc(&["run", "people"]);
    assert!(unset.stdout.contains("APP_DB_PASSWORD"), "{}", unset.stdout);
}

#[test]
fn interrupting_a_run_cancels_the_query_in_the_warehouse() {
    let server = server();
    let project = project(&server);
    let sql = "SELECT email, city, spent FROM people, pg_sleep(120)";
    project.model("people", &PEOPLE.replace("files", "app_db"), sql);
    let mut child = project
        .command(&["run", "--output", "json"])
        .env("APP_DB_PASSWORD", READER_PASSWORD)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let active = || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader' AND state = 'active'";
        server.psql(DATABASE, query).trim().to_string()
    };
    let wait_for = |wanted: &str| {
        let end = Instant::now() + Duration::from_secs(20);
        while active() != wanted {
            assert!(Instant::now() < end, "still not {wanted}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_for("1");
    let interrupted = std::process::Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(interrupted.success());
    wait_for("0");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(cc(&project, &["runs", "--output", "json"]).json()[0]["status"], "cancelled");
}

#[test]
fn passing_trouble_is_tried_again() {
    let server = server();
    let project = project(&server);
    project.model("people", &PEOPLE.replace("files", "app_db"), "SELECT email, city, spent FROM people, pg_sleep(1.5)");
    let child = project
        .command(&["run", "--output", "json"])
        .env("APP_DB_PASSWORD", READER_PASSWORD)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // cut its connection once, as a restart of the server would
    let end = Instant::now() + Duration::from_secs(20);
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'reader' AND state = 'active' AND query LIKE '%COPY%'";
    while server.psql(DATABASE, cut).trim() == "0" {
        assert!(Instant::now() < end, "the query never ran");
        std::thread::sleep(Duration::from_millis(50));
    }
    let ran: crate::project::Ran = child.wait_with_output().unwrap().into();
    let report = &ran.json()[0];
    assert_eq!((&report["status"], counts(report, ["added"])), (&json!("published"), [5000]), "{report}");
    assert!(report["retries"].as_u64().unwrap() >= 1);
}
