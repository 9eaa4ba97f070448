//! How subqueries refer to the row outside.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Distinct, Expr, LogicalPlan, Operator, Sort};
use std::sync::Arc;

/// The plan with its inputs changed within `outer`. A LATERAL subquery sees the columns of the other side too, as that side is then.
pub(super) fn change_inputs(
    plan: LogicalPlan,
    outer: &DFSchema,
    change: &dyn Fn(LogicalPlan, &DFSchema) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Join(mut join) if is_lateral(&join.right) => {
            let left = change(Arc::unwrap_or_clone(join.left), outer)?;
            let mut around = left.schema().as_ref().clone();
            around.merge(outer);
            let right = change(Arc::unwrap_or_clone(join.right), &around)?;
            (join.left, join.right) = (Arc::new(left), Arc::new(right));
            Ok(LogicalPlan::Join(join))
        }
        plan => Ok(plan.map_children(|input| change(input, outer).map(Transformed::yes))?.data),
    }
}

fn is_lateral(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_lateral(&alias.input),
        plan => matches!(plan, LogicalPlan::Subquery(_)),
    }
}

/// Whether each reference to the row is one side of an `=` in a condition of the subquery's own WHERE, as DataFusion wants it. It loses such a condition
/// under the name of a derived table.
pub(super) fn refers_by_equality(subquery: &Subquery) -> bool {
    if subquery.outer_ref_columns.is_empty() {
        return true;
    }
    // Below the one aggregate: a projection, then conditions over what has no references.
    let mut plan = subquery.subquery.as_ref();
    let mut aggregated = false;
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) if !projection.expr.iter().any(Expr::contains_outer) => &projection.input,
            LogicalPlan::Aggregate(aggregate)
                if !aggregated && aggregate.group_expr.is_empty() && !aggregate.aggr_expr.iter().any(Expr::contains_outer) =>
            {
                aggregated = true;
                &aggregate.input
            }
            LogicalPlan::Filter(filter) if aggregated => {
                let by_equality = split_conjunction(&filter.predicate).into_iter().all(|part| match part {
                    Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                        let (left, right) = (left.as_ref(), right.as_ref());
                        let apart = |outer: &Expr, inner: &Expr| {
                            matches!(outer, Expr::OuterReferenceColumn(..)) && !inner.contains_outer() && !inner.column_refs().is_empty()
                        };
                        apart(left, right) || apart(right, left) || !(left.contains_outer() || right.contains_outer())
                    }
                    other => !other.contains_outer(),
                });
                return by_equality && !has_outer(&filter.input);
            }
            _ => return false,
        };
    }
}

/// Whether a subquery refers to the row in conditions of its own WHERE alone, over which no row is left out or added: DataFusion passes over a LIMIT
/// there, and knows no UNION. Under the name of a derived table it loses the columns of a condition that it moves, and it moves conditions out of the
/// sides of outer joins.
pub(super) fn refers_in_conditions(subquery: &Subquery) -> bool {
    if subquery.outer_ref_columns.is_empty() {
        return true;
    }
    let mut plan = subquery.subquery.as_ref();
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) if !projection.expr.iter().any(Expr::contains_outer) => &projection.input,
            LogicalPlan::Distinct(Distinct::All(input)) => input,
            LogicalPlan::Sort(Sort { fetch: None, input, .. }) => input,
            LogicalPlan::Aggregate(aggregate) if !aggregate.group_expr.iter().chain(&aggregate.aggr_expr).any(Expr::contains_outer) => {
                &aggregate.input
            }
            LogicalPlan::Filter(filter) if !has_outer(&filter.input) => return true,
            LogicalPlan::Filter(filter) => &filter.input,
            _ => return false,
        };
    }
}

pub(super) fn has_outer(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let seen = plan.apply_with_subqueries(|node| {
        found |= node.expressions().iter().any(Expr::contains_outer);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found || seen.is_err()
}

/// All references to rows outside of a plan, those of subqueries in it too. What a subquery calls outside may be a row of the plan.
pub(super) fn references(plan: &LogicalPlan) -> Result<Vec<Expr>> {
    let mut found = vec![];
    for expr in plan.expressions() {
        expr.apply(|part| {
            match part {
                Expr::OuterReferenceColumn(..) => found.push(part.clone()),
                Expr::ScalarSubquery(Subquery { subquery, .. })
                | Expr::Exists(Exists { subquery: Subquery { subquery, .. }, .. })
                | Expr::InSubquery(InSubquery { subquery: Subquery { subquery, .. }, .. })
                | Expr::SetComparison(SetComparison { subquery: Subquery { subquery, .. }, .. }) => {
                    found.extend(beyond(references(subquery)?, &plan.inputs()));
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    match plan {
        LogicalPlan::Join(join) => {
            found.extend(references(&join.left)?);
            found.extend(beyond(references(&join.right)?, &[&join.left]));
        }
        _ => {
            for input in plan.inputs() {
                found.extend(references(input)?);
            }
        }
    }
    Ok(found)
}

/// Those references that none of the plans answers.
fn beyond(references: Vec<Expr>, plans: &[&LogicalPlan]) -> Vec<Expr> {
    let answers = |column: &Column| plans.iter().any(|plan| plan.schema().has_column(column));
    references.into_iter().filter(|part| !matches!(part, Expr::OuterReferenceColumn(_, column) if answers(column))).collect()
}

/// Those of the subqueries within an expression.
pub(super) fn references_of(expr: &Expr) -> Result<Vec<Expr>> {
    let mut found = vec![];
    expr.apply(|part| {
        let subquery = match part {
            Expr::ScalarSubquery(subquery) => subquery,
            Expr::Exists(Exists { subquery, .. }) | Expr::InSubquery(InSubquery { subquery, .. }) => subquery,
            Expr::SetComparison(SetComparison { subquery, .. }) => subquery,
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        found.extend(subquery.outer_ref_columns.iter().cloned());
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
