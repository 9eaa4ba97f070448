//! From times of a wall clock to instants, and calendar steps of instants, in zones where clocks change.
//!
//! Arrow refuses the hours that a clock skips or shows twice. Here, as in Postgres and DuckDB, a time that is skipped is read with the offset before
//! the change, and one that is shown twice means its second time, which is standard time.

use super::timestamps::{answered, beyond, by_unit, instant_at, ticks, utc, wall_clock, zone_named};
use arrow::array::timezone::Tz;
use arrow::array::types::ArrowTimestampType;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, temporal_conversions::as_datetime};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNanoType, TimeUnit};
use arrow::error::ArrowError;
use chrono::{DateTime, Days, FixedOffset, Months, NaiveDateTime, TimeDelta, Utc};
use datafusion::common::{Result, internal_err, plan_err};
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
    /// `wall_clock(instant)`: what a clock in the zone of its type shows, a TIMESTAMP.
    WallClock,
}

const STEPS: [Step; 3] = [Step::Instant, Step::CalendarAdd, Step::WallClock];

/// The functions, to register on coordinators and workers alike.
pub fn zoned_times() -> impl Iterator<Item = Arc<ScalarUDF>> {
    STEPS.into_iter().map(function)
}

fn function(step: Step) -> Arc<ScalarUDF> {
    static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 3]> = LazyLock::new(|| {
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

/// What a clock shows at the instant, in the zone of its type.
pub fn shown_time(instant: Expr) -> Expr {
    function(Step::WallClock).call(vec![instant])
}

pub(super) fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

pub(super) fn unit_of(name: &str) -> TimeUnit {
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
            Step::WallClock => "wall_clock",
        }
    }

    /// As the cast or the sum would be called: columns keep their names.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match (self.step, args) {
            (Step::Instant, [wall, ..]) => wall.schema_name().to_string(),
            (Step::CalendarAdd, [left, right]) => format!("{} + {}", left.schema_name(), right.schema_name()),
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
            (Step::WallClock, [instant]) => match instant.data_type() {
                DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, None),
                other => return plan_err!("{other} has no time zone"),
            },
            _ => return plan_err!("{} takes other arguments", self.name()),
        };
        Ok(Arc::new(Field::new(self.name(), data_type, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let zoned = if self.step == Step::WallClock { args.arg_fields[0].data_type() } else { args.return_field.data_type() };
        let DataType::Timestamp(unit, Some(zone)) = zoned else {
            return internal_err!("{} gives {}", self.name(), args.return_field.data_type());
        };
        let (of, tz) = (args.args[0].to_array(rows)?, zone_named(zone)?);
        let result = match self.step {
            Step::Instant => by_unit!(unit, instants(&of, &tz)),
            Step::CalendarAdd => {
                let interval = args.args[1].to_array(rows)?;
                by_unit!(unit, later(&of, &interval, &tz))
            }
            Step::WallClock => by_unit!(unit, shown(&of, &tz)),
        };
        answered(result?, is_scalar, args.return_field.data_type())
    }
}

fn instants<T: ArrowTimestampType>(of: &ArrayRef, tz: &Tz) -> Result<ArrayRef> {
    let instants: PrimitiveArray<T> = match of.data_type() {
        DataType::Timestamp(..) => of.as_primitive::<T>().try_unary(|value| {
            let at = as_datetime::<T>(value).and_then(|wall| instant_at(wall, tz)).ok_or_else(beyond)?;
            ticks::<T>(at)
        })?,
        _ => {
            let texts = arrow::compute::cast(of, &DataType::Utf8)?;
            let parsed = texts.as_string::<i32>().iter().map(|text| text.map(|text| ticks::<T>(parsed(text, tz)?)).transpose());
            parsed.collect::<Result<_, ArrowError>>()?
        }
    };
    Ok(Arc::new(instants))
}

fn shown<T: ArrowTimestampType>(of: &ArrayRef, tz: &Tz) -> Result<ArrayRef> {
    let shown: PrimitiveArray<T> = of.as_primitive::<T>().try_unary(|value| {
        let wall = utc::<T>(value).and_then(|at| wall_clock(at, tz)).ok_or_else(beyond)?;
        ticks::<T>(wall.and_utc())
    })?;
    Ok(Arc::new(shown))
}

/// A text as an instant: by the offset that it says, else by the clock of the zone.
fn parsed(text: &str, tz: &Tz) -> Result<DateTime<Utc>, ArrowError> {
    let here = string_to_datetime(&Utc, text)?;
    let hour_east = FixedOffset::east_opt(3600).ok_or_else(beyond)?;
    // A text without an offset is read as the offset that is given.
    if here == string_to_datetime(&hour_east, text)? { Ok(here) } else { instant_at(here.naive_utc(), tz).ok_or_else(beyond) }
}

fn later<T: ArrowTimestampType>(of: &ArrayRef, interval: &ArrayRef, tz: &Tz) -> Result<ArrayRef> {
    let (of, interval) = (of.as_primitive::<T>(), interval.as_primitive::<IntervalMonthDayNanoType>());
    let value = |row: usize| -> Result<Option<i64>, ArrowError> {
        if of.is_null(row) || interval.is_null(row) {
            return Ok(None);
        }
        let (at, step) = (utc::<T>(of.value(row)).ok_or_else(beyond)?, interval.value(row));
        let at = if step.months == 0 && step.days == 0 {
            at
        } else {
            let wall = wall_clock(at, tz).and_then(|wall| stepped(wall, step.months, step.days));
            wall.and_then(|wall| instant_at(wall, tz)).ok_or_else(beyond)?
        };
        let at = at.checked_add_signed(TimeDelta::nanoseconds(step.nanoseconds)).ok_or_else(beyond)?;
        ticks::<T>(at).map(Some)
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
        parsed(text, &zone_named(zone).unwrap()).unwrap().to_rfc3339()
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
