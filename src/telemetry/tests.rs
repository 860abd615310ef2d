#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::post;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::names::METRICS;
use super::*;
use crate::clock::SystemClock;

/// One sample: name, labels, value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads the text format: every line is a comment of a known kind or a sample, and every sample's metric was described
/// before it.
fn parse(text: &str) -> Vec<Sample> {
    let (mut types, mut helped) = (BTreeMap::new(), BTreeSet::new());
    let mut samples = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (kind, name, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            match kind {
                "HELP" => assert!(helped.insert(name.to_string())),
                "TYPE" => assert_eq!(types.insert(name.to_string(), value.to_string()), None),
                other => assert!(other.is_empty(), "{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            let base = name.strip_suffix(suffix)?;
            (types.get(base).map(String::as_str) == Some("histogram")).then_some(base)
        });
        let base = base.unwrap_or(name);
        assert!(types.contains_key(base) && helped.contains(base), "{line}");
        let labels = labels.split("\",").filter(|label| !label.is_empty()).map(|label| {
            let (key, value) = label.split_once("=\"").unwrap();
            (key.to_string(), value.trim_end_matches('"').to_string())
        });
        samples.push((name.to_string(), labels.collect(), value.parse().unwrap()));
    }
    samples
}

fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let wanted: BTreeMap<_, _> = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let found = samples.iter().find(|(n, l, _)| n == name && *l == wanted);
    found.map(|(.., value)| *value).unwrap_or(f64::NAN)
}

#[test]
fn what_is_rendered_can_be_read_by_prometheus() {
    let recorder = prometheus::recorder().unwrap();
    let handle = recorder.handle();
    let text = metrics::with_local_recorder(&recorder, || {
        prometheus::describe(SystemClock.now());
        let request = http::Watched::begin(&Method::GET, "/v2/run/{id}", &HeaderMap::new(), "r1");
        request.answered(StatusCode::OK);
        drop(request);
        let strange = Method::from_bytes(b"BREW").unwrap();
        http::Watched::begin(&strange, "/v2/run/{id}", &HeaderMap::new(), "r2").answered(StatusCode::NOT_FOUND);
        metrics::histogram!(names::LOOKUP_SECONDS).record(0.0004);
        metrics::histogram!(names::LOOKUP_SECONDS).record(2.0);
        metrics::gauge!(names::QUEUE_DEPTH).set(3.0);
        prometheus::render(&handle, Some(2))
    });
    let samples = parse(&text);
    let of = |name: &str, labels: &[(&str, &str)]| value(&samples, name, labels);
    let route = ("route", "/v2/run/{id}");
    assert_eq!(of(names::HTTP_REQUESTS, &[("method", "GET"), route, ("status", "200")]), 1.0);
    assert_eq!(of(names::HTTP_REQUESTS, &[("method", "other"), route, ("status", "404")]), 1.0);
    assert_eq!(of(names::HTTP_ACTIVE, &[]), 0.0);
    assert_eq!(of(names::QUEUE_DEPTH, &[]), 3.0);
    assert_eq!(of(names::HOLDS_WAITING, &[]), 2.0);
    let bucket = format!("{}_bucket", names::LOOKUP_SECONDS);
    assert_eq!(of(&bucket, &[("le", "0.00025")]), 0.0);
    assert_eq!(of(&bucket, &[("le", "0.0005")]), 1.0);
    assert_eq!(of(&bucket, &[("le", "1")]), 1.0);
    assert_eq!(of(&bucket, &[("le", "+Inf")]), 2.0);
    assert_eq!(of(names::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert!(of(names::PROCESS_MEMORY, &[]) > 1e6);
}

#[test]
fn every_metric_is_described_in_the_reference() {
    let mut table = String::from("| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n");
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels) = (metric.name, metric.kind.as_str(), labels.join(", "));
        table.push_str(&format!("| `{name}` | {kind} | {labels} | {} |\n", metric.help));
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("<!-- metrics -->\n").unwrap();
    let (committed, after) = rest.split_once("<!-- /metrics -->").unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let text = format!("{before}<!-- metrics -->\n{table}<!-- /metrics -->{after}");
        std::fs::write(&file, text).unwrap();
    } else {
        assert!(committed == table, "docs/metrics.md is not what the code says: UPDATE_DOCS=1 cargo test metric");
    }
}

#[test]
fn names_are_unique_and_follow_the_conventions() {
    let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
    for metric in METRICS {
        let total = metric.name.ends_with("_total");
        assert_eq!(total, metric.kind.as_str() == "counter", "{}", metric.name);
        assert!(!metric.help.ends_with('.') && metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    }
}

/// What is written while the guard lives.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_json_line_carries_the_request_it_belongs_to() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::registry().with(logs::layer(LogFormat::Json, false, move || writer.clone()));
    tracing::subscriber::with_default(subscriber, || {
        let request = http::Watched::begin(&Method::GET, "/v2/run", &HeaderMap::new(), "req-7");
        request.span().in_scope(|| tracing::info!(model = "buyers", "asked"));
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&line["message"], &line["model"], &line["level"]), (&"asked".into(), &"buyers".into(), &"INFO".into()));
    assert_eq!(line["spans"][0]["request_id"], "req-7");
}

/// A collector on this machine: what it was sent.
async fn collector() -> (u16, Arc<Mutex<Vec<(HeaderMap, Bytes)>>>) {
    let received = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&received);
    let take = move |headers: HeaderMap, body: Bytes| async move {
        kept.lock().unwrap().push((headers, body));
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (port, received)
}

fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_arrive_at_a_collector_with_the_callers_trace() {
    let (port, received) = collector().await;
    let traces = Traces::to(&format!("http://127.0.0.1:{port}/v1/traces")).unwrap();
    let subscriber = tracing_subscriber::registry().with(traces.layer().boxed());
    tracing::subscriber::with_default(subscriber, || {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), trace.parse().unwrap())]);
        let request = http::Watched::begin(&Method::POST, "/v2/run/{id}", &headers, "req-7");
        request.answered(StatusCode::OK);
    });
    traces.shutdown().await;
    let received = received.lock().unwrap().clone();
    let (headers, body) = received.first().unwrap();
    assert_eq!(headers["content-type"], "application/x-protobuf");
    for text in ["POST /v2/run/{id}", "service.name", "cloud-connect", "req-7", "http.response.status_code"] {
        assert!(holds(body, text), "{text}");
    }
    // the trace's id, as bytes
    let id = [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];
    assert!(body.windows(16).any(|window| window == id));
}
