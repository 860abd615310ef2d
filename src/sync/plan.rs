//! A plan: a run that ends before it writes.

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::publishing::Samples;
use super::report::{RunKind, RunReport};
use super::{Engine, Progress, SyncError};
use crate::diff::spill::SpillFolder;
use crate::model::Model;
use crate::warehouse::CostEstimate;

/// What a run would do.
#[derive(Debug, Clone, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct Plan {
    #[serde(flatten)]
    pub report: RunReport,
    pub samples: Samples,
    /// What the query costs in the warehouse, where that is told without running it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostEstimate>,
}

impl Engine {
    /// What a run would do, by really running the query and the comparison; writes nothing that stays.
    pub async fn plan(
        &self,
        slug: &str,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Plan, SyncError> {
        let model = self.model(slug)?;
        let run_id = format!("plan-{}", Uuid::now_v7());
        let mut report = RunReport::new(run_id, slug.to_string(), RunKind::Sync, self.clock.now());
        let folder = SpillFolder::create(&self.spill_folder(), &report.run_id)?;
        let base = self.base(slug).await?;
        self.check_normalization(model, &base).await?;
        let cost = self.estimate(model).await;
        let extracted = self.extracted(model, &base, &folder, progress, cancel).await?;
        let outcome = self.stages(model, &base, extracted, &folder, &report, false, progress).await?;
        let totals = outcome.take_totals();
        outcome.fill(&mut report, &totals);
        let nothing = report.added + report.changed + report.removed == 0
            && outcome.rewritten.is_empty()
            && report.profiles_created + report.identities_linked == 0;
        report.finish(outcome.status(nothing), self.clock.now());
        if let Some(hold) = &outcome.hold {
            report.hint = Some(format!("the removals of {} of {} rows would be held", hold.removed, hold.of));
        }
        Ok(Plan { report, samples: totals.samples, cost })
    }

    /// What the model's query costs. A plan is worth having without it: that it cannot be had is said in the log.
    async fn estimate(&self, model: &Model) -> Option<CostEstimate> {
        let warehouse = self.project.open_connection(&model.connection, self.memory.query).ok()?;
        warehouse.estimate(&model.sql).await.unwrap_or_else(|error| {
            tracing::warn!(model = model.slug, %error, "the query's cost is not known");
            None
        })
    }

    /// The plan of a model whose query or comparison failed.
    pub fn failed_plan(&self, slug: &str, error: &SyncError) -> Plan {
        let (run_id, now) = (format!("plan-{}", Uuid::now_v7()), self.clock.now());
        let mut report = RunReport::new(run_id, slug.to_string(), RunKind::Sync, now);
        report.fail(error, now);
        Plan { report, samples: Samples::default(), cost: None }
    }
}
