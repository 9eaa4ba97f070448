//! CAST of doubles AS DECIMAL by their digits: `1e22` is 10000000000000000000000, and 959.6 is 959.6 in any number of digits. Arrow multiplies by a
//! power of ten, which rounds where a double has no place for the product.
//!
//! The digits are the fewest that mean the double, as text has them. Postgres takes the first 15: it has 0.3 for `0.1 + 0.2` in doubles.

use crate::sql_types::declared_type;
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TryCast,
    Volatility, lit,
};
use std::fmt;
use std::sync::{Arc, LazyLock};

/// The functions, to register on coordinators and workers alike.
pub fn double_decimals() -> [Arc<ScalarUDF>; 2] {
    [function(false), function(true)]
}

fn function(tries: bool) -> Arc<ScalarUDF> {
    static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 2]> = LazyLock::new(|| {
        [false, true].map(|tries| Arc::new(ScalarUDF::from(OfDigits { tries, signature: Signature::user_defined(Volatility::Immutable) })))
    });
    FUNCTIONS[usize::from(tries)].clone()
}

/// The function for a cast of a double AS DECIMAL; `None` for other expressions.
pub fn by_digits(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let (of, to, tries) = match expr {
        Expr::Cast(Cast { expr, field }) => (expr, field.data_type(), false),
        Expr::TryCast(TryCast { expr, field }) => (expr, field.data_type(), true),
        _ => return Ok(None),
    };
    if !to.is_decimal() || !matches!(of.get_type(schema)?, DataType::Float32 | DataType::Float64) {
        return Ok(None);
    }
    Ok(Some(function(tries).call(vec![of.as_ref().clone(), lit(ScalarValue::try_from(to)?)])))
}

/// `decimal_of_double(x, NULL)`: x in the type of the NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfDigits {
    /// What has no place there is NULL.
    tries: bool,
    signature: Signature,
}

impl ScalarUDFImpl for OfDigits {
    fn name(&self) -> &str {
        if self.tries { "try_decimal_of_double" } else { "decimal_of_double" }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [DataType::Float32 | DataType::Float64, to] if to.is_decimal() => Ok(types.to_vec()),
            _ => plan_err!("{} takes a double and a decimal", self.name()),
        }
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = self.tries || args.arg_fields[0].is_nullable();
        Ok(Arc::new(Field::new(self.name(), args.arg_fields[1].data_type().clone(), nullable)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let to = args.return_field.data_type();
        match args.args.first() {
            Some(ColumnarValue::Scalar(of)) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&self.decimals(&of.to_array()?, to)?, 0)?))
            }
            Some(ColumnarValue::Array(of)) => Ok(ColumnarValue::Array(self.decimals(of, to)?)),
            None => internal_err!("{} has no argument", self.name()),
        }
    }
}

impl OfDigits {
    fn decimals(&self, of: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
        match of.data_type() {
            DataType::Float32 => self.of_values(of.as_primitive::<Float32Type>().iter(), to),
            DataType::Float64 => self.of_values(of.as_primitive::<Float64Type>().iter(), to),
            other => internal_err!("{} of {other}", self.name()),
        }
    }

    fn of_values<F: fmt::Display + fmt::LowerExp + Copy>(
        &self,
        values: impl Iterator<Item = Option<F>> + Clone,
        to: &DataType,
    ) -> Result<ArrayRef> {
        let texts: ArrayRef = Arc::new(values.clone().map(|value| value.map(|value| value.to_string())).collect::<StringArray>());
        let decimals = cast_with_options(&texts, to, &CastOptions { safe: true, ..CastOptions::default() })?;
        if !self.tries && decimals.null_count() > texts.null_count() {
            let mut beyond = values.enumerate().filter_map(|(row, value)| value.filter(|_| decimals.is_null(row)));
            if let Some(value) = beyond.next() {
                let value = format!("{value:e}");
                // What has no exponent is said without.
                let value = value.strip_suffix("e0").unwrap_or(&value);
                return exec_err!("{value} is beyond {}: CAST to fewer digits after the point, or AS DOUBLE", declared_type(to));
            }
        }
        Ok(decimals)
    }
}
