//! How a model does: judged from its definition, its last runs, what waits, and its schedule.

use chrono::{DateTime, TimeDelta, Utc};

use super::shape::{Health, HealthStatus};
use crate::config::ConfigError;
use crate::sync::report::{RunReport, RunStatus};

/// What the judgement is made from.
#[derive(Debug)]
pub struct Signs<'a> {
    /// Of its definition.
    pub faults: &'a [ConfigError],
    pub active: bool,
    pub paused: bool,
    /// The newest runs, newest first.
    pub runs: &'a [RunReport],
    /// The run whose removals wait for a person, and how many rows those are.
    pub held: Option<(&'a str, u64)>,
    /// A run of it waits or is under way.
    pub busy: bool,
    /// When it is due.
    pub next: Option<DateTime<Utc>>,
    pub late_after: TimeDelta,
    pub now: DateTime<Utc>,
}

/// The first of these that is true: unusable, inactive, failing, held, paused, late, never run, healthy.
pub fn judge(signs: &Signs<'_>) -> Health {
    let health = |status, details: String| Health { status, details };
    if let Some(first) = signs.faults.first() {
        let more = match signs.faults.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        return health(HealthStatus::Unusable, format!("{}{more}", first.message));
    }
    if !signs.active {
        return health(HealthStatus::Inactive, "it is not queried until it is activated".into());
    }
    if let Some(details) = failing(signs.runs) {
        return health(HealthStatus::Failing, details);
    }
    if let Some((run, removed)) = signs.held {
        return health(HealthStatus::Held, format!("{removed} removals of run {run} wait to be approved or rejected"));
    }
    if signs.paused {
        return health(HealthStatus::Paused, "its schedule starts nothing until it is resumed".into());
    }
    if let Some(due) = signs.next.filter(|due| !signs.busy && signs.now - *due > signs.late_after) {
        return health(HealthStatus::Late, format!("it was due at {}, and has not started", time(due)));
    }
    match signs.runs.iter().find(|run| is_good(run.status)) {
        Some(run) => {
            let at = run.finished_at.unwrap_or(run.started_at);
            health(HealthStatus::Healthy, format!("its last run ended well at {}", time(at)))
        }
        None if signs.busy => health(HealthStatus::NeverRun, "its first run waits or is under way".into()),
        None => health(HealthStatus::NeverRun, "no run of it has ended yet".into()),
    }
}

fn is_good(status: RunStatus) -> bool {
    matches!(status, RunStatus::Published | RunStatus::Unchanged | RunStatus::Held)
}

/// The failures since the last good run. Runs that somebody cancelled, or that have not ended, tell nothing.
fn failing(runs: &[RunReport]) -> Option<String> {
    let mut told = runs.iter().filter(|run| !matches!(run.status, RunStatus::Cancelled | RunStatus::Running));
    let first = told.next().filter(|run| !is_good(run.status))?;
    let failures = 1 + told.take_while(|run| !is_good(run.status)).count();
    let which = if failures == 1 { "the last run".to_string() } else { format!("the last {failures} runs") };
    Some(format!("{which} failed: {}", error_of(first)))
}

/// Why a run failed.
pub fn error_of(run: &RunReport) -> String {
    run.error.clone().unwrap_or_else(|| "the process ended before the run did".into())
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::sync::report::RunKind;

    fn run(status: RunStatus) -> RunReport {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut run = RunReport::new("r".into(), "m".into(), RunKind::Sync, at);
        run.status = status;
        run.error = (status == RunStatus::Failed).then(|| "no table".into());
        run
    }

    fn signs(runs: &[RunReport]) -> Signs<'_> {
        Signs {
            faults: &[],
            active: true,
            paused: false,
            runs,
            held: None,
            busy: false,
            next: None,
            late_after: TimeDelta::minutes(15),
            now: "2026-01-01T06:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn each_state_is_told_and_the_worse_one_first() {
        use HealthStatus as H;
        use RunStatus as R;
        let of = |signs: Signs<'_>| judge(&signs).status;
        assert_eq!(of(signs(&[])), H::NeverRun);
        let good = [run(R::Published)];
        assert_eq!(of(signs(&good)), H::Healthy);
        assert_eq!(of(signs(&[run(R::Cancelled), run(R::Running), run(R::Unchanged)])), H::Healthy);
        let bad = [run(R::Cancelled), run(R::Failed), run(R::Interrupted), run(R::Published), run(R::Failed)];
        assert_eq!(judge(&signs(&bad)).details, "the last 2 runs failed: no table");
        assert_eq!(of(Signs { held: Some(("r", 5)), ..signs(&bad) }), H::Failing);
        assert_eq!(of(Signs { held: Some(("r", 5)), paused: true, ..signs(&good) }), H::Held);
        assert_eq!(of(Signs { active: false, ..signs(&bad) }), H::Inactive);
        let due = Some("2026-01-01T05:44:00Z".parse().unwrap());
        assert_eq!(of(Signs { next: due, ..signs(&good) }), H::Late);
        assert_eq!(of(Signs { next: due, busy: true, ..signs(&good) }), H::Healthy);
        assert_eq!(of(Signs { next: due, paused: true, ..signs(&good) }), H::Paused);
        let soon = Some("2026-01-01T05:46:00Z".parse().unwrap());
        assert_eq!(of(Signs { next: soon, ..signs(&good) }), H::Healthy);
        let faults = [ConfigError::of_file("x", "f", "a fault"), ConfigError::of_file("x", "f", "another")];
        let unusable = judge(&Signs { faults: &faults, ..signs(&good) });
        assert_eq!((unusable.status, unusable.details.as_str()), (H::Unusable, "a fault (and 1 more)"));
    }
}
