//! The schedule of the running service, whose clock the tests hold.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clock::Clock;
use super::{PATIENCE, Service};
use crate::project::{PEOPLE, Project, person};

fn scheduled(project: &Project, slug: &str, schedule: &str) {
    project.model(slug, &format!("{PEOPLE}schedule: {schedule}\n"), "SELECT * FROM people");
}

/// A project whose one model, `people`, has this schedule.
fn shop(schedule: &str) -> Project {
    let project = Project::with_people(&[person("ada", "London", 1)]);
    scheduled(&project, "people", schedule);
    project
}

/// The model's runs, oldest first.
fn runs(project: &Project, model: &str) -> Vec<Value> {
    let all = project.cc(&["runs", "--output", "json"]).ok().json();
    let mut runs: Vec<Value> = all.as_array().unwrap().iter().filter(|run| run["model"] == model).cloned().collect();
    runs.reverse();
    runs
}

fn statuses(project: &Project, model: &str) -> Vec<String> {
    runs(project, model).iter().map(|run| run["status"].as_str().unwrap().to_string()).collect()
}

fn wait_for(project: &Project, model: &str, expected: &[&str]) {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = statuses(project, model);
        if found == expected {
            return;
        }
        assert!(Instant::now() < until, "the runs of {model} are {found:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// When the model is to run next.
fn next(service: &Service, model: &str) -> String {
    let agenda = service.wait_for("/v2/schedule", |agenda| !agenda["upcoming"].as_array().unwrap().is_empty());
    let upcoming = agenda["upcoming"].as_array().unwrap().iter().find(|run| run["model"] == model);
    upcoming.unwrap_or_else(|| panic!("{agenda}"))["next"].as_str().unwrap().to_string()
}

fn started_at(project: &Project, model: &str) -> Vec<String> {
    runs(project, model).iter().map(|run| run["started_at"].as_str().unwrap().to_string()).collect()
}

#[test]
fn a_model_runs_when_its_wall_clock_says_so_and_what_was_missed_is_caught_up_once() {
    let project = shop("cron 30 2 * * * Europe/Berlin");
    // a model that runs each minute tells that the due check was done
    scheduled(&project, "canary", "every 1m");
    let clock = Clock::at(&project, "2025-03-29T12:00:00Z");
    let service = clock.start(&[], &[]);
    wait_for(&project, "canary", &["published"]);
    // on the 30th there is no 02:30 in Berlin: it runs right after the gap, at 01:00 UTC
    assert!(next(&service, "people").starts_with("2025-03-30T01:00:00"));
    clock.set("2025-03-30T00:59:59Z");
    wait_for(&project, "canary", &["published", "unchanged"]);
    assert!(runs(&project, "people").is_empty());
    clock.set("2025-03-30T01:00:00Z");
    wait_for(&project, "people", &["published"]);
    assert_eq!(service.stop(), 0);

    // away for three days
    clock.set("2025-04-02T12:00:00Z");
    let service = clock.start(&[], &[]);
    wait_for(&project, "people", &["published", "unchanged"]);
    assert!(next(&service, "people").starts_with("2025-04-03T00:30:00"));
    let before = runs(&project, "canary").len();
    clock.set("2025-04-03T00:29:59Z");
    let until = Instant::now() + PATIENCE;
    while runs(&project, "canary").len() == before {
        assert!(Instant::now() < until, "the canary stopped singing: {}", service.logged());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(started_at(&project, "people").len(), 2);
    assert!(started_at(&project, "people")[0].starts_with("2025-03-30T01:00:00"));
}

#[test]
fn a_crash_in_the_middle_of_a_run_is_made_good_once_and_what_waited_runs_too() {
    let project = shop("every 3w");
    scheduled(&project, "second", "every 3w");
    let clock = Clock::at(&project, "2025-01-01T00:00:00Z");
    let crashing = clock.start(&[], &[("FAILPOINTS", "after-rewrite=sleep(600000)")]);
    // one at a time on their one connection
    wait_for(&project, "people", &["running"]);
    assert!(runs(&project, "second").is_empty());
    crashing.kill();
    let service = clock.start(&[], &[]);
    wait_for(&project, "people", &["interrupted", "published"]);
    wait_for(&project, "second", &["published"]);
    assert_eq!(service.stop(), 0);
    let service = clock.start(&[], &[]);
    assert!(next(&service, "people").starts_with("2025-01-22T00:00:00"));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(statuses(&project, "people"), ["interrupted", "published"]);
    assert_eq!(statuses(&project, "second"), ["published"]);
}

#[test]
fn a_stop_signal_lets_runs_end_within_the_grace_period() {
    let project = shop("every 3w");
    let clock = Clock::at(&project, "2025-01-01T00:00:00Z");
    let service = clock.start(&["--grace", "30s"], &[("FAILPOINTS", "after-rewrite=sleep(2000)")]);
    wait_for(&project, "people", &["running"]);
    assert_eq!(service.stop(), 0);
    assert_eq!(statuses(&project, "people"), ["published"]);
}

#[test]
fn a_run_that_outlasts_the_grace_period_is_cancelled_and_run_again_at_the_next_start() {
    let project = shop("every 3w");
    let clock = Clock::at(&project, "2025-01-01T00:00:00Z");
    let service = clock.start(&["--grace", "100ms"], &[("FAILPOINTS", "after-rewrite=sleep(3000)")]);
    wait_for(&project, "people", &["running"]);
    assert_eq!(service.stop(), 0);
    assert_eq!(statuses(&project, "people"), ["cancelled"]);
    let _service = clock.start(&[], &[]);
    wait_for(&project, "people", &["cancelled", "published"]);
}

#[test]
fn a_pause_outlasts_a_restart_and_people_may_start_the_model_all_the_same() {
    let project = shop("every 1h");
    scheduled(&project, "canary", "every 1m");
    project.model("idle", &format!("{PEOPLE}schedule: every 1m\nactive: false\n"), "SELECT * FROM people");
    let clock = Clock::at(&project, "2025-01-01T00:00:00Z");
    let service = clock.start(&[], &[]);
    wait_for(&project, "people", &["published"]);
    assert_eq!(service.post("/v2/datamodel/people/pause", &json!({})).status, 200);
    assert_eq!(service.get("/v2/datamodel/people").data()["schedule"]["next_sync_time"], Value::Null);
    assert_eq!(service.stop(), 0);

    clock.set("2025-01-01T05:00:00Z");
    let service = clock.start(&[], &[]);
    wait_for(&project, "canary", &["published", "unchanged"]);
    assert_eq!(statuses(&project, "people"), ["published"]);
    let started = service.post("/v2/datamodel/people/sync/start", &json!({}));
    assert_eq!(started.status, 202, "{started:?}");
    wait_for(&project, "people", &["published", "unchanged"]);
    assert_eq!(service.post("/v2/datamodel/idle/sync/start", &json!({})).error(409), "inactive");
    assert!(runs(&project, "idle").is_empty());
    // what was missed is caught up once
    service.post("/v2/datamodel/people/resume", &json!({}));
    wait_for(&project, "people", &["published", "unchanged", "unchanged"]);
    let verbs: Vec<Value> = service.get("/v2/datamodel/people/logs").data().as_array().unwrap().clone();
    let verbs: Vec<&str> = verbs.iter().map(|event| event["verb"].as_str().unwrap()).collect();
    for verb in ["paused", "resumed", "run_requested", "run_started", "run_finished"] {
        assert!(verbs.contains(&verb), "{verb}: {verbs:?}");
    }
}

#[test]
fn a_second_start_of_a_running_model_and_its_stop() {
    let project = shop("cron 0 0 1,15 * *");
    let clock = Clock::at(&project, "2025-01-02T00:00:00Z");
    let service = clock.start(&[], &[("FAILPOINTS", "after-rewrite=1*sleep(3000)")]);
    let started = service.post("/v2/datamodel/people/sync/start", &json!({})).data();
    assert_eq!(started["state"], "queued", "{started}");
    wait_for(&project, "people", &["running"]);
    let again = service.post("/v2/datamodel/people/sync/start", &json!({})).data();
    assert_eq!((&again["state"], &again["run_id"]), (&json!("already_running"), &started["run_id"]));
    // the command line does not get in its way either
    let refused = project.cc(&["run", "people"]);
    assert!(refused.stdout.contains("under way"), "{refused:?}");
    let stopped = service.post("/v2/datamodel/people/sync/stop", &json!({})).data();
    assert_eq!((&stopped["state"], &stopped["run_id"]), (&json!("cancelling"), &started["run_id"]));
    wait_for(&project, "people", &["cancelled"]);
    service.post("/v2/datamodel/people/sync/start", &json!({}));
    wait_for(&project, "people", &["cancelled", "published"]);
}

#[test]
fn a_model_that_is_put_into_the_folder_runs_without_a_restart() {
    let project = shop("every 3w");
    let clock = Clock::at(&project, "2025-01-01T00:00:00Z");
    let _service = clock.start(&[], &[]);
    wait_for(&project, "people", &["published"]);
    scheduled(&project, "later", "every 1h");
    wait_for(&project, "later", &["published"]);
}

#[test]
fn one_project_has_one_service() {
    let project = shop("every 3w");
    let _service = Service::start(&project);
    let second = project.cc(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another process serves this project"), "{}", second.stderr);
}
