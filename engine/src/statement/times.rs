//! Dates and times of several units and zones in one expression.
//!
//! - TIMESTAMP has microseconds, which hold the years 1 to 9999; columns of files may have nanoseconds, which end in 2262. The two are compared as they are: DataFusion would make
//!   nanoseconds of both.
//! - TIMESTAMP WITH TIME ZONE is an instant, shown by the clock of the session's zone. A cast between it and the types without zone goes by that clock; so
//!   do days and months that are added to it. `AT TIME ZONE` goes by the clock of the zone that it names.

use crate::operators::time_values::{interval_length, rounded_time, time_text};
use crate::operators::timestamps::{is_utc, ticks_a_second, zone_named};
use crate::operators::zoned_times::{calendar_add, instant};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::functions::datetime::to_local_time;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Between, BinaryExpr, Case, Cast, Expr, ExprSchemable, Operator, TryCast, cast, is_not_null, is_null, lit, try_cast,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

/// What [`rewrite`](super::rewrite) makes of `AT TIME ZONE`: a function of the time, the zone and the session's zone.
pub const AT_TIME_ZONE: &str = "at_time_zone";

/// A cast that goes by the clock of the zone in one of its types.
pub fn by_the_clock(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let (of, to, tries) = match expr {
        Expr::Cast(Cast { expr, field }) => (expr.as_ref(), field.data_type(), false),
        Expr::TryCast(TryCast { expr, field }) => (expr.as_ref(), field.data_type(), true),
        _ => return Ok(None),
    };
    if let (Expr::Literal(value, metadata), DataType::Timestamp(..)) = (of, to)
        && let Some(whole) = value.try_as_str().flatten().and_then(with_seconds)
    {
        let of = Box::new(Expr::Literal(ScalarValue::Utf8(Some(whole)), metadata.clone()));
        let cast = if tries { Expr::TryCast(TryCast::new(of, to.clone())) } else { Expr::Cast(Cast::new(of, to.clone())) };
        return Ok(Some(by_the_clock_or_same(cast, schema)?));
    }
    let (to_unit, to_zone) = match to {
        DataType::Timestamp(unit, zone) => (unit, zone),
        // Postgres and DuckDB write no T between date and time.
        text if text.is_string() && matches!(of.get_type(schema)?, DataType::Timestamp(..)) => {
            return Ok(Some(cast(time_text(of.clone()), text.clone())));
        }
        _ => return Ok(None),
    };
    // Arrow cuts, towards 1970.
    if let DataType::Timestamp(unit, _) = of.get_type(schema)?
        && unit > *to_unit
    {
        let rounded = rounded_time(of.clone(), *to_unit);
        return Ok(Some(by_the_clock_or_same(cast(rounded, to.clone()), schema)?));
    }
    let without_zone = DataType::Timestamp(*to_unit, None);
    let in_unit = |of: Expr, from: &DataType| if from == &without_zone { of } else { cast(of, without_zone.clone()) };
    Ok(match (of.get_type(schema)?, to_zone) {
        (DataType::Timestamp(unit, Some(_)), None) => {
            let wall = to_local_time().call(vec![of.clone()]);
            Some(in_unit(wall, &DataType::Timestamp(unit, None)))
        }
        (_, Some(zone)) if is_utc(zone) => None,
        (from @ (DataType::Timestamp(_, None) | DataType::Date32), Some(zone)) => Some(instant(in_unit(of.clone(), &from), zone, *to_unit)),
        (from, Some(zone)) if from.is_string() && !tries => Some(instant(of.clone(), zone, *to_unit)),
        _ => None,
    })
}

/// A literal with hours and minutes alone: arrow wants seconds.
fn with_seconds(text: &str) -> Option<String> {
    let text = text.trim();
    let shape: String = text.chars().map(|character| if character.is_ascii_digit() { '0' } else { character }).collect();
    matches!(shape.as_str(), "0000-00-00 00:00" | "0000-00-00T00:00").then(|| format!("{text}:00"))
}

/// An expression over final types that goes by the clock of a zone: `AT TIME ZONE`, steps of days and months.
pub fn as_sql_has_times(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    match expr {
        Expr::ScalarFunction(call) if call.name() == AT_TIME_ZONE => {
            let [of, zone, session] = call.args.as_slice() else { return plan_err!("AT TIME ZONE takes a time and a zone") };
            let (Some(zone), Some(session)) = (text(zone), text(session)) else {
                return plan_err!("AT TIME ZONE takes the name of a zone, as in AT TIME ZONE 'Europe/Berlin'");
            };
            zone_named(zone)?;
            let placed = |unit| DataType::Timestamp(unit, Some(zone.into()));
            let at = match of.get_type(schema)? {
                DataType::Timestamp(unit, Some(_)) => cast(cast(of.clone(), placed(unit)), DataType::Timestamp(unit, None)),
                DataType::Timestamp(unit, None) => {
                    let at = by_the_clock_or_same(cast(of.clone(), placed(unit)), schema)?;
                    return Ok(Some(cast(at, DataType::Timestamp(unit, Some(session.into())))));
                }
                // A date or a text is an instant of the session first.
                _ => {
                    let unit = TimeUnit::Microsecond;
                    let at = by_the_clock_or_same(cast(of.clone(), DataType::Timestamp(unit, Some(session.into()))), schema)?;
                    cast(cast(at, placed(unit)), DataType::Timestamp(unit, None))
                }
            };
            by_the_clock(&at, schema)
        }
        // Postgres has microseconds too.
        Expr::ScalarFunction(call) if call.name() == "now" => match expr.get_type(schema)? {
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
                Ok(Some(cast(expr.clone(), DataType::Timestamp(TimeUnit::Microsecond, zone))))
            }
            _ => Ok(None),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let (left_type, right_type) = (left.get_type(schema)?, right.get_type(schema)?);
            let shown = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, Some(zone)) if !is_utc(zone));
            let step = |of: &Expr| cast(of.clone(), DataType::Interval(IntervalUnit::MonthDayNano));
            Ok(match (&left_type, &right_type) {
                (at, DataType::Interval(_)) if shown(at) => {
                    let step = if *op == Operator::Minus { Expr::Negative(Box::new(step(right))) } else { step(right) };
                    Some(calendar_add(left.as_ref().clone(), step))
                }
                (DataType::Interval(_), at) if shown(at) && *op == Operator::Plus => Some(calendar_add(right.as_ref().clone(), step(left))),
                _ => None,
            })
        }
        Expr::ScalarFunction(call) if call.args.len() == 1 && TO_TIMESTAMP.iter().any(|(name, _)| *name == call.name()) => {
            let unit = TO_TIMESTAMP.iter().find(|(name, _)| *name == call.name()).map_or(TimeUnit::Second, |(_, unit)| *unit);
            match (expr.get_type(schema)?, call.args[0].get_type(schema)?) {
                // Counted from 1970 in UTC, whatever the session's clock shows.
                (to @ DataType::Timestamp(_, Some(_)), of) if of.is_integer() => {
                    let DataType::Timestamp(_, zone) = &to else { return Ok(None) };
                    let counted = cast(call.args[0].clone(), DataType::Timestamp(unit, zone.clone()));
                    Ok(Some(cast(counted, to)))
                }
                _ => Ok(None),
            }
        }
        other => Ok(by_the_clock(other, schema)?.map_or_else(|| of_intervals(other, schema), |expr| Ok(Some(expr)))?),
    }
}

/// Functions that count from 1970, and what they count.
const TO_TIMESTAMP: [(&str, TimeUnit); 5] = [
    ("to_timestamp", TimeUnit::Second),
    ("to_timestamp_seconds", TimeUnit::Second),
    ("to_timestamp_millis", TimeUnit::Millisecond),
    ("to_timestamp_micros", TimeUnit::Microsecond),
    ("to_timestamp_nanos", TimeUnit::Nanosecond),
];

fn by_the_clock_or_same(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(by_the_clock(&expr, schema)?.unwrap_or(expr))
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        Expr::Cast(Cast { expr, .. }) => text(expr),
        _ => None,
    }
}

/// Intervals by their length, where they are compared or sorted.
pub fn by_length(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(match expr.get_type(schema)? {
        DataType::Interval(_) => interval_length(expr),
        _ => expr,
    })
}

/// A comparison of intervals, in its final types.
fn of_intervals(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let is_interval = |of: &Expr| of.get_type(schema).is_ok_and(|data_type| matches!(data_type, DataType::Interval(_)));
    let long = |of: &Expr| by_length(of.clone(), schema).map(Box::new);
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if (COMPARISONS.contains(op) || matches!(op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom))
                && is_interval(left)
                && is_interval(right) =>
        {
            Some(Expr::BinaryExpr(BinaryExpr::new(long(left)?, *op, long(right)?)))
        }
        Expr::Between(of) if is_interval(&of.expr) => {
            Some(Expr::Between(Between::new(long(&of.expr)?, of.negated, long(&of.low)?, long(&of.high)?)))
        }
        Expr::InList(of) if is_interval(&of.expr) => {
            let list = of.list.iter().map(|item| by_length(item.clone(), schema)).collect::<Result<_>>()?;
            Some(Expr::InList(InList::new(long(&of.expr)?, list, of.negated)))
        }
        _ => None,
    })
}

/// A comparison of nanoseconds with a coarser unit, in the unit that holds both; `None` where the units are one. A date to which an interval is
/// added is a TIMESTAMP, as in Postgres: hours would be lost.
pub fn of_one_unit(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let (Ok(left_type), Ok(right_type)) = (left.get_type(schema), right.get_type(schema)) else { return Ok(None) };
            let moment = |date: &Expr| Box::new(cast(date.clone(), DataType::Timestamp(TimeUnit::Microsecond, None)));
            Ok(match (left_type, right_type) {
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

const COMPARISONS: [Operator; 6] = [Operator::Eq, Operator::NotEq, Operator::Lt, Operator::LtEq, Operator::Gt, Operator::GtEq];

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
