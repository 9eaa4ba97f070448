//! From text to a logical plan, with six corrections on the way.
//!
//! 1. `0.1` is a decimal and `1e300` is a double, as in the standard; DataFusion knows only one of the two at a time.
//! 2. TABLESAMPLE would be ignored in silence: it is refused.
//! 3. A decimal beside a double is compared as a double, as in other systems. DataFusion would make a decimal of the double, which has
//!    no place for NaN, infinities and most of its range.
//! 4. A scalar subquery of many rows is an error. Spread over nodes, the library plans it as a join that would repeat rows instead.
//! 5. `CURRENT_USER` and its like are functions without parentheses. `SET TIME ZONE` is a setting.
//! 6. Foreign keys are declared, see [`keys`]; the planner refuses them.

use super::keys;
use crate::operators::subquery_value::subquery_value;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, plan_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{self, TableFactor, Value, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Parses and plans one statement.
pub async fn plan_statement(state: &SessionState, sql: &str) -> Result<LogicalPlan> {
    let mut statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
    correct(&mut statement)?;
    let plan = state.statement_to_plan(statement).await?;
    correct_plan(plan)
}

/// The corrections to what is planned.
pub fn correct_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let corrected = plan.transform_down_with_subqueries(|node| {
        let (names, schema) = (NamePreserver::new(&node), merge_schema(&node.inputs()));
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let corrected = expr.transform_up(|expr| one_row(expr)?.transform_data(|expr| Ok(as_doubles(expr, &schema))))?;
            Ok(corrected.update_data(|expr| name.restore(expr)))
        })
    });
    Ok(corrected?.data)
}

/// Casts decimals that are compared with doubles.
fn as_doubles(mut expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let mut compared: Vec<&mut Expr> = match &mut expr {
        Expr::BinaryExpr(binary) if binary.op.supports_propagation() => vec![&mut binary.left, &mut binary.right],
        Expr::Between(between) => vec![&mut between.expr, &mut between.low, &mut between.high],
        Expr::InList(list) => std::iter::once(&mut *list.expr).chain(&mut list.list).collect(),
        Expr::Case(case) => {
            let values = case.when_then_expr.iter_mut().map(|(when, _)| &mut **when);
            case.expr.as_mut().map_or_else(Vec::new, |input| std::iter::once(&mut **input).chain(values).collect())
        }
        _ => return Transformed::no(expr),
    };
    // What has no type yet is not settled: DataFusion will say what is wrong with it.
    let types: Vec<Option<DataType>> = compared.iter().map(|side| side.get_type(schema).ok()).collect();
    if !types.iter().flatten().any(DataType::is_floating) {
        return Transformed::no(expr);
    }
    let mut changed = false;
    for (side, data_type) in compared.iter_mut().zip(&types) {
        if data_type.as_ref().is_some_and(DataType::is_decimal) {
            changed = true;
            **side = as_double(std::mem::take(*side));
        }
    }
    Transformed::new_transformed(expr, changed)
}

/// A decimal as a double; literals become the nearest one.
fn as_double(decimal: Expr) -> Expr {
    if let Expr::Literal(ScalarValue::Decimal128(Some(value), _, scale), metadata) = &decimal
        && let Ok(nearest) = format!("{value}e{}", -i32::from(*scale)).parse()
    {
        return Expr::Literal(ScalarValue::Float64(Some(nearest)), metadata.clone());
    }
    cast(decimal, DataType::Float64)
}

fn correct(statement: &mut Statement) -> Result<()> {
    match statement {
        Statement::Statement(statement) => {
            match &mut **statement {
                ast::Statement::CreateTable(create) => drop(keys::take_foreign_keys(create)),
                ast::Statement::Set(set) => set_time_zone(set),
                _ => {}
            }
            match statement.visit(&mut Corrections) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(error) => Err(error),
            }
        }
        Statement::Explain(explain) => correct(&mut explain.statement),
        _ => Ok(()),
    }
}

/// `SET TIME ZONE 'x'` as the setting that it means.
fn set_time_zone(set: &mut ast::Set) {
    if let ast::Set::SetTimeZone { value, .. } = set {
        let variable = ["datafusion", "execution", "time_zone"].map(ast::Ident::new).to_vec();
        *set = ast::Set::SingleAssignment { scope: None, hivevar: false, variable: variable.into(), values: vec![value.clone()] };
    }
}

/// Functions that the standard writes without parentheses.
const WITHOUT_PARENTHESES: [&str; 5] = ["current_catalog", "current_schema", "current_user", "session_user", "user"];

struct Corrections;

impl VisitorMut for Corrections {
    type Break = DataFusionError;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<DataFusionError> {
        match factor {
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
                ControlFlow::Break(DataFusionError::Plan("TABLESAMPLE is not supported: filter on a hash of a key instead".into()))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<DataFusionError> {
        if let ast::Expr::Value(value) = expr
            && let Value::Number(digits, _) = &value.value
            && digits.contains(['e', 'E'])
        {
            match double(digits) {
                Ok(cast) => *expr = cast,
                Err(error) => return ControlFlow::Break(error),
            }
        }
        if let ast::Expr::Identifier(name) = expr
            && name.quote_style.is_none()
            && WITHOUT_PARENTHESES.iter().any(|function| name.value.eq_ignore_ascii_case(function))
        {
            match call(&name.value) {
                Ok(call) => *expr = call,
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    }
}

fn call(function: &str) -> Result<ast::Expr> {
    Ok(Parser::new(&GenericDialect).try_with_sql(&format!("{function}()"))?.parse_expr()?)
}

/// `CAST('1e300' AS DOUBLE)`.
fn double(digits: &str) -> Result<ast::Expr> {
    let text = format!("CAST('{digits}' AS DOUBLE)");
    Ok(Parser::new(&GenericDialect).try_with_sql(&text)?.parse_expr()?)
}

/// Puts an aggregate that refuses a second row over a subquery that may have one. Correlated subqueries must aggregate anyway.
fn one_row(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::ScalarSubquery(subquery) = expr else { return Ok(Transformed::no(expr)) };
    if !subquery.outer_ref_columns.is_empty() || subquery.subquery.max_rows().is_some_and(|rows| rows <= 1) {
        return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
    }
    let plan = subquery.subquery.as_ref().clone();
    let columns = plan.schema().columns();
    let [column] = columns.as_slice() else {
        return plan_err!("a scalar subquery must have one column, this one has {}", columns.len());
    };
    let name = column.name.clone();
    let value = subquery_value().call(vec![Expr::Column(column.clone())]).alias(name);
    let plan = LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), vec![value])?.build()?;
    Ok(Transformed::yes(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), ..subquery })))
}
