//! Which type holds the values of two columns, and which types a value can be brought into without loss.
//!
//! All types here are announced ones ([`announced`](super::announced)), or those that a column list declares. A type that holds both is found
//! even where a value in it may be beyond (BIGINT beside DOUBLE): then each value is checked when it is read.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, Fields, TimeUnit};
use std::sync::Arc;

/// The narrowest type for the values of both; `None` where there is none.
pub fn common_type(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::*;
    if left == right {
        return Some(left.clone());
    }
    match (left, right) {
        (Null, other) | (other, Null) => Some(other.clone()),
        (Timestamp(a, zone), Timestamp(b, other)) if zone.is_some() == other.is_some() => {
            // The same instants, whatever zone a writer shows them in.
            let zone = if zone == other { zone.clone() } else { Some("UTC".into()) };
            Some(Timestamp(finer(*a, *b), zone))
        }
        (Date32, Timestamp(unit, None)) | (Timestamp(unit, None), Date32) => Some(Timestamp(*unit, None)),
        (Time32(a) | Time64(a), Time32(b) | Time64(b)) => Some(time(finer(*a, *b))),
        (Duration(a), Duration(b)) => Some(Duration(finer(*a, *b))),
        (Binary, FixedSizeBinary(_)) | (FixedSizeBinary(_), Binary | FixedSizeBinary(_)) => Some(Binary),
        (List(a) | FixedSizeList(a, _), List(b) | FixedSizeList(b, _)) => Some(List(Arc::new(common_field(a, b)?))),
        (Struct(a), Struct(b)) => common_fields(a, b).map(Struct),
        (Map(a, sorted), Map(b, also)) => Some(Map(Arc::new(common_entries(a, b)?), *sorted && *also)),
        _ => common_number(left, right),
    }
}

/// A field of both: NULL may stand in it where it may in one of them.
fn common_field(left: &Field, right: &Field) -> Option<Field> {
    let data_type = common_type(left.data_type(), right.data_type())?;
    Some(Field::new(left.name(), data_type, left.is_nullable() || right.is_nullable()))
}

/// By name, as columns are: what one of them lacks is NULL there.
fn common_fields(left: &Fields, right: &Fields) -> Option<Fields> {
    let of_left = left.iter().map(|field| match right.iter().find(|other| other.name() == field.name()) {
        Some(other) => common_field(field, other),
        None => Some(field.as_ref().clone().with_nullable(true)),
    });
    let strangers = right.iter().filter(|field| !left.iter().any(|other| other.name() == field.name()));
    let strangers = strangers.map(|field| Some(field.as_ref().clone().with_nullable(true)));
    of_left.chain(strangers).collect()
}

/// Key and value by place: writers name them as they like.
fn common_entries(left: &Field, right: &Field) -> Option<Field> {
    let (DataType::Struct(a), DataType::Struct(b)) = (left.data_type(), right.data_type()) else { return None };
    if a.len() != 2 || b.len() != 2 {
        return None;
    }
    let fields = a.iter().zip(b).map(|(a, b)| common_field(a, b)).collect::<Option<Fields>>()?;
    Some(Field::new(left.name(), DataType::Struct(fields), false))
}

fn finer(left: TimeUnit, right: TimeUnit) -> TimeUnit {
    left.max(right)
}

fn time(unit: TimeUnit) -> DataType {
    match unit {
        TimeUnit::Second | TimeUnit::Millisecond => DataType::Time32(unit),
        TimeUnit::Microsecond | TimeUnit::Nanosecond => DataType::Time64(unit),
    }
}

/// Bits and sign of an integer type.
fn integer(data_type: &DataType) -> Option<(u8, bool)> {
    Some(match data_type {
        DataType::Int8 => (8, true),
        DataType::Int16 => (16, true),
        DataType::Int32 => (32, true),
        DataType::Int64 => (64, true),
        DataType::UInt8 => (8, false),
        DataType::UInt16 => (16, false),
        DataType::UInt32 => (32, false),
        DataType::UInt64 => (64, false),
        _ => return None,
    })
}

fn integer_type(bits: u8, signed: bool) -> DataType {
    match (bits, signed) {
        (8, true) => DataType::Int8,
        (16, true) => DataType::Int16,
        (32, true) => DataType::Int32,
        (_, true) => DataType::Int64,
        (8, false) => DataType::UInt8,
        (16, false) => DataType::UInt16,
        (32, false) => DataType::UInt32,
        (_, false) => DataType::UInt64,
    }
}

/// Digits before and after the point of every value of an exact number type.
fn digits(data_type: &DataType) -> Option<(i16, i16)> {
    if let Some((bits, signed)) = integer(data_type) {
        let before = match (bits, signed) {
            (8, _) => 3,
            (16, _) => 5,
            (32, _) => 10,
            (_, true) => 19,
            (_, false) => 20,
        };
        return Some((before, 0));
    }
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => Some((i16::from(*precision) - i16::from(*scale), i16::from(*scale))),
        _ => None,
    }
}

fn decimal(before: i16, after: i16) -> Option<DataType> {
    let (precision, scale) = (u8::try_from(before + after).ok()?, i8::try_from(after).ok()?);
    match precision {
        1..=DECIMAL128_MAX_PRECISION => Some(DataType::Decimal128(precision, scale)),
        _ => (precision <= DECIMAL256_MAX_PRECISION).then_some(DataType::Decimal256(precision, scale)),
    }
}

fn is_number(data_type: &DataType) -> bool {
    digits(data_type).is_some() || data_type.is_floating()
}

fn common_number(left: &DataType, right: &DataType) -> Option<DataType> {
    if let (Some((a, a_signed)), Some((b, b_signed))) = (integer(left), integer(right)) {
        if a_signed == b_signed {
            return Some(integer_type(a.max(b), a_signed));
        }
        let (signed, unsigned) = if a_signed { (a, b) } else { (b, a) };
        return if unsigned < 64 { Some(integer_type(signed.max(unsigned * 2), true)) } else { decimal(20, 0) };
    }
    if let (Some((before, after)), Some((other_before, other_after))) = (digits(left), digits(right)) {
        return decimal(before.max(other_before), after.max(other_after));
    }
    if !is_number(left) || !is_number(right) {
        return None;
    }
    let small = |of: &DataType| matches!(of, DataType::Float16 | DataType::Float32) || matches!(integer(of), Some((8 | 16, _)));
    Some(if small(left) && small(right) { DataType::Float32 } else { DataType::Float64 })
}

/// Whether a column list may ask for a column of this type in that one. Values are checked when they are read.
pub fn may_become(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    let is_text = |of: &DataType| matches!(of, Utf8 | LargeUtf8 | Utf8View);
    let is_bytes = |of: &DataType| matches!(of, Binary | LargeBinary | BinaryView);
    // Bytes become no text: scans would take them for text without a look at them.
    let layouts = (is_text(from) && (is_text(to) || is_bytes(to))) || (is_bytes(from) && is_bytes(to));
    if from == to || *from == Null || (is_number(from) && is_number(to)) || layouts {
        return true;
    }
    match (from, to) {
        (Timestamp(_, zone), Timestamp(_, other)) => zone.is_some() == other.is_some(),
        (Date32, Timestamp(_, None)) | (Timestamp(_, None), Date32) => true,
        (Time32(_) | Time64(_), Time32(_) | Time64(_)) | (Duration(_), Duration(_)) => true,
        (FixedSizeBinary(_), Binary | BinaryView | LargeBinary) => true,
        // Digits as text read the same everywhere.
        (from, Utf8 | Utf8View | LargeUtf8) => integer(from).is_some(),
        (List(a) | FixedSizeList(a, _), List(b)) => may_become(a.data_type(), b.data_type()),
        (Struct(a), Struct(b)) => {
            let known = |field: &Arc<Field>| match a.iter().find(|other| other.name() == field.name()) {
                Some(other) => may_become(other.data_type(), field.data_type()),
                None => field.is_nullable(),
            };
            b.iter().all(known)
        }
        (Map(a, _), Map(b, _)) => match (a.data_type(), b.data_type()) {
            (Struct(a), Struct(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| may_become(a.data_type(), b.data_type())),
            _ => false,
        },
        _ => false,
    }
}

/// Whether every value has an equal in the other type, in the same order: comparisons may be made in either.
pub fn holds_all(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    match (from, to) {
        (Dictionary(_, value), _) => **value == *to || holds_all(value, to),
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View) => true,
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Binary | LargeBinary | BinaryView) => true,
        (Float16, Float32 | Float64) | (Float32, Float64) => true,
        (Date64, _) | (_, Date64) => false,
        _ => match (integer(from), integer(to)) {
            (Some((bits, signed)), Some((wider, also))) => {
                if signed == also {
                    wider >= bits
                } else {
                    also && wider > bits
                }
            }
            _ => match (digits(from), digits(to)) {
                (Some((before, after)), Some((wider, more))) if integer(to).is_none() => wider >= before && more >= after,
                _ => matches!((integer(from), to), (Some((8 | 16, _)), Float32) | (Some((8 | 16 | 32, _)), Float64)),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataType::*;

    #[test]
    fn numbers_meet_in_the_narrowest_type_that_holds_both() {
        let cases = [
            (Int32, Int64, Some(Int64)),
            (UInt8, Int8, Some(Int16)),
            (UInt32, Int8, Some(Int64)),
            (UInt64, Int8, Some(Decimal128(20, 0))),
            (Float32, Float64, Some(Float64)),
            (Int16, Float32, Some(Float32)),
            (Int32, Float32, Some(Float64)),
            (Int64, Decimal128(9, 2), Some(Decimal128(21, 2))),
            (Decimal128(38, 0), Decimal128(10, 4), Some(Decimal256(42, 4))),
            (Decimal256(76, 0), Decimal128(10, 4), None),
            (Int32, Utf8, None),
            (Boolean, Int8, None),
        ];
        for (left, right, common) in cases {
            assert_eq!(common_type(&left, &right), common, "{left} and {right}");
            assert_eq!(common_type(&right, &left), common, "{right} and {left}");
        }
    }

    #[test]
    fn only_casts_without_loss_hold_all() {
        let kept = [
            (Int32, Int64),
            (UInt32, Int64),
            (Int32, Decimal128(12, 2)),
            (Decimal128(9, 2), Decimal128(11, 4)),
            (Int32, Float64),
            (Float32, Float64),
        ];
        assert!(kept.iter().all(|(from, to)| holds_all(from, to)));
        let lost = [
            (Int64, Float64),
            (UInt64, Int64),
            (Int32, Decimal128(9, 0)),
            (Decimal128(9, 2), Decimal128(9, 3)),
            (Decimal128(9, 2), Int64),
            (Date32, Timestamp(TimeUnit::Nanosecond, None)),
            (Utf8, Int64),
        ];
        assert!(lost.iter().all(|(from, to)| !holds_all(from, to)));
    }
}
