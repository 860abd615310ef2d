//! Profiles as a product reads them: lookups, SQL, the log of changes.

use serde_json::{Value, json};

use super::{Service, token};
use crate::project::{PEOPLE, Project, person};

const TOP: &str = "profile:\n  identities:\n    - field: user_id\n    - field: email\n      normalize: [trim, lowercase]\n\
                   connections:\n  files: { type: local, path: data }\n";

fn three_people() -> Project {
    let project =
        Project::with_people(&[person("ada", "Berlin", 1), person("bob", "Köln", 2), person("cyd", "Rom", 3)]);
    project.cc(&["run"]).ok();
    project
}

fn email(name: &str) -> String {
    person(name, "", 0)["email"].as_str().unwrap().to_string()
}

fn path(name: &str) -> String {
    format!("/v2/entity/user/email/{}", email(name))
}

#[test]
fn a_profile_is_found_as_the_command_line_finds_it_and_new_runs_are_seen() {
    let project = three_people();
    let service = Service::start(&project);
    // before and after the serving files are there
    for name in ["ada", "bob", "cyd", "ada"] {
        let found = service.get(&path(name)).data();
        let shown = project.cc(&["profile", "email", &email(name), "--output", "json"]).ok().json();
        assert_eq!(found["profile_id"], shown["profile_id"]);
        assert_eq!(found["created_at"], shown["created_at"]);
        assert_eq!(found["attributes"], shown["attributes"]);
        assert_eq!(found["identities"], json!({ "email": [email(name)] }));
        assert_eq!(found["memberships"], json!([{ "model": "people", "since": shown["memberships"]["people"] }]));
    }
    let first_run = service.wait_for("/v2/changes", |page| !page["changes"].as_array().unwrap().is_empty());
    let first_run = first_run["changes"][0]["run_id"].as_str().unwrap().to_string();
    // another process publishes: a change, a new profile, an exit
    project.rows("people", &[person("ada", "Oslo", 9), person("bob", "Köln", 2), person("dan", "Bern", 4)]);
    project.cc(&["run"]).ok();
    let found = service.wait_for(&path("ada"), |found| found["attributes"]["cc_people_city"] == "Oslo");
    assert_eq!(found["attributes"]["cc_people_spent"], json!(9));
    assert_eq!(service.get(&path("dan")).data()["attributes"]["cc_people_city"], "Bern");
    assert_eq!(service.get(&path("cyd")).data()["memberships"], json!([]));
    // and the past stays as it was
    let then = service.get(&format!("{}?as_of={first_run}", path("ada"))).data();
    assert_eq!(then["attributes"]["cc_people_city"], "Berlin");
    assert_eq!(service.get(&format!("{}?as_of={first_run}", path("dan"))).error(404), "no-profile");
    assert_eq!(service.get(&format!("{}?as_of=yesterday", path("ada"))).error(400), "not-a-moment");
    assert_eq!(service.stop(), 0);
}

#[test]
fn the_value_is_decoded_and_normalized_and_nobody_is_told_apart_from_nothing() {
    let project = Project::with_people(&[json!({ "email": "a/b+c%ü@x", "city": "Ulm", "spent": 1 })]);
    project.cc(&["run"]).ok();
    let service = Service::start(&project);
    for value in ["a%2Fb+c%25%C3%BC@x", "%20A%2FB+C%25%C3%9C@X%20"] {
        let found = service.get(&format!("/v2/entity/user/email/{value}")).data();
        assert_eq!(found["identities"]["email"], json!(["a/b+c%ü@x"]), "{value}");
    }
    let missing = service.get("/v2/entity/user/email/who@x");
    assert_eq!(missing.error(404), "no-profile");
    assert!(!missing.text.contains("who@x"), "{}", missing.text);
    let unknown = service.get("/v2/entity/user/e_mail/who@x");
    assert_eq!(unknown.error(404), "not-found");
    assert!(unknown.text.contains("did you mean `email`"), "{}", unknown.text);
    assert!(!service.logged().contains("who@x"), "a looked-up value belongs in no log");
}

#[test]
fn only_the_fields_that_were_asked_for_are_answered() {
    let project = three_people();
    let service = Service::start(&project);
    let of = |fields: &str| service.get(&format!("{}?fields={fields}", path("ada"))).data();
    let none = json!({ "identities": {}, "attributes": {}, "memberships": [] });
    assert_eq!(of(""), none);
    assert_eq!(of("cc_people_nothing"), none);
    assert_eq!(
        of("cc_people_city,%20cc_people_spent")["attributes"],
        json!({ "cc_people_city": "Berlin", "cc_people_spent": 1 })
    );
    let membership = of("cc_people_membership,email");
    assert_eq!(membership["memberships"][0]["model"], "people");
    assert_eq!(membership["identities"], json!({ "email": [email("ada")] }));
    assert_eq!(membership.get("profile_id"), None);
}

#[test]
fn a_public_token_asks_and_sees_only_what_the_project_allows() {
    let project = three_people();
    let public = token(&project, &["--role", "public"]);
    let service = Service::start(&project);
    let ask = |path: &str| service.ask_as(Some(&public), "GET", path, None);
    // nothing is allowed unless it is said
    assert_eq!(ask(&path("ada")).error(403), "forbidden");
    assert_eq!(service.stop(), 0);
    project.write(
        "cloud-connect.yml",
        &format!("{TOP}service:\n  public_identities: [email]\n  public_fields: [cc_people_city]\n"),
    );
    let restarted = Service::start(&project);
    let ask = |path: &str| restarted.ask_as(Some(&public), "GET", path, None);
    let seen = json!({ "identities": {}, "attributes": { "cc_people_city": "Berlin" }, "memberships": [] });
    assert_eq!(ask(&path("ada")).data(), seen);
    assert_eq!(ask(&format!("{}?fields=cc_people_city", path("ada"))).data(), seen);
    assert_eq!(ask(&format!("{}?fields=cc_people_city,cc_people_spent", path("ada"))).error(403), "forbidden");
    assert_eq!(ask(&format!("{}?as_of=2026-01-01", path("ada"))).error(403), "forbidden");
    assert_eq!(ask("/v2/entity/user/user_id/1").error(403), "forbidden");
    assert_eq!(ask("/v2/entity/user/email/who@x").error(404), "no-profile");
    let body = json!({ "query": "SELECT 1" });
    assert_eq!(restarted.ask_as(Some(&public), "POST", "/v2/sql", Some(&body)).error(403), "forbidden");
    assert_eq!(ask("/v2/changes").error(403), "forbidden");
    // who may see all is not held to the list
    assert_eq!(restarted.get(&path("ada")).data()["attributes"]["cc_people_spent"], json!(1));
}

#[test]
fn sql_reads_and_does_nothing_else() {
    let project = three_people();
    let service = Service::start(&project);
    let sql = |body: Value| service.post("/v2/sql", &body);
    let query =
        "SELECT email, cc_people_spent AS spent, cc_people_since IS NOT NULL AS member FROM profiles ORDER BY email";
    let result = sql(json!({ "query": query })).data();
    assert_eq!(
        result,
        json!({
            "columns": [
                { "column_name": "email", "column_datatype": "string" },
                { "column_name": "spent", "column_datatype": "int" },
                { "column_name": "member", "column_datatype": "bool" },
            ],
            "row_count": 3,
            "rows": [[email("ada"), 1, true], [email("bob"), 2, true], [email("cyd"), 3, true]],
            "truncated": false,
        })
    );
    let two = sql(json!({ "query": query, "limit": 2 })).data();
    assert_eq!((&two["row_count"], &two["truncated"]), (&json!(2), &json!(true)));
    let lines = sql(json!({ "query": query, "format": "ndjson", "limit": 2 }));
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> = lines.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[1], json!({ "email": email("bob"), "spent": 2, "member": true }));
    assert_eq!(lines.len(), 2);
    let csv = sql(json!({ "query": query, "format": "csv" }));
    assert_eq!(csv.text.lines().next(), Some("email,spent,member"));
    assert_eq!(csv.text.lines().count(), 4);
    let empty = sql(json!({ "query": "SELECT email FROM profiles WHERE email = 'x'", "format": "csv" }));
    assert_eq!(empty.text, "email\n");
    for statement in
        ["DROP TABLE profiles", "CREATE TABLE t AS SELECT 1", "SET a.b = 1", "COPY profiles TO '/tmp/x.csv'"]
    {
        let refused = sql(json!({ "query": statement }));
        assert_eq!(refused.error(400), "not-a-query", "{statement}");
    }
    let wrong = sql(json!({ "query": "SELECT cc_people_citi FROM profiles" }));
    assert_eq!(wrong.error(422), "query");
    assert!(wrong.text.contains("cc_people_city"), "{}", wrong.text);
    assert!(sql(json!({ "query": "SELECT * FROM '/etc/passwd'" })).status >= 400);
    assert_eq!(sql(json!({ "query": "SELECT 1", "rows": 1 })).status, 400);
    let then = sql(json!({ "query": "SELECT count(*) FROM profiles", "as_of": "2020-01-01" })).data();
    assert_eq!(then["rows"], json!([[0]]));
}

#[test]
fn the_members_of_a_model_come_page_by_page() {
    let project = three_people();
    let service = Service::start(&project);
    let (mut members, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("/v2/datamodel/people/members?limit=2{cursor}"));
        members.extend(
            page.data().as_array().unwrap().iter().map(|member| member["identity"].as_str().unwrap().to_string()),
        );
        let Some(next) = page.json()["_meta"]["next_cursor"].as_str().map(|next| format!("&cursor={next}")) else {
            break;
        };
        cursor = next;
    }
    members.sort();
    assert_eq!(members, [email("ada"), email("bob"), email("cyd")]);
    assert_eq!(service.get("/v2/datamodel/poeple/members").error(404), "not-found");
}

#[test]
fn the_log_of_changes_goes_on_where_its_last_page_ended() {
    let project = three_people();
    project.model("cities", &PEOPLE.replace("People", "Cities"), "SELECT * FROM people WHERE spent > 1");
    project.cc(&["run", "cities"]).ok();
    let service = Service::start(&project);
    let page = |query: &str| {
        let reply = service.get(&format!("/v2/changes?{query}"));
        (reply.data(), reply.json()["_meta"]["next_cursor"].as_str().unwrap().to_string())
    };
    // page by page, each change once
    let pages = |filter: &str, limit: usize| {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let at = if cursor.is_empty() { String::new() } else { format!("&cursor={cursor}") };
            let (data, next) = page(&format!("limit={limit}{filter}{at}"));
            all.extend(data["changes"].as_array().unwrap().iter().cloned());
            cursor = next;
            if data["more"] == false {
                return (all, cursor);
            }
        }
    };
    let (all, end) = pages("", 100);
    assert_eq!(all.len(), 5);
    assert!(all[..3].iter().all(|change| change["model"] == "people" && change["change"] == "entered"));
    assert_eq!(all[3]["model"], "cities");
    let ada = all.iter().find(|change| change["identity"] == email("ada").as_str()).unwrap();
    assert_eq!((&ada["before"], &ada["after"]), (&Value::Null, &json!({ "city": "Berlin", "spent": 1 })));
    for limit in [1, 2, 3] {
        assert_eq!(pages("", limit), (all.clone(), end.clone()), "pages of {limit}");
    }
    assert_eq!(pages("&model=cities", 1).0, all[3..]);
    assert!(pages("&change=exited", 1).0.is_empty());
    // nothing new, and the cursor stays good; what comes is found, by either cursor
    let (nothing, same) = page(&format!("cursor={end}"));
    assert_eq!((nothing["changes"].as_array().unwrap().len(), same), (0, end.clone()));
    let (_, latest) = page("cursor=latest");
    project.rows("people", &[person("ada", "Oslo", 1), person("bob", "Köln", 2)]);
    project.cc(&["run", "people"]).ok();
    for cursor in [end, latest] {
        let (data, _) = page(&format!("cursor={cursor}"));
        let mut kinds: Vec<_> =
            data["changes"].as_array().unwrap().iter().map(|change| change["change"].as_str().unwrap()).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["changed", "exited"]);
    }
    assert_eq!(pages("&change=changed", 1).0[0]["before"], json!({ "city": "Berlin" }));
    for bad in ["cursor=x", "cursor=1-2", "cursor=-1-0-0", "cursor=9999-0-0"] {
        assert_eq!(service.get(&format!("/v2/changes?{bad}")).error(400), "invalid-cursor", "{bad}");
    }
    assert_eq!(service.get("/v2/changes?change=gone").error(400), "unknown-change");
}
