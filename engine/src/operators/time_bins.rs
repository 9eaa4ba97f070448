//! `date_trunc` and `date_bin` over all years: DataFusion's go by nanoseconds, which begin in 1677 and end in 2262, and answer NULL or an error beyond.
//!
//! What does not go through them there stays with DataFusion's functions: times of a day, and units of a day and less where clocks do not change.

use super::timestamps::{answered, beyond, by_unit, instant_at, is_utc, ticks, ticks_a_second, utc, wall_clock, zone_named};
use arrow::array::timezone::Tz;
use arrow::array::types::ArrowTimestampType;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, temporal_conversions::as_datetime};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use arrow::error::ArrowError;
use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::functions::datetime;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// The functions, in the place of DataFusion's on coordinators and workers.
pub fn time_bins() -> [Arc<ScalarUDF>; 2] {
    let bin = DateBin { builtin: datetime::date_bin(), signature: Signature::user_defined(Volatility::Immutable) };
    let trunc = DateTrunc { builtin: datetime::date_trunc(), signature: Signature::user_defined(Volatility::Immutable) };
    [Arc::new(ScalarUDF::from(trunc)), Arc::new(ScalarUDF::from(bin))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    builtin: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.builtin.name()
    }
    fn aliases(&self) -> &[String] {
        self.builtin.aliases()
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    /// DataFusion takes dates for nanoseconds, which reach from 1677 to 2262 alone.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [unit, of] = types else { return plan_err!("date_trunc takes a unit and a time, as in date_trunc('month', t)") };
        if !unit.is_string() && !unit.is_null() {
            return plan_err!("date_trunc takes the name of a unit first, as in date_trunc('month', t)");
        }
        let of = match of {
            DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) => of.clone(),
            DataType::Date32 | DataType::Date64 | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
            text if text.is_string() => DataType::Timestamp(TimeUnit::Microsecond, None),
            other => return plan_err!("date_trunc takes a DATE, a TIMESTAMP or a TIME, no {}", crate::sql_types::declared_type(other)),
        };
        Ok(vec![DataType::Utf8, of])
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.builtin.return_type(types)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.builtin.return_field_from_args(args)
    }
    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.builtin.inner().output_ordering(input)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.builtin.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (DataType::Timestamp(unit, zone), Some(step)) = (args.args[1].data_type(), args.args.first().and_then(CalendarStep::named))
        else {
            return self.builtin.invoke_with_args(args);
        };
        let clock_changes = zone.as_deref().is_some_and(|zone| !is_utc(zone));
        let scalar = matches!(args.args[1], ColumnarValue::Scalar(_));
        if !clock_changes && !scalar && matches!(step, CalendarStep::Minute | CalendarStep::Hour | CalendarStep::Day) {
            // An array without a zone does not go through nanoseconds.
            let result = args.return_field.data_type().clone();
            let plain = DataType::Timestamp(unit, None);
            let mut args = args;
            args.args[1] = args.args[1].cast_to(&plain, None)?;
            args.arg_fields[1] = Arc::new(args.arg_fields[1].as_ref().clone().with_data_type(plain.clone()));
            args.return_field = Arc::new(args.return_field.as_ref().clone().with_data_type(plain));
            let utc = DataType::Timestamp(unit, Some("UTC".into()));
            let truncated = self.builtin.invoke_with_args(args)?;
            return match &result {
                DataType::Timestamp(_, Some(_)) => truncated.cast_to(&utc, None)?.cast_to(&result, None),
                _ => Ok(truncated),
            };
        }
        let times = args.args[1].to_array(if scalar { 1 } else { args.number_rows })?;
        let tz = zone_named(zone.as_deref().unwrap_or("UTC"))?;
        let result = by_unit!(unit, truncated(&times, step, &tz))?;
        answered(result, scalar, args.return_field.data_type())
    }
}

/// A unit that goes by the calendar, or by a clock that may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CalendarStep {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
}

impl CalendarStep {
    fn named(value: &ColumnarValue) -> Option<Self> {
        let ColumnarValue::Scalar(name) = value else { return None };
        Some(match name.try_as_str().flatten()?.to_ascii_lowercase().as_str() {
            "microsecond" => Self::Microsecond,
            "millisecond" => Self::Millisecond,
            "second" => Self::Second,
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            "quarter" => Self::Quarter,
            "year" => Self::Year,
            "decade" => Self::Decade,
            "century" => Self::Century,
            "millennium" => Self::Millennium,
            _ => return None,
        })
    }

    fn first_day(self, of: NaiveDate) -> Option<NaiveDate> {
        match self {
            Self::Microsecond | Self::Millisecond | Self::Second | Self::Minute | Self::Hour | Self::Day => Some(of),
            Self::Week => of.checked_sub_days(Days::new(of.weekday().num_days_from_monday().into())),
            Self::Month => of.with_day(1),
            Self::Quarter => of.with_day(1)?.with_month0(of.month0() / 3 * 3),
            Self::Year => NaiveDate::from_ymd_opt(of.year(), 1, 1),
            Self::Decade => NaiveDate::from_ymd_opt(of.year().div_euclid(10) * 10, 1, 1),
            // The first one begins with the year 1.
            Self::Century => NaiveDate::from_ymd_opt((of.year() - 1).div_euclid(100) * 100 + 1, 1, 1),
            Self::Millennium => NaiveDate::from_ymd_opt((of.year() - 1).div_euclid(1000) * 1000 + 1, 1, 1),
        }
    }
}

fn truncated<T: ArrowTimestampType>(times: &ArrayRef, step: CalendarStep, tz: &Tz) -> Result<ArrayRef> {
    let begin = |value: i64| -> Option<DateTime<Utc>> {
        let at = utc::<T>(value)?;
        let wall = wall_clock(at, tz)?;
        let length = match step {
            CalendarStep::Microsecond => Some(1_000),
            CalendarStep::Millisecond => Some(1_000_000),
            CalendarStep::Second => Some(1_000_000_000),
            CalendarStep::Minute => Some(60_000_000_000),
            CalendarStep::Hour => Some(3_600_000_000_000),
            _ => None,
        };
        if let Some(length) = length {
            // Of an hour that a clock shows twice, the one that it is.
            let into = wall.time().signed_duration_since(NaiveTime::MIN).num_nanoseconds()? % length;
            return at.checked_sub_signed(TimeDelta::nanoseconds(into));
        }
        instant_at(step.first_day(wall.date())?.and_time(NaiveTime::MIN), tz)
    };
    let truncated: PrimitiveArray<T> = times.as_primitive::<T>().try_unary(|value| begin(value).ok_or_else(beyond).and_then(ticks::<T>))?;
    Ok(Arc::new(truncated))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateBin {
    builtin: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        self.builtin.name()
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (2 | 3, [stride, source, ..]) = (types.len(), types) else {
            return plan_err!("date_bin takes an interval, a time and perhaps an origin");
        };
        if !matches!(stride, DataType::Interval(_) | DataType::Duration(_) | DataType::Null) && !stride.is_string() {
            return plan_err!("date_bin takes an interval first, as in date_bin(INTERVAL '15 minutes', t)");
        }
        let of = match source {
            DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) => source.clone(),
            DataType::Date32 | DataType::Date64 | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
            text if text.is_string() => DataType::Timestamp(TimeUnit::Microsecond, None),
            other => return plan_err!("date_bin takes a TIMESTAMP or a TIME, no {}", crate::sql_types::declared_type(other)),
        };
        let mut wanted = vec![DataType::Interval(IntervalUnit::MonthDayNano), of.clone()];
        wanted.extend(types.get(2).map(|_| of));
        Ok(wanted)
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), args.arg_fields[1].data_type().clone(), nullable)))
    }
    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.builtin.inner().output_ordering(input)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.builtin.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::Timestamp(unit, _) = args.args[1].data_type() else { return self.builtin.invoke_with_args(args) };
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let strides = args.args[0].to_array(rows)?;
        let times = args.args[1].to_array(rows)?;
        let origins = args.args.get(2).map(|origin| origin.to_array(rows)).transpose()?;
        let result = by_unit!(unit, binned(&strides, &times, origins.as_ref()))?;
        answered(result, scalar, args.return_field.data_type())
    }
}

fn binned<T: ArrowTimestampType>(strides: &ArrayRef, times: &ArrayRef, origins: Option<&ArrayRef>) -> Result<ArrayRef> {
    let strides = strides.as_primitive::<IntervalMonthDayNanoType>();
    let (times, origins) = (times.as_primitive::<T>(), origins.map(|origins| origins.as_primitive::<T>()));
    let value = |row: usize| -> Result<Option<i64>> {
        if strides.is_null(row) || times.is_null(row) || origins.is_some_and(|origins| origins.is_null(row)) {
            return Ok(None);
        }
        let (stride, time) = (strides.value(row), times.value(row));
        let origin = origins.map_or(0, |origins| origins.value(row));
        let nanos = i128::from(stride.days) * 86_400_000_000_000 + i128::from(stride.nanoseconds);
        match (stride.months, nanos) {
            (0, 1..) => bin_of_nanos(nanos, time, origin, 1_000_000_000 / i128::from(ticks_a_second(T::UNIT)))
                .map(Some)
                .ok_or_else(|| beyond().into()),
            (1.., 0) => Ok(Some(bin_of_months::<T>(stride.months, time, origin)?)),
            (0, _) | (..0, 0) => exec_err!("date_bin takes an interval of more than nothing"),
            _ => exec_err!("date_bin takes an interval of months, or of days and less, not of both"),
        }
    };
    let values = (0..times.len()).map(value).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(PrimitiveArray::<T>::from_iter(values)))
}

fn bin_of_nanos(stride: i128, time: i64, origin: i64, tick: i128) -> Option<i64> {
    let origin = i128::from(origin) * tick;
    let begin = origin + (i128::from(time) * tick - origin).div_euclid(stride) * stride;
    i64::try_from(begin.div_euclid(tick)).ok()
}

fn bin_of_months<T: ArrowTimestampType>(stride: i32, time: i64, origin: i64) -> Result<i64, ArrowError> {
    let (at, from) = (as_datetime::<T>(time).ok_or_else(beyond)?, as_datetime::<T>(origin).ok_or_else(beyond)?);
    let months = |of: NaiveDateTime| of.year() * 12 + of.month0() as i32;
    let bins = (months(at) - months(from)).div_euclid(stride);
    let begin = |bins: i32| -> Option<NaiveDateTime> {
        let step = bins.checked_mul(stride)?;
        let magnitude = Months::new(step.unsigned_abs());
        if step < 0 { from.checked_sub_months(magnitude) } else { from.checked_add_months(magnitude) }
    };
    // An origin within a month begins its bins there.
    let found = begin(bins).filter(|begin| *begin <= at).or_else(|| begin(bins - 1)).ok_or_else(beyond)?;
    ticks::<T>(found.and_utc())
}
