#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::{Limits, Note, Planned, Planner, SCHEDULER, Started, Stopped, Taken, Waits};
use crate::catalog::schedule::{Cause, ScheduleChange, ScheduleRow, WorkRow};
use crate::sync::report::RunStatus;

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A planner with a held clock, and the catalog as its changes make it.
struct World {
    now: DateTime<Utc>,
    limits: Limits,
    planner: Planner,
    schedules: BTreeMap<String, ScheduleRow>,
    work: BTreeMap<String, WorkRow>,
    models: BTreeMap<String, Planned>,
    notes: Vec<Note>,
}

const NO_JITTER: Limits = Limits {
    max_runs: 100,
    max_runs_per_connection: 100,
    jitter: Duration::ZERO,
    late_after: Duration::from_secs(900),
};

impl World {
    fn new(now: &str, limits: Limits) -> Self {
        let now = utc(now);
        let planner = Planner::restore(limits, Vec::new(), Vec::new(), &BTreeMap::new(), now);
        let (schedules, work, models, notes) = Default::default();
        Self { now, limits, planner, schedules, work, models, notes }
    }

    /// One model `m` with this schedule.
    fn with(now: &str, schedule: &str) -> Self {
        let mut world = Self::new(now, NO_JITTER);
        world.model("m", "files", schedule);
        world
    }

    fn model(&mut self, slug: &str, connection: &str, schedule: &str) {
        let schedule = (!schedule.is_empty()).then(|| schedule.parse().unwrap());
        self.models.insert(slug.into(), Planned { connection: connection.into(), active: true, schedule });
        self.adopt();
    }

    fn adopt(&mut self) {
        self.planner.adopt(self.models.clone(), &BTreeMap::new(), self.now);
        self.written();
    }

    fn written(&mut self) {
        for change in self.planner.take_changes() {
            match change {
                ScheduleChange::Schedule(row) => drop(self.schedules.insert(row.model.clone(), row)),
                ScheduleChange::Forgotten(model) => drop(self.schedules.remove(&model).unwrap()),
                ScheduleChange::Work(row) => drop(self.work.insert(row.model.clone(), row)),
                ScheduleChange::Done(model) => drop(self.work.remove(&model).unwrap()),
            }
        }
        self.notes.extend(self.planner.take_notes());
    }

    fn tick(&mut self) -> Vec<Taken> {
        self.planner.queue_due(self.now);
        let taken = self.planner.take(self.now);
        self.planner.note_late(self.now);
        self.written();
        taken
    }

    fn tick_at(&mut self, now: &str) -> Vec<String> {
        self.now = utc(now);
        self.tick().into_iter().map(|taken| taken.model).collect()
    }

    fn end(&mut self, slug: &str) {
        let run_id = self.work[slug].run_id.clone();
        self.planner.ended(slug, &run_id);
        self.written();
    }

    /// Ticks each second, with runs that end at once, and tells when they began.
    fn starts_until(&mut self, end: &str) -> Vec<String> {
        let mut starts = Vec::new();
        while self.now <= utc(end) {
            for taken in self.tick() {
                starts.push(self.now.format("%m-%d %H:%M:%S").to_string());
                self.end(&taken.model);
            }
            self.now += TimeDelta::seconds(1);
        }
        starts
    }

    /// Another process with the same catalog; `status` is how the engine found the runs that were under way.
    fn restart(&mut self, status: Option<RunStatus>) {
        let mut work: Vec<WorkRow> = self.work.values().cloned().collect();
        work.sort_by_key(|row| row.place);
        let taken = work.iter().filter(|row| row.taken_at.is_some());
        let statuses = taken.filter_map(|row| Some((row.run_id.clone(), status?))).collect();
        let schedules = self.schedules.values().cloned().collect();
        self.planner = Planner::restore(self.limits, schedules, work, &statuses, self.now);
        self.adopt();
    }
}

#[test]
fn an_interval_counts_real_time_and_a_new_model_is_due_at_once() {
    let mut world = World::with("2026-01-01T00:00:10Z", "every 15m");
    let starts = world.starts_until("2026-01-01T00:50:00Z");
    assert_eq!(starts, ["01-01 00:00:10", "01-01 00:15:10", "01-01 00:30:10", "01-01 00:45:10"]);
}

#[test]
fn cron_keeps_the_wall_clock_across_the_spring_change() {
    let mut world = World::with("2026-03-28T00:00:00Z", "cron 30 2 * * * Europe/Berlin");
    // 02:30 does not exist on the 29th: it runs right after the gap, at 03:00 CEST
    let starts = world.starts_until("2026-03-30T12:00:00Z");
    assert_eq!(starts, ["03-28 01:30:00", "03-29 01:00:00", "03-30 00:30:00"]);
}

#[test]
fn cron_runs_once_when_the_autumn_change_repeats_its_time() {
    let mut world = World::with("2026-10-24T00:00:00Z", "cron 30 2 * * * Europe/Berlin");
    let starts = world.starts_until("2026-10-26T12:00:00Z");
    assert_eq!(starts, ["10-24 00:30:00", "10-25 00:30:00", "10-26 01:30:00"]);
}

#[test]
fn what_was_missed_is_caught_up_once_and_the_rhythm_stays() {
    let mut world = World::with("2026-01-01T00:00:00Z", "every 1h");
    assert_eq!(world.tick_at("2026-01-01T00:00:00Z"), ["m"]);
    world.end("m");
    world.restart(None);
    // the service was away from 00:30 to 07:20
    assert_eq!(world.tick_at("2026-01-01T07:20:00Z"), ["m"]);
    world.end("m");
    assert!(world.tick_at("2026-01-01T07:20:01Z").is_empty());
    assert!(world.tick_at("2026-01-01T07:59:59Z").is_empty());
    assert_eq!(world.tick_at("2026-01-01T08:00:00Z"), ["m"]);

    let mut world = World::with("2026-01-01T00:00:00Z", "cron 0 6 * * *");
    world.restart(None);
    assert_eq!(world.tick_at("2026-01-04T09:00:00Z"), ["m"]);
    world.end("m");
    assert!(world.tick_at("2026-01-05T05:59:59Z").is_empty());
    assert_eq!(world.tick_at("2026-01-05T06:00:00Z"), ["m"]);
}

#[test]
fn a_model_never_overlaps_itself_and_what_came_due_meanwhile_runs_once_after() {
    let mut world = World::with("2026-01-01T00:00:00Z", "every 1m");
    assert_eq!(world.tick().len(), 1);
    for minute in 1..6 {
        assert!(world.tick_at(&format!("2026-01-01T00:0{minute}:00Z")).is_empty());
    }
    let run_id = world.work["m"].run_id.clone();
    assert_eq!(world.planner.start_now("m", "user:ada", world.now), Started::AlreadyRunning { run_id });
    world.end("m");
    assert_eq!(world.tick_at("2026-01-01T00:05:30Z"), ["m"]);
    world.end("m");
    assert!(world.tick_at("2026-01-01T00:05:59Z").is_empty());
    assert_eq!(world.tick_at("2026-01-01T00:06:00Z"), ["m"]);
}

#[test]
fn a_manual_start_is_queued_once_and_answers_a_time_that_comes_while_it_waits() {
    let mut world = World::with("2026-01-01T00:00:00Z", "cron 0 * * * *");
    world.planner.limits.max_runs = 0;
    let Started::Queued { run_id } = world.planner.start_now("m", "user:ada", world.now) else { panic!("not queued") };
    let again = world.planner.start_now("m", "user:bob", world.now);
    assert_eq!(again, Started::AlreadyQueued { run_id: run_id.clone() });
    assert!(world.tick_at("2026-01-01T01:00:00Z").is_empty());
    assert_eq!(world.work["m"].due_at, Some(utc("2026-01-01T01:00:00Z")));
    world.planner.limits.max_runs = 1;
    let expected = Taken { model: "m".into(), run_id, cause: Cause::Manual, actor: "user:ada".into() };
    assert_eq!(world.tick(), [expected]);
    world.end("m");
    assert!(world.tick_at("2026-01-01T01:30:00Z").is_empty());
    assert_eq!(world.tick_at("2026-01-01T02:00:00Z"), ["m"]);
}

#[test]
fn no_more_than_n_run_at_once_and_m_on_a_connection_first_in_first_out() {
    let limits = Limits { max_runs: 3, max_runs_per_connection: 2, ..NO_JITTER };
    let mut world = World::new("2026-01-01T00:00:00Z", limits);
    for slug in ["a1", "a2", "a3", "a4"] {
        world.model(slug, "a", "");
    }
    world.model("b1", "b", "");
    world.model("b2", "b", "");
    for slug in ["a1", "a2", "a3", "a4", "b1", "b2"] {
        world.planner.start_now(slug, "cli", world.now);
    }
    let mut order = Vec::new();
    for step in 0.. {
        let taken: Vec<String> = world.tick().into_iter().map(|taken| taken.model).collect();
        order.extend(taken);
        let running: Vec<String> = world.planner.running().map(|work| work.row.model.clone()).collect();
        assert!(running.len() <= 3 && running.iter().filter(|m| m.starts_with('a')).count() <= 2, "{running:?}");
        if running.is_empty() {
            break;
        }
        assert!(step < 10);
        // the oldest run ends
        let oldest = running.iter().min_by_key(|m| world.work[*m].place).unwrap().clone();
        world.end(&oldest);
    }
    // b is not shut out by a's four
    assert_eq!(order[..3], ["a1", "b1", "a2"]);
    assert_eq!(order.iter().filter(|m| m.starts_with('a')).collect::<Vec<_>>(), ["a1", "a2", "a3", "a4"]);
    assert_eq!(order.len(), 6);
}

#[test]
fn with_one_slot_connections_take_turns() {
    let mut world = World::new("2026-01-01T00:00:00Z", Limits { max_runs: 1, ..NO_JITTER });
    for n in 0..5 {
        world.model(&format!("a{n}"), "a", "");
        world.planner.start_now(&format!("a{n}"), "cli", world.now);
    }
    world.model("b", "b", "");
    world.planner.start_now("b", "cli", world.now);
    assert_eq!(world.tick()[0].model, "a0");
    world.end("a0");
    assert_eq!(world.tick()[0].model, "b");
}

#[test]
fn a_paused_schedule_starts_nothing_and_is_caught_up_once_when_resumed() {
    let mut world = World::with("2026-01-01T00:30:00Z", "cron 0 * * * *");
    assert_eq!(world.planner.set_paused("m", true), Some(true));
    assert_eq!(world.planner.set_paused("m", true), Some(false));
    assert_eq!(world.planner.set_paused("nobody", true), None);
    world.written();
    world.restart(None);
    assert!(world.tick_at("2026-01-01T05:10:00Z").is_empty());
    // people may start it all the same
    assert!(matches!(world.planner.start_now("m", "user:ada", world.now), Started::Queued { .. }));
    assert_eq!(world.tick().len(), 1);
    world.end("m");
    assert_eq!(world.planner.set_paused("m", false), Some(true));
    assert_eq!(world.tick_at("2026-01-01T05:20:00Z"), ["m"]);
    world.end("m");
    assert!(world.tick_at("2026-01-01T05:59:59Z").is_empty());
    assert_eq!(world.tick_at("2026-01-01T06:00:00Z"), ["m"]);
}

#[test]
fn pausing_takes_a_waiting_run_back_unless_somebody_asked_for_it() {
    let mut world = World::with("2026-01-01T00:30:00Z", "cron 0 * * * *");
    world.model("n", "files", "cron 0 * * * *");
    world.planner.limits.max_runs = 0;
    world.planner.start_now("n", "user:ada", world.now);
    world.tick_at("2026-01-01T01:00:00Z");
    assert_eq!(world.work.len(), 2);
    world.planner.set_paused("m", true);
    world.planner.set_paused("n", true);
    world.written();
    assert_eq!(world.work.keys().collect::<Vec<_>>(), ["n"]);
    world.planner.set_paused("m", false);
    world.planner.limits.max_runs = 100;
    let taken = world.tick_at("2026-01-01T01:10:00Z").into_iter().collect::<BTreeSet<_>>();
    assert_eq!(taken, BTreeSet::from(["m".to_string(), "n".to_string()]));
}

#[test]
fn stopping_takes_back_what_waits_and_marks_what_runs() {
    let mut world = World::with("2026-01-01T00:00:00Z", "every 1h");
    assert_eq!(world.planner.stop("m"), Stopped::Idle);
    let Started::Queued { run_id } = world.planner.start_now("m", "cli", world.now) else { panic!("not queued") };
    assert_eq!(world.planner.model_of_run(&run_id), Some("m"));
    assert_eq!(world.planner.stop("m"), Stopped::Dequeued { run_id });
    world.tick();
    let run_id = world.work["m"].run_id.clone();
    assert_eq!(world.planner.stop("m"), Stopped::Cancelling { run_id });
    world.written();
    // its process dies before the run ended: what was stopped is not run again
    world.restart(Some(RunStatus::Interrupted));
    assert!(world.tick().is_empty() && world.work.is_empty() && world.notes.is_empty());
}

#[test]
fn after_a_crash_what_waited_waits_on_and_what_was_cut_short_runs_again_once() {
    let mut world = World::new("2026-01-01T00:00:00Z", Limits { max_runs: 1, ..NO_JITTER });
    for slug in ["a", "b", "c"] {
        world.model(slug, "files", "cron 0 * * * *");
    }
    for slug in ["a", "b"] {
        world.planner.start_now(slug, "user:ada", world.now);
    }
    let first = world.tick();
    assert_eq!(first[0].model, "a");
    let waiting = world.work["b"].run_id.clone();
    world.restart(Some(RunStatus::Interrupted));
    // before those who came later, with a new id
    let again = world.tick();
    assert_eq!((again[0].model.as_str(), again[0].cause, again[0].actor.as_str()), ("a", Cause::Retry, "user:ada"));
    assert_ne!(again[0].run_id, first[0].run_id);
    world.restart(Some(RunStatus::Interrupted));
    assert_eq!(world.notes, [Note::GivenUp { model: "a".into(), run_id: again[0].run_id.clone() }]);
    let next = world.tick();
    assert_eq!((next[0].model.as_str(), &next[0].run_id), ("b", &waiting));
    assert_eq!(world.work.len(), 1);
    // taken, and not begun
    world.restart(None);
    assert_eq!(world.tick()[0].model, "b");
    // a run that recovery brought to its end is not repeated
    world.restart(Some(RunStatus::Published));
    assert!(world.tick().is_empty() && world.work.is_empty());
}

#[test]
fn a_run_that_the_stopping_service_cut_short_waits_for_the_next_start() {
    let mut world = World::with("2026-01-01T00:00:00Z", "every 1h");
    for _ in 0..4 {
        let taken = world.tick();
        world.planner.postpone("m", &taken[0].run_id);
        world.written();
        world.restart(None);
    }
    assert_eq!(world.tick()[0].cause, Cause::Retry);
    assert!(world.notes.is_empty());
}

#[test]
fn a_model_that_another_process_runs_is_tried_again_later() {
    let mut world = World::with("2026-01-01T00:00:00Z", "every 1h");
    let taken = world.tick();
    world.planner.put_back("m", &taken[0].run_id, utc("2026-01-01T00:00:15Z"));
    assert!(world.tick_at("2026-01-01T00:00:14Z").is_empty());
    assert_eq!(world.tick_at("2026-01-01T00:00:15Z"), ["m"]);
}

#[test]
fn an_inactive_model_is_not_queued_and_what_waited_is_dropped() {
    let mut world = World::with("2026-01-01T00:00:00Z", "every 1h");
    world.planner.limits.max_runs = 0;
    world.tick();
    assert_eq!(world.work.len(), 1);
    world.models.get_mut("m").unwrap().active = false;
    world.adopt();
    world.planner.limits.max_runs = 1;
    assert!(world.work.is_empty());
    assert!(world.tick_at("2026-01-02T00:00:00Z").is_empty());
    assert_eq!(world.schedules["m"].next_due_at, None);
    // active again: `every` counts from its last run, which never was
    world.models.get_mut("m").unwrap().active = true;
    world.adopt();
    assert_eq!(world.tick_at("2026-01-02T00:00:01Z"), ["m"]);
}

#[test]
fn a_changed_schedule_is_reckoned_anew_and_a_removed_model_is_forgotten() {
    let mut world = World::with("2026-01-01T00:00:00Z", "every 1d");
    assert_eq!(world.tick().len(), 1);
    world.end("m");
    world.now = utc("2026-01-01T05:00:00Z");
    world.model("m", "files", "every 6h");
    assert_eq!(world.schedules["m"].next_due_at, Some(utc("2026-01-01T06:00:00Z")));
    // 04:00 was not missed: the model had another schedule then
    world.model("m", "files", "cron 0 4 * * *");
    assert_eq!(world.schedules["m"].next_due_at, Some(utc("2026-01-02T04:00:00Z")));
    world.model("m", "files", "");
    assert_eq!(world.schedules["m"].next_due_at, None);
    world.models.clear();
    world.adopt();
    assert!(world.schedules.is_empty());
    assert!(world.tick_at("2026-01-03T00:00:00Z").is_empty());
}

#[test]
fn a_pause_outlives_files_that_are_away_for_a_moment() {
    let mut world = World::with("2026-01-01T00:00:00Z", "every 1h");
    world.planner.set_paused("m", true);
    let models = std::mem::take(&mut world.models);
    world.adopt();
    world.restart(None);
    world.models = models;
    world.adopt();
    assert!(world.schedules["m"].paused);
    assert!(world.tick_at("2026-01-02T00:00:00Z").is_empty());
}

#[test]
fn a_clock_that_is_set_back_does_not_silence_a_model() {
    for schedule in ["every 1h", "cron 0 * * * *"] {
        let mut world = World::with("2030-01-01T00:00:00Z", schedule);
        world.tick_at("2030-01-01T01:00:00Z");
        world.restart(Some(RunStatus::Published));
        world.tick_at("2026-01-01T00:00:30Z");
        world.tick_at("2026-01-01T01:00:30Z");
        assert!(world.work.contains_key("m"), "{schedule}");
        assert!(world.schedules["m"].next_due_at.unwrap() < utc("2026-01-01T03:00:00Z"), "{schedule}");
    }
}

#[test]
fn lateness_is_told_once_for_each_due_time() {
    let mut world = World::new("2026-01-01T00:30:00Z", NO_JITTER);
    world.model("m", "files", "cron 0 * * * *");
    world.planner.limits.max_runs = 0;
    let late = |due: &str, waits| Note::Late { model: "m".into(), due_at: utc(due), waits };
    world.tick_at("2026-01-01T01:00:00Z");
    world.tick_at("2026-01-01T01:15:00Z");
    assert!(world.notes.is_empty());
    for second in 1..5 {
        world.tick_at(&format!("2026-01-01T01:15:0{second}Z"));
    }
    assert_eq!(world.notes, [late("2026-01-01T01:00:00Z", Waits::Queue)]);
    world.planner.limits.max_runs = 1;
    assert_eq!(world.tick_at("2026-01-01T01:20:00Z"), ["m"]);
    // the run goes on beyond the next time
    world.tick_at("2026-01-01T02:15:00Z");
    assert_eq!(world.notes.len(), 1);
    world.tick_at("2026-01-01T02:15:01Z");
    world.tick_at("2026-01-01T02:30:00Z");
    assert_eq!(world.notes[1..], [late("2026-01-01T02:00:00Z", Waits::PreviousRun)]);
}

#[test]
fn what_was_missed_while_the_service_was_away_is_late_only_if_it_is_not_caught_up() {
    let mut world = World::with("2026-01-01T00:30:00Z", "cron 0 * * * *");
    world.now = utc("2026-01-03T00:00:00Z");
    world.restart(None);
    assert_eq!(world.tick().len(), 1);
    assert!(world.notes.is_empty());
}

#[test]
fn a_thousand_hourly_models_do_not_start_in_one_second() {
    let mut world = World::new("2026-01-01T00:00:00Z", Limits { jitter: Limits::default().jitter, ..NO_JITTER });
    for n in 0..1000 {
        let planned = Planned { connection: "files".into(), active: true, schedule: "cron 0 * * * *".parse().ok() };
        world.models.insert(format!("model_{n}"), planned);
    }
    world.adopt();
    world.planner.limits = Limits { max_runs: 2000, max_runs_per_connection: 2000, ..world.planner.limits };
    for hour in [1, 2] {
        let (mut started, mut most) = (0, 0);
        for second in 0..60 {
            world.now = utc(&format!("2026-01-01T0{hour}:00:{second:02}Z"));
            let taken = world.tick();
            (started, most) = (started + taken.len(), most.max(taken.len()));
            for taken in taken {
                world.end(&taken.model);
            }
        }
        world.now += TimeDelta::seconds(1);
        started += world.tick().len();
        let left: Vec<String> = world.work.keys().cloned().collect();
        left.iter().for_each(|slug| world.end(slug));
        assert_eq!(started, 1000);
        assert!(most < 40, "{most} in one second");
    }
}

/// What may happen to a world.
#[derive(Debug, Clone)]
enum Step {
    Wait(i64),
    Start(usize),
    Stop(usize),
    Pause(usize, bool),
    Activate(usize, bool),
    End(usize),
    Elsewhere(usize),
    Restart(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1i64..4000).prop_map(Step::Wait),
        2 => (0usize..4).prop_map(Step::Start),
        1 => (0usize..4).prop_map(Step::Stop),
        1 => (0usize..4, any::<bool>()).prop_map(|(n, on)| Step::Pause(n, on)),
        1 => (0usize..4, any::<bool>()).prop_map(|(n, on)| Step::Activate(n, on)),
        4 => (0usize..4).prop_map(Step::End),
        1 => (0usize..4).prop_map(Step::Elsewhere),
        1 => any::<bool>().prop_map(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens: the limits hold, nobody runs twice, nobody inactive or paused is started by the schedule, the
    /// catalog says what the planner knows, and a scheduled model is never left behind.
    #[test]
    fn the_promises_hold_whatever_happens(steps in proptest::collection::vec(step(), 1..60)) {
        let limits = Limits { max_runs: 2, max_runs_per_connection: 1, ..NO_JITTER };
        let mut world = World::new("2026-01-01T00:00:00Z", limits);
        let slugs = ["a", "b", "c", "d"];
        for (slug, connection, schedule) in
            [("a", "x", "every 30m"), ("b", "x", "cron 0 * * * *"), ("c", "y", "every 1h"), ("d", "y", "")]
        {
            world.model(slug, connection, schedule);
        }
        for step in steps {
            match step {
                Step::Wait(seconds) => world.now += TimeDelta::seconds(seconds),
                Step::Start(n) if world.models[slugs[n]].active => {
                    world.planner.start_now(slugs[n], "user:ada", world.now);
                }
                Step::Start(_) => {}
                Step::Stop(n) => drop(world.planner.stop(slugs[n])),
                Step::Pause(n, on) => drop(world.planner.set_paused(slugs[n], on)),
                Step::Activate(n, on) => {
                    world.models.get_mut(slugs[n]).unwrap().active = on;
                    world.adopt();
                }
                Step::End(n) | Step::Elsewhere(n) => {
                    let slug = slugs[n];
                    let running = world.work.get(slug).filter(|row| row.taken_at.is_some()).cloned();
                    match (running, step) {
                        (Some(_), Step::End(_)) => world.end(slug),
                        (Some(row), _) => {
                            world.planner.put_back(slug, &row.run_id, world.now + TimeDelta::seconds(15));
                        }
                        (None, _) => {}
                    }
                }
                Step::Restart(began) => {
                    world.written();
                    world.restart(began.then_some(RunStatus::Interrupted));
                }
            }
            world.written();
            for taken in world.tick() {
                let planned = &world.models[&taken.model];
                prop_assert!(planned.active);
                if taken.cause == Cause::Schedule {
                    prop_assert!(planned.schedule.is_some() && !world.schedules[&taken.model].paused);
                    prop_assert_eq!(taken.actor, SCHEDULER);
                }
            }
            let mut connections: Vec<&str> = world.planner.running().filter_map(|w| w.connection.as_deref()).collect();
            prop_assert!(connections.len() <= 2);
            connections.dedup();
            prop_assert_eq!(connections.len(), world.planner.running().count());
            let known: BTreeMap<String, WorkRow> =
                world.planner.work.iter().map(|(slug, work)| (slug.clone(), work.row.clone())).collect();
            prop_assert_eq!(&known, &world.work);
            for (slug, entry) in &world.planner.models {
                prop_assert_eq!(Some(&entry.row), world.schedules.get(slug));
                // due, and neither waiting nor running: left behind
                let due = entry.row.next_due_at.is_some_and(|due| due <= world.now);
                prop_assert!(!due || entry.row.paused || world.work.contains_key(slug), "{} is left behind", slug);
            }
        }
    }
}
