//! Runs: exact changes, quarantine, drift, changed definitions, identities, time travel.

use serde_json::{Value, json};

use crate::project::{PEOPLE, Project, counts, person};

const CHANGES: [&str; 5] = ["rows", "added", "changed", "removed", "unchanged"];

#[test]
fn a_second_run_finds_exactly_what_changed_whatever_the_order() {
    let project =
        Project::with_people(&[person("ada", "London", 1), person("bob", "Bonn", 2), person("cyd", "Cork", 3)]);
    let first = project.run(&[]);
    assert_eq!(first["status"], "published");
    assert_eq!(counts(&first, CHANGES), [3, 3, 0, 0, 0]);
    assert_eq!(counts(&first, ["profiles_created", "profiles_matched"]), [3, 0]);

    project.rows("people", &[person("dan", "Delft", 4), person("cyd", "Cork", 3), person("ada", "Paris", 1)]);
    let second = project.run(&["people"]);
    assert_eq!(second["status"], "published");
    assert_eq!(counts(&second, CHANGES), [3, 1, 1, 1, 1]);

    let log = project.sql("SELECT change, identity, before, after FROM changes ORDER BY at, change, identity");
    let of_second: Vec<_> =
        log[3..].iter().map(|c| (c["change"].as_str().unwrap(), c["identity"].as_str().unwrap())).collect();
    assert_eq!(
        of_second,
        [("changed", "ada@example.com"), ("entered", "dan@example.com"), ("exited", "bob@example.com")]
    );
    assert_eq!(
        (log[3]["before"].as_str(), log[3]["after"].as_str()),
        (Some(r#"{"city":"London"}"#), Some(r#"{"city":"Paris"}"#))
    );
    assert_eq!(log[5]["before"], r#"{"city":"Bonn","spent":2}"#);
}

#[test]
fn a_run_that_finds_nothing_changed_writes_nothing_but_its_record() {
    let project = Project::with_people(&[person("ada", "London", 1), person("bob", "Bonn", 2)]);
    project.run(&[]);
    let before = files_below(&project.store());
    project.rows("people", &[person("bob", "Bonn", 2), person("ada", "London", 1)]);
    let again = project.run(&[]);
    assert_eq!(again["status"], "unchanged");
    assert_eq!(counts(&again, CHANGES), [2, 0, 0, 0, 2]);
    assert_eq!(files_below(&project.store()), before);
    let runs = project.cc(&["runs", "--output", "json"]).json();
    assert_eq!(runs.as_array().unwrap().len(), 2);
}

/// Every file of the store but the catalog's own, with its size.
fn files_below(folder: &std::path::Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()).into_iter().map(|(below, size)| (format!("{name}/{below}"), size)));
        } else if !name.starts_with("catalog.db") {
            found.push((name, entry.metadata().unwrap().len()));
        }
    }
    found.sort();
    found
}

#[test]
fn rows_without_a_key_or_with_one_twice_are_set_aside_and_the_key_keeps_its_state() {
    let project = Project::with_people(&[person("ada", "London", 1), person("bob", "Bonn", 2)]);
    project.run(&[]);
    let mut rows = vec![person("ada", "Rome", 9), person("bob", "Bonn", 2)];
    rows.push(json!({ "email": " ADA@example.com ", "city": "Oslo", "spent": 8 }));
    rows.push(json!({ "email": null, "city": "Nowhere", "spent": 0 }));
    rows.push(json!({ "email": "  ", "city": "Nowhere", "spent": 0 }));
    rows.push(person("new", "Nice", 1));
    rows.push(person("new", "Nice", 1));
    project.rows("people", &rows);
    let report = project.run(&[]);
    assert_eq!(
        counts(&report, ["rows", "added", "changed", "removed", "unchanged", "quarantined"]),
        [7, 0, 0, 0, 1, 6]
    );
    assert_eq!(report["status"], "unchanged");
    let quarantine = &report["quarantine"];
    assert_eq!(counts(quarantine, ["null_key", "duplicate_key", "unconvertible"]), [2, 4, 0]);
    let keys: Vec<_> = quarantine["samples"].as_array().unwrap().iter().filter_map(|s| s["key"].as_str()).collect();
    assert!(keys.contains(&"ada@example.com") && keys.contains(&"new@example.com"), "{keys:?}");
    assert_eq!(project.profile("email", "Ada@example.com")["attributes"]["cc_people_city"], "London");
    assert_eq!(project.profile("email", "new@example.com"), Value::Null);
    // the report keeps it for later
    let id = report["run_id"].as_str().unwrap();
    let shown = project.cc(&["run-report", id]).ok().stdout;
    assert!(shown.contains("the key comes more than once"), "{shown}");
}

#[test]
fn values_that_do_not_fit_are_set_aside_row_by_row() {
    let project = Project::new();
    let config = format!("{PEOPLE}columns: {{ spent: {{ type: 'decimal(10,2)', not_null: true }} }}\n");
    project.model("people", &config, "SELECT email, city, CAST(spent AS VARCHAR) AS spent FROM people");
    let row = |email: &str, spent: Value| json!({ "email": email, "city": "x", "spent": spent });
    project.rows(
        "people",
        &[
            row("a@x.y", json!("1.50")),
            row("b@x.y", json!("n/a")),
            row("c@x.y", Value::Null),
            row("d@x.y", json!("1.005")),
        ],
    );
    let report = project.run(&[]);
    assert_eq!(counts(&report, ["added", "quarantined"]), [1, 3]);
    assert_eq!(report["quarantine"]["unconvertible"], 3);
    // a bad value keeps the key's previous state, and its absence from the result is no removal
    project.rows("people", &[row("a@x.y", json!("oops"))]);
    let report = project.run(&[]);
    assert_eq!(counts(&report, ["removed", "changed", "quarantined"]), [0, 0, 1]);
    let attributes = &project.profile("email", "a@x.y")["attributes"];
    assert_eq!(attributes["cc_people_spent"].to_string().trim_matches('"').parse(), Ok(1.5));
}

#[test]
fn a_new_column_is_ignored_until_it_is_activated_and_activating_invents_no_exit() {
    let project = Project::with_people(&[person("ada", "London", 1), person("bob", "Bonn", 2)]);
    project.run(&[]);
    let since = project.profile("email", "ada@example.com")["memberships"]["people"].clone();
    let wide = |name: &str, city: &str, spent: i64| {
        let mut row = person(name, city, spent);
        row["tier"] = json!("gold");
        row
    };
    project.rows("people", &[wide("ada", "London", 1), wide("bob", "Bonn", 2)]);
    assert_eq!(project.run(&[])["status"], "unchanged");

    project.write("models/people.yml", &PEOPLE.replace("[city, spent]", "[city, spent, tier]"));
    let report = project.run(&[]);
    assert_eq!(report["definition_changed"], true);
    assert_eq!(counts(&report, CHANGES), [2, 0, 2, 0, 0]);
    assert_eq!(counts(&report, ["entered", "exited"]), [0, 0]);
    let ada = project.profile("email", "ada@example.com");
    assert_eq!((&ada["attributes"]["cc_people_tier"], &ada["memberships"]["people"]), (&json!("gold"), &since));
    let text = project.cc(&["run"]).ok().stdout;
    assert!(text.contains("unchanged") && !text.contains("changed since"), "{text}");
}

#[test]
fn a_changed_query_is_noticed_and_compared_all_the_same() {
    let project = Project::with_people(&[person("ada", "London", 1), person("bob", "Bonn", 2)]);
    project.run(&[]);
    project.write("models/people.sql", "SELECT * FROM people WHERE spent > 1 -- the big ones\n");
    let report = project.run(&[]);
    assert_eq!(report["definition_changed"], true);
    assert_eq!(counts(&report, ["removed", "unchanged", "entered", "exited"]), [1, 1, 0, 1]);
    assert_eq!(project.run(&[])["definition_changed"], false);
}

#[test]
fn a_missing_or_retyped_field_fails_the_run_before_anything_is_written() {
    let project = Project::with_people(&[person("ada", "London", 1)]);
    project.run(&[]);
    let before = files_below(&project.store());
    project.rows("people", &[json!({ "email": "ada@example.com", "city": "London", "spent": "much" })]);
    let ran = project.cc(&["run", "--output", "json"]);
    assert_eq!(ran.code, Some(1));
    let report = &ran.json()[0];
    assert_eq!(report["status"], "failed");
    assert_eq!(report["error"], "column `spent` was int and is now string");
    assert!(report["hint"].as_str().unwrap().contains("columns: { spent: { type: int } }"));

    project.rows("people", &[json!({ "email": "ada@example.com", "city": "London" })]);
    let report = project.run(&[]);
    assert_eq!(report["error"], "the query returns no column `spent` (it returns: email, city)");
    assert_eq!(files_below(&project.store()), before);
    assert_eq!(project.profile("email", "ada@example.com")["attributes"]["cc_people_spent"], 1);
}

#[test]
fn another_key_is_refused() {
    let project = Project::with_people(&[json!({ "email": "a@x.y", "user_id": "1", "city": "x", "spent": 1 })]);
    project.run(&[]);
    project.write("models/people.yml", &PEOPLE.replace("key: email", "key: user_id"));
    let report = project.run(&[]);
    assert_eq!(report["status"], "failed");
    assert!(report["hint"].as_str().unwrap().contains("new slug"), "{report}");
}

#[test]
fn further_identities_join_models_and_an_owned_value_is_a_conflict() {
    let project = Project::new();
    project.model(
        "accounts",
        "name: Accounts\nconnection: files\nprimary_key: user_id\nexternal_key: user_id\nidentities: [email]\nactivated_fields: [plan]\n",
        "SELECT * FROM accounts",
    );
    project.model("people", PEOPLE, "SELECT * FROM people");
    let account = |id: i64, email: &str, plan: &str| json!({ "user_id": id, "email": email, "plan": plan });
    project.rows(
        "accounts",
        &[
            account(1, " ADA@example.com", "pro"),
            account(2, "ada@example.com", "free"),
            account(3, "cyd@example.com", "pro"),
        ],
    );
    project.rows("people", &[person("ada", "London", 1)]);
    let reports = project.cc(&["run", "--output", "json"]).ok().json();
    assert_eq!(counts(&reports[0], ["profiles_created", "identities_linked", "identity_conflicts"]), [3, 2, 1]);
    assert_eq!(counts(&reports[1], ["profiles_created", "profiles_matched"]), [0, 1]);
    let ada = project.profile("email", "ada@example.com");
    assert_eq!(ada["identities"]["email"], "ada@example.com");
    assert_eq!(ada["attributes"]["cc_people_city"], "London");
    assert_eq!(project.profile("user_id", "3")["identities"], json!({ "email": "cyd@example.com", "user_id": "3" }));
    assert_eq!(project.sql("SELECT count(*) AS n FROM profiles")[0]["n"], 3);
}

#[test]
fn rows_wait_for_their_profile_and_enter_when_it_comes() {
    let project = Project::new();
    project.model("a_vips", &format!("{PEOPLE}create_profiles: false\n"), "SELECT * FROM vips");
    project.model("people", PEOPLE, "SELECT * FROM people");
    project.rows("vips", &[person("ada", "London", 1), person("zoe", "Zug", 9)]);
    project.rows("people", &[person("bob", "Bonn", 1)]);
    let reports = project.cc(&["run", "--output", "json"]).ok().json();
    assert_eq!(counts(&reports[0], ["added", "waiting", "entered", "profiles_created"]), [2, 2, 0, 0]);
    assert_eq!(project.profile("email", "ada@example.com"), Value::Null);

    project.rows("people", &[person("bob", "Bonn", 1), person("ada", "Turin", 1)]);
    let report = project.run(&["people"]);
    assert_eq!(counts(&report, ["added", "entered"]), [1, 2]);
    let ada = project.profile("email", "ada@example.com");
    assert_eq!(ada["memberships"].as_object().unwrap().len(), 2);
    assert_eq!(ada["memberships"]["a_vips"], ada["memberships"]["people"]);
    let log = project.sql("SELECT model, after FROM changes WHERE identity = 'ada@example.com' ORDER BY model");
    assert_eq!(log[0], json!({ "model": "a_vips", "after": r#"{"city":"London","spent":1}"# }));

    // from now on the model creates profiles itself: who waited gets one
    project.write("models/a_vips.yml", PEOPLE);
    let report = project.run(&["a_vips"]);
    assert_eq!(counts(&report, ["added", "changed", "profiles_created", "entered"]), [0, 0, 1, 1]);
    assert_eq!(project.profile("email", "zoe@example.com")["attributes"]["cc_a_vips_city"], "Zug");
    assert_eq!(project.run(&["a_vips"])["status"], "unchanged");
}

#[test]
fn a_row_that_waited_brings_its_further_identities_and_these_let_others_in() {
    let project = Project::new();
    let waiting = "connection: files\ncreate_profiles: false\nactivated_fields: [plan]\n";
    let vips = format!("name: VIPs\nprimary_key: email\nexternal_key: email\nidentities: [user_id]\n{waiting}");
    project.model("a_vips", &vips, "SELECT * FROM vips");
    let logins = format!("name: Logins\nprimary_key: user_id\nexternal_key: user_id\n{waiting}");
    project.model("b_logins", &logins, "SELECT * FROM logins");
    project.model("people", PEOPLE, "SELECT * FROM people");
    project.rows("vips", &[json!({ "email": "ada@example.com", "user_id": "u1", "plan": "gold" })]);
    project.rows("logins", &[json!({ "user_id": "u1", "plan": "daily" })]);
    project.rows("people", &[person("bob", "Bonn", 1)]);
    project.cc(&["run"]).ok();
    project.rows("people", &[person("bob", "Bonn", 1), person("ada", "Turin", 1)]);
    let report = project.run(&["people"]);
    assert_eq!(counts(&report, ["added", "entered", "identities_linked"]), [1, 3, 1]);
    let ada = project.profile("user_id", "u1");
    assert_eq!(ada["identities"], json!({ "email": "ada@example.com", "user_id": "u1" }));
    assert_eq!(ada["attributes"]["cc_b_logins_plan"], "daily");
    assert_eq!(ada["memberships"].as_object().unwrap().len(), 3);
    assert_eq!(project.sql("SELECT count(*) AS n FROM identities WHERE value = 'u1'")[0]["n"], 1);
}

#[test]
fn a_number_can_be_an_attribute_and_a_further_identity() {
    let project = Project::new();
    let config = |fields: &str, more: &str| {
        format!(
            "name: People\nconnection: files\nprimary_key: email\nexternal_key: email\nactivated_fields: [{fields}]\n{more}"
        )
    };
    let row = |name: &str, id: i64| json!({ "email": format!("{name}@example.com"), "user_id": id, "city": "x" });
    let names: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
    let rows: Vec<Value> = names.iter().zip(100..).map(|(name, id)| row(name, id)).collect();
    project.rows("people", &rows);
    project.model("people", &config("user_id", ""), "SELECT * FROM people");
    project.run(&[]);
    // named only later: rows that are the same claim it all the same
    project.write("models/people.yml", &config("user_id", "identities: [user_id]\n"));
    assert_eq!(counts(&project.run(&[]), ["changed", "identities_linked"]), [0, 20]);
    let profile = project.profile("user_id", "107");
    assert_eq!(profile["identities"]["email"], "p7@example.com");
    assert_eq!(profile["attributes"]["cc_people_user_id"], 107);

    // declared, but not activated; and a hold on such a model can be approved
    let declared =
        "identities: [user_id]\ncolumns: { user_id: int }\nguard: { max_removed: 1, max_removed_percent: 1 }\n";
    project.model("declared", &config("city", declared), "SELECT * FROM people");
    project.run(&["declared"]);
    project.rows("people", &rows[..10]);
    let held = project.run(&["declared"]);
    assert_eq!(held["status"], "held");
    project.cc(&["approve", held["run_id"].as_str().unwrap()]).ok();
    assert_eq!(project.sql("SELECT count(*) AS n FROM records_declared")[0]["n"], 10);
}

#[test]
fn a_query_may_ask_what_time_it_is() {
    let project = Project::with_people(&[person("ada", "London", 1)]);
    project.write(
        "models/people.sql",
        "SELECT * FROM people WHERE now() > TIMESTAMP '2020-01-01' AND current_date > DATE '2020-01-01'",
    );
    assert_eq!(counts(&project.run(&[]), ["added"]), [1]);
}

#[test]
fn what_was_published_is_shown_until_a_run_changes_it() {
    let project = Project::with_people(&[person("ada", "London", 1)]);
    let first = project.run(&[]);
    let shown = || project.sql("SELECT count(*) AS n FROM memberships")[0]["n"].clone();
    project.write("models/people.yml", &PEOPLE.replace("external_key: email", "external_key: user_id"));
    assert_eq!(project.run(&[])["status"], "failed");
    assert_eq!(shown(), 1, "the key that was published still tells who is a member");
    std::fs::remove_file(project.path().join("models/people.yml")).unwrap();
    std::fs::remove_file(project.path().join("models/people.sql")).unwrap();
    assert_eq!(shown(), 0);
    let past = ["sql", "SELECT count(*) AS n FROM memberships", "--as-of", first["run_id"].as_str().unwrap()];
    let past: Vec<&str> = past.into_iter().chain(["--output", "json"]).collect();
    assert_eq!(project.cc(&past).ok().json()[0]["n"], 1);
}

#[test]
fn a_declared_type_is_meant_and_an_accident_is_not() {
    let project = Project::with_people(&[person("ada", "London", 1)]);
    project.run(&[]);
    project.write("models/people.yml", &format!("{PEOPLE}columns: {{ spent: string }}\n"));
    assert_eq!(project.run(&[])["status"], "published");
    assert_eq!(project.profile("email", "ada@example.com")["attributes"]["cc_people_spent"], "1");
}

#[test]
fn a_plan_goes_on_after_a_model_that_fails_and_names_it() {
    let project = Project::with_people(&[person("ada", "London", 1)]);
    project.model("a_broken", PEOPLE, "SELECT nothing FROM people");
    let ran = project.cc(&["plan", "--output", "json"]);
    assert_eq!(ran.code, Some(1));
    let plans = ran.json();
    let of = |model: &str| plans.as_array().unwrap().iter().find(|plan| plan["model"] == model).unwrap().clone();
    assert_eq!((&of("people")["added"], &of("a_broken")["status"]), (&json!(1), &json!("failed")));
    assert!(of("a_broken")["error"].as_str().unwrap().contains("nothing"));
}

#[test]
fn waiting_rows_of_the_running_model_enter_through_the_identities_that_others_bring() {
    let project = Project::new();
    let waiting = "connection: files\ncreate_profiles: false\n";
    project.model("a_people", PEOPLE, "SELECT * FROM people");
    let logins =
        "name: Logins\nprimary_key: user_id\nexternal_key: user_id\nidentities: [email]\nactivated_fields: [n]\n";
    project.model("b_logins", &format!("{logins}{waiting}"), "SELECT * FROM logins");
    let crm = "name: CRM\nprimary_key: email\nexternal_key: email\nidentities: [user_id]\nactivated_fields: [n]\n";
    project.model("c_crm", &format!("{crm}{waiting}"), "SELECT * FROM crm");
    project.rows("people", &[person("a", "London", 1)]);
    project.rows("logins", &[json!({ "user_id": "u1", "email": "b@example.com", "n": 1 })]);
    project.rows(
        "crm",
        &[
            json!({ "email": "a@example.com", "user_id": "u1", "n": 1 }),
            json!({ "email": "b@example.com", "user_id": null, "n": 2 }),
        ],
    );
    let reports = project.cc(&["run", "--output", "json"]).ok().json();
    // u1 becomes a's; so the login enters, and brings b@; so the second row of the model itself enters
    assert_eq!(counts(&reports[2], ["added", "waiting", "identities_linked", "entered"]), [2, 1, 2, 3]);
    let log = project.sql("SELECT model, identity FROM changes WHERE change = 'entered' ORDER BY 1, 2");
    let log: Vec<_> =
        log.iter().map(|row| (row["model"].as_str().unwrap(), row["identity"].as_str().unwrap())).collect();
    let wanted =
        [("a_people", "a@example.com"), ("b_logins", "u1"), ("c_crm", "a@example.com"), ("c_crm", "b@example.com")];
    assert_eq!(log, wanted);
}

#[test]
fn other_normalization_of_stored_identities_is_refused() {
    let project = Project::with_people(&[person("Ada", "London", 1)]);
    project.run(&[]);
    let config = std::fs::read_to_string(project.path().join("cloud-connect.yml")).unwrap();
    project.write("cloud-connect.yml", &config.replace("[trim, lowercase]", "[trim]"));
    let report = project.run(&[]);
    assert_eq!(report["status"], "failed");
    assert!(report["error"].as_str().unwrap().contains("`normalize:` of identity field `email` changed"), "{report}");
    assert!(report["hint"].as_str().unwrap().contains("normalize: [trim, lowercase]"), "{report}");
    // nor does a new model find identities by other steps than those that stored them
    project.model("second", PEOPLE, "SELECT * FROM people");
    assert_eq!(project.run(&["second"])["status"], "failed");
    project.write("cloud-connect.yml", &config);
    assert_eq!(project.run(&["people"])["status"], "unchanged");
    assert_eq!(project.run(&["second"])["status"], "published");
}

#[test]
fn a_run_is_named_by_as_much_of_its_id_as_tells_it_apart() {
    let project = Project::with_people(&[person("ada", "London", 1)]);
    let (first, _) = (project.run(&[]), project.run(&[]));
    let ran = project.cc(&["run-report", &first["run_id"].as_str().unwrap()[..4]]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("several runs begin with"), "{}", ran.stderr);
}

#[test]
fn the_past_can_be_looked_at_by_run_and_by_time() {
    let project = Project::with_people(&[person("ada", "London", 1), person("bob", "Bonn", 2)]);
    let first = project.run(&[]);
    project.rows("people", &[person("ada", "Paris", 1), person("cyd", "Cork", 3)]);
    let second = project.run(&[]);
    let as_of = |moment: &str| {
        let ada = project.cc(&["profile", "email", "ada@example.com", "--as-of", moment, "--output", "json"]).json();
        let members = project
            .cc(&[
                "sql",
                "SELECT count(*) AS n, count(DISTINCT profile_id) AS ids FROM memberships",
                "--as-of",
                moment,
                "--output",
                "json",
            ])
            .json();
        (ada["attributes"]["cc_people_city"].clone(), members[0]["n"].clone())
    };
    let (run_1, run_2) = (first["run_id"].as_str().unwrap(), second["run_id"].as_str().unwrap());
    assert_eq!(as_of(run_1), (json!("London"), json!(2)));
    assert_eq!(as_of(run_2), (json!("Paris"), json!(2)));
    assert_eq!(as_of(first["finished_at"].as_str().unwrap()), (json!("London"), json!(2)));
    let bob = |moment: &str| {
        project.cc(&["profile", "email", "bob@example.com", "--as-of", moment, "--output", "json"]).json()
    };
    assert_eq!(bob(run_1)["memberships"].as_object().unwrap().len(), 1);
    assert_eq!(bob(run_2)["memberships"].as_object().unwrap().len(), 0);
    let early = project.cc(&["profile", "email", "bob@example.com", "--as-of", "2020-01-01", "--output", "json"]);
    assert_eq!((early.json(), early.code), (Value::Null, Some(1)));
}

#[test]
fn a_plan_says_what_the_run_then_does_and_writes_nothing() {
    let project =
        Project::with_people(&[person("ada", "London", 1), person("bob", "Bonn", 2), person("cyd", "Cork", 1)]);
    let names = [
        "rows",
        "added",
        "changed",
        "removed",
        "unchanged",
        "quarantined",
        "profiles_created",
        "profiles_matched",
        "entered",
        "exited",
    ];
    for rows in [
        vec![person("ada", "London", 1), person("bob", "Bonn", 2), person("cyd", "Cork", 1)],
        vec![person("ada", "Rome", 1), person("dan", "Delft", 4), person("cyd", "Cork", 1), person("cyd", "Cork", 2)],
    ] {
        project.rows("people", &rows);
        let before = std::fs::read_dir(project.store()).is_ok().then(|| files_below(&project.store()));
        let plan = project.cc(&["plan", "--output", "json"]).ok().json()[0].clone();
        if let Some(before) = before {
            assert_eq!(files_below(&project.store()), before);
        }
        let run = project.run(&[]);
        assert_eq!(counts(&plan, names), counts(&run, names));
        assert_eq!(plan["status"], run["status"]);
    }
    project.rows("people", &[person("ada", "Oslo", 1), person("eve", "Evry", 4), person("cyd", "Cork", 1)]);
    let samples = &project.cc(&["plan", "--output", "json"]).ok().json()[0]["samples"];
    assert_eq!(
        samples["changed"][0],
        json!({ "key": "ada@example.com", "before": { "city": "Rome" }, "after": { "city": "Oslo" } })
    );
    assert_eq!(samples["added"][0]["key"], "eve@example.com");
    assert_eq!(samples["removed"][0]["key"], "dan@example.com");
    let text = project.cc(&["plan"]).ok().stdout;
    assert!(text.contains(r#"~ ada@example.com  {"city":"Rome"} → {"city":"Oslo"}"#), "{text}");
}

#[test]
fn many_small_runs_leave_few_files() {
    let mut rows: Vec<Value> = vec![person("p0", "x", 0)];
    let project = Project::with_people(&rows);
    project.run(&[]);
    for run in 1..=14 {
        rows.push(person(&format!("p{run}"), "x", run));
        project.rows("people", &rows);
        assert_eq!(counts(&project.run(&[]), ["added", "changed", "removed"]), [1, 0, 0]);
    }
    assert_eq!(project.sql("SELECT count(*) AS n FROM records_people")[0]["n"], 15);
    let log = std::fs::read_dir(project.store().join("records/people/_delta_log")).unwrap();
    let entries = || std::fs::read_dir(project.store().join("records/people/_delta_log")).unwrap().count();
    let before = entries();
    assert_eq!(project.run(&[])["status"], "unchanged");
    assert_eq!(entries(), before, "an unchanged run writes nothing, however many small files there are");
    let removes = log
        .filter_map(|e| std::fs::read_to_string(e.unwrap().path()).ok())
        .filter(|text| text.contains("\"remove\""))
        .count();
    assert!(removes >= 1, "small files are folded together");
}
