//! Arithmetic over integers and decimals that is exact or an error: functions for what DataFusion's operators would wrap, cut or leave
//! without enough digits.
//!
//! [`exactly`] puts them in the place of an operator, and leaves those that cannot run over: `1 - l_discount` is as it was. Types follow
//! the operators', but for products and quotients that no DECIMAL of 38 digits holds whole:
//!
//! - quotient: `max(s1 + p2 + 1, 16)` digits after the point; where that many leave no room before it, as many as do, but at least
//!   `max(s1, 16)`; rounded half away from zero. A literal counts with the digits it has.
//! - product: `s1 + s2` digits after the point; where those before it would have no room, `max(s1, s2, 12)` at least, rounded so.

use super::exact_integers::{divided, narrow_divided};
use crate::sql_types::declared_type;
use arrow::array::{Array, ArrayRef, AsArray, Datum, Decimal128Array};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL128_MAX_SCALE, DataType, Decimal128Type, i256};
use arrow::error::ArrowError;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, exec_datafusion_err, internal_err};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    BinaryExpr, Cast, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use std::sync::{Arc, LazyLock};

/// Operators that have a function here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExactOp {
    /// left + right
    Add,
    /// left - right
    Subtract,
    /// left * right
    Multiply,
    /// left / right, of decimals
    Divide,
    /// -left
    Negate,
}

impl ExactOp {
    const ALL: [Self; 5] = [Self::Add, Self::Subtract, Self::Multiply, Self::Divide, Self::Negate];

    fn name(self) -> &'static str {
        match self {
            Self::Add => "checked_add",
            Self::Subtract => "checked_subtract",
            Self::Multiply => "checked_multiply",
            Self::Divide => "decimal_divide",
            Self::Negate => "checked_negate",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract | Self::Negate => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        }
    }
}

/// The functions, to register on coordinators and workers alike.
pub fn exact_arithmetic() -> impl Iterator<Item = Arc<ScalarUDF>> {
    ExactOp::ALL.into_iter().map(function)
}

fn function(op: ExactOp) -> Arc<ScalarUDF> {
    static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 5]> = LazyLock::new(|| {
        ExactOp::ALL.map(|op| Arc::new(ScalarUDF::from(ExactArithmetic { op, signature: Signature::user_defined(Volatility::Immutable) })))
    });
    FUNCTIONS[op as usize].clone()
}

/// Plans products of decimals with more digits after the point than 38, for which DataFusion's operator has no type, with the function.
#[derive(Debug)]
pub struct LongProducts;

impl ExprPlanner for LongProducts {
    fn plan_binary_op(&self, raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if raw.op != BinaryOperator::Multiply {
            return Ok(PlannerResult::Original(raw));
        }
        match (raw.left.get_type(schema), raw.right.get_type(schema)) {
            (Ok(DataType::Decimal128(_, left)), Ok(DataType::Decimal128(_, right)))
                if i32::from(left) + i32::from(right) > i32::from(DECIMAL128_MAX_SCALE) =>
            {
                Ok(PlannerResult::Planned(function(ExactOp::Multiply).call(vec![raw.left, raw.right])))
            }
            _ => Ok(PlannerResult::Original(raw)),
        }
    }
}

/// The operator that a function stands for; `None` for functions that are none of these.
pub fn exact_op(function: &ScalarUDF) -> Option<ExactOp> {
    let inner: &dyn std::any::Any = function.inner().as_ref();
    inner.downcast_ref::<ExactArithmetic>().map(|known| known.op)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactArithmetic {
    op: ExactOp,
    signature: Signature,
}

impl ScalarUDFImpl for ExactArithmetic {
    fn name(&self) -> &str {
        self.op.name()
    }

    /// As the operator would be called: columns keep their names.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [left, right] => format!("{} {} {}", left.schema_name(), self.op.sign(), right.schema_name()),
            [only] => format!("(- {})", only.schema_name()),
            _ => self.op.name().into(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.return_type(types).map(|_| types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let result = match (self.op, types) {
            (ExactOp::Negate, [of]) if of.is_signed_integer() => Some(of.clone()),
            (ExactOp::Divide, [DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)]) => Some(quotient_type((*p1, *s1), (*p2, *s2))),
            (ExactOp::Multiply, [DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)]) => Some(product_type((*p1, *s1), (*p2, *s2))),
            (ExactOp::Add | ExactOp::Subtract, [DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)]) => {
                Some(sum_type((*p1, *s1), (*p2, *s2)))
            }
            (ExactOp::Add | ExactOp::Subtract | ExactOp::Multiply, [left, right]) if left == right && left.is_integer() => {
                Some(left.clone())
            }
            _ => None,
        };
        let named = || types.iter().map(declared_type).collect::<Vec<_>>().join(", ");
        result.ok_or_else(|| DataFusionError::Plan(format!("{} takes no {}", self.op.name(), named())))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = args.return_field.data_type();
        match (self.op, args.args.as_slice()) {
            (ExactOp::Negate, [of]) => {
                let none = ScalarValue::new_zero(&of.data_type())?;
                let difference = apply(&ColumnarValue::Scalar(none), of, numeric::sub);
                difference.map_err(|error| beyond(error, result))
            }
            (op, [left, right]) => {
                let operate = |left: &dyn Datum, right: &dyn Datum| match (op, result) {
                    (ExactOp::Divide, DataType::Decimal128(..)) => scaled_quotients(left, right, result),
                    (ExactOp::Multiply, DataType::Decimal128(_, scale)) if scale_of(left) + scale_of(right) != i32::from(*scale) => {
                        rounded_products(left, right, result)
                    }
                    (ExactOp::Add, _) => held(numeric::add(left, right)?, result),
                    (ExactOp::Subtract, _) => held(numeric::sub(left, right)?, result),
                    _ => held(numeric::mul(left, right)?, result),
                };
                apply(left, right, operate).map_err(|error| beyond(error, result))
            }
            (op, other) => internal_err!("{} of {} arguments", op.name(), other.len()),
        }
    }
}

/// What is wrong with a value that the result's type does not hold.
fn beyond(error: DataFusionError, result: &DataType) -> DataFusionError {
    let DataFusionError::ArrowError(arrow, _) = &error else { return error };
    let why = match arrow.as_ref() {
        ArrowError::ArithmeticOverflow(why) => why,
        ArrowError::InvalidArgumentError(why) if result.is_decimal() => why,
        _ => return error,
    };
    let what = why.strip_prefix("Overflow happened on: ").unwrap_or(why);
    let wider = match result {
        DataType::Decimal128(..) => "CAST an operand to fewer digits, or AS DOUBLE",
        DataType::Int64 | DataType::UInt64 => "CAST an operand AS DECIMAL(38, 0)",
        _ => "CAST an operand AS BIGINT",
    };
    exec_datafusion_err!("a result is beyond {}: {what}; {wider}", declared_type(result))
}

/// Decimals are no wider than their type says.
fn held(values: ArrayRef, result: &DataType) -> Result<ArrayRef, ArrowError> {
    let DataType::Decimal128(precision, scale) = result else { return Ok(values) };
    let decimals = values.as_primitive::<Decimal128Type>().clone().with_precision_and_scale(*precision, *scale)?;
    // NULLs may stand over anything.
    decimals.validate_decimal_precision(*precision)?;
    Ok(Arc::new(decimals))
}

fn scale_of(side: &dyn Datum) -> i32 {
    match side.get().0.data_type() {
        DataType::Decimal128(_, scale) => (*scale).into(),
        _ => 0,
    }
}

/// The quotient with the digits of the result's type, rounded.
fn scaled_quotients(left: &dyn Datum, right: &dyn Datum, result: &DataType) -> Result<ArrayRef, ArrowError> {
    let DataType::Decimal128(precision, scale) = result else { return Err(ArrowError::ComputeError("a quotient is no decimal".into())) };
    let shift = i32::from(*scale) - scale_of(left) + scale_of(right);
    let factor = i256::from_i128(10).wrapping_pow(shift.unsigned_abs());
    let narrow = if shift <= 37 { factor.to_i128() } else { None };
    each(left, right, (*precision, *scale), |dividend, divisor| {
        if divisor == 0 {
            return Err(ArrowError::DivideByZero);
        }
        if let Some(dividend) = narrow.and_then(|factor| dividend.checked_mul(factor)) {
            return Ok(Some(narrow_divided(dividend, divisor)));
        }
        let dividend = i256::from_i128(dividend).checked_mul(factor);
        Ok(dividend.and_then(|dividend| divided(dividend, i256::from_i128(divisor))).and_then(i256::to_i128))
    })
}

/// The product with the digits of the result's type, rounded.
fn rounded_products(left: &dyn Datum, right: &dyn Datum, result: &DataType) -> Result<ArrayRef, ArrowError> {
    let DataType::Decimal128(precision, scale) = result else { return Err(ArrowError::ComputeError("a product is no decimal".into())) };
    let dropped = scale_of(left) + scale_of(right) - i32::from(*scale);
    let unit = i256::from_i128(10).wrapping_pow(dropped.unsigned_abs());
    each(left, right, (*precision, *scale), |left, right| {
        let product = i256::from_i128(left).checked_mul(i256::from_i128(right));
        Ok(product.and_then(|product| divided(product, unit)).and_then(i256::to_i128))
    })
}

/// `operate` on every pair of values; `None` is a value beyond the result's type.
fn each(
    left: &dyn Datum,
    right: &dyn Datum,
    (precision, scale): (u8, i8),
    operate: impl Fn(i128, i128) -> Result<Option<i128>, ArrowError>,
) -> Result<ArrayRef, ArrowError> {
    let ((left, left_scalar), (right, right_scalar)) = (left.get(), right.get());
    let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
    let rows = if left_scalar { right.len() } else { left.len() };
    let limit = 10i128.pow(precision.min(DECIMAL128_MAX_PRECISION).into());
    let value = |row: usize| {
        let (l, r) = (if left_scalar { 0 } else { row }, if right_scalar { 0 } else { row });
        if left.is_null(l) || right.is_null(r) {
            return Ok(None);
        }
        let value = operate(left.value(l), right.value(r))?.filter(|value| -limit < *value && *value < limit);
        let text = |array: &Decimal128Array, row| array.value_as_string(row);
        let over = || ArrowError::ArithmeticOverflow(format!("{} with {}", text(left, l), text(right, r)));
        value.map(Some).ok_or_else(over)
    };
    let values = (0..rows).map(value).collect::<Result<Decimal128Array, ArrowError>>()?;
    Ok(Arc::new(values.with_precision_and_scale(precision, scale)?))
}

/// Digits after the point that any quotient has.
const QUOTIENT_DIGITS: i32 = 16;

const DIGITS_MAX: i32 = DECIMAL128_MAX_PRECISION as i32;

fn decimal(before: i32, scale: i32) -> DataType {
    let precision = (before + scale).clamp(1, DIGITS_MAX);
    DataType::Decimal128(precision as u8, scale as i8)
}

fn digits((precision, scale): (u8, i8)) -> (i32, i32) {
    (i32::from(precision) - i32::from(scale), scale.into())
}

fn sum_type(left: (u8, i8), right: (u8, i8)) -> DataType {
    let ((before_left, s1), (before_right, s2)) = (digits(left), digits(right));
    decimal(before_left.max(before_right) + 1, s1.max(s2))
}

fn product_type(left: (u8, i8), right: (u8, i8)) -> DataType {
    let ((before_left, s1), (before_right, s2)) = (digits(left), digits(right));
    let (before, scale) = (before_left + before_right + 1, s1 + s2);
    let least = scale.min(s1.max(s2).max(12));
    decimal(before, scale.min((DIGITS_MAX - before).max(least)))
}

fn quotient_type(left: (u8, i8), right: (u8, i8)) -> DataType {
    let ((before_left, s1), (_, s2)) = (digits(left), digits(right));
    let before = (before_left + s2).max(0);
    let wanted = (s1 + i32::from(right.0) + 1).max(QUOTIENT_DIGITS);
    let least = s1.max(QUOTIENT_DIGITS);
    decimal(before, wanted.min((DIGITS_MAX - before).max(least)))
}

/// The same expression, exact: its operands have the types that the operator takes.
pub fn exactly(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let (op, left, right) = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => (ExactOp::Add, left, right),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => (ExactOp::Subtract, left, right),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Multiply, right }) => (ExactOp::Multiply, left, right),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) => (ExactOp::Divide, left, right),
        Expr::Negative(of) => {
            let data_type = of.get_type(schema)?;
            let least = range_of_type(&data_type).filter(|_| data_type.is_signed_integer()).map(|(least, _)| least);
            let runs_over = least.is_some() && range(of, schema, RANGE_DEPTH_MAX).map(|(low, _)| low) == least;
            return Ok(runs_over.then(|| function(ExactOp::Negate).call(vec![of.as_ref().clone()])));
        }
        // An operator of arrow cuts what is behind the point.
        Expr::Cast(Cast { expr: of, field }) if field.data_type().is_integer() => {
            return Ok(match of.get_type(schema)? {
                DataType::Decimal128(_, 1..) => {
                    let whole = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);
                    let rounded = Expr::Cast(Cast::new(of.clone(), whole));
                    Some(Expr::Cast(Cast::new_from_field(Box::new(rounded), field.clone())))
                }
                _ => None,
            });
        }
        _ => return Ok(None),
    };
    let (left_type, right_type) = (left.get_type(schema)?, right.get_type(schema)?);
    let call = |left: Expr, right: Expr| Ok(Some(function(op).call(vec![left, right])));
    match (op, &left_type, &right_type) {
        (ExactOp::Divide, DataType::Decimal128(..), DataType::Decimal128(..)) => call(with_own_digits(left), with_own_digits(right)),
        (ExactOp::Divide, ..) => Ok(None),
        (ExactOp::Multiply, DataType::Decimal128(_, s1), DataType::Decimal128(_, s2)) => {
            let (left, right) = (with_own_digits(left), with_own_digits(right));
            let result = function(op).return_type(&[left.get_type(schema)?, right.get_type(schema)?])?;
            let whole = matches!(result, DataType::Decimal128(_, scale) if i32::from(scale) == i32::from(*s1) + i32::from(*s2));
            // An operator would be simplified away, and its type with it.
            let simplified = is_zero_or_one(&left) || is_zero_or_one(&right);
            if whole && !simplified && range(expr, schema, RANGE_DEPTH_MAX).is_some() { Ok(None) } else { call(left, right) }
        }
        (_, DataType::Decimal128(..), DataType::Decimal128(..)) => {
            if range(expr, schema, RANGE_DEPTH_MAX).is_some() {
                Ok(None)
            } else {
                call(left.as_ref().clone(), right.as_ref().clone())
            }
        }
        (_, left_type, right_type) if left_type == right_type && left_type.is_integer() => {
            let fits = range(expr, schema, RANGE_DEPTH_MAX).zip(range_of_type(left_type)).is_some_and(|(is, may)| within(is, may));
            if fits { Ok(None) } else { call(left.as_ref().clone(), right.as_ref().clone()) }
        }
        _ => Ok(None),
    }
}

/// A literal integer that became a decimal of all digits an integer may have, with those it has.
fn with_own_digits(expr: &Expr) -> Expr {
    let Expr::Cast(Cast { expr: inner, field }) = expr else { return expr.clone() };
    let (Expr::Literal(value, metadata), DataType::Decimal128(_, 0)) = (inner.as_ref(), field.data_type()) else { return expr.clone() };
    match integer(value) {
        Some(value) => {
            let digits = value.unsigned_abs().checked_ilog10().unwrap_or(0) + 1;
            Expr::Literal(ScalarValue::Decimal128(Some(value), digits as u8, 0), metadata.clone())
        }
        None => expr.clone(),
    }
}

fn is_zero_or_one(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Decimal128(Some(value), _, scale), _) => {
            *value == 0 || Some(*value) == 10i128.checked_pow((*scale).max(0) as u32)
        }
        Expr::Literal(value, _) => matches!(integer(value), Some(0 | 1)),
        Expr::Cast(cast) => is_zero_or_one(&cast.expr),
        _ => false,
    }
}

fn integer(value: &ScalarValue) -> Option<i128> {
    match value {
        ScalarValue::Int8(value) => value.map(i128::from),
        ScalarValue::Int16(value) => value.map(i128::from),
        ScalarValue::Int32(value) => value.map(i128::from),
        ScalarValue::Int64(value) => value.map(i128::from),
        ScalarValue::UInt8(value) => value.map(i128::from),
        ScalarValue::UInt16(value) => value.map(i128::from),
        ScalarValue::UInt32(value) => value.map(i128::from),
        ScalarValue::UInt64(value) => value.map(i128::from),
        _ => None,
    }
}

type Range = (i128, i128);

/// How deep an expression is looked into before its type says what it may be.
const RANGE_DEPTH_MAX: usize = 8;

fn within(is: Range, may: Range) -> bool {
    may.0 <= is.0 && is.1 <= may.1
}

/// What values of a type may be: integers, and decimals as integers without their point.
fn range_of_type(data_type: &DataType) -> Option<Range> {
    Some(match data_type {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => (i64::MIN.into(), i64::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        DataType::Decimal128(precision, _) => {
            let greatest = 10i128.checked_pow((*precision).into())? - 1;
            (-greatest, greatest)
        }
        _ => return None,
    })
}

fn scale_of_type(data_type: &DataType) -> Option<i8> {
    match data_type {
        DataType::Decimal128(_, scale) => Some(*scale),
        other => other.is_integer().then_some(0),
    }
}

fn scaled((low, high): Range, power: i32) -> Option<Range> {
    let factor = 10i128.checked_pow(u32::try_from(power).ok()?)?;
    Some((low.checked_mul(factor)?, high.checked_mul(factor)?))
}

/// What an expression may be, if that is inside its type: without a point, as its type has it.
fn range(expr: &Expr, schema: &DFSchema, depth: usize) -> Option<Range> {
    let data_type = expr.get_type(schema).ok()?;
    let may = range_of_type(&data_type)?;
    let Some(depth) = depth.checked_sub(1) else { return Some(may) };
    match expr {
        Expr::Literal(ScalarValue::Decimal128(Some(value), ..), _) => Some((*value, *value)),
        Expr::Literal(value, _) => Some(integer(value).map_or(may, |value| (value, value))),
        Expr::Alias(alias) => range(&alias.expr, schema, depth),
        Expr::Cast(Cast { expr: inner, .. }) => {
            let inner_type = inner.get_type(schema).ok()?;
            let power = |from| i32::from(scale_of_type(&data_type).unwrap_or(0)) - i32::from(from);
            let of_inner = scale_of_type(&inner_type).map(power).filter(|power| *power >= 0);
            let of_inner = of_inner.and_then(|power| scaled(range(inner, schema, depth)?, power));
            // A cast of what does not fit is an error.
            Some(of_inner.map_or(may, |(low, high)| (low.max(may.0), high.min(may.1))))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let aligned = |side: &Expr| {
                let side_type = side.get_type(schema).ok()?;
                let power = i32::from(scale_of_type(&data_type)?) - i32::from(scale_of_type(&side_type)?);
                scaled(range(side, schema, depth)?, power)
            };
            let is = match op {
                Operator::Plus => {
                    let (left, right) = (aligned(left)?, aligned(right)?);
                    (left.0.checked_add(right.0)?, left.1.checked_add(right.1)?)
                }
                Operator::Minus => {
                    let (left, right) = (aligned(left)?, aligned(right)?);
                    (left.0.checked_sub(right.1)?, left.1.checked_sub(right.0)?)
                }
                Operator::Multiply => {
                    let (left, right) = (range(left, schema, depth)?, range(right, schema, depth)?);
                    let corners = [
                        left.0.checked_mul(right.0)?,
                        left.0.checked_mul(right.1)?,
                        left.1.checked_mul(right.0)?,
                        left.1.checked_mul(right.1)?,
                    ];
                    (corners.into_iter().min()?, corners.into_iter().max()?)
                }
                _ => return Some(may),
            };
            within(is, may).then_some(is)
        }
        _ => Some(may),
    }
}
