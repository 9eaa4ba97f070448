//! Times rounded to a coarser unit and written as text, and intervals by their length, as Postgres has them.

use super::timestamps::{answered, beyond, by_unit, ticks_a_second, utc, wall_clock, zone_named};
use super::zoned_times::{unit_name, unit_of};
use crate::sql_types::declared_type;
use arrow::array::timezone::Tz;
use arrow::array::types::ArrowTimestampType;
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Date32Type, Decimal128Type, Field, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit,
    TimeUnit,
};
use arrow::error::ArrowError;
use chrono::{NaiveDateTime, Timelike};
use datafusion::common::{Result, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use std::sync::{Arc, LazyLock};

/// What a function here does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// `rounded_time(time, unit)`: the nearest time of a coarser unit; of two, the one further from 1970.
    Rounded,
    /// `time_text(time)`: a TIMESTAMP or DATE as SQL writes it.
    Text,
    /// `interval_length(interval)`: its nanoseconds, where months have thirty days.
    Length,
}

const STEPS: [Step; 3] = [Step::Rounded, Step::Text, Step::Length];

/// The functions, to register on coordinators and workers alike.
pub fn time_values() -> impl Iterator<Item = Arc<ScalarUDF>> {
    STEPS.into_iter().map(function)
}

fn function(step: Step) -> Arc<ScalarUDF> {
    static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 3]> = LazyLock::new(|| {
        STEPS.map(|step| Arc::new(ScalarUDF::from(OfTimes { step, signature: Signature::user_defined(Volatility::Immutable) })))
    });
    FUNCTIONS[step as usize].clone()
}

/// A time in a coarser unit.
pub fn rounded_time(time: Expr, unit: TimeUnit) -> Expr {
    function(Step::Rounded).call(vec![time, lit(unit_name(unit))])
}

/// `2024-07-01 12:00:00`, with a fraction and the offset of a zone where there is one: text of type VARCHAR.
pub fn time_text(time: Expr) -> Expr {
    function(Step::Text).call(vec![time])
}

/// What intervals are compared by: `1 month` equals `30 days`.
pub fn interval_length(interval: Expr) -> Expr {
    function(Step::Length).call(vec![interval])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfTimes {
    step: Step,
    signature: Signature,
}

impl ScalarUDFImpl for OfTimes {
    fn name(&self) -> &str {
        match self.step {
            Step::Rounded => "rounded_time",
            Step::Text => "time_text",
            Step::Length => "interval_length",
        }
    }

    /// As the argument would be called: columns keep their names.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map_or_else(|| self.name().into(), |of| of.schema_name().to_string()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("{} has a type for its arguments alone", self.name())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let unit = args.scalar_arguments.get(1).copied().flatten().and_then(|value| value.try_as_str()).flatten();
        let data_type = match (self.step, args.arg_fields) {
            (Step::Rounded, [time, _]) => match (time.data_type(), unit) {
                (DataType::Timestamp(_, zone), Some(unit)) => DataType::Timestamp(unit_of(unit), zone.clone()),
                (other, _) => return plan_err!("{} takes a TIMESTAMP, no {}", self.name(), declared_type(other)),
            },
            (Step::Text, [_]) => DataType::Utf8,
            (Step::Length, [_]) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
            _ => return plan_err!("{} takes other arguments", self.name()),
        };
        Ok(Arc::new(Field::new(self.name(), data_type, args.arg_fields[0].is_nullable())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = matches!(args.args[0], ColumnarValue::Scalar(_));
        let of = args.args[0].to_array(if is_scalar { 1 } else { args.number_rows })?;
        let result = match self.step {
            Step::Rounded => rounded(&of, args.return_field.data_type()),
            Step::Text => texts(&of),
            Step::Length => lengths(&of),
        };
        answered(result?, is_scalar, args.return_field.data_type())
    }
}

fn rounded(of: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let (DataType::Timestamp(from, _), DataType::Timestamp(unit, _)) = (of.data_type(), to) else {
        return internal_err!("{} is rounded to {to}", of.data_type());
    };
    let step = ticks_a_second(*from) / ticks_a_second(*unit);
    let ticks = arrow::compute::cast(of, &DataType::Int64)?;
    let nearest = ticks.as_primitive::<Int64Type>().unary::<_, Int64Type>(|ticks| {
        let (whole, rest) = (ticks / step, ticks % step);
        whole + i64::from(rest.abs() >= step - step / 2) * rest.signum()
    });
    Ok(arrow::compute::cast(&nearest, &DataType::Timestamp(*unit, None))?)
}

fn lengths(of: &ArrayRef) -> Result<ArrayRef> {
    const DAY: i128 = 86_400_000_000_000;
    let intervals = arrow::compute::cast(of, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let lengths = intervals
        .as_primitive::<IntervalMonthDayNanoType>()
        .unary::<_, Decimal128Type>(|of| (i128::from(of.months) * 30 + i128::from(of.days)) * DAY + i128::from(of.nanoseconds));
    Ok(Arc::new(lengths.with_precision_and_scale(DECIMAL128_MAX_PRECISION, 0)?))
}

fn texts(of: &ArrayRef) -> Result<ArrayRef> {
    if let Some(dates) = of.as_primitive_opt::<Date32Type>() {
        let text = |days: i32| Date32Type::to_naive_date_opt(days).map(|date| unsigned(date.to_string())).ok_or_else(beyond);
        let texts = dates.iter().map(|days| days.map(text).transpose());
        return Ok(Arc::new(texts.collect::<Result<StringArray, ArrowError>>()?));
    }
    let DataType::Timestamp(unit, zone) = of.data_type() else { return internal_err!("{} is written as a time", of.data_type()) };
    let tz = zone.as_deref().map(zone_named).transpose()?;
    by_unit!(unit, texts_of(of, tz.as_ref()))
}

fn texts_of<T: ArrowTimestampType>(of: &ArrayRef, tz: Option<&Tz>) -> Result<ArrayRef> {
    let text = |value: i64| -> Option<String> {
        let at = utc::<T>(value)?;
        let Some(tz) = tz else { return Some(written(at.naive_utc())) };
        let wall = wall_clock(at, tz)?;
        let offset = wall.signed_duration_since(at.naive_utc()).num_seconds();
        let (hours, minutes, seconds) = (offset.abs() / 3600, offset.abs() / 60 % 60, offset.abs() % 60);
        let mut text = format!("{}{}{hours:02}", written(wall), if offset < 0 { '-' } else { '+' });
        if (minutes, seconds) != (0, 0) {
            text += &format!(":{minutes:02}");
        }
        if seconds != 0 {
            text += &format!(":{seconds:02}");
        }
        Some(text)
    };
    let texts = of.as_primitive::<T>().iter().map(|value| value.map(|value| text(value).ok_or_else(beyond)).transpose());
    Ok(Arc::new(texts.collect::<Result<StringArray, ArrowError>>()?))
}

/// Years of five digits have no sign in SQL.
fn unsigned(time: String) -> String {
    time.strip_prefix('+').map(str::to_owned).unwrap_or(time)
}

fn written(at: NaiveDateTime) -> String {
    let text = at.format("%Y-%m-%d %H:%M:%S").to_string();
    let text = unsigned(text);
    match at.nanosecond() {
        0 => text,
        nanos => format!("{text}.{}", format!("{nanos:09}").trim_end_matches('0')),
    }
}
