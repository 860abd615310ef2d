//! The store's tables at one cut, and the logical plans that join them to profiles.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions::core::expr_fn::greatest;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, JoinType, LogicalPlanBuilder, SortExpr, lit};
use futures::{FutureExt, StreamExt, TryStreamExt};
use parquet::file::statistics::Statistics;
use tokio::sync::OnceCell;

use super::files::{FilesTable, TableFiles};
use super::{ModelShape, ProfilesError};
use crate::store::schema::{self, KEY_HI, KEY_LO, SINCE};
use crate::store::{Cut, Store, TableId};
use crate::values::{VALUE_TYPE_KEY, ValueType};

/// Data files whose footers are asked for at a time.
pub(super) const FILES_AT_ONCE: usize = 16;

/// Everything that the cut holds.
#[derive(Debug)]
pub(super) struct Tables {
    /// In slug order.
    pub models: Vec<ModelTable>,
    pub identity_fields: Vec<String>,
    /// All fields, configured or not.
    pub identities: Arc<TableFiles>,
    pub fields: BTreeMap<String, FieldTable>,
    pub changes: Arc<TableFiles>,
}

/// The identity values of one field.
#[derive(Debug)]
pub(super) struct FieldTable {
    pub files: Arc<TableFiles>,
    one_value_each: OnceCell<bool>,
}

/// A model's record store.
#[derive(Debug)]
pub(super) struct ModelTable {
    pub slug: String,
    pub external_key: String,
    /// The columns that are profile attributes.
    pub attributes: Vec<FieldRef>,
    /// None: never published at this cut.
    pub records: Option<Arc<TableFiles>>,
}

impl Tables {
    pub async fn load(
        store: &Store,
        cut: &Cut,
        models: &[ModelShape],
        identity_fields: &[String],
    ) -> Result<Self, ProfilesError> {
        let partition = |name: &str| Some(Arc::new(Field::new(name, arrow::datatypes::DataType::Utf8, false)));
        let identities = match cut.identities {
            Some(version) => TableFiles::load(store, TableId::Identities, version, Some("field")).await?,
            None => TableFiles::none(store, TableId::Identities, schema::identities_schema(), partition("field")),
        };
        let changes = match cut.changes {
            Some(version) => TableFiles::load(store, TableId::Changes, version, Some("model")).await?,
            None => TableFiles::none(store, TableId::Changes, schema::changes_schema(), partition("model")),
        };
        let loaded = futures::stream::iter(models.to_vec()).map(|shape| async move {
            let records = match cut.records.get(&shape.slug) {
                Some(version) => {
                    Some(TableFiles::load(store, TableId::Records(shape.slug.clone()), *version, None).await?)
                }
                None => None,
            };
            Ok::<_, ProfilesError>(ModelTable::new(shape, records))
        });
        let mut models: Vec<ModelTable> = loaded.buffered(FILES_AT_ONCE).try_collect().await?;
        models.sort_by(|a, b| a.slug.cmp(&b.slug));
        let field = |name: &String| {
            let files = Arc::new(identities.of_partition(name));
            (name.clone(), FieldTable { files, one_value_each: OnceCell::new() })
        };
        let external_keys = models.iter().map(|model| &model.external_key);
        let fields = identity_fields.iter().chain(external_keys).map(field).collect();
        Ok(Self {
            fields,
            models,
            identity_fields: identity_fields.to_vec(),
            identities: Arc::new(identities),
            changes: Arc::new(changes),
        })
    }

    /// `profile_id`, `created_at`: a row a profile.
    pub fn founders(&self, of: Option<&[String]>) -> DataFusionResult<LogicalPlanBuilder> {
        scan("founders", &self.identities, of)?
            .filter(column("founder"))?
            .project([column("profile_id"), column("created_at")])
    }

    /// `profile_id`, `value`: the profile's newest value of the field, one row for each profile that has one.
    pub async fn identity_column(
        &self,
        field: &str,
        of: Option<&[String]>,
    ) -> Result<Option<LogicalPlanBuilder>, ProfilesError> {
        let Some(table) = self.fields.get(field) else { return Ok(None) };
        let mut plan = scan("identities", &table.files, of)?;
        if !table.one_value_each().await? {
            plan = first_each(plan, vec![column("created_at").sort(false, false), column("value").sort(true, false)])?;
        }
        Ok(Some(plan.project([column("profile_id"), column("value")])?))
    }

    /// `profile_id`, `identity`, `since` and these columns of the record store: a row for each profile in the model.
    /// None when the model was never published.
    pub async fn members(
        &self,
        model: &ModelTable,
        columns: &[&str],
        of: Option<&[String]>,
    ) -> Result<Option<LogicalPlanBuilder>, ProfilesError> {
        let (Some(records), Some(owners)) = (&model.records, self.fields.get(&model.external_key)) else {
            return Ok(None);
        };
        let name = format!("records_{}", model.slug);
        let in_records = |column: &str| Expr::Column(Column::new(Some(name.clone()), column));
        let in_owners = |column: &str| Expr::Column(Column::new(Some("owners"), column));
        let keys = |relation: &str| [KEY_HI, KEY_LO].map(|key| Column::new(Some(relation), key)).to_vec();
        let mut wanted = vec![
            in_owners("profile_id").alias("profile_id"),
            in_owners("value").alias("identity"),
            greatest(vec![in_records(SINCE), in_owners("created_at")]).alias("since"),
            in_records(KEY_HI).alias(KEY_HI),
            in_records(KEY_LO).alias(KEY_LO),
        ];
        wanted.extend(columns.iter().map(|column| in_records(column).alias(attribute_alias(column))));
        let owned = scan("owners", &owners.files, of)?;
        let mut plan = scan(&name, records, None)?
            .join(owned.build()?, JoinType::Inner, (keys(&name), keys("owners")), None)?
            .project(wanted)?;
        if !owners.one_value_each().await? {
            plan = first_each(
                plan,
                [column("since"), column(KEY_HI), column(KEY_LO)].map(|c| c.sort(true, false)).into(),
            )?;
        }
        let mut kept = vec![column("profile_id"), column("identity"), column("since")];
        kept.extend(columns.iter().map(|name| column(&attribute_alias(name))));
        Ok(Some(plan.project(kept)?))
    }

    pub fn model(&self, slug: &str) -> Result<&ModelTable, ProfilesError> {
        self.models.iter().find(|model| model.slug == slug).ok_or_else(|| ProfilesError::UnknownModel {
            slug: slug.into(),
            known: self.models.iter().map(|model| model.slug.clone()).collect(),
        })
    }
}

impl ModelTable {
    pub fn new(shape: ModelShape, records: Option<TableFiles>) -> Self {
        let attributes = match &records {
            // what the model activates now may differ from what it had activated at this version
            Some(records) => {
                let is_attribute = |name: &String| {
                    let key = *name == shape.primary_key || shape.identities.contains(name);
                    !name.starts_with("_cc_") && (!key || shape.activated_fields.contains(name))
                };
                records.file_schema.fields().iter().filter(|field| is_attribute(field.name())).cloned().collect()
            }
            None => {
                let text = |name: &String| Arc::new(schema::value_field(name, ValueType::String));
                shape.activated_fields.iter().map(text).collect()
            }
        };
        Self { slug: shape.slug, external_key: shape.external_key, attributes, records: records.map(Arc::new) }
    }

    /// The wide view's name of an attribute.
    pub fn attribute_name(&self, column: &str) -> String {
        format!("cc_{}_{column}", self.slug)
    }
}

impl FieldTable {
    pub fn rows(&self) -> u64 {
        self.files.rows
    }

    /// Is it certain that no profile has two values of this field? It is when every value founded its profile, which
    /// the footers tell: then a query needs no sort to pick one.
    pub async fn one_value_each(&self) -> Result<bool, ProfilesError> {
        self.one_value_each.get_or_try_init(|| self.ask_footers().boxed()).await.copied()
    }

    async fn ask_footers(&self) -> Result<bool, ProfilesError> {
        let footers: Vec<_> = self.files.files.iter().map(|file| self.files.footer(file).boxed()).collect();
        let mut footers = futures::stream::iter(footers).buffer_unordered(FILES_AT_ONCE);
        while let Some(footer) = footers.try_next().await? {
            if !founders_only(footer.metadata()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn founders_only(file: &parquet::file::metadata::ParquetMetaData) -> bool {
    file.row_groups().iter().all(|group| {
        let founder = group.columns().iter().find(|column| column.column_path().string() == "founder");
        match founder.and_then(|column| column.statistics()) {
            Some(Statistics::Boolean(values)) => values.min_opt() == Some(&true),
            _ => group.num_rows() == 0,
        }
    })
}

/// Attributes keep apart from the plan's own columns, whatever they are called.
pub(super) fn attribute_alias(column: &str) -> String {
    format!("attribute {column}")
}

/// The type of an attribute's values.
pub(super) fn value_type(field: &Field) -> ValueType {
    debug_assert!(field.metadata().get(VALUE_TYPE_KEY).is_none_or(|t| t == "json"));
    ValueType::of(field).unwrap_or(ValueType::String)
}

/// An unqualified column, its name taken as it is.
pub(super) fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// The table's rows; `of`: only those of these profiles.
fn scan(name: &str, files: &Arc<TableFiles>, of: Option<&[String]>) -> DataFusionResult<LogicalPlanBuilder> {
    let plan = LogicalPlanBuilder::scan(name, provider_as_source(FilesTable::new(files.clone())), None)?;
    match of {
        Some(profiles) => {
            plan.filter(column("profile_id").in_list(profiles.iter().map(|id| lit(id.as_str())).collect(), false))
        }
        None => Ok(plan),
    }
}

/// Each profile's first row in that order.
fn first_each(plan: LogicalPlanBuilder, order: Vec<SortExpr>) -> DataFusionResult<LogicalPlanBuilder> {
    let number = row_number().partition_by(vec![column("profile_id")]).order_by(order).build()?;
    let plan = plan.window([number])?;
    let last = plan.schema().fields().len() - 1;
    let number = Expr::Column(Column::from(plan.schema().qualified_field(last)));
    plan.filter(number.eq(lit(1u64)))
}

/// What [`Tables::members`] would give of a model without members.
pub(super) fn no_members() -> DataFusionResult<datafusion::logical_expr::LogicalPlan> {
    let schema = arrow::datatypes::Schema::new(vec![
        schema::value_field("profile_id", ValueType::String),
        schema::value_field("identity", ValueType::String),
        schema::value_field("since", ValueType::Timestamp),
    ]);
    let empty = datafusion::datasource::empty::EmptyTable::new(Arc::new(schema));
    LogicalPlanBuilder::scan("members", provider_as_source(Arc::new(empty)), None)?.build()
}
