//! Joins whose NULLs are equal, kept apart from those whose NULLs are not.
//!
//! DataFusion's rule that orders inner joins anew takes the topmost one's word for all: below `a.x IS NOT DISTINCT FROM b.x` it would join `b.k = c.k`
//! over NULLs too, and beside a cross join it forgets that NULLs are equal. Another one takes `a.y = b.y` beside it for one of its keys. Here such a
//! join keeps its place, its inputs and its keys.

use super::apart::{Hidden, apart, open};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::logical_expr::{Join, LogicalPlan};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::fmt;
use std::sync::Arc;

/// DataFusion's logical rules, with those that order inner joins and find their keys behind ours.
pub fn logical_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let ours = |rule: Arc<dyn OptimizerRule + Send + Sync>| -> Arc<dyn OptimizerRule + Send + Sync> {
        let rewrite: Rewrite = match rule.name() {
            "eliminate_cross_join" => in_their_places,
            "extract_equijoin_predicate" => keys_of_the_join,
            _ => return rule,
        };
        Arc::new(NullEqualJoins { rule, rewrite })
    };
    Optimizer::new().rules.into_iter().map(ours).collect()
}

struct NullEqualJoins {
    rule: Arc<dyn OptimizerRule + Send + Sync>,
    rewrite: Rewrite,
}

type Rewrite = fn(&dyn OptimizerRule, LogicalPlan, &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>>;

impl fmt::Debug for NullEqualJoins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NullEqualJoins").field(&self.rule.name()).finish()
    }
}

impl OptimizerRule for NullEqualJoins {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        (self.rewrite)(self.rule.as_ref(), plan, config)
    }
}

/// Orders joins anew, but for those whose NULLs are equal.
fn in_their_places(rule: &dyn OptimizerRule, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
    let is_apart =
        |join: &Join| join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty();
    if !plan.exists(|node| Ok(matches!(node, LogicalPlan::Join(join) if is_apart(join))))? {
        return rule.rewrite(plan, config);
    }
    let shut = plan.transform_up(|node| match node {
        LogicalPlan::Join(join) if is_apart(&join) => {
            let (left, right) = (Arc::new(apart(Hidden::Input, join.left)?), Arc::new(apart(Hidden::Input, join.right)?));
            apart(Hidden::Input, Arc::new(LogicalPlan::Join(Join { left, right, ..join }))).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })?;
    let ordered = rule.rewrite(shut.data, config)?;
    open(Hidden::Input, ordered.data).data().map(Transformed::yes)
}

/// Makes keys of the `a.x = b.y` in a join's condition, unless its NULLs are equal: over NULLs such a key would be another condition.
fn keys_of_the_join(rule: &dyn OptimizerRule, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
    match &plan {
        LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull => Ok(Transformed::no(plan)),
        _ => rule.rewrite(plan, config),
    }
}
