//! Recognises a hot aggregation: partial aggregate over projections and filters over one scan of Parquet files.
//!
//! ```text
//!   AggregateExec(Partial)            columns  = scan columns that are read, narrowed to chunks
//!     ProjectionExec*          ──►    filter   = conjunction of all filters
//!       FilterExec*                   keys     = columns grouped by
//!         DataSourceExec(Parquet)     aggregates, and how each partial state is made of them
//! ```

use super::translate::{Binding, ColumnSource, Translator, column_type, over_files};
use arrow::datatypes::{DataType, Schema};
use bowshot_kernels::{Aggregate, AggregateFunction, AggregatePlan, ArithmeticOp, ColumnType, Decline, Expr, Literal};
use datafusion::catalog::memory::DataSourceExec;
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource, ParquetSource};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use std::sync::Arc;

/// How one aggregate's partial state is made of the kernel's aggregates (positions in [`AggregatePlan::aggregates`]).
#[derive(Debug, Clone, Copy)]
pub enum StateShape {
    /// One field: the count.
    Count(usize),
    /// One field: the value, NULL where nothing was counted.
    Value(usize),
    /// Two fields: count, then sum.
    CountAndSum(usize),
    /// One field: the exact sum of doubles.
    FloatSum(usize),
    /// Two fields: count, then the exact sum of doubles.
    CountAndFloatSum(usize),
    /// Two fields: count, then the exact sum of integers as doubles, which they are while each stays within 2^53.
    CountAndExactSum {
        /// Position of the sum; its minimum and maximum follow.
        sum: usize,
    },
    /// One field: the exact variance of integers as doubles, under the same bound.
    ExactVariance {
        /// Position of the sum; its minimum, its maximum and the sum of squares follow.
        sum: usize,
    },
}

/// A recognised hot aggregation.
#[derive(Debug, Clone)]
pub struct HotPlan {
    /// What the kernel runs.
    pub aggregate: AggregatePlan,
    /// For each column of the plan, where it comes from.
    pub sources: Vec<ColumnSource>,
    /// One shape an aggregate, in output order.
    pub shapes: Vec<StateShape>,
    /// The scan, with this task's files.
    pub scan: FileScanConfig,
}

/// Recognises the aggregation, or says why a kernel cannot run it.
pub fn recognise(aggregate: &AggregateExec) -> Result<HotPlan, Decline> {
    let group = aggregate.group_expr();
    if group.has_grouping_set() || !group.is_single() {
        return Err(Decline::new("GROUPING SETS"));
    }
    if aggregate.limit_options().is_some() {
        return Err(Decline::new("a limit inside the aggregation"));
    }
    let mut input = input(aggregate.input())?;
    let schema = aggregate.input_schema();
    let mut keys = vec![];
    for (key, _) in group.expr() {
        keys.push(input.translator.key(key, &input.bindings, &schema)?);
    }
    let mut aggregates = vec![];
    let mut shapes = vec![];
    for (function, filter) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
        let filter = match filter {
            Some(filter) => Some(input.translator.translate(filter, &input.bindings, &schema)?.expr),
            None => None,
        };
        shapes.push(add_aggregate(function, filter, &mut input, &schema, &mut aggregates)?);
    }
    let Input { translator, mut filters, scan, .. } = input;
    let filter = match filters.len() {
        0 => None,
        1 => filters.pop(),
        _ => Some(Expr::And(filters)),
    };
    let (sources, columns) = translator.columns.into_iter().unzip();
    let mut plan = HotPlan { aggregate: AggregatePlan { columns, filter, keys, aggregates }, sources, shapes, scan };
    drop_unread_columns(&mut plan);
    Ok(plan)
}

/// What an operator reads.
struct Input {
    translator: Translator,
    /// Its columns.
    bindings: Vec<Binding>,
    /// Those of the scan's file schema.
    columns_of_files: Vec<Binding>,
    /// Predicates that every row has passed.
    filters: Vec<Expr>,
    scan: FileScanConfig,
}

impl Input {
    fn bind_all<'e>(&mut self, exprs: impl Iterator<Item = &'e Arc<dyn PhysicalExpr>>, schema: &Schema) -> Result<(), Decline> {
        let bindings = exprs.map(|expr| self.translator.bind(expr, &self.bindings, schema)).collect::<Result<_, _>>()?;
        self.bindings = bindings;
        Ok(())
    }

    fn filter(&mut self, predicate: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<(), Decline> {
        match self.translator.translate(predicate, &self.bindings, schema)?.expr {
            Expr::And(parts) => self.filters.extend(parts),
            other => self.filters.push(other),
        }
        Ok(())
    }
}

/// Walks down to the scan, then binds columns on the way back up.
fn input(plan: &Arc<dyn ExecutionPlan>) -> Result<Input, Decline> {
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        if filter.fetch().is_some() {
            return Err(Decline::new("a limit below the aggregation"));
        }
        let mut input = input(filter.input())?;
        input.filter(filter.predicate(), &filter.input().schema())?;
        if let Some(projection) = filter.projection().as_ref() {
            input.bindings = projection.iter().map(|&index| input.bindings[index].clone()).collect();
        }
        return Ok(input);
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let mut input = input(projection.input())?;
        input.bind_all(projection.expr().iter().map(|item| &item.expr), &projection.input().schema())?;
        return Ok(input);
    }
    let Some(leaf) = plan.downcast_ref::<DataSourceExec>() else {
        return Err(Decline::new(format!("the input is {}, not a scan", plan.name())));
    };
    let scan = leaf.data_source().downcast_ref::<FileScanConfig>().ok_or_else(|| Decline::new("the input is no file scan"))?;
    scan_input(scan)
}

fn scan_input(scan: &FileScanConfig) -> Result<Input, Decline> {
    let source = scan.file_source().downcast_ref::<ParquetSource>().ok_or_else(|| Decline::new("the files are not Parquet"))?;
    if scan.limit.is_some() {
        return Err(Decline::new("a limit below the aggregation"));
    }
    if !scan.table_partition_cols().is_empty() {
        return Err(Decline::new("hive partition columns"));
    }
    let file_schema = scan.file_schema().clone();
    let (translator, bindings) = Translator::new(file_schema.clone());
    let mut input = Input { translator, columns_of_files: bindings.clone(), bindings, filters: vec![], scan: scan.clone() };
    // With filter pushdown the predicate lives in the source instead of a FilterExec.
    if source.table_parquet_options().global.pushdown_filters
        && let Some(predicate) = source.filter()
    {
        input.filter(&predicate, &file_schema)?;
    }
    if let Some(projection) = source.projection() {
        input.bind_all(projection.iter().map(|item| &item.expr), &file_schema)?;
    }
    Ok(input)
}

fn add_aggregate(
    function: &AggregateFunctionExpr,
    filter: Option<Expr>,
    input: &mut Input,
    schema: &Schema,
    aggregates: &mut Vec<Aggregate>,
) -> Result<StateShape, Decline> {
    let name = function.fun().name().to_ascii_lowercase();
    if function.is_distinct() && !matches!(name.as_str(), "min" | "max") {
        return Err(Decline::new(format!("{name}(DISTINCT …)")));
    }
    if !function.order_bys().is_empty() {
        return Err(Decline::new(format!("{name} with ORDER BY")));
    }
    let arguments = function.expressions();
    let [argument] = arguments.as_slice() else {
        return Err(Decline::new(format!("{name} of {} arguments", arguments.len())));
    };
    let at = aggregates.len();
    let mut add = |function, argument| aggregates.push(Aggregate { function, argument, filter: filter.clone() });
    match name.as_str() {
        "count" => {
            match input.translator.translate(argument, &input.bindings, schema)?.expr {
                Expr::Literal(literal) if literal != Literal::Null => add(AggregateFunction::CountStar, None),
                argument => add(AggregateFunction::Count, Some(argument)),
            }
            Ok(StateShape::Count(at))
        }
        "sum" => {
            let (argument, kind) = number("SUM", argument, input, schema)?;
            add(AggregateFunction::Sum, Some(argument));
            Ok(if kind == ColumnType::Float64 { StateShape::FloatSum(at) } else { StateShape::Value(at) })
        }
        "min" | "max" => {
            let kind = if name == "min" { AggregateFunction::Min } else { AggregateFunction::Max };
            let data_type = argument.data_type(schema).map_err(|error| Decline::new(error.to_string()))?;
            let argument = match column_type(&data_type) {
                Ok(ColumnType::Utf8) => Expr::Column(input.translator.key(argument, &input.bindings, schema)?),
                _ => number(&name.to_uppercase(), argument, input, schema)?.0,
            };
            add(kind, Some(argument));
            Ok(StateShape::Value(at))
        }
        "avg" => {
            if let Some(integer) = integer_as_double(argument, input) {
                for function in [AggregateFunction::Sum, AggregateFunction::Min, AggregateFunction::Max] {
                    add(function, Some(integer.clone()));
                }
                return Ok(StateShape::CountAndExactSum { sum: at });
            }
            let (argument, kind) = number("AVG", argument, input, schema)?;
            add(AggregateFunction::Sum, Some(argument));
            Ok(if kind == ColumnType::Float64 { StateShape::CountAndFloatSum(at) } else { StateShape::CountAndSum(at) })
        }
        "var" | "var_pop" | "stddev" | "stddev_pop" => {
            let Some(integer) = integer_as_double(argument, input) else {
                return Err(Decline::new(format!("{name} over anything but integers ({argument})")));
            };
            for function in [AggregateFunction::Sum, AggregateFunction::Min, AggregateFunction::Max] {
                add(function, Some(integer.clone()));
            }
            // As wide as kernels get: a square outgrows the type of its root.
            let result = ColumnType::Decimal128 { precision: 38, scale: 0 };
            let (left, right) = (Box::new(integer.clone()), Box::new(integer));
            add(AggregateFunction::Sum, Some(Expr::Arithmetic { op: ArithmeticOp::Mul, left, right, result }));
            Ok(StateShape::ExactVariance { sum: at })
        }
        "bool_and" | "bool_or" => {
            let function = if name == "bool_and" { AggregateFunction::Min } else { AggregateFunction::Max };
            let argument = input.translator.translate(argument, &input.bindings, schema)?.expr;
            add(function, Some(truth(argument)));
            Ok(StateShape::Value(at))
        }
        other => Err(Decline::new(format!("the aggregate {other}"))),
    }
}

/// The integer behind an argument that is an integer as a double. What several aggregates ask for is a column of a projection below.
fn integer_as_double(argument: &Arc<dyn PhysicalExpr>, input: &mut Input) -> Option<Expr> {
    let source = over_files(argument, &input.bindings).ok()?;
    let cast = source.downcast_ref::<CastExpr>().filter(|cast| *cast.cast_type() == DataType::Float64)?;
    let schema = input.scan.file_schema().clone();
    let data_type = cast.expr().data_type(&schema).ok()?;
    let is_integer = matches!(column_type(&data_type), Ok(ColumnType::Int { .. }));
    is_integer
        .then(|| input.translator.translate(cast.expr(), &input.columns_of_files, &schema))
        .and_then(Result::ok)
        .map(|integer| integer.expr)
}

/// A predicate as an integer: 1, 0 or NULL.
fn truth(predicate: Expr) -> Expr {
    let integer = |value| Expr::Literal(Literal::Int(value));
    let is_false = Expr::Not(Box::new(predicate.clone()));
    Expr::Case { branches: vec![(predicate, integer(1)), (is_false, integer(0))], otherwise: None }
}

/// The argument of an aggregate over numbers, and what it is to kernels.
fn number(name: &str, argument: &Arc<dyn PhysicalExpr>, input: &mut Input, schema: &Schema) -> Result<(Expr, ColumnType), Decline> {
    let data_type = argument.data_type(schema).map_err(|error| Decline::new(error.to_string()))?;
    match column_type(&data_type) {
        Ok(kind) if kind.is_integer() || kind == ColumnType::Float64 => {
            Ok((input.translator.translate(argument, &input.bindings, schema)?.expr, kind))
        }
        _ => {
            let column = argument.downcast_ref::<Column>().map_or_else(|| argument.to_string(), |column| column.name().to_string());
            Err(Decline::new(format!("{name} over {data_type} ({column})")))
        }
    }
}

/// Keeps only the columns that some expression reads, and renumbers them.
fn drop_unread_columns(plan: &mut HotPlan) {
    let mut read = vec![false; plan.sources.len()];
    let mut mark = |column: usize| read[column] = true;
    for expr in plan_expressions(&mut plan.aggregate) {
        visit_columns(expr, &mut |column| mark(*column));
    }
    plan.aggregate.keys.iter().for_each(|&key| mark(key));
    let mut renumbered = vec![usize::MAX; read.len()];
    let mut next = 0;
    for (old, used) in read.iter().enumerate() {
        if *used {
            renumbered[old] = next;
            next += 1;
        }
    }
    for expr in plan_expressions(&mut plan.aggregate) {
        visit_columns(expr, &mut |column| *column = renumbered[*column]);
    }
    plan.aggregate.keys.iter_mut().for_each(|key| *key = renumbered[*key]);
    let mut keep = read.iter();
    plan.aggregate.columns.retain(|_| *keep.next().unwrap_or(&false));
    let mut keep = read.iter();
    plan.sources.retain(|_| *keep.next().unwrap_or(&false));
}

fn plan_expressions(plan: &mut AggregatePlan) -> impl Iterator<Item = &mut Expr> {
    let aggregates = plan.aggregates.iter_mut().flat_map(|aggregate| aggregate.argument.iter_mut().chain(aggregate.filter.iter_mut()));
    plan.filter.iter_mut().chain(aggregates)
}

fn visit_columns(expr: &mut Expr, visit: &mut dyn FnMut(&mut usize)) {
    match expr {
        Expr::Column(column) => visit(column),
        Expr::Literal(_) => {}
        Expr::Rescale { input, .. } | Expr::Negate { input, .. } | Expr::InList { input, .. } | Expr::Like { input, .. } => {
            visit_columns(input, visit)
        }
        Expr::IsNull(input) | Expr::IsNotNull(input) | Expr::Not(input) => visit_columns(input, visit),
        Expr::Arithmetic { left, right, .. } | Expr::Compare { left, right, .. } => {
            visit_columns(left, visit);
            visit_columns(right, visit);
        }
        Expr::Case { branches, otherwise } => {
            for (condition, value) in branches {
                visit_columns(condition, visit);
                visit_columns(value, visit);
            }
            if let Some(value) = otherwise {
                visit_columns(value, visit);
            }
        }
        Expr::And(parts) | Expr::Or(parts) => parts.iter_mut().for_each(|part| visit_columns(part, visit)),
    }
}
