//! Threads for work that keeps a processor busy: runs, and queries over profiles.
//!
//! A task that computes for milliseconds keeps its thread from whatever else waits there. What answers requests on the
//! same threads would be late by that much, so such work has threads of its own, and the operating system divides
//! the processors.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

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
    match Builder::new_multi_thread().thread_name("work").enable_all().build() {
        Ok(runtime) => Some(Threads(Some(runtime))),
        Err(error) => {
            tracing::warn!(%error, "no further threads: runs share those that answer requests");
            None
        }
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
