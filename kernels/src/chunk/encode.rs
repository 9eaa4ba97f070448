//! From Arrow arrays to a chunk: arrays are kept by reference until the last, then narrowed in two passes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBufferBuilder};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::*;

use super::integers::{Division, Frame, Native, frame_of, gcd, pack_values, range_of, rest_of};
use super::{Chunk, ChunkParts, LaneWidth, StringTable, Words};
use crate::error::{Decline, KernelError};
use crate::exact_float::{Exponents, exponent_range};
use crate::expr::ColumnType;
use crate::limits::{CHUNK_ROWS_MAX, DICTIONARY_VALUES_MAX, SORTED_DICTIONARY_VALUES_MAX};
use crate::total_order::TotalOrder;

/// Offsets looked at before the divisor is verified over all of them.
const SAMPLED_OFFSETS: usize = 256;

/// Doubles whose exponents are looked at together.
const EXPONENT_BLOCK_ROWS: usize = 1_024;

/// Encodes one column of one row group from Arrow arrays, in row order.
pub struct ChunkEncoder {
    column_type: ColumnType,
    row_count: usize,
    null_count: usize,
    /// Integer arrays as they came: references, not copies.
    arrays: Vec<ArrayRef>,
    array_bytes: usize,
    /// Each pushed array's rows and nulls.
    nulls: Vec<(usize, Option<NullBuffer>)>,
    strings: StringTable,
    codes: Vec<u32>,
}

/// Runs `$body` with `$values` as the native slice of an integer array.
macro_rules! with_native {
    ($array:expr, $values:ident => $body:expr) => {
        match $array.data_type() {
            DataType::Int8 => {
                let $values: &[i8] = $array.as_primitive::<Int8Type>().values();
                $body
            }
            DataType::Int16 => {
                let $values: &[i16] = $array.as_primitive::<Int16Type>().values();
                $body
            }
            DataType::Int32 => {
                let $values: &[i32] = $array.as_primitive::<Int32Type>().values();
                $body
            }
            DataType::Int64 => {
                let $values: &[i64] = $array.as_primitive::<Int64Type>().values();
                $body
            }
            DataType::UInt8 => {
                let $values: &[u8] = $array.as_primitive::<UInt8Type>().values();
                $body
            }
            DataType::UInt16 => {
                let $values: &[u16] = $array.as_primitive::<UInt16Type>().values();
                $body
            }
            DataType::UInt32 => {
                let $values: &[u32] = $array.as_primitive::<UInt32Type>().values();
                $body
            }
            DataType::UInt64 => {
                let $values: &[u64] = $array.as_primitive::<UInt64Type>().values();
                $body
            }
            DataType::Decimal32(..) => {
                let $values: &[i32] = $array.as_primitive::<Decimal32Type>().values();
                $body
            }
            DataType::Decimal64(..) => {
                let $values: &[i64] = $array.as_primitive::<Decimal64Type>().values();
                $body
            }
            DataType::Decimal128(..) => {
                let $values: &[i128] = $array.as_primitive::<Decimal128Type>().values();
                $body
            }
            DataType::Date32 => {
                let $values: &[i32] = $array.as_primitive::<Date32Type>().values();
                $body
            }
            DataType::Timestamp(TimeUnit::Second, _) => {
                let $values: &[i64] = $array.as_primitive::<TimestampSecondType>().values();
                $body
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                let $values: &[i64] = $array.as_primitive::<TimestampMillisecondType>().values();
                $body
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let $values: &[i64] = $array.as_primitive::<TimestampMicrosecondType>().values();
                $body
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                let $values: &[i64] = $array.as_primitive::<TimestampNanosecondType>().values();
                $body
            }
            other => return Err(KernelError::internal(format!("{other} among integers"))),
        }
    };
}

impl ChunkEncoder {
    /// An encoder for a column of this type.
    pub fn new(column_type: ColumnType) -> Self {
        Self {
            column_type,
            row_count: 0,
            null_count: 0,
            arrays: Vec::new(),
            array_bytes: 0,
            nulls: Vec::new(),
            strings: StringTable::new(DICTIONARY_VALUES_MAX),
            codes: Vec::new(),
        }
    }

    /// Adds the next rows. Integer arrays are kept by reference until [`Self::finish`].
    ///
    /// # Errors
    /// Declines arrays that do not hold the column's type and chunks over the limits.
    pub fn push(&mut self, array: &dyn Array) -> Result<(), KernelError> {
        if self.row_count + array.len() > CHUNK_ROWS_MAX {
            return Err(KernelError::declined(format!("more than {CHUNK_ROWS_MAX} rows in a chunk")));
        }
        if !holds(array.data_type(), self.column_type) {
            return Err(KernelError::declined(format!("{} where {:?} is expected", array.data_type(), self.column_type)));
        }
        let nulls = if self.column_type == ColumnType::Utf8 {
            self.push_strings(array)?
        } else {
            let kept: ArrayRef = match array.as_primitive_opt::<Float64Type>() {
                Some(doubles) => Arc::new(doubles.unary::<_, Int64Type>(|value| TotalOrder::of(value).place())),
                None => array.slice(0, array.len()),
            };
            self.array_bytes += kept.get_buffer_memory_size();
            self.arrays.push(kept);
            array.logical_nulls()
        };
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        self.null_count += nulls.as_ref().map_or(0, NullBuffer::null_count);
        self.row_count += array.len();
        self.nulls.push((array.len(), nulls));
        Ok(())
    }

    /// Bytes that it holds, and takes to order its strings.
    pub fn memory_bytes(&self) -> u64 {
        (self.array_bytes + self.codes.capacity() * size_of::<u32>() + 2 * self.strings.memory_bytes()) as u64
    }

    /// Narrows what was pushed.
    ///
    /// # Errors
    /// Declines values that spread over more than 64 bits (after their common divisor) or leave the column's type.
    pub fn finish(self) -> Result<Chunk, KernelError> {
        let (validity, exponents) = (self.validity(), self.exponents());
        let mut dictionary = None;
        let (frame, lanes) = match self.column_type {
            ColumnType::Utf8 => {
                let lane_max = self.strings.len().saturating_sub(1) as u64;
                let frame = Frame { base: 0, factor: 1, lane_max, lane_width: LaneWidth::fitting(lane_max) };
                let mut lanes = Words::zeroed(self.row_count * frame.lane_width.bytes());
                let (strings, mut codes) = (self.strings, self.codes);
                dictionary = Some(if strings.len() <= SORTED_DICTIONARY_VALUES_MAX {
                    let (sorted, places) = strings.into_sorted_array();
                    // There is no place where every row is NULL.
                    codes.iter_mut().for_each(|code| *code = places.get(*code as usize).copied().unwrap_or(0));
                    sorted
                } else {
                    strings.into_array()
                });
                let nulls = validity.as_ref().map(|validity: &Words| {
                    let bits = BooleanBuffer::new(Buffer::from_slice_ref(validity.as_slice::<u8>()), 0, self.row_count);
                    NullBuffer::new(bits)
                });
                pack_values(&codes, nulls.as_ref(), &frame, &mut lanes, 0);
                (frame, lanes)
            }
            ColumnType::Boolean => self.booleans(),
            _ => self.integers()?,
        };
        Ok(Chunk::new(ChunkParts {
            column_type: self.column_type,
            row_count: self.row_count,
            base: frame.base,
            factor: frame.factor,
            lane_max: frame.lane_max,
            lane_width: frame.lane_width,
            lanes,
            validity,
            null_count: self.null_count,
            dictionary,
            exponents,
            // Dictionaries may have come with strings that no row has.
            is_tight: !matches!(self.column_type, ColumnType::Utf8 | ColumnType::Boolean),
        }))
    }

    fn validity(&self) -> Option<Words> {
        if self.null_count == 0 {
            return None;
        }
        let mut bits = BooleanBufferBuilder::new(self.row_count);
        for (rows, nulls) in &self.nulls {
            match nulls {
                Some(nulls) => bits.append_buffer(nulls.inner()),
                None => bits.append_n(*rows, true),
            }
        }
        Some(Words::of_bytes(bits.as_slice()))
    }

    /// See [`ChunkParts::exponents`].
    fn exponents(&self) -> Option<(u64, u64)> {
        if self.column_type != ColumnType::Float64 {
            return None;
        }
        let mut doubles = vec![0.0; EXPONENT_BLOCK_ROWS];
        let mut range: Option<(u64, u64)> = None;
        for (array, (_, nulls)) in self.arrays.iter().zip(&self.nulls) {
            let places: &[i64] = array.as_primitive::<Int64Type>().values();
            for (block, places) in places.chunks(EXPONENT_BLOCK_ROWS).enumerate() {
                for (row, (double, place)) in doubles.iter_mut().zip(places).enumerate() {
                    let known = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(block * EXPONENT_BLOCK_ROWS + row));
                    *double = if known { TotalOrder::at(*place).value() } else { 0.0 };
                }
                match exponent_range(&doubles[..places.len()]) {
                    Exponents::Unbounded => return None,
                    Exponents::Zero => {}
                    Exponents::Within(least, greatest) => {
                        let (least_so_far, greatest_so_far) = range.unwrap_or((least, greatest));
                        range = Some((least_so_far.min(least), greatest_so_far.max(greatest)));
                    }
                }
            }
        }
        // Zeros alone have whatever exponent.
        range.or(Some((1, 1)))
    }

    fn booleans(&self) -> (Frame, Words) {
        let frame = Frame { base: 0, factor: 1, lane_max: 1, lane_width: LaneWidth::U8 };
        let mut lanes = Words::zeroed(self.row_count);
        let mut rows = lanes.as_mut_slice::<u8>().iter_mut();
        for array in &self.arrays {
            let array = array.as_boolean();
            for (row, lane) in (0..array.len()).zip(&mut rows) {
                *lane = u8::from(array.is_valid(row) && array.value(row));
            }
        }
        (frame, lanes)
    }

    fn integers(&self) -> Result<(Frame, Words), KernelError> {
        let mut range: Option<(i128, i128)> = None;
        for (array, (_, nulls)) in self.arrays.iter().zip(&self.nulls) {
            let found = with_native!(array, values => range_of(values, nulls.as_ref()));
            range = match (range, found) {
                (Some(left), Some(right)) => Some((left.0.min(right.0), left.1.max(right.1))),
                (left, right) => left.or(right),
            };
        }
        let range = range.unwrap_or((0, 0));
        self.check_range(range)?;
        let sampled = self.sampled_divisor(range.0)?;
        let proven = self.divides_all(range, sampled)?;
        let fold = |visit: &mut dyn FnMut(u128) -> bool| {
            if proven {
                return;
            }
            // The types were checked in the pass above.
            let _ = self.visit_offsets(range.0, visit);
        };
        let frame = frame_of(range, sampled, fold)?;
        let mut lanes = Words::zeroed(self.row_count * frame.lane_width.bytes());
        let mut start = 0;
        for (array, (rows, nulls)) in self.arrays.iter().zip(&self.nulls) {
            with_native!(array, values => pack_values(values, nulls.as_ref(), &frame, &mut lanes, start));
            start += rows;
        }
        Ok((frame, lanes))
    }

    fn check_range(&self, (low, high): (i128, i128)) -> Result<(), Decline> {
        let inside = match self.column_type.arithmetic_range() {
            None if self.column_type == ColumnType::Float64 => true,
            // i128::MIN stays free as the mark of NULL in group keys; no decimal of 38 digits reaches it.
            Some((least, greatest)) => low >= least && high <= greatest && low != i128::MIN,
            None => false,
        };
        if inside { Ok(()) } else { Err(Decline::new(format!("values outside {:?}", self.column_type))) }
    }

    /// The GCD of some offsets from `base`: 1 in most columns, which settles the matter without a pass.
    fn sampled_divisor(&self, base: i128) -> Result<u128, KernelError> {
        let (mut divisor, mut seen) = (0, 0);
        self.visit_offsets(base, &mut |offset| {
            divisor = gcd(divisor, offset);
            seen += 1;
            divisor != 1 && seen < SAMPLED_OFFSETS
        })?;
        Ok(divisor.max(1))
    }

    /// Whether `divisor` divides every offset, as far as fast loops can tell: columns with NULLs take the slow way.
    fn divides_all(&self, (base, high): (i128, i128), divisor: u128) -> Result<bool, KernelError> {
        let (Ok(divisor), Ok(spread)) = (u64::try_from(divisor), u64::try_from(high.wrapping_sub(base))) else {
            return Ok(false);
        };
        if divisor <= 1 || self.null_count > 0 || LaneWidth::fitting(spread / divisor) == LaneWidth::fitting(spread) {
            return Ok(false);
        }
        let division = Division::new(divisor, spread);
        for array in &self.arrays {
            if with_native!(array, values => rest_of(values, base as u64, division)) != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn visit_offsets(&self, base: i128, visit: &mut dyn FnMut(u128) -> bool) -> Result<(), KernelError> {
        for (array, (_, nulls)) in self.arrays.iter().zip(&self.nulls) {
            if !with_native!(array, values => visit_values(values, nulls.as_ref(), base, visit)) {
                break;
            }
        }
        Ok(())
    }

    fn push_strings(&mut self, array: &dyn Array) -> Result<Option<NullBuffer>, KernelError> {
        match array.data_type() {
            DataType::Utf8 => self.intern_all(array.as_string::<i32>().iter())?,
            DataType::LargeUtf8 => self.intern_all(array.as_string::<i64>().iter())?,
            DataType::Utf8View => self.intern_all(array.as_string_view().iter())?,
            _ => {
                let array = array.as_any_dictionary();
                let values = array.values();
                if values.is_empty() {
                    // Every row is NULL; `normalized_keys` panics over no values.
                    self.codes.resize(self.codes.len() + array.len(), 0);
                    return Ok(array.logical_nulls());
                }
                // Map each value that is used once, then rows by their key.
                let mut mapping: Vec<Option<u32>> = vec![None; values.len()];
                let nulls = array.logical_nulls();
                for (row, key) in array.normalized_keys().into_iter().enumerate() {
                    if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                        self.codes.push(0);
                        continue;
                    }
                    let code = match mapping.get(key).copied().flatten() {
                        Some(code) => code,
                        None => {
                            let value = match values.data_type() {
                                DataType::Utf8 => values.as_string::<i32>().value(key),
                                DataType::LargeUtf8 => values.as_string::<i64>().value(key),
                                _ => values.as_string_view().value(key),
                            };
                            let code = self.strings.intern(value)?;
                            mapping[key] = Some(code);
                            code
                        }
                    };
                    self.codes.push(code);
                }
                return Ok(nulls);
            }
        }
        Ok(array.logical_nulls())
    }

    fn intern_all<'a>(&mut self, values: impl Iterator<Item = Option<&'a str>>) -> Result<(), KernelError> {
        self.codes.reserve(values.size_hint().0);
        for value in values {
            let code = value.map_or(Ok(0), |value| self.strings.intern(value))?;
            self.codes.push(code);
        }
        Ok(())
    }
}

/// Offsets from `base` of the values that are not NULL; false once `visit` has enough.
fn visit_values<T: Native>(values: &[T], nulls: Option<&NullBuffer>, base: i128, visit: &mut dyn FnMut(u128) -> bool) -> bool {
    for (row, value) in values.iter().enumerate() {
        if nulls.is_none_or(|nulls| nulls.is_valid(row)) && !visit(value.wide().wrapping_sub(base) as u128) {
            return false;
        }
    }
    true
}

/// Whether arrays of `data_type` may feed a column of `column_type`.
fn holds(data_type: &DataType, column_type: ColumnType) -> bool {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match column_type {
        ColumnType::Boolean => matches!(data_type, DataType::Boolean),
        ColumnType::Utf8 => match data_type {
            DataType::Dictionary(_, values) => is_text(values),
            other => is_text(other),
        },
        ColumnType::Decimal128 { scale, .. } => {
            matches!(data_type, DataType::Decimal32(_, found) | DataType::Decimal64(_, found) | DataType::Decimal128(_, found) if *found == scale)
        }
        ColumnType::Int { .. } => data_type.is_integer(),
        ColumnType::Date32 => matches!(data_type, DataType::Date32 | DataType::Int32),
        ColumnType::Timestamp => matches!(data_type, DataType::Timestamp(..) | DataType::Int64),
        ColumnType::Float64 => matches!(data_type, DataType::Float64),
    }
}
