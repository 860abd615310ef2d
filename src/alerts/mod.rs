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
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use crate::catalog::CatalogError;
use crate::outgoing::{AddressPolicy, Outgoing, OutgoingError};
use crate::sync::Engine;
use definition::Channel;
use notice::Notice;
use reconcile::{Reconciler, Situation};
use send::SendError;

/// How often the task looks by itself: runs of other processes wake nobody here.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long deliveries that ended are kept.
const KEPT: TimeDelta = TimeDelta::days(30);
/// Between two looks after trouble, and while deliveries are due at once.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);

/// What the task works with; the service is one.
#[async_trait::async_trait]
pub trait Surroundings: Send + Sync + 'static {
    /// The project as it is now.
    fn engine(&self) -> Arc<Engine>;
    /// Models whose schedule a person stopped.
    async fn paused(&self) -> Result<BTreeSet<String>, CatalogError>;
}

/// How the task works.
#[derive(Debug, Clone, Default)]
pub struct AlertOptions {
    /// Where people reach the service; without it, messages have no link.
    pub public_url: Option<Url>,
    /// Which special addresses messages may be sent to.
    pub addresses: AddressPolicy,
    /// How often to look; None: every ten seconds.
    pub interval: Option<Duration>,
}

/// The running task.
#[derive(Debug)]
pub struct Alerts {
    outgoing: Outgoing,
    public_url: Option<Url>,
    wake: Arc<Notify>,
    stop: CancellationToken,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Alerts {
    /// Starts the task.
    pub fn start(surroundings: Arc<dyn Surroundings>, options: AlertOptions) -> Result<Self, OutgoingError> {
        let outgoing = Outgoing::new(options.addresses.clone())?;
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let worker = Worker {
            surroundings,
            outgoing: outgoing.clone(),
            public_url: options.public_url.clone(),
            interval: options.interval.unwrap_or(INTERVAL),
            reconciler: Reconciler::default(),
        };
        let task = tokio::spawn(worker.work(Arc::clone(&wake), stop.clone()));
        let task = tokio::sync::Mutex::new(Some(task));
        Ok(Self { outgoing, public_url: options.public_url, wake, stop, task })
    }

    /// Something happened: look now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Sends a test message, now and once. `by`: who asks for it.
    pub async fn test(&self, engine: &Engine, channel: &Channel, by: &str) -> Result<(), SendError> {
        let now = engine.clock.now();
        let url = self.public_url.as_ref().map(Url::to_string);
        let notice = Notice::test(Uuid::now_v7().to_string(), &channel.name, by, now, url);
        send::send(channel, &notice, &engine.project, &self.outgoing, now).await
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

struct Worker {
    surroundings: Arc<dyn Surroundings>,
    outgoing: Outgoing,
    public_url: Option<Url>,
    interval: Duration,
    reconciler: Reconciler,
}

impl Worker {
    async fn work(mut self, wake: Arc<Notify>, stop: CancellationToken) {
        loop {
            let wait = tokio::select! {
                wait = self.look() => wait,
                () = stop.cancelled() => return,
            };
            tokio::select! {
                () = wake.notified() => {}
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

    async fn try_look(&mut self) -> Result<Duration, CatalogError> {
        let engine = self.surroundings.engine();
        let paused = self.surroundings.paused().await?;
        let situation = Situation {
            project: &engine.project,
            paused: &paused,
            now: engine.clock.now(),
            public_url: self.public_url.as_ref(),
        };
        self.reconciler.reconcile(&engine.catalog, situation).await?;
        deliver::deliver(&engine.catalog, &engine.project, &self.outgoing, &*engine.clock).await?;
        let now = engine.clock.now();
        engine.catalog.trim_deliveries(now - KEPT).await?;
        let next = engine.catalog.next_delivery().await?;
        Ok(next.and_then(|at| (at - now).to_std().ok()).unwrap_or(self.interval))
    }
}
