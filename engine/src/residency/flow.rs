//! Which rows reach the output of a plan as rows, and which only as aggregates.

use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion_distributed::{DistributedLeafExec, NetworkBoundary, NetworkBoundaryExt};
use std::sync::Arc;

/// Aggregates whose states say something of all values together.
const RELEASING: [&str; 26] = [
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar",
    "covar_pop",
    "covar_samp",
    "grouping",
    "max",
    "mean",
    "min",
    "regr_count",
    "regr_r2",
    "regr_slope",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "var",
    "var_pop",
    "var_samp",
    "var_sample",
];

/// What DataFusion's rule `single_distinct_aggregation_to_group_by` calls the values that it groups by.
const DISTINCT_VALUE: &str = "alias1";

/// What follows rows through a plan.
pub trait Follow {
    /// What is known of rows.
    type Label: Default;

    /// Rows of a leaf.
    fn leaf(&mut self, leaf: &Arc<dyn ExecutionPlan>) -> Result<Self::Label>;

    /// Rows that come in over the network.
    fn boundary(&mut self, boundary: &dyn NetworkBoundary, name: &str) -> Result<Self::Label>;

    /// Rows of both.
    fn both(left: Self::Label, right: Self::Label) -> Self::Label;
}

/// What is known of the rows that `plan` puts out. Whatever is not known to release them passes them on.
pub fn follow<F: Follow>(plan: &Arc<dyn ExecutionPlan>, by: &mut F) -> Result<F::Label> {
    if let Some(boundary) = plan.as_network_boundary() {
        return by.boundary(boundary, plan.name());
    }
    if plan.is::<DistributedLeafExec>() || plan.children().is_empty() {
        return by.leaf(plan);
    }
    let mut label = F::Label::default();
    for child in plan.children() {
        label = F::both(label, follow(child, by)?);
    }
    Ok(if releases(plan) { F::Label::default() } else { label })
}

/// Whether the node lets out aggregates alone. One without aggregate functions is DISTINCT: its groups are the rows. So are those of an aggregate
/// that DataFusion makes of DISTINCT beside other functions.
fn releases(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let Some(aggregate) = plan.downcast_ref::<AggregateExec>() else { return false };
    let functions = aggregate.aggr_expr();
    let distinct = aggregate.group_expr().expr().iter().any(|(_, name)| name == DISTINCT_VALUE);
    !distinct
        && !functions.is_empty()
        && functions.iter().all(|function| !function.is_distinct() && RELEASING.contains(&function.fun().name()))
}
