//! What one run says of each condition of a rule. Pure: the same run and history give the same verdicts.
//!
//! A run that was cancelled says nothing, and neither does one that applied held removals (a person watches that one).
//! Whether removals wait and whether a model is late is not a matter of one run: `reconcile` looks at those.

use super::anomaly::{self, Breach, Limits};
use super::definition::{Condition, Rule};
use super::notice::Finding;
use crate::sync::report::{RunKind, RunReport, RunStatus};

/// What is known of a condition now.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is so.
    Is(Finding),
    /// It is not so.
    IsNot(Finding),
}

/// The verdicts of a run. `before`: the runs before it that compared a result, the newest first.
pub fn judge(rule: &Rule, run: &RunReport, before: &[RunReport]) -> Vec<(Condition, Verdict)> {
    let mut verdicts = Vec::new();
    if run.kind != RunKind::Sync {
        return verdicts;
    }
    let mut say = |condition: Condition, summary: Option<String>, breach: Option<Breach>| {
        if !rule.watches(condition) {
            return;
        }
        verdicts.push((
            condition,
            match summary {
                Some(summary) => Verdict::Is(Finding { breach, ..Finding::of_run(run, summary) }),
                None => Verdict::IsNot(Finding::of_run(run, ended(condition))),
            },
        ));
    };
    match run.status {
        RunStatus::Failed => say(Condition::Failed, Some("the run failed; nothing was changed".into()), None),
        RunStatus::Interrupted => {
            say(
                Condition::Failed,
                Some("the run's process ended before the run did; nothing was changed".into()),
                None,
            );
        }
        RunStatus::Running | RunStatus::Cancelled => {}
        RunStatus::Published | RunStatus::Unchanged | RunStatus::Held => {
            say(Condition::Failed, None, None);
            say_compared(rule, run, before, &mut say);
        }
    }
    verdicts
}

fn say_compared(
    rule: &Rule,
    run: &RunReport,
    before: &[RunReport],
    say: &mut impl FnMut(Condition, Option<String>, Option<Breach>),
) {
    // a result that stays empty removes nothing any more, and says nothing new
    if run.rows > 0 {
        say(Condition::Empty, None, None);
    } else if run.removed > 0 {
        say(Condition::Empty, Some(format!("the query returned no rows; there were {} before", run.removed)), None);
    }
    if let Some(limit) = rule.quarantined_percent {
        let percent = if run.rows == 0 { 0.0 } else { run.quarantined as f64 * 100.0 / run.rows as f64 };
        let summary = (percent > limit).then(|| {
            format!("{} of {} rows were set aside: {percent:.2} %, more than {limit} %", run.quarantined, run.rows)
        });
        say(Condition::Quarantine, summary, None);
    }
    if let Some(limits) = &rule.size {
        let history: Vec<u64> = before.iter().map(|run| run.rows).collect();
        let breach = limits.breach(run.rows, &history);
        say(Condition::Size, breach.map(|b| describe(b, limits, run.rows, |v| format!("{v} rows"))), breach);
    }
    // all rows of a model's first run are new: that is no rate of change, and there is none to compare with
    if let Some(limits) = &rule.change_rate
        && let Some((_first, later)) = before.split_last()
    {
        // with fewer runs than were asked for, the last of them is the model's first
        let history: Vec<u64> = if before.len() <= limits.runs { later } else { before }.iter().map(rate).collect();
        let value = rate(run);
        let breach = limits.breach(value, &history);
        let shown = |v: u64| format!("{:.2} % of the rows changed", v as f64 / 10_000.0);
        say(Condition::ChangeRate, breach.map(|b| describe(b, limits, value, shown)), breach);
    }
}

/// How many earlier runs `judge` wants: one more than the mean is of, to tell whether the model's first is among them.
pub fn history_of(rule: &Rule) -> usize {
    let runs = |limits: &Option<Limits>| limits.map_or(0, |limits| limits.runs + 1);
    runs(&rule.size).max(runs(&rule.change_rate))
}

fn rate(run: &RunReport) -> u64 {
    let changes = run.added.saturating_add(run.changed).saturating_add(run.removed);
    anomaly::change_rate(changes, run.rows)
}

fn describe(breach: Breach, limits: &Limits, value: u64, shown: impl Fn(u64) -> String) -> String {
    match breach {
        Breach::BelowMin(min) => format!("{}; at least {} are expected", shown(value), plain(&shown(min))),
        Breach::AboveMax(max) => format!("{}; at most {} are expected", shown(value), plain(&shown(max))),
        Breach::FarFromMean { mean, runs } => {
            let percent = limits.variance.unwrap_or_default() as f64 / 100.0;
            format!(
                "{}; the mean of the last {runs} runs is {}, and {percent} % of it is the farthest that is expected",
                shown(value),
                plain(&shown(mean))
            )
        }
    }
}

/// The number alone: "12 rows" -> "12", "1.50 % of the rows changed" -> "1.50 %".
fn plain(shown: &str) -> &str {
    shown.strip_suffix(" rows").or_else(|| shown.strip_suffix(" of the rows changed")).unwrap_or(shown)
}

/// What is said when a condition ended.
pub fn ended(condition: Condition) -> &'static str {
    match condition {
        Condition::Failed => "the model runs again",
        Condition::Held => "no removals wait any more",
        Condition::Late => "a run of the model began",
        Condition::Empty => "the query returns rows again",
        Condition::Quarantine => "fewer rows are set aside again",
        Condition::Size => "the size is as expected again",
        Condition::ChangeRate => "the change rate is as expected again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(status: RunStatus) -> RunReport {
        let mut run = RunReport::new("r".into(), "m".into(), RunKind::Sync, chrono::DateTime::UNIX_EPOCH);
        run.status = status;
        run
    }

    fn rows(rows: u64) -> RunReport {
        RunReport { rows, ..run(RunStatus::Published) }
    }

    fn everything() -> Rule {
        Rule {
            name: "all".into(),
            channels: vec!["c".into()],
            models: Vec::new(),
            connections: Vec::new(),
            failed: true,
            held: true,
            empty: true,
            late_after: None,
            quarantined_percent: Some(5.0),
            size: Some(Limits { variance: Some(5000), ..Limits::default() }),
            change_rate: Some(Limits { max: Some(200_000), ..Limits::default() }),
            recovery: true,
            remind_every: None,
            spans: Default::default(),
        }
    }

    fn found(rule: &Rule, run: &RunReport, before: &[RunReport]) -> Vec<Condition> {
        let is = |(condition, verdict): (Condition, Verdict)| matches!(verdict, Verdict::Is(_)).then_some(condition);
        judge(rule, run, before).into_iter().filter_map(is).collect()
    }

    #[test]
    fn a_failed_and_an_interrupted_run_are_told_and_a_cancelled_one_says_nothing() {
        let rule = everything();
        assert_eq!(found(&rule, &run(RunStatus::Failed), &[]), [Condition::Failed]);
        assert_eq!(found(&rule, &run(RunStatus::Interrupted), &[]), [Condition::Failed]);
        assert!(judge(&rule, &run(RunStatus::Cancelled), &[]).is_empty());
        let approved = RunReport { kind: RunKind::Approve, ..run(RunStatus::Published) };
        assert!(judge(&rule, &approved, &[]).is_empty());
    }

    #[test]
    fn a_rule_is_silent_about_what_it_does_not_watch() {
        let rule = Rule { failed: false, ..everything() };
        assert!(judge(&rule, &run(RunStatus::Failed), &[]).is_empty());
    }

    #[test]
    fn empty_means_that_there_were_rows_before() {
        let rule = everything();
        assert_eq!(found(&rule, &rows(0), &[]), []);
        assert_eq!(found(&rule, &RunReport { removed: 7, ..rows(0) }, &[]), [Condition::Empty]);
        // held: the rows are still there, and would be removed
        assert_eq!(found(&rule, &RunReport { removed: 7, ..rows(0) }, &[rows(7)])[0], Condition::Empty);
    }

    #[test]
    fn quarantine_is_told_above_the_limit_and_not_at_it() {
        let rule = everything();
        assert_eq!(found(&rule, &RunReport { quarantined: 5, ..rows(100) }, &[]), []);
        assert_eq!(found(&rule, &RunReport { quarantined: 6, ..rows(100) }, &[]), [Condition::Quarantine]);
    }

    #[test]
    fn the_size_is_compared_with_the_mean_of_the_runs_before() {
        let rule = everything();
        let before = [rows(100), rows(100), rows(100)];
        assert_eq!(found(&rule, &rows(150), &before), []);
        assert_eq!(found(&rule, &rows(151), &before), [Condition::Size]);
        assert_eq!(found(&rule, &rows(49), &before), [Condition::Size]);
    }

    #[test]
    fn the_first_run_of_a_model_has_no_rate_of_change() {
        let rule = everything();
        let first = RunReport { added: 100, ..rows(100) };
        assert_eq!(found(&rule, &first, &[]), []);
        assert_eq!(found(&rule, &RunReport { changed: 20, ..rows(100) }, std::slice::from_ref(&first)), []);
        assert_eq!(found(&rule, &RunReport { changed: 21, ..rows(100) }, &[first]), [Condition::ChangeRate]);
    }

    #[test]
    fn a_first_run_is_not_part_of_the_mean_of_rates() {
        let limits = Limits { variance: Some(5000), runs: 3, ..Limits::default() };
        let rule = Rule { size: None, change_rate: Some(limits), ..everything() };
        let first = RunReport { added: 100, ..rows(100) };
        let usual = RunReport { changed: 10, ..rows(100) };
        // newest first; two runs with a rate are too few for a mean
        let before = [usual.clone(), usual.clone(), first.clone()];
        assert_eq!(found(&rule, &RunReport { changed: 90, ..rows(100) }, &before), []);
        let before = [usual.clone(), usual.clone(), usual.clone(), first];
        assert_eq!(found(&rule, &RunReport { changed: 15, ..rows(100) }, &before), []);
        assert_eq!(found(&rule, &RunReport { changed: 16, ..rows(100) }, &before), [Condition::ChangeRate]);
    }
}
