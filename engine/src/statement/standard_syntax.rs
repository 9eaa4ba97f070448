//! Syntax of the standard that the parser reads otherwise, or the planner does not know, as syntax that means the same to both.
//!
//! - `a IS DISTINCT FROM b AND c`: the parser takes `b AND c` for one operand.
//! - `last_value(abs(x) IGNORE NULLS)`: the parser gives the option to `abs`.
//! - `ARRAY[t.a]` in a subquery and `unnest(t.list)` beside `t`: the planner does not see `t` there.
//! - `FETCH FIRST`, `GROUP BY ()`; [patterns](super::patterns), [rows](super::rows) and columns of [USING](super::using).

use super::patterns::{correct_like, similar_to};
use super::rows::by_fields;
use super::syntax::{arguments_of, expression, selects_of};
use super::using::merge_columns;
use datafusion::common::{Result, plan_err};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DuplicateTreatment, Expr, Fetch, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    LimitClause, Query, Select, SelectItem, SetExpr, SetQuantifier, TableAliasColumnDef, TableFactor, UnaryOperator, Value,
    visit_expressions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;

/// A query before what stands within it.
pub fn correct_query(query: &mut Query) -> Result<()> {
    fetch_as_limit(query)?;
    items_of_their_own(&mut query.body);
    selects_of(&mut query.body).into_iter().try_for_each(correct_select)
}

fn correct_select(select: &mut Select) -> Result<()> {
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        for key in keys.iter_mut() {
            if matches!(key, Expr::Tuple(parts) if parts.is_empty()) {
                *key = Expr::GroupingSets(vec![vec![]]);
            }
        }
    }
    merge_columns(select)
}

/// The planner calls what has no name in a later SELECT of a set operation as the first SELECT calls what stands there: `SELECT k, count(*) FROM t
/// GROUP BY k UNION SELECT NULL, k FROM u` would have two columns `k`. Names of later SELECTs are nobody's.
fn items_of_their_own(body: &mut SetExpr) {
    let SetExpr::SetOperation { left, right, set_quantifier, .. } = body else { return };
    items_of_their_own(left);
    if matches!(set_quantifier, SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName) {
        return;
    }
    for select in selects_of(right) {
        let has_columns = select.projection.iter().any(is_column);
        for (at, item) in select.projection.iter_mut().enumerate() {
            if let SelectItem::UnnamedExpr(expr) = item
                && has_columns
                && !is_name(expr)
            {
                let alias = Ident::with_quote('"', format!("item {}", at + 1));
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
    }
}

fn is_name(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

fn is_column(item: &SelectItem) -> bool {
    matches!(item, SelectItem::UnnamedExpr(expr) if is_name(expr))
}

/// `t, unnest(t.list) AS u(x)`: a lateral subquery, since it names columns of what stands before it.
pub fn lateral_unnest(factor: &mut TableFactor) -> Result<()> {
    let (alias, arguments, ordinality) = match factor {
        TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality, .. } => {
            (alias.clone(), array_exprs.clone(), *with_ordinality)
        }
        TableFactor::Function { lateral: true, name, args, alias, with_ordinality: false }
            if name.to_string().eq_ignore_ascii_case("unnest") =>
        {
            let arguments = args.iter().filter_map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            });
            (alias.clone(), arguments.collect::<Vec<_>>(), false)
        }
        _ => return Ok(()),
    };
    if ordinality {
        return plan_err!("unnest(…) WITH ORDINALITY is not supported: number the elements with row_number() OVER ()");
    }
    let names_columns = arguments.iter().any(|argument| {
        let found = visit_expressions(argument, |part| match part {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        found.is_break()
    });
    if !names_columns {
        return Ok(());
    }
    let items: Vec<String> = arguments.iter().enumerate().map(|(at, list)| format!("unnest({list}) AS column{at}")).collect();
    let mut select = Parser::new(&GenericDialect).try_with_sql(&format!("SELECT {}", items.join(", ")))?;
    let alias = alias.map(|mut alias| {
        // The name of the relation is that of its one column, too.
        if alias.columns.is_empty() && arguments.len() == 1 {
            alias.columns = vec![TableAliasColumnDef::from_name(alias.name.value.clone())];
        }
        alias
    });
    *factor = TableFactor::Derived { lateral: true, subquery: select.parse_query()?, alias, sample: None };
    Ok(())
}

/// `FETCH FIRST n ROWS ONLY` is a LIMIT.
fn fetch_as_limit(query: &mut Query) -> Result<()> {
    let Some(Fetch { with_ties, percent, quantity }) = &query.fetch else { return Ok(()) };
    if *with_ties || *percent {
        return plan_err!("FETCH FIRST … WITH TIES and PERCENT are not supported: filter by rank() OVER (ORDER BY …) instead");
    }
    let count = match quantity {
        Some(count) => Some(count.clone()),
        None => Some(expression("1")?),
    };
    match &mut query.limit_clause {
        None => query.limit_clause = Some(LimitClause::LimitOffset { limit: count, offset: None, limit_by: vec![] }),
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = count,
        Some(_) => return plan_err!("a query has LIMIT and FETCH FIRST: leave one out"),
    }
    query.fetch = None;
    Ok(())
}

/// An expression after its parts.
pub fn correct_expr(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => bind_tighter(expr, |operand| {
            let (Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right)) = operand else { return None };
            Some(right)
        }),
        Expr::UnaryOp { op: UnaryOperator::Not, .. } => bind_tighter(expr, |operand| {
            let Expr::UnaryOp { expr, .. } = operand else { return None };
            Some(expr)
        }),
        Expr::BinaryOp { op: BinaryOperator::And, right, .. }
            if matches!(right.as_ref(), Expr::BinaryOp { op: BinaryOperator::Or | BinaryOperator::Xor, .. }) =>
        {
            bind_tighter(expr, |operand| {
                let Expr::BinaryOp { right, .. } = operand else { return None };
                Some(right)
            });
        }
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. })
            if list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
                && matches!(list.args.as_slice(), [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]) =>
        {
            return plan_err!("{name}(DISTINCT *) is not supported: name the columns, or count the rows of a SELECT DISTINCT *");
        }
        // The parser gives the words behind the last argument to the argument, where that is a call: `last_value(abs(x) IGNORE NULLS)`.
        Expr::Function(Function { args: FunctionArguments::List(list), null_treatment: outer @ None, over: Some(_), .. }) => {
            if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(inner)))) = list.args.last_mut()
                && inner.over.is_none()
            {
                *outer = inner.null_treatment.take();
            }
        }
        // The planner reads the elements of a literal as if nothing stood around it.
        Expr::Array(array) if !array.elem.is_empty() => {
            let mut call = expression("make_array(NULL)")?;
            if let Some(arguments) = arguments_of(&mut call) {
                let elements = std::mem::take(&mut array.elem).into_iter();
                *arguments = elements.map(|element| FunctionArg::Unnamed(FunctionArgExpr::Expr(element))).collect();
            }
            *expr = call;
        }
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => correct_like(pattern, escape_char)?,
        other => {
            if let Some(same) = by_fields(other).map_or_else(|| similar_to(other), |same| Ok(Some(same)))? {
                *other = same;
            }
        }
    }
    Ok(())
}

/// An operator whose last operand was read too far, up to an AND or OR that stands in no parentheses: it ends before that.
fn bind_tighter(expr: &mut Expr, operand: impl Fn(&mut Expr) -> Option<&mut Box<Expr>>) {
    let is_looser = |of: &Expr| matches!(of, Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor, .. });
    let null = || Expr::Value(Value::Null.with_empty_span());
    let Some(whole) = operand(expr).filter(|of| is_looser(of)).map(|of| std::mem::replace(of.as_mut(), null())) else { return };
    let mut operator = std::mem::replace(expr, whole);
    // The leftmost operand of what was read too far is the operator's own.
    let mut place = &mut *expr;
    while let Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor, left, .. } = place {
        place = left.as_mut();
    }
    if let Some(own) = operand(&mut operator) {
        **own = std::mem::replace(place, null());
    }
    // Written out, it is read the same again.
    *place = Expr::Nested(Box::new(operator));
}
