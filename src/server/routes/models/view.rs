//! A model as answers show it.

use std::collections::BTreeMap;

use super::entry::Entry;
use super::health::{Signs, error_of, judge};
use super::shape::{
    ColumnRule, DataModel, JoinedTo, ModelStatus, Origin, PROFILES, RemovalGuard, SyncFailure, SyncSchedule,
};
use super::sync;
use crate::catalog::history::RunFilter;
use crate::model::{ColumnContract, Guard, Model, Schedule};
use crate::server::answer::ApiError;
use crate::server::state::App;
use crate::sync::Engine;

/// How many failures are shown, and how many runs a judgement looks at.
const LAST: u32 = 10;

/// The seconds of a schedule that has them.
pub fn period(schedule: Option<&Schedule>) -> Option<u64> {
    match schedule {
        Some(Schedule::Every(interval)) => Some(interval.as_secs()),
        _ => None,
    }
}

pub fn guard(model: &Model) -> RemovalGuard {
    let Guard { max_removed, max_removed_percent } = model.guard;
    RemovalGuard { max_removed: Some(max_removed), max_removed_percent: Some(max_removed_percent) }
}

pub fn columns(model: &Model) -> BTreeMap<String, ColumnRule> {
    let rule = |contract: &ColumnContract| ColumnRule {
        value_type: contract.value_type.map(|value_type| value_type.to_string()),
        not_null: contract.not_null,
    };
    model.columns.iter().map(|(column, contract)| (column.clone(), rule(contract))).collect()
}

pub fn timeout(model: &Model) -> Option<String> {
    model.timeout.map(|timeout| humantime::format_duration(timeout).to_string())
}

/// The whole model.
pub async fn show(app: &App, engine: &Engine, entry: &Entry, sizes: bool) -> Result<DataModel, ApiError> {
    let Entry { model, stored, faults } = entry;
    let slug = &model.slug;
    let filter = RunFilter { model: Some(slug.clone()), limit: LAST, ..RunFilter::default() };
    let runs = engine.catalog.runs_page(&filter).await?;
    let failures = engine.catalog.failed_runs(slug, LAST).await?;
    let hold = engine.catalog.waiting_hold(slug).await?;
    let store = app.models.stores.get(engine, slug).await?;
    let standing = sync::standing(app, slug);
    let prev = standing.prev.max(runs.first().map(|run| run.started_at));
    let health = judge(&Signs {
        faults,
        active: model.active,
        paused: standing.paused,
        runs: &runs,
        held: hold.as_ref().map(|(run, hold)| (run.as_str(), hold.removed)),
        busy: standing.current.is_some(),
        next: standing.next,
        late_after: standing.late_after,
        now: engine.clock.now(),
    });
    let sync_period = period(model.schedule.as_ref());
    Ok(DataModel {
        id: slug.clone(),
        name: model.name.clone(),
        slug: slug.clone(),
        description: model.description.clone(),
        connection_id: model.connection.clone(),
        sql: model.sql.clone(),
        sql_dialect: engine.project.connections.get(&model.connection).map(|c| c.provider.clone()),
        primary_keys: vec![model.primary_key.clone()],
        joined_to: JoinedTo {
            primary_key: Some(model.primary_key.clone()),
            foreign_key: model.external_key.clone(),
            foreign_table: Some(PROFILES.into()),
        },
        activated_fields: model.activated_fields.clone(),
        create_profiles: model.create_profiles,
        status: ModelStatus::of(model.active),
        sync_period,
        schedule: SyncSchedule {
            sync_period,
            prev_sync_time: prev,
            next_sync_time: standing.next,
            text: model.schedule.as_ref().map(ToString::to_string),
            paused: standing.paused,
        },
        health,
        sync_errors: failures
            .iter()
            .map(|run| SyncFailure {
                error: error_of(run),
                time: run.finished_at.unwrap_or(run.started_at),
                run_id: run.run_id.clone(),
            })
            .collect(),
        needs_backfill: store.as_ref().is_some_and(|store| store.is_outdated(model)),
        is_draft: !model.in_files && !model.active && runs.is_empty(),
        size: sizes.then(|| store.as_ref().map_or(0, |store| store.rows)),
        table: PROFILES,
        record_store: format!("records_{slug}"),
        author_id: stored.as_ref().map(|s| s.created_by.clone()),
        created: stored.as_ref().map(|s| s.created_at),
        updated: stored.as_ref().map(|s| s.updated_at),
        updated_by_user_id: stored.as_ref().map(|s| s.updated_by.clone()),
        identities: model.identities.clone(),
        guard: guard(model),
        columns: columns(model),
        timeout: timeout(model),
        origin: if model.in_files { Origin::Files } else { Origin::Api },
        file: model.in_files.then(|| model.config_file.display().to_string()),
        current_run: standing.current,
    })
}
