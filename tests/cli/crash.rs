//! Whatever moment a process dies at, the next command finds the old state or the new one, and all that follows.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};

use crate::project::{PEOPLE, Project, Ran, person};

/// Each step of the commit, and some before it.
const PLACES: [&str; 8] = [
    "extract-batch",
    "after-additions",
    "after-rewrite",
    "before-commit",
    "after-commit",
    "after-identities",
    "after-changes",
    "after-catalog",
];

/// Email -> (city, spent).
type State = BTreeMap<String, (String, i64)>;

fn rows(state: &State) -> Vec<Value> {
    let row =
        |(email, (city, spent)): (&String, &(String, i64))| json!({ "email": email, "city": city, "spent": spent });
    state.iter().map(row).collect()
}

fn old_state() -> State {
    (0..40).map(|i| (format!("p{i}@example.com"), (format!("city {}", i % 7), i))).collect()
}

fn new_state() -> State {
    let mut state: State = old_state().into_iter().skip(5).collect();
    state.entry("p10@example.com".into()).and_modify(|(city, _)| *city = "elsewhere".into());
    state.extend((50..60).map(|i| (format!("p{i}@example.com"), ("new".to_string(), i))));
    state
}

/// The members as the wide view shows them.
fn shown(project: &Project) -> State {
    let query =
        "SELECT email, cc_people_city AS city, cc_people_spent AS spent FROM profiles WHERE cc_people_membership";
    let text = |v: &Value| v.as_str().unwrap().to_string();
    project.sql(query).iter().map(|r| (text(&r["email"]), (text(&r["city"]), r["spent"].as_i64().unwrap()))).collect()
}

/// The members as replaying every change from zero makes them; panics when a change contradicts what came before.
fn replayed(project: &Project) -> State {
    let mut state = BTreeMap::<String, serde_json::Map<String, Value>>::new();
    let mut log = project.sql("SELECT run_id, at, change, profile_id, identity, before, after FROM changes");
    log.sort_by_key(|c| c["at"].as_str().unwrap().to_string());
    let object = |v: &Value| serde_json::from_str::<serde_json::Map<String, Value>>(v.as_str().unwrap()).unwrap();
    for change in &log {
        let who = change["identity"].as_str().unwrap().to_string();
        match change["change"].as_str().unwrap() {
            "entered" => assert!(state.insert(who, object(&change["after"])).is_none(), "entered twice: {change}"),
            "exited" => assert_eq!(state.remove(&who), Some(object(&change["before"])), "exited: {change}"),
            _ => {
                let current = state.get_mut(&who).unwrap();
                for (field, before) in object(&change["before"]) {
                    assert_eq!(current.get(&field), Some(&before), "{change}");
                }
                current.extend(object(&change["after"]));
            }
        }
    }
    let row =
        |o: &serde_json::Map<String, Value>| (o["city"].as_str().unwrap().to_string(), o["spent"].as_i64().unwrap());
    state.iter().map(|(who, o)| (who.clone(), row(o))).collect()
}

/// Old or new, whole, with everything that follows; then the run again, and it is the new one. Returns whether it was.
fn check(project: &Project, old: &State, new: &State, place: &str) -> bool {
    let now = shown(project);
    assert!(now == *old || now == *new, "{place}: a mixture: {now:?}");
    assert_eq!(replayed(project), now, "{place}: the change log");
    let owners =
        project.sql("SELECT field, value, count(*) AS n FROM identities GROUP BY field, value HAVING count(*) > 1");
    assert!(owners.is_empty(), "{place}: {owners:?}");
    let was_new = now == *new;
    let report = project.run(&[]);
    let wanted = if was_new { "unchanged" } else { "published" };
    assert_eq!(report["status"], wanted, "{place}: {report}");
    assert_eq!(shown(project), *new, "{place}");
    assert_eq!(replayed(project), *new, "{place}");
    let runs = project.cc(&["runs", "--output", "json"]).json();
    assert!(runs.as_array().unwrap().iter().all(|run| run["status"] != "running"), "{place}: {runs}");
    let spill = project.store().join("spill");
    assert_eq!(std::fs::read_dir(spill).unwrap().count(), 0, "{place}: spilled rows are left");
    was_new
}

fn started(old: &State) -> Project {
    let project = Project::with_people(&rows(old));
    project.run(&[]);
    assert_eq!(shown(&project), *old);
    project
}

#[test]
fn a_crash_at_each_step_of_the_commit_leaves_old_or_new() {
    let (old, new) = (old_state(), new_state());
    for place in PLACES {
        let project = started(&old);
        project.rows("people", &rows(&new));
        let crashed: Ran = project.command(&["run"]).env("CLOUD_CONNECT_ABORT_AT", place).output().unwrap().into();
        assert_eq!(crashed.code, None, "{place} was not reached: {crashed:?}");
        let was_new = check(&project, &old, &new, place);
        let committed = PLACES.iter().position(|p| *p == place) >= PLACES.iter().position(|p| *p == "after-commit");
        assert_eq!(was_new, committed, "{place}: the commit decides");
    }
}

#[test]
fn a_crash_in_the_very_first_run_leaves_nothing_or_everything() {
    let new = new_state();
    for place in PLACES {
        let project = Project::with_people(&rows(&new));
        let crashed: Ran = project.command(&["run"]).env("CLOUD_CONNECT_ABORT_AT", place).output().unwrap().into();
        // there is nothing to rewrite, but the step is passed all the same
        assert_eq!(crashed.code, None, "{place} was not reached: {crashed:?}");
        check(&project, &State::new(), &new, place);
    }
}

#[test]
fn a_crash_inside_the_very_first_commit_leaves_nothing_in_the_way() {
    for table in ["records/people", "identities", "changes"] {
        let project = Project::with_people(&[person("ada", "London", 1)]);
        // what the object store leaves: the log's folder, and an upload that was not renamed
        let log = project.store().join(table).join("_delta_log");
        std::fs::create_dir_all(&log).unwrap();
        std::fs::write(log.join("00000000000000000000.json#1"), "{").unwrap();
        assert_eq!(project.run(&[])["status"], "published", "{table}");
        assert_eq!(project.profile("email", "ada@example.com")["attributes"]["cc_people_city"], "London");
    }
}

#[test]
fn a_crash_while_approving_leaves_the_hold_or_its_end() {
    for place in ["after-rewrite", "before-commit", "after-commit", "after-changes", "after-catalog"] {
        let old = old_state();
        let project = started(&old);
        project.write("models/people.yml", &format!("{PEOPLE}guard: {{ max_removed: 1, max_removed_percent: 1 }}\n"));
        let new: State = old.clone().into_iter().skip(10).collect();
        project.rows("people", &rows(&new));
        let held = project.run(&[]);
        assert_eq!(held["status"], "held");
        let id = held["run_id"].as_str().unwrap();
        let crashed: Ran =
            project.command(&["approve", id]).env("CLOUD_CONNECT_ABORT_AT", place).output().unwrap().into();
        assert_eq!(crashed.code, None, "{place} was not reached: {crashed:?}");
        let now = shown(&project);
        assert!(now == old || now == new, "{place}: a mixture");
        assert_eq!(replayed(&project), now, "{place}");
        let again = project.cc(&["approve", id]);
        assert_eq!(again.code, Some(i32::from(now == new)), "{place}: {}", again.stderr);
        assert_eq!((shown(&project), replayed(&project)), (new.clone(), new), "{place}");
    }
}

#[test]
fn kills_at_random_moments_lose_nothing_and_invent_nothing() {
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut state = old_state();
    let project = started(&state);
    let took = {
        let begun = Instant::now();
        project.run(&[]);
        begun.elapsed()
    };
    let (mut rounds, mut cut_short) = (0, 0);
    let end = Instant::now() + Duration::from_secs(40);
    while rounds < 40 && Instant::now() < end {
        rounds += 1;
        let mut next = state.clone();
        next.retain(|_, _| !rng.random_bool(0.1));
        for (city, _) in next.values_mut() {
            if rng.random_bool(0.2) {
                *city = format!("city {rounds}");
            }
        }
        next.insert(format!("round{rounds}@example.com"), ("new".into(), rounds));
        project.rows("people", &rows(&next));
        let mut child = project.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(took.mul_f64(rng.random_range(0.0..1.3)));
        child.kill().unwrap();
        cut_short += usize::from(child.wait().unwrap().code().is_none());
        let before = shown(&project);
        check(&project, &state, &next, &format!("round {rounds}, before: {}", before.len()));
        state = next;
    }
    assert!(cut_short >= rounds as usize / 4, "only {cut_short} of {rounds} runs were cut short");
}

#[test]
fn two_runs_of_one_model_at_once_the_second_is_refused() {
    let project = started(&old_state());
    project.rows("people", &rows(&new_state()));
    let mut first = project
        .command(&["run"])
        .env("FAILPOINTS", "after-rewrite=sleep(3000)")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    let refused = loop {
        let running = project.cc(&["runs", "--output", "json"]).json()[0]["status"] == "running";
        if running {
            break project.cc(&["run", "--output", "json"]);
        }
        assert!(Instant::now() < end, "the first run never began");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(refused.code, Some(1));
    let error = refused.json()[0]["error"].as_str().unwrap().to_string();
    assert_eq!(error, format!("a run of `people` is under way (process {})", first.id()));
    // meanwhile readers see the old state
    assert_eq!(shown(&project), old_state());
    assert!(first.wait().unwrap().success());
    assert_eq!(shown(&project), new_state());
    let runs = project.cc(&["runs", "--output", "json"]).json();
    assert_eq!(runs.as_array().unwrap().len(), 2, "a refused run leaves no record: {runs}");
}
