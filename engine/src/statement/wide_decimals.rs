//! Comparisons of exact numbers whose common type has more than 38 digits: of a DECIMAL(38, 35) with a BIGINT, say. DataFusion compares in a type of
//! 38 digits, which the value of one side may not fit into: the comparison would fail. In 76 digits both have a place.
//!
//! A constant needs the digits that it has, not those of its type.

use crate::files::common_type::common_type;
use arrow::array::ArrowNativeTypeOp;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, i256};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{Case, Expr, ExprSchemable, Operator, cast};

/// Casts both sides of such a comparison.
pub(super) fn compared_in_full(mut expr: Expr, schema: &DFSchema) -> Expr {
    match &mut expr {
        // The answer has the type of the first argument.
        Expr::ScalarFunction(nullif) if nullif.name() == "nullif" => {
            if let [of, other] = nullif.args.as_slice()
                && !of.is_volatile()
                && wide_type((of, schema), (other, schema)).is_some()
            {
                let equal = compared_in_full(of.clone().eq(other.clone()), schema);
                let none = Expr::Literal(ScalarValue::Null, None);
                return Expr::Case(Case::new(None, vec![(Box::new(equal), Box::new(none))], Some(Box::new(of.clone()))));
            }
        }
        Expr::BinaryExpr(binary) if compares(binary.op) => widened(vec![&mut binary.left, &mut binary.right], schema),
        Expr::Between(between) => widened(vec![&mut between.expr, &mut between.low, &mut between.high], schema),
        Expr::InList(list) => widened(std::iter::once(&mut *list.expr).chain(&mut list.list).collect(), schema),
        Expr::Case(case) => {
            if let Some(of) = case.expr.as_deref_mut() {
                widened(std::iter::once(of).chain(case.when_then_expr.iter_mut().map(|(when, _)| &mut **when)).collect(), schema);
            }
        }
        _ => {}
    }
    expr
}

/// The type of more than 38 digits in which two sides are compared; `None` where they need none.
pub(super) fn wide_type(left: (&Expr, &DFSchema), right: (&Expr, &DFSchema)) -> Option<DataType> {
    wide(&[exact_type(left.0, left.1)?, exact_type(right.0, right.1)?])
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn widened(sides: Vec<&mut Expr>, schema: &DFSchema) {
    let types = sides.iter().map(|side| exact_type(side, schema)).collect::<Option<Vec<_>>>();
    if let Some(wide) = types.and_then(|types| wide(&types)) {
        for side in sides {
            *side = cast(std::mem::take(side), wide.clone());
        }
    }
}

/// The common type of sides that do not all have it yet, if it has more than 38 digits.
fn wide(types: &[DataType]) -> Option<DataType> {
    let common = types.iter().try_fold(DataType::Null, |common, next| common_type(&common, next))?;
    let is_wide = matches!(common, DataType::Decimal256(precision, _) if precision > DECIMAL128_MAX_PRECISION);
    (is_wide && types.iter().any(|data_type| *data_type != common)).then_some(common)
}

/// The narrowest type of an exact number; `None` of everything else.
fn exact_type(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    match expr {
        Expr::Literal(value, _) if !value.is_null() => of_value(value),
        Expr::Negative(of) if matches!(of.as_ref(), Expr::Literal(..)) => exact_type(of, schema),
        other => {
            let data_type = other.get_type(schema).ok()?;
            (data_type.is_null() || data_type.is_integer() || data_type.is_decimal()).then_some(data_type)
        }
    }
}

fn of_value(value: &ScalarValue) -> Option<DataType> {
    let (value, scale) = match value {
        ScalarValue::Decimal128(Some(value), _, scale) => (i256::from_i128(*value), *scale),
        ScalarValue::Decimal256(Some(value), _, scale) => (*value, *scale),
        other if other.data_type().is_integer() => match other.cast_to(&DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)).ok()? {
            ScalarValue::Decimal128(Some(value), ..) => (i256::from_i128(value), 0),
            _ => return None,
        },
        _ => return None,
    };
    let ten = i256::from_i128(10);
    let digits = std::iter::successors(Some(value), |left| left.checked_div(ten)).take_while(|left| !left.is_zero()).count();
    let precision = u8::try_from(digits).ok()?.max(scale.unsigned_abs()).max(1);
    Some(if precision <= DECIMAL128_MAX_PRECISION {
        DataType::Decimal128(precision, scale)
    } else {
        DataType::Decimal256(precision, scale)
    })
}
