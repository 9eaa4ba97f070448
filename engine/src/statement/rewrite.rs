//! From text to a logical plan, with six corrections on the way.
//!
//! 1. `0.1` is a decimal and `1e300` is a double, as in the standard; DataFusion knows only one of the two at a time.
//! 2. TABLESAMPLE would be ignored in silence: it is refused.
//! 3. A decimal beside a double is a double, as in other systems: in comparisons, CASE, COALESCE and its like, columns of a UNION and of VALUES. DataFusion
//!    would make a decimal of the double, which has no place for NaN, infinities and most of its range. Times of two units are compared as the finer.
//! 4. A scalar subquery of many rows is an error. Spread over nodes, the library plans it as a join that would repeat rows instead.
//! 5. `CURRENT_USER` and its like are functions without parentheses. `SET TIME ZONE` is a setting.
//! 6. Foreign keys are declared, see [`keys`]; the planner refuses them.

use super::keys;
use crate::operators::subquery_value::subquery_value;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, plan_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Union, cast};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{self, TableFactor, Value, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Parses and plans one statement.
pub async fn plan_statement(state: &SessionState, sql: &str) -> Result<LogicalPlan> {
    plan_parsed(state, parse(state, sql)?).await
}

/// Parses one statement and corrects it.
pub(super) fn parse(state: &SessionState, sql: &str) -> Result<Statement> {
    let mut statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
    correct(&mut statement)?;
    Ok(statement)
}

/// Plans a statement that was parsed here.
pub(super) async fn plan_parsed(state: &SessionState, statement: Statement) -> Result<LogicalPlan> {
    correct_plan(state.statement_to_plan(statement).await?)
}

/// The corrections to what is planned.
pub fn correct_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    // Set once a column has another type than the planner gave it: the nodes above must learn of that.
    let retyped = Cell::new(false);
    // Values that are stored get the types of their table.
    let stored = plan.exists(|node| Ok(matches!(node, LogicalPlan::Dml(_))))?;
    let corrected = plan.transform_up_with_subqueries(|node| {
        let (names, schema) = (NamePreserver::new(&node), merge_schema(&node.inputs()));
        let corrected = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let corrected = expr.transform_up(|expr| one_row(expr)?.transform_data(|expr| Ok(of_one_type(expr, &schema, &retyped))))?;
            Ok(corrected.update_data(|expr| name.restore(expr)))
        })?;
        let corrected = corrected.transform_data(|node| one_type_by_column(node, &retyped))?;
        let corrected = if stored { corrected } else { corrected.transform_data(|node| doubles_of_values(node, &retyped))? };
        if retyped.get() { corrected.map_data(LogicalPlan::recompute_schema) } else { Ok(corrected) }
    });
    Ok(corrected?.data)
}

/// Functions whose arguments get one type.
const OF_ONE_TYPE: [&str; 9] = ["coalesce", "greatest", "ifnull", "least", "make_array", "nullif", "nvl", "nvl2", "array"];

/// Casts decimals that meet doubles, and times that meet times of another unit.
fn of_one_type(mut expr: Expr, schema: &DFSchema, retyped: &Cell<bool>) -> Transformed<Expr> {
    let gives_one_of_them = matches!(expr, Expr::Case(_) | Expr::ScalarFunction(_));
    let groups: Vec<Vec<&mut Expr>> = match &mut expr {
        Expr::BinaryExpr(binary) if binary.op.supports_propagation() => vec![vec![&mut binary.left, &mut binary.right]],
        Expr::Between(between) => vec![vec![&mut between.expr, &mut between.low, &mut between.high]],
        Expr::InList(list) => vec![std::iter::once(&mut *list.expr).chain(&mut list.list).collect()],
        Expr::Case(case) => {
            let (whens, mut results): (Vec<&mut Expr>, Vec<&mut Expr>) =
                case.when_then_expr.iter_mut().map(|(when, then)| (&mut **when, &mut **then)).unzip();
            results.extend(case.else_expr.as_deref_mut());
            let compared = case.expr.as_deref_mut().map(|input| std::iter::once(input).chain(whens).collect());
            compared.into_iter().chain([results]).collect()
        }
        Expr::ScalarFunction(call) if OF_ONE_TYPE.contains(&call.name()) => vec![call.args.iter_mut().collect()],
        _ => return Transformed::no(expr),
    };
    let mut changed = false;
    for group in groups {
        // What has no type yet is not settled: DataFusion will say what is wrong with it.
        let types: Vec<Option<DataType>> = group.iter().map(|side| side.get_type(schema).ok()).collect();
        let known = || types.iter().flatten();
        let doubles = known().any(DataType::is_floating);
        let times =
            known().next().is_some_and(is_time) && known().all(is_time) && known().any(|data_type| Some(data_type) != known().next());
        for (side, data_type) in group.into_iter().zip(&types) {
            if doubles && data_type.as_ref().is_some_and(DataType::is_decimal) {
                changed = true;
                *side = as_double(std::mem::take(side));
            } else if times && data_type.is_some() {
                changed = true;
                *side = cast(std::mem::take(side), DataType::Time64(TimeUnit::Nanosecond));
            }
        }
    }
    retyped.set(retyped.get() || changed && gives_one_of_them);
    Transformed::new_transformed(expr, changed)
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Time32(_) | DataType::Time64(_))
}

/// Casts the decimals of a UNION's column that is of doubles in another branch.
fn one_type_by_column(plan: LogicalPlan, retyped: &Cell<bool>) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Union(union) = plan else { return Ok(Transformed::no(plan)) };
    let type_of = |input: &LogicalPlan, at: usize| input.schema().fields().get(at).map(|field| field.data_type().clone());
    let mixed: Vec<usize> = (0..union.schema.fields().len())
        .filter(|at| {
            let types: Vec<DataType> = union.inputs.iter().filter_map(|input| type_of(input, *at)).collect();
            types.iter().any(DataType::is_floating) && types.iter().any(DataType::is_decimal)
        })
        .collect();
    if mixed.is_empty() && !retyped.get() {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    retyped.set(true);
    let inputs = union.inputs.iter().map(|input| {
        let columns = input.schema().columns().into_iter().enumerate().map(|(at, column)| {
            let name = column.name.clone();
            let decimal = type_of(input, at).is_some_and(|data_type| data_type.is_decimal());
            if decimal && mixed.contains(&at) { as_double(Expr::Column(column)).alias(name) } else { Expr::Column(column) }
        });
        Ok(Arc::new(LogicalPlanBuilder::from(input.as_ref().clone()).project(columns.collect::<Vec<_>>())?.build()?))
    });
    let union = Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)?;
    Ok(Transformed::yes(LogicalPlan::Union(union)))
}

/// Casts the decimals of a column of VALUES that has doubles, which the planner has cast to decimals. Decimals that the statement itself makes of
/// doubles are cast twice, see [`Corrections`].
fn doubles_of_values(plan: LogicalPlan, retyped: &Cell<bool>) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Values(mut values) = plan else { return Ok(Transformed::no(plan)) };
    let none = DFSchema::empty();
    let is_double = |expr: &Expr| matches!(expr, Expr::Cast(cast) if cast.expr.get_type(&none).is_ok_and(|from| from.is_floating()));
    let mut changed = false;
    for at in 0..values.schema.fields().len() {
        let decimals = values.schema.field(at).data_type().is_decimal();
        if !decimals || !values.values.iter().any(|row| is_double(&row[at])) {
            continue;
        }
        changed = true;
        for row in &mut values.values {
            row[at] = match std::mem::take(&mut row[at]) {
                Expr::Literal(null, metadata) if null.is_null() => Expr::Literal(ScalarValue::Float64(None), metadata),
                Expr::Cast(planned) => match planned.expr.get_type(&none)? {
                    from if from.is_decimal() => as_double(*planned.expr),
                    _ => cast(*planned.expr, DataType::Float64),
                },
                decimal => as_double(decimal),
            };
        }
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Values(values)));
    }
    retyped.set(true);
    Ok(Transformed::yes(LogicalPlanBuilder::values(values.values)?.build()?))
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
            // Names of table functions are looked up as they are written.
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
                for part in &mut name.0 {
                    if let ast::ObjectNamePart::Identifier(ident) = part
                        && ident.quote_style.is_none()
                    {
                        ident.value = ident.value.to_ascii_lowercase();
                    }
                }
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<DataFusionError> {
        // Said twice, decimals that are meant are told from those that the planner makes of doubles.
        if let ast::SetExpr::Values(values) = query.body.as_mut() {
            for value in values.rows.iter_mut().flat_map(|row| row.iter_mut()) {
                let once = value.clone();
                if let ast::Expr::Cast { expr, data_type: ast::DataType::Decimal(_) | ast::DataType::Numeric(_), .. } = value {
                    **expr = once;
                }
            }
        }
        ControlFlow::Continue(())
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
