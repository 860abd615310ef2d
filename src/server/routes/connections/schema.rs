//! The tables that a connection reaches, and their columns; asked for once in half an hour.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{fingerprint, open, usable};
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Path, Query};
use crate::server::state::App;
use crate::warehouse::{ColumnInfo, TableInfo};

/// How long an answer counts.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
const TIMEOUT: Duration = Duration::from_secs(45);
/// Tables whose columns are kept.
const MAX_ENTRIES: usize = 10_000;

/// A table that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct SchemaTable {
    #[schema(example = "people")]
    table_name: String,
    /// As a query has to write it.
    #[schema(example = "public.people")]
    fully_qualified_name: String,
    /// Null when it is not known without a scan, or the warehouse does not tell it in time.
    num_columns: Option<u64>,
    /// Why it cannot be read as it is, where asking for its columns tells.
    error: Option<String>,
    /// `table`, `view`, `parquet` …
    kind: String,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct SchemaColumn {
    column_name: String,
    /// The warehouse's own name of the type.
    #[schema(example = "numeric(12,2)")]
    column_datatype: String,
    /// The value type that it becomes in a profile; null when it has to be cast first.
    #[schema(example = "decimal(12,2)")]
    value_type: Option<String>,
    nullable: bool,
}

impl From<TableInfo> for SchemaTable {
    fn from(table: TableInfo) -> Self {
        Self {
            table_name: last_part(&table.name),
            fully_qualified_name: table.name,
            num_columns: table.columns,
            error: table.error,
            kind: table.kind,
        }
    }
}

impl From<ColumnInfo> for SchemaColumn {
    fn from(column: ColumnInfo) -> Self {
        Self {
            column_name: column.name,
            column_datatype: column.warehouse_type,
            value_type: column.value_type,
            nullable: column.nullable,
        }
    }
}

/// The last identifier of a name, without its quotes.
fn last_part(name: &str) -> String {
    let (mut part, mut quote) = (String::new(), None);
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('.', None) => part.clear(),
            ('"' | '`', None) => quote = Some(c),
            (c, Some(open)) if c == open => {
                // a doubled quote stands for one
                if rest.next_if_eq(&c).is_some() { part.push(c) } else { quote = None }
            }
            _ => part.push(c),
        }
    }
    part
}

/// What warehouses said of their tables.
#[derive(Debug, Default)]
pub struct Schemas {
    tables: Kept<Vec<SchemaTable>>,
    columns: Kept<Vec<SchemaColumn>>,
}

impl Schemas {
    /// How many tables a connection reaches.
    pub async fn count(&self, app: &App, id: &str) -> Result<usize, ApiError> {
        Ok(tables_of(app, id, false).await?.len())
    }
}

/// The connection, what it leads to, and the table (or none).
type Key = (String, u64, String);

/// Answers by what was asked. Whoever asks while the same is being asked waits for that answer.
#[derive(Debug)]
struct Kept<T>(Mutex<HashMap<Key, Arc<Asked<T>>>>);

type Asked<T> = OnceCell<(Instant, Arc<T>)>;

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Kept<T> {
    /// What is kept, unless it is too old (or has to be asked `anew`); else what `ask` gives. A failure is not kept.
    async fn get<F>(&self, key: Key, anew: bool, now: Instant, ask: impl FnOnce() -> F) -> Result<Arc<T>, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let asked = self.entry(key, anew, now);
        let (_, value) = asked.get_or_try_init(|| async { ask().await.map(|value| (now, Arc::new(value))) }).await?;
        Ok(Arc::clone(value))
    }

    fn entry(&self, key: Key, anew: bool, now: Instant) -> Arc<Asked<T>> {
        let fresh = |asked: &Asked<T>| asked.get().is_none_or(|(at, _)| now.duration_since(*at) < LIFETIME);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = kept.get(&key)
            && fresh(asked)
            // one that is being asked now is new enough
            && !(anew && asked.initialized())
        {
            return Arc::clone(asked);
        }
        // what the connection led to before its change is of no use any more
        kept.retain(|(id, leads_to, _), asked| (*id != key.0 || *leads_to == key.1) && fresh(asked));
        if kept.len() >= MAX_ENTRIES {
            kept.clear();
        }
        let asked = Arc::new(OnceCell::new());
        kept.insert(key, Arc::clone(&asked));
        asked
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Refresh {
    /// Ask the warehouse anew, instead of taking an answer of up to 30 minutes ago.
    #[serde(default)]
    refresh: bool,
}

/// The tables that a connection can read. Kept for 30 minutes.
#[utoipa::path(get, path = "/v2/connection/{id}/schema", tag = "connections",
    params(("id" = String, Path, description = "the connection's name"), Refresh),
    responses((status = 200, body = Answer<Vec<SchemaTable>>), (status = 404, body = Errors), (status = 422, description = "the warehouse refuses", body = Errors), (status = 429, body = Errors), (status = 502, body = Errors)),
    security(("token" = ["connections:read"])))]
async fn tables(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(refresh): Query<Refresh>,
) -> Result<Answer<Arc<Vec<SchemaTable>>>, ApiError> {
    Ok(Answer::of(tables_of(&app, &id, refresh.refresh).await?))
}

async fn tables_of(app: &App, id: &str, refresh: bool) -> Result<Arc<Vec<SchemaTable>>, ApiError> {
    let engine = app.service.engine();
    let key = (id.to_string(), fingerprint(&engine, usable(&engine, id)?), String::new());
    if refresh {
        app.connections.ask("schema", id)?;
    }
    let ask = || async {
        let warehouse = open(&engine, id)?;
        let found = tokio::time::timeout(TIMEOUT, warehouse.tables()).await.map_err(|_| too_long())??;
        Ok(found.into_iter().map(SchemaTable::from).collect())
    };
    app.connections.schemas.tables.get(key, refresh, Instant::now(), ask).await
}

/// The columns of a table, named as the list names it. Kept for 30 minutes.
#[utoipa::path(get, path = "/v2/connection/{id}/schema/{table}", tag = "connections",
    params(("id" = String, Path, description = "the connection's name"), ("table" = String, Path, description = "the table's fully_qualified_name"), Refresh),
    responses((status = 200, body = Answer<Vec<SchemaColumn>>), (status = 404, body = Errors), (status = 422, description = "there is no such table", body = Errors), (status = 429, body = Errors)),
    security(("token" = ["connections:read"])))]
async fn columns(
    State(app): State<App>,
    Path((id, table)): Path<(String, String)>,
    Query(refresh): Query<Refresh>,
) -> Result<Answer<Arc<Vec<SchemaColumn>>>, ApiError> {
    let engine = app.service.engine();
    let key = (id.clone(), fingerprint(&engine, usable(&engine, &id)?), table.clone());
    if refresh.refresh {
        app.connections.ask("schema", &id)?;
    }
    let ask = || async {
        let warehouse = open(&engine, &id)?;
        let found = tokio::time::timeout(TIMEOUT, warehouse.columns(&table)).await.map_err(|_| too_long())??;
        Ok(found.into_iter().map(SchemaColumn::from).collect())
    };
    Ok(Answer::of(app.connections.schemas.columns.get(key, refresh.refresh, Instant::now(), ask).await?))
}

fn too_long() -> ApiError {
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "the warehouse took too long").with_hint("try again later")
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(tables)).routes(routes!(columns))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key(leads_to: u64) -> Key {
        ("db".into(), leads_to, String::new())
    }

    #[tokio::test]
    async fn an_answer_counts_for_half_an_hour_and_for_one_revision() {
        let kept = Kept::<usize>::default();
        let asked = AtomicUsize::new(0);
        let ask = || async { Ok(asked.fetch_add(1, Ordering::SeqCst)) };
        let start = Instant::now();
        let get = |leads_to: u64, anew: bool, minute: u64| {
            kept.get(key(leads_to), anew, start + Duration::from_secs(60 * minute), ask)
        };
        assert_eq!(*get(1, false, 0).await.unwrap(), 0);
        assert_eq!(*get(1, false, 29).await.unwrap(), 0);
        assert_eq!(*get(1, true, 29).await.unwrap(), 1);
        assert_eq!(*get(1, false, 58).await.unwrap(), 1);
        assert_eq!(*get(1, false, 59).await.unwrap(), 2);
        assert_eq!(*get(2, false, 59).await.unwrap(), 3);
        assert_eq!(kept.0.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_one_question_and_a_failure_is_not_kept() {
        let kept = Kept::<usize>::default();
        let asked = AtomicUsize::new(0);
        let ask = || async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let n = asked.fetch_add(1, Ordering::SeqCst);
            if n == 0 { Err(ApiError::unavailable("not yet")) } else { Ok(n) }
        };
        assert!(kept.get(key(1), false, Instant::now(), ask).await.is_err());
        let all = futures::future::join_all((0..20).map(|_| kept.get(key(1), true, Instant::now(), ask))).await;
        assert!(all.into_iter().all(|answer| *answer.unwrap() == 1));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_tables_own_name_is_the_last_part_of_its_full_one() {
        for (full, own) in [
            ("people", "people"),
            ("public.people", "people"),
            ("\"My Schema\".\"a.b\"", "a.b"),
            ("`p`.`d`.`t`", "t"),
            ("\"say \"\"hi\"\"\"", "say \"hi\""),
        ] {
            assert_eq!(last_part(full), own);
        }
    }
}
