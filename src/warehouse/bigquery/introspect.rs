//! What can be read, by BigQuery's own lists. Reads no row and costs nothing.

use futures::stream::{self, StreamExt, TryStreamExt};
use gcp_bigquery_client::table::ListOptions;
use reqwest::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::api::{Api, Fault};
use super::names::TableName;
use super::types::{FieldSchema, TableSchema};
use crate::values::ValueType;
use crate::warehouse::{ColumnInfo, TableInfo, WarehouseError};

const PAGE: u64 = 1000;
/// Datasets that are listed side by side.
const AT_ONCE: usize = 8;
/// The lists tell no columns: of so many tables at most each one is asked.
const MOST_ASKED: usize = 200;
/// Tables that are asked side by side.
const ASKED_AT_ONCE: usize = 16;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Datasets {
    datasets: Vec<Dataset>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dataset {
    dataset_reference: DatasetReference,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DatasetReference {
    dataset_id: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Table {
    schema: TableSchema,
}

/// The same, of which only the number of fields matters.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    schema: NamedSchema,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NamedSchema {
    fields: Vec<IgnoredAny>,
}

const NO_BODY: Option<&()> = None;

/// The tables and views of the default dataset; without one, of every dataset of the project.
pub(super) async fn tables(api: &Api) -> Result<Vec<TableInfo>, WarehouseError> {
    let datasets = match &api.config.dataset {
        Some((project, dataset)) => vec![(project.clone(), dataset.clone())],
        None => datasets(api).await?,
    };
    let lists = stream::iter(datasets).map(|(project, dataset)| tables_of(api, project, dataset)).buffered(AT_ONCE);
    let tables: Vec<(TableName, String)> = lists.try_collect::<Vec<_>>().await?.into_iter().flatten().collect();
    let few = tables.len() <= MOST_ASKED;
    let described = tables.into_iter().map(async |(name, kind)| {
        let (columns, error) = if few { column_count(api, &name).await } else { (None, None) };
        TableInfo { name: name.written(&api.config), kind, columns, error }
    });
    Ok(stream::iter(described).buffered(ASKED_AT_ONCE).collect().await)
}

/// The number of a table's columns, or why it is not told.
async fn column_count(api: &Api, name: &TableName) -> (Option<u64>, Option<String>) {
    let what = "the table's columns";
    let path = [name.project.as_str(), "datasets", &name.dataset, "tables", &name.table];
    let names_only = [("fields", "schema(fields(name))")];
    match api.request::<Named>(what, Method::GET, &path, &names_only, NO_BODY).await {
        Ok(table) => (Some(table.schema.fields.len() as u64), None),
        Err(fault) => {
            let error = fault.into_error(what, None, &api.asker().await);
            // what passes says nothing of the table
            (None, (!error.is_retryable()).then_some(error.message))
        }
    }
}

async fn datasets(api: &Api) -> Result<Vec<(String, String)>, WarehouseError> {
    let what = "the list of datasets";
    let project = &api.config.project;
    let (mut found, mut page) = (Vec::new(), None::<String>);
    loop {
        let mut query = vec![("maxResults", "1000")];
        query.extend(page.as_deref().map(|page| ("pageToken", page)));
        let listed = api.request::<Datasets>(what, Method::GET, &[project, "datasets"], &query, NO_BODY).await;
        let Datasets { datasets, next_page_token } = match listed {
            Ok(listed) => listed,
            Err(fault) => return Err(fault.into_error(what, None, &api.asker().await)),
        };
        found.extend(datasets.into_iter().map(|d| (project.clone(), d.dataset_reference.dataset_id)));
        match next_page_token {
            Some(next) => page = Some(next),
            None => return Ok(found),
        }
    }
}

/// Names and kinds.
async fn tables_of(api: &Api, project: String, dataset: String) -> Result<Vec<(TableName, String)>, WarehouseError> {
    let what = format!("the list of tables of `{dataset}`");
    let (mut found, mut page) = (Vec::new(), None::<String>);
    loop {
        let listed = api
            .through_client(&what, |client| {
                let (project, dataset, page) = (&project, &dataset, page.clone());
                async move {
                    let options = ListOptions::default().max_results(PAGE);
                    let options = page.into_iter().fold(options, ListOptions::page_token);
                    client.table().list(project, dataset, options).await
                }
            })
            .await;
        let listed = match listed {
            Ok(listed) => listed,
            Err(fault) => return Err(fault.into_error(&what, None, &api.asker().await)),
        };
        found.extend(listed.tables.unwrap_or_default().into_iter().map(|table| {
            let kind = table.r#type.unwrap_or_else(|| "TABLE".into()).to_lowercase().replace('_', " ");
            let reference = table.table_reference;
            let name =
                TableName { project: reference.project_id, dataset: reference.dataset_id, table: reference.table_id };
            (name, kind)
        }));
        match listed.next_page_token {
            Some(next) => page = Some(next),
            None => return Ok(found),
        }
    }
}

/// The columns of a table, named as in a query.
pub(super) async fn columns(api: &Api, table: &str) -> Result<Vec<ColumnInfo>, WarehouseError> {
    let name = TableName::parse(table, &api.config)?;
    let what = format!("the table `{table}`");
    let path = [name.project.as_str(), "datasets", &name.dataset, "tables", &name.table];
    let found = api.request::<Table>(&what, Method::GET, &path, &[], NO_BODY).await;
    let Table { schema } = match found {
        Ok(table) => table,
        Err(Fault::Api(e)) if e.code == 404 => {
            return Err(WarehouseError::sql(format!(
                "there is no table `{table}` that this connection can see: {}",
                e.message
            ))
            .with_hint("`connection tables` lists the tables"));
        }
        Err(fault) => return Err(fault.into_error(&what, None, &api.asker().await)),
    };
    Ok(schema.fields.iter().map(column).collect())
}

fn column(field: &FieldSchema) -> ColumnInfo {
    ColumnInfo {
        name: field.name.clone(),
        warehouse_type: field.sql_type(),
        // a type that is not known here has none
        value_type: field.arrow().ok().and_then(|field| ValueType::of(&field)).map(|t| t.to_string()),
        nullable: !field.is_required(),
    }
}
