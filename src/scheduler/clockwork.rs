//! What moves the service by itself: [`tokio_cron_scheduler`] says when, reconcilers do the work.
//!
//! A job of the clockwork only wakes its [`Reconciler`]; the work happens in the reconciler's own task, so that work
//! that takes longer than a tick is never done twice at once and never delays another's. A reconciler can be woken by a
//! signal too ([`Wake`]), and wakes by itself when nothing woke it for a while: the jobs follow the machine's clock, and
//! stand still when that is set back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

/// Brings something to what it should be. Doing it again, or after having missed any number of wake-ups, is harmless.
#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// For the log.
    fn name(&self) -> &'static str;

    /// Looks at what is, and does what there is to do. Deals with its own errors.
    async fn reconcile(&self);
}

/// Wakes a reconciler; waking it several times before it comes to it counts as once.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// The jobs and the reconcilers' tasks.
pub struct Clockwork {
    jobs: JobScheduler,
    tasks: Mutex<JoinSet<()>>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Clockwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clockwork").finish_non_exhaustive()
    }
}

impl Clockwork {
    /// A clockwork that moves, with nothing on it yet.
    pub async fn start() -> Result<Self, JobSchedulerError> {
        let jobs = JobScheduler::new().await?;
        jobs.start().await?;
        Ok(Self { jobs, tasks: Mutex::default(), stop: CancellationToken::new() })
    }

    /// Wakes the reconciler at the times of `cron` (six fields, from seconds; UTC), when `wake` is used, and when it was
    /// not woken for as long as `at_least`. Never twice at once.
    pub async fn add(
        &self,
        cron: &str,
        at_least: Duration,
        wake: Wake,
        reconciler: Arc<dyn Reconciler>,
    ) -> Result<(), JobSchedulerError> {
        let signal = wake.clone();
        let job = Job::new_async(cron, move |_, _| {
            signal.wake();
            Box::pin(std::future::ready(()))
        })?;
        self.jobs.add(job).await?;
        let stop = self.stop.clone();
        self.tasks.lock().await.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = wake.0.notified() => {}
                    () = tokio::time::sleep(at_least) => {}
                }
                let done = std::panic::AssertUnwindSafe(reconciler.reconcile()).catch_unwind().await;
                if done.is_err() {
                    tracing::error!(
                        task = reconciler.name(),
                        "a background task failed; it goes on with its next turn"
                    );
                }
            }
        });
        Ok(())
    }

    /// Stops waking, and waits for what is being done.
    pub async fn stop(&self) {
        if let Err(error) = self.jobs.clone().shutdown().await {
            tracing::warn!(%error, "the clockwork did not stop");
        }
        self.stop.cancel();
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicU32);

    #[async_trait]
    impl Reconciler for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        async fn reconcile(&self) {
            if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
                panic!("the first turn fails");
            }
        }
    }

    async fn reached(counting: &Counting, n: u32) -> bool {
        for _ in 0..400 {
            if counting.0.load(Ordering::SeqCst) >= n {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn jobs_signals_and_timers_wake_and_a_panic_is_survived() {
        let clockwork = Clockwork::start().await.unwrap();
        let long = Duration::from_secs(3600);
        let (by_job, by_signal, by_timer) = (Arc::new(Counting::default()), Arc::default(), Arc::default());
        clockwork.add("* * * * * *", long, Wake::default(), Arc::clone(&by_job) as Arc<dyn Reconciler>).await.unwrap();
        let wake = Wake::default();
        let signalled: Arc<Counting> = Arc::clone(&by_signal);
        clockwork.add("0 0 0 1 1 *", long, wake.clone(), signalled).await.unwrap();
        let timed: Arc<Counting> = Arc::clone(&by_timer);
        clockwork.add("0 0 0 1 1 *", Duration::from_millis(20), Wake::default(), timed).await.unwrap();
        assert!(reached(&by_job, 2).await);
        assert!(reached(&by_timer, 2).await);
        assert_eq!(by_signal.0.load(Ordering::SeqCst), 0);
        wake.wake();
        assert!(reached(&by_signal, 1).await);
        wake.wake();
        assert!(reached(&by_signal, 2).await);
        clockwork.stop().await;
        let (jobs, timers) = (by_job.0.load(Ordering::SeqCst), by_timer.0.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!((by_job.0.load(Ordering::SeqCst), by_timer.0.load(Ordering::SeqCst)), (jobs, timers));
    }
}
