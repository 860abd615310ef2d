//! Removals that wait for a person.

use serde_json::{Value, json};

use crate::project::{PEOPLE, Project, counts, person};

fn guarded(rows: usize) -> (Project, Vec<Value>) {
    let rows: Vec<Value> = (0..rows).map(|i| person(&format!("p{i}"), "Bonn", i as i64)).collect();
    let project = Project::with_people(&rows);
    project.write("models/people.yml", &format!("{PEOPLE}guard: {{ max_removed: 3, max_removed_percent: 20 }}\n"));
    project.run(&[]);
    (project, rows)
}

fn members(project: &Project) -> u64 {
    project.sql("SELECT count(*) AS n FROM memberships")[0]["n"].as_u64().unwrap()
}

#[test]
fn a_large_removal_is_held_and_everything_else_is_applied() {
    let (project, mut rows) = guarded(10);
    rows.drain(0..5);
    rows[0]["city"] = json!("Ulm");
    rows.push(person("new", "Kiel", 1));
    project.rows("people", &rows);
    let plan = project.cc(&["plan", "--output", "json"]);
    assert_eq!((plan.code, &plan.json()[0]["status"]), (Some(3), &json!("held")));
    assert_eq!(plan.json()[0]["samples"]["removed"].as_array().unwrap().len(), 5);
    let ran = project.cc(&["run", "--output", "json"]);
    assert_eq!(ran.code, Some(3));
    let report = &ran.json()[0];
    assert_eq!(report["status"], "held");
    assert_eq!(counts(report, ["added", "changed", "removed", "exited"]), [1, 1, 5, 0]);
    assert_eq!(members(&project), 11);

    let id = report["run_id"].as_str().unwrap();
    let shown = project.cc(&["run-report", id, "--output", "json"]).ok().json();
    let samples = shown["hold"]["samples"].as_array().unwrap().clone();
    assert_eq!(samples.len(), 5);
    assert!(samples.iter().all(|row| row["key"].is_string() && row["before"]["city"].is_string()), "{shown}");
    assert!(project.cc(&["run-report", id]).stdout.contains(samples[0]["key"].as_str().unwrap()));
    let approved = project.cc(&["approve", id, "--output", "json"]).ok().json();
    assert_eq!(counts(&approved, ["removed", "exited"]), [5, 5]);
    assert_eq!(members(&project), 6);
    assert_eq!(project.sql("SELECT count(*) AS n FROM changes WHERE change = 'exited'")[0]["n"], 5);
    let again = project.cc(&["approve", id]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("approved already"), "{}", again.stderr);
    assert_eq!(project.run(&[])["status"], "unchanged");
}

#[test]
fn an_empty_result_is_just_the_largest_removal_and_a_rejection_keeps_the_rows() {
    let (project, rows) = guarded(10);
    project.write("models/people.sql", "SELECT * FROM people WHERE false");
    let report = project.run(&[]);
    assert_eq!(report["status"], "held");
    let id = report["run_id"].as_str().unwrap();
    project.cc(&["reject", id]).ok();
    assert_eq!(members(&project), 10);
    assert_eq!(project.cc(&["approve", id]).code, Some(1));
    // still missing: held anew, under a new run
    let report = project.run(&[]);
    assert_eq!(report["status"], "held");
    assert_ne!(report["run_id"].as_str().unwrap(), id);
    // they come back: nothing is left to approve
    project.write("models/people.sql", "SELECT * FROM people");
    project.rows("people", &rows);
    assert_eq!(counts(&project.run(&[]), ["removed", "added"]), [0, 0]);
    let gone = project.cc(&["approve", report["run_id"].as_str().unwrap()]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("superseded already"), "{}", gone.stderr);
    assert_eq!(members(&project), 10);
}

#[test]
fn an_approval_covers_what_was_shown_and_no_more() {
    let (project, mut rows) = guarded(10);
    rows.drain(0..5);
    project.rows("people", &rows);
    let first = project.run(&[]);
    // two more go missing before anybody looks
    rows.drain(0..2);
    project.rows("people", &rows);
    let second = project.run(&[]);
    assert_eq!(counts(&second, ["removed"]), [7]);
    let stale = project.cc(&["approve", first["run_id"].as_str().unwrap()]);
    assert_eq!(stale.code, Some(1));
    assert_eq!(members(&project), 10);
    project.cc(&["approve", second["run_id"].as_str().unwrap()]).ok();
    assert_eq!(members(&project), 3);
}

#[test]
fn few_removals_go_through_even_when_they_are_many_per_cent() {
    let (project, mut rows) = guarded(4);
    rows.drain(0..3);
    project.rows("people", &rows);
    let report = project.run(&[]);
    assert_eq!((&report["status"], counts(&report, ["removed"])), (&json!("published"), [3]));
}
