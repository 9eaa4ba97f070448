//! Subqueries in every place, as joins.
//!
//! DataFusion plans a subquery as a join where it is a whole condition of WHERE, or a scalar one that refers to the row by `=` alone. Here
//! all others become joins: those within an expression or a SELECT list, those compared by ANY and ALL, and those that refer to the row by
//! anything at all. The way is that of Neumann and Kemper, "Unnesting Arbitrary Queries": the subquery is asked once for each distinct
//! *binding* of the columns that it refers to, by a join with the table of these bindings that moves down to where they are used.
//!
//! ```text
//!   SELECT a, (SELECT count(*) FROM t j WHERE j.a < t.a) FROM t
//!
//!   LeftJoin: t.a IS NOT DISTINCT FROM b.a
//!     t
//!     LeftJoin: so that a binding without rows has its count, 0
//!       b: SELECT DISTINCT a FROM t
//!       Aggregate: GROUP BY b.a, count(*)
//!         Filter: j.a < b.a
//!           CrossJoin
//!             t j
//!             b: SELECT DISTINCT a FROM t
//! ```
//!
//! `x IN (S)`, `x < ANY (S)` and EXISTS within an expression are such scalar subqueries, with three values as the standard has them.

use super::references::{references, references_of, refers_by_equality, refers_in_conditions};
use crate::operators::own_accumulators::boolean;
use crate::operators::signed_counts::row_number;
use crate::operators::subquery_value::subquery_value;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, Result, ScalarValue, not_impl_err, plan_err};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprFunctionExt, Filter, Join, Limit, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Sort, SortExpr,
    SubqueryAlias, Union, Window, and, binary_expr, col, is_null, lit, not, or, when,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The node with its subqueries as joins, where DataFusion would not join them itself. Expressions have their final types.
pub fn joined(node: LogicalPlan) -> Result<LogicalPlan> {
    match node {
        LogicalPlan::Filter(filter) => {
            let (mine, theirs): (Vec<Expr>, Vec<Expr>) =
                split_conjunction(&filter.predicate).into_iter().cloned().partition(|part| has_own(part, true));
            if mine.is_empty() {
                return Ok(LogicalPlan::Filter(filter));
            }
            let columns: Vec<Expr> = filter.input.schema().columns().into_iter().map(Expr::Column).collect();
            let mut input = filter.input.as_ref().clone();
            let mut conditions = theirs;
            for part in mine {
                let (over, part) = over_joins(input, part)?;
                input = over;
                conditions.push(part);
            }
            let predicate = conditions.into_iter().reduce(and).unwrap_or_else(|| lit(true));
            LogicalPlanBuilder::from(input).filter(predicate)?.project(columns)?.build()
        }
        LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)
            if match node {
                LogicalPlan::Projection(_) => node.expressions().iter().any(|expr| has_own(expr, false)),
                // DataFusion joins none there.
                _ => node.expressions().iter().any(has_any),
            } =>
        {
            let mut input = node.inputs()[0].clone();
            let names = NamePreserver::new_for_projection();
            let mut exprs = vec![];
            for expr in node.expressions() {
                let name = names.save(&expr);
                let (over, expr) = over_joins(input, expr)?;
                input = over;
                exprs.push(name.restore(expr));
            }
            node.with_new_exprs(exprs, vec![input])
        }
        LogicalPlan::Join(join) if is_lateral(&join)? => lateral(join),
        LogicalPlan::Join(join) if join.filter.as_ref().is_some_and(|filter| has_own(filter, false) || has_any(filter)) => {
            if join.join_type != JoinType::Inner {
                return not_impl_err!(
                    "a subquery in the ON of a {} JOIN is not supported: put it into a SELECT of one of the two sides",
                    join.join_type.to_string().to_uppercase()
                );
            }
            // Of an inner join it does not matter when a condition is asked.
            let Join { filter, .. } = &join;
            let predicate = filter.clone().unwrap_or_else(|| lit(true));
            let plain = LogicalPlan::Join(Join { filter: None, ..join });
            joined(LogicalPlanBuilder::from(plain).filter(predicate)?.build()?)
        }
        LogicalPlan::Sort(Sort { expr, input, fetch }) if expr.iter().any(|sort| has_any(&sort.expr)) => {
            let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
            let mut below = input.as_ref().clone();
            let mut sorts = vec![];
            for sort in expr {
                for part in references_of(&sort.expr)? {
                    if let Expr::OuterReferenceColumn(_, column) = &part
                        && !input.schema().has_column(column)
                    {
                        return plan_err!(
                            "a subquery in ORDER BY refers to {column}, which is not in the SELECT list: put the subquery or the column into the list"
                        );
                    }
                }
                let (over, expr) = over_joins(below, sort.expr)?;
                below = over;
                sorts.push(SortExpr { expr, ..sort });
            }
            LogicalPlanBuilder::from(below).sort_with_limit(sorts, fetch)?.project(columns)?.build()
        }
        other => Ok(other),
    }
}

/// Whether the right side of a join refers to rows of the left one.
fn is_lateral(join: &Join) -> Result<bool> {
    let refers = |part: &Expr| matches!(part, Expr::OuterReferenceColumn(_, column) if join.left.schema().has_column(column));
    Ok(references(&join.right)?.iter().any(refers))
}

/// A join whose right side is asked once for each binding of what it refers to.
fn lateral(join: Join) -> Result<LogicalPlan> {
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
        return plan_err!("LATERAL stands at the right of a comma, a CROSS, an INNER or a LEFT JOIN, not of a {} JOIN", join.join_type);
    }
    let columns: Vec<Expr> = join.schema.columns().into_iter().map(Expr::Column).collect();
    let left = Arc::unwrap_or_clone(join.left);
    let bindings = Bindings::of(&left, &join.right)?;
    let (right, bound) = bindings.pushed_into(Arc::unwrap_or_clone(join.right))?;
    let equal = join.on.into_iter().map(|(left, right)| left.eq(right));
    let filter = equal.chain(join.filter).reduce(and);
    let joined = LogicalPlanBuilder::from(left).join_detailed(
        right,
        join.join_type,
        (bindings.outer, bound),
        filter,
        NullEquality::NullEqualsNull,
    )?;
    joined.project(columns)?.build()
}

/// Whether a subquery within the expression is none that DataFusion joins as the standard has it.
fn has_own(expr: &Expr, is_condition: bool) -> bool {
    let whole = is_condition.then(|| match expr {
        Expr::Not(of) => of.as_ref(),
        of => of,
    });
    let negated = matches!(expr, Expr::Not(_));
    expr.exists(|part| {
        Ok(match part {
            Expr::SetComparison(_) => true,
            Expr::ScalarSubquery(subquery) => !refers_by_equality(subquery),
            Expr::InSubquery(list) => match whole {
                // A part of the condition itself. Of NOT IN, DataFusion knows what a NULL does for one column against a list that is the same
                // for all rows.
                Some(whole) if whole == part => {
                    let refers = !list.subquery.outer_ref_columns.is_empty();
                    ((list.negated != negated) && (refers || list.expr.column_refs().is_empty())) || !refers_in_conditions(&list.subquery)
                }
                _ => true,
            },
            // Where it is a condition or part of one, DataFusion marks the rows that have any.
            Expr::Exists(exists) => !is_condition || !refers_in_conditions(&exists.subquery),
            _ => false,
        })
    })
    .unwrap_or(true)
}

fn has_any(expr: &Expr) -> bool {
    let subquery = |part: &Expr| matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_));
    expr.exists(|part| Ok(subquery(part))).unwrap_or(true)
}

/// An expression over an input, with the subqueries in it joined to that.
fn over_joins(mut input: LogicalPlan, expr: Expr) -> Result<(LogicalPlan, Expr)> {
    let replaced = expr.transform_down(|part| {
        let below = || input.clone();
        let (over, value) = match part {
            Expr::ScalarSubquery(subquery) => with_value(below(), &subquery)?,
            Expr::Exists(Exists { subquery, negated }) => {
                let (over, any) = with_value(below(), &counted(&subquery)?)?;
                (over, if negated { not(any) } else { any })
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let (over, is_in) = match subquery.outer_ref_columns.is_empty() && !expr.column_refs().is_empty() {
                    true => with_mark(below(), *expr, &subquery)?,
                    false => with_value(below(), &compared(*expr, Operator::Eq, SetQuantifier::Any, &subquery, input.schema())?)?,
                };
                (over, if negated { not(is_in) } else { is_in })
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                with_value(below(), &compared(*expr, op, quantifier, &subquery, input.schema())?)?
            }
            other => return Ok(Transformed::no(other)),
        };
        input = over;
        Ok(Transformed::new(value, true, TreeNodeRecursion::Jump))
    })?;
    Ok((input, replaced.data))
}

fn aggregate(function: Arc<datafusion::logical_expr::AggregateUDF>, argument: Expr) -> Expr {
    Expr::AggregateFunction(AggregateFunction::new_udf(function, vec![argument], false, None, vec![], None))
}

fn same_references(subquery: &Subquery, plan: LogicalPlan) -> Subquery {
    let outer_ref_columns = plan.all_out_ref_exprs();
    Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: subquery.spans.clone() }
}

/// EXISTS as a scalar subquery.
fn counted(subquery: &Subquery) -> Result<Subquery> {
    let count = aggregate(count_udaf(), lit(1i64)).alias("rows");
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone()).aggregate(Vec::<Expr>::new(), vec![count])?;
    let plan = plan.project(vec![col("rows").gt(lit(0i64)).alias("any")])?.build()?;
    Ok(same_references(subquery, plan))
}

/// A comparison with ANY or ALL of a subquery's values as a scalar subquery: true or false where one row decides, NULL where one might have.
fn compared(expr: Expr, op: Operator, quantifier: SetQuantifier, subquery: &Subquery, outer: &DFSchema) -> Result<Subquery> {
    let inner = subquery.subquery.as_ref().clone();
    let [column] =
        inner.schema().columns().try_into().or_else(|columns: Vec<Column>| {
            plan_err!("a subquery that is compared must have one column, this one has {}", columns.len())
        })?;
    let expr = expr.transform(|part| {
        Ok(match part {
            Expr::Column(column) => {
                let (_, field) = outer.qualified_field_from_column(&column)?;
                Transformed::yes(Expr::OuterReferenceColumn(field.clone(), column))
            }
            other => Transformed::no(other),
        })
    })?;
    // A name of its own: the outer column may be called as the inner one.
    let values = LogicalPlanBuilder::from(inner).project(vec![Expr::Column(column).alias("value")])?.alias(fresh("values"))?.build()?;
    let value = Expr::Column(values.schema().columns().remove(0));
    let comparison = binary_expr(expr.data, op, value);
    let (function, deciding) = match quantifier {
        SetQuantifier::Any => (boolean(false), true),
        SetQuantifier::All => (boolean(true), false),
    };
    let unknown = aggregate(boolean(false), is_null(comparison.clone())).alias("unknown");
    let decided = aggregate(function, comparison).alias("decided");
    let plan = LogicalPlanBuilder::from(values).aggregate(Vec::<Expr>::new(), vec![decided, unknown])?;
    let decides = binary_expr(col("decided"), Operator::IsNotDistinctFrom, lit(deciding));
    let answer = when(decides, lit(deciding)).when(col("unknown"), lit(ScalarValue::Boolean(None))).otherwise(lit(!deciding))?;
    Ok(same_references(subquery, plan.project(vec![answer.alias("answer")])?.build()?))
}

/// `x IN (S)` for an S that is the same for all rows: a join by hash marks the rows that have a partner.
fn with_mark(input: LogicalPlan, expr: Expr, subquery: &Subquery) -> Result<(LogicalPlan, Expr)> {
    let list = subquery.subquery.as_ref().clone();
    let [column] = list
        .schema()
        .columns()
        .try_into()
        .or_else(|columns: Vec<Column>| plan_err!("the subquery of IN must have one column, this one has {}", columns.len()))?;
    let name = fresh("in");
    let known = Expr::Column(column.clone()).is_not_null();
    let values = LogicalPlanBuilder::from(list.clone()).filter(known)?.project(vec![Expr::Column(column.clone()).alias("value")])?;
    let values = values.distinct()?.project(vec![col("value"), lit(true).alias("mark")])?.alias(name.clone())?.build()?;
    let summary = [aggregate(count_udaf(), lit(1i64)).alias("all"), aggregate(count_udaf(), Expr::Column(column)).alias("known")];
    let summary = LogicalPlanBuilder::from(list).aggregate(Vec::<Expr>::new(), summary)?.alias(format!("{name}_rows"))?.build()?;
    let of = |relation: &str, column: &str| Expr::Column(Column::new(Some(relation.to_string()), column));
    let over = LogicalPlanBuilder::from(input)
        .join_with_expr_keys(values, JoinType::Left, (vec![expr.clone()], vec![of(&name, "value")]), None)?
        .cross_join(summary)?
        .build()?;
    let (all, known) = (of(&format!("{name}_rows"), "all"), of(&format!("{name}_rows"), "known"));
    let unknown = or(is_null(expr), known.lt(all.clone()));
    let answer = when(of(&name, "mark").is_not_null(), lit(true))
        .when(all.eq(lit(0i64)), lit(false))
        .when(unknown, lit(ScalarValue::Boolean(None)))
        .otherwise(lit(false))?;
    Ok((over, answer))
}

/// A scalar subquery as a column of a join with the input.
fn with_value(input: LogicalPlan, subquery: &Subquery) -> Result<(LogicalPlan, Expr)> {
    let plan = subquery.subquery.as_ref();
    let [value] = plan
        .schema()
        .columns()
        .try_into()
        .or_else(|columns: Vec<Column>| plan_err!("a scalar subquery must have one column, this one has {}", columns.len()))?;
    let bindings = Bindings::of(&input, plan)?;
    let (plan, bound) = bindings.pushed_into(plan.clone())?;
    let name = fresh("subquery");
    let names: Vec<String> = (0..bound.len()).map(|at| format!("{name}_{at}")).collect();
    let keys: Vec<Expr> = bound.iter().cloned().map(Expr::Column).collect();
    // A second row for one binding is an error.
    let one = aggregate(subquery_value(), Expr::Column(value)).alias("value");
    let plan = LogicalPlanBuilder::from(plan).aggregate(keys, vec![one])?;
    let mut columns = vec![col("value")];
    columns.extend(bound.into_iter().zip(&names).map(|(column, name)| Expr::Column(column).alias(name)));
    let plan = plan.project(columns)?.alias(name.clone())?.build()?;
    let answer = Expr::Column(Column::new(Some(name.clone()), "value"));
    let over = LogicalPlanBuilder::from(input);
    if names.is_empty() {
        return Ok((over.cross_join(plan)?.build()?, answer));
    }
    let inner: Vec<Column> = names.iter().map(|column| Column::new(Some(name.clone()), column)).collect();
    let over = over.join_detailed(plan, JoinType::Left, (bindings.outer, inner), None, NullEquality::NullEqualsNull)?;
    Ok((over.build()?, answer))
}

/// A name that no other has.
fn fresh(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("__{what}_{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What rows a subquery is asked for.
struct Bindings {
    /// Columns of the input that the subquery refers to.
    outer: Vec<Column>,
    /// Their distinct values.
    table: Option<LogicalPlan>,
}

/// The columns in which a plan has the bindings, in order.
type Bound = Vec<Column>;

impl Bindings {
    fn of(input: &LogicalPlan, subquery: &LogicalPlan) -> Result<Self> {
        let mut outer: Vec<Column> = vec![];
        for expr in references(subquery)? {
            let Expr::OuterReferenceColumn(_, column) = expr else { continue };
            if input.schema().has_column(&column) && !outer.contains(&column) {
                outer.push(column);
            }
        }
        if outer.is_empty() {
            return Ok(Self { outer, table: None });
        }
        let volatile = input.exists(|node| Ok(node.expressions().iter().any(Expr::is_volatile)))?;
        if volatile {
            return plan_err!(
                "a subquery cannot refer to a row that random() or the like has made: CREATE TABLE … AS SELECT keeps such rows"
            );
        }
        let columns = outer.iter().cloned().map(Expr::Column).collect::<Vec<_>>();
        let table = LogicalPlanBuilder::from(input.clone()).project(columns)?.distinct()?.build()?;
        Ok(Self { outer, table: Some(table) })
    }

    /// One more copy of the bindings.
    fn table(&self) -> Result<Option<(LogicalPlan, Bound)>> {
        let Some(table) = &self.table else { return Ok(None) };
        let name = fresh("binding");
        let columns = self.outer.iter().enumerate().map(|(at, column)| Expr::Column(column.clone()).alias(format!("{name}_{at}")));
        let plan = LogicalPlanBuilder::from(table.clone()).project(columns.collect::<Vec<_>>())?.alias(name)?.build()?;
        let bound = plan.schema().columns();
        Ok(Some((plan, bound)))
    }

    /// An expression of the subquery over the bindings' columns.
    fn bind(&self, expr: Expr, bound: &Bound) -> Result<Expr> {
        let replaced = expr.transform(|part| {
            Ok(match part {
                Expr::OuterReferenceColumn(field, column) => match self.outer.iter().position(|outer| *outer == column) {
                    Some(at) => Transformed::yes(Expr::Column(bound[at].clone())),
                    None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
                },
                Expr::ScalarSubquery(Subquery { subquery, .. })
                | Expr::Exists(Exists { subquery: Subquery { subquery, .. }, .. })
                | Expr::InSubquery(InSubquery { subquery: Subquery { subquery, .. }, .. })
                | Expr::SetComparison(SetComparison { subquery: Subquery { subquery, .. }, .. })
                    if self.is_in(&subquery)? =>
                {
                    return not_impl_err!("a subquery within a subquery that refers to a row outside of both is not supported here");
                }
                other => Transformed::no(other),
            })
        })?;
        Ok(replaced.data)
    }

    fn is_in(&self, plan: &LogicalPlan) -> Result<bool> {
        Ok(references(plan)?.iter().any(|part| matches!(part, Expr::OuterReferenceColumn(_, column) if self.outer.contains(column))))
    }

    fn of_equal(left: &Bound, right: &Bound) -> Option<Expr> {
        let pairs = left.iter().zip(right);
        let same = |(left, right): (&Column, &Column)| {
            binary_expr(Expr::Column(left.clone()), Operator::IsNotDistinctFrom, Expr::Column(right.clone()))
        };
        pairs.map(same).reduce(and)
    }

    /// The subquery's rows for every binding, with the binding beside each.
    fn pushed_into(&self, plan: LogicalPlan) -> Result<(LogicalPlan, Bound)> {
        if !self.is_in(&plan)? {
            return match self.table()? {
                None => Ok((plan, vec![])),
                Some((table, bound)) => Ok((LogicalPlanBuilder::from(plan).cross_join(table)?.build()?, bound)),
            };
        }
        let columns = |bound: &Bound| bound.iter().cloned().map(Expr::Column).collect::<Vec<_>>();
        match plan {
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let (input, bound) = self.pushed_into(Arc::unwrap_or_clone(input))?;
                let names = NamePreserver::new_for_projection();
                let mut exprs = expr
                    .into_iter()
                    .map(|expr| {
                        let name = names.save(&expr);
                        Ok(name.restore(self.bind(expr, &bound)?))
                    })
                    .collect::<Result<Vec<_>>>()?;
                exprs.extend(columns(&bound));
                Ok((LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?), bound))
            }
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let (input, bound) = self.pushed_into(Arc::unwrap_or_clone(input))?;
                let predicate = self.bind(predicate, &bound)?;
                Ok((LogicalPlanBuilder::from(input).filter(predicate)?.build()?, bound))
            }
            LogicalPlan::Subquery(Subquery { subquery, .. }) => self.pushed_into(Arc::unwrap_or_clone(subquery)),
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
                let (input, bound) = self.pushed_into(Arc::unwrap_or_clone(input))?;
                let bound = bound.into_iter().map(|column| Column::new(Some(alias.clone()), column.name)).collect();
                Ok((LogicalPlanBuilder::from(input).alias(alias)?.build()?, bound))
            }
            // The order of a subquery's rows is nobody's, unless it says which of them count.
            LogicalPlan::Sort(Sort { input, fetch: None, .. }) => self.pushed_into(Arc::unwrap_or_clone(input)),
            LogicalPlan::Sort(Sort { expr, input, fetch: Some(fetch) }) => self.numbered(Arc::unwrap_or_clone(input), expr, 0, Some(fetch)),
            LogicalPlan::Limit(limit) => {
                use datafusion::logical_expr::{FetchType, SkipType};
                let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?) else {
                    return not_impl_err!("LIMIT in a subquery that refers to the row outside takes a number");
                };
                match Arc::unwrap_or_clone(limit.input) {
                    // What is computed of each row can wait until it is known which rows count.
                    LogicalPlan::Projection(Projection { expr, input, .. }) => {
                        let below = Limit { skip: Some(Box::new(lit(skip as i64))), fetch: limit.fetch, input };
                        let below = LogicalPlan::Limit(below);
                        self.pushed_into(LogicalPlan::Projection(Projection::try_new(expr, Arc::new(below))?))
                    }
                    LogicalPlan::Sort(Sort { expr, input, fetch: None }) => self.numbered(Arc::unwrap_or_clone(input), expr, skip, fetch),
                    input => self.numbered(input, vec![], skip, fetch),
                }
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let (input, bound) = self.pushed_into(Arc::unwrap_or_clone(input))?;
                Ok((LogicalPlanBuilder::from(input).distinct()?.build()?, bound))
            }
            LogicalPlan::Aggregate(aggregate) => self.pushed_below_aggregate(aggregate),
            LogicalPlan::Window(Window { input, window_expr, .. }) => {
                let (input, bound) = self.pushed_into(Arc::unwrap_or_clone(input))?;
                let windows = window_expr.into_iter().map(|expr| {
                    let expr = self.bind(expr, &bound)?;
                    let within = expr.transform(|part| {
                        Ok(match part {
                            Expr::WindowFunction(mut window) => {
                                window.params.partition_by.extend(columns(&bound));
                                Transformed::yes(Expr::WindowFunction(window))
                            }
                            other => Transformed::no(other),
                        })
                    });
                    Ok(within?.data)
                });
                let named = LogicalPlanBuilder::from(input).window(windows.collect::<Result<Vec<_>>>()?)?.build()?;
                Ok((named, bound))
            }
            LogicalPlan::Unnest(unnest) => {
                // What is not a list to take apart stands beside each of its elements.
                let (input, bound) = self.pushed_into(Arc::unwrap_or_clone(unnest.input))?;
                let apart = LogicalPlanBuilder::from(input).unnest_columns_with_options(unnest.exec_columns, unnest.options)?;
                Ok((apart.build()?, bound))
            }
            LogicalPlan::Join(join) => self.pushed_below_join(join),
            LogicalPlan::Union(Union { inputs, schema }) => {
                let name = fresh("binding");
                let names: Vec<String> = (0..self.outer.len()).map(|at| format!("{name}_{at}")).collect();
                let inputs = inputs.into_iter().map(|input| {
                    let own = input.schema().columns();
                    let (input, bound) = self.pushed_into(Arc::unwrap_or_clone(input))?;
                    let own = own.into_iter().zip(schema.fields()).map(|(column, field)| Expr::Column(column).alias(field.name()));
                    let bound = bound.into_iter().zip(&names).map(|(column, name)| Expr::Column(column).alias(name));
                    Ok(Arc::new(LogicalPlanBuilder::from(input).project(own.chain(bound).collect::<Vec<_>>())?.build()?))
                });
                let union = Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)?;
                Ok((LogicalPlan::Union(union), names.into_iter().map(Column::new_unqualified).collect()))
            }
            other => not_impl_err!(
                "a subquery cannot refer to the row outside within {}: refer to it in WHERE, SELECT, ON or HAVING of the subquery",
                other.display().to_string().split([':', ' ']).next().unwrap_or_default()
            ),
        }
    }

    /// The first rows of each binding.
    fn numbered(&self, input: LogicalPlan, order: Vec<SortExpr>, skip: usize, fetch: Option<usize>) -> Result<(LogicalPlan, Bound)> {
        let own: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        let (input, bound) = self.pushed_into(input)?;
        let order = order.into_iter().map(|sort| Ok(SortExpr { expr: self.bind(sort.expr, &bound)?, ..sort }));
        let name = fresh("row");
        let keys: Vec<Expr> = bound.iter().cloned().map(Expr::Column).collect();
        let mut number = row_number().partition_by(keys.clone());
        let order = order.collect::<Result<Vec<_>>>()?;
        if !order.is_empty() {
            number = number.order_by(order);
        }
        let number = number.build()?.alias(&name);
        let rows = |count: usize| lit(i64::try_from(count).unwrap_or(i64::MAX));
        let mut within = col(&name).gt(rows(skip));
        if let Some(fetch) = fetch {
            within = and(within, col(&name).lt_eq(rows(skip.saturating_add(fetch))));
        }
        let plan = LogicalPlanBuilder::from(input).window(vec![number])?.filter(within)?.project(own.into_iter().chain(keys))?;
        Ok((plan.build()?, bound))
    }

    fn pushed_below_aggregate(&self, aggregate: Aggregate) -> Result<(LogicalPlan, Bound)> {
        let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
        if group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
            return not_impl_err!("GROUPING SETS, CUBE and ROLLUP are not supported in a subquery that refers to the row outside");
        }
        let own = schema.columns();
        let grouped = !group_expr.is_empty();
        let (input, bound) = self.pushed_into(Arc::unwrap_or_clone(input))?;
        let names = NamePreserver::new_for_projection();
        let with_names = |exprs: Vec<Expr>| {
            let named = exprs.into_iter().map(|expr| {
                let name = names.save(&expr);
                Ok(name.restore(self.bind(expr, &bound)?))
            });
            named.collect::<Result<Vec<_>>>()
        };
        let mut keys = with_names(group_expr)?;
        keys.extend(bound.iter().cloned().map(Expr::Column));
        let aggregates = with_names(aggr_expr.clone())?;
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), keys, aggregates)?);
        if grouped {
            return Ok((plan, bound));
        }
        // One row for every binding, even of no rows.
        let Some((table, all)) = self.table()? else { return Ok((plan, bound)) };
        let with_all = LogicalPlanBuilder::from(table).join_detailed(
            plan,
            JoinType::Left,
            (all.clone(), bound),
            None,
            NullEquality::NullEqualsNull,
        )?;
        let values = own.into_iter().zip(aggr_expr).map(|(column, expr)| {
            let none = of_no_rows(&expr, schema.qualified_field_from_column(&column)?.1.data_type())?;
            let value = Expr::Column(column.clone());
            Ok(match none.is_null() {
                true => value,
                false => when(is_null(value.clone()), lit(none)).otherwise(value)?.alias_qualified(column.relation, column.name),
            })
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        let plan = with_all.project(values.into_iter().chain(all.iter().cloned().map(Expr::Column)))?.build()?;
        Ok((plan, all))
    }

    fn pushed_below_join(&self, join: Join) -> Result<(LogicalPlan, Bound)> {
        let Join { left, right, on, filter, join_type, null_equality, .. } = join;
        if !matches!(join_type, JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti) {
            return not_impl_err!(
                "a subquery cannot refer to the row outside within a {join_type} JOIN: put what refers to it above the join"
            );
        }
        let refers_right = self.is_in(&right)?;
        let (left, bound) = self.pushed_into(Arc::unwrap_or_clone(left))?;
        let mut filter = filter.map(|filter| self.bind(filter, &bound)).transpose()?;
        let right = if refers_right {
            let (right, right_bound) = self.pushed_into(Arc::unwrap_or_clone(right))?;
            filter = filter.into_iter().chain(Self::of_equal(&bound, &right_bound)).reduce(and);
            right
        } else {
            Arc::unwrap_or_clone(right)
        };
        let on = on.into_iter().map(|(left, right)| Ok((self.bind(left, &bound)?, self.bind(right, &bound)?)));
        let on = on.collect::<Result<Vec<_>>>()?;
        let join = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            on,
            filter,
            join_type,
            datafusion::common::JoinConstraint::On,
            null_equality,
            false,
        )?;
        Ok((LogicalPlan::Join(join), bound))
    }
}

/// What an aggregate answers for no rows.
fn of_no_rows(expr: &Expr, data_type: &arrow::datatypes::DataType) -> Result<ScalarValue> {
    match expr {
        Expr::Alias(alias) => of_no_rows(&alias.expr, data_type),
        Expr::AggregateFunction(function) => function.func.default_value(data_type),
        _ => ScalarValue::try_from(data_type),
    }
}
