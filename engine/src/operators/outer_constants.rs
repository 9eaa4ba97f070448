//! Columns that are constant on the side of an outer join where NULLs are put, told apart from constants of its result.
//!
//! `WHERE c = 7` makes c a constant, and a constant needs no sort. DataFusion keeps it one above `a RIGHT JOIN b`, where c is 7 or NULL, and leaves out
//! the sort of ORDER BY a.c. The side gives such columns through a function here, of which nobody knows that it gives what it is given.

use super::as_given::varying;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, expressions};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary};
use std::collections::HashSet;
use std::sync::Arc;

/// DataFusion's rule that deals rows by key and sorts them.
const SORTS: &str = "EnsureRequirements";

/// DataFusion's physical rules, which know no constant of an outer join's result that is one of a side alone.
pub fn without_outer_constants(
    mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    // Filters that come down to a scan make constants of its columns before sorts are looked at.
    // Below a projection that comes later, a join no longer finds its sides dealt by key.
    let sorts = rules.iter().position(|rule| rule.name() == SORTS).unwrap_or(0);
    rules.insert(sorts, Arc::new(HideOuterConstants));
    rules.insert(0, Arc::new(HideOuterConstants));
    rules
}

#[derive(Debug)]
struct HideOuterConstants;

impl PhysicalOptimizerRule for HideOuterConstants {
    fn name(&self) -> &str {
        "HideOuterConstants"
    }
    fn schema_check(&self) -> bool {
        true
    }
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let config = Arc::new(config.clone());
        plan.transform_up(|node| {
            let Some((left, right)) = sides_with_nulls(node.as_ref()) else { return Ok(Transformed::no(node)) };
            let mut changed = false;
            let mut children = vec![];
            for (side, has_nulls) in node.children().into_iter().zip([left, right]) {
                let hidden = if has_nulls { hiding(side, &config)? } else { None };
                changed |= hidden.is_some();
                children.push(hidden.unwrap_or_else(|| side.clone()));
            }
            if changed { replace_children_if_necessary(node, children).map(Transformed::yes) } else { Ok(Transformed::no(node)) }
        })
        .data()
    }
}

/// On which sides of a join NULLs are put; nothing of other nodes.
fn sides_with_nulls(node: &dyn ExecutionPlan) -> Option<(bool, bool)> {
    let join_type = if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        *join.join_type()
    } else if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        *join.join_type()
    } else {
        node.downcast_ref::<SortMergeJoinExec>()?.join_type()
    };
    match join_type {
        JoinType::Left => Some((false, true)),
        JoinType::Right => Some((true, false)),
        JoinType::Full => Some((true, true)),
        _ => None,
    }
}

/// The side with its constant columns hidden, if it has any.
fn hiding(side: &Arc<dyn ExecutionPlan>, config: &Arc<ConfigOptions>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let constants = side.equivalence_properties().constants();
    let columns: HashSet<usize> =
        constants.iter().flat_map(|constant| collect_columns(&constant.expr)).map(|column| column.index()).collect();
    if columns.is_empty() {
        return Ok(None);
    }
    let schema = side.schema();
    let exprs = schema.fields().iter().enumerate().map(|(index, field)| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(expressions::Column::new(field.name(), index));
        let given = if columns.contains(&index) { varying(column, &schema, config)? } else { column };
        Ok((given, field.name().clone()))
    });
    Ok(Some(Arc::new(ProjectionExec::try_new(exprs.collect::<Result<Vec<_>>>()?, side.clone())?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

    #[test]
    fn constants_are_hidden_before_rows_are_dealt() {
        let rules = without_outer_constants(PhysicalOptimizer::new().rules);
        let names: Vec<&str> = rules.iter().map(|rule| rule.name()).collect();
        let sorts = names.iter().position(|name| *name == SORTS).unwrap();
        assert_eq!((names[0], names[sorts - 1]), ("HideOuterConstants", "HideOuterConstants"));
        assert!(!names[sorts..].contains(&"HideOuterConstants"));
    }
}
