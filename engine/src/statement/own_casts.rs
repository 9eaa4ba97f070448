//! Casts by our rules, also those that DataFusion adds.

use super::times;
use crate::operators::double_decimals::by_digits;
use crate::operators::float_values::as_sql_has_doubles;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Union};
use std::sync::Arc;

/// An expression whose doubles are SQL's, and become decimals by their digits.
pub fn with_sql_doubles(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let expr = by_digits(&expr, schema)?.unwrap_or(expr);
    Ok(as_sql_has_doubles(&expr, schema)?.unwrap_or(expr))
}

/// A cast by our rules; what is no cast, as it is.
pub fn own_cast(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    if !matches!(expr, Expr::Cast(_) | Expr::TryCast(_)) {
        return Ok(expr);
    }
    let expr = times::by_the_clock(&expr, schema)?.unwrap_or(expr);
    with_sql_doubles(expr, schema)
}

/// The casts that give the branches of a UNION their type, by our rules.
pub fn own_casts_of_union(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Union(union) = &plan else { return Ok(plan) };
    let own = |branch: &Arc<LogicalPlan>| -> Result<Arc<LogicalPlan>> {
        let LogicalPlan::Projection(Projection { expr, input, .. }) = branch.as_ref() else { return Ok(branch.clone()) };
        let exprs = expr.iter().map(|expr| match expr {
            Expr::Alias(alias) => {
                let own = own_cast(alias.expr.as_ref().clone(), input.schema())?;
                Ok(own.alias_qualified(alias.relation.clone(), alias.name.clone()))
            }
            cast @ Expr::Cast(_) => Ok(own_cast(cast.clone(), input.schema())?.alias(cast.schema_name().to_string())),
            other => Ok(other.clone()),
        });
        Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs.collect::<Result<_>>()?, input.clone())?)))
    };
    let inputs = union.inputs.iter().map(own).collect::<Result<_>>()?;
    Ok(LogicalPlan::Union(Union { inputs, schema: union.schema.clone() }))
}
