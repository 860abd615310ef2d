//! Spans of the running service, at a collector of our own.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};

use super::receiver::Receiver;
use super::{Service, secret_of};
use crate::project::{Project, person};

/// Nothing goes out by itself for as long as a test takes.
const LATER: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "600000");

fn shop() -> Project {
    Project::with_people(&[person("ada", "Berlin", 1), person("bob", "Rome", 2)])
}

fn start(project: &Project, receiver: &Receiver, variables: &[(&str, &str)]) -> Service {
    let collector = receiver.url("");
    let all = [&[("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str())], variables].concat();
    Service::start_with(project, &[], &all)
}

/// Starts a run; its id.
fn begin(service: &Service) -> String {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let started = service.send("POST", "/v2/datamodel/people/sync/start", |request| {
        request.bearer_auth(&service.token).header("traceparent", trace)
    });
    assert_eq!(started.status, 202, "{started:?}");
    started.data()["run_id"].as_str().unwrap().to_string()
}

fn run(service: &Service) -> Value {
    let path = format!("/v2/run/{}", begin(service));
    service.wait_for(&path, |run| run["status"] != "running")
}

/// All that has come, with the attributes of the process that sent it.
fn received(receiver: &Receiver) -> (Vec<KeyValue>, Vec<Span>) {
    let (mut process, mut spans) = (Vec::new(), Vec::new());
    for post in receiver.posts() {
        assert_eq!(post.line, "POST /v1/traces HTTP/1.1");
        assert_eq!(post.headers["content-type"], "application/x-protobuf");
        for resource in ExportTraceServiceRequest::decode(post.body.as_slice()).unwrap().resource_spans {
            process = resource.resource.unwrap().attributes;
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    (process, spans)
}

fn of(attributes: &[KeyValue], key: &str) -> Value {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()) {
        Some(AnyValue { value: Some(Any::StringValue(text)) }) => json!(text),
        Some(AnyValue { value: Some(Any::IntValue(number)) }) => json!(number),
        other => panic!("{key}: {other:?} in {attributes:?}"),
    }
}

/// The spans of runs, each with its stages.
fn runs(spans: &[Span]) -> Vec<(&Span, Vec<&Span>)> {
    let parts = |run: &Span| spans.iter().filter(|span| span.parent_span_id == run.span_id).collect();
    spans.iter().filter(|span| span.name == "run").map(|run| (run, parts(run))).collect()
}

#[test]
fn a_run_and_its_stages_are_sent_when_the_service_stops() {
    let (project, receiver) = (shop(), Receiver::start());
    let service = start(&project, &receiver, &[LATER]);
    let published = run(&service);
    project.write("models/people.sql", "SELECT * FROM not_there");
    service.wait_for("/v2/datamodel/people", |model| model["sql"] == "SELECT * FROM not_there");
    let failed = run(&service);
    assert!(receiver.posts().is_empty(), "nothing was to be sent before the stop");
    let secret = secret_of(&service.token).to_string();
    assert_eq!(service.stop(), 0);

    let (process, spans) = received(&receiver);
    assert_eq!(of(&process, "service.name"), "cloud-connect");
    assert_eq!(of(&process, "service.version"), env!("CARGO_PKG_VERSION"));
    let runs = runs(&spans);
    assert_eq!(runs.len(), 2, "{spans:#?}");
    for ((span, stages), report) in runs.iter().zip([&published, &failed]) {
        for key in ["model", "run_id", "status", "rows"] {
            assert_eq!(of(&span.attributes, key), report[key], "{key} of {span:?}");
        }
        assert_eq!(of(&span.attributes, "connection"), "files");
        assert!(span.parent_span_id.is_empty(), "the scheduler begins it, not a request");
        for stage in stages {
            assert_eq!(stage.trace_id, span.trace_id);
            assert!(stage.start_time_unix_nano >= span.start_time_unix_nano, "{stage:?}");
            assert!(stage.end_time_unix_nano <= span.end_time_unix_nano, "{stage:?}");
        }
    }
    let stages = |n: usize| runs[n].1.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>();
    assert_eq!(stages(0), ["query", "compare", "profiles", "write", "commit"]);
    assert_eq!(stages(1), ["query"]);
    assert!(runs[0].0.status.as_ref().is_none_or(|status| status.code == 0), "{:?}", runs[0].0);
    // 2: error
    let status = runs[1].0.status.as_ref().unwrap();
    assert_eq!((status.code, &json!(status.message)), (2, &failed["error"]));

    let request = spans.iter().find(|span| span.name == "POST /v2/datamodel/{id}/sync/{state}").unwrap();
    assert_eq!(request.trace_id[..4], [0x0a, 0xf7, 0x65, 0x19], "the caller's trace");
    assert_eq!(of(&request.attributes, "http.response.status_code"), 202);
    for post in receiver.posts() {
        assert!(!String::from_utf8_lossy(&post.body).contains(&secret));
    }
}

#[test]
fn a_run_that_ends_in_the_grace_period_is_sent_too() {
    let (project, receiver) = (shop(), Receiver::start());
    let service = start(&project, &receiver, &[LATER, ("FAILPOINTS", "after-rewrite=sleep(1500)")]);
    let id = begin(&service);
    service.wait_for(&format!("/v2/run/{id}"), |run| run["progress"]["rows"] == 2);
    assert_eq!(service.stop(), 0);
    let (_, spans) = received(&receiver);
    let runs = runs(&spans);
    let (span, stages) = runs.first().unwrap();
    assert_eq!((of(&span.attributes, "run_id"), of(&span.attributes, "status")), (json!(id), json!("published")));
    assert_eq!(stages.last().unwrap().name, "commit");
}

#[test]
fn a_collector_that_does_not_answer_keeps_nobody_waiting() {
    let project = shop();
    // it is connected to, and never accepts
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let collector = format!("http://{}", silent.local_addr().unwrap());
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let service = Service::start_with(&project, &[], &variables);
    assert_eq!(run(&service)["status"], "published");
    let began = Instant::now();
    assert_eq!(service.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
