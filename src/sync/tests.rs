//! The comparison held against a plain map: random results, one after another, in random order, with null keys, keys
//! that come twice, and values that do not fit; with all, some, or none of the old rows' hashes in memory.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{Engine, Silent};
use crate::clock::SystemClock;
use crate::store::data_file::{ReadOptions, read_file};
use crate::store::{Store, TableId};
use crate::sync::report::{RunReport, RunStatus};

/// One row of a result: key, and a value as text that should be an int.
type Row = (Option<u8>, String);
type State = BTreeMap<u8, i64>;

/// What a result does to a state, worked out row by row.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    added: u64,
    changed: u64,
    removed: u64,
    unchanged: u64,
    quarantined: u64,
}

fn apply(state: &State, rows: &[Row]) -> (State, Expected) {
    let mut by_key: BTreeMap<u8, Vec<&str>> = BTreeMap::new();
    let mut expected = Expected::default();
    for (key, value) in rows {
        match key {
            None => expected.quarantined += 1,
            Some(key) => by_key.entry(*key).or_default().push(value),
        }
    }
    let mut next = State::new();
    for (key, old) in state {
        match by_key.get(key).map(Vec::as_slice) {
            None => expected.removed += 1,
            Some([value]) if value.parse::<i64>().is_ok() => {
                let new: i64 = value.parse().unwrap();
                if new == *old {
                    expected.unchanged += 1
                } else {
                    expected.changed += 1
                }
                next.insert(*key, new);
            }
            Some(rows) => {
                expected.quarantined += rows.len() as u64;
                next.insert(*key, *old);
            }
        }
    }
    for (key, rows) in by_key.iter().filter(|(key, _)| !state.contains_key(key)) {
        match rows.as_slice() {
            [value] if value.parse::<i64>().is_ok() => {
                expected.added += 1;
                next.insert(*key, value.parse().unwrap());
            }
            rows => expected.quarantined += rows.len() as u64,
        }
    }
    (next, expected)
}

fn write_rows(root: &std::path::Path, rows: &[Row]) {
    let line = |(key, value): &Row| {
        let email = key.map(|key| format!("Key{key}@example.com"));
        format!("{}\n", serde_json::json!({ "email": email, "value": value }))
    };
    let mut text: String = rows.iter().map(line).collect();
    if rows.is_empty() {
        // a table needs columns: one row that the query leaves out
        text = format!("{}\n", serde_json::json!({ "email": "gone", "value": "x" }));
    }
    std::fs::write(root.join("data/rows.ndjson"), text).unwrap();
}

fn project(root: &std::path::Path) {
    std::fs::create_dir_all(root.join("data")).unwrap();
    std::fs::create_dir_all(root.join("models")).unwrap();
    std::fs::write(
        root.join("cloud-connect.yml"),
        "profile:\n  identities:\n    - field: email\n      normalize: [trim, lowercase]\nconnections:\n  files: { type: local, path: data }\n",
    )
    .unwrap();
    std::fs::write(
        root.join("models/rows.yml"),
        "name: Rows\nconnection: files\nprimary_key: email\nexternal_key: email\nactivated_fields: [value]\n\
         columns: { value: { type: int } }\nguard: { max_removed: 1000000 }\n",
    )
    .unwrap();
    std::fs::write(
        root.join("models/rows.sql"),
        "SELECT email, value FROM rows WHERE email IS NULL OR email <> 'gone'",
    )
    .unwrap();
}

async fn stored(engine: &Engine) -> State {
    let id = TableId::Records("rows".into());
    let Some(table) = engine.store.table(&id, None).await.unwrap() else { return State::new() };
    let mut state = State::new();
    for file in Store::files(&id, &table).unwrap() {
        let mut batches = read_file(&engine.store, &id, &file, ReadOptions::default()).await.unwrap();
        while let Some(batch) = batches.try_next().await.unwrap() {
            let (keys, values) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
            for (key, value) in keys.iter().flatten().zip(values.values()) {
                let key = key.strip_prefix("key").and_then(|k| k.split('@').next()).unwrap().parse().unwrap();
                assert!(state.insert(key, *value).is_none(), "key {key} is stored twice");
            }
        }
    }
    state
}

async fn check(results: Vec<Vec<Row>>, hashes: u64) {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path());
    let config = crate::config::load(dir.path(), crate::warehouse::registry()).unwrap();
    let mut engine = Engine::open(config, crate::memory::MIN_MEMORY_LIMIT, Arc::new(SystemClock)).await.unwrap();
    let mut state = State::new();
    for rows in results {
        write_rows(dir.path(), &rows);
        // the states of at most 40 rows, and the hashes of all, some or none
        engine.memory.hashes = 40 + hashes;
        let report = engine.run("rows", &Silent, &CancellationToken::new()).await;
        let (next, expected) = apply(&state, &rows);
        let RunReport { added, changed, removed, unchanged, quarantined, .. } = report;
        assert_eq!(
            Expected { added, changed, removed, unchanged, quarantined },
            expected,
            "{rows:?} on {state:?}: {report:?}"
        );
        assert_eq!(report.rows, rows.len() as u64);
        assert_eq!(report.status == RunStatus::Unchanged, next == state, "{report:?}");
        assert_eq!(stored(&engine).await, next);
        state = next;
    }
}

fn result() -> impl Strategy<Value = Vec<Row>> {
    let key = prop_oneof![1 => Just(None), 12 => (0u8..40).prop_map(Some)];
    let value = prop_oneof![1 => Just("n/a".to_string()), 12 => (0i64..3).prop_map(|v| v.to_string())];
    proptest::collection::vec((key, value), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_comparison_agrees_with_a_plain_map(
        results in proptest::collection::vec(result(), 1..4),
        // all resident; about half of them; none
        hashes in prop_oneof![Just(1u64 << 20), Just(700u64), Just(0u64)],
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(Box::pin(check(results, hashes)));
    }
}
