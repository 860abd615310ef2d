//! Queries that give way to other work, and end when nobody wants them any more.
//!
//! DataFusion gives way where batches are read. A join makes any number of batches of two that were read: until it is
//! through with them its task keeps its thread, hears nobody who would end it, and goes on when its caller is gone. So
//! what makes more rows than it is given counts its batches too.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;

/// The last rule of a session's optimizer.
#[derive(Debug)]
pub struct Yielding;

impl PhysicalOptimizerRule for Yielding {
    fn name(&self) -> &'static str {
        "yielding"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let multiplies = |plan: &Arc<dyn ExecutionPlan>| plan.children().len() > 1 || plan.name() == "UnnestExec";
        let wrapped = plan.transform_up(|plan| {
            Ok(if multiplies(&plan) {
                Transformed::yes(Arc::new(CooperativeExec::new(plan)) as Arc<dyn ExecutionPlan>)
            } else {
                Transformed::no(plan)
            })
        });
        wrapped.map(|plan| plan.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}
