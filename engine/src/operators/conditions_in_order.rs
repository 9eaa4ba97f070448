//! `i <> 0 AND 10 / i > 3`: the first condition keeps the second from rows in which it would fail.
//!
//! DataFusion calculates both sides of AND for all rows, unless the first one leaves few or none; it makes ANDs and ORs of a CASE that gives a boolean,
//! too. Here what may fail is calculated only where the conditions beside it leave the answer open:
//!
//! ```text
//!   a AND b AND x / y > 1   ──►   a AND b AND CASE (a AND b) IS NOT FALSE WHEN true THEN x / y > 1 ELSE false END
//!   a OR x / y > 1          ──►   a OR CASE a IS NOT TRUE WHEN true THEN x / y > 1 ELSE true END
//! ```
//!
//! Likewise `sum(10 / i) FILTER (WHERE i <> 0)` adds `CASE WHEN i <> 0 THEN 10 / i END`.
//!
//! A CASE of this form is not taken apart again. It comes after DataFusion's rules, which push each condition down for itself.

use super::exact_arithmetic::exact_op;
use crate::files::common_type::holds_all;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{merge_schema, split_binary_owned};
use datafusion::logical_expr::{Case, Cast, Expr, ExprSchemable, LogicalPlan, Operator, binary_expr, lit};

/// Functions that fail for some values of their arguments.
const FAIL: [&str; 19] = [
    "abs",
    "arrow_cast",
    "chr",
    "date_bin",
    "decode",
    "factorial",
    "from_unixtime",
    "gcd",
    "lcm",
    "make_date",
    "make_time",
    "nearest_integer",
    "power",
    "repeat",
    "substr",
    "to_char",
    "to_date",
    "to_real",
    "to_time",
];

/// Conditions of one chain that may fail and are calculated one after the other.
const IN_TURN_MAX: usize = 4;

/// The plan whose conditions keep one another from failing.
pub fn in_order(plan: LogicalPlan) -> Result<LogicalPlan> {
    let of_node = |plan: LogicalPlan| {
        // What a scan is told are conditions of their own, and hints: a filter over it has them too.
        if matches!(plan, LogicalPlan::TableScan(_)) || !has_conditions(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let ordered = guarded(expr, &schema)?;
            Ok(ordered.update_data(|expr| name.restore(expr)))
        })
    };
    plan.transform_up_with_subqueries(of_node).data()
}

/// Whether a node's expressions have an AND or OR.
fn has_conditions(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= expr.exists(|part| Ok(matches!(part, Expr::BinaryExpr(binary) if is_link(binary.op))))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn is_link(op: Operator) -> bool {
    matches!(op, Operator::And | Operator::Or)
}

fn guarded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let op = match &expr {
        Expr::BinaryExpr(binary) if is_link(binary.op) => binary.op,
        _ => return expr.map_children(|child| guarded(child, schema)),
    };
    if expr.is_volatile() {
        return Ok(Transformed::no(expr));
    }
    let (mut fail, mut safe) = (vec![], vec![]);
    for part in split_binary_owned(expr, op) {
        if may_fail(&part, schema)? { fail.push(guarded(part, schema)?.data) } else { safe.push(part) }
    }
    let after = |first: Expr, rest: Expr| {
        let (is_open, settled) = match op {
            Operator::And => (first.clone().is_not_false(), false),
            _ => (first.clone().is_not_true(), true),
        };
        let open = Case::new(Some(Box::new(is_open)), vec![(Box::new(lit(true)), Box::new(rest))], Some(Box::new(lit(settled))));
        binary_expr(first, op, Expr::Case(open))
    };
    // Each is calculated where those before it leave the answer open. Each is a level more: of many the safe ones alone go first.
    let rest = match fail.len() {
        ..=IN_TURN_MAX => fail.into_iter().rev().reduce(|rest, part| after(part, rest)),
        _ => fail.into_iter().reduce(|left, right| binary_expr(left, op, right)),
    };
    let safe = safe.into_iter().reduce(|left, right| binary_expr(left, op, right));
    match (safe, rest) {
        (Some(safe), Some(rest)) => Ok(Transformed::yes(after(safe, rest))),
        (None, Some(only)) | (Some(only), None) => Ok(Transformed::yes(only)),
        (None, None) => internal_err!("a chain of conditions has none"),
    }
}

/// Arguments of an aggregate of which a FILTER leaves out rows: what may fail is calculated for the others alone.
pub fn filtered_arguments(args: &mut [Expr], filter: &Expr, schema: &DFSchema) -> Result<()> {
    // An argument of a plan that was coerced before.
    let is_kept =
        |arg: &Expr| matches!(arg, Expr::Case(case) if case.when_then_expr.first().is_some_and(|(when, _)| when.as_ref() == filter));
    for arg in args {
        if !filter.is_volatile() && !is_kept(arg) && may_fail(arg, schema)? {
            let kept = (Box::new(filter.clone()), Box::new(std::mem::take(arg)));
            *arg = Expr::Case(Case::new(None, vec![kept], None));
        }
    }
    Ok(())
}

/// Whether an expression fails for some rows, as a quotient does.
fn may_fail(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    expr.exists(|part| {
        Ok(match part {
            Expr::BinaryExpr(binary) if matches!(binary.op, Operator::Divide | Operator::Modulo) => {
                !part.get_type(schema)?.is_floating() && !part.column_refs().is_empty()
            }
            Expr::ScalarFunction(call) => {
                let name = call.name();
                let fails = exact_op(&call.func).is_some() || FAIL.contains(&name) || name.starts_with("to_timestamp");
                fails && !part.column_refs().is_empty()
            }
            Expr::Cast(Cast { expr: of, field }) => {
                !never_fails(&of.get_type(schema)?, field.data_type()) && !part.column_refs().is_empty()
            }
            _ => false,
        })
    })
}

/// Whether a cast fails for no value; it may round.
fn never_fails(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (_, text) if text.is_string() => true,
        (DataType::Null, _)
        | (DataType::Date32, DataType::Timestamp(..))
        | (DataType::Timestamp(..), DataType::Date32 | DataType::Timestamp(..)) => true,
        (from, DataType::Float64) if from.is_numeric() => true,
        _ => from == to || holds_all(from, to),
    }
}
