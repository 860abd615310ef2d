//! The wide view `profiles` and the union `memberships`: tables whose scan plans just the joins that a query needs.
//!
//! A view in SQL would not do: the optimizer does not drop an outer join whose columns nobody reads. So the scan gets
//! the projected columns and the filters, builds the joins for these, puts the filters on top, and hands the whole to
//! the optimizer, which moves the filters down to the tables and turns outer joins into inner ones where it may.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Expr, JoinType, LogicalPlanBuilder, Operator, TableProviderFilterPushDown, TableType, lit,
};
use datafusion::physical_plan::ExecutionPlan;

use super::ProfilesError;
use super::lookup::{Lookup, LookupOptions};
use super::tables::{Tables, attribute_alias, column};
use crate::store::schema::value_field;
use crate::values::ValueType;

/// What a joined row takes in memory, roughly: key, identity, hash-table entry and a few attributes.
const JOINED_ROW_BYTES: u64 = 100;

/// The most values in a filter for which the profiles are looked up before planning.
const POINT_QUERY_VALUES: usize = 100;

/// Where a column of the view comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    ProfileId,
    CreatedAt,
    /// The identity field at this index.
    Identity(usize),
    /// The attribute of the model at these indexes.
    Attribute(usize, usize),
    Membership(usize),
    Since(usize),
}

/// The wide view.
#[derive(Debug)]
pub(super) struct WideTable {
    tables: Arc<Tables>,
    memory_limit: u64,
    schema: SchemaRef,
    origins: Vec<Origin>,
}

impl WideTable {
    pub fn new(tables: Arc<Tables>, memory_limit: u64) -> Result<Self, ProfilesError> {
        let mut fields = vec![
            value_field("profile_id", ValueType::String).with_nullable(false),
            value_field("created_at", ValueType::Timestamp),
        ];
        let mut origins = vec![Origin::ProfileId, Origin::CreatedAt];
        for (index, name) in tables.identity_fields.iter().enumerate() {
            fields.push(value_field(name, ValueType::String));
            origins.push(Origin::Identity(index));
        }
        for (index, model) in tables.models.iter().enumerate() {
            for (attribute, field) in model.attributes.iter().enumerate() {
                fields.push(field.as_ref().clone().with_name(model.attribute_name(field.name())).with_nullable(true));
                origins.push(Origin::Attribute(index, attribute));
            }
            fields.push(Field::new(model.attribute_name("membership"), DataType::Boolean, false));
            origins.push(Origin::Membership(index));
            fields.push(value_field(&model.attribute_name("since"), ValueType::Timestamp));
            origins.push(Origin::Since(index));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = fields.iter().find(|field| !names.insert(field.name().clone())) {
            return Err(ProfilesError::DuplicateColumn { column: twice.name().clone() });
        }
        Ok(Self { tables, memory_limit, schema: Arc::new(Schema::new(fields)), origins })
    }

    /// The joins that these columns need, and a projection to exactly them, in the view's order.
    async fn plan(
        &self,
        wanted: &BTreeSet<usize>,
        of: Option<&[String]>,
    ) -> Result<(LogicalPlanBuilder, u64), ProfilesError> {
        let origins = || wanted.iter().map(|index| &self.origins[*index]);
        let mut plan = self.tables.founders(of)?.alias("founders")?;
        let mut held = 0;
        for (index, field) in self.tables.identity_fields.iter().enumerate() {
            if origins().any(|origin| *origin == Origin::Identity(index))
                && let Some(identities) = self.tables.identity_column(field, of).await?
            {
                held += self.tables.fields.get(field).map_or(0, |table| table.rows());
                plan = join(plan, identities, &format!("identity{index}"))?;
            }
        }
        for (index, model) in self.tables.models.iter().enumerate() {
            let columns: Vec<&str> = origins()
                .filter_map(|origin| match origin {
                    Origin::Attribute(of, attribute) if *of == index => {
                        Some(model.attributes[*attribute].name().as_str())
                    }
                    _ => None,
                })
                .collect();
            let asked = |origin: &Origin| *origin == Origin::Membership(index) || *origin == Origin::Since(index);
            if (!columns.is_empty() || origins().any(asked))
                && let Some(members) = self.tables.members(model, &columns, of).await?
            {
                let rows = model.records.as_ref().map_or(0, |records| records.rows);
                held += 2 * rows.min(self.tables.fields.get(&model.external_key).map_or(0, |table| table.rows()));
                plan = join(plan, members, &format!("model{index}"))?;
            }
        }
        let projection: Vec<Expr> = wanted.iter().map(|index| self.expression(*index)).collect();
        Ok((plan.project(projection)?, held))
    }

    /// A column of the view, in terms of [`WideTable::plan`]'s joins.
    fn expression(&self, index: usize) -> Expr {
        let of = |relation: String, name: &str| Expr::Column(Column::new(Some(relation), name));
        let published = |model: &usize| self.tables.models[*model].records.is_some();
        let field = self.schema.field(index);
        let expression = match &self.origins[index] {
            Origin::ProfileId => of("founders".into(), "profile_id"),
            Origin::CreatedAt => of("founders".into(), "created_at"),
            Origin::Identity(identity) => of(format!("identity{identity}"), "value"),
            Origin::Membership(model) if !published(model) => lit(false),
            Origin::Membership(model) => of(format!("model{model}"), "profile_id").is_not_null(),
            Origin::Since(model) | Origin::Attribute(model, _) if !published(model) => {
                match ScalarValue::try_from(field.data_type()) {
                    Ok(null) => lit(null),
                    Err(_) => lit(ScalarValue::Null),
                }
            }
            Origin::Since(model) => of(format!("model{model}"), "since"),
            Origin::Attribute(model, attribute) => {
                let name = self.tables.models[*model].attributes[*attribute].name();
                of(format!("model{model}"), &attribute_alias(name))
            }
        };
        expression.alias(field.name())
    }

    /// The only profiles that the filters can let through, when a filter names them by an identity.
    async fn candidates(&self, filters: &[Expr]) -> Result<Option<Vec<String>>, ProfilesError> {
        for filter in filters.iter().flat_map(split_conjunction) {
            let Some((name, values)) = equality(filter) else { continue };
            if name == "profile_id" {
                return Ok(Some(values));
            }
            if self.tables.identity_fields.contains(&name) {
                let lookup = Lookup::new(self.tables.clone(), LookupOptions::default());
                let mut owners = Vec::new();
                for value in values {
                    owners.extend(lookup.owner(&name, &value).await?);
                }
                return Ok(Some(owners));
            }
        }
        Ok(None)
    }
}

/// `column = 'text'` and `column IN ('text', …)`, as the column's name and the texts.
fn equality(filter: &Expr) -> Option<(String, Vec<String>)> {
    let text = |value: &Expr| match value {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_string),
        _ => None,
    };
    let name = |column: &Expr| column.try_as_col().map(|column| column.name.clone());
    match filter {
        Expr::BinaryExpr(binary) if binary.op == Operator::Eq => {
            let (column, value) = if binary.left.try_as_col().is_some() {
                (&binary.left, &binary.right)
            } else {
                (&binary.right, &binary.left)
            };
            Some((name(column)?, vec![text(value)?]))
        }
        // what the optimizer makes of a short IN
        Expr::BinaryExpr(binary) if binary.op == Operator::Or => {
            let ((name, mut values), (other, more)) = (equality(&binary.left)?, equality(&binary.right)?);
            values.extend(more);
            (name == other && values.len() <= POINT_QUERY_VALUES).then_some((name, values))
        }
        Expr::InList(list) if !list.negated && list.list.len() <= POINT_QUERY_VALUES => {
            Some((name(&list.expr)?, list.list.iter().map(text).collect::<Option<_>>()?))
        }
        _ => None,
    }
}

fn join(plan: LogicalPlanBuilder, with: LogicalPlanBuilder, name: &str) -> DataFusionResult<LogicalPlanBuilder> {
    let left = vec![Column::new(Some("founders"), "profile_id")];
    let right = vec![Column::new(Some(name), "profile_id")];
    plan.join(with.alias(name)?.build()?, JoinType::Left, (left, right), None)
}

#[async_trait]
impl TableProvider for WideTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // the scan's own plan applies them
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let mut wanted: BTreeSet<usize> = match projection {
            Some(columns) => columns.iter().copied().collect(),
            None => (0..self.origins.len()).collect(),
        };
        for column in filters.iter().flat_map(|filter| filter.column_refs()) {
            wanted.insert(self.schema.index_of(&column.name)?);
        }
        let candidates = self.candidates(filters).await.map_err(external)?;
        let (plan, held) = self.plan(&wanted, candidates.as_deref()).await.map_err(external)?;
        let held = if candidates.is_some() { 0 } else { held };
        let names = projection.map(|columns| columns.iter().map(|index| self.schema.field(*index).name().as_str()));
        finish(state, plan, names.map(Iterator::collect), filters, limit, hash_joins_fit(held, self.memory_limit)).await
    }
}

/// Do hash tables of that many rows leave most of the memory to the rest of the query?
pub(super) fn hash_joins_fit(rows: u64, memory_limit: u64) -> bool {
    rows * JOINED_ROW_BYTES < memory_limit / 4
}

fn external(error: ProfilesError) -> DataFusionError {
    match error {
        ProfilesError::Query(error) => error,
        other => DataFusionError::External(Box::new(other)),
    }
}

/// Filters, projects and limits the plan as a scan was asked to, and makes it executable.
async fn finish(
    state: &dyn Session,
    mut plan: LogicalPlanBuilder,
    projection: Option<Vec<&str>>,
    filters: &[Expr],
    limit: Option<usize>,
    hash_joins: bool,
) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    for filter in filters {
        plan = plan.filter(filter.clone())?;
    }
    if let Some(names) = projection {
        plan = plan.project(names.into_iter().map(column).collect::<Vec<_>>())?;
    }
    if limit.is_some() {
        plan = plan.limit(0, limit)?;
    }
    let Some(state) = state.as_any().downcast_ref::<SessionState>() else {
        return state.create_physical_plan(&plan.build()?).await;
    };
    // the rules that improve a physical plan run once, over the query's whole plan: some refuse to see a join twice
    let mut state = SessionStateBuilder::new_from_existing(state.clone()).with_physical_optimizer_rules(vec![]).build();
    // hash joins are faster but cannot spill; sorts can
    state.config_mut().options_mut().optimizer.prefer_hash_join = hash_joins;
    state.create_physical_plan(&plan.build()?).await
}

/// Every model's members: `profile_id`, `model`, `since`.
#[derive(Debug)]
pub(super) struct MembershipsTable {
    tables: Arc<Tables>,
    memory_limit: u64,
    schema: SchemaRef,
}

impl MembershipsTable {
    pub fn new(tables: Arc<Tables>, memory_limit: u64) -> Self {
        let schema = Schema::new(vec![
            value_field("profile_id", ValueType::String),
            value_field("model", ValueType::String),
            value_field("since", ValueType::Timestamp),
        ]);
        Self { tables, memory_limit, schema: Arc::new(schema) }
    }

    async fn plan(&self) -> Result<(LogicalPlanBuilder, u64), ProfilesError> {
        let mut all: Option<LogicalPlanBuilder> = None;
        let mut held = 0;
        for model in &self.tables.models {
            let Some(members) = self.tables.members(model, &[], None).await? else { continue };
            let slug = lit(model.slug.as_str()).alias("model");
            let members = members.project([column("profile_id"), slug, column("since")])?;
            held = held.max(model.records.as_ref().map_or(0, |records| records.rows));
            all = Some(match all {
                Some(others) => others.union(members.build()?)?,
                None => members,
            });
        }
        let none = || {
            let empty = EmptyTable::new(self.schema.clone());
            LogicalPlanBuilder::scan("memberships", provider_as_source(Arc::new(empty)), None)
        };
        Ok((all.map_or_else(none, Ok)?, held))
    }
}

#[async_trait]
impl TableProvider for MembershipsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        // a filter on `model` becomes false for the other models before anything of them is read
        let (plan, held) = self.plan().await.map_err(external)?;
        let names = projection.map(|columns| columns.iter().map(|index| self.schema.field(*index).name().as_str()));
        finish(state, plan, names.map(Iterator::collect), filters, limit, hash_joins_fit(held, self.memory_limit)).await
    }
}
