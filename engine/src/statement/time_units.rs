//! Times of several units in one comparison.
//!
//! TIMESTAMP has microseconds, which hold the years 1 to 9999; columns of files may have nanoseconds, which end in 2262, or coarser units. DataFusion
//! would make nanoseconds of both sides, which fails beyond, or cut a constant to the unit of the column beside it. Here they are compared as they are.

use super::times::COMPARISONS;
use crate::operators::timestamps::ticks_a_second;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Between, BinaryExpr, Case, Cast, Expr, ExprSchemable, Operator, cast, is_not_null, is_null, lit, try_cast};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

/// A comparison of nanoseconds with a coarser unit, in the unit that holds both; `None` where the units are one. A date to which an interval is
/// added is a TIMESTAMP, as in Postgres: hours would be lost. So is a date with a time of day.
pub fn of_one_unit(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let (Ok(left_type), Ok(right_type)) = (left.get_type(schema), right.get_type(schema)) else { return Ok(None) };
            let microseconds = TimeUnit::Microsecond;
            let moment = |date: &Expr| Box::new(cast(date.clone(), DataType::Timestamp(microseconds, None)));
            // Since midnight.
            let into_day = |time: &Expr| {
                let ticks = cast(cast(time.clone(), DataType::Time64(microseconds)), DataType::Int64);
                Box::new(cast(ticks, DataType::Duration(microseconds)))
            };
            let is_day = |kind: &DataType| matches!(kind, DataType::Date32 | DataType::Timestamp(_, None));
            let is_time = |kind: &DataType| matches!(kind, DataType::Time32(_) | DataType::Time64(_));
            Ok(match (left_type, right_type) {
                (day, time) if is_day(&day) && is_time(&time) => {
                    let day = if day == DataType::Date32 { moment(left) } else { left.clone() };
                    Some(Expr::BinaryExpr(BinaryExpr::new(day, *op, into_day(right))))
                }
                (time, day) if is_day(&day) && is_time(&time) && *op == Operator::Plus => {
                    let day = if day == DataType::Date32 { moment(right) } else { right.clone() };
                    Some(Expr::BinaryExpr(BinaryExpr::new(day, *op, into_day(left))))
                }
                (DataType::Date32, DataType::Interval(_)) => Some(Expr::BinaryExpr(BinaryExpr::new(moment(left), *op, right.clone()))),
                (DataType::Interval(_), DataType::Date32) => Some(Expr::BinaryExpr(BinaryExpr::new(left.clone(), *op, moment(right)))),
                _ => None,
            })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if COMPARISONS.contains(op) => compared(left, *op, right, schema),
        Expr::Between(Between { expr: of, negated, low, high }) if !of.is_volatile() => {
            let above = compared(of, Operator::GtEq, low, schema)?;
            let below = compared(of, Operator::LtEq, high, schema)?;
            if above.is_none() && below.is_none() {
                return Ok(None);
            }
            let above = above.unwrap_or_else(|| of.as_ref().clone().gt_eq(low.as_ref().clone()));
            let below = below.unwrap_or_else(|| of.as_ref().clone().lt_eq(high.as_ref().clone()));
            let within = above.and(below);
            Ok(Some(if *negated { Expr::Not(Box::new(within)) } else { within }))
        }
        Expr::InList(list) => in_one_unit(list, schema),
        _ => Ok(None),
    }
}

/// A list of constants in the unit of what may be in it: those that it does not hold are never equal.
fn in_one_unit(list: &InList, schema: &DFSchema) -> Result<Option<Expr>> {
    let Ok(of_type) = list.expr.get_type(schema) else { return Ok(None) };
    let of_nanos = matches!(of_type, DataType::Timestamp(TimeUnit::Nanosecond, _));
    let Some(factor) = (if of_nanos { Some(1) } else { coarse(&of_type).map(|(factor, _)| factor) }) else { return Ok(None) };
    let (mut held, mut mixed) = (vec![], false);
    for item in &list.list {
        let Ok(item_type) = item.get_type(schema) else { return Ok(None) };
        let Some(of_item) = (match &item_type {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(1),
            other => coarse(other).map(|(factor, _)| factor),
        }) else {
            return Ok(None);
        };
        let (Some(value), true) = (constant(item)?, (1 == factor || 1 == of_item)) else { return Ok(None) };
        mixed |= of_item != factor;
        match ticks(&value).map(i128::from) {
            None => held.push(lit(ScalarValue::try_from(&of_type)?)),
            Some(ticks) if ticks * of_item % factor == 0 => {
                held.extend(i64::try_from(ticks * of_item / factor).ok().map(|ticks| of_ticks(ticks, &of_type)).transpose()?);
            }
            Some(_) => {}
        }
    }
    if !mixed {
        return Ok(None);
    }
    if held.is_empty() {
        let never = is_null(list.expr.as_ref().clone()).and(lit(ScalarValue::Boolean(None)));
        return Ok(Some(if list.negated { Expr::Not(Box::new(never)) } else { never }));
    }
    Ok(Some(Expr::InList(InList { list: held, ..list.clone() })))
}

fn of_ticks(ticks: i64, data_type: &DataType) -> Result<Expr> {
    Ok(lit(match data_type {
        DataType::Date32 => ScalarValue::Date32(i32::try_from(ticks).ok()),
        other => ScalarValue::Int64(Some(ticks)).cast_to(other)?,
    }))
}

/// Nanoseconds a value of a coarser type counts, and whether it is of instants.
fn coarse(data_type: &DataType) -> Option<(i128, bool)> {
    Some(match data_type {
        DataType::Date32 => (86_400_000_000_000, false),
        DataType::Timestamp(TimeUnit::Second, zone) => (1_000_000_000, zone.is_some()),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => (1_000_000, zone.is_some()),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => (1_000, zone.is_some()),
        _ => return None,
    })
}

fn compared(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let (Ok(left_type), Ok(right_type)) = (left.get_type(schema), right.get_type(schema)) else { return Ok(None) };
    let is_nanos =
        |data_type: &DataType, instants| matches!(data_type, DataType::Timestamp(TimeUnit::Nanosecond, zone) if zone.is_some() == instants);
    if let Some(swapped) = op.swap() {
        // A date stays one beside a moment that is known.
        for (date, date_type, op, moment, moment_type) in
            [(left, &left_type, op, right, &right_type), (right, &right_type, swapped, left, &left_type)]
        {
            if let (DataType::Date32, DataType::Timestamp(unit, None)) = (date_type, moment_type)
                && constant(date)?.is_none()
                && constant(moment)?.is_some()
            {
                let factor = 86_400 * i128::from(ticks_a_second(*unit));
                return coarse_with_nanos(date, op, moment, factor, date_type, moment_type).map(Some);
            }
        }
    }
    // A cast to a finer unit, too: the optimizer would take it off, and cut the constant.
    let (left, right) = (without_widening(left, right, schema)?, without_widening(right, left, schema)?);
    let (Ok(left_type), Ok(right_type)) = (left.get_type(schema), right.get_type(schema)) else { return Ok(None) };
    let Some(swapped) = op.swap() else { return Ok(None) };
    for (value, value_type, op, fine, fine_type) in
        [(left, &left_type, op, right, &right_type), (right, &right_type, swapped, left, &left_type)]
    {
        let (Some((long, instants)), DataType::Timestamp(unit, zone)) = (coarse(value_type), fine_type) else { continue };
        let short = 1_000_000_000 / i128::from(ticks_a_second(*unit));
        // Only nanoseconds leave out years that the coarser unit has.
        let constants = constant(value)?.is_some() || constant(fine)?.is_some();
        if instants == zone.is_some() && long > short && (constants || *unit == TimeUnit::Nanosecond) && value_type != &DataType::Date32
            || is_nanos(fine_type, instants) && value_type == &DataType::Date32
        {
            return coarse_with_nanos(value, op, fine, long / short, value_type, fine_type).map(Some);
        }
    }
    Ok(None)
}

/// What a cast to a finer unit is of, where it meets a constant.
fn without_widening<'e>(of: &'e Expr, other: &Expr, schema: &DFSchema) -> Result<&'e Expr> {
    if let Expr::Cast(Cast { expr: inner, field }) = of
        && let (DataType::Timestamp(unit, zone), DataType::Timestamp(to, to_zone)) = (inner.get_type(schema)?, field.data_type())
        && unit < *to
        && zone == *to_zone
        && constant(of)?.is_none()
        && constant(other)?.is_some()
    {
        return Ok(inner);
    }
    Ok(of)
}

/// `value op nanos`, where a unit of `value` has `factor` nanoseconds.
fn coarse_with_nanos(value: &Expr, op: Operator, nanos: &Expr, factor: i128, value_type: &DataType, nanos_type: &DataType) -> Result<Expr> {
    let compare = |left: Expr, op: Operator, right: Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
    let greatest = || of_ticks(i64::MAX, nanos_type);
    let least = || of_ticks(i64::MIN, nanos_type);
    // A value later than all nanoseconds, and one before all: NULL stays NULL.
    let later = |op| -> Result<Expr> {
        Ok(match op {
            Operator::Gt | Operator::GtEq | Operator::NotEq => compare(nanos.clone(), Operator::LtEq, greatest()?),
            _ => compare(nanos.clone(), Operator::Gt, greatest()?),
        })
    };
    let earlier = |op| -> Result<Expr> {
        Ok(match op {
            Operator::Lt | Operator::LtEq | Operator::NotEq => compare(nanos.clone(), Operator::GtEq, least()?),
            _ => compare(nanos.clone(), Operator::Lt, least()?),
        })
    };
    if let Some(constant) = constant(value)? {
        let Some(ticks) = ticks(&constant) else { return Ok(compare(lit(ScalarValue::try_from(nanos_type)?), op, nanos.clone())) };
        let exact = i128::from(ticks) * factor;
        return match i64::try_from(exact) {
            Ok(exact) => Ok(compare(of_ticks(exact, nanos_type)?, op, nanos.clone())),
            Err(_) if exact > 0 => later(op),
            Err(_) => earlier(op),
        };
    }
    if let Some(constant) = constant(nanos)? {
        let Some(ticks) = ticks(&constant) else { return Ok(compare(value.clone(), op, lit(ScalarValue::try_from(value_type)?))) };
        let (floor, rest) = (i128::from(ticks).div_euclid(factor), i128::from(ticks).rem_euclid(factor));
        let floor = of_ticks(floor as i64, value_type)?;
        // Between two values of the coarser unit.
        let op = match op {
            op if rest == 0 => op,
            Operator::Lt | Operator::LtEq => Operator::LtEq,
            Operator::Gt | Operator::GtEq => Operator::Gt,
            Operator::Eq => return Ok(is_null(value.clone()).and(lit(ScalarValue::Boolean(None)))),
            Operator::NotEq => return Ok(is_not_null(value.clone()).or(lit(ScalarValue::Boolean(None)))),
            other => other,
        };
        return Ok(compare(value.clone(), op, floor));
    }
    match op {
        // Both are keys of a join.
        Operator::Eq | Operator::NotEq => {
            let coarser = compare(value.clone(), Operator::Eq, cast(nanos.clone(), value_type.clone()));
            let same = coarser.and(compare(try_cast(value.clone(), nanos_type.clone()), Operator::Eq, nanos.clone()));
            Ok(if op == Operator::Eq { same } else { Expr::Not(Box::new(same)) })
        }
        op => {
            let bound = |ticks: i64| of_ticks((i128::from(ticks) / factor) as i64, value_type);
            let after = compare(value.clone(), Operator::Gt, bound(i64::MAX)?);
            let before = compare(value.clone(), Operator::Lt, bound(i64::MIN)?);
            let within = compare(try_cast(value.clone(), nanos_type.clone()), op, nanos.clone());
            let branches = vec![(Box::new(after), Box::new(later(op)?)), (Box::new(before), Box::new(earlier(op)?))];
            Ok(Expr::Case(Case::new(None, branches, Some(Box::new(within)))))
        }
    }
}

/// The value of an expression that reads no row.
fn constant(expr: &Expr) -> Result<Option<ScalarValue>> {
    if !expr.column_refs().is_empty() || expr.is_volatile() || expr.any_column_refs() {
        return Ok(None);
    }
    Ok(match ExprSimplifier::new(SimplifyContext::default()).simplify(expr.clone())? {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    })
}

fn ticks(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Date32(days) => days.map(i64::from),
        ScalarValue::TimestampSecond(ticks, _)
        | ScalarValue::TimestampMillisecond(ticks, _)
        | ScalarValue::TimestampMicrosecond(ticks, _)
        | ScalarValue::TimestampNanosecond(ticks, _) => *ticks,
        _ => None,
    }
}
