//! Alerts: who is told of what, when a model fails, is held, late, empty, or unlike itself; and when that has ended.
//!
//! ```text
//! runs end (any process) ─► audit trail ─► reconcile ─► incidents, deliveries ─► deliver ─► send
//!                           holds, clock ─┘  (one transaction)                   (attempts)
//! ```
//!
//! Actors: [`definition`] is what people wrote; [`judge`] what one run says of a condition, with [`anomaly`] for
//! numbers; [`reconcile`] turns what happened into incidents and owed messages; [`deliver`] makes the attempts and
//! [`send`] one of them; [`Alerts`] is the task that does both, when it is woken and every few seconds.
//!
//! Invariants:
//! - one incident a rule, model and condition while it lasts, in the catalog: a restart neither repeats nor loses a
//!   message;
//! - a message arrives at least once, with the same id every time; of one incident and channel in order;
//! - no message, error or log holds a channel's address or a secret.

pub mod anomaly;
pub mod definition;
pub mod deliver;
pub mod judge;
pub mod notice;
pub mod reconcile;
pub mod send;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::catalog::CatalogError;
use crate::config::Project;
use crate::outgoing::{AddressPolicy, Outgoing, OutgoingError};
use crate::sync::Engine;
use notice::Notice;
use reconcile::{Reconciler, Situation};
use send::SendError;

/// How often the task looks by itself: runs of other processes wake nobody here.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long deliveries that ended are kept.
const KEPT: TimeDelta = TimeDelta::days(30);
/// Between two looks after trouble, and while deliveries are due at once.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);

/// How often a channel may be tried: three times at once, then every ten seconds.
const TEST_EVERY: Duration = Duration::from_secs(10);
const TESTS_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);

/// What the task works with; the service is one.
#[async_trait::async_trait]
pub trait Surroundings: Send + Sync + 'static {
    /// The project as it is now.
    fn engine(&self) -> Arc<Engine>;
    /// Models whose schedule a person stopped.
    async fn paused(&self) -> Result<BTreeSet<String>, CatalogError>;
}

/// The running task.
#[derive(Debug)]
pub struct Alerts {
    stop: CancellationToken,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    tests: DefaultKeyedRateLimiter<String>,
}

/// Why a channel was not tried, or not reached.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    #[error("there is no channel `{0}`")]
    NoSuchChannel(String),
    #[error("the channel was tried too often")]
    TooOften { retry_after: Duration },
    #[error("{0}")]
    Send(#[from] SendError),
}

impl Alerts {
    /// Starts the task, after a first look: what happens from now on is told. `interval`: how often it looks by itself;
    /// None: every ten seconds.
    pub async fn start(surroundings: Arc<dyn Surroundings>, interval: Option<Duration>) -> Self {
        let stop = CancellationToken::new();
        let interval = interval.unwrap_or(INTERVAL);
        let mut worker = Worker { surroundings, interval, outgoing: None, reconciler: Reconciler::default() };
        if let Err(error) = worker.reconcile().await {
            tracing::error!(%error, "alerts could not be looked after, and will be again");
        }
        let task = tokio::spawn(worker.work(stop.clone()));
        let quota = Quota::with_period(TEST_EVERY).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        let tests = RateLimiter::keyed(quota.allow_burst(TESTS_AT_ONCE));
        Self { stop, task: tokio::sync::Mutex::new(Some(task)), tests }
    }

    /// Sends a test message, now and once. `by`: who asks for it.
    pub async fn test(&self, engine: &Engine, channel: &str, by: &str) -> Result<(), TestError> {
        let Some(channel) = engine.project.alerts.channels.get(channel) else {
            return Err(TestError::NoSuchChannel(channel.into()));
        };
        self.tests.check_key(&channel.name).map_err(|until| {
            let retry_after = until.wait_time_from(DefaultClock::default().now());
            TestError::TooOften { retry_after }
        })?;
        let now = engine.clock.now();
        let outgoing = Outgoing::new(policy(&engine.project)).map_err(SendError::from)?;
        let url = engine.project.service.public_url.clone();
        let notice = Notice::test(Uuid::now_v7().to_string(), &channel.name, by, now, url);
        Ok(send::send(channel, &notice, &engine.project, &outgoing, now).await?)
    }

    /// Stops the task. An attempt under way is given up, and made again after the next start.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the task that sends alerts ended badly");
        }
    }
}

/// Where messages may be sent to.
fn policy(project: &Project) -> AddressPolicy {
    AddressPolicy::allowing(project.service.allow_private_addresses.iter().copied())
}

struct Worker {
    surroundings: Arc<dyn Surroundings>,
    interval: Duration,
    /// Kept while the policy that it was made for is in force.
    outgoing: Option<Outgoing>,
    reconciler: Reconciler,
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("{0}")]
    Catalog(#[from] CatalogError),
    #[error("{0}")]
    Outgoing(#[from] OutgoingError),
}

impl Worker {
    async fn work(mut self, stop: CancellationToken) {
        loop {
            let wait = tokio::select! {
                wait = self.look() => wait,
                () = stop.cancelled() => return,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Does everything that can be done now. Returns how long nothing is due.
    async fn look(&mut self) -> Duration {
        match self.try_look().await {
            Ok(wait) => wait.clamp(SHORTEST_WAIT, self.interval.max(SHORTEST_WAIT)),
            Err(error) => {
                tracing::error!(%error, "alerts could not be looked after, and will be again");
                self.interval
            }
        }
    }

    /// Writes down what is owed.
    async fn reconcile(&mut self) -> Result<(), CatalogError> {
        let engine = self.surroundings.engine();
        let paused = self.surroundings.paused().await?;
        let situation = Situation { project: &engine.project, paused: &paused, now: engine.clock.now() };
        self.reconciler.reconcile(&engine.catalog, situation).await
    }

    async fn try_look(&mut self) -> Result<Duration, LookError> {
        self.reconcile().await?;
        let engine = self.surroundings.engine();
        let policy = policy(&engine.project);
        let outgoing = match self.outgoing.take().filter(|outgoing| *outgoing.policy() == policy) {
            Some(outgoing) => self.outgoing.insert(outgoing),
            None => self.outgoing.insert(Outgoing::new(policy)?),
        };
        deliver::deliver(&engine.catalog, &engine.project, outgoing, &*engine.clock).await?;
        let now = engine.clock.now();
        engine.catalog.trim_deliveries(now - KEPT).await?;
        let next = engine.catalog.next_delivery().await?;
        Ok(next.and_then(|at| (at - now).to_std().ok()).unwrap_or(self.interval))
    }
}
