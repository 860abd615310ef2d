//! Runs that are under way: ended when somebody asks, and never more at once than there may be.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PATIENCE, Service};
use crate::postgres::connected;
use crate::postgres_server::{DATABASE, PostgresServer, READER_PASSWORD};
use crate::project::{PEOPLE, Project, counts, person};

/// Three people, in a view that takes so many seconds to read.
fn people(seconds: f64) -> PostgresServer {
    let server = PostgresServer::start(false);
    server.psql(
        DATABASE,
        "CREATE TABLE people AS SELECT name || '@example.com' AS email, 'Bonn' AS city, 1 AS spent
         FROM unnest(ARRAY['ada', 'bob', 'cyd']) AS name",
    );
    slow(&server, seconds);
    server
}

fn slow(server: &PostgresServer, seconds: f64) {
    server.psql(
        DATABASE,
        &format!(
            "CREATE OR REPLACE VIEW slowly AS SELECT people.* FROM people, pg_sleep({seconds});
             GRANT SELECT ON slowly TO reader"
        ),
    );
}

fn serve(project: &Project, arguments: &[&str]) -> Service {
    Service::start_with(project, arguments, &[("APP_DB_PASSWORD", READER_PASSWORD)])
}

/// Waits until the warehouse works on so many queries.
fn wait_for_queries(server: &PostgresServer, wanted: &str) {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader' AND state = 'active'";
    let until = Instant::now() + PATIENCE;
    loop {
        let active = server.psql(DATABASE, query);
        if active == wanted {
            return;
        }
        assert!(Instant::now() < until, "the warehouse works on {active} queries, not on {wanted}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What everybody sees: ada's attributes, the members, and how many changes are logged.
fn visible(service: &Service) -> Value {
    let ada = service.get("/v2/entity/user/email/ada@example.com");
    json!({
        "ada": if ada.status == 404 { Value::Null } else { ada.data()["attributes"].clone() },
        "members": service.get("/v2/datamodel/people/members").data().as_array().unwrap().len(),
        "changes": service.get("/v2/changes").data()["changes"].as_array().unwrap().len(),
    })
}

#[test]
fn a_run_that_is_under_way_ends_when_asked_and_publishes_nothing() {
    let server = people(0.0);
    let project = connected(&server, &["app_db"]);
    project.model("people", &PEOPLE.replace("files", "app_db"), "SELECT * FROM slowly");
    let service = serve(&project, &[]);
    assert_eq!(service.run("people")["status"], "published");
    let before = json!({ "ada": { "cc_people_city": "Bonn", "cc_people_spent": 1 }, "members": 3, "changes": 3 });
    assert_eq!(visible(&service), before);

    server.psql(
        DATABASE,
        "UPDATE people SET city = 'Oslo' WHERE email LIKE 'ada@%'; DELETE FROM people WHERE email LIKE 'cyd@%';
         INSERT INTO people VALUES ('dan@example.com', 'Ulm', 4)",
    );
    slow(&server, 600.0);
    // a client's three ways to ask for it
    for (method, stop) in [
        ("POST", None),
        ("POST", Some("/v2/datamodel/people/sync/stop")),
        ("GET", Some("/v2/datamodel/people/sync/stop")),
    ] {
        let run = service.begin("people");
        let path = format!("/v2/run/{run}");
        wait_for_queries(&server, "1");
        let asked = service.ask(method, stop.unwrap_or(&format!("{path}/cancel")), None);
        assert_eq!(asked.status, 202, "{asked:?}");
        let answer = asked.data();
        assert_eq!(answer["run_id"], *run);
        match stop {
            None => assert_eq!(answer["begun"], true),
            Some(_) => assert_eq!(answer["state"], "cancelling"),
        }
        let ended = service.end_of(&run);
        assert_eq!((&ended["status"], &ended["progress"]), (&json!("cancelled"), &Value::Null), "{ended}");
        // the warehouse does not go on for nobody
        wait_for_queries(&server, "0");
        assert_eq!(visible(&service), before);
        assert_eq!(service.ask("POST", &format!("{path}/cancel"), None).error(409), "run-ended");
    }
    let stopped = service.get("/v2/event?kind=model&subject=people&verb=run_stopped").data();
    assert_eq!(stopped.as_array().unwrap().len(), 3);
    assert!(stopped[0]["actor"].as_str().unwrap().starts_with("token:"), "{stopped}");
    let cancelled = service.get("/v2/event?kind=model&subject=people&verb=run_cancelled").data();
    assert_eq!(cancelled.as_array().unwrap().len(), 3);

    // nothing is left over, and nothing is in the way of the next
    assert_eq!(std::fs::read_dir(project.store().join("spill")).unwrap().count(), 0);
    slow(&server, 0.0);
    let next = service.run("people");
    assert_eq!(next["status"], "published", "{next}");
    assert_eq!(counts(&next, ["rows", "added", "changed", "removed"]), [3, 1, 1, 1]);
    let after = json!({ "ada": { "cc_people_city": "Oslo", "cc_people_spent": 1 }, "members": 3, "changes": 6 });
    service.wait_for("/v2/entity/user/email/ada@example.com", |ada| ada["attributes"]["cc_people_city"] == "Oslo");
    assert_eq!(visible(&service), after);
}

#[test]
fn a_run_whose_query_would_never_end_is_cancelled_too() {
    let rows: Vec<Value> = (0..2000).map(|n| person(&format!("p{n}"), "Bonn", n)).collect();
    let project = Project::with_people(&rows);
    // the join holds the people and makes 16 million rows of each batch of the series
    let endless = "SELECT max(concat(people.email, CAST(series.value AS VARCHAR))) AS email, 'Bonn' AS city, 1 AS spent
                   FROM people CROSS JOIN generate_series(1, 1000000000000) AS series";
    project.model("endless", PEOPLE, endless);
    let service = Service::start(&project);
    let run = service.begin("endless");
    service.wait_for(&format!("/v2/run/{run}"), |run| run["progress"]["stage"] == "comparing");
    assert_eq!(service.ask("POST", &format!("/v2/run/{run}/cancel"), None).status, 202);
    assert_eq!(service.end_of(&run)["status"], "cancelled");
    service.comes_to_rest();
    assert_eq!(service.run("people")["status"], "published");
}

#[test]
fn a_run_that_is_cancelled_while_it_writes_leaves_no_file() {
    let project = Project::with_people(&[person("ada", "Bonn", 1), person("bob", "Bonn", 2)]);
    let service = Service::start_with(&project, &[], &[("FAILPOINTS", "after-rewrite=1*sleep(2000)")]);
    let run = service.begin("people");
    service.wait_for(&format!("/v2/run/{run}"), |run| run["progress"]["stage"] == "writing");
    let tables = || {
        let mut files = Vec::new();
        for table in ["records/people", "identities", "changes"] {
            files.extend(holding(&project.store().join(table), "parquet"));
        }
        files
    };
    assert!(!tables().is_empty(), "it has written nothing that could be left");
    assert_eq!(service.ask("POST", &format!("/v2/run/{run}/cancel"), None).status, 202);
    let shown = service.get(&format!("/v2/run/{run}")).data();
    assert_eq!(shown["progress"]["cancelling"], true, "{shown}");
    assert_eq!(service.end_of(&run)["status"], "cancelled");
    assert_eq!(tables(), Vec::<std::path::PathBuf>::new());
    assert_eq!(visible(&service), json!({ "ada": null, "members": 0, "changes": 0 }));
    assert_eq!(counts(&service.run("people"), ["added", "profiles_created"]), [2, 2]);
}

/// The files of that extension in a folder and those in it.
fn holding(folder: &std::path::Path, extension: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

#[test]
fn so_many_run_at_once_in_all_and_on_one_connection() {
    let server = people(4.0);
    let project = connected(&server, &["one", "two", "three"]);
    let models = [("one_a", "one"), ("one_b", "one"), ("two", "two"), ("three", "three"), ("never", "three")];
    for (slug, connection) in models {
        project.model(slug, &PEOPLE.replace("files", connection), "SELECT * FROM slowly");
    }
    let service = serve(&project, &["--max-runs", "2", "--max-runs-per-connection", "1"]);
    let runs: Vec<(&str, String)> =
        models.map(|(slug, connection)| (connection, service.begin(slug))).into_iter().collect();
    let slugs = |runs: &Value| -> Vec<String> {
        runs.as_array().unwrap().iter().map(|run| run["model"].as_str().unwrap().to_string()).collect()
    };
    // the second on `one` was asked for before, and lets another connection pass
    let agenda = service.wait_for("/v2/schedule", |agenda| slugs(&agenda["running"]).len() == 2);
    assert_eq!(slugs(&agenda["running"]), ["one_a", "two"], "{agenda}");
    assert_eq!(slugs(&agenda["queued"]), ["one_b", "three", "never"], "{agenda}");
    assert_eq!((&agenda["max_runs"], &agenda["queue_depth"]), (&json!(2), &json!(3)));
    wait_for_queries(&server, "2");
    let waits = service.get(&format!("/v2/run/{}", runs[1].1)).data();
    assert_eq!((&waits["status"], &waits["progress"]["queued"]), (&json!("running"), &json!(true)), "{waits}");

    // what has not begun is taken back, and leaves no record
    let taken_back = service.ask("POST", &format!("/v2/run/{}/cancel", runs[4].1), None);
    assert_eq!((taken_back.status, &taken_back.data()["begun"]), (200, &json!(false)), "{taken_back:?}");
    assert_eq!(service.get(&format!("/v2/run/{}", runs[4].1)).error(404), "not-found");

    let ended: Vec<(&str, Value)> =
        runs[..4].iter().map(|(connection, run)| (*connection, service.end_of(run))).collect();
    let time = |run: &Value, key: &str| run[key].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    for (connection, run) in &ended {
        assert_eq!(run["status"], "published", "{run}");
        // all that were under way in the moment when this one began
        let began = time(run, "started_at");
        let beside: Vec<&str> = ended
            .iter()
            .filter(|(_, other)| time(other, "started_at") <= began && began < time(other, "finished_at"))
            .map(|(connection, _)| *connection)
            .collect();
        assert!(beside.len() <= 2, "{beside:?} at once: {ended:?}");
        assert_eq!(beside.iter().filter(|other| *other == connection).count(), 1, "{beside:?}: {ended:?}");
    }
    assert_eq!(service.get("/v2/run").data().as_array().unwrap().len(), 4);
    assert_eq!(project.sql("SELECT count(*) AS n FROM memberships")[0]["n"], 12);
}
