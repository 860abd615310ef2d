#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::VecDeque;
use std::sync::Mutex;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

/// Gives these answers, one after another; the last again and again.
struct Scripted(Mutex<VecDeque<Vec<IpAddr>>>);

impl Scripted {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|a| a.parse().unwrap()).collect();
        Arc::new(Self(Mutex::new(answers.iter().map(parse).collect())))
    }
}

impl Names for Scripted {
    fn lookup(&self, _: &str) -> Lookup {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move { Ok(answer.unwrap()) })
    }
}

fn loopback_allowed() -> AddressPolicy {
    AddressPolicy::allowing(["127.0.0.1/32".parse().unwrap()])
}

async fn serve(app: Router) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    port
}

#[tokio::test]
async fn a_host_written_as_an_address_is_refused_in_every_notation() {
    let outgoing = Outgoing::new(AddressPolicy::default()).unwrap();
    for url in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://017700000001/",
        "http://0177.0.0.1/",
        "http://127.0.0.1./",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://0/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://①②⑦.⓪.⓪.①/",
    ] {
        let error = outgoing.post(url, HeaderMap::new(), "", LIMIT).await.unwrap_err();
        assert!(matches!(error, OutgoingError::Refused { .. }), "{url}: {error}");
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn only_http_without_a_login_is_asked() {
    let outgoing = Outgoing::new(AddressPolicy::default()).unwrap();
    assert!(matches!(outgoing.check("file:///etc/passwd"), Err(OutgoingError::Scheme(_))));
    assert!(matches!(outgoing.check("gopher://example.com/"), Err(OutgoingError::Scheme(_))));
    assert!(matches!(outgoing.check("https://ada:secret@example.com/"), Err(OutgoingError::Login)));
    assert!(matches!(outgoing.check("example.com"), Err(OutgoingError::NotAUrl)));
    assert!(outgoing.check(" https://example.com/hook ").is_ok());
}

#[tokio::test]
async fn a_name_with_one_refused_address_among_others_is_refused() {
    for answer in [&["127.0.0.1"] as &[&str], &["1.1.1.1", "10.0.0.1"], &["2606:4700::1111", "::1"]] {
        let outgoing = Outgoing::with_names(AddressPolicy::default(), Scripted::new(&[answer])).unwrap();
        let error = outgoing.post("http://rebind.example/", HeaderMap::new(), "", LIMIT).await.unwrap_err();
        let OutgoingError::Refused { host, .. } = &error else { panic!("{answer:?}: {error}") };
        assert_eq!(host, "rebind.example");
    }
}

#[tokio::test]
async fn a_name_that_means_another_address_at_the_second_look_is_judged_each_time() {
    let port = serve(Router::new().route("/", post(|| async { "taken" }))).await;
    let names = Scripted::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let outgoing = Outgoing::with_names(loopback_allowed(), names).unwrap();
    let url = format!("http://rebind.example:{port}/");
    // the connection must not be kept, or the second request needs no look-up
    let close = || HeaderMap::from_iter([(reqwest::header::CONNECTION, "close".parse().unwrap())]);
    assert!(outgoing.post(&url, close(), "", LIMIT).await.unwrap().is_success());
    let error = outgoing.post(&url, close(), "", LIMIT).await.unwrap_err();
    assert!(matches!(error, OutgoingError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let redirect = || async { (StatusCode::TEMPORARY_REDIRECT, [("location", "http://169.254.169.254/")]) };
    let port = serve(Router::new().route("/", post(redirect))).await;
    let outgoing = Outgoing::new(loopback_allowed()).unwrap();
    let answer = outgoing.post(&format!("http://127.0.0.1:{port}/"), HeaderMap::new(), "", LIMIT).await.unwrap();
    assert_eq!(answer.status, 307);
}

#[tokio::test]
async fn a_long_answer_is_cut_and_a_slow_one_given_up() {
    let slow = || async { tokio::time::sleep(Duration::from_secs(60)).await };
    let app = Router::new().route("/long", post(|| async { vec![b'x'; 1 << 20] })).route("/slow", post(slow));
    let port = serve(app).await;
    let outgoing = Outgoing::new(loopback_allowed()).unwrap();
    let url = |path: &str| format!("http://127.0.0.1:{port}/{path}");
    let answer = outgoing.post(&url("long"), HeaderMap::new(), "", LIMIT).await.unwrap();
    assert_eq!(answer.body.len(), MAX_ANSWER);
    let limit = Duration::from_millis(200);
    let error = outgoing.post(&url("slow?token=hunter2"), HeaderMap::new(), "", limit).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.to_string(), "127.0.0.1: no answer in time");
}
