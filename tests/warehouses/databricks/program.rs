//! A model through the whole program, while things go wrong.

use std::time::{Duration, Instant};

use super::*;
use crate::project::{PEOPLE, Project, Ran, counts};

fn scripted_project(lake: &Scripted, sql: &str) -> Project {
    let project = Project::new();
    project.write(
        "cloud-connect.yml",
        &format!(
            "profile:\n  identities:\n    - field: email\nconnections:\n  lake: {{ type: databricks, host: 'http://{}', \
             http_path: /sql/1.0/warehouses/{WAREHOUSE_ID}, client_id: {CLIENT_ID}, client_secret: '${{env:LAKE_SECRET}}' }}\n",
            lake.fake.address
        ),
    );
    project.model("people", &PEOPLE.replace("files", "lake"), sql);
    project
}

fn person_columns() -> Vec<Column> {
    let emails: Make = Arc::new(|r: Range<u64>| {
        Arc::new(r.map(|i| Some(format!("p{i}@example.com"))).collect::<StringArray>()) as ArrayRef
    });
    let cities: Make = Arc::new(|r: Range<u64>| Arc::new(r.map(|_| Some("here")).collect::<StringArray>()) as ArrayRef);
    // as texts, one of which is no decimal(10,2)
    let spent: Make = Arc::new(|r: Range<u64>| {
        Arc::new(r.map(|i| Some(if i == 7 { "1.005".into() } else { format!("{i}.25") })).collect::<StringArray>())
            as ArrayRef
    });
    vec![column("email", "string", emails), column("city", "string", cities), column("spent", "decimal(10,2)", spent)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupting_a_run_cancels_the_query_in_databricks() {
    let lake = Scripted::start().await;
    lake.fake.script("endless", Script::Endless(table(person_columns(), 10)));
    let project = scripted_project(&lake, "SELECT * FROM endless");
    let mut command = project.command(&["run", "--output", "json"]);
    command.env("LAKE_SECRET", CLIENT_SECRET).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !lake.fake.runs() {
        assert!(Instant::now() < end, "the query does not run");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let interrupted = std::process::Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(interrupted.success());
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(1));
    assert!(!lake.fake.runs(), "it still runs");
    assert_eq!(lake.fake.shared.counts.cancels.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_on_databricks_survives_what_passes_and_sets_aside_what_does_not_fit() {
    let lake = Scripted::start().await;
    lake.fake.script("buyers", Script::Table(table(person_columns(), 50_000)));
    let project = scripted_project(&lake, "SELECT * FROM buyers");
    let faults = &lake.fake.shared.faults;
    // an expired link, a broken download, an ended token: none of which runs the query again
    faults.expired_links.store(1, Ordering::SeqCst);
    faults.broken_downloads.store(1, Ordering::SeqCst);
    faults.expire_tokens.store(1, Ordering::SeqCst);
    let run = |project: Project, args: &'static [&'static str]| {
        tokio::task::spawn_blocking(move || {
            let ran: Ran = project.command(args).env("LAKE_SECRET", CLIENT_SECRET).output().unwrap().into();
            (project, ran)
        })
    };
    let (project, ran) = run(project, &["run", "--output", "json"]).await.unwrap();
    let report = ran.json()[0].clone();
    assert_eq!(counts(&report, ["rows", "added", "quarantined", "retries"]), [50_000, 49_999, 1, 0], "{report}");
    assert!(report.to_string().contains("`1.005` is not a decimal(10,2)"), "{report}");
    assert_eq!(lake.queries(), 1);
    // a lost answer: the run's next try is a second query, and is counted
    faults.lost_answers.store(1, Ordering::SeqCst);
    let (project, ran) = run(project, &["run", "--output", "json"]).await.unwrap();
    let report = ran.json()[0].clone();
    assert_eq!(counts(&report, ["rows", "changed", "removed", "retries"]), [50_000, 0, 0, 1], "{report}");
    // the SQL's fault at its place, and no secret with it
    project.model("people", &PEOPLE.replace("files", "lake"), "SELECT email, city, spent\nFROM no_such_table");
    let (_, ran) = run(project, &["run"]).await.unwrap();
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("no_such_table") && ran.stdout.contains("42P01"), "{}", ran.stdout);
    let whole = format!("{ran:?}");
    assert!(lake.secrets().iter().all(|secret| !whole.contains(secret)), "{whole}");
}
