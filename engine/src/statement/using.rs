//! The columns that `JOIN … USING` merges. In a RIGHT JOIN they are the right side's, in a FULL JOIN those of the side that is there; the planner
//! takes the left side's, and finds a column of that name ambiguous in conditions.

use super::syntax::{expression, folded};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, Query, ReplaceSelectElement, ReplaceSelectItem, Select, SelectItem, TableFactor,
    TableWithJoins, VisitMut, VisitorMut,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The columns that USING merges, by name: their expression, and whether it is another than the left side's.
type Merged = BTreeMap<String, (Expr, bool)>;

/// Writes out the merged columns wherever the select names them alone.
pub fn merge_columns(select: &mut Select) -> Result<()> {
    let mut merged = Merged::new();
    for from in &select.from {
        merged.extend(merged_of(from)?);
    }
    if merged.is_empty() {
        return Ok(());
    }
    let others: BTreeMap<&String, &Expr> = merged.iter().filter(|(_, (_, other))| *other).map(|(name, (expr, _))| (name, expr)).collect();
    for item in &mut select.projection {
        match item {
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                if let Some((expr, _)) = merged.get(&folded(name)) {
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: name.clone() };
                }
            }
            SelectItem::Wildcard(options) if !others.is_empty() => {
                let replaced = others.iter().map(|(name, expr)| {
                    let column_name = Ident::with_quote('"', name.as_str());
                    Box::new(ReplaceSelectElement { expr: (*expr).clone(), column_name, as_keyword: true })
                });
                let replace = options.opt_replace.get_or_insert_with(|| ReplaceSelectItem { items: vec![] });
                let added: Vec<_> = replaced
                    .filter(|added| !replace.items.iter().any(|item| folded(&item.column_name) == folded(&added.column_name)))
                    .collect();
                replace.items.extend(added);
            }
            _ => {}
        }
    }
    drop(others);
    let merged = merged.into_iter().map(|(name, (expr, _))| (name, expr)).collect();
    let mut columns = Columns { merged, depth: 0 };
    let _ = select.projection.visit(&mut columns);
    let _ = select.selection.visit(&mut columns);
    let _ = select.group_by.visit(&mut columns);
    let _ = select.having.visit(&mut columns);
    let _ = select.qualify.visit(&mut columns);
    Ok(())
}

struct Columns {
    merged: BTreeMap<String, Expr>,
    /// Queries that the visitor is in: their names are others.
    depth: usize,
}

impl VisitorMut for Columns {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(merged) = self.merged.get(&folded(name))
        {
            *expr = merged.clone();
        }
        ControlFlow::Continue(())
    }
}

fn merged_of(from: &TableWithJoins) -> Result<Merged> {
    let mut merged = Merged::new();
    let first = name_of(&from.relation);
    let joined_before = |at: usize| from.joins.iter().take(at).any(|join| !matches!(join.join_operator, JoinOperator::LeftSemi(_)));
    for (at, join) in from.joins.iter().enumerate() {
        let (constraint, full) = match &join.join_operator {
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (constraint, Some(false)),
            JoinOperator::FullOuter(constraint) => (constraint, Some(true)),
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint) => (constraint, None),
            _ => continue,
        };
        let names = match constraint {
            JoinConstraint::Using(names) => names,
            JoinConstraint::Natural if full.is_some() => {
                return plan_err!(
                    "NATURAL RIGHT JOIN and NATURAL FULL JOIN are not supported: write the common columns, as in FULL JOIN … USING (id)"
                );
            }
            _ => continue,
        };
        for name in names {
            let Some(column) = name.0.last().and_then(|part| part.as_ident()) else { continue };
            let key = folded(column);
            let of = |relation: &Ident| Expr::CompoundIdentifier(vec![relation.clone(), column.clone()]);
            let left = match merged.get(&key) {
                Some((expr, _)) => Some(expr.clone()),
                // The first of the chain has it: the first USING says so.
                None if !joined_before(at) => first.as_ref().map(of),
                None => None,
            };
            let other = merged.get(&key).is_some_and(|(_, other)| *other);
            let right = name_of(&join.relation).as_ref().map(of);
            let expr = match (full, left, right) {
                (None, Some(left), _) => (left, other),
                (None, None, _) => continue,
                (Some(false), _, Some(right)) => (right, true),
                (Some(true), Some(left), Some(right)) => (expression(&format!("coalesce({left}, {right})"))?, true),
                _ => {
                    return Err(DataFusionError::Plan(format!(
                        "column {column} of an outer join with USING is of a relation without a name, or of one among several: name the relations, and write ON"
                    )));
                }
            };
            merged.insert(key, expr);
        }
    }
    Ok(merged)
}

/// What columns of a relation are qualified by.
fn name_of(relation: &TableFactor) -> Option<Ident> {
    match relation {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, .. } => name.0.last().and_then(|part| part.as_ident()).cloned(),
        _ => None,
    }
}
