//! Casts that do not keep the order of values, as `CAST(n AS VARCHAR)`: '10' comes before '9'.
//!
//! DataFusion casts the least and the greatest value of a column with it, and takes them for the least and the greatest of the result. Where they come
//! out the other way round, it ends the query with a failed assertion. Here nothing is known of the bounds of such a cast.

use super::as_given::as_given;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::Alias;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, Projection};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// DataFusion's rules, and one at their end that hides the bounds of such casts.
pub fn without_cast_bounds(mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    rules.push(Arc::new(HideCastBounds));
    rules
}

#[derive(Debug)]
struct HideCastBounds;

impl OptimizerRule for HideCastBounds {
    fn name(&self) -> &str {
        "hide_cast_bounds"
    }
    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }
    fn supports_rewrite(&self) -> bool {
        true
    }
    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Projection(projection) if loses_order_somewhere(&projection)? => {
                let Projection { expr, input, schema, .. } = projection;
                let hidden = expr.into_iter().map(|expr| hidden(expr, input.schema())).collect::<Result<Vec<_>>>()?;
                Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new_with_schema(hidden, input, schema)?)))
            }
            other => Ok(Transformed::no(other)),
        })
    }
}

fn loses_order_somewhere(projection: &Projection) -> Result<bool> {
    for expr in &projection.expr {
        if loses_order(expr, projection.input.schema())? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn hidden(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    if !loses_order(&expr, schema)? {
        return Ok(expr);
    }
    let name = NamePreserver::new_for_projection().save(&expr);
    Ok(match expr {
        Expr::Alias(Alias { expr, relation, name, metadata }) => {
            Expr::Alias(Alias { expr: Box::new(as_given(*expr)), relation, name, metadata })
        }
        other => name.restore(as_given(other)),
    })
}

/// Whether an expression is a cast of a column, or of such a cast, whose values come in another order than the column's.
fn loses_order(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    match expr {
        Expr::Alias(alias) => loses_order(&alias.expr, schema),
        Expr::Cast(Cast { expr: of, field }) if matches!(of.as_ref(), Expr::Column(_) | Expr::Cast(_)) => {
            Ok(!keeps_order(&of.get_type(schema)?, field.data_type()) || loses_order(of, schema)?)
        }
        _ => Ok(false),
    }
}

fn keeps_order(from: &DataType, to: &DataType) -> bool {
    let is_day = |of: &DataType| matches!(of, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..));
    from == to
        || from.is_null()
        || (from.is_numeric() && to.is_numeric())
        || (is_day(from) && is_day(to))
        || (from.is_string() && to.is_string())
}
