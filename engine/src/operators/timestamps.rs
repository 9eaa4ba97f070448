//! What the functions over timestamps share: units, zones, and clocks that skip or repeat an hour.

use arrow::array::timezone::Tz;
use arrow::array::types::ArrowTimestampType;
use arrow::array::{ArrayRef, temporal_conversions::as_datetime};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use chrono::{DateTime, Datelike, Days, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone, Utc};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::ColumnarValue;

/// Calls `$work::<T>($arguments)` for the arrow type of a unit.
macro_rules! by_unit {
    ($unit:expr, $work:ident($($argument:expr),*)) => {
        match $unit {
            arrow::datatypes::TimeUnit::Second => $work::<arrow::datatypes::TimestampSecondType>($($argument),*),
            arrow::datatypes::TimeUnit::Millisecond => $work::<arrow::datatypes::TimestampMillisecondType>($($argument),*),
            arrow::datatypes::TimeUnit::Microsecond => $work::<arrow::datatypes::TimestampMicrosecondType>($($argument),*),
            arrow::datatypes::TimeUnit::Nanosecond => $work::<arrow::datatypes::TimestampNanosecondType>($($argument),*),
        }
    };
}
pub(super) use by_unit;

/// How many of a unit a second has.
pub fn ticks_a_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Whether a clock in the zone is the one that instants are counted by.
pub fn is_utc(zone: &str) -> bool {
    ["utc", "z", "+00:00", "etc/utc", "gmt"].iter().any(|name| zone.eq_ignore_ascii_case(name))
}

/// The zone of that name.
///
/// # Errors
/// When there is none, with what to write.
pub fn zone_named(zone: &str) -> Result<Tz> {
    zone.parse().map_err(|_| exec_datafusion_err!("{zone} is no time zone: write a name like Europe/Berlin, or +01:00"))
}

pub(super) fn beyond() -> ArrowError {
    ArrowError::ComputeError("a time is beyond what a TIMESTAMP holds".into())
}

/// What a value of a column is in UTC; `None` beyond the years that chrono has.
pub(super) fn utc<T: ArrowTimestampType>(value: i64) -> Option<DateTime<Utc>> {
    as_datetime::<T>(value).map(|at| at.and_utc())
}

pub(super) fn ticks<T: ArrowTimestampType>(at: DateTime<Utc>) -> Result<i64, ArrowError> {
    T::from_datetime(at).ok_or_else(beyond)
}

/// What a clock in the zone shows. (chrono's own method panics at the ends of its years.)
pub(super) fn wall_clock(at: DateTime<Utc>, tz: &Tz) -> Option<NaiveDateTime> {
    let utc = at.naive_utc();
    let within = utc.checked_add_signed(into_the_table(utc, tz)).unwrap_or(utc);
    utc.checked_add_offset(tz.offset_from_utc_datetime(&within).fix())
}

/// The last year for which the table of zones lists when clocks change.
const LAST_LISTED_YEAR: i32 = 2099;
/// Among so many years, each weekday begins a leap year and a common one.
const CYCLE_YEARS: i32 = 28;

/// How far the table's latest year of the same calendar is from a time beyond it. The rules of summer time go by weekdays, so that they give that year
/// the same changes, as in Postgres. A zone whose clocks do not change at the end of the table changes them no more.
fn into_the_table(time: NaiveDateTime, tz: &Tz) -> TimeDelta {
    let new_year = |year| NaiveDate::from_ymd_opt(year, 1, 1);
    let in_july = |year| NaiveDate::from_ymd_opt(year, 7, 1);
    let year = time.year();
    let offset = |day: Option<NaiveDate>| day.map(|day| tz.offset_from_utc_datetime(&day.and_time(NaiveTime::MIN)).fix());
    if year <= LAST_LISTED_YEAR || offset(new_year(LAST_LISTED_YEAR)) == offset(in_july(LAST_LISTED_YEAR)) {
        return TimeDelta::zero();
    }
    let calendar = |year| new_year(year).map(|day| (day.weekday(), day.leap_year()));
    let alike = (0..CYCLE_YEARS).map(|ago| LAST_LISTED_YEAR - ago).find(|listed| calendar(*listed) == calendar(year));
    let shift = alike.and_then(|alike| Some(new_year(alike)?.signed_duration_since(new_year(year)?)));
    shift.unwrap_or_default()
}

/// The instant at which a clock in the zone shows `wall`.
pub(super) fn instant_at(wall: NaiveDateTime, tz: &Tz) -> Option<DateTime<Utc>> {
    let shift = into_the_table(wall, tz);
    if !shift.is_zero() {
        return instant_listed(wall.checked_add_signed(shift)?, tz)?.checked_sub_signed(shift);
    }
    instant_listed(wall, tz)
}

fn instant_listed(wall: NaiveDateTime, tz: &Tz) -> Option<DateTime<Utc>> {
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

/// The value of one row, or an array of many. What was computed of timestamps knows no zone yet, and gets that of its type.
pub(super) fn answered(result: ArrayRef, is_scalar: bool, data_type: &DataType) -> Result<ColumnarValue> {
    let result = match data_type {
        DataType::Timestamp(unit, Some(_)) => arrow::compute::cast(&result, &DataType::Timestamp(*unit, Some("UTC".into())))?,
        _ => result,
    };
    let result = arrow::compute::cast(&result, data_type)?;
    Ok(if is_scalar { ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?) } else { ColumnarValue::Array(result) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By Postgres, whose zones have rules and no end.
    #[test]
    fn summer_time_goes_on() {
        let at = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap();
        let tz: Tz = "Europe/Berlin".parse().unwrap();
        for (utc, wall) in [
            ("2099-07-01 10:00", "2099-07-01 12:00"),
            ("2100-07-01 10:00", "2100-07-01 12:00"),
            ("2400-12-31 23:30", "2401-01-01 00:30"),
            ("9999-03-28 00:59", "9999-03-28 01:59"),
            ("9999-03-28 01:00", "9999-03-28 03:00"),
            ("9999-10-31 01:00", "9999-10-31 02:00"),
        ] {
            assert_eq!(wall_clock(at(utc).and_utc(), &tz), Some(at(wall)), "{utc}");
            assert_eq!(instant_at(at(wall), &tz), Some(at(utc).and_utc()), "{wall}");
        }
        let tz: Tz = "Africa/Casablanca".parse().unwrap();
        assert_eq!(wall_clock(at("2150-01-01 00:00").and_utc(), &tz), Some(at("2150-01-01 01:00")));
    }

    #[test]
    fn the_ends_of_all_years_are_no_panic() {
        let west = zone_named("America/Denver").unwrap();
        let east = zone_named("Asia/Tokyo").unwrap();
        assert_eq!(wall_clock(DateTime::<Utc>::MIN_UTC, &west), None);
        assert_eq!(wall_clock(DateTime::<Utc>::MAX_UTC, &east), None);
        assert_eq!(instant_at(NaiveDateTime::MIN, &east), None);
        assert_eq!(instant_at(NaiveDateTime::MAX, &west), None);
    }
}
