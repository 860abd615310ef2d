//! From runs in the catalog to messages at real receivers, with the clock held still.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::reconcile::{Reconciler, Situation};
use super::{deliver, *};
use crate::catalog::alerts::{Delivery, DeliveryStatus};
use crate::catalog::{Catalog, Publication};
use crate::clock::Clock;
use crate::outgoing::AddressPolicy;
use crate::sync::report::{Hold, RunKind, RunReport, RunStatus};

/// A clock that stands still until it is moved.
#[derive(Debug)]
struct Held(Mutex<DateTime<Utc>>);

impl Held {
    fn forward(&self, by: TimeDelta) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for Held {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A project with one model, its catalog and a clock.
struct World {
    dir: tempfile::TempDir,
    catalog: Catalog,
    clock: Held,
    project: Project,
    reconciler: Reconciler,
    paused: BTreeSet<String>,
    runs: u32,
}

impl World {
    async fn new(alerts: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("models")).unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::write(dir.path().join("models/buyers.sql"), "SELECT email, total FROM orders").unwrap();
        let model = "connection: shop\nprimary_key: email\nexternal_key: email\nactivated_fields: [total]\nschedule: every 1h\n";
        std::fs::write(dir.path().join("models/buyers.yml"), model).unwrap();
        let project = project(dir.path(), alerts);
        let catalog = Catalog::open(&dir.path().join("catalog.db")).await.unwrap();
        let clock = Held(Mutex::new("2026-03-02T09:00:00Z".parse().unwrap()));
        let mut world =
            Self { dir, catalog, clock, project, reconciler: Reconciler::default(), paused: BTreeSet::new(), runs: 0 };
        world.pass().await;
        world
    }

    fn rewrite(&mut self, alerts: &str) {
        self.project = project(self.dir.path(), alerts);
    }

    /// A run that began a minute ago and ends now.
    async fn run(&mut self, change: impl FnOnce(&mut RunReport)) -> RunReport {
        self.runs += 1;
        let id = format!("run-{:04}", self.runs);
        let mut report = RunReport::new(id, "buyers".into(), RunKind::Sync, self.clock.now() - TimeDelta::minutes(1));
        self.catalog.begin(&report).await.unwrap();
        report.finish(RunStatus::Published, self.clock.now());
        report.rows = 100;
        change(&mut report);
        let hold = (report.status == RunStatus::Held).then(|| Hold { removed: 40, of: 100, ..Hold::default() });
        self.catalog.finish(&Publication::of_nothing(&report, hold.as_ref())).await.unwrap();
        report
    }

    async fn fail(&mut self) {
        self.run(|run| {
            run.status = RunStatus::Failed;
            run.error = Some("no table `orders`".into());
            run.hint = Some("create it".into());
        })
        .await;
    }

    async fn pass(&mut self) {
        let situation = Situation { project: &self.project, paused: &self.paused, now: self.clock.now() };
        self.reconciler.reconcile(&self.catalog, situation).await.unwrap();
    }

    /// Kind and condition of every message that was owed, the oldest first.
    async fn told(&self) -> Vec<String> {
        let mut all = self.catalog.alert_deliveries(None, 500).await.unwrap();
        all.reverse();
        all.iter().map(|d| format!("{} {}", d.notice.kind.as_str(), d.notice.condition.unwrap())).collect()
    }
}

fn project(root: &std::path::Path, alerts: &str) -> Project {
    let text = format!(
        "profile: {{ identities: [email] }}\nconnections: {{ shop: {{ type: local, path: data }} }}\n\
         service: {{ public_url: \"https://connect.example.com\" }}\nalerts:\n{alerts}"
    );
    std::fs::write(root.join("cloud-connect.yml"), text).unwrap();
    crate::config::load(root, crate::warehouse::registry()).unwrap()
}

const ONE: &str = "  channels: { hook: { type: webhook, url: 'http://127.0.0.1:1/' } }\n  \
                   rules: { all: { channels: hook, on: [failed, held, empty, late] } }\n";

#[tokio::test]
async fn a_failure_is_told_once_and_its_end_once() {
    let mut world = World::new(ONE).await;
    world.fail().await;
    world.pass().await;
    world.fail().await;
    world.pass().await;
    world.pass().await;
    assert_eq!(world.told().await, ["alert failed"]);
    world.run(|_| ()).await;
    world.run(|_| ()).await;
    world.pass().await;
    assert_eq!(world.told().await, ["alert failed", "recovery failed"]);
    world.fail().await;
    world.pass().await;
    assert_eq!(world.told().await, ["alert failed", "recovery failed", "alert failed"]);
}

#[tokio::test]
async fn a_restart_neither_repeats_nor_loses_a_message() {
    let mut world = World::new(ONE).await;
    world.fail().await;
    world.pass().await;
    world.reconciler = Reconciler::default();
    world.pass().await;
    assert_eq!(world.told().await, ["alert failed"]);
    // while nobody looked: two runs, of which the first ended it and the second began it anew
    world.run(|_| ()).await;
    world.fail().await;
    world.reconciler = Reconciler::default();
    world.pass().await;
    assert_eq!(world.told().await, ["alert failed", "recovery failed", "alert failed"]);
}

#[tokio::test]
async fn what_began_and_ended_long_ago_while_nobody_looked_is_not_told() {
    let mut world = World::new(ONE).await;
    world.fail().await;
    world.run(|_| ()).await;
    world.clock.forward(TimeDelta::hours(25));
    world.run(|_| ()).await;
    world.pass().await;
    assert!(world.told().await.is_empty());
}

#[tokio::test]
async fn runs_before_the_first_look_are_nobodys_news() {
    let mut world = World::new(ONE).await;
    sqlx::query("DELETE FROM alert_cursor").execute(world.catalog.pool()).await.unwrap();
    world.fail().await;
    world.pass().await;
    assert!(world.told().await.is_empty());
    world.fail().await;
    world.pass().await;
    assert_eq!(world.told().await, ["alert failed"]);
}

#[tokio::test]
async fn a_run_that_did_not_even_begin_is_told_as_a_failure() {
    let mut world = World::new(ONE).await;
    let (at, subject) = (world.clock.now(), crate::events::Subject::model("buyers"));
    let event = crate::events::Event::new(at, subject, "run_failed", "the lock cannot be taken");
    let event = event.with(serde_json::json!({ "run_id": "run-x", "hint": "look at the disk" }));
    world.catalog.record_event(&event).await.unwrap();
    world.pass().await;
    let notice = world.deliveries().await.remove(0).notice;
    assert_eq!(notice.title(), "buyers: failed");
    assert_eq!(notice.finding.error.as_deref(), Some("the lock cannot be taken"));
    assert_eq!(notice.finding.hint.as_deref(), Some("look at the disk"));
}

#[tokio::test]
async fn held_removals_are_told_until_a_person_ends_them() {
    let mut world = World::new(ONE).await;
    let first = world.run(|run| run.status = RunStatus::Held).await;
    world.pass().await;
    // a newer comparison holds anew: still the same condition
    let second = world.run(|run| run.status = RunStatus::Held).await;
    world.pass().await;
    assert_eq!(world.told().await, ["alert held"]);
    assert_ne!(first.run_id, second.run_id);
    let rejected = crate::sync::report::HoldStatus::Rejected;
    world.catalog.end_hold(&second.run_id, rejected, world.clock.now()).await.unwrap();
    world.pass().await;
    assert_eq!(world.told().await, ["alert held", "recovery held"]);
}

#[tokio::test]
async fn a_model_whose_time_passed_is_late_until_a_run_begins() {
    let mut world = World::new(ONE).await;
    world.run(|_| ()).await;
    // began at 08:59, so it is due at 09:59 and late from 10:14 on
    world.clock.forward(TimeDelta::minutes(74));
    world.pass().await;
    assert!(world.told().await.is_empty());
    world.clock.forward(TimeDelta::minutes(1));
    world.pass().await;
    assert_eq!(world.told().await, ["alert late"]);
    // after a restart the models have time to catch up, and what was late stays so
    world.reconciler = Reconciler::default();
    world.clock.forward(TimeDelta::minutes(5));
    world.pass().await;
    assert_eq!(world.told().await, ["alert late"]);
    world.run(|_| ()).await;
    world.pass().await;
    assert_eq!(world.told().await, ["alert late", "recovery late"]);
}

#[tokio::test]
async fn a_paused_model_is_not_late() {
    let mut world = World::new(ONE).await;
    world.run(|_| ()).await;
    world.paused.insert("buyers".into());
    world.clock.forward(TimeDelta::days(3));
    world.pass().await;
    // resumed: its patience begins now
    world.paused.clear();
    world.pass().await;
    world.clock.forward(TimeDelta::minutes(14));
    world.pass().await;
    assert!(world.told().await.is_empty());
    world.clock.forward(TimeDelta::minutes(2));
    world.pass().await;
    assert_eq!(world.told().await, ["alert late"]);
}

#[tokio::test]
async fn a_condition_that_lasts_is_told_again_when_that_is_asked_for() {
    let alerts = ONE.replace("channels: hook,", "channels: hook, remind_every: 1h, recovery: false,");
    let mut world = World::new(&alerts).await;
    world.fail().await;
    world.pass().await;
    world.clock.forward(TimeDelta::minutes(10));
    world.pass().await;
    assert_eq!(world.told().await, ["alert failed"]);
    world.clock.forward(TimeDelta::minutes(50));
    world.pass().await;
    world.pass().await;
    assert_eq!(world.told().await, ["alert failed", "reminder failed"]);
    world.run(|_| ()).await;
    world.pass().await;
    assert_eq!(world.told().await, ["alert failed", "reminder failed"]);
}

#[tokio::test]
async fn a_rule_that_is_gone_takes_its_incidents_along_without_a_word() {
    let mut world = World::new(ONE).await;
    world.fail().await;
    world.pass().await;
    world.rewrite("  channels: { hook: { type: webhook, url: 'http://127.0.0.1:1/' } }\n");
    world.pass().await;
    assert!(world.catalog.alert_incidents().await.unwrap().is_empty());
    assert_eq!(world.told().await, ["alert failed"]);
}

#[tokio::test]
async fn sizes_are_compared_with_the_runs_before_in_the_catalog() {
    let rules = "rules: { size: { channels: hook, on: [], size: { variance_percent: 50 } } }";
    let alerts = format!("  channels: {{ hook: {{ type: webhook, url: 'http://127.0.0.1:1/' }} }}\n  {rules}\n");
    let mut world = World::new(&alerts).await;
    for rows in [100, 110, 90, 150, 300] {
        world.clock.forward(TimeDelta::hours(1));
        world.run(|run| run.rows = rows).await;
    }
    world.pass().await;
    assert_eq!(world.told().await, ["alert size"]);
    let delivery = world.catalog.alert_deliveries(None, 1).await.unwrap().remove(0);
    let summary = &delivery.notice.finding.summary;
    assert_eq!(
        summary,
        "300 rows; the mean of the last 4 runs is 113, and 50 % of it is the farthest that is expected"
    );
    assert_eq!(delivery.notice.url.as_deref(), Some("https://connect.example.com/v2/run/run-0005"));
}

/// What a receiver got, and what it answers.
#[derive(Debug, Clone, Default)]
struct Received {
    requests: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

async fn receiver(answers: &[u16]) -> (Received, u16) {
    let received = Received::default();
    *received.answers.lock().unwrap() = answers.to_vec();
    let take = |State(received): State<Received>, headers: HeaderMap, body: String| async move {
        received.requests.lock().unwrap().push((headers, body));
        let mut answers = received.answers.lock().unwrap();
        let answer = if answers.is_empty() { 200 } else { answers.remove(0) };
        StatusCode::from_u16(answer).unwrap()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = Router::new().route("/", post(take)).with_state(received.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (received, port)
}

impl World {
    async fn deliver(&self) {
        let policy = AddressPolicy::allowing(["127.0.0.0/8".parse().unwrap()]);
        let outgoing = Outgoing::new(policy).unwrap();
        deliver::deliver(&self.catalog, &self.project, &outgoing, &self.clock).await.unwrap();
    }

    async fn deliveries(&self) -> Vec<Delivery> {
        self.catalog.alert_deliveries(None, 100).await.unwrap()
    }
}

fn to(port: u16) -> String {
    ONE.replace("127.0.0.1:1/", &format!("127.0.0.1:{port}/"))
}

#[tokio::test]
async fn a_message_that_does_not_arrive_is_sent_again_with_the_same_id_and_before_what_follows() {
    let (received, port) = receiver(&[500]).await;
    let mut world = World::new(&to(port)).await;
    world.fail().await;
    world.pass().await;
    world.deliver().await;
    world.run(|_| ()).await;
    world.pass().await;
    // the recovery waits for the alert, and the alert for its time
    world.deliver().await;
    assert_eq!(received.requests.lock().unwrap().len(), 1);
    world.clock.forward(TimeDelta::seconds(11));
    world.deliver().await;
    let requests = received.requests.lock().unwrap().clone();
    let id = |n: usize| requests[n].0["webhook-id"].to_str().unwrap().to_string();
    let kind = |n: usize| serde_json::from_str::<Value>(&requests[n].1).unwrap()["type"].clone();
    assert_eq!(requests.len(), 3);
    assert_eq!(id(0), id(1));
    assert_ne!(id(1), id(2));
    assert_eq!([kind(0), kind(1), kind(2)], ["alert.alert", "alert.alert", "alert.recovery"]);
    assert!(world.deliveries().await.iter().all(|d| d.status == DeliveryStatus::Delivered));
}

#[tokio::test]
async fn a_message_that_never_arrives_is_given_up_and_the_trail_says_so() {
    let mut world = World::new(ONE).await;
    world.fail().await;
    world.pass().await;
    for _ in 0..deliver::MAX_ATTEMPTS {
        world.deliver().await;
        world.clock.forward(TimeDelta::hours(1));
    }
    let delivery = world.deliveries().await.remove(0);
    assert_eq!((delivery.status, delivery.attempts), (DeliveryStatus::GivenUp, deliver::MAX_ATTEMPTS));
    let filter = crate::catalog::events::EventFilter {
        kind: Some(crate::events::SubjectKind::Alert),
        limit: 10,
        ..Default::default()
    };
    let events = world.catalog.events(&filter).await.unwrap();
    assert_eq!(events[0].verb, "delivery_given_up");
    assert_eq!(events[0].subject.id, "hook");
}

#[tokio::test]
async fn a_receiver_that_is_gone_for_good_is_not_asked_again() {
    let (received, port) = receiver(&[410]).await;
    let mut world = World::new(&to(port)).await;
    world.fail().await;
    world.pass().await;
    world.deliver().await;
    assert_eq!(world.deliveries().await[0].status, DeliveryStatus::GivenUp);
    assert_eq!(received.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn private_networks_are_refused_unless_they_are_allowed() {
    let (received, port) = receiver(&[]).await;
    let mut world = World::new(&to(port)).await;
    world.fail().await;
    world.pass().await;
    let outgoing = Outgoing::new(AddressPolicy::default()).unwrap();
    deliver::deliver(&world.catalog, &world.project, &outgoing, &world.clock).await.unwrap();
    let delivery = world.deliveries().await.remove(0);
    assert_eq!(delivery.error.as_deref(), Some("127.0.0.1 is 127.0.0.1, which is this machine (RFC 1122)"));
    assert!(received.requests.lock().unwrap().is_empty());
}
