//! Recognises a hot aggregation: partial aggregate over projections and filters over one scan of Parquet files.
//!
//! ```text
//!   AggregateExec(Partial)            columns  = scan columns that are read, narrowed to chunks
//!     ProjectionExec*          ──►    filter   = conjunction of all filters
//!       FilterExec*                   keys     = columns grouped by
//!         DataSourceExec(Parquet)     aggregates, and how each partial state is made of them
//! ```

use super::translate::{Bindings, Translated, column_type, translate};
use arrow::datatypes::{DataType, Schema};
use bowshot_kernels::{Aggregate, AggregateFunction, AggregatePlan, ColumnType, Decline, Expr, Literal};
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
    /// Two fields: count, then the exact sum of integers as doubles, which they are while each stays within 2^53.
    CountAndExactSum {
        /// Position of the sum; its minimum and maximum follow.
        sum: usize,
    },
}

/// A recognised hot aggregation.
#[derive(Debug, Clone)]
pub struct HotPlan {
    /// What the kernel runs.
    pub aggregate: AggregatePlan,
    /// For each column of the plan, its position in the file's schema.
    pub file_columns: Vec<usize>,
    /// One shape an aggregate, in output order.
    pub shapes: Vec<StateShape>,
    /// The scan, with this task's files.
    pub scan: FileScanConfig,
}

/// Columns of the scan that the plan reads so far.
struct ScanColumns<'a> {
    schema: &'a Schema,
    read: Vec<usize>,
    types: Vec<ColumnType>,
}

impl ScanColumns<'_> {
    fn bind_all(&mut self) -> Bindings {
        (0..self.schema.fields().len())
            .map(|index| {
                let data_type = self.schema.field(index).data_type().clone();
                let kind = column_type(&data_type)?;
                self.read.push(index);
                self.types.push(kind);
                Ok(Translated { expr: Expr::Column(self.read.len() - 1), data_type })
            })
            .collect()
    }
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
    let mut filters = vec![];
    let (bindings, scan, file_columns, types) = input_bindings(aggregate.input(), &mut filters)?;
    let schema = aggregate.input_schema();
    let mut keys = vec![];
    for (key, _) in group.expr() {
        match translate(key, &bindings, &schema)?.expr {
            Expr::Column(column) => keys.push(column),
            _ => return Err(Decline::new(format!("grouping by the expression {key}"))),
        }
    }
    let mut aggregates = vec![];
    let mut shapes = vec![];
    for (function, filter) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
        let filter = match filter {
            Some(filter) => Some(translate(filter, &bindings, &schema)?.expr),
            None => None,
        };
        shapes.push(add_aggregate(function, filter, &bindings, &schema, &mut aggregates)?);
    }
    let filter = match filters.len() {
        0 => None,
        1 => filters.pop(),
        _ => Some(Expr::And(filters)),
    };
    let mut plan = HotPlan { aggregate: AggregatePlan { columns: types, filter, keys, aggregates }, file_columns, shapes, scan };
    drop_unread_columns(&mut plan);
    Ok(plan)
}

type Input = (Bindings, FileScanConfig, Vec<usize>, Vec<ColumnType>);

/// Walks down to the scan, then binds columns on the way back up.
fn input_bindings(plan: &Arc<dyn ExecutionPlan>, filters: &mut Vec<Expr>) -> Result<Input, Decline> {
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        if filter.fetch().is_some() {
            return Err(Decline::new("a limit below the aggregation"));
        }
        let (bindings, scan, columns, types) = input_bindings(filter.input(), filters)?;
        match translate(filter.predicate(), &bindings, &filter.input().schema())?.expr {
            Expr::And(parts) => filters.extend(parts),
            other => filters.push(other),
        }
        let bindings = match filter.projection().as_ref() {
            Some(projection) => projection.iter().map(|&index| bindings[index].clone()).collect(),
            None => bindings,
        };
        return Ok((bindings, scan, columns, types));
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let (bindings, scan, columns, types) = input_bindings(projection.input(), filters)?;
        let schema = projection.input().schema();
        let bindings = projection.expr().iter().map(|item| translate(&item.expr, &bindings, &schema)).collect();
        return Ok((bindings, scan, columns, types));
    }
    let Some(leaf) = plan.downcast_ref::<DataSourceExec>() else {
        return Err(Decline::new(format!("the input is {}, not a scan", plan.name())));
    };
    let scan = leaf.data_source().downcast_ref::<FileScanConfig>().ok_or_else(|| Decline::new("the input is no file scan"))?;
    bind_scan(scan, filters)
}

fn bind_scan(scan: &FileScanConfig, filters: &mut Vec<Expr>) -> Result<Input, Decline> {
    let source = scan.file_source().downcast_ref::<ParquetSource>().ok_or_else(|| Decline::new("the files are not Parquet"))?;
    if scan.limit.is_some() {
        return Err(Decline::new("a limit below the aggregation"));
    }
    if !scan.table_partition_cols().is_empty() {
        return Err(Decline::new("hive partition columns"));
    }
    let file_schema = scan.file_schema().clone();
    let mut columns = ScanColumns { schema: &file_schema, read: vec![], types: vec![] };
    let scanned = columns.bind_all();
    // With filter pushdown the predicate lives in the source instead of a FilterExec.
    if source.table_parquet_options().global.pushdown_filters
        && let Some(predicate) = source.filter()
    {
        filters.push(translate(&predicate, &scanned, &file_schema)?.expr);
    }
    let bindings = match source.projection() {
        Some(projection) => projection.iter().map(|item| translate(&item.expr, &scanned, &file_schema)).collect(),
        None => scanned,
    };
    Ok((bindings, scan.clone(), columns.read, columns.types))
}

fn add_aggregate(
    function: &AggregateFunctionExpr,
    filter: Option<Expr>,
    bindings: &Bindings,
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
            match translate_any(argument, bindings, schema)? {
                Expr::Literal(literal) if literal != Literal::Null => add(AggregateFunction::CountStar, None),
                argument => add(AggregateFunction::Count, Some(argument)),
            }
            Ok(StateShape::Count(at))
        }
        "sum" => {
            add(AggregateFunction::Sum, Some(integer_argument("SUM", argument, bindings, schema)?));
            Ok(StateShape::Value(at))
        }
        "min" | "max" => {
            let kind = if name == "min" { AggregateFunction::Min } else { AggregateFunction::Max };
            add(kind, Some(integer_argument(&name.to_uppercase(), argument, bindings, schema)?));
            Ok(StateShape::Value(at))
        }
        "avg" => {
            if let Some(cast) = argument.downcast_ref::<CastExpr>()
                && cast.cast_type() == &DataType::Float64
            {
                let inner = integer_argument("AVG", cast.expr(), bindings, schema)?;
                let inner_type = cast.expr().data_type(schema).map_err(|error| Decline::new(error.to_string()))?;
                if !matches!(column_type(&inner_type)?, ColumnType::Int { .. }) {
                    return Err(Decline::new(format!("AVG over {inner_type} as Float64")));
                }
                add(AggregateFunction::Sum, Some(inner.clone()));
                add(AggregateFunction::Min, Some(inner.clone()));
                add(AggregateFunction::Max, Some(inner));
                return Ok(StateShape::CountAndExactSum { sum: at });
            }
            add(AggregateFunction::Sum, Some(integer_argument("AVG", argument, bindings, schema)?));
            Ok(StateShape::CountAndSum(at))
        }
        other => Err(Decline::new(format!("the aggregate {other}"))),
    }
}

fn translate_any(argument: &Arc<dyn PhysicalExpr>, bindings: &Bindings, schema: &Schema) -> Result<Expr, Decline> {
    Ok(translate(argument, bindings, schema)?.expr)
}

fn integer_argument(name: &str, argument: &Arc<dyn PhysicalExpr>, bindings: &Bindings, schema: &Schema) -> Result<Expr, Decline> {
    let data_type = argument.data_type(schema).map_err(|error| Decline::new(error.to_string()))?;
    match column_type(&data_type) {
        Ok(kind) if kind.is_integer() => translate_any(argument, bindings, schema),
        _ => {
            let column = argument.downcast_ref::<Column>().map_or_else(|| argument.to_string(), |column| column.name().to_string());
            Err(Decline::new(format!("{name} over {data_type} ({column})")))
        }
    }
}

/// Keeps only the columns that some expression reads, and renumbers them.
fn drop_unread_columns(plan: &mut HotPlan) {
    let mut read = vec![false; plan.file_columns.len()];
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
    plan.file_columns.retain(|_| *keep.next().unwrap_or(&false));
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
        Expr::And(parts) | Expr::Or(parts) => parts.iter_mut().for_each(|part| visit_columns(part, visit)),
    }
}
