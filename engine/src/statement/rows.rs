//! Rows compared with rows, field by field: a NULL is then in each comparison what it is in the standard.

use super::syntax::{all_of, expression};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident, SelectItem, SetExpr, UnaryOperator};

/// A comparison of rows as one of their fields; `None` of other expressions.
pub fn by_fields(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::BinaryOp { left, op, right } => compared(left, op, right),
        Expr::InList { expr: row, list, negated } => {
            let same = list.iter().map(|item| compared(row, &BinaryOperator::Eq, item)).collect::<Option<Vec<_>>>()?;
            let any = all_of(same, &BinaryOperator::Or)?;
            Some(if *negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(any) } } else { any })
        }
        // All fields are, or none.
        Expr::IsNull(row) => every_field(row, Expr::IsNull),
        Expr::IsNotNull(row) => every_field(row, Expr::IsNotNull),
        _ => None,
    }
}

fn nested(expr: &Expr) -> Box<Expr> {
    Box::new(Expr::Nested(Box::new(expr.clone())))
}

fn every_field(row: &Expr, test: impl Fn(Box<Expr>) -> Expr) -> Option<Expr> {
    let Expr::Tuple(fields) = row else { return None };
    all_of(fields.iter().map(|field| test(nested(field))).collect(), &BinaryOperator::And)
}

/// `(a, b) < (c, d)` as `a < c OR (a = c AND b < d)`; the other comparisons likewise.
fn compared(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Expr> {
    use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    let (Expr::Tuple(left), Expr::Tuple(right)) = (left, right) else { return None };
    if left.len() != right.len() {
        return None;
    }
    let binary = |left: Box<Expr>, op: BinaryOperator, right: Box<Expr>| Expr::BinaryOp { left, op, right };
    let pairs = || left.iter().zip(right);
    let each = |op: &BinaryOperator| pairs().map(|(left, right)| binary(nested(left), op.clone(), nested(right))).collect::<Vec<_>>();
    let strict = match op {
        Eq => return all_of(each(op), &And),
        NotEq => return all_of(each(op), &Or),
        Lt | LtEq => Lt,
        Gt | GtEq => Gt,
        _ => return None,
    };
    pairs().rev().fold(None, |rest, (left, right)| {
        let Some(rest) = rest else { return Some(Expr::Nested(Box::new(binary(nested(left), op.clone(), nested(right))))) };
        let equal = binary(Box::new(binary(nested(left), Eq, nested(right))), And, Box::new(rest));
        let before = binary(nested(left), strict.clone(), nested(right));
        Some(Expr::Nested(Box::new(binary(Box::new(before), Or, Box::new(Expr::Nested(Box::new(equal)))))))
    })
}

/// `(a, b) IN (SELECT …)` in the conditions of a WHERE as EXISTS, which is a join.
pub fn rows_in_conditions(condition: &mut Expr) {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            rows_in_conditions(left);
            rows_in_conditions(right);
        }
        Expr::Nested(inner) => rows_in_conditions(inner),
        other => {
            if let Some(row) = row_in_subquery(other, true) {
                *other = row;
            }
        }
    }
}

/// A row that is compared with those of a subquery, as a subquery that compares: EXISTS where what is not true need not be told from what is
/// unknown, else one value of three.
pub fn row_in_subquery(expr: &Expr, is_condition: bool) -> Option<Expr> {
    let Expr::InSubquery { expr: row, subquery, negated } = expr else { return None };
    let Expr::Tuple(values) = row.as_ref() else { return None };
    let columns: Vec<String> = (0..values.len()).map(|at| format!("__column_{at}")).collect();
    let same: Vec<String> = values.iter().zip(&columns).map(|(value, column)| format!("({value}) = __row.{column}")).collect();
    let mut subquery = subquery.clone();
    // A column may be there twice.
    if let SetExpr::Select(select) = subquery.body.as_mut()
        && select.projection.len() == columns.len()
        && subquery.order_by.is_none()
    {
        for (item, name) in select.projection.iter_mut().zip(&columns) {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(name.clone()) };
            }
        }
    }
    let (same, from) = (same.join(" AND "), format!("({subquery}) AS __row({})", columns.join(", ")));
    let text = match (is_condition, negated) {
        (true, false) => format!("EXISTS (SELECT 1 FROM {from} WHERE {same})"),
        (_, negated) => {
            let answer = "CASE WHEN bool_or(__same) THEN true WHEN bool_or(__same IS NULL) THEN NULL ELSE false END";
            let not = if *negated { "NOT " } else { "" };
            format!("({not}(SELECT {answer} FROM (SELECT {same} AS __same FROM {from}) AS __compared))")
        }
    };
    expression(&text).ok()
}
