//! From what happened to what is owed: one pass reads the runs that ended since the last one, the removals that wait and
//! the models whose time passed, and writes incidents, messages and the cursor in one transaction.
//!
//! A pass may be repeated, and may come late, without another message: an incident is one row, and a message is owed
//! only where that row begins, ends, or is to be reminded of.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use url::Url;
use uuid::Uuid;

use super::definition::{Condition, Rule};
use super::judge::{self, Verdict, judge};
use super::notice::{Finding, Notice, NoticeKind, RunFacts, time};
use crate::catalog::alerts::{AlertLedger, Incident};
use crate::catalog::{Catalog, CatalogError};
use crate::config::Project;
use crate::model::Model;

/// Runs of one transaction.
const BATCH: u32 = 200;
/// What began and ended before that, and was seen only afterwards, is not told.
const STALE: TimeDelta = TimeDelta::hours(24);

/// What a pass looks at.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    pub project: &'a Project,
    /// Models whose schedule a person stopped.
    pub paused: &'a BTreeSet<String>,
    pub now: DateTime<Utc>,
}

impl Situation<'_> {
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.project.alerts.rules.values()
    }
}

/// Makes the passes.
#[derive(Debug, Default)]
pub struct Reconciler {
    /// Since when each model is watched for lateness. In memory only: after a start the models have time to catch up.
    watched: BTreeMap<String, DateTime<Utc>>,
}

impl Reconciler {
    /// Passes until all is read.
    pub async fn reconcile(&mut self, catalog: &Catalog, situation: Situation<'_>) -> Result<(), CatalogError> {
        while self.pass(catalog, situation).await? {}
        Ok(())
    }

    /// True: there is more to read.
    async fn pass(&mut self, catalog: &Catalog, situation: Situation<'_>) -> Result<bool, CatalogError> {
        let mut ledger = catalog.alert_ledger().await?;
        let mut book = Book::new(ledger.incidents().await?, situation);
        let (runs, cursor, more) = ledger.ended_runs(BATCH).await?;
        for run in &runs {
            let Some(model) = situation.project.models.get(&run.model).filter(|model| model.active) else { continue };
            let rules: Vec<&Rule> = situation.rules().filter(|rule| rule.covers(model)).collect();
            let history = rules.iter().map(|rule| judge::history_of(rule)).max().unwrap_or_default();
            let before = if history > 0 { ledger.runs_before(run, history).await? } else { Vec::new() };
            for rule in rules {
                for (condition, verdict) in judge(rule, run, &before) {
                    book.note(rule, model, condition, verdict);
                }
            }
        }
        ledger.move_cursor(cursor).await?;
        self.look_at_holds(&mut ledger, &mut book).await?;
        self.look_at_clock(&mut ledger, &mut book).await?;
        book.drop_unwatched();
        book.remind();
        book.write(&mut ledger).await?;
        ledger.commit().await?;
        Ok(more)
    }

    /// Removals wait until a person or a later run ends that, with a run or without one.
    async fn look_at_holds(&self, ledger: &mut AlertLedger, book: &mut Book<'_>) -> Result<(), CatalogError> {
        if !book.situation.rules().any(|rule| rule.held) {
            return Ok(());
        }
        let mut waiting = BTreeMap::new();
        for (run, held_at, hold) in ledger.waiting().await? {
            let summary = format!("{} of {} rows would be removed, and wait for a person", hold.removed, hold.of);
            waiting.insert(run.model.clone(), Finding { at: held_at, ..Finding::of_run(&run, summary) });
        }
        let situation = book.situation;
        for (rule, model) in pairs(situation, Condition::Held) {
            let verdict = match waiting.get(&model.slug) {
                Some(finding) => Verdict::Is(finding.clone()),
                None => Verdict::IsNot(plain(situation.now, judge::ended(Condition::Held))),
            };
            book.note(rule, model, Condition::Held, verdict);
        }
        Ok(())
    }

    async fn look_at_clock(&mut self, ledger: &mut AlertLedger, book: &mut Book<'_>) -> Result<(), CatalogError> {
        let situation = book.situation;
        let now = situation.now;
        let has_schedule = |model: &Model| model.active && model.schedule.is_some();
        self.watched.retain(|slug, _| {
            situation.project.models.get(slug).is_some_and(has_schedule) && !situation.paused.contains(slug)
        });
        if !situation.rules().any(|rule| rule.watches(Condition::Late)) {
            return Ok(());
        }
        let starts: BTreeMap<String, DateTime<Utc>> = ledger.last_starts().await?.into_iter().collect();
        for (rule, model) in pairs(situation, Condition::Late) {
            let (Some(schedule), Some(after)) = (&model.schedule, rule.late_after) else { continue };
            if !model.active || situation.paused.contains(&model.slug) {
                continue;
            }
            let watched = *self.watched.entry(model.slug.clone()).or_insert(now);
            let due = match starts.get(&model.slug) {
                Some(last) => schedule.next_after(Some(*last), now),
                // a model that never ran is due when it is first seen, or at its first cron time after that
                None => schedule.next_after(None, watched),
            };
            let patience = TimeDelta::from_std(after).unwrap_or(TimeDelta::MAX);
            let late_from = due.max(watched).checked_add_signed(patience);
            if late_from.is_some_and(|from| now > from) {
                let summary = format!("it was due at {}, and no run has begun since", time(due));
                let hint = "is the service running, are its run slots taken, does a run of the model hang? \
                            `cloud-connect runs` shows the runs";
                let finding = Finding { hint: Some(hint.into()), ..plain(due, summary) };
                book.note(rule, model, Condition::Late, Verdict::Is(finding));
            } else if due > now {
                let verdict = Verdict::IsNot(plain(now, judge::ended(Condition::Late)));
                book.note(rule, model, Condition::Late, verdict);
            }
        }
        Ok(())
    }
}

fn plain(at: DateTime<Utc>, summary: impl Into<String>) -> Finding {
    Finding { at, summary: summary.into(), run: None, error: None, hint: None, breach: None }
}

/// Every rule that watches the condition, with every model that it covers.
fn pairs(situation: Situation<'_>, condition: Condition) -> impl Iterator<Item = (&Rule, &Model)> {
    let rules = situation.project.alerts.rules.values().filter(move |rule| rule.watches(condition));
    rules.flat_map(move |rule| situation.project.models.values().filter(|m| rule.covers(m)).map(move |m| (rule, m)))
}

type Key = (String, String, Condition);

/// The incidents during a pass, and what the pass does to them.
struct Book<'a> {
    situation: Situation<'a>,
    open: BTreeMap<Key, Incident>,
    /// Begun in this pass.
    new: BTreeSet<Key>,
    changed: BTreeSet<Key>,
    ended: BTreeSet<Key>,
    /// Channel and message.
    owed: Vec<(String, Notice)>,
}

impl<'a> Book<'a> {
    fn new(incidents: Vec<Incident>, situation: Situation<'a>) -> Self {
        let key = |incident: &Incident| (incident.rule.clone(), incident.model.clone(), incident.condition);
        Self {
            situation,
            open: incidents.into_iter().map(|incident| (key(&incident), incident)).collect(),
            new: BTreeSet::new(),
            changed: BTreeSet::new(),
            ended: BTreeSet::new(),
            owed: Vec::new(),
        }
    }

    fn note(&mut self, rule: &Rule, model: &Model, condition: Condition, verdict: Verdict) {
        let key: Key = (rule.name.clone(), model.slug.clone(), condition);
        match verdict {
            Verdict::Is(finding) => match self.open.get_mut(&key) {
                Some(incident) if incident.finding == finding => {}
                Some(incident) => {
                    incident.finding = finding;
                    self.changed.insert(key);
                }
                None => {
                    let incident = Incident {
                        rule: rule.name.clone(),
                        model: model.slug.clone(),
                        condition,
                        id: Uuid::now_v7().to_string(),
                        since: finding.at,
                        told_at: self.situation.now,
                        finding,
                    };
                    self.owe(rule, model, &incident, NoticeKind::Alert, incident.finding.clone());
                    self.open.insert(key.clone(), incident);
                    self.new.insert(key.clone());
                    self.changed.insert(key);
                }
            },
            Verdict::IsNot(finding) => {
                let Some(incident) = self.open.remove(&key) else { return };
                self.changed.remove(&key);
                let unseen = self.new.remove(&key);
                if unseen && finding.at < self.situation.now - STALE {
                    self.owed.retain(|(_, notice)| notice.incident != incident.id);
                } else if rule.recovery {
                    self.owe(rule, model, &incident, NoticeKind::Recovery, finding);
                }
                if !unseen {
                    self.ended.insert(key);
                }
            }
        }
    }

    /// Ends without a word what no rule watches any more, and what can be so no longer: the model is gone or inactive,
    /// or is not to run.
    fn drop_unwatched(&mut self) {
        let situation = self.situation;
        let watched = |(rule, model, condition): &Key| {
            let rule = situation.project.alerts.rules.get(rule).filter(|rule| rule.watches(*condition));
            let (Some(rule), Some(model)) = (rule, situation.project.models.get(model)) else { return false };
            rule.covers(model)
                && match condition {
                    Condition::Held => true,
                    Condition::Late => {
                        model.active && model.schedule.is_some() && !situation.paused.contains(&model.slug)
                    }
                    _ => model.active,
                }
        };
        let gone: Vec<Key> = self.open.keys().filter(|key| !watched(key)).cloned().collect();
        for key in gone {
            self.open.remove(&key);
            self.changed.remove(&key);
            self.ended.insert(key);
        }
    }

    fn remind(&mut self) {
        let (situation, now) = (self.situation, self.situation.now);
        let due: Vec<Key> = self
            .open
            .iter()
            .filter(|((rule, ..), incident)| {
                let every = situation.project.alerts.rules.get(rule).and_then(|rule| rule.remind_every);
                let every = every.and_then(|every| TimeDelta::from_std(every).ok());
                every.and_then(|every| incident.told_at.checked_add_signed(every)).is_some_and(|at| at <= now)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            let Some(incident) = self.open.get_mut(&key) else { continue };
            incident.told_at = now;
            let incident = incident.clone();
            let (rule, model) = (situation.project.alerts.rules.get(&key.0), situation.project.models.get(&key.1));
            if let (Some(rule), Some(model)) = (rule, model) {
                self.owe(rule, model, &incident, NoticeKind::Reminder, incident.finding.clone());
            }
            self.changed.insert(key);
        }
    }

    fn owe(&mut self, rule: &Rule, model: &Model, incident: &Incident, kind: NoticeKind, finding: Finding) {
        for channel in &rule.channels {
            let notice = Notice {
                id: Uuid::now_v7().to_string(),
                kind,
                condition: Some(incident.condition),
                incident: incident.id.clone(),
                rule: rule.name.clone(),
                model: model.slug.clone(),
                model_name: model.name.clone(),
                connection: model.connection.clone(),
                since: incident.since,
                at: self.situation.now,
                url: finding
                    .run
                    .as_ref()
                    .and_then(|run| link(self.situation.project.service.public_url.as_deref(), run)),
                finding: finding.clone(),
            };
            self.owed.push((channel.clone(), notice));
        }
    }

    async fn write(self, ledger: &mut AlertLedger) -> Result<(), CatalogError> {
        for (rule, model, condition) in &self.ended {
            ledger.remove_incident(rule, model, *condition).await?;
        }
        for key in &self.changed {
            if let Some(incident) = self.open.get(key) {
                ledger.put_incident(incident).await?;
            }
        }
        for (channel, notice) in &self.owed {
            ledger.owe(channel, notice).await?;
        }
        Ok(())
    }
}

/// Where a run can be read.
fn link(public_url: Option<&str>, run: &RunFacts) -> Option<String> {
    let mut url = Url::parse(public_url?).ok()?;
    url.path_segments_mut().ok()?.pop_if_empty().extend(["v2", "run", run.run_id.as_str()]);
    Some(url.into())
}
