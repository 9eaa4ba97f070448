//! Dates and times as SQL has them: casts, zones, lengths of intervals. Of units: see [`time_units`](super::time_units).
//!
//! TIMESTAMP WITH TIME ZONE is an instant, shown by the clock of the session's zone. A cast between it and the types without zone goes by that clock;
//! so do days and months that are added to it. `AT TIME ZONE` goes by the clock of the zone that it names.

use crate::operators::time_values::{interval_length, rounded_time, time_text};
use crate::operators::timestamps::{is_utc, zone_named};
use crate::operators::zoned_times::{calendar_add, instant, shown_time};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, ExprSchemable, Operator, TryCast, cast, lit, when};

/// What [`rewrite`](super::rewrite) makes of `AT TIME ZONE`: a function of the time, the zone and the session's zone.
pub const AT_TIME_ZONE: &str = "at_time_zone";

/// A cast of a time by our rules: by the clock of a zone, rounded to fewer digits, as text without a T.
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
        // Postgres and DuckDB write no T between date and time, and no sign before years of five digits.
        text if text.is_string() && matches!(of.get_type(schema)?, DataType::Timestamp(..) | DataType::Date32) => {
            return Ok(Some(cast(time_text(of.clone()), text.clone())));
        }
        DataType::Date32 | DataType::Time32(_) | DataType::Time64(_) if is_shown(&of.get_type(schema)?) => {
            return Ok(Some(cast(shown_time(of.clone()), to.clone())));
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
        (DataType::Timestamp(unit, Some(_)), None) => Some(in_unit(shown_time(of.clone()), &DataType::Timestamp(unit, None))),
        (_, Some(zone)) if is_utc(zone) => None,
        (from @ (DataType::Timestamp(_, None) | DataType::Date32), Some(zone)) => Some(instant(in_unit(of.clone(), &from), zone, *to_unit)),
        (from, Some(zone)) if from.is_string() && !tries => Some(instant(of.clone(), zone, *to_unit)),
        _ => None,
    })
}

/// A part of more than a year: DataFusion knows none. Counted as in Postgres, where the first century begins with the year 1 and none has the number 0.
fn long_unit(call: &ScalarFunction) -> Result<Option<Expr>> {
    let [unit, of] = call.args.as_slice() else { return Ok(None) };
    let years = match text(unit).map(str::to_ascii_lowercase).as_deref() {
        Some("decade" | "decades") => 10i32,
        Some("century" | "centuries") => 100,
        Some("millennium" | "millennia" | "millenniums") => 1000,
        _ => return Ok(None),
    };
    let year = call.func.call(vec![lit("year"), of.clone()]);
    let (begun, before) = match years {
        10 => (year.clone().gt_eq(lit(0i32)), lit(9i32) - year.clone()),
        _ => (year.clone().gt(lit(0i32)), lit(years) - year.clone()),
    };
    let into = if years == 10 { 0 } else { years - 1 };
    let number = when(begun, (year + lit(into)) / lit(years)).otherwise(Expr::Negative(Box::new(before / lit(years))))?;
    Ok(Some(number))
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
        Expr::ScalarFunction(call) if call.name() == "date_part" => {
            // Arrow's clocks have no summer time beyond 2099.
            let shown = match call.args.as_slice() {
                [unit, of] if is_shown(&of.get_type(schema)?) && !text(unit).is_some_and(|unit| unit.eq_ignore_ascii_case("epoch")) => {
                    Some(ScalarFunction::new_udf(call.func.clone(), vec![unit.clone(), shown_time(of.clone())]))
                }
                _ => None,
            };
            let long = long_unit(shown.as_ref().unwrap_or(call))?;
            Ok(long.or(shown.map(Expr::ScalarFunction)))
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
            let step = |of: &Expr| cast(of.clone(), DataType::Interval(IntervalUnit::MonthDayNano));
            Ok(match (&left_type, &right_type) {
                (at, DataType::Interval(_)) if is_shown(at) => {
                    let step = if *op == Operator::Minus { Expr::Negative(Box::new(step(right))) } else { step(right) };
                    Some(calendar_add(left.as_ref().clone(), step))
                }
                (DataType::Interval(_), at) if is_shown(at) && *op == Operator::Plus => {
                    Some(calendar_add(right.as_ref().clone(), step(left)))
                }
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

/// Whether times of the type are shown by a clock that others do not follow.
fn is_shown(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, Some(zone)) if !is_utc(zone))
}

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

pub(super) const COMPARISONS: [Operator; 6] = [Operator::Eq, Operator::NotEq, Operator::Lt, Operator::LtEq, Operator::Gt, Operator::GtEq];

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
