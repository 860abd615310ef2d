//! Uploads and collected events on real projects: what they add, held against the rules worked out row by row.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use futures::TryStreamExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::clock::SystemClock;
use crate::diff::row_hash::key_hash;
use crate::identity::founded_profile;
use crate::profiles::ProfileReader;
use crate::store::{Store, TableId};
use crate::sync::Silent;
use crate::sync::report::RunStatus;
use crate::values::ValueType;
use crate::values::json::cell_to_json;

struct World {
    dir: tempfile::TempDir,
    engine: Arc<Engine>,
    uploads: Uploads,
}

const PROJECT: &str = "profile:
  identities:
    - { field: email, normalize: [trim, lowercase] }
    - { field: user_id, normalize: [trim] }
connections:
  files: { type: local, path: data }
  streams: { type: local, path: .cloud-connect/streams }
";

async fn opened(root: &Path) -> Arc<Engine> {
    let config = crate::config::load(root, crate::warehouse::registry()).unwrap();
    let engine = Engine::open(config, crate::memory::MIN_MEMORY_LIMIT, Arc::new(SystemClock)).await.unwrap();
    engine.recover().await.unwrap();
    Arc::new(engine)
}

fn uploads_of(engine: &Arc<Engine>) -> Uploads {
    let engine = Arc::clone(engine);
    Uploads::open(Arc::new(move || Arc::clone(&engine)), UploadOptions::default())
}

fn model(root: &Path, slug: &str, yml: &str, sql: &str) {
    std::fs::write(root.join(format!("models/{slug}.yml")), format!("name: {slug}\n{yml}")).unwrap();
    std::fs::write(root.join(format!("models/{slug}.sql")), sql).unwrap();
}

async fn world_with(files: impl FnOnce(&Path)) -> World {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["data", "models"] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    std::fs::write(dir.path().join("cloud-connect.yml"), PROJECT).unwrap();
    files(dir.path());
    let engine = opened(dir.path()).await;
    World { uploads: uploads_of(&engine), engine, dir }
}

async fn world() -> World {
    world_with(|_| {}).await
}

fn request(format: Format) -> UploadRequest {
    UploadRequest { stream: "crm".into(), format, encoding: Encoding::Identity, key: None, actor: "token:test".into() }
}

fn body(bytes: impl AsRef<[u8]>) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    let chunks: Vec<_> = bytes.as_ref().chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    futures::stream::iter(chunks)
}

fn ndjson(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

impl World {
    async fn upload(&self, rows: &[Value]) -> UploadReport {
        self.uploads.upload(request(Format::Ndjson), body(ndjson(rows))).await.unwrap().report
    }

    async fn sql(&self, query: &str) -> Vec<Value> {
        let cut = self.engine.catalog.cut(None).await.unwrap();
        let shapes = self.engine.shapes(&cut, false).await.unwrap();
        let fields: Vec<String> = self.engine.project.identities.iter().map(|field| field.field.clone()).collect();
        let reader = ProfileReader::open(&self.engine.store, &cut, &shapes, &fields, 256 << 20).await.unwrap();
        let batches: Vec<RecordBatch> = reader.sql(query).await.unwrap().try_collect().await.unwrap();
        json_rows(&batches)
    }

    /// Field and value -> profile.
    async fn owners(&self) -> BTreeMap<(String, String), String> {
        let rows = self.sql("SELECT field, value, profile_id FROM identities").await;
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_string();
        let owners: BTreeMap<_, _> =
            rows.iter().map(|row| ((text(row, "field"), text(row, "value")), text(row, "profile_id"))).collect();
        assert_eq!(owners.len(), rows.len(), "a value has two owners: {rows:?}");
        owners
    }

    /// The rows of the stream's table, without the service's columns, in their order.
    async fn rows(&self, stream: &str) -> Vec<Value> {
        let query = format!("SELECT * FROM {stream} ORDER BY _cc_received_at, _cc_line");
        let warehouse = self.engine.project.open_connection("streams", 64 << 20).unwrap();
        let running = warehouse.query(&query, &crate::warehouse::QueryOptions::default()).await.unwrap();
        let mut rows = json_rows(&running.stream.try_collect::<Vec<_>>().await.unwrap());
        for row in &mut rows {
            row.as_object_mut().unwrap().retain(|name, value| !name.starts_with("_cc_") && !value.is_null());
        }
        rows
    }

    async fn run(&self, model: &str) -> crate::sync::report::RunReport {
        let report = self.engine.run(model, &Silent, &CancellationToken::new()).await;
        assert_eq!(report.error, None);
        report
    }
}

fn json_rows(batches: &[RecordBatch]) -> Vec<Value> {
    let mut rows = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let cells = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
                let value_type = ValueType::of(field).unwrap();
                let column = crate::values::convert::to_stored(column, value_type).unwrap();
                (field.name().clone(), cell_to_json(column.as_ref(), row, value_type))
            });
            rows.push(Value::Object(cells.collect()));
        }
    }
    rows
}

#[tokio::test]
async fn every_format_adds_the_same() {
    let email: ArrayRef = Arc::new(StringArray::from(vec![Some(" Ada@Example.com"), None, Some("bo@example.com")]));
    let user_id: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), Some(8), None]));
    let plan: ArrayRef = Arc::new(StringArray::from(vec![Some("pro, \"yearly\""), None, Some("free")]));
    let batch = RecordBatch::try_from_iter([("email", email), ("user_id", user_id), ("plan", plan)]).unwrap();
    let mut parquet = Vec::new();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let lines = "{\"email\":\" Ada@Example.com\",\"user_id\":7,\"plan\":\"pro, \\\"yearly\\\"\"}\n\n\
                 {\"user_id\":8}\r\n{\"plan\":\"free\",\"email\":\"bo@example.com\",\"user_id\":null}";
    let csv = "email,user_id,plan\r\n Ada@Example.com,7,\"pro, \"\"yearly\"\"\"\r\n,8,\nbo@example.com,,free\n";
    let mut found = Vec::new();
    for (format, bytes) in
        [(Format::Ndjson, lines.as_bytes()), (Format::Csv, csv.as_bytes()), (Format::Parquet, parquet.as_slice())]
    {
        let world = world().await;
        let done = world.uploads.upload(request(format), body(bytes)).await.unwrap();
        assert!(!done.replayed);
        let report = done.report;
        assert_eq!(
            (report.rows, report.quarantined, report.profiles_created, report.identities_linked),
            (3, 0, 3, 1),
            "{format:?}: {report:?}"
        );
        assert_eq!(report.status, UploadStatus::Published);
        let recorded = world.engine.catalog.upload(&report.id).await.unwrap();
        assert_eq!(recorded.as_ref(), Some(&report));
        found.push((world.owners().await, world.rows("crm").await));
    }
    let ada = founded_profile("email", "ada@example.com").to_string();
    assert_eq!(found[0].0[&("email".into(), "ada@example.com".into())], ada);
    assert_eq!(found[0].0[&("user_id".into(), "7".into())], ada);
    assert_eq!(found[0].1[0], json!({ "email": " Ada@Example.com", "user_id": "7", "plan": "pro, \"yearly\"" }));
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], found[2]);
}

#[tokio::test]
async fn a_body_that_is_sent_again_adds_nothing_again() {
    let world = world().await;
    let rows = ndjson(&[json!({ "email": "ada@example.com", "n": 1 }), json!({ "email": "bo@example.com" })]);
    let keyed = |key: &str| UploadRequest { key: Some(key.into()), ..request(Format::Ndjson) };
    let first = world.uploads.upload(keyed("k1"), body(&rows)).await.unwrap();
    let again = world.uploads.upload(keyed("k1"), body(&rows)).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(first.report, again.report);
    let error = world.uploads.upload(keyed("k1"), body("{\"email\":\"other@example.com\"}\n")).await.unwrap_err();
    assert!(matches!(error, UploadError::KeyReused), "{error}");
    // without a key the content stands for it; another stream is another matter
    let bare = world.uploads.upload(request(Format::Ndjson), body(&rows)).await.unwrap();
    assert!(!bare.replayed && bare.report.profiles_created == 0 && bare.report.profiles_matched == 2);
    assert!(world.uploads.upload(request(Format::Ndjson), body(&rows)).await.unwrap().replayed);
    let other = UploadRequest { stream: "shop".into(), ..keyed("k1") };
    assert!(!world.uploads.upload(other, body(&rows)).await.unwrap().replayed);
    // two at once: one works, the other gets its answer
    let (a, b) = tokio::join!(
        world.uploads.upload(keyed("k2"), body("{\"email\":\"cy@example.com\"}\n")),
        world.uploads.upload(keyed("k2"), body("{\"email\":\"cy@example.com\"}\n"))
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.report.id, a.replayed != b.replayed), (b.report.id, true));
    assert_eq!(world.rows("crm").await.len(), 2 + 2 + 1);
    assert_eq!(world.engine.catalog.uploads(Some("crm"), None, 10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn bad_rows_are_set_aside_with_their_lines_and_good_ones_pass() {
    let world = world().await;
    let long = "x".repeat(2 << 20);
    let text = format!(
        "{{\"email\":\"ada@example.com\",\"plan\":\"pro\"}}\n{{\"email\":\n{{\"plan\":\"free\"}}\n{{\"email\":\"  \"}}\n\
         {{\"email\":{{\"a\":1}}}}\n{{\"email\":\"b@example.com\",\"a b\":1}}\n{{\"email\":\"c@example.com\",\"PLAN\":1}}\n\
         {{\"email\":\"{long}\"}}\n{{\"email\":\"last@example.com\"}}"
    );
    let report = world.uploads.upload(request(Format::Ndjson), body(text)).await.unwrap().report;
    let faults: BTreeSet<(u64, Fault)> = report.quarantine.samples.iter().map(|row| (row.line, row.fault)).collect();
    let expected = [
        (2, Fault::Unreadable),
        (3, Fault::NoIdentity),
        (4, Fault::NoIdentity),
        (5, Fault::BadIdentity),
        (6, Fault::BadColumn),
        (7, Fault::BadColumn),
        (8, Fault::Unreadable),
    ];
    assert_eq!(faults, expected.into_iter().collect(), "{:?}", report.quarantine);
    assert_eq!((report.rows, report.quarantined, report.profiles_created), (9, 7, 2));
    // nothing but bad rows: nothing is written, and that is said
    let report = world.upload(&[json!({ "email": "", "n": 1 })]).await;
    assert_eq!((report.status, report.quarantined), (UploadStatus::Unchanged, 1));
}

#[tokio::test]
async fn what_cannot_be_read_at_all_is_refused_with_its_place() {
    let world = world().await;
    let refused = async |format: Format, text: &str| {
        world.uploads.upload(request(format), body(text)).await.unwrap_err().to_string()
    };
    assert_eq!(refused(Format::Ndjson, "").await, "the body is empty");
    let broken = refused(Format::Ndjson, "\n{\"email\" 1}\n").await;
    assert!(broken.starts_with("the body cannot be read as NDJSON: line 2, column 10"), "{broken}");
    assert!(refused(Format::Parquet, "email\n").await.contains("Parquet"));
    assert!(refused(Format::Csv, "email,a b\n").await.contains("`a b`"));
    assert!(refused(Format::Csv, "plan,city\n1,2\n").await.starts_with("no column is an identity field"));
    let small = UploadOptions { max_bytes: 10, ..UploadOptions::default() };
    let engine = Arc::clone(&world.engine);
    let uploads = Uploads::open(Arc::new(move || Arc::clone(&engine)), small);
    let error = uploads.upload(request(Format::Csv), body("email\nada@example.com\n")).await.unwrap_err();
    assert!(matches!(error, UploadError::TooLarge { limit: 10 }), "{error}");
    let error = uploads.upload(UploadRequest { stream: "../x".into(), ..request(Format::Csv) }, body("e")).await;
    assert!(matches!(error, Err(UploadError::StreamName(_))));
    assert_eq!(world.engine.catalog.uploads(None, None, 10).await.unwrap(), [], "nothing began");
    let spilled = std::fs::read_dir(world.engine.spill_folder()).unwrap().count();
    assert_eq!(spilled, 0, "bodies are left behind");
}

const WAITING: &str = "connection: files\nprimary_key: email\nexternal_key: email\nactivated_fields: [score]\ncreate_profiles: false\nidentities: [user_id]\n";

#[tokio::test]
async fn rows_that_waited_enter_and_later_ones_attach() {
    let world = world_with(|root| {
        let row = |email: &str, id: &str| json!({ "email": email, "score": 1, "user_id": id });
        let rows = [row("ada@example.com", "u1"), row("bo@example.com", "u2"), row("cy@example.com", "u3")];
        std::fs::write(root.join("data/people.ndjson"), ndjson(&rows)).unwrap();
        model(root, "scores", WAITING, "SELECT email, score, user_id FROM people");
        model(root, "later", WAITING, "SELECT email, score, user_id FROM people");
    })
    .await;
    assert_eq!(world.run("scores").await.waiting, 3);
    let report = world.upload(&[json!({ "email": "Ada@example.com" }), json!({ "email": "bo@example.com" })]).await;
    assert_eq!((report.profiles_created, report.entered, report.identities_linked), (2, 2, 2), "{report:?}");
    let query = "SELECT email, user_id, cc_scores_score, cc_scores_membership FROM profiles ORDER BY email";
    let row = |email: &str, id: &str| json!({ "email": email, "user_id": id, "cc_scores_score": 1, "cc_scores_membership": true });
    assert_eq!(world.sql(query).await, [row("ada@example.com", "u1"), row("bo@example.com", "u2")]);
    let changes = world.sql("SELECT run_id, model, change, identity FROM changes ORDER BY identity").await;
    let entered = json!({ "run_id": report.id, "model": "scores", "change": "entered", "identity": "ada@example.com" });
    assert_eq!((changes.len(), &changes[0]), (2, &entered));
    // a model that comes later finds the uploaded profiles
    let later = world.run("later").await;
    assert_eq!((later.profiles_matched, later.waiting, later.entered), (2, 1, 2));
    assert_eq!(world.run("scores").await.status, RunStatus::Unchanged);
}

#[tokio::test]
async fn what_else_a_row_holds_becomes_attributes_through_a_model_of_the_stream() {
    let world = world_with(|root| {
        let yml = "connection: streams\nprimary_key: email\nexternal_key: email\nactivated_fields: [plan, seats]\n\
                   columns: { seats: { type: int } }\n";
        let sql = "SELECT email, plan, seats FROM (SELECT *, row_number() OVER (PARTITION BY lower(trim(email))\n\
                   ORDER BY _cc_received_at DESC, _cc_line DESC) AS newest FROM crm) AS rows WHERE newest = 1 AND email IS NOT NULL";
        model(root, "crm_people", yml, sql);
    })
    .await;
    world
        .upload(&[json!({ "email": "ada@example.com", "plan": "free" }), json!({ "user_id": "u9", "plan": "pro" })])
        .await;
    // a column that the stream did not have before
    world
        .upload(&[
            json!({ "email": "ADA@example.com", "seats": 12, "plan": "pro" }),
            json!({ "email": "bo@example.com", "seats": "many" }),
        ])
        .await;
    assert_eq!(world.rows("crm").await.len(), 4);
    let report = world.run("crm_people").await;
    assert_eq!((report.added, report.quarantined, report.profiles_matched), (1, 1, 1), "{report:?}");
    let query = "SELECT email, cc_crm_people_plan AS plan, cc_crm_people_seats AS seats FROM profiles WHERE cc_crm_people_membership";
    assert_eq!(world.sql(query).await, [json!({ "email": "ada@example.com", "plan": "pro", "seats": 12 })]);
}

#[tokio::test]
async fn many_small_uploads_leave_few_files() {
    let world = world().await;
    for i in 0..20 {
        world.upload(&[json!({ "email": format!("p{i}@example.com"), format!("c{}", i % 3): i })]).await;
    }
    let id = TableId::Stream("crm".into());
    let table = world.engine.store.table(&id, None).await.unwrap().unwrap();
    assert!(Store::files(&id, &table).unwrap().len() < 16);
    let rows = world.rows("crm").await;
    let expected: Vec<Value> = (0..20)
        .map(|i| json!({ "email": format!("p{i}@example.com"), format!("c{}", i % 3): i.to_string() }))
        .collect();
    assert_eq!(rows, expected);
    assert_eq!(world.owners().await.len(), 20);
}

#[tokio::test]
async fn a_changed_normalization_is_refused_in_both_directions() {
    let world = world_with(|root| {
        std::fs::write(root.join("data/people.ndjson"), "{\"email\":\"a@example.com\",\"score\":1}\n").unwrap();
        let yml = "connection: files\nprimary_key: email\nexternal_key: email\nactivated_fields: [score]\n";
        model(root, "scores", yml, "SELECT email, score FROM people");
    })
    .await;
    world.upload(&[json!({ "email": "ada@example.com" })]).await;
    let changed = PROJECT.replace("[trim, lowercase]", "[trim]");
    std::fs::write(world.dir.path().join("cloud-connect.yml"), changed).unwrap();
    let engine = opened(world.dir.path()).await;
    let error = engine.run("scores", &Silent, &CancellationToken::new()).await.error.unwrap();
    assert!(error.contains("`normalize:` of identity field `email` changed"), "{error}");
    let rows = body("{\"email\":\"x@example.com\"}\n");
    let error = uploads_of(&engine).upload(request(Format::Ndjson), rows).await.unwrap_err().to_string();
    assert!(error.contains("`normalize:` of identity field `email` changed"), "{error}");
}

#[tokio::test]
async fn collected_events_outlive_the_process_and_are_written_together() {
    let world = world().await;
    let collected = world
        .uploads
        .collect(
            "events",
            b"[{\"email\":\"ada@example.com\",\n\"what\":\"seen\"},{\"what\":\"seen\"},{\"user_id\":true}]",
        )
        .await
        .unwrap();
    assert_eq!((collected.accepted, collected.refused.len()), (1, 2));
    assert_eq!((collected.refused[0].index, collected.refused[1].index), (1, 2));
    for i in 0..30 {
        world.uploads.collect("events", format!("{{\"user_id\":{i},\"what\":\"bought\"}}").as_bytes()).await.unwrap();
    }
    world.uploads.collect("other", b"{\"email\":\"bo@example.com\"}").await.unwrap();
    assert_eq!(world.engine.catalog.uploads(None, None, 10).await.unwrap(), [], "nothing is written yet");
    world.uploads.shutdown().await;
    assert!(matches!(world.uploads.collect("events", b"{}").await, Err(UploadError::Closing)));

    let World { dir, engine, uploads } = world;
    drop((engine, uploads));
    let engine = opened(dir.path()).await;
    let world = World { uploads: uploads_of(&engine), engine, dir };
    world.uploads.flush().await.unwrap();
    world.uploads.flush().await.unwrap();
    let reports = world.engine.catalog.uploads(None, None, 10).await.unwrap();
    assert_eq!(reports.len(), 2, "one a stream: {reports:?}");
    assert!(reports.iter().all(|report| report.source == Source::Collect && report.status == UploadStatus::Published));
    assert_eq!(world.rows("events").await.len(), 31);
    assert_eq!(world.owners().await.len(), 32);
    assert_eq!(world.engine.catalog.journalled_streams().await.unwrap(), []);

    let unreadable = world.uploads.collect("events", b"[{\"email\":\"a\"},\n{]").await.unwrap_err().to_string();
    assert!(unreadable.starts_with("the body cannot be read as JSON: line 2, column 2"), "{unreadable}");
    let many = ndjson(&vec![json!({ "email": "a" }); 1001]);
    assert!(matches!(
        world.uploads.collect("events", many.as_bytes()).await,
        Err(UploadError::TooManyRows { rows: 1001 })
    ));
}

#[tokio::test]
async fn the_flusher_writes_what_was_collected_without_being_asked() {
    let world = world().await;
    let options = UploadOptions { flush_every: Duration::from_millis(50), ..UploadOptions::default() };
    let engine = Arc::clone(&world.engine);
    let uploads = Uploads::open(Arc::new(move || Arc::clone(&engine)), options);
    uploads.start();
    uploads.collect("events", b"{\"email\":\"ada@example.com\"}").await.unwrap();
    let visible = async {
        while world.owners().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), visible).await.unwrap();
    uploads.shutdown().await;
}

/// Email and user id of a row.
type Person = (Option<u8>, Option<u8>);
type OwnersMap = BTreeMap<(usize, String), Uuid>;

/// What an upload of these people does, worked out by the rules: created, matched, linked, conflicts.
fn apply(owners: &mut OwnersMap, people: &[Person]) -> (u64, u64, u64, u64) {
    let names = ["email", "user_id"];
    let values = |(email, id): &Person| [email.map(|e| format!("p{e}@x")), id.map(|i| format!("u{i}"))];
    let (mut created, mut matched, mut linked, mut conflicts) = (0, 0, 0, 0);
    for (field, name) in names.iter().enumerate() {
        let firsts: Vec<[Option<String>; 2]> =
            people.iter().map(values).filter(|v| v.iter().position(Option::is_some) == Some(field)).collect();
        let keys: BTreeSet<String> = firsts.iter().flat_map(|values| values[field].clone()).collect();
        for key in keys {
            match owners.entry((field, key.clone())) {
                std::collections::btree_map::Entry::Occupied(_) => matched += 1,
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(founded_profile(name, &key));
                    created += 1;
                }
            }
        }
        let mut claims: Vec<(u128, Uuid, usize, String)> = Vec::new();
        for row in &firsts {
            let profile = owners[&(field, row[field].clone().unwrap())];
            for (further, value) in row.iter().enumerate().filter(|(further, _)| *further != field) {
                claims.extend(value.iter().map(|value| (key_hash(value), profile, further, value.clone())));
            }
        }
        claims.sort();
        for (_, profile, further, value) in claims {
            match owners.entry((further, value)) {
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(profile);
                    linked += 1;
                }
                std::collections::btree_map::Entry::Occupied(owner) => conflicts += u64::from(*owner.get() != profile),
            }
        }
    }
    (created, matched, linked, conflicts)
}

async fn check(uploads: Vec<Vec<Person>>) {
    let world = world().await;
    let mut owners = OwnersMap::new();
    for (number, people) in uploads.iter().enumerate() {
        let rows: Vec<Value> = people
            .iter()
            .map(|(email, id)| {
                json!({ "email": email.map(|e| format!(" P{e}@x")), "user_id": id.map(|i| format!("u{i}")), "n": number })
            })
            .collect();
        let report = world.upload(&rows).await;
        let expected = apply(&mut owners, people);
        let found =
            (report.profiles_created, report.profiles_matched, report.identities_linked, report.identity_conflicts);
        assert_eq!(found, expected, "{people:?}");
        let nobody = people.iter().filter(|(email, id)| email.is_none() && id.is_none()).count() as u64;
        assert_eq!((report.rows, report.quarantined), (people.len() as u64, nobody));
    }
    let expected: BTreeMap<(String, String), String> = owners
        .into_iter()
        .map(|((field, value), id)| ((["email", "user_id"][field].to_string(), value), id.to_string()))
        .collect();
    assert_eq!(world.owners().await, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn profiles_are_found_and_founded_by_the_rules_and_never_merged(
        uploads in proptest::collection::vec(
            proptest::collection::vec((proptest::option::of(0u8..12), proptest::option::of(0u8..12)), 1..24), 1..4)
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(Box::pin(check(uploads)));
    }
}
