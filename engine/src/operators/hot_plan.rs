//! Recognises a hot aggregation: partial aggregate over projections and filters over one scan of Parquet files.
//!
//! ```text
//!   AggregateExec(Partial)            columns  = scan columns that are read, narrowed to chunks
//!     ProjectionExec*          ──►    filter   = conjunction of all filters
//!       FilterExec*                   keys     = columns grouped by
//!         DataSourceExec(Parquet)     aggregates, and how each partial state is made of them
//! ```
//!
//! COUNT(DISTINCT x) is no aggregate of a kernel: one more kernel groups the same rows by (keys…, x), and its groups become lists by key.

use super::float_values::is_one_nan;
use super::hot_columns::{KernelPlan, share_columns};
use super::translate::{Binding, ColumnSource, Translator, column_type, over_files};
use arrow::datatypes::{DataType, Schema};
use bowshot_kernels::{Aggregate, AggregateFunction, AggregatePlan, ArithmeticOp, ColumnType, Decline, Expr, Literal};
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::physical_plan::{FileScanConfig, FileSource, ParquetSource};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use std::sync::Arc;

/// How one aggregate's partial state is made of the aggregates of [`HotPlan::aggregate`] (positions in [`AggregatePlan::aggregates`]).
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
    /// One field: the list of distinct values. The position is one in [`HotPlan::distincts`].
    DistinctValues(usize),
}

/// A recognised hot aggregation.
#[derive(Debug, Clone)]
pub struct HotPlan {
    /// The groups, and what is not distinct.
    pub aggregate: KernelPlan,
    /// Groups of keys and one value: for each argument and filter of COUNT(DISTINCT …), those of several aggregates shared.
    pub distincts: Vec<KernelPlan>,
    /// The columns that kernels read: where each comes from, and what it is to them.
    pub sources: Vec<(ColumnSource, ColumnType)>,
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
    let (mut aggregates, mut distincts) = (vec![], vec![]);
    let mut shapes = vec![];
    for (function, filter) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
        let filter = match filter {
            Some(filter) => Some(input.translator.translate(filter, &input.bindings, &schema)?.expr),
            None => None,
        };
        shapes.push(match distinct_argument(function, &mut input, &schema)? {
            Some(column) => StateShape::DistinctValues(position_or_push(&mut distincts, (column, filter))),
            None => add_aggregate(function, filter, &mut input, &schema, &mut aggregates)?,
        });
    }
    let Input { translator, mut filters, scan, .. } = input;
    let filter = match filters.len() {
        0 => None,
        1 => filters.pop(),
        _ => Some(Expr::And(filters)),
    };
    let columns = translator.columns.iter().map(|(_, kind)| *kind).collect();
    let groups = AggregatePlan { columns, filter, keys, aggregates };
    let values = distincts.iter().map(|(column, filter)| groups.distinct_values(*column, filter.as_ref()));
    let mut distincts: Vec<KernelPlan> = values.map(KernelPlan::new).collect();
    let mut aggregate = KernelPlan::new(groups);
    let sources = share_columns(std::iter::once(&mut aggregate).chain(&mut distincts), translator.columns);
    Ok(HotPlan { aggregate, distincts, sources, shapes, scan })
}

/// The position of `item`, which is added where it is not known yet.
fn position_or_push<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    items.iter().position(|known| *known == item).unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    })
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
        let read = projection.iter().map(|item| without_one_nan(item.expr.clone())).collect::<Result<Vec<_>, Decline>>()?;
        input.bind_all(read.iter(), &file_schema)?;
    }
    Ok(input)
}

/// The column whose distinct values are counted; `None` of other aggregates.
fn distinct_argument(function: &AggregateFunctionExpr, input: &mut Input, schema: &Schema) -> Result<Option<usize>, Decline> {
    let name = function.fun().name().to_ascii_lowercase();
    // The least of distinct values is the least of all.
    if !function.is_distinct() || matches!(name.as_str(), "min" | "max") {
        return Ok(None);
    }
    let arguments = function.expressions();
    let [argument] = arguments.as_slice() else {
        return Err(Decline::new(format!("{name}(DISTINCT …) of {} arguments", arguments.len())));
    };
    if name != "count" {
        return Err(Decline::new(format!("{name}(DISTINCT …)")));
    }
    if !function.order_bys().is_empty() {
        return Err(Decline::new(format!("{name} with ORDER BY")));
    }
    if argument.data_type(schema).is_ok_and(|data_type| data_type.is_floating()) {
        return Err(Decline::new(format!("{name}(DISTINCT …) over doubles ({argument})")));
    }
    input.translator.key(argument, &input.bindings, schema).map(Some)
}

fn add_aggregate(
    function: &AggregateFunctionExpr,
    filter: Option<Expr>,
    input: &mut Input,
    schema: &Schema,
    aggregates: &mut Vec<Aggregate>,
) -> Result<StateShape, Decline> {
    let name = function.fun().name().to_ascii_lowercase();
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

/// What a scan reads, as kernels read it: they know one NaN.
fn without_one_nan(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, Decline> {
    let plain = expr.transform_up(|node| match node.downcast_ref::<ScalarFunctionExpr>() {
        Some(call) if is_one_nan(call.fun()) && call.args().len() == 1 => Ok(Transformed::yes(call.args()[0].clone())),
        _ => Ok(Transformed::no(node)),
    });
    plain.map(|plain| plain.data).map_err(|error| Decline::new(error.to_string()))
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
            match input.translator.translate(argument, &input.bindings, schema)?.expr {
                Expr::Literal(Literal::Null) => Err(Decline::new(format!("{name} of nothing but NULL"))),
                argument => Ok((argument, kind)),
            }
        }
        _ => {
            let column = argument.downcast_ref::<Column>().map_or_else(|| argument.to_string(), |column| column.name().to_string());
            Err(Decline::new(format!("{name} over {data_type} ({column})")))
        }
    }
}
