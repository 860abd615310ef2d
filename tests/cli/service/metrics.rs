//! What the running service counts, after a life in which everything has happened, against the list in docs/metrics.md.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;

use super::receiver::Receiver;
use super::{PATIENCE, Service};
use crate::project::{PEOPLE, Project, person};

/// Name to kind and labels.
type Described = BTreeMap<String, (String, BTreeSet<String>)>;

/// The table of the documentation.
fn documented() -> Described {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(file).unwrap();
    let table = text.split_once("<!-- metrics -->").unwrap().1.split_once("<!-- /metrics -->").unwrap().0;
    let plain = |cell: &str| cell.trim().trim_matches('`').to_string();
    table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            let labels = cells[3].split(',').map(plain).filter(|label| !label.is_empty()).collect();
            (plain(cells[1]), (plain(cells[2]), labels))
        })
        .collect()
}

/// A text of `/metrics`.
struct Scrape(String);

impl Scrape {
    fn of(service: &Service) -> Self {
        let reply = service.get("/metrics");
        assert_eq!(reply.status, 200, "{reply:?}");
        Self(reply.text)
    }

    /// The value of a series, as it is written.
    fn value(&self, series: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series}:\n{}", self.0)).parse().unwrap()
    }

    /// The metrics that it has samples of, with the labels that these have.
    fn described(&self) -> Described {
        let mut all = Described::new();
        for line in self.0.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                all.insert(name.into(), (kind.into(), BTreeSet::new()));
            }
        }
        let mut sampled = BTreeSet::new();
        for line in self.0.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let series = line.rsplit_once(' ').unwrap().0;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let base = base.filter(|base| all.contains_key(*base)).unwrap_or(name);
            let (_, known) = all.get_mut(base).unwrap_or_else(|| panic!("of no described metric: {line}"));
            let names =
                labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name.to_string());
            known.extend(names.filter(|name| name != "le"));
            sampled.insert(base.to_string());
        }
        all.retain(|name, _| sampled.contains(name));
        all
    }
}

/// Asks until a series has that value.
fn wait_for(service: &Service, series: &str, value: f64) -> Scrape {
    let until = Instant::now() + PATIENCE;
    loop {
        let scrape = Scrape::of(service);
        if scrape.0.contains(&format!("\n{series} ")) && scrape.value(series) == value {
            return scrape;
        }
        assert!(Instant::now() < until, "{series} never was {value}:\n{}", scrape.0);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn after_a_full_life_every_documented_metric_is_there_and_no_other() {
    let (up, down) = (Receiver::start(), Receiver::answering(&["500 Oh"]));
    let people = [person("ada", "Berlin", 1), person("bob", "Rome", 2), person("cyd", "Ulm", 3)];
    let project = Project::with_people(&people);
    project.rows("leaving", &people);
    let guarded = format!("{PEOPLE}guard: {{ max_removed: 0, max_removed_percent: 0 }}\n");
    project.model("leaving", &guarded, "SELECT * FROM leaving");
    project.cc(&["run"]).ok();
    // one changes, one has no key any more; two leave, and are held; one cannot be asked for
    let without_key = json!({ "email": null, "city": "Oslo", "spent": 4 });
    project.rows("people", &[person("ada", "Bern", 1), people[1].clone(), people[2].clone(), without_key]);
    project.rows("leaving", &people[..1]);
    project.model("broken", PEOPLE, "SELECT * FROM not_there");
    let file = std::fs::read_to_string(project.path().join("cloud-connect.yml")).unwrap();
    let alerts = format!(
        "service: {{ allow_private_addresses: [127.0.0.1] }}\nalerts:\n  channels:\n    up: {{ type: webhook, url: '{}' }}\n    \
         down: {{ type: webhook, url: '{}' }}\n  rules: {{ all: {{ channels: [up, down], models: broken }} }}\n",
        up.url("/"),
        down.url("/")
    );
    project.write("cloud-connect.yml", &format!("{file}{alerts}"));

    let service = Service::start_with(&project, &[], &[("FAILPOINTS", "after-rewrite=1*sleep(3000)")]);
    let start = |model: &str| {
        let started = service.post(&format!("/v2/datamodel/{model}/sync/start"), &json!({}));
        assert_eq!(started.status, 202, "{started:?}");
    };
    // the first takes a while, and they share a connection
    start("people");
    wait_for(&service, "cloud_connect_runs_running", 1.0);
    start("leaving");
    start("broken");
    let busy = wait_for(&service, "cloud_connect_queue_depth", 2.0);
    assert_eq!(busy.value("cloud_connect_runs_running"), 1.0);
    wait_for(&service, "cloud_connect_runs_total{model=\"broken\",status=\"failed\"}", 1.0);
    wait_for(&service, "cloud_connect_runs_running", 0.0);
    for (name, status) in [("ada", 200), ("nobody", 404)] {
        assert_eq!(service.get(&format!("/v2/entity/user/email/{name}@example.com")).status, status);
    }
    wait_for(&service, "cloud_connect_alert_deliveries_total{outcome=\"delivered\"}", 1.0);
    let scrape = wait_for(&service, "cloud_connect_alert_deliveries_total{outcome=\"failed\"}", 1.0);

    for (series, value) in [
        ("cloud_connect_runs_total{model=\"people\",status=\"published\"}", 1.0),
        ("cloud_connect_runs_total{model=\"leaving\",status=\"held\"}", 1.0),
        ("cloud_connect_run_seconds_count{status=\"failed\"}", 1.0),
        ("cloud_connect_run_rows_total{model=\"people\"}", 4.0),
        ("cloud_connect_run_quarantined_total{model=\"people\"}", 1.0),
        ("cloud_connect_run_changes_total{model=\"people\",change=\"changed\"}", 1.0),
        // what is held was not removed
        ("cloud_connect_run_changes_total{model=\"leaving\",change=\"removed\"}", 0.0),
        ("cloud_connect_run_retries_total{model=\"people\"}", 0.0),
        ("cloud_connect_holds_waiting", 1.0),
        ("cloud_connect_queue_depth", 0.0),
        ("cloud_connect_runs_running", 0.0),
        ("cloud_connect_lookups_total{result=\"found\"}", 1.0),
        ("cloud_connect_lookups_total{result=\"missing\"}", 1.0),
        ("cloud_connect_lookup_seconds_count", 2.0),
        ("cloud_connect_lookup_seconds_bucket{le=\"+Inf\"}", 2.0),
        (
            "cloud_connect_http_requests_total{method=\"GET\",route=\"/v2/entity/user/{field}/{value}\",status=\"404\"}",
            1.0,
        ),
        // the one that asks
        ("cloud_connect_http_requests_active", 1.0),
    ] {
        assert_eq!(scrape.value(series), value, "{series}");
    }
    assert!(scrape.value("cloud_connect_run_seconds_sum{status=\"published\"}") >= 3.0, "it slept");
    assert!(scrape.value("cloud_connect_lookup_seconds_sum") > 0.0);
    assert!(!scrape.0.contains("{model=\"broken\"} 1"), "a failed run tells nothing of rows");
    let (documented, described) = (documented(), scrape.described());
    assert!(documented.len() > 20);
    assert_eq!(described, documented);

    // the waiting removals are counted as the catalog has them, whoever decides
    let held = service.get("/v2/run?status=held").data()[0]["run_id"].clone();
    project.cc(&["approve", held.as_str().unwrap()]).ok();
    wait_for(&service, "cloud_connect_holds_waiting", 0.0);
}
