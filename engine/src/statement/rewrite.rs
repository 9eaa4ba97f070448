//! From text to a logical plan, with corrections of the text on the way; those of the plan are [`coercion`]'s.
//!
//! 1. `0.1` is a decimal and `1e300` is a double, as in the standard; DataFusion knows only one of the two at a time.
//! 2. TABLESAMPLE would be ignored in silence: it is refused.
//! 3. `CURRENT_USER` and its like are functions without parentheses. `SET TIME ZONE` is a setting.
//! 4. TIMESTAMP has microseconds. `AT TIME ZONE` is a function that knows the session's zone.
//! 5. Syntax of the standard, see [`standard_syntax`].
//! 6. Foreign keys are declared, see [`keys`]; the planner refuses them. What else a column declares and nobody would keep is refused.

use super::rows::{row_in_subquery, rows_in_conditions};
use super::syntax::{arguments_of, cast_apart, expression, selects_of};
use super::times::AT_TIME_ZONE;
use super::{coercion, derived_scopes, guard, insert_defaults, keys, named_windows, standard_syntax, table_properties, text_lengths};
use crate::operators::partial_keys::with_keys;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{self, TableFactor, Value, VisitMut, VisitorMut};
use std::ops::ControlFlow;

/// Parses and plans one statement.
pub async fn plan_statement(state: &SessionState, sql: &str) -> Result<LogicalPlan> {
    plan_parsed(state, parse(state, sql)?).await
}

/// Parses one statement and corrects it.
pub(super) fn parse(state: &SessionState, sql: &str) -> Result<Statement> {
    let mut statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
    correct(&mut statement, state.config_options().execution.time_zone.as_deref().unwrap_or("UTC"))?;
    Ok(statement)
}

/// Plans a statement that was parsed here.
pub(super) async fn plan_parsed(state: &SessionState, mut statement: Statement) -> Result<LogicalPlan> {
    insert_defaults::with_defaults(state, &mut statement).await?;
    let plan = state.statement_to_plan(statement).await?;
    let plan = with_keys(plan)?;
    guard::check_plan(&plan)?;
    coercion::coerced(plan)
}

fn correct(statement: &mut Statement, zone: &str) -> Result<()> {
    match statement {
        Statement::Statement(statement) => {
            guard::check_names(statement)?;
            match &mut **statement {
                ast::Statement::CreateTable(create) => {
                    refuse_unkept(create)?;
                    drop(keys::take_foreign_keys(create));
                    drop(table_properties::take_with(create));
                    create.columns.iter_mut().for_each(|column| with_unit(&mut column.data_type));
                }
                ast::Statement::Set(set) => set_time_zone(set),
                _ => {}
            }
            match statement.visit(&mut Corrections { zone, derived: 0 }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(error) => Err(error),
            }
        }
        Statement::Explain(explain) => correct(&mut explain.statement, zone),
        Statement::CreateExternalTable(create) => create.columns.iter().try_for_each(refuse_length),
        _ => Ok(()),
    }
}

/// Files of others have texts of any length.
fn refuse_length(column: &ast::ColumnDef) -> Result<()> {
    match text_lengths::length_of(&column.data_type)? {
        Some(_) => plan_err!(
            "column {} is declared {}, and nobody holds the files of an external table to a length: write VARCHAR",
            column.name,
            column.data_type
        ),
        None => Ok(()),
    }
}

/// What a column declares is kept, or refused: the planner would pass over it.
fn refuse_unkept(create: &ast::CreateTable) -> Result<()> {
    use ast::ColumnOption as O;
    for column in &create.columns {
        for option in &column.options {
            let instead = match &option.option {
                O::Null | O::NotNull | O::Default(_) | O::PrimaryKey(_) | O::Unique(_) | O::ForeignKey(_) => continue,
                O::Generated { .. } | O::Identity(_) | O::Alias(_) | O::Materialized(_) | O::Ephemeral(_) => {
                    "compute the column in each INSERT, or in a view over the table"
                }
                O::Check(_) => "test the rows in the SELECT of each INSERT",
                O::Comment(_) => "leave it out, and say COMMENT ON COLUMN … IS '…' once the table is there",
                _ => "leave it out",
            };
            return plan_err!("column {} is declared {}, which is not supported: {instead}", column.name, option.option);
        }
    }
    Ok(())
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

struct Corrections<'a> {
    /// The session's time zone.
    zone: &'a str,
    /// Derived tables that have got a name.
    derived: usize,
}

impl VisitorMut for Corrections<'_> {
    type Break = DataFusionError;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<DataFusionError> {
        if let Err(error) = standard_syntax::lateral_unnest(factor) {
            return ControlFlow::Break(error);
        }
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

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<DataFusionError> {
        if let Err(error) = standard_syntax::correct_query(query) {
            return ControlFlow::Break(error);
        }
        if let Some(with) = query.with.as_mut().filter(|with| with.recursive) {
            with.cte_tables.iter_mut().for_each(mark_added_items);
        }
        for select in selects_of(&mut query.body) {
            // `FROM t` alone is `SELECT * FROM t`.
            if select.projection.is_empty() && select.flavor == ast::SelectFlavor::FromFirstNoSelect {
                select.projection.push(ast::SelectItem::Wildcard(ast::WildcardAdditionalOptions::default()));
            }
            if select.projection.is_empty() {
                return ControlFlow::Break(DataFusionError::Plan("a SELECT lists no column: write SELECT 1 FROM … for rows alone".into()));
            }
            if let Some(error) = select.projection.iter().find_map(unit_as_name) {
                return ControlFlow::Break(error);
            }
            select.projection.iter_mut().for_each(text_lengths::keep_name);
            if let ast::GroupByExpr::Expressions(keys, _) = &mut select.group_by {
                keys.iter_mut().for_each(written_out);
            }
            // A row that is compared where it is a whole condition is a partner: that is a join.
            select.selection.iter_mut().for_each(rows_in_conditions);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<DataFusionError> {
        if let Err(error) = named_windows::resolve(query).and_then(|()| derived_scopes::name_derived_tables(query, &mut self.derived)) {
            return ControlFlow::Break(error);
        }
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

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<DataFusionError> {
        // EXISTS asks for rows, whatever they are.
        if let ast::Expr::Exists { subquery, .. } = expr {
            for select in selects_of(&mut subquery.body).into_iter().filter(|select| select.projection.is_empty()) {
                match expression("1") {
                    Ok(one) => select.projection.push(ast::SelectItem::UnnamedExpr(one)),
                    Err(error) => return ControlFlow::Break(error),
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<DataFusionError> {
        if let Err(error) = standard_syntax::correct_expr(expr) {
            return ControlFlow::Break(error);
        }
        if let ast::Expr::Value(value) = expr
            && let Value::Number(digits, _) = &value.value
            && digits.contains(['e', 'E'])
        {
            match double(digits) {
                Ok(cast) => *expr = cast,
                Err(error) => return ControlFlow::Break(error),
            }
        }
        if let Err(error) = text_lengths::cut_cast(expr) {
            return ControlFlow::Break(error);
        }
        match expr {
            ast::Expr::Cast { data_type, .. } => with_unit(data_type),
            ast::Expr::TypedString(typed) => {
                with_digits(typed);
                with_unit(&mut typed.data_type);
            }
            ast::Expr::AtTimeZone { .. } => {
                if let Some(call) = at_time_zone(expr, self.zone) {
                    *expr = call;
                }
            }
            _ => {}
        }
        if let ast::Expr::Interval(interval) = &*expr
            && interval.leading_field.is_none()
            && matches!(interval.value.as_ref(), ast::Expr::Value(value) if matches!(value.value, Value::Number(..)))
        {
            return ControlFlow::Break(no_unit(&interval.to_string()));
        }
        if let ast::Expr::BinaryOp { op: ast::BinaryOperator::BitwiseXor, left, right } = &*expr {
            return ControlFlow::Break(DataFusionError::Plan(format!(
                "{left} ^ {right} is a power to some engines and an exclusive or to others: write power({left}, {right}), or ({left} | {right}) - ({left} & {right})"
            )));
        }
        if let Some(row) = row_in_subquery(expr, false) {
            *expr = row;
        }
        if let ast::Expr::Identifier(name) = expr
            && name.quote_style.is_none()
            && WITHOUT_PARENTHESES.iter().any(|function| name.value.eq_ignore_ascii_case(function))
        {
            match expression(&format!("{}()", name.value)) {
                Ok(call) => *expr = call,
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    }
}

/// Puts a function that means nothing around what a recursive query adds: a cast that the planner puts there is told from one of the statement.
fn mark_added_items(cte: &mut ast::Cte) {
    let ast::SetExpr::SetOperation { right, .. } = cte.query.body.as_mut() else { return };
    let ast::SetExpr::Select(select) = right.as_mut() else { return };
    for item in &mut select.projection {
        let (ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
        if let Ok(marked) = cast_apart(expr.clone(), "") {
            *expr = marked;
        }
    }
}

/// TIMESTAMP WITH TIME ZONE with a unit that there is: microseconds, where it says none. [`type_names`](super::type_names) knows no zone.
fn with_unit(data_type: &mut ast::DataType) {
    if let ast::DataType::Timestamp(digits, ast::TimezoneInfo::Tz | ast::TimezoneInfo::WithTimeZone) = data_type {
        *digits = Some(match digits {
            Some(0) => 0,
            Some(1..=3) => 3,
            None | Some(4..=6) => 6,
            Some(other) => (*other).max(9),
        });
    }
}

/// A literal with more digits than microseconds has them.
fn with_digits(typed: &mut ast::TypedString) {
    if let (ast::DataType::Timestamp(digits @ None, _), Value::SingleQuotedString(text)) = (&mut typed.data_type, &typed.value.value)
        && let Some((_, fraction)) = text.split_once('.')
        && fraction.bytes().take_while(u8::is_ascii_digit).count() > 6
    {
        *digits = Some(9);
    }
}

fn at_time_zone(expr: &ast::Expr, session: &str) -> Option<ast::Expr> {
    let ast::Expr::AtTimeZone { timestamp, time_zone } = expr else { return None };
    let mut call = expression(&format!("{AT_TIME_ZONE}(NULL, NULL, '{}')", session.replace('\'', "''"))).ok()?;
    for (place, argument) in arguments_of(&mut call)?.iter_mut().zip([timestamp, time_zone]) {
        *place = ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument.as_ref().clone()));
    }
    Some(call)
}

/// CUBE and ROLLUP within GROUPING SETS, or over a key that is there twice, as the grouping sets that they stand for: the planner knows none there,
/// and takes a column once.
fn written_out(key: &mut ast::Expr) {
    let sets = match &*key {
        ast::Expr::Cube(parts) if is_repeated(parts) => sets_of(parts, true),
        ast::Expr::Rollup(parts) if is_repeated(parts) => sets_of(parts, false),
        ast::Expr::GroupingSets(sets) if sets.iter().any(|set| within_sets(set).is_some()) => {
            sets.iter().flat_map(|set| within_sets(set).unwrap_or_else(|| vec![set.clone()])).collect()
        }
        _ => return,
    };
    *key = ast::Expr::GroupingSets(sets);
}

/// The sets of a CUBE or ROLLUP, which the parser reads as a function within GROUPING SETS.
fn within_sets(set: &[ast::Expr]) -> Option<Vec<Vec<ast::Expr>>> {
    let [ast::Expr::Function(call)] = set else { return None };
    let name = call.name.to_string();
    let is_cube = name.eq_ignore_ascii_case("cube");
    if !is_cube && !name.eq_ignore_ascii_case("rollup") {
        return None;
    }
    let ast::FunctionArguments::List(list) = &call.args else { return None };
    let parts = list.args.iter().map(|argument| match argument {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::Tuple(keys))) => Some(keys.clone()),
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(key)) => Some(vec![key.clone()]),
        _ => None,
    });
    let parts = parts.collect::<Option<Vec<_>>>()?;
    (!is_cube || parts.len() <= CUBE_PARTS_MAX).then(|| sets_of(&parts, is_cube))
}

fn is_repeated(parts: &[Vec<ast::Expr>]) -> bool {
    let flat: Vec<&ast::Expr> = parts.iter().flatten().collect();
    parts.len() <= CUBE_PARTS_MAX && flat.iter().enumerate().any(|(at, part)| flat[..at].contains(part))
}

fn sets_of(parts: &[Vec<ast::Expr>], is_cube: bool) -> Vec<Vec<ast::Expr>> {
    let chosen: Vec<Vec<&Vec<ast::Expr>>> = if is_cube {
        (0..1usize << parts.len())
            .rev()
            .map(|bits| parts.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, part)| part).collect())
            .collect()
    } else {
        (0..=parts.len()).rev().map(|count| parts[..count].iter().collect()).collect()
    };
    let once = |set: Vec<&Vec<ast::Expr>>| {
        let mut keys: Vec<ast::Expr> = vec![];
        for key in set.into_iter().flatten() {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        keys
    };
    chosen.into_iter().map(once).collect()
}

/// Parts of a CUBE that are written out as 2 to their number of sets.
const CUBE_PARTS_MAX: usize = 10;

/// `INTERVAL '3' DECADES`: three seconds under that name.
fn unit_as_name(item: &ast::SelectItem) -> Option<DataFusionError> {
    const UNITS: [&str; 6] = ["decade", "decades", "century", "centuries", "millennium", "millennia"];
    match item {
        ast::SelectItem::ExprWithAlias { expr: ast::Expr::Interval(interval), alias }
            if interval.leading_field.is_none() && UNITS.iter().any(|unit| alias.value.eq_ignore_ascii_case(unit)) =>
        {
            Some(no_unit(&format!("{interval} {alias}")))
        }
        _ => None,
    }
}

fn no_unit(interval: &str) -> DataFusionError {
    DataFusionError::Plan(format!("{interval} has no unit that is known here: write INTERVAL '30' YEAR, or '3 days 2 hours'"))
}

/// `CAST('1e300' AS DOUBLE)`.
fn double(digits: &str) -> Result<ast::Expr> {
    expression(&format!("CAST('{digits}' AS DOUBLE)"))
}
