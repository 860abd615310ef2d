//! Threads for work that keeps a processor busy: runs, and queries over profiles.
//!
//! A task that computes for milliseconds keeps its thread from whatever else waits there. What answers requests on the
//! same threads would be late by that much, so such work has threads of its own, which step back: the operating system
//! gives them the processors as far as nobody waits for an answer.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use thread_priority::{ThreadPriority, set_current_thread_priority};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Of 100; where niceness is what divides the processors, this is +9: a seventh of what an answer gets.
const PRIORITY: u8 = 25;

/// The threads; started when there is work for the first time. A clone is the same ones.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    started: Arc<OnceLock<Option<Threads>>>,
}

#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Workers {
    /// Runs the task there, as [`tokio::spawn`] does here.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match self.started.get_or_init(start).as_ref().and_then(|threads| threads.0.as_ref()) {
            Some(runtime) => runtime.spawn(task),
            None => tokio::spawn(task),
        }
    }
}

fn start() -> Option<Threads> {
    match Builder::new_multi_thread().thread_name("work").on_thread_start(step_back).enable_all().build() {
        Ok(runtime) => Some(Threads(Some(runtime))),
        Err(error) => {
            tracing::warn!(%error, "no further threads: runs share those that answer requests");
            None
        }
    }
}

/// What computes gives way to what answers.
fn step_back() {
    let set = ThreadPriority::try_from(PRIORITY).map(set_current_thread_priority);
    if !matches!(set, Ok(Ok(()))) {
        tracing::debug!(?set, "this system does not let threads step back: answers wait for runs at times");
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // the last clone may go in a task, where waiting is not allowed; whoever wants an end has waited for its task
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn they_step_back_and_nobody_else_does() {
        // the 19th field, counted after the name in brackets
        let niceness = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let after = stat.rsplit_once(')').unwrap().1;
            after.split_whitespace().nth(16).unwrap().parse::<i64>().unwrap()
        };
        let own = niceness();
        let theirs = Workers::default().spawn(async move { niceness() }).await.unwrap();
        assert_eq!((theirs, niceness()), (own.max(9), own));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_keeps_a_thread_busy_does_not_keep_others_waiting() {
        let workers = Workers::default();
        let (done, until) = std::sync::mpsc::channel::<()>();
        let busy = workers.spawn(async move { until.recv().is_ok() });
        // on this only thread, it would never get here
        tokio::task::yield_now().await;
        done.send(()).unwrap();
        assert!(busy.await.unwrap());
        let last = workers.clone();
        drop(workers);
        last.spawn(async move {}).await.unwrap();
        // dropped within a task
        drop(last);
    }
}
