//! Functions of the coordinator alone, gone before a plan travels. About the session: `current_user()`, `current_schema()`, `current_catalog()`, `version()` and their other names.

use crate::catalog::CATALOG_NAME;
use crate::statement::syntax::CAST_APART;
use crate::statement::times::AT_TIME_ZONE;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use std::sync::Arc;

/// The functions of one statement: each has one value, which plans hold from their first simplification on.
pub fn of_session(user: &str, schema: &str) -> Vec<ScalarUDF> {
    let version = concat!("Bowshot ", env!("CARGO_PKG_VERSION"));
    let values = [
        ("current_user", user),
        ("session_user", user),
        ("user", user),
        ("current_schema", schema),
        ("current_catalog", CATALOG_NAME),
        ("current_database", CATALOG_NAME),
        ("version", version),
    ];
    values
        .into_iter()
        .map(|(name, value)| ScalarUDF::from(OfSession { name, value: value.into(), signature: Signature::nullary(Volatility::Stable) }))
        .chain([ScalarUDF::from(Same { signature: Signature::any(2, Volatility::Immutable) })])
        .chain([ScalarUDF::from(AtTimeZone { signature: Signature::any(3, Volatility::Immutable) })])
        .collect()
}

/// Its first argument under another name, see [`CAST_APART`].
#[derive(Debug, PartialEq, Eq, Hash)]
struct Same {
    signature: Signature,
}

impl ScalarUDFImpl for Same {
    fn name(&self) -> &str {
        CAST_APART
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }
    fn simplify(&self, mut args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(ExprSimplifyResult::Simplified(args.swap_remove(0)))
    }
    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args.swap_remove(0))
    }
}

/// `AT TIME ZONE` until a plan has its types, see [`times`](crate::statement::times).
#[derive(Debug, PartialEq, Eq, Hash)]
struct AtTimeZone {
    signature: Signature,
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        AT_TIME_ZONE
    }
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let name = |at: usize| args.get(at).map(|arg| arg.schema_name().to_string()).unwrap_or_default();
        Ok(format!("{} AT TIME ZONE {}", name(0), name(1)))
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        internal_err!("AT TIME ZONE over {types:?} has a type for its arguments alone")
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let session = args.scalar_arguments.get(2).copied().flatten().and_then(|value| value.try_as_str()).flatten();
        let data_type = match args.arg_fields.first().map(|of| of.data_type()) {
            Some(DataType::Timestamp(unit, None)) => DataType::Timestamp(*unit, session.map(Into::into)),
            Some(DataType::Timestamp(unit, Some(_))) => DataType::Timestamp(*unit, None),
            _ => DataType::Timestamp(TimeUnit::Microsecond, None),
        };
        Ok(Arc::new(Field::new(self.name(), data_type, true)))
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("AT TIME ZONE is there yet in a plan that has its types")
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfSession {
    name: &'static str,
    value: String,
    signature: Signature,
}

impl ScalarUDFImpl for OfSession {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn simplify(&self, _: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(ExprSimplifyResult::Simplified(lit(self.value.clone())))
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(self.value.clone()))))
    }
}
