//! One rule for types: what a statement announces is what it gives. A plan gets its final types here, from its leaves up, before anybody is
//! told of its columns.
//!
//! DataFusion does that as the first step of its optimizer, when columns have been announced already; and it would
//!
//! 1. make a decimal of a double that meets one, which has no place for NaN, infinities and most of its range: here both become doubles, in
//!    comparisons, CASE, COALESCE and its like, columns of a UNION and of VALUES. Times of two units are compared as the finer;
//! 2. repeat rows for a scalar subquery of many, which it spreads as a join: here that is an error;
//! 3. wrap integers and cut quotients, and take NaNs of two signs for two values: see [`exactly`] and [`with_sql_doubles`];
//! 4. lose options of window functions on the way to a worker: see [`with_own_options`];
//! 5. make as much as arguments say, whatever memory there is: see [`with_bound`];
//! 6. make one list of two lists of IN, and lose a NULL in one of them: see [`without_nulls`];
//! 7. compare exact numbers in 38 digits, which some of their values have no place in: see [`compared_in_full`];
//! 8. refuse subqueries within expressions, or take NULLs in them for false: see [`subqueries`]. Nor would it count the rows of EXCEPT ALL.

use super::own_casts::{own_cast, own_casts_of_union, with_sql_doubles};
use super::references::change_inputs;
use super::syntax::CAST_APART;
use super::wide_decimals::{compared_in_full, wide_type};
use super::window_types::{with_default_of_one_type, with_wide_range};
use super::{subqueries, time_units, times};
use crate::operators::bounded_functions::with_bound;
use crate::operators::conditions_in_order::filtered_arguments;
use crate::operators::exact_arithmetic::exactly;
use crate::operators::float_values::{one_nan, sorted_as_sql};
use crate::operators::signed_counts::row_number;
use crate::operators::string_concat;
use crate::operators::subquery_value::subquery_value;
use crate::operators::window_options::with_own_options;
use crate::sql_types::declared_type;
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRewriter};
use datafusion::common::{Column, DFSchema, JoinConstraint, JoinType, NullEquality, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, Exists, GroupingSet, InList, InSubquery, SetComparison};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{RecursiveQuery, Subquery};
use datafusion::logical_expr::type_coercion::binary::type_union_coercion;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Cast, Distinct, Expr, ExprFunctionExt, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Union, Values,
    WriteOp, binary_expr, cast, lit, when,
};
use datafusion::logical_expr::{SortExpr, WindowFunctionDefinition};
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use std::sync::Arc;

/// The plan in its final types. A plan that has them stays as it is.
pub fn coerced(plan: LogicalPlan) -> Result<LogicalPlan> {
    // Values that are stored get the types of their table.
    let stored = plan.exists(|node| Ok(matches!(node, LogicalPlan::Dml(_))))?;
    with_types(plan, &DFSchema::empty(), stored)
}

/// The same for a plan within another one, whose columns it may refer to.
fn with_types(plan: LogicalPlan, outer: &DFSchema, stored: bool) -> Result<LogicalPlan> {
    let announced = match &plan {
        LogicalPlan::RecursiveQuery(query) => Some(query.static_term.schema().clone()),
        _ => None,
    };
    let plan = change_inputs(plan, outer, &|input, outer| with_types(input, outer, stored))?;
    if let (LogicalPlan::RecursiveQuery(query), Some(announced)) = (&plan, announced) {
        no_loss_by_recursion(query)?;
        // The rows that it reads of itself have been announced in these types.
        for (is, was) in query.static_term.schema().fields().iter().zip(announced.fields()) {
            if is.data_type() != was.data_type() {
                return plan_err!(
                    "column {} of the recursive query {} is {}: CAST it in the first SELECT to the type that it shall have",
                    is.name(),
                    query.name,
                    is.data_type()
                );
            }
        }
    }
    let plan = one_type_by_column(typed_limit(plan))?.data;
    let plan = one_type_of_sets(plan)?;
    let plan = if stored { plan } else { one_type_of_values(plan)?.data };
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    schema.merge(outer);
    let names = NamePreserver::new(&plan);
    let plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let typed = expr.transform_up(|expr| with_type(expr, &schema, outer, stored).map(Transformed::yes))?;
        Ok(typed.update_data(|expr| name.restore(expr)))
    })?;
    let plan = in_types_of_table(plan.data, stored)?;
    let plan = TypeCoercionRewriter::new(&schema).coerce_plan(keys_in_full(plan))?.recompute_schema()?;
    let plan = in_sql_order(own_casts_of_union(plan)?)?;
    subqueries::joined(with_nan_of_aggregates(of_all_rows(by_multiplicity(plan)?)?)?)
}

/// Rows that are stored, in the types of their table. The planner casts those of other types, and some have another only now: a CASE had that of its
/// first value.
fn in_types_of_table(plan: LogicalPlan, stored: bool) -> Result<LogicalPlan> {
    let typed = |expr: Expr, wanted: &DataType, schema: &DFSchema| match expr.get_type(schema)? == *wanted {
        true => Ok(expr),
        false => with_type(cast(expr, wanted.clone()), schema, &DFSchema::empty(), stored),
    };
    match plan {
        LogicalPlan::Values(values) if stored => {
            let none = DFSchema::empty();
            let row = |row: Vec<Expr>| {
                let fields = values.schema.fields().iter();
                row.into_iter().zip(fields).map(|(expr, field)| typed(expr, field.data_type(), &none)).collect()
            };
            let rows = values.values.into_iter().map(row).collect::<Result<_>>()?;
            Ok(LogicalPlan::Values(Values { schema: values.schema, values: rows }))
        }
        LogicalPlan::Dml(mut dml) if matches!(dml.op, WriteOp::Insert(_)) => {
            let (is, table) = (dml.input.schema().clone(), dml.target.schema());
            let differ = is.fields().iter().zip(table.fields()).any(|(is, wanted)| is.data_type() != wanted.data_type());
            if !differ || is.fields().len() != table.fields().len() {
                return Ok(LogicalPlan::Dml(dml));
            }
            let columns = is.columns().into_iter().zip(table.fields()).map(|(column, wanted)| {
                let name = column.name.clone();
                Ok(typed(Expr::Column(column), wanted.data_type(), &is)?.alias(name))
            });
            let columns = columns.collect::<Result<Vec<_>>>()?;
            dml.input = Arc::new(LogicalPlan::Projection(Projection::try_new(columns, dml.input.clone())?));
            Ok(LogicalPlan::Dml(dml))
        }
        other => Ok(other),
    }
}

/// The planner casts what a recursive query adds to the types of its first SELECT, around the items as [`rewrite`](super::rewrite) marked them.
fn no_loss_by_recursion(query: &RecursiveQuery) -> Result<()> {
    let LogicalPlan::Projection(added) = query.recursive_term.as_ref() else { return Ok(()) };
    for (at, expr) in added.expr.iter().enumerate() {
        let Expr::Cast(Cast { expr: item, field }) = expr.clone().unalias() else { continue };
        let Expr::ScalarFunction(marked) = item.as_ref() else { continue };
        let (from, to) = (item.get_type(added.input.schema())?, field.data_type());
        // Integers that do not fit are an error in their row.
        let holds = match (&from, to) {
            (DataType::Null, _) => true,
            (from, to) if from.is_integer() && (to.is_integer() || to.is_decimal()) => true,
            (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => from <= to,
            (from, to) => from == to || type_union_coercion(from, to).as_ref() == Some(to),
        };
        if marked.name() == CAST_APART && !holds {
            return plan_err!(
                "column {} of the recursive query {} is {} in its first SELECT and {} in the one that repeats: CAST one of them",
                query.static_term.schema().field(at).name(),
                query.name,
                declared_type(to),
                declared_type(&from)
            );
        }
    }
    Ok(())
}

/// Gives both sides of INTERSECT and EXCEPT the types that a UNION of them has: the planner makes joins of them, which compare in such a type and
/// answer in that of the left side.
fn one_type_of_sets(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Join(join) = &plan else { return Ok(plan) };
    let types = |side: &LogicalPlan| side.schema().fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
    if !is_set_operation(join) || types(&join.left) == types(&join.right) {
        return Ok(plan);
    }
    let sides = vec![join.left.clone(), join.right.clone()];
    let union = one_type_by_column(LogicalPlan::Union(Union::try_new_with_loose_types(sides)?))?.data;
    let union = TypeCoercionRewriter::new(&merge_schema(&union.inputs())).coerce_plan(union)?;
    let wanted = types(&union);
    let cast_to = |side: &LogicalPlan| -> Result<LogicalPlan> {
        let columns = side.schema().columns().into_iter().enumerate().map(|(at, column)| {
            if side.schema().field(at).data_type() == &wanted[at] {
                return Ok(Expr::Column(column));
            }
            let (relation, name) = (column.relation.clone(), column.name.clone());
            Ok(own_cast(cast(Expr::Column(column), wanted[at].clone()), side.schema())?.alias_qualified(relation, name))
        });
        let is_distinct = matches!(side, LogicalPlan::Distinct(Distinct::All(_)));
        let typed = LogicalPlanBuilder::from(side.clone()).project(columns.collect::<Result<Vec<_>>>()?)?;
        // Values that differ may be one value of the other type.
        if is_distinct { typed.distinct()?.build() } else { typed.build() }
    };
    let (left, right) = (cast_to(&join.left)?, cast_to(&join.right)?);
    let keys = (left.schema().columns(), right.schema().columns());
    LogicalPlanBuilder::from(left).join_detailed(right, join.join_type, keys, None, NullEquality::NullEqualsNull)?.build()
}

/// Keys of a join that are compared in more than 38 digits.
fn keys_in_full(plan: LogicalPlan) -> LogicalPlan {
    let LogicalPlan::Join(mut join) = plan else { return plan };
    for (left, right) in &mut join.on {
        if let Some(wide) = wide_type((left, join.left.schema()), (right, join.right.schema())) {
            *left = cast(std::mem::take(left), wide.clone());
            *right = cast(std::mem::take(right), wide);
        }
    }
    LogicalPlan::Join(join)
}

/// Whether a join is what the planner makes of INTERSECT and EXCEPT: NULLs are alike in it, and it compares all columns.
fn is_set_operation(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull
        && matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.filter.is_none()
        && join.on.len() == join.left.schema().fields().len()
        && join.on.len() == join.right.schema().fields().len()
}

/// Parameters of LIMIT and OFFSET are numbers of rows.
fn typed_limit(plan: LogicalPlan) -> LogicalPlan {
    let LogicalPlan::Limit(mut limit) = plan else { return plan };
    for bound in [&mut limit.skip, &mut limit.fetch].into_iter().flatten() {
        if let Expr::Placeholder(parameter) = bound.as_mut() {
            parameter.field.get_or_insert_with(|| Arc::new(Field::new("", DataType::Int64, true)));
        }
    }
    LogicalPlan::Limit(limit)
}

/// An expression whose parts have their final types.
fn with_type(expr: Expr, schema: &DFSchema, outer: &DFSchema, stored: bool) -> Result<Expr> {
    let within = |subquery: Subquery| -> Result<Subquery> {
        let plan = with_types(Arc::unwrap_or_clone(subquery.subquery), schema, stored)?;
        Ok(Subquery { subquery: Arc::new(plan), ..subquery })
    };
    let expr = match with_digits_of_first(expr, schema)? {
        // The column may have another type by now than when the subquery was planned.
        Expr::OuterReferenceColumn(planned, column) => match outer.qualified_field_from_column(&column) {
            Ok((_, field)) => return Ok(Expr::OuterReferenceColumn(field.clone(), column)),
            Err(_) => return Ok(Expr::OuterReferenceColumn(planned, column)),
        },
        Expr::ScalarSubquery(subquery) => one_row(within(subquery)?)?,
        Expr::Exists(exists) => {
            let subquery = within(exists.subquery)?;
            match has_one_row(&subquery.subquery) {
                true => return Ok(lit(!exists.negated)),
                false => Expr::Exists(Exists { subquery, ..exists }),
            }
        }
        Expr::InSubquery(list) => {
            let subquery = within(list.subquery)?;
            let subquery = match subquery.subquery.as_ref() {
                // DataFusion looks for the column in a projection.
                values @ LogicalPlan::Values(_) => {
                    let column = values.schema().columns().into_iter().map(|column| Expr::Column(column).alias("value"));
                    let plan = LogicalPlanBuilder::from(values.clone()).project(column.collect::<Vec<_>>())?.build()?;
                    Subquery { subquery: Arc::new(plan), ..subquery }
                }
                _ => subquery,
            };
            let (expr, subquery) = in_full(list.expr, subquery, schema)?;
            Expr::InSubquery(InSubquery { expr, subquery, ..list })
        }
        Expr::SetComparison(set) => {
            let (expr, subquery) = in_full(set.expr, within(set.subquery)?, schema)?;
            Expr::SetComparison(SetComparison { expr, subquery, ..set })
        }
        other => compared_in_full(of_one_type(time_units::of_one_unit(&other, schema)?.unwrap_or(other), schema), schema),
    };
    let expr = with_default_of_one_type(with_wide_range(expr, schema), schema)?;
    let mut coercion = TypeCoercionRewriter::new(schema);
    let expr = if has_untyped_parameter(&expr)? {
        // What stands beside it is settled once it has a value.
        coercion.f_up(expr.clone()).map_or(expr, |coerced| coerced.data)
    } else {
        coercion.f_up(expr)?.data
    };
    let expr = with_named_value(with_known_digits(expr)?)?;
    // Casts that it has added go by the same rules.
    let expr = expr.map_children(|child| Ok(Transformed::yes(own_cast(child, schema)?)))?.data;
    if let Expr::AggregateFunction(AggregateFunction { func, params }) = &expr
        && ADDS.contains(&func.name())
        && let [only] = params.args.as_slice()
        && only.get_type(schema)?.is_null()
    {
        // An untyped NULL has no arithmetic.
        let params = AggregateFunctionParams { args: vec![cast(only.clone(), DataType::Float64)], ..params.clone() };
        return Ok(Expr::AggregateFunction(AggregateFunction { func: func.clone(), params }));
    }
    let expr = with_kept_rows(with_sql_order(expr, schema)?, schema)?;
    if let Expr::WindowFunction(window) = &expr {
        if window.params.distinct && matches!(window.fun, WindowFunctionDefinition::WindowUDF(_)) {
            return plan_err!("{}(DISTINCT …) OVER is not supported: only aggregates take DISTINCT", window.fun.name());
        }
        return Ok(with_own_options(window)?.map_or(expr, |own| Expr::WindowFunction(Box::new(own))));
    }
    let expr = with_bound(string_concat::as_call(&expr, schema)?.unwrap_or(expr));
    let expr = exactly(&expr, schema)?.unwrap_or(expr);
    let expr = times::as_sql_has_times(&expr, schema)?.unwrap_or(expr);
    Ok(without_nulls(with_sql_doubles(expr, schema)?))
}

/// A list whose constants are values: `x IN (1, NULL)` as `x IN (1) OR NULL`. DataFusion makes one list of two that AND or OR links, and takes the NULL of
/// one for no member of it.
fn without_nulls(expr: Expr) -> Expr {
    let Expr::InList(list) = expr else { return expr };
    // One of values may be NULL where one of them is, or where it says so.
    let gives_null = |part: &Expr| match part {
        Expr::Literal(value, _) => value.is_null(),
        Expr::ScalarFunction(call) => call.name() == "nullif",
        part => matches!(part, Expr::Case(_)),
    };
    let may_be_null = |item: &Expr| {
        let is_constant = item.column_refs().is_empty() && !item.contains_outer() && !item.is_volatile();
        is_constant && item.exists(|part| Ok(gives_null(part))).unwrap_or(true)
    };
    if list.expr.is_volatile() || !list.list.iter().any(may_be_null) {
        return Expr::InList(list);
    }
    let (apart, values): (Vec<Expr>, Vec<Expr>) = list.list.into_iter().partition(may_be_null);
    let (link, same) = if list.negated { (Operator::And, Operator::NotEq) } else { (Operator::Or, Operator::Eq) };
    let alone = |item: Expr| match &item {
        Expr::Literal(..) => lit(ScalarValue::Boolean(None)),
        Expr::Cast(Cast { expr, .. }) if matches!(expr.as_ref(), Expr::Literal(value, _) if value.is_null()) => {
            lit(ScalarValue::Boolean(None))
        }
        _ => binary_expr(list.expr.as_ref().clone(), same, item),
    };
    let mut apart: Vec<Expr> = apart.into_iter().map(alone).collect();
    apart.dedup();
    let values = (!values.is_empty()).then(|| Expr::InList(InList::new(list.expr.clone(), values, list.negated)));
    let parts = values.into_iter().chain(apart);
    parts.reduce(|left, right| binary_expr(left, link, right)).unwrap_or_else(|| lit(ScalarValue::Boolean(None)))
}

/// What is compared with a subquery's values, and the subquery: both in more than 38 digits where they need them.
fn in_full(expr: Box<Expr>, subquery: Subquery, schema: &DFSchema) -> Result<(Box<Expr>, Subquery)> {
    let plan = &subquery.subquery;
    let values = plan.schema().columns();
    let [value] = values.as_slice() else { return Ok((expr, subquery)) };
    let Some(wide) = wide_type((&expr, schema), (&Expr::Column(value.clone()), plan.schema())) else { return Ok((expr, subquery)) };
    let values = LogicalPlanBuilder::from(plan.as_ref().clone());
    let values = values.project(vec![cast(Expr::Column(value.clone()), wide.clone()).alias("value")])?.build()?;
    Ok((Box::new(cast(*expr, wide)), Subquery { subquery: Arc::new(values), ..subquery }))
}

/// `round(x, 1)` has as many digits as its constant says, which a cast around the constant would hide until the optimizer takes it off: the type of the
/// decimal would change under way.
fn with_known_digits(expr: Expr) -> Result<Expr> {
    let Expr::ScalarFunction(mut call) = expr else { return Ok(expr) };
    if let ("round" | "trunc", Some(digits)) = (call.name().to_owned().as_str(), call.args.get_mut(1))
        && let Expr::Cast(Cast { expr: of, field }) = &*digits
        && let Expr::Literal(value, metadata) = of.as_ref()
    {
        *digits = Expr::Literal(value.cast_to(field.data_type())?, metadata.clone());
    }
    Ok(Expr::ScalarFunction(call))
}

/// NULLIF of two decimals, which gives the first with its own digits: the common type has more.
fn with_digits_of_first(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let Expr::ScalarFunction(call) = &expr else { return Ok(expr) };
    let ("nullif", [of, other]) = (call.name(), call.args.as_slice()) else { return Ok(expr) };
    match (of.get_type(schema), other.get_type(schema)) {
        (Ok(of_type), Ok(other_type)) if of_type.is_decimal() && other_type.is_decimal() && of_type != other_type && !of.is_volatile() => {
            let equal = with_type(of.clone().eq(other.clone()), schema, schema, false)?;
            when(equal, lit(ScalarValue::try_from(&of_type)?)).otherwise(of.clone())
        }
        _ => Ok(expr),
    }
}

/// The column of a subquery whose values are cast.
const CAST_VALUE: &str = "__value";

/// A subquery whose values are cast, with a name for them: a cast has that of its column, which a correlated subquery may need beside it.
fn with_named_value(expr: Expr) -> Result<Expr> {
    let named = |subquery: Subquery| -> Result<Subquery> {
        let LogicalPlan::Projection(projection) = subquery.subquery.as_ref() else { return Ok(subquery) };
        let [value @ (Expr::Cast(_) | Expr::TryCast(_))] = projection.expr.as_slice() else { return Ok(subquery) };
        let named = Projection::try_new(vec![value.clone().alias(CAST_VALUE)], projection.input.clone())?;
        Ok(Subquery { subquery: Arc::new(LogicalPlan::Projection(named)), ..subquery })
    };
    Ok(match expr {
        Expr::InSubquery(list) => Expr::InSubquery(InSubquery { subquery: named(list.subquery)?, ..list }),
        Expr::SetComparison(set) => Expr::SetComparison(SetComparison { subquery: named(set.subquery)?, ..set }),
        other => other,
    })
}

/// An aggregate or window function whose order is SQL's.
fn with_sql_order(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let sorted = |keys: &mut Vec<SortExpr>| -> Result<()> {
        for key in keys {
            key.expr = sort_key(std::mem::take(&mut key.expr), schema)?;
        }
        Ok(())
    };
    Ok(match expr {
        Expr::WindowFunction(mut window) => {
            sorted(&mut window.params.order_by)?;
            for key in &mut window.params.partition_by {
                *key = sort_key(std::mem::take(key), schema)?;
            }
            Expr::WindowFunction(window)
        }
        Expr::AggregateFunction(mut call) => {
            sorted(&mut call.params.order_by)?;
            Expr::AggregateFunction(call)
        }
        other => other,
    })
}

/// An aggregate with a FILTER, whose argument fails for none of the rows that this leaves out.
fn with_kept_rows(mut expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let (args, filter) = match &mut expr {
        Expr::AggregateFunction(call) => (&mut call.params.args, &call.params.filter),
        Expr::WindowFunction(window) => (&mut window.params.args, &window.params.filter),
        _ => return Ok(expr),
    };
    if let Some(filter) = filter {
        filtered_arguments(args, filter, schema)?;
    }
    Ok(expr)
}

fn sort_key(key: Expr, schema: &DFSchema) -> Result<Expr> {
    sorted_as_sql(times::by_length(key, schema)?, schema)
}

/// A sort whose order is SQL's, and a join that has no names to resolve any more.
fn in_sql_order(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(mut sort) => {
            for key in &mut sort.expr {
                key.expr = sort_key(std::mem::take(&mut key.expr), sort.input.schema())?;
            }
            Ok(LogicalPlan::Sort(sort))
        }
        LogicalPlan::Distinct(Distinct::On(mut on)) => {
            // What is sorted by begins with what is distinct, and stays alike to it.
            let sorted = on.sort_expr.iter_mut().flatten().map(|key| &mut key.expr);
            for key in sorted.chain(&mut on.on_expr) {
                *key = sort_key(std::mem::take(key), on.input.schema())?;
            }
            Ok(LogicalPlan::Distinct(Distinct::On(on)))
        }
        // All names are resolved. DataFusion would take the rows of a DISTINCT for those of `SELECT *`, which has one of the columns that USING merges.
        LogicalPlan::Join(join) => Ok(LogicalPlan::Join(Join { join_constraint: JoinConstraint::On, ..join })),
        other => Ok(other),
    }
}

/// Whether a plan has a row whatever there is below: an aggregate of all rows has.
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => has_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => false,
    }
}

/// `GROUPING SETS ((), ())` as many aggregates of all rows, each of which has a row even of none. DataFusion finds no group to answer for.
fn of_all_rows(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(plan) };
    let [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] = aggregate.group_expr.as_slice() else { return Ok(plan) };
    if sets.iter().any(|set| !set.is_empty()) {
        return Ok(plan);
    }
    let whole = LogicalPlanBuilder::from(aggregate.input.as_ref().clone()).aggregate(Vec::<Expr>::new(), aggregate.aggr_expr.clone())?;
    if sets.len() == 1 {
        return whole.build();
    }
    let columns: Vec<Expr> = whole.schema().columns().into_iter().map(Expr::Column).collect();
    let rows = LogicalPlanBuilder::values((0..sets.len()).map(|set| vec![lit(set as i64)]).collect())?.build()?;
    whole.cross_join(rows)?.project(columns)?.build()
}

/// Aggregates of DataFusion's that calculate with infinities have a projection over them, see [`one_nan`].
fn with_nan_of_aggregates(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(plan) };
    let calculates = |expr: &Expr| match expr.clone().unalias() {
        Expr::AggregateFunction(call) => {
            let name = call.func.name();
            CALCULATE.contains(&name) || name.starts_with("covar") || name.starts_with("regr_")
        }
        _ => false,
    };
    if !aggregate.aggr_expr.iter().any(calculates) {
        return Ok(plan);
    }
    let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let columns = aggregate.schema.columns().into_iter().enumerate().map(|(at, column)| {
        let of_aggregate = at.checked_sub(groups).and_then(|at| aggregate.aggr_expr.get(at)).is_some_and(calculates);
        let name = column.name.clone();
        if of_aggregate && aggregate.schema.field(at).data_type().is_floating() {
            one_nan(Expr::Column(column)).alias(name)
        } else {
            Expr::Column(column)
        }
    });
    LogicalPlanBuilder::from(plan.clone()).project(columns.collect::<Vec<_>>())?.build()
}

/// Aggregates that may make a NaN of infinities, beside those of families.
const CALCULATE: [&str; 3] = ["corr", "median", "percentile_cont"];

/// EXCEPT ALL and INTERSECT ALL count how often each row is there: DataFusion's join takes all rows that have a partner or none. Rows alike are
/// numbered on both sides, and the number is one more column to be alike.
fn by_multiplicity(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Join(join) = &plan else { return Ok(plan) };
    let columns = join.left.schema().columns();
    // Of a side without repetitions it takes the right ones already.
    let once = matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_)));
    if once || !is_set_operation(join) || columns.iter().any(|column| column.name == REPETITION) {
        return Ok(plan);
    }
    let numbered = |side: &LogicalPlan| -> Result<(LogicalPlan, Vec<Column>)> {
        let value = |key: Column| Ok(sorted_as_sql(Expr::Column(key.clone()), side.schema())?.alias_qualified(key.relation, key.name));
        let values: Vec<Expr> = side.schema().columns().into_iter().map(value).collect::<Result<_>>()?;
        let keys = side.schema().columns().into_iter().map(Expr::Column).collect();
        let number = row_number().partition_by(keys).build()?.alias(REPETITION);
        let numbered = LogicalPlanBuilder::from(side.clone()).project(values)?.window(vec![number])?.build()?;
        Ok((numbered.clone(), numbered.schema().columns()))
    };
    let ((left, left_keys), (right, right_keys)) = (numbered(&join.left)?, numbered(&join.right)?);
    let joined =
        LogicalPlanBuilder::from(left).join_detailed(right, join.join_type, (left_keys, right_keys), None, NullEquality::NullEqualsNull)?;
    joined.project(columns.into_iter().map(Expr::Column))?.build()
}

/// The column that numbers rows alike.
const REPETITION: &str = "__repetition";

fn has_untyped_parameter(expr: &Expr) -> Result<bool> {
    expr.exists(|part| Ok(matches!(part, Expr::Placeholder(parameter) if parameter.field.is_none())))
}

/// Aggregates that calculate with their argument.
const ADDS: [&str; 6] = ["sum", "avg", "var", "var_pop", "stddev", "stddev_pop"];

/// Functions whose arguments get one type.
const OF_ONE_TYPE: [&str; 9] = ["coalesce", "greatest", "ifnull", "least", "make_array", "nullif", "nvl", "nvl2", "array"];

/// Casts decimals that meet doubles, times that meet times of another unit, and dates that meet timestamps.
fn of_one_type(mut expr: Expr, schema: &DFSchema) -> Expr {
    let groups: Vec<Vec<&mut Expr>> = match &mut expr {
        Expr::BinaryExpr(binary) if binary.op.supports_propagation() || binary.op == Operator::Minus => {
            vec![vec![&mut binary.left, &mut binary.right]]
        }
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
        _ => return expr,
    };
    for group in groups {
        // What has no type yet is not settled: DataFusion will say what is wrong with it.
        let types: Vec<Option<DataType>> = group.iter().map(|side| side.get_type(schema).ok()).collect();
        let known = || types.iter().flatten();
        let doubles = known().any(DataType::is_floating);
        let times =
            known().next().is_some_and(is_time) && known().all(is_time) && known().any(|data_type| Some(data_type) != known().next());
        let instants = instants_with_dates(known());
        for (side, data_type) in group.into_iter().zip(&types) {
            if let (Some(instants), Some(DataType::Date32)) = (&instants, data_type) {
                *side = cast(std::mem::take(side), instants.clone());
            } else if doubles && data_type.as_ref().is_some_and(DataType::is_decimal) {
                *side = as_double(std::mem::take(side));
            } else if times && data_type.is_some() {
                *side = cast(std::mem::take(side), DataType::Time64(TimeUnit::Nanosecond));
            }
        }
    }
    expr
}

/// The type of timestamps that dates meet: DataFusion would take nanoseconds, whose years end in 2262. Of nanoseconds there are no others.
fn instants_with_dates<'a>(types: impl Iterator<Item = &'a DataType> + Clone) -> Option<DataType> {
    let is_coarse = |data_type: &&DataType| {
        matches!(data_type, DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, _))
    };
    let dates = types.clone().any(|data_type| data_type == &DataType::Date32);
    let first = types.clone().find(is_coarse).filter(|_| dates)?;
    types.into_iter().all(|other| other == first || matches!(other, DataType::Date32 | DataType::Null)).then(|| first.clone())
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Time32(_) | DataType::Time64(_))
}

/// Casts the decimals of a UNION's column that is of doubles in another branch, and the dates of one that is of timestamps.
fn one_type_by_column(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Union(union) = plan else { return Ok(Transformed::no(plan)) };
    let type_of = |input: &LogicalPlan, at: usize| input.schema().fields().get(at).map(|field| field.data_type().clone());
    let wanted: Vec<Option<DataType>> = (0..union.schema.fields().len())
        .map(|at| {
            let types: Vec<DataType> = union.inputs.iter().filter_map(|input| type_of(input, at)).collect();
            let doubles = types.iter().any(DataType::is_floating) && types.iter().any(DataType::is_decimal);
            if doubles { Some(DataType::Float64) } else { instants_with_dates(types.iter()) }
        })
        .collect();
    if wanted.iter().all(Option::is_none) {
        // Its branches may have other types by now than when the planner united them.
        return Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(union.inputs)?)));
    }
    let inputs = union.inputs.iter().map(|input| {
        let columns = input.schema().columns().into_iter().enumerate().map(|(at, column)| {
            let name = column.name.clone();
            match (wanted.get(at).cloned().flatten(), type_of(input, at)) {
                (Some(DataType::Float64), Some(decimal)) if decimal.is_decimal() => Ok(as_double(Expr::Column(column)).alias(name)),
                (Some(instants @ DataType::Timestamp(..)), Some(DataType::Date32)) => {
                    Ok(own_cast(cast(Expr::Column(column), instants), input.schema())?.alias(name))
                }
                _ => Ok(Expr::Column(column)),
            }
        });
        Ok(Arc::new(LogicalPlanBuilder::from(input.as_ref().clone()).project(columns.collect::<Result<Vec<_>>>()?)?.build()?))
    });
    let union = Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)?;
    Ok(Transformed::yes(LogicalPlan::Union(union)))
}

/// Casts the decimals of a column of VALUES that has doubles, which the planner has cast to decimals, and dates beside timestamps. Decimals that the
/// statement itself makes of doubles are cast twice, see [`super::rewrite`].
fn one_type_of_values(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Values(mut values) = plan else { return Ok(Transformed::no(plan)) };
    let none = DFSchema::empty();
    let is_double = |expr: &Expr| matches!(expr, Expr::Cast(cast) if cast.expr.get_type(&none).is_ok_and(|from| from.is_floating()));
    let mut changed = false;
    for at in 0..values.schema.fields().len() {
        if let Some(instants) = instants_of_values(&values, at)? {
            changed = true;
            for row in &mut values.values {
                let of = match std::mem::take(&mut row[at]) {
                    Expr::Cast(planned) => *planned.expr,
                    null => null,
                };
                row[at] = cast(of, instants.clone());
            }
            continue;
        }
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
    Ok(Transformed::yes(LogicalPlanBuilder::values(values.values)?.build()?))
}

/// The type of a column of VALUES with dates and timestamps, which the planner has cast to nanoseconds.
fn instants_of_values(values: &Values, at: usize) -> Result<Option<DataType>> {
    if !matches!(values.schema.field(at).data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _)) {
        return Ok(None);
    }
    let meant = values.values.iter().map(|row| match &row[at] {
        Expr::Literal(null, _) if null.is_null() => Ok(DataType::Null),
        Expr::Cast(planned) => planned.expr.get_type(&DFSchema::empty()),
        other => other.get_type(&DFSchema::empty()),
    });
    let meant = meant.collect::<Result<Vec<_>>>()?;
    Ok(instants_with_dates(meant.iter()))
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

/// Puts an aggregate that refuses a second row over a subquery that may have one. Correlated subqueries must aggregate anyway.
fn one_row(subquery: Subquery) -> Result<Expr> {
    if !subquery.outer_ref_columns.is_empty() || subquery.subquery.max_rows().is_some_and(|rows| rows <= 1) {
        return Ok(Expr::ScalarSubquery(subquery));
    }
    let plan = subquery.subquery.as_ref().clone();
    let columns = plan.schema().columns();
    let [column] = columns.as_slice() else {
        return plan_err!("a scalar subquery must have one column, this one has {}", columns.len());
    };
    let name = column.name.clone();
    let value = subquery_value().call(vec![Expr::Column(column.clone())]).alias(name);
    let plan = LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), vec![value])?.build()?;
    Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), ..subquery }))
}
