//! What a LATERAL sees within a derived table: its own FROM, not that of the query around.
//!
//! DataFusion's planner hands the FROM that it is in on to a derived table that stands behind another relation, and looks there first: in
//! `t a JOIN (SELECT … FROM u a CROSS JOIN LATERAL (SELECT a.x) …) b` it takes the type of `t.x` for that of `u.x`. Such a derived table gets a name
//! in the WITH of its query, where nothing is handed on.

use super::syntax::selects_of;
use datafusion::common::{Result, internal_err};
use datafusion::sql::sqlparser::ast::{Query, TableFactor, TableWithJoins, Visit, Visitor, With};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use std::ops::ControlFlow;

/// Names the derived tables of a query's FROM that have a LATERAL in them; `named` counts those of the statement.
pub(super) fn name_derived_tables(query: &mut Query, named: &mut usize) -> Result<()> {
    let mut tables = vec![];
    for select in selects_of(&mut query.body) {
        let mut is_first = true;
        for from in &mut select.from {
            name_in(from, &mut is_first, named, &mut tables)?;
        }
    }
    for table in tables {
        match &mut query.with {
            Some(with) => with.cte_tables.extend(table.cte_tables),
            None => query.with = Some(table),
        }
    }
    Ok(())
}

fn name_in(from: &mut TableWithJoins, is_first: &mut bool, named: &mut usize, tables: &mut Vec<With>) -> Result<()> {
    let joined = from.joins.iter_mut().map(|join| &mut join.relation);
    for relation in std::iter::once(&mut from.relation).chain(joined) {
        if let TableFactor::NestedJoin { table_with_joins, .. } = relation {
            name_in(table_with_joins, is_first, named, tables)?;
            continue;
        }
        let was_first = std::mem::replace(is_first, false);
        if let TableFactor::Derived { lateral: false, subquery, .. } = &*relation
            && !was_first
            && subquery.visit(&mut FindLateral).is_break()
        {
            *named += 1;
            tables.push(named_table(relation, &format!("__derived_{named}"))?);
        }
    }
    Ok(())
}

/// A derived table's query under a name, in a WITH of its own; the relation is that name from then on.
fn named_table(relation: &mut TableFactor, name: &str) -> Result<With> {
    let by_name = format!("WITH {name} AS (SELECT 1) SELECT 1 FROM {name}");
    let mut by_name = Parser::new(&GenericDialect).try_with_sql(&by_name)?.parse_query()?;
    let mut from = selects_of(&mut by_name.body).into_iter().flat_map(|select| std::mem::take(&mut select.from));
    let (Some(TableWithJoins { relation: mut other, .. }), Some(mut with)) = (from.next(), by_name.with.take()) else {
        return internal_err!("{name} has no FROM");
    };
    std::mem::swap(relation, &mut other);
    if let (TableFactor::Derived { subquery, alias, .. }, TableFactor::Table { alias: shown, .. }, [cte]) =
        (other, relation, with.cte_tables.as_mut_slice())
    {
        *shown = alias;
        cte.query = subquery;
    }
    Ok(with)
}

/// Ends where a relation may name columns of those beside it.
struct FindLateral;

impl Visitor for FindLateral {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Derived { lateral: true, .. } | TableFactor::Function { lateral: true, .. } | TableFactor::UNNEST { .. } => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
