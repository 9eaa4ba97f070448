//! Names of types that other systems have and their tools write, in CREATE TABLE and in casts: the planner knows one name of each type, and a few more.

use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use datafusion::common::Result;
use datafusion::common::datatype::DataTypeExt;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{DataType as Name, ExactNumberInfo, TimezoneInfo};

/// Bits of a FLOAT's significand that a REAL has.
const REAL_BITS: u64 = 24;
const DOUBLE_BITS: u64 = 53;

/// Knows those names; what it does not know is the planner's.
#[derive(Debug)]
pub struct TypeNames;

impl TypePlanner for TypeNames {
    fn plan_type_field(&self, name: &Name) -> Result<Option<FieldRef>> {
        Ok(meant(name).map(DataType::into_nullable_field_ref))
    }
}

fn meant(name: &Name) -> Option<DataType> {
    match name {
        // SQL's own names, and what SHOW CREATE TABLE writes, are among these.
        Name::Binary(_) | Name::Varbinary(_) | Name::Blob(_) | Name::TinyBlob | Name::MediumBlob | Name::LongBlob | Name::Bytes(_) => {
            Some(DataType::Binary)
        }
        Name::Character(_)
        | Name::CharacterVarying(_)
        | Name::CharVarying(_)
        | Name::CharacterLargeObject(_)
        | Name::CharLargeObject(_)
        | Name::Clob(_)
        | Name::Nvarchar(_)
        | Name::TinyText
        | Name::MediumText
        | Name::LongText => Some(DataType::Utf8View),
        Name::Bit(None | Some(1)) => Some(DataType::Boolean),
        Name::MediumInt(_) => Some(DataType::Int32),
        Name::Float(ExactNumberInfo::Precision(bits)) if (REAL_BITS + 1..=DOUBLE_BITS).contains(bits) => Some(DataType::Float64),
        // Years 1 to 9999 and beyond; nanoseconds end in 2262.
        Name::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
        // Other numbers of digits are kept in the next unit that there is.
        Name::Timestamp(Some(1 | 2), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            Some(DataType::Timestamp(TimeUnit::Millisecond, None))
        }
        Name::Timestamp(Some(4 | 5), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, None))
        }
        Name::Timestamp(Some(7 | 8), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            Some(DataType::Timestamp(TimeUnit::Nanosecond, None))
        }
        Name::Datetime(Some(7..=9)) => Some(DataType::Timestamp(TimeUnit::Nanosecond, None)),
        Name::Datetime(None | Some(4..=6)) => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
        Name::Datetime(Some(1..=3)) => Some(DataType::Timestamp(TimeUnit::Millisecond, None)),
        Name::Datetime(Some(0)) => Some(DataType::Timestamp(TimeUnit::Second, None)),
        Name::Time(Some(0..=9), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => Some(DataType::Time64(TimeUnit::Nanosecond)),
        // Spark's.
        Name::Custom(name, arguments) if arguments.is_empty() && name.to_string().eq_ignore_ascii_case("byte") => Some(DataType::Int8),
        _ => None,
    }
}
