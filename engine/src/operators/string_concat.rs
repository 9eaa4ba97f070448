//! `a || b || c` over texts as one function: it makes more than it is given, and finds memory for that [as functions do](super::bounded_functions).
//! A chain is one call, and each byte is copied once.

use arrow::array::Array;
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::functions::string;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::{Arc, LazyLock};

/// Name of the function.
const NAME: &str = "string_concat";

/// The function, to register on coordinators and workers alike.
pub fn string_concat() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::from(StringConcat { signature: Signature::variadic_any(Volatility::Immutable) })));
    FUNCTION.clone()
}

/// The call that stands for `||` of texts; `None` for anything else.
pub fn as_call(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) = expr else { return Ok(None) };
    let types = [left.get_type(schema)?, right.get_type(schema)?];
    if !types.iter().all(DataType::is_string) {
        return Ok(None);
    }
    let mut parts = match left.as_ref() {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == NAME => args.clone(),
        other => vec![other.clone()],
    };
    parts.push(right.as_ref().clone());
    Ok(Some(string_concat().call(parts)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct StringConcat {
    signature: Signature,
}

impl ScalarUDFImpl for StringConcat {
    fn name(&self) -> &str {
        NAME
    }

    /// As the operator would be called: columns keep their names.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|part| part.schema_name().to_string()).collect::<Vec<_>>().join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.iter().find(|data_type| !data_type.is_string()) {
            Some(other) => plan_err!("|| of texts takes no {other}"),
            None if types.contains(&DataType::Utf8View) => Ok(DataType::Utf8View),
            None if types.contains(&DataType::LargeUtf8) => Ok(DataType::LargeUtf8),
            None => Ok(DataType::Utf8),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    /// `concat` takes a NULL for an empty text; here all is NULL then.
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = args.return_field.data_type().clone();
        let is_null = |value: &ColumnarValue| matches!(value, ColumnarValue::Scalar(value) if value.is_null());
        if args.args.iter().any(is_null) {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(&result)?));
        }
        let nulls = args.args.iter().filter_map(|value| match value {
            ColumnarValue::Array(array) => array.logical_nulls(),
            ColumnarValue::Scalar(_) => None,
        });
        let nulls = nulls.fold(None, |all, nulls| NullBuffer::union(all.as_ref(), Some(&nulls)));
        let array = match string::concat().invoke_with_args(args)? {
            ColumnarValue::Scalar(value) => return Ok(ColumnarValue::Scalar(value.cast_to(&result)?)),
            ColumnarValue::Array(array) => array,
        };
        let array = match nulls {
            Some(nulls) => arrow::array::make_array(array.to_data().into_builder().nulls(Some(nulls)).build()?),
            None => array,
        };
        Ok(ColumnarValue::Array(if array.data_type() == &result { array } else { cast(&array, &result)? }))
    }
}
