//! Other readers of the store: the Python `deltalake` package and Polars, while runs go on.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::project::{Project, person};

/// The interpreter of the virtual environment that `make test` prepares.
fn python() -> PathBuf {
    let path =
        std::env::var_os("CLOUD_CONNECT_TEST_PYTHON").expect("run `make test`, which sets CLOUD_CONNECT_TEST_PYTHON");
    PathBuf::from(path)
}

const READ: &str = r#"
import json, os, sys
import polars
from deltalake import DeltaTable
store = sys.argv[1]
seen = {}
for name in ("records/people", "identities", "changes"):
    path = f"{store}/{name}"
    table = DeltaTable(path)
    seen[name] = [table.to_pyarrow_table().num_rows, polars.read_delta(path).height]
frame = polars.read_delta(f"{store}/records/people").sort("email")
seen["rows"] = frame.select("email", "city", "spent").rows()
changes = polars.read_delta(f"{store}/changes")
seen["partitions"] = sorted(changes["model"].unique().to_list())
seen["fields"] = polars.read_delta(f"{store}/identities")["field"].unique().to_list()
seen["types"] = [str(t) for t in frame.select("email", "spent", "_cc_since").dtypes]
seen["first"] = DeltaTable(f"{store}/records/people", version=0).to_pyarrow_table().num_rows
print(json.dumps(seen), flush=True)
# the libraries' own threads are sometimes still running when the interpreter tears itself down, which then aborts
os._exit(0)
"#;

#[test]
fn the_deltalake_package_and_polars_read_every_table_while_a_run_is_under_way() {
    let project = Project::with_people(&[person("ada", "London", 1), person("bob", "Bonn", 2)]);
    project.run(&[]);
    project.rows("people", &[person("ada", "Paris", 1), person("cyd", "Cork", 3), person("dan", "Delft", 4)]);
    project.run(&[]);
    project.rows("people", &[person("ada", "Rome", 1)]);
    let mut running = project
        .command(&["run"])
        .env("FAILPOINTS", "before-commit=sleep(8000)")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let output = Command::new(python()).arg("-c").arg(READ).arg(project.store()).output().unwrap();
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen["records/people"], serde_json::json!([3, 3]));
    assert_eq!(seen["identities"], serde_json::json!([4, 4]));
    assert_eq!(seen["changes"], serde_json::json!([6, 6]));
    assert_eq!(seen["first"], 2);
    assert_eq!((&seen["partitions"], &seen["fields"]), (&serde_json::json!(["people"]), &serde_json::json!(["email"])));
    assert_eq!(seen["rows"][0], serde_json::json!(["ada@example.com", "Paris", 1]));
    assert_eq!(seen["types"], serde_json::json!(["String", "Int64", "Datetime(time_unit='us', time_zone='UTC')"]));
}
