//! `range` and `generate_series`, of which a plan may want the number of rows alone: DataFusion's own give their column to whoever asks for none.

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Puts them in the place of DataFusion's.
pub fn register_series(state: &mut SessionState) {
    let functions: Vec<_> = state.table_functions().iter().map(|(name, function)| (name.clone(), function.function().clone())).collect();
    for (name, of) in functions {
        state.register_udtf(&name, Arc::new(Series { of }));
    }
}

#[derive(Debug)]
struct Series {
    of: Arc<dyn TableFunctionImpl>,
}

impl TableFunctionImpl for Series {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(SeriesTable { of: self.of.call_with_args(args)? }))
    }
}

#[derive(Debug)]
struct SeriesTable {
    of: Arc<dyn TableProvider>,
}

impl TableProvider for SeriesTable {
    fn schema(&self) -> SchemaRef {
        self.of.schema()
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
        if projection.is_none_or(|columns| !columns.is_empty()) {
            return self.of.scan(session, projection, filters, limit);
        }
        let whole = self.of.scan(session, None, filters, limit);
        let without = |plan: Result<Arc<dyn ExecutionPlan>>| -> Result<Arc<dyn ExecutionPlan>> {
            Ok(Arc::new(ProjectionExec::try_new(Vec::<ProjectionExpr>::new(), plan?)?))
        };
        whole.map(without).boxed()
    }
}
