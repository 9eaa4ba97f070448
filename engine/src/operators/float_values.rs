//! Doubles as SQL has them: one NaN, the nearest integer, text.
//!
//! Arrow orders doubles bit by bit, so that a NaN whose sign is set is less than everything, and one with another payload is another value. Processors
//! make such NaNs: of `0.0 / 0.0`, of the difference of infinities. [`one_nan`] makes them the NaN that is greater than everything, where
//! expressions make doubles; readers do so where files hold them.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use datafusion::common::utils::normalize_float_zero;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{
    BinaryExpr, Case, Cast, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TryCast,
    Volatility, lit,
};
use std::fmt;
use std::sync::{Arc, LazyLock};

/// What a function here does with a double.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// Any NaN becomes the one.
    OneNan,
    /// The nearest integer, the even one of two.
    Nearest,
    /// -0 becomes 0, to be sorted beside it.
    OneZero,
    /// A double as a REAL, if it is not beyond them.
    Real,
    /// A double as text.
    Text,
}

const STEPS: [Step; 5] = [Step::OneNan, Step::Nearest, Step::OneZero, Step::Real, Step::Text];

/// The functions, to register on coordinators and workers alike.
pub fn float_values() -> impl Iterator<Item = Arc<ScalarUDF>> {
    STEPS.into_iter().map(function)
}

fn function(step: Step) -> Arc<ScalarUDF> {
    static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 5]> = LazyLock::new(|| {
        STEPS.map(|step| Arc::new(ScalarUDF::from(OfFloats { step, signature: Signature::any(1, Volatility::Immutable) })))
    });
    FUNCTIONS[step as usize].clone()
}

/// The expression with one NaN.
pub fn one_nan(of: Expr) -> Expr {
    function(Step::OneNan).call(vec![of])
}

/// The function that [`one_nan`] calls.
pub fn one_nan_function() -> Arc<ScalarUDF> {
    function(Step::OneNan)
}

/// Whether a function gives its argument, but for the sign and payload of a NaN.
pub fn is_one_nan(function: &ScalarUDF) -> bool {
    let inner: &dyn std::any::Any = function.inner().as_ref();
    inner.downcast_ref::<OfFloats>().is_some_and(|known| known.step == Step::OneNan)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfFloats {
    step: Step,
    signature: Signature,
}

impl ScalarUDFImpl for OfFloats {
    fn name(&self) -> &str {
        match self.step {
            Step::OneNan => "one_nan",
            Step::Nearest => "nearest_integer",
            Step::OneZero => "one_zero",
            Step::Real => "to_real",
            Step::Text => "float_text",
        }
    }

    /// As the argument would be called: columns keep their names.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map_or_else(|| self.name().into(), |of| of.schema_name().to_string()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match self.step {
            Step::Real => DataType::Float32,
            Step::Text => DataType::Utf8,
            Step::OneNan | Step::Nearest | Step::OneZero => types[0].clone(),
        })
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [of] = args.args.as_slice() else { return internal_err!("{} of {} arguments", self.name(), args.args.len()) };
        Ok(match of {
            ColumnarValue::Scalar(of) => {
                let value = self.step.of_array(&of.to_array()?)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&value, 0)?)
            }
            ColumnarValue::Array(of) => ColumnarValue::Array(self.step.of_array(of)?),
        })
    }
}

impl Step {
    fn of_array(self, of: &ArrayRef) -> Result<ArrayRef> {
        Ok(match (self, of.data_type()) {
            (Self::OneNan, _) => with_one_nan(of),
            (Self::Nearest, DataType::Float64) => Arc::new(of.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even)),
            (Self::Nearest, DataType::Float32) => Arc::new(of.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even)),
            (Self::OneZero, _) => normalize_float_zero(of),
            (Self::Real, DataType::Float64) => {
                let reals = of.as_primitive::<Float64Type>().try_unary::<_, Float32Type, DataFusionError>(|value| match value as f32 {
                    real if real.is_infinite() && value.is_finite() => exec_err!("{value:e} is beyond REAL: CAST it AS DOUBLE"),
                    real => Ok(real),
                });
                Arc::new(reals?)
            }
            (Self::Text, DataType::Float64) => Arc::new(texts(of.as_primitive::<Float64Type>().iter().map(|value| value.map(text_of)))),
            (Self::Text, DataType::Float32) => Arc::new(texts(of.as_primitive::<Float32Type>().iter().map(|value| value.map(text_of)))),
            (Self::Text, _) => cast(of, &DataType::Utf8)?,
            (Self::Nearest | Self::Real, _) => of.clone(),
        })
    }
}

fn texts(values: impl Iterator<Item = Option<String>>) -> StringArray {
    values.collect()
}

/// The fewest digits that mean the number, with an exponent as Postgres and DuckDB write it: from 1e+16 on, and below 0.0001.
fn text_of<F: fmt::LowerExp + fmt::Display + Copy>(value: F) -> String {
    let short = format!("{value:e}");
    let Some((digits, exponent)) = short.split_once('e') else { return short };
    match exponent.parse::<i32>() {
        Ok(exponent @ (..-4 | 16..)) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => {
            let plain = value.to_string();
            if plain.contains('.') { plain } else { plain + ".0" }
        }
    }
}

/// The array with one NaN; the array itself where it has no other.
pub fn with_one_nan(of: &ArrayRef) -> ArrayRef {
    match of.data_type() {
        DataType::Float64 => {
            let is_other = |value: f64| value.is_nan() & (value.to_bits() != f64::NAN.to_bits());
            replaced::<Float64Type>(of, is_other, f64::NAN)
        }
        DataType::Float32 => {
            let is_other = |value: f32| value.is_nan() & (value.to_bits() != f32::NAN.to_bits());
            replaced::<Float32Type>(of, is_other, f32::NAN)
        }
        DataType::Float16 => {
            let nan = <Float16Type as ArrowPrimitiveType>::Native::NAN;
            replaced::<Float16Type>(of, |value| value.is_nan() & (value.to_bits() != nan.to_bits()), nan)
        }
        _ => of.clone(),
    }
}

fn replaced<T: ArrowPrimitiveType>(of: &ArrayRef, is_other: impl Fn(T::Native) -> bool, nan: T::Native) -> ArrayRef {
    let values: &PrimitiveArray<T> = of.as_primitive();
    // Without a way out of the loop it runs over many values at once.
    if !values.values().iter().fold(false, |found, value| found | is_other(*value)) {
        return of.clone();
    }
    Arc::new(values.unary::<_, T>(|value| if is_other(value) { nan } else { value }))
}

/// Functions that give a double they were given, or none.
const GIVE_ARGUMENTS: [&str; 8] = ["abs", "coalesce", "greatest", "ifnull", "least", "nullif", "nvl", "nvl2"];

/// The same expression with SQL's doubles: one NaN; 0 and -0 equal in NULLIF and CASE; casts to integers that round.
pub fn as_sql_has_doubles(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let is_float = |expr: &Expr| expr.get_type(schema).is_ok_and(|data_type| data_type.is_floating());
    let call = |step: Step, of: Expr| Some(function(step).call(vec![of]));
    Ok(match expr {
        Expr::Literal(value, metadata) if value.data_type().is_floating() && !value.is_null() => {
            let array = value.to_array()?;
            let one = with_one_nan(&array);
            if Arc::ptr_eq(&array, &one) { None } else { Some(Expr::Literal(ScalarValue::try_from_array(&one, 0)?, metadata.clone())) }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_arithmetic(*op) && is_float(expr) => {
            let side = |side: &Expr| Box::new(calculated(side).clone());
            call(Step::OneNan, Expr::BinaryExpr(BinaryExpr { left: side(left), op: *op, right: side(right) }))
        }
        Expr::Negative(of) if is_float(of) => call(Step::OneNan, Expr::Negative(Box::new(calculated(of).clone()))),
        Expr::Cast(Cast { expr: of, field }) if field.data_type().is_floating() && of.get_type(schema)?.is_string() => {
            call(Step::OneNan, expr.clone())
        }
        Expr::TryCast(TryCast { expr: of, field }) if field.data_type().is_floating() && of.get_type(schema)?.is_string() => {
            call(Step::OneNan, expr.clone())
        }
        Expr::Cast(Cast { expr: of, field }) if field.data_type().is_string() && is_float(of) => {
            Some(Expr::Cast(Cast::new_from_field(Box::new(function(Step::Text).call(vec![of.as_ref().clone()])), field.clone())))
        }
        Expr::TryCast(TryCast { expr: of, field }) if field.data_type().is_string() && is_float(of) => {
            Some(Expr::TryCast(TryCast::new_from_field(Box::new(function(Step::Text).call(vec![of.as_ref().clone()])), field.clone())))
        }
        Expr::Cast(Cast { expr: of, field }) if field.data_type() == &DataType::Float32 && of.get_type(schema)? == DataType::Float64 => {
            call(Step::Real, of.as_ref().clone())
        }
        Expr::Cast(Cast { expr: of, field }) if field.data_type().is_integer() && is_float(of) && !is_nearest(of) => {
            let nearest = function(Step::Nearest).call(vec![of.as_ref().clone()]);
            Some(Expr::Cast(Cast::new_from_field(Box::new(nearest), field.clone())))
        }
        Expr::TryCast(TryCast { expr: of, field }) if field.data_type().is_integer() && is_float(of) && !is_nearest(of) => {
            let nearest = function(Step::Nearest).call(vec![of.as_ref().clone()]);
            Some(Expr::TryCast(TryCast::new_from_field(Box::new(nearest), field.clone())))
        }
        // A set of constants is one of bits.
        Expr::InList(list) if is_float(&list.expr) && !list.expr.is_volatile() => {
            let expr = sorted_as_sql(list.expr.as_ref().clone(), schema)?;
            let items = list.list.iter().map(|item| sorted_as_sql(item.clone(), schema)).collect::<Result<Vec<_>>>()?;
            if expr == *list.expr && items == list.list {
                None
            } else {
                Some(Expr::InList(InList::new(Box::new(expr), items, list.negated)))
            }
        }
        // What aggregates collect are bits, too.
        Expr::AggregateFunction(call) if call.params.distinct && matches!(call.params.args.as_slice(), [of] if is_float(of)) => {
            let mut call = call.clone();
            let of = call.params.args.swap_remove(0);
            let one = sorted_as_sql(of.clone(), schema)?;
            let changed = one != of;
            call.params.args.push(one);
            changed.then(|| Expr::AggregateFunction(call))
        }
        // Of two single values its kernel compares bits.
        Expr::ScalarFunction(nullif) if nullif.name() == "nullif" && nullif.args.iter().any(is_float) => match nullif.args.as_slice() {
            [of, other] if !of.is_volatile() => {
                let none = ScalarValue::try_from(of.get_type(schema)?)?;
                let equal = of.clone().eq(other.clone());
                Some(Expr::Case(Case::new(None, vec![(Box::new(equal), Box::new(lit(none)))], Some(Box::new(of.clone())))))
            }
            _ => None,
        },
        Expr::ScalarFunction(made) if is_one_nan(&made.func) => match made.args.as_slice() {
            [Expr::ScalarFunction(inner)] if is_one_nan(&inner.func) => Some(made.args[0].clone()),
            _ => None,
        },
        Expr::ScalarFunction(made) if !GIVE_ARGUMENTS.contains(&made.name()) && !is_own(&made.func) && is_float(expr) => {
            call(Step::OneNan, expr.clone())
        }
        Expr::Case(Case { expr: Some(of), when_then_expr, else_expr }) if is_float(of) && !of.is_volatile() => {
            let branches =
                when_then_expr.iter().map(|(when, then)| (Box::new(of.as_ref().clone().eq(when.as_ref().clone())), then.clone())).collect();
            Some(Expr::Case(Case::new(None, branches, else_expr.clone())))
        }
        _ => None,
    })
}

/// An expression to sort by: 0 and -0 are one place.
pub fn sorted_as_sql(key: Expr, schema: &DFSchema) -> Result<Expr> {
    let is_float = key.get_type(schema)?.is_floating();
    let sorted = matches!(&key, Expr::ScalarFunction(call) if call.func.name() == "one_zero");
    Ok(if is_float && !sorted { function(Step::OneZero).call(vec![key]) } else { key })
}

fn is_own(function: &ScalarUDF) -> bool {
    let inner: &dyn std::any::Any = function.inner().as_ref();
    inner.is::<OfFloats>()
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

fn is_nearest(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == "nearest_integer")
}

/// An operand of arithmetic: NaN stays NaN in it, whichever it is.
fn calculated(operand: &Expr) -> &Expr {
    match operand {
        Expr::ScalarFunction(call) if is_one_nan(&call.func) => call.args.first().unwrap_or(operand),
        _ => operand,
    }
}
