//! A LATERAL that refers to nothing beside it any more, once its conditions are simplified: `WHERE a.x IN (NULL)` is NULL. DataFusion makes joins of
//! those alone that refer to something, and then finds no operator for the rest.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// DataFusion's rules, with one before that which makes joins of LATERALs.
pub fn with_free_laterals(mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let at = rules.iter().position(|rule| rule.name() == "decorrelate_lateral_join").unwrap_or(rules.len());
    rules.insert(at, Arc::new(FreeLaterals));
    rules
}

#[derive(Debug)]
struct FreeLaterals;

impl OptimizerRule for FreeLaterals {
    fn name(&self) -> &str {
        "free_laterals"
    }
    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }
    fn supports_rewrite(&self) -> bool {
        true
    }
    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        freed(plan)
    }
}

/// The plan without such LATERALs. The subqueries of expressions are no relations: they keep their node.
fn freed(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    plan.transform_down(|node| {
        let node = match node {
            LogicalPlan::Subquery(lateral) if !refers(&lateral.subquery)? => Transformed::yes(Arc::unwrap_or_clone(lateral.subquery)),
            other => Transformed::no(other),
        };
        node.transform_data(|node| {
            node.map_subqueries(|subquery| match subquery {
                LogicalPlan::Subquery(of) => {
                    let plan = freed(of.subquery.as_ref().clone())?;
                    Ok(plan.update_data(|plan| LogicalPlan::Subquery(Subquery { subquery: Arc::new(plan), ..of })))
                }
                other => Ok(Transformed::no(other)),
            })
        })
    })
}

/// Whether the plan or a subquery in it names a column from around it.
fn refers(plan: &LogicalPlan) -> Result<bool> {
    let mut refers = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            refers |= expr.contains_outer();
            Ok(if refers { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(refers)
}
