//! Results with several columns of one name: `SELECT a, a`, `SELECT *, a`, `SELECT count(*), count(*)`.
//!
//! SQL lets the columns of a result share names, the planner does not. A statement that it refuses for that is planned with names of its own for the
//! columns that repeat one, and the result carries the names that were meant. Tables and views cannot have them, nor can subqueries.

use super::rewrite;
use super::syntax::{cast_apart, folded};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{self, Expr, Ident, Query, SelectItem, SetExpr, SetQuantifier, VisitMut, VisitorMut};
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// How the planner refuses two columns of one name, when it finds them in expressions and when in the columns of what it has planned.
const REFUSALS: [&str; 3] = ["require unique expression names", "contains duplicate", "which would be ambiguous"];

/// The names that columns of a result were meant to have, by those that they have in its plan.
#[derive(Debug, Clone, Default)]
pub struct Meant(HashMap<String, String>);

impl Meant {
    /// The schema of the result.
    pub fn of(&self, schema: SchemaRef) -> SchemaRef {
        if self.0.is_empty() {
            return schema;
        }
        let named = |field: &Arc<Field>| match self.0.get(field.name()) {
            Some(name) => Arc::new(field.as_ref().clone().with_name(name)),
            None => field.clone(),
        };
        Arc::new(Schema::new_with_metadata(schema.fields().iter().map(named).collect::<Vec<_>>(), schema.metadata().clone()))
    }

    /// Whether it differs from that of the plan.
    pub fn differs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Parses and plans one statement, as [`rewrite::plan_statement`] does.
pub async fn plan_statement(state: &SessionState, sql: &str) -> Result<(LogicalPlan, Meant)> {
    let refusal = match rewrite::plan_statement(state, sql).await {
        Ok(plan) => return Ok((plan, Meant::default())),
        Err(error) => error,
    };
    let text = refusal.strip_backtrace();
    if !REFUSALS.iter().any(|phrase| text.contains(phrase)) {
        return Err(refusal);
    }
    // What is still refused says more in its own words.
    with_other_names(state, sql).await.ok().flatten().ok_or(refusal)
}

async fn with_other_names(state: &SessionState, sql: &str) -> Result<Option<(LogicalPlan, Meant)>> {
    let mut statement = rewrite::parse(state, sql)?;
    let Some(query) = query_of(&mut statement) else { return Ok(None) };
    let aggregates = state.aggregate_functions().keys().cloned().collect();
    let mut names = Names { of_wildcards: columns_of_wildcards(state, query).await, aggregates, ..Names::default() };
    names.give(&mut query.body);
    // HAVING and ORDER BY mean the same aggregates.
    let _ = query.visit(&mut CastsApart { aggregates: &names.aggregates });
    let plan = rewrite::plan_parsed(state, statement).await?;
    let meant = names.meant.into_iter().map(|(given, meant)| (given, meant.of(plan.schema().as_arrow()))).collect();
    Ok(Some((plan, Meant(meant))))
}

/// The query that gives the result, in a statement that is nothing else.
fn query_of(statement: &mut Statement) -> Option<&mut Query> {
    match statement {
        Statement::Statement(statement) => match statement.as_mut() {
            ast::Statement::Query(query) => Some(query),
            _ => None,
        },
        Statement::Explain(explain) => query_of(&mut explain.statement),
        _ => None,
    }
}

/// The planner calls `sum(CAST(x AS DOUBLE))` as it calls `sum(x)`, and takes only one of two columns of an aggregation that have one name. A
/// function around the cast, which means nothing, has a name of its own.
struct CastsApart<'a> {
    aggregates: &'a HashSet<String>,
}

impl VisitorMut for CastsApart<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(call) = expr
            && self.aggregates.contains(&call.name.to_string().to_ascii_lowercase())
            && let ast::FunctionArguments::List(list) = &mut call.args
        {
            for argument in &mut list.args {
                let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(of)) = argument else { continue };
                let types = types_of_casts(of);
                // Two casts of one column have names of their own too.
                if !types.is_empty()
                    && let Ok(apart) = cast_apart(of.clone(), &types)
                {
                    *of = apart;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The types of all casts in an expression, of which the planner's names say nothing.
fn types_of_casts(expr: &Expr) -> String {
    let mut types = vec![];
    let _ = ast::visit_expressions(expr, |part| {
        if let Expr::Cast { data_type, .. } = part {
            types.push(data_type.to_string());
        }
        ControlFlow::<()>::Continue(())
    });
    types.join(" ")
}

/// Whether the planner leaves out of an expression's name what it asks.
fn has_subquery(expr: &Expr) -> bool {
    let found = ast::visit_expressions(expr, |part| match part {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// What a query's wildcards stand for. None where they stand for nothing alone, as in groups: the planner says what is wrong then.
async fn columns_of_wildcards(state: &SessionState, query: &Query) -> HashSet<String> {
    let mut alone = query.clone();
    (alone.order_by, alone.limit_clause) = (None, None);
    let SetExpr::Select(select) = alone.body.as_mut() else { return HashSet::new() };
    select.projection.retain(is_wildcard);
    if select.projection.is_empty() {
        return HashSet::new();
    }
    let plan = rewrite::plan_parsed(state, Statement::Statement(Box::new(ast::Statement::Query(Box::new(alone))))).await;
    plan.map_or_else(|_: DataFusionError| HashSet::new(), |plan| plan.schema().fields().iter().map(|field| field.name().clone()).collect())
}

fn is_wildcard(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

/// What a column was meant to be called.
#[derive(Debug)]
enum Name {
    Written(String),
    /// As the planner calls the same expression elsewhere in the result.
    OfColumn(usize, String),
}

impl Name {
    fn of(self, schema: &Schema) -> String {
        match self {
            Self::Written(name) => name,
            Self::OfColumn(at, text) => schema.fields().get(at).map_or(text, |field| field.name().clone()),
        }
    }
}

/// A name that columns of a result have.
struct Seen {
    /// Where the first of them is, if that is known.
    first: Option<usize>,
    /// The number in the name given last.
    times: usize,
}

impl Seen {
    fn once(first: Option<usize>) -> Self {
        Self { first, times: 1 }
    }
}

/// Names given to the columns that repeat one.
#[derive(Debug, Default)]
struct Names {
    of_wildcards: HashSet<String>,
    aggregates: HashSet<String>,
    meant: Vec<(String, Name)>,
}

impl Names {
    fn give(&mut self, body: &mut SetExpr) {
        match body {
            SetExpr::Select(select) => self.give_items(&mut select.projection),
            SetExpr::SetOperation { left, right, set_quantifier, .. } if !by_name(*set_quantifier) => {
                self.give(left);
                // Its names are nobody's: those of the first branch count.
                Self { of_wildcards: self.of_wildcards.clone(), aggregates: self.aggregates.clone(), meant: Vec::new() }.give(right);
            }
            _ => {}
        }
    }

    fn give_items(&mut self, items: &mut [SelectItem]) {
        let mut seen: HashMap<String, Seen> = self.of_wildcards.iter().map(|name| (name.clone(), Seen::once(None))).collect();
        let mut wildcards = false;
        for (at, item) in items.iter_mut().enumerate() {
            wildcards |= is_wildcard(item);
            let Some((mut expr, key, written)) = named(item) else { continue };
            let told_apart = !written && {
                let before = expr.clone();
                let _ = expr.visit(&mut CastsApart { aggregates: &self.aggregates });
                expr != before || has_subquery(&expr)
            };
            if told_apart {
                let given = format!("{key} ({at})");
                seen.insert(given.clone(), Seen::once(None));
                *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', &given) };
                self.meant.push((given, Name::Written(key)));
                continue;
            }
            let Some(known) = seen.get(&key) else {
                // Behind a wildcard nobody knows yet which column of the result it is.
                seen.insert(key, Seen::once((!wildcards).then_some(at)));
                continue;
            };
            let (first, mut times) = (known.first, known.times + 1);
            while seen.contains_key(&format!("{key} ({times})")) {
                times += 1;
            }
            let given = format!("{key} ({times})");
            seen.insert(key.clone(), Seen { first, times });
            seen.insert(given.clone(), Seen::once(None));
            let meant = match (written, first) {
                (false, Some(first)) => Name::OfColumn(first, key),
                _ => Name::Written(key),
            };
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', &given) };
            self.meant.push((given, meant));
        }
    }
}

fn by_name(quantifier: SetQuantifier) -> bool {
    matches!(quantifier, SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName)
}

/// An expression of a result, its name or else its text, and whether that is its name.
fn named(item: &SelectItem) -> Option<(Expr, String, bool)> {
    match item {
        SelectItem::ExprWithAlias { expr, alias } => Some((expr.clone(), folded(alias), true)),
        SelectItem::UnnamedExpr(expr) => {
            let (name, written) = match expr {
                Expr::Identifier(ident) => (folded(ident), true),
                Expr::CompoundIdentifier(parts) => (folded(parts.last()?), true),
                // The planner calls a cast as what it casts.
                Expr::Cast { expr: cast, .. } => {
                    let (_, name, written) = named(&SelectItem::UnnamedExpr(cast.as_ref().clone()))?;
                    (name, written)
                }
                // Text in quotes keeps its case.
                other if other.to_string().contains(['\'', '"']) => (other.to_string(), false),
                other => (other.to_string().to_ascii_lowercase(), false),
            };
            Some((expr.clone(), name, written))
        }
        _ => None,
    }
}
