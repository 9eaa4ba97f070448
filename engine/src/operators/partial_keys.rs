//! Keys that hold for a part of the columns alone, kept from rules that take them for keys of whole rows.
//!
//! A column that is the key of one side of a join gives the other columns of that side, and none of the other side. DataFusion lets it give everything
//! once the join is grouped by it: `SELECT DISTINCT k` of such groups had rows twice, `GROUP BY k, x` lost x, `ORDER BY k, x` did not sort by x. What
//! UNNEST makes many rows of keeps its key in the same way.
//!
//! No such group or list tells the rules above of its keys, and nothing that a FROM names tells the SQL planner of any: there it would take columns
//! that are not grouped, and choose the frame of a window by them.

use super::apart::{Hidden, apart, exists, open};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::sql::sqlparser::ast::TableFactor;
use std::cell::Cell;
use std::sync::Arc;

/// DataFusion's rules, which see no key that holds for a part of the columns.
pub fn without_partial_keys(mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    // The first of them that reads keys, and the last that makes joins of subqueries.
    let reads = rules.iter().position(|rule| rule.name() == "replace_distinct_aggregate").unwrap_or(0);
    rules.insert(reads, Arc::new(HidePartialKeys));
    let joins = rules.iter().rposition(|rule| rule.name() == "decorrelate_lateral_join").unwrap_or(reads);
    rules.insert(joins + 1, Arc::new(HidePartialKeys));
    rules.push(Arc::new(ShowKeys));
    rules
}

#[derive(Debug)]
struct HidePartialKeys;

impl OptimizerRule for HidePartialKeys {
    fn name(&self) -> &str {
        "hide_partial_keys"
    }
    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }
    fn supports_rewrite(&self) -> bool {
        true
    }
    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let plan = open(Hidden::Keys, plan)?.data;
        if !exists(&plan, &keeps_partial_keys)? {
            return Ok(Transformed::no(plan));
        }
        plan.transform_up_with_subqueries(|node| {
            let node = node.recompute_schema()?;
            Ok(Transformed::yes(if keeps_partial_keys(&node) { apart(Hidden::Keys, Arc::new(node))? } else { node }))
        })
    }
}

#[derive(Debug)]
struct ShowKeys;

impl OptimizerRule for ShowKeys {
    fn name(&self) -> &str {
        "show_keys"
    }
    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }
    fn supports_rewrite(&self) -> bool {
        true
    }
    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        open(Hidden::Keys, plan)
    }
}

/// Whether a node says that columns are a key which are none.
fn keeps_partial_keys(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::Unnest(unnest) => !unnest.schema.functional_dependencies().is_empty(),
        LogicalPlan::Aggregate(Aggregate { input, group_expr, .. }) => has_partial_key(input.schema(), group_expr),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let columns = input.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
            has_partial_key(input.schema(), &columns)
        }
        LogicalPlan::Distinct(Distinct::On(on)) => has_partial_key(on.input.schema(), &on.on_expr),
        _ => false,
    }
}

/// Whether some of the columns that are grouped by are a key of some of the others, but not of all.
fn has_partial_key(input: &DFSchema, group_by: &[Expr]) -> bool {
    let keys = input.functional_dependencies();
    if keys.is_empty() {
        return false;
    }
    let names = input.field_names();
    let grouped = group_by.iter().map(|expr| expr.schema_name().to_string()).collect::<Vec<_>>();
    keys.iter().any(|key| {
        key.source_indices.iter().all(|index| grouped.contains(&names[*index]))
            && !grouped.iter().all(|name| key.target_indices.iter().any(|index| names[*index] == *name))
    })
}

/// What a FROM names, without keys: [`with_keys`] shows them once the statement is planned.
#[derive(Debug)]
pub struct FromWithoutKeys;

/// A planned statement whose rules may know the keys of what a FROM names.
pub fn with_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(open(Hidden::Keys, plan)?.data)
}

thread_local! {
    /// Whether DataFusion's own planner is asked for the next relation: it asks here first.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

impl RelationPlanner for FromWithoutKeys {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        if ASKED.replace(false) || !matches!(relation, TableFactor::Table { .. } | TableFactor::Derived { .. }) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        ASKED.set(true);
        let plan = context.plan(relation);
        ASKED.set(false);
        let plan = match plan? {
            plan if plan.schema().functional_dependencies().is_empty() => plan,
            plan => apart(Hidden::Keys, Arc::new(plan))?,
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}
