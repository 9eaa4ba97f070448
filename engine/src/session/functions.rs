//! Functions of the coordinator alone, gone before a plan travels. About the session: `current_user()`, `current_schema()`, `current_catalog()`, `version()` and their other names.

use crate::catalog::CATALOG_NAME;
use crate::statement::repeated_names::CAST_APART;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit};

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
