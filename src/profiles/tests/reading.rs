//! Everything that is read, held against [`World`]'s own reckoning.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::*;
use crate::profiles::serving::View;
use crate::profiles::{LookupOptions, ProfileReader, ProfilesError};
use crate::store::schema;
use crate::store::{Commit, Cut, Store, TableId};
use crate::values::ValueType;

const INDEXED: LookupOptions = LookupOptions { index: true, max_index_bytes: 1 << 20 };

fn identity(profile: usize, field: usize, value: &str, founder: bool, created_at: i64) -> Identity {
    Identity { profile, field, value: value.into(), founder, created_at }
}

fn row(key: &str, since: i64, score: i64) -> Row {
    Row { key: key.into(), since, score: Some(score), extra: Some(format!(r#"{{"n":{score}}}"#)) }
}

fn small() -> World {
    World {
        identities: vec![
            identity(0, 0, "u0", true, 10),
            identity(0, 1, "old@x", false, 20),
            identity(0, 1, "new@x", false, 30),
            identity(1, 1, "b@x", true, 5),
        ],
        models: vec![
            Model {
                slug: "buyers".into(),
                field: 1,
                rows: vec![row("new@x", 25, 1), row("b@x", 40, 2), row("waits@x", 1, 3)],
            },
            Model { slug: "users".into(), field: 0, rows: vec![row("u0", 4, 7), row("u9", 4, 9)] },
        ],
        sorted: false,
        rows_a_file: 3,
    }
}

async fn open(world: &World, store: &Store, cut: &Cut) -> ProfileReader {
    ProfileReader::open(store, cut, &world.shapes(), &fields(), MEMORY).await.unwrap()
}

#[tokio::test]
async fn a_membership_begins_when_row_and_identity_are_both_there() {
    let (_directory, store) = new_store();
    let world = small();
    let cut = world.write(&store).await;
    let reader = open(&world, &store, &cut).await;
    let query = "SELECT email, cc_buyers_since, cc_users_since, cc_users_membership FROM profiles ORDER BY email DESC";
    let since = |seconds: i64| crate::values::json::timestamp(time(seconds));
    assert_eq!(
        rows(&reader, query).await,
        [
            // the row was there at 25, the identity came at 30; the row came at 4, the identity at 10
            json!({"email": "new@x", "cc_buyers_since": since(30), "cc_users_since": since(10), "cc_users_membership": true}),
            json!({"email": "b@x", "cc_buyers_since": since(40), "cc_users_since": null, "cc_users_membership": false}),
        ]
    );
}

#[tokio::test]
async fn waiting_rows_belong_to_nobody() {
    let (_directory, store) = new_store();
    let world = small();
    let cut = world.write(&store).await;
    let reader = open(&world, &store, &cut).await;
    assert_eq!(rows(&reader, "SELECT count(*) AS n FROM memberships").await, [json!({"n": 3})]);
    assert_eq!(rows(&reader, "SELECT count(*) AS n FROM records_buyers").await, [json!({"n": 3})]);
    assert_eq!(rows(&reader, "SELECT count(*) AS n FROM profiles").await, [json!({"n": 2})]);
    assert_eq!(reader.lookup("email", "waits@x").await.unwrap(), None);
}

#[tokio::test]
async fn a_query_opens_only_the_models_that_it_names() {
    let (_directory, store) = new_store();
    let world = small();
    let cut = world.write(&store).await;
    let reader = open(&world, &store, &cut).await;
    let plan = async |query: &str| Value::from(rows(&reader, &format!("EXPLAIN {query}")).await).to_string();
    let one = plan("SELECT profile_id FROM profiles WHERE cc_buyers_score > 1").await;
    assert!(one.contains("records/buyers") && !one.contains("records/users"), "{one}");
    let filtered = plan("SELECT count(*) FROM memberships WHERE model = 'users'").await;
    assert!(filtered.contains("records/users") && !filtered.contains("records/buyers"), "{filtered}");
    let none = plan("SELECT email FROM profiles").await;
    assert!(!none.contains("records/"), "{none}");
    let inner = plan("SELECT count(*) FROM profiles WHERE cc_buyers_membership").await;
    assert!(inner.contains("join_type=Inner") && !inner.contains("join_type=Left"), "{inner}");
}

#[tokio::test]
async fn point_queries_find_by_any_identity() {
    let (_directory, store) = new_store();
    let world = small();
    let cut = world.write(&store).await;
    let reader = open(&world, &store, &cut).await;
    let whole = world.wide();
    let found = rows(&reader, "SELECT * FROM profiles WHERE email = 'new@x'").await;
    assert_eq!(found, [whole[&profile_id(0)].clone()]);
    let found =
        rows(&reader, "SELECT * FROM profiles WHERE email IN ('nobody@x', 'b@x') AND cc_buyers_membership").await;
    assert_eq!(found, [whole[&profile_id(1)].clone()]);
    let found = rows(&reader, &format!("SELECT * FROM profiles WHERE profile_id = '{}'", profile_id(0))).await;
    assert_eq!(found, [whole[&profile_id(0)].clone()]);
    // the view shows the newest value, and filters on what it shows
    assert!(rows(&reader, "SELECT * FROM profiles WHERE email = 'old@x'").await.is_empty());
    assert!(reader.lookup("email", "old@x").await.unwrap().is_some());
}

#[tokio::test]
async fn only_queries_are_allowed() {
    let (_directory, store) = new_store();
    let world = small();
    let cut = world.write(&store).await;
    let reader = open(&world, &store, &cut).await;
    for statement in [
        "DROP TABLE profiles",
        "CREATE TABLE t AS SELECT * FROM profiles",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "INSERT INTO changes SELECT * FROM changes",
        "DELETE FROM profiles",
        "SET datafusion.execution.batch_size = 1",
        "COPY profiles TO '/tmp/profiles.csv'",
        "EXPLAIN INSERT INTO changes SELECT * FROM changes",
        "EXPLAIN ANALYZE COPY profiles TO '/tmp/profiles.csv'",
        "SELECT * INTO t FROM profiles",
        "PREPARE p AS SELECT 1",
    ] {
        let error = reader.sql(statement).await.err().unwrap();
        assert!(matches!(error, ProfilesError::NotAQuery { .. }), "{statement}: {error}");
        assert!(error.hint().unwrap().contains("SELECT"));
    }
    for query in ["SHOW TABLES", "DESCRIBE profiles", "EXPLAIN SELECT 1", "WITH p AS (SELECT 1) SELECT * FROM p"] {
        reader.sql(query).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    }
    assert!(reader.sql("SELECT * FROM '/etc/passwd'").await.is_err());
}

#[tokio::test]
async fn mistakes_come_with_a_hint() {
    let (_directory, store) = new_store();
    let world = small();
    let cut = world.write(&store).await;
    let reader = open(&world, &store, &cut).await;
    let error = reader.lookup("e_mail", "b@x").await.unwrap_err();
    assert!(matches!(&error, ProfilesError::UnknownField { .. }));
    assert!(error.hint().unwrap().contains("did you mean `email`"), "{:?}", error.hint());
    let error = reader.members("buyer").await.err().unwrap();
    assert!(error.hint().unwrap().contains("did you mean `buyers`"), "{:?}", error.hint());
    let error = reader.sql("SELECT cc_buyers_scor FROM profiles").await.err().unwrap();
    assert!(error.to_string().contains("cc_buyers_score") && error.hint().is_some(), "{error}");
    let error = reader.sql("SELECT * FROM profils").await.err().unwrap();
    assert!(error.hint().is_some(), "{error}");
    let clash = ProfileReader::open(&store, &cut, &world.shapes(), &["created_at".into()], MEMORY).await;
    assert!(matches!(clash, Err(ProfilesError::DuplicateColumn { .. })));
}

#[tokio::test]
async fn nothing_published_is_no_profiles_and_no_error() {
    let (_directory, store) = new_store();
    let world = small();
    let reader = open(&world, &store, &Cut::default()).await;
    assert!(rows(&reader, "SELECT * FROM profiles").await.is_empty());
    assert!(rows(&reader, "SELECT * FROM memberships").await.is_empty());
    assert!(rows(&reader, "SELECT * FROM changes").await.is_empty());
    assert_eq!(reader.lookup("email", "b@x").await.unwrap(), None);
    assert!(reader.members("buyers").await.unwrap().try_collect::<Vec<_>>().await.unwrap().is_empty());
    // a model that was never published leaves the others alone
    let mut cut = world.write(&store).await;
    cut.records.remove("buyers");
    let reader = open(&world, &store, &cut).await.with_lookup(INDEXED);
    let query = "SELECT cc_buyers_membership AS m, cc_buyers_since AS s, cc_buyers_score AS a FROM profiles WHERE email = 'b@x'";
    assert_eq!(rows(&reader, query).await, [json!({"m": false, "s": null, "a": null})]);
    assert!(reader.lookup("email", "b@x").await.unwrap().unwrap().memberships.is_empty());
}

#[tokio::test]
async fn a_past_cut_shows_the_columns_and_rows_of_its_time() {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use std::sync::Arc;
    let (directory, store) = new_store();
    let mut world = small();
    world.models.truncate(1);
    let past = world.write(&store).await;
    // the model drops `extra`, activates `brand`; one row more, and the old file stays
    let id = TableId::Records("buyers".into());
    let table = store.table(&id, None).await.unwrap().unwrap();
    let activated = [("score".to_string(), ValueType::Int), ("brand".to_string(), ValueType::String)];
    let schema = schema::records_schema(&schema::result_schema(("email", ValueType::String), &activated, &[]));
    let metadata = Store::metadata(&id, &schema, &[], &[]).unwrap();
    let [hi, lo] = hashes(["old@x"].into_iter());
    let since = records_batch("email", &[row("old@x", 1, 0)]).column_by_name(schema::SINCE).unwrap().clone();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["old@x"])),
        Arc::new(Int64Array::from(vec![100])),
        Arc::new(StringArray::from(vec!["Cargo"])),
        since,
        hi.clone(),
        lo,
        hi,
    ];
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    let add = vec![stage(&store, &id, "later", &batch, &[]).await];
    let commit = Commit { metadata: Some(metadata), add, ..Commit::default() };
    let version = store.commit(&id, Some(&table), commit).await.unwrap();
    let mut now = past.clone();
    now.records.insert("buyers".into(), version);

    let mut shapes = world.shapes();
    shapes[0].activated_fields = vec!["score".into(), "brand".into()];
    for lookup in [LookupOptions::default(), INDEXED] {
        let then = ProfileReader::open(&store, &past, &shapes, &fields(), MEMORY).await.unwrap().with_lookup(lookup);
        let found = rows(&then, "SELECT * FROM profiles").await;
        let found: BTreeMap<String, Value> =
            found.into_iter().map(|row| (row["profile_id"].as_str().unwrap().to_string(), row)).collect();
        assert_eq!(found, world.wide());
        let profile = then.lookup("user_id", "u0").await.unwrap().unwrap();
        assert_eq!(serde_json::to_value(profile).unwrap(), world.profile(0));

        let folder = directory.path().join("serving");
        let served = View::open(&store, &past, &shapes, &fields(), &folder).await.unwrap();
        let profile = served.by_identity("user_id", "u0").unwrap().unwrap();
        assert_eq!(serde_json::to_value(profile).unwrap(), world.profile(0));
        let served = View::open(&store, &now, &shapes, &fields(), &folder).await.unwrap();
        let profile = served.by_identity("email", "b@x").unwrap().unwrap();
        assert_eq!(Value::Object(profile.attributes), json!({"cc_buyers_score": 2, "cc_buyers_brand": null}));

        let current = ProfileReader::open(&store, &now, &shapes, &fields(), MEMORY).await.unwrap().with_lookup(lookup);
        let query = "SELECT email, cc_buyers_score AS s, cc_buyers_brand AS b FROM profiles ORDER BY email";
        let expected = [json!({"email": "b@x", "s": 2, "b": null}), json!({"email": "new@x", "s": 100, "b": "Cargo"})];
        assert_eq!(rows(&current, query).await, expected);
        let profile = current.lookup("email", "new@x").await.unwrap().unwrap();
        assert_eq!(Value::Object(profile.attributes), json!({"cc_buyers_score": 100, "cc_buyers_brand": "Cargo"}));
        let profile = current.lookup("email", "b@x").await.unwrap().unwrap();
        assert_eq!(Value::Object(profile.attributes), json!({"cc_buyers_score": 2, "cc_buyers_brand": null}));
    }
}

#[tokio::test]
async fn the_change_log_is_a_table() {
    use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
    use std::sync::Arc;
    let (_directory, store) = new_store();
    let world = small();
    let mut cut = world.write(&store).await;
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let at = TimestampMicrosecondArray::from(vec![time(3).timestamp_micros()]).with_timezone("UTC");
    let columns = vec![text("r1"), Arc::new(at), text("entered"), text("p"), text("b@x"), text("{}"), text("{}")];
    let batch = RecordBatch::try_new(schema::changes_schema(), columns).unwrap();
    let id = TableId::Changes;
    let whole = schema::with_partition(&schema::changes_schema(), "model");
    let metadata = Some(Store::metadata(&id, &whole, &["model"], &[]).unwrap());
    let add = vec![stage(&store, &id, "changes", &batch, &[("model", "buyers")]).await];
    cut.changes = Some(store.commit(&id, None, Commit { metadata, add, ..Commit::default() }).await.unwrap());
    let reader = open(&world, &store, &cut).await;
    let found = rows(&reader, "SELECT run_id, model, change, at FROM changes WHERE model = 'buyers'").await;
    let at = crate::values::json::timestamp(time(3));
    assert_eq!(found, [json!({"run_id": "r1", "model": "buyers", "change": "entered", "at": at})]);
    assert!(rows(&reader, "SELECT * FROM changes WHERE model = 'users'").await.is_empty());
}

#[tokio::test]
async fn joins_beyond_the_memory_limit_are_sort_merge_joins_with_the_same_rows() {
    let (_directory, store) = new_store();
    let mut world = small();
    // enough rows for hash tables of 100 bytes a row to pass a quarter of the limit
    for n in 2..3000 {
        world.identities.push(identity(n, 1, &format!("p{n}@x"), true, n as i64));
        world.models[0].rows.push(row(&format!("p{n}@x"), 1, n as i64));
    }
    world.rows_a_file = 2000;
    let cut = world.write(&store).await;
    let limit = 2 << 20;
    let reader = ProfileReader::open(&store, &cut, &world.shapes(), &fields(), limit).await.unwrap();
    let plan = rows(&reader, "EXPLAIN SELECT email, cc_buyers_score FROM profiles").await;
    let plan = Value::from(plan).to_string();
    assert!(plan.contains("SortMergeJoin") && !plan.contains("HashJoin"), "{plan}");
    let query = "SELECT count(cc_buyers_score) AS n, sum(cc_buyers_score) AS s, count(email) AS e FROM profiles";
    let sum: i64 = 3 + (2..3000).sum::<i64>();
    assert_eq!(rows(&reader, query).await, [json!({"n": 3000, "s": sum, "e": 3000})]);
}

fn worlds() -> impl Strategy<Value = World> {
    // a profile: when it was founded, by which field, and further identities
    let profile = (0i64..50, 0usize..2, prop::collection::vec((0usize..2, 0i64..50), 0..4));
    let row = (0usize..40, 0i64..100, prop::option::of(0i64..5), any::<bool>());
    let model = (0usize..2, prop::collection::vec(row, 0..30));
    let parts = (prop::collection::vec(profile, 0..12), prop::collection::vec(model, 0..4), any::<bool>(), 1usize..20);
    parts.prop_map(|(profiles, models, sorted, rows_a_file)| {
        let mut identities = Vec::new();
        // values are counted through, so that keys hit owned and unowned ones alike
        let mut next = [0usize; 2];
        let mut value = |field: usize| {
            next[field] += 1;
            format!("{}-{}", FIELDS[field], next[field] - 1)
        };
        for (profile, (founded, field, further)) in profiles.into_iter().enumerate() {
            identities.push(identity(profile, field, &value(field), true, founded));
            for (field, later) in further {
                identities.push(identity(profile, field, &value(field), false, founded + later));
            }
        }
        let models = models.into_iter().enumerate().map(|(number, (field, rows))| {
            let mut seen = BTreeSet::new();
            let rows = rows.into_iter().filter(|(key, ..)| seen.insert(*key)).map(|(key, since, score, extra)| Row {
                key: format!("{}-{key}", FIELDS[field]),
                since,
                score,
                extra: extra.then(|| json!({"since": [since]}).to_string()),
            });
            Model { slug: format!("m{number}"), field, rows: rows.collect() }
        });
        World { identities, models: models.collect(), sorted, rows_a_file }
    })
}

async fn every_reading_agrees(world: &World) {
    let (directory, store) = new_store();
    let cut = world.write(&store).await;
    let reader = open(world, &store, &cut).await;
    let indexed = open(world, &store, &cut).await.with_lookup(INDEXED);
    let served = View::open(&store, &cut, &world.shapes(), &fields(), &directory.path().join("serving")).await.unwrap();
    let found = rows(&reader, "SELECT * FROM profiles").await;
    let by_id: BTreeMap<String, Value> =
        found.iter().map(|row| (row["profile_id"].as_str().unwrap().to_string(), row.clone())).collect();
    assert_eq!(by_id.len(), found.len(), "a profile is one row");
    assert_eq!(by_id, world.wide());
    for identity in &world.identities {
        let expected = world.profile(identity.profile);
        let field = FIELDS[identity.field];
        for reader in [&reader, &indexed] {
            let found = reader.lookup(field, &identity.value).await.unwrap();
            assert_eq!(serde_json::to_value(found).unwrap(), expected);
            let found = reader.profile_by_id(&profile_id(identity.profile)).await.unwrap();
            assert_eq!(serde_json::to_value(found).unwrap(), expected);
            // a value of one field is none of another
            let other = FIELDS[1 - identity.field];
            assert_eq!(reader.lookup(other, &identity.value).await.unwrap(), None);
        }
        let found = served.by_identity(field, &identity.value).unwrap();
        assert_eq!(serde_json::to_value(found).unwrap(), expected);
        let found = served.by_id(&profile_id(identity.profile)).unwrap();
        assert_eq!(serde_json::to_value(found).unwrap(), expected);
        assert_eq!(served.by_identity(FIELDS[1 - identity.field], &identity.value).unwrap(), None);
    }
    let founders = || world.identities.iter().filter(|identity| identity.founder);
    let mut memberships = Vec::new();
    for model in &world.models {
        let mut members = Vec::new();
        for founder in founders() {
            let Some((since, row)) = world.membership(founder.profile, model) else { continue };
            let since = crate::values::json::timestamp(time(since));
            let id = profile_id(founder.profile);
            members.push(json!({"profile_id": id, "identity": row.key, "since": since}).to_string());
            memberships.push(json!({"profile_id": id, "model": model.slug, "since": since}).to_string());
        }
        let stream = reader.members(&model.slug).await.unwrap();
        let found = json_rows(&stream.try_collect::<Vec<_>>().await.unwrap());
        let found: BTreeSet<String> = found.iter().map(Value::to_string).collect();
        assert_eq!(found, members.into_iter().collect());
    }
    let found: Vec<Value> = rows(&reader, "SELECT profile_id, model, since FROM memberships").await;
    assert_eq!(found.len(), memberships.len());
    let found: BTreeSet<String> = found.iter().map(Value::to_string).collect();
    assert_eq!(found, memberships.into_iter().collect());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_view_and_every_lookup_agree_with_a_plain_join(world in worlds()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(every_reading_agrees(&world));
    }
}
