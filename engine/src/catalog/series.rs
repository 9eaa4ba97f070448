//! `range` and `generate_series`. DataFusion's own give their column to whoever asks for none, and know times in nanoseconds alone.

use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::datasource::TableType;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::expressions::{CastExpr, Column};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Puts them in the place of DataFusion's.
pub fn register_series(state: &mut SessionState) {
    let functions: Vec<_> = state.table_functions().iter().map(|(name, function)| (name.clone(), function.function().clone())).collect();
    for (name, of) in functions {
        state.register_udtf(&name, Arc::new(Series { name: name.clone(), of }));
    }
}

#[derive(Debug)]
struct Series {
    name: String,
    of: Arc<dyn TableFunctionImpl>,
}

impl TableFunctionImpl for Series {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        if let Some((at, open)) = args.exprs().iter().enumerate().find(|(_, argument)| argument.as_literal().is_none()) {
            return plan_err!("{} takes constants; argument {}, {open}, is not one", self.name, at + 1);
        }
        let unit = unit_of(args.exprs());
        let of_its_kind = args
            .exprs()
            .iter()
            .enumerate()
            .map(|(at, argument)| as_datafusion_takes_it(at, argument, unit.is_some()))
            .collect::<Result<Vec<_>>>()?;
        let of = self.of.call_with_args(TableFunctionArgs::new(&of_its_kind, args.session()))?;
        let schema = match (unit, of.schema().field(0).data_type()) {
            (Some(TimeUnit::Microsecond), DataType::Timestamp(_, zone)) => {
                let field = of.schema().field(0).clone().with_data_type(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()));
                Arc::new(Schema::new(vec![field]))
            }
            _ => of.schema(),
        };
        Ok(Arc::new(SeriesTable { of, schema }))
    }
}

/// The unit of a series of times: nanoseconds where an argument has digits below the microsecond.
fn unit_of(arguments: &[Expr]) -> Option<TimeUnit> {
    let scalars = || arguments.iter().filter_map(Expr::as_literal);
    let times = scalars().any(|scalar| matches!(scalar.data_type(), DataType::Timestamp(..) | DataType::Date32));
    let finest = |scalar: &ScalarValue| match scalar {
        ScalarValue::TimestampNanosecond(..) => true,
        ScalarValue::IntervalMonthDayNano(Some(step)) => step.nanoseconds % 1000 != 0,
        _ => false,
    };
    times.then(|| if scalars().any(finest) { TimeUnit::Nanosecond } else { TimeUnit::Microsecond })
}

/// The argument as BIGINT, or as a time in nanoseconds.
fn as_datafusion_takes_it(at: usize, argument: &Expr, of_times: bool) -> Result<Expr> {
    let Some(scalar) = argument.as_literal() else { return Ok(argument.clone()) };
    let wanted = match scalar.data_type() {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Nanosecond, zone),
        DataType::Date32 if of_times => DataType::Timestamp(TimeUnit::Nanosecond, None),
        DataType::Null if of_times && at == 0 => DataType::Timestamp(TimeUnit::Nanosecond, None),
        kind if kind.is_integer() => DataType::Int64,
        _ => return Ok(argument.clone()),
    };
    match scalar.cast_to(&wanted) {
        Ok(value) => Ok(lit(value)),
        Err(_) => plan_err!("a series of times reaches from 1677-09-21 to 2262-04-11; {scalar} is beyond"),
    }
}

#[derive(Debug)]
struct SeriesTable {
    of: Arc<dyn TableProvider>,
    schema: SchemaRef,
}

impl TableProvider for SeriesTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        self.of.table_type()
    }

    fn scan<'a, 'b, 'c, 'd, 'future>(
        &'a self,
        session: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'future, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'future,
        'b: 'future,
        'c: 'future,
        'd: 'future,
        Self: 'future,
    {
        if projection.is_none_or(|columns| !columns.is_empty()) && self.schema == self.of.schema() {
            return self.of.scan(session, projection, filters, limit);
        }
        let schema = self.schema.clone();
        let columns = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let in_its_type = move |plan: Result<Arc<dyn ExecutionPlan>>| -> Result<Arc<dyn ExecutionPlan>> {
            let columns = columns.iter().map(|&at| {
                let field = schema.field(at);
                let cast = CastExpr::new(Arc::new(Column::new(field.name(), at)), field.data_type().clone(), None);
                ProjectionExpr::new(Arc::new(cast), field.name())
            });
            Ok(Arc::new(ProjectionExec::try_new(columns, plan?)?))
        };
        self.of.scan(session, None, filters, limit).map(in_its_type).boxed()
    }
}
