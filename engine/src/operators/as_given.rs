//! Functions that give what they are given: rules of the planner know nothing of their results, be it true or not.

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use std::sync::{Arc, LazyLock};

/// The functions, to register on coordinators and workers alike.
pub fn as_given_functions() -> [Arc<ScalarUDF>; 2] {
    [function(Step::AsGiven), function(Step::Varying)]
}

/// The same values, of whose bounds nobody knows.
pub fn as_given(of: Expr) -> Expr {
    function(Step::AsGiven).call(vec![of])
}

/// The same values, which nobody takes for one constant.
pub fn varying(of: Arc<dyn PhysicalExpr>, schema: &Schema, config: &Arc<ConfigOptions>) -> Result<Arc<dyn PhysicalExpr>> {
    let varying = call(Step::Varying, vec![], schema, config)?;
    call(Step::AsGiven, vec![of, varying], schema, config)
}

fn call(step: Step, args: Vec<Arc<dyn PhysicalExpr>>, schema: &Schema, config: &Arc<ConfigOptions>) -> Result<Arc<dyn PhysicalExpr>> {
    Ok(Arc::new(ScalarFunctionExpr::try_new(function(step), args, schema, config.clone())?))
}

fn function(step: Step) -> Arc<ScalarUDF> {
    static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 2]> = LazyLock::new(|| {
        [(Step::AsGiven, Volatility::Immutable), (Step::Varying, Volatility::Volatile)]
            .map(|(step, volatility)| Arc::new(ScalarUDF::from(Given { step, signature: Signature::user_defined(volatility) })))
    });
    FUNCTIONS[step as usize].clone()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// `as_given(x)` and `as_given(x, varying())`: x.
    AsGiven,
    /// `varying()`: DataFusion takes what has no argument and is no literal for something that varies.
    Varying,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Given {
    step: Step,
    signature: Signature,
}

impl ScalarUDFImpl for Given {
    fn name(&self) -> &str {
        match self.step {
            Step::AsGiven => "as_given",
            Step::Varying => "varying",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Boolean))
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(args.arg_fields.first().cloned().unwrap_or_else(|| Arc::new(Field::new(self.name(), DataType::Boolean, true))))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.step {
            Step::AsGiven => match args.args.into_iter().next() {
                Some(given) => Ok(given),
                None => internal_err!("as_given is given a value"),
            },
            Step::Varying => Ok(ColumnarValue::Scalar(ScalarValue::Boolean(None))),
        }
    }
}
