//! Serving files held against the readings that do without them, over the life of a project.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::SystemClock;
use crate::memory::MIN_MEMORY_LIMIT;
use crate::sync::Silent;
use crate::sync::report::RunStatus;

/// A project with two models over one table of people, and rows of every type.
fn project(root: &Path) {
    for folder in ["data", "models"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    let top = "profile:\n  identities:\n    - user_id\n    - field: email\n      normalize: [trim, lowercase]\n\
               connections:\n  files: { type: local, path: data }\n";
    std::fs::write(root.join("cloud-connect.yml"), top).unwrap();
    let model = |slug: &str, yml: &str, sql: &str| {
        std::fs::write(root.join(format!("models/{slug}.yml")), yml).unwrap();
        std::fs::write(root.join(format!("models/{slug}.sql")), sql).unwrap();
    };
    model(
        "everything",
        "name: E\nconnection: files\nprimary_key: email\nexternal_key: email\nidentities: [user_id]\n\
         activated_fields: [note, n, share, price, exact, ok, seen, born, tags, extra]\n\
         columns: { price: { type: \"decimal(12,2)\" }, exact: { type: \"decimal(30,9)\" }, seen: { type: timestamp }, born: { type: date }, extra: { type: json } }\n\
         guard: { max_removed: 1000000 }\n",
        "SELECT email, user_id, note, n, share, price, exact, ok, seen, born, tags, extra FROM people",
    );
    model(
        "some",
        "name: S\nconnection: files\nprimary_key: user_id\nexternal_key: user_id\nactivated_fields: [n]\n\
         create_profiles: false\nguard: { max_removed: 1000000 }\n",
        "SELECT user_id, n FROM people WHERE n % 3 = 0 AND user_id IS NOT NULL",
    );
}

fn write_people(root: &Path, count: usize, step: i64) {
    let notes = ["plain", "qu\"ote \\ back\nslash", "Übergröße 🚲", "", "\u{0}\u{7f}\u{2028}"];
    let person = |n: usize| {
        let number = n as i64 + step * (n as i64 % 2);
        let row = json!({
            "email": format!(" P{n}@Example.com"),
            "user_id": (!n.is_multiple_of(4)).then(|| format!("u{n}")),
            "note": (!n.is_multiple_of(7)).then(|| notes[n % notes.len()]),
            "n": number,
            "share": number as f64 / 7.0,
            "price": format!("{number}.50"),
            "exact": format!("{number}.000000001"),
            "ok": n.is_multiple_of(2),
            "seen": format!("2026-01-31T12:00:{:02}.25Z", n % 60),
            "born": "1999-12-31",
            "tags": ["a", notes[n % notes.len()]],
            "extra": json!({ "k": notes[n % notes.len()], "n": [number, 1.5, null] }).to_string(),
        });
        format!("{row}\n")
    };
    let text: String = (0..count).map(person).collect();
    std::fs::write(root.join("data/people.ndjson"), text).unwrap();
}

async fn open_engine(root: &Path) -> Arc<Engine> {
    let config = crate::config::load(root, crate::warehouse::registry()).unwrap();
    Arc::new(Engine::open(config, MIN_MEMORY_LIMIT, Arc::new(SystemClock)).await.unwrap())
}

fn service(engine: &Arc<Engine>) -> Arc<ProfileService> {
    let engine = engine.clone();
    Arc::new(ProfileService::new(Box::new(move || engine.clone())))
}

async fn run(engine: &Engine, slug: &str) {
    let report = engine.run(slug, &Silent, &CancellationToken::new()).await;
    assert!(matches!(report.status, RunStatus::Published | RunStatus::Unchanged), "{report:?}");
}

/// Every lookup in the view answers as the reader does.
async fn agrees(service: &ProfileService, people: usize) {
    let reader = service.reader(None).await.unwrap();
    let current = service.view().unwrap();
    for n in 0..people + 2 {
        for (field, value) in [("email", format!("p{n}@example.com")), ("user_id", format!("u{n}"))] {
            let expected = reader.lookup(field, &value).await.unwrap();
            let found = current.made.by_identity(field, &value).unwrap();
            assert_eq!(serde_json::to_string(&found).unwrap(), serde_json::to_string(&expected).unwrap());
            assert_eq!(found, expected);
            assert_eq!(found.is_some(), n < people && (field == "email" || n % 4 != 0), "{field} {value}");
        }
    }
}

fn serving_files(engine: &Engine) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(engine.serving_folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_answered_as_without_serving_files_after_each_run() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path());
    write_people(dir.path(), 50, 0);
    let engine = open_engine(dir.path()).await;
    let service = service(&engine);
    assert_eq!(service.warm().await.unwrap(), 0, "nothing was published");
    assert!(service.lookup("email", "p1@example.com").await.unwrap().is_none());
    run(&engine, "everything").await;
    service.warm().await.unwrap();
    agrees(&service, 50).await;
    run(&engine, "some").await;
    service.warm().await.unwrap();
    agrees(&service, 50).await;
    let profile = service.lookup("email", " P3@EXAMPLE.com ").await.unwrap().unwrap();
    assert_eq!(profile.memberships.len(), 2);
    assert_eq!(profile.attributes["cc_everything_price"], json!(3.5));
    // changed, added and, last, removed rows; what is not needed any more goes
    for (people, step) in [(50, 3), (80, 5), (20, 6)] {
        write_people(dir.path(), people, step);
        run(&engine, "everything").await;
        run(&engine, "some").await;
        let before = serving_files(&engine);
        service.warm().await.unwrap();
        let known: Vec<_> = service.view().unwrap().made.paths().collect();
        let after = serving_files(&engine);
        assert!(after.iter().all(|path| known.contains(path)) && after.len() == known.len());
        assert!(before.iter().any(|path| !after.contains(path)), "files of rewritten data files are removed");
        let reader = service.reader(None).await.unwrap();
        for n in 0..85 {
            let email = format!("p{n}@example.com");
            let found = service.lookup("email", &email).await.unwrap();
            assert_eq!(found, reader.lookup("email", &email).await.unwrap());
        }
    }
    let error = service.lookup("e_mail", "x").await.unwrap_err();
    assert!(error.hint().unwrap().contains("did you mean `email`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_changed_is_not_written_again_and_what_is_torn_is() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path());
    write_people(dir.path(), 30, 0);
    let engine = open_engine(dir.path()).await;
    run(&engine, "everything").await;
    let first = service(&engine);
    first.warm().await.unwrap();
    let files = serving_files(&engine);
    let written = |files: &[std::path::PathBuf]| -> Vec<_> {
        files.iter().map(|path| path.metadata().unwrap().modified().unwrap()).collect()
    };
    let times = written(&files);
    // a new process, and then a run of another model
    let second = service(&engine);
    second.warm().await.unwrap();
    assert_eq!(written(&files), times);
    run(&engine, "some").await;
    second.warm().await.unwrap();
    assert!(serving_files(&engine).len() > files.len());
    assert_eq!(written(&files), times);
    // torn in the directory, cut short, emptied
    for length in [0, 30, files[0].metadata().unwrap().len() as usize - 1] {
        let whole = std::fs::read(&files[0]).unwrap();
        std::fs::write(&files[0], &whole[..length]).unwrap();
        let third = service(&engine);
        third.warm().await.unwrap();
        agrees(&third, 30).await;
        assert_eq!(std::fs::read(&files[0]).unwrap(), whole, "written anew, and the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_is_seen_by_itself_and_a_lookup_never_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path());
    write_people(dir.path(), 10, 0);
    let engine = open_engine(dir.path()).await;
    let service = service(&engine);
    let stop = CancellationToken::new();
    let fresh = tokio::spawn({
        let (service, stop) = (service.clone(), stop.clone());
        async move { service.keep_fresh(stop).await }
    });
    run(&engine, "everything").await;
    // nobody has asked yet: nothing is prepared
    tokio::time::sleep(POLL * 2).await;
    assert!(service.view().is_none() && !engine.serving_folder().exists());
    // before the first view, the answer comes from the store
    assert!(service.lookup("email", "p1@example.com").await.unwrap().is_some());
    let until = async |what: &str, done: &dyn Fn() -> bool| {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}");
    };
    until("the first view", &|| service.view().is_some()).await;
    write_people(dir.path(), 12, 0);
    run(&engine, "everything").await;
    let has = || service.view().is_some_and(|v| v.made.by_identity("email", "p11@example.com").unwrap().is_some());
    until("the new profile", &has).await;
    stop.cancel();
    fresh.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_runs_leave_few_serving_files() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path());
    write_people(dir.path(), 1, 0);
    let engine = open_engine(dir.path()).await;
    let service = service(&engine);
    let (mut most, mut people) = (0, 1);
    for _ in 0..12 {
        people += 2;
        write_people(dir.path(), people, 0);
        run(&engine, "everything").await;
        service.warm().await.unwrap();
        let current = service.view().unwrap();
        most = most.max(current.made.identities.len());
    }
    agrees(&service, people).await;
    // each run added at least one data file of identities
    assert!((2..=9).contains(&most), "{most} serving files of identities at once");
}
