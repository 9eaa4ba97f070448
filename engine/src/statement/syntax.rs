//! Parts of syntax trees, as the corrections of a statement make and read them.

use datafusion::common::Result;
use datafusion::sql::planner::IdentNormalizer;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Select, SetExpr,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// The expression that a text is.
pub fn expression(text: &str) -> Result<Expr> {
    Ok(Parser::new(&GenericDialect).try_with_sql(text)?.parse_expr()?)
}

/// A name as the planner looks it up.
pub fn folded(name: &Ident) -> String {
    IdentNormalizer::default().normalize(name.clone())
}

/// A function that means nothing: it gives an expression another name, and marks it.
pub const CAST_APART: &str = "cast_apart";

/// That function around an expression, with a text that tells it from others.
pub fn cast_apart(of: Expr, text: &str) -> Result<Expr> {
    let mut apart = expression(&format!("{CAST_APART}(NULL, '{}')", text.replace('\'', "''")))?;
    if let Some(first) = arguments_of(&mut apart).and_then(|arguments| arguments.first_mut()) {
        *first = FunctionArg::Unnamed(FunctionArgExpr::Expr(of));
    }
    Ok(apart)
}

/// The arguments of a call.
pub fn arguments_of(call: &mut Expr) -> Option<&mut Vec<FunctionArg>> {
    match call {
        Expr::Function(Function { args: FunctionArguments::List(list), .. }) => Some(&mut list.args),
        _ => None,
    }
}

/// The selects of a query, and of a set operation all of them.
pub fn selects_of(body: &mut SetExpr) -> Vec<&mut Select> {
    match body {
        SetExpr::Select(select) => vec![select.as_mut()],
        SetExpr::SetOperation { left, right, .. } => {
            let mut selects = selects_of(left);
            selects.extend(selects_of(right));
            selects
        }
        // What stands in parentheses is a query of its own.
        _ => vec![],
    }
}

/// All parts in one expression, as deep as the logarithm of their number: the planner walks down it. `None` of no part.
pub fn all_of(mut parts: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    while parts.len() > 1 {
        let mut rest = parts.into_iter();
        parts = vec![];
        while let Some(left) = rest.next() {
            parts.push(match rest.next() {
                Some(right) => {
                    let both = Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) };
                    Expr::Nested(Box::new(both))
                }
                None => left,
            });
        }
    }
    parts.pop()
}
