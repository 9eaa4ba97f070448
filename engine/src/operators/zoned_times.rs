//! From times of a wall clock to instants, calendar steps of instants, in zones where clocks change; times rounded, and as text.
//!
//! Arrow refuses the hours that a clock skips or shows twice. Here, as in Postgres and DuckDB, a time that is skipped is read with the offset before
//! the change, and one that is shown twice means its second time, which is standard time.

use crate::sql_types::declared_type;
use arrow::array::timezone::Tz;
use arrow::array::types::ArrowTimestampType;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, StringArray, temporal_conversions::as_datetime};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use chrono::{DateTime, Days, LocalResult, Months, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use std::sync::{Arc, LazyLock};

/// What a function here does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// `instant(wall, zone, unit)`: TIMESTAMP or text to TIMESTAMP WITH TIME ZONE.
    Instant,
    /// `calendar_add(instant, interval)`: months and days by the calendar of the instant's zone, then the rest.
    CalendarAdd,
    /// `rounded_time(time, unit)`: the nearest time of a coarser unit; of two, the one further from 1970.
    Rounded,
    /// `time_text(time)`: a TIMESTAMP as SQL writes it.
    Text,
    /// `interval_length(interval)`: its nanoseconds, where months have thirty days.
    Length,
}

const STEPS: [Step; 5] = [Step::Instant, Step::CalendarAdd, Step::Rounded, Step::Text, Step::Length];

/// The functions, to register on coordinators and workers alike.
pub fn zoned_times() -> impl Iterator<Item = Arc<ScalarUDF>> {
    STEPS.into_iter().map(function)
}

fn function(step: Step) -> Arc<ScalarUDF> {
    static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 5]> = LazyLock::new(|| {
        STEPS.map(|step| Arc::new(ScalarUDF::from(OfZones { step, signature: Signature::user_defined(Volatility::Immutable) })))
    });
    FUNCTIONS[step as usize].clone()
}

/// The instants at which a clock in `zone` shows `wall`, a TIMESTAMP or text, which may say its own offset.
pub fn instant(wall: Expr, zone: &str, unit: TimeUnit) -> Expr {
    function(Step::Instant).call(vec![wall, lit(zone), lit(unit_name(unit))])
}

/// The instant that many months, days and nanoseconds later.
pub fn calendar_add(instant: Expr, interval: Expr) -> Expr {
    function(Step::CalendarAdd).call(vec![instant, interval])
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

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

fn unit_of(name: &str) -> TimeUnit {
    match name {
        "s" => TimeUnit::Second,
        "ms" => TimeUnit::Millisecond,
        "us" => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfZones {
    step: Step,
    signature: Signature,
}

impl ScalarUDFImpl for OfZones {
    fn name(&self) -> &str {
        match self.step {
            Step::Instant => "instant",
            Step::CalendarAdd => "calendar_add",
            Step::Rounded => "rounded_time",
            Step::Text => "time_text",
            Step::Length => "interval_length",
        }
    }

    /// As the cast or the sum would be called: columns keep their names.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match (self.step, args) {
            (Step::Instant | Step::Rounded | Step::Text | Step::Length, [time, ..]) => time.schema_name().to_string(),
            (_, [left, right]) => format!("{} + {}", left.schema_name(), right.schema_name()),
            _ => self.name().into(),
        })
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
        let literal = |at: usize| args.scalar_arguments.get(at).copied().flatten().and_then(|value| value.try_as_str()).flatten();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        let data_type = match (self.step, args.arg_fields) {
            (Step::Instant, [_, _, _]) => match (literal(1), literal(2)) {
                (Some(zone), Some(unit)) => DataType::Timestamp(unit_of(unit), Some(zone.into())),
                _ => return plan_err!("a time zone is a literal here"),
            },
            (Step::CalendarAdd, [instant, _]) => instant.data_type().clone(),
            (Step::Rounded, [time, _]) => match (time.data_type(), literal(1)) {
                (DataType::Timestamp(_, zone), Some(unit)) => DataType::Timestamp(unit_of(unit), zone.clone()),
                (other, _) => return plan_err!("{} takes a TIMESTAMP, no {}", self.name(), declared_type(other)),
            },
            (Step::Text, [_]) => DataType::Utf8,
            (Step::Length, [_]) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
            _ => return plan_err!("{} takes other arguments", self.name()),
        };
        Ok(Arc::new(Field::new(self.name(), data_type, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let of = args.args[0].to_array(rows)?;
        let answer = |result: ArrayRef| -> Result<ColumnarValue> {
            Ok(if scalar { ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?) } else { ColumnarValue::Array(result) })
        };
        match self.step {
            Step::Rounded => return answer(rounded(&of, args.return_field.data_type())?),
            Step::Text => return answer(texts(&of)?),
            Step::Length => return answer(lengths(&of)?),
            Step::Instant | Step::CalendarAdd => {}
        }
        let DataType::Timestamp(unit, Some(zone)) = args.return_field.data_type() else {
            return internal_err!("{} gives {}", self.name(), args.return_field.data_type());
        };
        let tz: Tz =
            zone.parse().map_err(|_| exec_datafusion_err!("{zone} is no time zone: write a name like Europe/Berlin, or +01:00"))?;
        let result = match self.step {
            Step::Rounded | Step::Text | Step::Length => return internal_err!("{} is done", self.name()),
            Step::Instant => match unit {
                TimeUnit::Second => instants::<TimestampSecondType>(&of, tz),
                TimeUnit::Millisecond => instants::<TimestampMillisecondType>(&of, tz),
                TimeUnit::Microsecond => instants::<TimestampMicrosecondType>(&of, tz),
                TimeUnit::Nanosecond => instants::<TimestampNanosecondType>(&of, tz),
            },
            Step::CalendarAdd => {
                let interval = args.args[1].to_array(rows)?;
                match unit {
                    TimeUnit::Second => later::<TimestampSecondType>(&of, &interval, tz),
                    TimeUnit::Millisecond => later::<TimestampMillisecondType>(&of, &interval, tz),
                    TimeUnit::Microsecond => later::<TimestampMicrosecondType>(&of, &interval, tz),
                    TimeUnit::Nanosecond => later::<TimestampNanosecondType>(&of, &interval, tz),
                }
            }
        }?;
        // It knows no zone yet.
        let result = arrow::compute::cast(&result, &DataType::Timestamp(*unit, Some("UTC".into())))?;
        let result = arrow::compute::cast(&result, args.return_field.data_type())?;
        answer(result)
    }
}

fn ticks_a_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
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
    Ok(arrow::compute::cast(&nearest, to)?)
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
    let DataType::Timestamp(unit, zone) = of.data_type() else { return internal_err!("{} is written as a time", of.data_type()) };
    let tz: Option<Tz> = zone.as_deref().map(str::parse).transpose()?;
    match unit {
        TimeUnit::Second => texts_of::<TimestampSecondType>(of, tz),
        TimeUnit::Millisecond => texts_of::<TimestampMillisecondType>(of, tz),
        TimeUnit::Microsecond => texts_of::<TimestampMicrosecondType>(of, tz),
        TimeUnit::Nanosecond => texts_of::<TimestampNanosecondType>(of, tz),
    }
}

fn texts_of<T: ArrowTimestampType>(of: &ArrayRef, tz: Option<Tz>) -> Result<ArrayRef> {
    let texts = of.as_primitive::<T>().iter().map(|value| {
        let Some(value) = value else { return Ok(None) };
        let at = as_datetime::<T>(value).ok_or_else(beyond)?;
        let Some(tz) = tz else { return Ok(Some(written(at))) };
        let shown = at.and_utc().with_timezone(&tz);
        let offset = shown.offset().fix().local_minus_utc();
        let (hours, minutes, seconds) = (offset.abs() / 3600, offset.abs() / 60 % 60, offset.abs() % 60);
        let sign = if offset < 0 { '-' } else { '+' };
        let mut text = format!("{}{sign}{hours:02}", written(shown.naive_local()));
        if (minutes, seconds) != (0, 0) {
            text += &format!(":{minutes:02}");
        }
        if seconds != 0 {
            text += &format!(":{seconds:02}");
        }
        Ok(Some(text))
    });
    Ok(Arc::new(texts.collect::<Result<StringArray, ArrowError>>()?))
}

fn written(at: NaiveDateTime) -> String {
    let text = at.format("%Y-%m-%d %H:%M:%S").to_string();
    match at.nanosecond() {
        0 => text,
        nanos => format!("{text}.{}", format!("{nanos:09}").trim_end_matches('0')),
    }
}

/// The instant at which a clock shows `wall`.
pub(super) fn resolve(wall: NaiveDateTime, tz: &Tz) -> Option<DateTime<Utc>> {
    match tz.from_local_datetime(&wall) {
        LocalResult::Single(at) | LocalResult::Ambiguous(_, at) => Some(at.to_utc()),
        LocalResult::None => {
            // Clocks have skipped a day at most.
            let day_before = wall.checked_sub_days(Days::new(1))?;
            let before = tz.from_local_datetime(&day_before).latest()?;
            let shown_late = wall.signed_duration_since(day_before);
            before.to_utc().checked_add_signed(shown_late)
        }
    }
}

fn beyond() -> ArrowError {
    ArrowError::ComputeError("a time is beyond what a TIMESTAMP holds".into())
}

fn instants<T: ArrowTimestampType>(of: &ArrayRef, tz: Tz) -> Result<ArrayRef> {
    let instants: PrimitiveArray<T> = match of.data_type() {
        DataType::Timestamp(..) => of.as_primitive::<T>().try_unary(|value| {
            let at = as_datetime::<T>(value).and_then(|wall| resolve(wall, &tz)).ok_or_else(beyond)?;
            from_datetime::<T>(at)
        })?,
        _ => {
            let texts = arrow::compute::cast(of, &DataType::Utf8)?;
            let parsed = texts.as_string::<i32>().iter().map(|text| text.map(|text| from_datetime::<T>(parsed(text, tz)?)).transpose());
            parsed.collect::<Result<_, ArrowError>>()?
        }
    };
    Ok(Arc::new(instants))
}

/// A text as an instant: by the offset that it says, else by the clock of the zone.
fn parsed(text: &str, tz: Tz) -> Result<DateTime<Utc>, ArrowError> {
    let offset = |text: &str| text.parse::<Tz>();
    let (here, east) = (string_to_datetime(&offset("+00:00")?, text)?.to_utc(), string_to_datetime(&offset("+01:00")?, text)?.to_utc());
    if here == east { Ok(here) } else { resolve(here.naive_utc(), &tz).ok_or_else(beyond) }
}

pub(super) fn from_datetime<T: ArrowTimestampType>(at: DateTime<Utc>) -> Result<<T as ArrowPrimitiveType>::Native, ArrowError> {
    T::from_naive_datetime(at.naive_utc(), None).ok_or_else(beyond)
}

fn later<T: ArrowTimestampType>(of: &ArrayRef, interval: &ArrayRef, tz: Tz) -> Result<ArrayRef> {
    let (of, interval) = (of.as_primitive::<T>(), interval.as_primitive::<IntervalMonthDayNanoType>());
    let value = |row: usize| -> Result<Option<i64>, ArrowError> {
        if of.is_null(row) || interval.is_null(row) {
            return Ok(None);
        }
        let (value, step) = (of.value(row), interval.value(row));
        let at = as_datetime::<T>(value).ok_or_else(beyond)?.and_utc();
        let at = if step.months == 0 && step.days == 0 {
            at
        } else {
            let wall = stepped(at.with_timezone(&tz).naive_local(), step.months, step.days);
            wall.and_then(|wall| resolve(wall, &tz)).ok_or_else(beyond)?
        };
        let at = at.checked_add_signed(TimeDelta::nanoseconds(step.nanoseconds)).ok_or_else(beyond)?;
        from_datetime::<T>(at).map(Some)
    };
    let values = (0..of.len()).map(value).collect::<Result<PrimitiveArray<T>, ArrowError>>()?;
    Ok(Arc::new(values))
}

fn stepped(wall: NaiveDateTime, months: i32, days: i32) -> Option<NaiveDateTime> {
    let magnitude = Months::new(months.unsigned_abs());
    let wall = if months < 0 { wall.checked_sub_months(magnitude)? } else { wall.checked_add_months(magnitude)? };
    let magnitude = Days::new(days.unsigned_abs().into());
    if days < 0 { wall.checked_sub_days(magnitude) } else { wall.checked_add_days(magnitude) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, zone: &str) -> String {
        parsed(text, zone.parse().unwrap()).unwrap().to_rfc3339()
    }

    /// Postgres 15's answers.
    #[test]
    fn clocks_that_skip_and_repeat() {
        assert_eq!(shown("2024-03-10 02:30:00", "America/Denver"), "2024-03-10T09:30:00+00:00");
        assert_eq!(shown("2024-11-03 01:30:00", "America/Denver"), "2024-11-03T08:30:00+00:00");
        assert_eq!(shown("2018-11-04 00:00:00", "America/Sao_Paulo"), "2018-11-04T03:00:00+00:00");
        assert_eq!(shown("2011-12-30 12:00:00", "Pacific/Apia"), "2011-12-30T22:00:00+00:00");
        assert_eq!(shown("2024-07-01 12:00:00", "America/Denver"), "2024-07-01T18:00:00+00:00");
    }

    #[test]
    fn a_text_may_say_its_offset() {
        assert_eq!(shown("2024-03-10 02:30:00+02:00", "America/Denver"), "2024-03-10T00:30:00+00:00");
        assert_eq!(shown("2024-03-10T02:30:00Z", "America/Denver"), "2024-03-10T02:30:00+00:00");
        assert_eq!(shown("2024-03-10", "Europe/Berlin"), "2024-03-09T23:00:00+00:00");
    }
}
