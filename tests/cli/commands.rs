//! The commands as people meet them: beginnings, faults, exit codes, limits.

use serde_json::json;

use crate::project::{PEOPLE, Project, counts, person};

#[test]
fn a_new_project_runs_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let shop = dir.path().join("shop");
    let shop = shop.to_str().unwrap();
    let cc = |args: &[&str]| -> crate::project::Ran {
        std::process::Command::new(env!("CARGO_BIN_EXE_cloud-connect")).args(args).output().unwrap().into()
    };
    let made = cc(&["init", shop]).ok().stdout;
    assert!(made.contains("cloud-connect.yml") && made.contains("run      # do it"), "{made}");
    assert_eq!(cc(&["--project", shop, "check"]).code, Some(0));
    let reports = cc(&["--project", shop, "run", "--output", "json"]).ok().json();
    assert_eq!(reports[0]["status"], "published");
    let again = cc(&["init", shop]);
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("already exists"), "{}", again.stderr);
}

#[test]
fn outside_a_project_the_error_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let ran: crate::project::Ran = std::process::Command::new(env!("CARGO_BIN_EXE_cloud-connect"))
        .arg("run")
        .current_dir(&dir)
        .output()
        .unwrap()
        .into();
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("cloud-connect init"), "{}", ran.stderr);
}

#[test]
fn every_fault_of_a_project_is_reported_at_once_with_its_place() {
    let project = Project::with_people(&[person("ada", "London", 1)]);
    project.write("models/people.yml", "name: People\nconection: files\nprimary_key: email\nexternal_key: phone\nactivated_fields: 5\nschedule: every 5s\n");
    project.model("other", PEOPLE, "");
    let ran = project.cc(&["check", "--output", "json"]);
    assert_eq!(ran.code, Some(2));
    let errors = ran.json();
    let places: Vec<(String, u64)> = errors["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["file"].as_str().unwrap().to_string(), e["line"].as_u64().unwrap()))
        .collect();
    for place in
        [("models/people.yml", 2), ("models/people.yml", 4), ("models/people.yml", 5), ("models/people.yml", 6)]
    {
        assert!(places.contains(&(place.0.to_string(), place.1)), "{place:?} is not among {places:?}");
    }
    assert!(places.iter().any(|(file, _)| file == "models/other.sql"), "{places:?}");
    let text = project.cc(&["run"]).stderr;
    assert!(text.contains("conection") && text.contains("connection"), "{text}");
}

#[test]
fn check_compares_a_model_with_the_query_s_own_description() {
    let project = Project::with_people(&[person("ada", "London", 1)]);
    project.write("models/people.sql", "SELECT email, city FROM people");
    let ran = project.cc(&["check"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("spent") && ran.stderr.contains("models/people.yml"), "{}", ran.stderr);
    project.write("models/people.sql", "SELECT email, city, spent FROM nowhere");
    let ran = project.cc(&["check"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("nowhere"), "{}", ran.stdout);
}

#[test]
fn an_inactive_model_is_never_queried() {
    let project = Project::with_people(&[person("ada", "London", 1)]);
    project.write("models/people.yml", &format!("{PEOPLE}active: false\n"));
    assert_eq!(project.cc(&["run", "--output", "json"]).ok().json(), json!([]));
    assert_eq!(project.cc(&["run", "people"]).code, Some(2));
    assert_eq!(project.cc(&["run", "nobody"]).code, Some(2));
    assert!(project.cc(&["models"]).ok().stdout.contains("inactive"));
}

#[test]
fn queries_read_and_never_write() {
    let project = Project::with_people(&[person("ada", "London", 1)]);
    project.run(&[]);
    for query in [
        "DROP TABLE profiles",
        "INSERT INTO identities VALUES (1)",
        "CREATE TABLE x AS SELECT 1",
        "COPY profiles TO 'x.csv'",
    ] {
        for args in [vec!["sql", query], vec!["connection", "query", "files", query]] {
            let ran = project.cc(&args);
            assert_eq!(ran.code, Some(1), "{query}: {ran:?}");
        }
    }
    let csv = project.cc(&["sql", "SELECT email, cc_people_city FROM profiles", "--output", "csv"]).ok().stdout;
    assert_eq!(csv, "email,cc_people_city\nada@example.com,London\n");
    let wrong = project.cc(&["sql", "SELECT emial FROM profiles"]);
    assert!(wrong.code == Some(1) && wrong.stderr.contains("emial"), "{}", wrong.stderr);
}

#[test]
fn a_result_larger_than_memory_is_compared_exactly_and_the_limit_is_the_whole_process_s() {
    const LIMIT_MIB: u64 = 256;
    let project = Project::new();
    let config = PEOPLE.replace("[city, spent]", "[city, spent, pad]");
    let sql = |from: i64, to: i64, modulo: i64| {
        format!(
            "SELECT concat('p', value, '@example.com') AS email, concat('city ', value % 1000) AS city, value + CASE WHEN value % {modulo} = 0 THEN 1 ELSE 0 END AS spent, \
             concat(repeat('x', 40), value) AS pad FROM generate_series({from}, {to})"
        )
    };
    project.rows("people", &[person("ada", "London", 1)]);
    project.model("people", &format!("{config}guard: {{ max_removed: 1000000 }}\n"), &sql(1, 1_500_000, 2_000_000));
    let run = || {
        let limit = format!("{LIMIT_MIB}MiB");
        let command = ["run", "--memory-limit", &limit, "--output", "json"];
        let mut child = project.command(&command).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut peak_kib = 0;
        // its peak as the kernel counts it: text, heap and all; asked for until the process has ended
        while child.try_wait().unwrap().is_none() {
            let now = std::fs::read_to_string(&status).unwrap_or_default();
            let peak =
                now.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")?.trim().parse().ok());
            peak_kib = peak.unwrap_or(peak_kib);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(peak_kib > 0 && peak_kib >> 10 <= LIMIT_MIB, "{} MiB", peak_kib >> 10);
        crate::project::Ran::from(child.wait_with_output().unwrap()).ok().json()[0].clone()
    };
    assert_eq!(counts(&run(), ["rows", "added"]), [1_500_000, 1_500_000]);
    project.write("models/people.sql", &sql(2001, 1_501_000, 100));
    let report = run();
    assert_eq!(counts(&report, ["added", "removed"]), [1000, 2000]);
    // every hundredth of the 1,498,000 that stayed
    assert_eq!(counts(&report, ["changed", "unchanged"]), [14_980, 1_483_020]);
}
