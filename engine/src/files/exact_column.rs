//! A column of a file in the type that its table has for it, as an expression of a scan.

use super::exact::exactly;
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Fails on a value that has no equal in the table's type. Scans prune nothing by it: only a cast that holds all values keeps their bounds.
#[derive(Debug, Clone)]
pub struct ExactColumn {
    column: Arc<dyn PhysicalExpr>,
    wanted: FieldRef,
    /// Name of the file, for errors.
    file: Arc<str>,
}

impl ExactColumn {
    /// `column` of `file` as the table's column `wanted`.
    pub fn new(column: Arc<dyn PhysicalExpr>, wanted: FieldRef, file: Arc<str>) -> Self {
        Self { column, wanted, file }
    }
}

impl PartialEq for ExactColumn {
    fn eq(&self, other: &Self) -> bool {
        self.column.eq(&other.column) && self.wanted == other.wanted
    }
}

impl Eq for ExactColumn {}

impl Hash for ExactColumn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.column.hash(state);
        self.wanted.hash(state);
    }
}

impl fmt::Display for ExactColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} exactly as {}", self.column, self.wanted.data_type())
    }
}

impl PhysicalExpr for ExactColumn {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.wanted.data_type().clone())
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(self.wanted.is_nullable())
    }

    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(self.wanted.clone())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let array = self.column.evaluate(batch)?.into_array(batch.num_rows())?;
        let exact = exactly(&array, self.wanted.data_type());
        exact.map(ColumnarValue::Array).map_err(|why| no_equal(&self.file, self.wanted.name(), &why).into())
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.column]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let column = children.pop().unwrap_or_else(|| self.column.clone());
        Ok(Arc::new(Self { column, ..self.as_ref().clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.column.fmt_sql(f)
    }
}

/// A value of a file that the table's type has no equal for.
pub fn no_equal(file: &str, column: &str, why: &str) -> crate::error::Error {
    crate::error::Error::user(format!(
        "column {column} of file {file}: {why}, the table's type; give the column another type in the column list of CREATE EXTERNAL TABLE, or put the file into another folder"
    ))
}
