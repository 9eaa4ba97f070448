//! `sum` and `avg` of integers and decimals: the exact total, or an error where the result's type cannot hold it. Never a total that wrapped.
//!
//! A running total keeps its low bits in the column's own type and counts apart how often they ran over, so that rows may come in any
//! order: what matters is the total alone. States are decimals of 38 digits, or of 76 where values have more than 28.

use super::exact_aggregates::{Answer, column};
use crate::sql_types::declared_type;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, UInt64Array};
use arrow::datatypes::{DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Int64Type, UInt64Type, i256};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, internal_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::accumulate::{NullState, accumulate};
use std::marker::PhantomData;
use std::sync::Arc;

/// Digits of values whose total over ten thousand million rows a decimal of 38 digits holds.
const NARROW_DIGITS_MAX: u8 = 28;

/// The type in which a total over values of `data_type` travels; `None` where they are no integers or decimals.
pub(super) fn total_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Int64 | DataType::UInt64 => DataType::Decimal128(Decimal128Type::MAX_PRECISION, 0),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) | DataType::Decimal128(precision, scale)
            if *precision <= NARROW_DIGITS_MAX =>
        {
            DataType::Decimal128(Decimal128Type::MAX_PRECISION, *scale)
        }
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => DataType::Decimal256(Decimal256Type::MAX_PRECISION, *scale),
        _ => return None,
    })
}

/// What is added up, and as what it is answered.
#[derive(Debug, Clone)]
pub(super) struct Total {
    pub answer: Answer,
    /// The aggregate as its query names it, for errors.
    pub name: String,
    pub input: DataType,
    pub result: DataType,
}

/// The accumulator of one group, or of a window frame.
pub(super) fn accumulator(total: Total) -> Result<Box<dyn Accumulator>> {
    Ok(match total.input {
        DataType::Int64 => Box::new(ExactTotal::<Int64Type>::new(total)),
        DataType::UInt64 => Box::new(ExactTotal::<UInt64Type>::new(total)),
        DataType::Decimal32(..) => Box::new(ExactTotal::<Decimal32Type>::new(total)),
        DataType::Decimal64(..) => Box::new(ExactTotal::<Decimal64Type>::new(total)),
        DataType::Decimal128(..) => Box::new(ExactTotal::<Decimal128Type>::new(total)),
        DataType::Decimal256(..) => Box::new(ExactTotal::<Decimal256Type>::new(total)),
        other => return internal_err!("an exact total of {other}"),
    })
}

/// The accumulator of many groups.
pub(super) fn groups_accumulator(total: Total) -> Result<Box<dyn GroupsAccumulator>> {
    Ok(match total.input {
        DataType::Int64 => Box::new(ExactTotals::<Int64Type>::new(total)),
        DataType::UInt64 => Box::new(ExactTotals::<UInt64Type>::new(total)),
        DataType::Decimal32(..) => Box::new(ExactTotals::<Decimal32Type>::new(total)),
        DataType::Decimal64(..) => Box::new(ExactTotals::<Decimal64Type>::new(total)),
        DataType::Decimal128(..) => Box::new(ExactTotals::<Decimal128Type>::new(total)),
        DataType::Decimal256(..) => Box::new(ExactTotals::<Decimal256Type>::new(total)),
        other => return internal_err!("exact totals of {other}"),
    })
}

/// A type whose values add up to low bits and a number of times that they ran over.
trait Carrying: ArrowPrimitiveType + Send + Sync {
    /// Adds a value, and gives how often that ran over: 0, 1 or -1.
    fn add(low: &mut Self::Native, value: Self::Native) -> i64;
    /// Takes a value away, and gives how often that ran over.
    fn take(low: &mut Self::Native, value: Self::Native) -> i64;
    /// The total; `None` beyond 256 bits.
    fn total(low: Self::Native, carry: i64) -> Option<i256>;
    /// A total as low bits and how often they ran over.
    fn parts(total: i256) -> (Self::Native, i64);
    /// The same for a total of 128 bits.
    fn narrow_parts(total: i128) -> (Self::Native, i64);
    /// Totals that never ran over, in 128 bits; `None` for a type that is wider.
    fn widened(lows: Vec<Self::Native>) -> Option<Vec<i128>>;
    /// Adds all values.
    fn add_all(low: &mut Self::Native, carry: &mut i64, values: &[Self::Native]) {
        values.iter().for_each(|value| *carry += Self::add(low, *value));
    }
}

/// A signed native integer of fewer than 256 bits.
macro_rules! carrying {
    ($arrow:ty, $native:ty) => {
        impl Carrying for $arrow {
            fn add(low: &mut $native, value: $native) -> i64 {
                let (sum, over) = low.overflowing_add(value);
                *low = sum;
                if !over {
                    0
                } else if value < 0 {
                    -1
                } else {
                    1
                }
            }
            fn take(low: &mut $native, value: $native) -> i64 {
                let (difference, over) = low.overflowing_sub(value);
                *low = difference;
                if !over {
                    0
                } else if value < 0 {
                    1
                } else {
                    -1
                }
            }
            fn total(low: $native, carry: i64) -> Option<i256> {
                let carried = i256::from_i128(carry.into()).checked_mul(power_of_two(<$native>::BITS))?;
                i256::from_i128(low.into()).checked_add(carried)
            }
            fn parts(total: i256) -> ($native, i64) {
                let low = total.as_i128() as $native;
                let carry = total.wrapping_sub(i256::from_i128(low.into())) >> (<$native>::BITS as u8);
                (low, carry.as_i128() as i64)
            }
            fn narrow_parts(total: i128) -> ($native, i64) {
                let low = total as $native;
                // Of 128 bits nothing is left over; of fewer, the shift is one that there is.
                let rest = (total - i128::from(low)).checked_shr(<$native>::BITS).unwrap_or(0);
                (low, rest as i64)
            }
            fn widened(lows: Vec<$native>) -> Option<Vec<i128>> {
                // In place, where the type has as many bits.
                Some(lows.into_iter().map(i128::from).collect())
            }
        }
    };
}
carrying!(Decimal32Type, i32);
carrying!(Decimal64Type, i64);
carrying!(Decimal128Type, i128);

impl Carrying for Int64Type {
    fn add(low: &mut i64, value: i64) -> i64 {
        <Decimal64Type as Carrying>::add(low, value)
    }
    fn take(low: &mut i64, value: i64) -> i64 {
        <Decimal64Type as Carrying>::take(low, value)
    }
    fn total(low: i64, carry: i64) -> Option<i256> {
        <Decimal64Type as Carrying>::total(low, carry)
    }
    fn parts(total: i256) -> (i64, i64) {
        <Decimal64Type as Carrying>::parts(total)
    }
    fn narrow_parts(total: i128) -> (i64, i64) {
        <Decimal64Type as Carrying>::narrow_parts(total)
    }
    fn widened(lows: Vec<i64>) -> Option<Vec<i128>> {
        <Decimal64Type as Carrying>::widened(lows)
    }
    fn add_all(low: &mut i64, carry: &mut i64, values: &[i64]) {
        // Halves of words do not run over within a chunk, and both loops are vectors.
        for chunk in values.chunks(1 << 30) {
            let high_half: i64 = chunk.iter().map(|value| value >> 32).sum();
            let low_half: i64 = chunk.iter().map(|value| value & 0xffff_ffff).sum();
            let total = (i128::from(high_half) << 32) + i128::from(low_half) + i128::from(*low);
            *low = total as i64;
            *carry += ((total - i128::from(*low)) >> i64::BITS) as i64;
        }
    }
}

impl Carrying for UInt64Type {
    fn add(low: &mut u64, value: u64) -> i64 {
        let (sum, over) = low.overflowing_add(value);
        *low = sum;
        i64::from(over)
    }
    fn take(low: &mut u64, value: u64) -> i64 {
        let (difference, over) = low.overflowing_sub(value);
        *low = difference;
        -i64::from(over)
    }
    fn total(low: u64, carry: i64) -> Option<i256> {
        i256::from_i128(low.into()).checked_add(i256::from_i128(carry.into()).checked_mul(power_of_two(u64::BITS))?)
    }
    fn parts(total: i256) -> (u64, i64) {
        let low = total.as_i128() as u64;
        (low, (total.wrapping_sub(i256::from_i128(low.into())) >> (u64::BITS as u8)).as_i128() as i64)
    }
    fn narrow_parts(total: i128) -> (u64, i64) {
        let low = total as u64;
        (low, ((total - i128::from(low)) >> u64::BITS) as i64)
    }
    fn widened(lows: Vec<u64>) -> Option<Vec<i128>> {
        Some(lows.into_iter().map(i128::from).collect())
    }
}

impl Carrying for Decimal256Type {
    fn add(low: &mut i256, value: i256) -> i64 {
        let sum = low.wrapping_add(value);
        let over = low.is_negative() == value.is_negative() && sum.is_negative() != value.is_negative();
        *low = sum;
        if !over {
            0
        } else if value.is_negative() {
            -1
        } else {
            1
        }
    }
    fn take(low: &mut i256, value: i256) -> i64 {
        let difference = low.wrapping_sub(value);
        let over = low.is_negative() != value.is_negative() && difference.is_negative() != low.is_negative();
        *low = difference;
        if !over {
            0
        } else if value.is_negative() {
            1
        } else {
            -1
        }
    }
    fn total(low: i256, carry: i64) -> Option<i256> {
        (carry == 0).then_some(low)
    }
    fn parts(total: i256) -> (i256, i64) {
        (total, 0)
    }
    fn narrow_parts(total: i128) -> (i256, i64) {
        (i256::from_i128(total), 0)
    }
    fn widened(_: Vec<i256>) -> Option<Vec<i128>> {
        None
    }
}

fn power_of_two(bits: u32) -> i256 {
    i256::ONE << (bits as u8)
}

/// 10 to this power; at most 76 digits are asked for.
fn power_of_ten(digits: u32) -> i256 {
    i256::from_i128(10).wrapping_pow(digits)
}

/// Half away from zero, as SQL rounds decimals.
pub(super) fn divided(dividend: i256, divisor: i256) -> Option<i256> {
    let (quotient, rest) = (dividend.checked_div(divisor)?, dividend.checked_rem(divisor)?);
    // Beside twice the rest nothing runs over: it is less than the divisor, which has fewer bits than there are.
    let magnitude = |value: i256| if value.is_negative() { value.wrapping_neg() } else { value };
    let rounds = magnitude(rest) >= magnitude(divisor).wrapping_sub(magnitude(rest));
    let away = if dividend.is_negative() == divisor.is_negative() { i256::ONE } else { i256::MINUS_ONE };
    Some(if rounds && rest != i256::ZERO { quotient.wrapping_add(away) } else { quotient })
}

/// The same in 128 bits. The divisor is positive, or not the least there is.
pub(super) fn narrow_divided(dividend: i128, divisor: i128) -> i128 {
    let (quotient, rest) = (dividend / divisor, (dividend % divisor).unsigned_abs());
    let away = if (dividend < 0) == (divisor < 0) { 1 } else { -1 };
    if rest > 0 && rest >= divisor.unsigned_abs() - rest { quotient + away } else { quotient }
}

impl Total {
    /// The answer for a total of so many values, in the result's own units.
    fn answer(&self, total: Option<i256>, count: u64) -> Result<i256> {
        let total = total.ok_or_else(|| self.beyond())?;
        let value = match (self.answer, &self.input, &self.result) {
            (Answer::Sum, ..) => Some(total),
            (
                Answer::Average,
                DataType::Decimal32(_, from) | DataType::Decimal64(_, from) | DataType::Decimal128(_, from) | DataType::Decimal256(_, from),
                DataType::Decimal32(_, to) | DataType::Decimal64(_, to) | DataType::Decimal128(_, to) | DataType::Decimal256(_, to),
            ) => {
                let shift = u32::from(to.saturating_sub(*from).unsigned_abs());
                match total.to_i128().and_then(|total| total.checked_mul(10i128.checked_pow(shift)?)) {
                    Some(scaled) => Some(i256::from_i128(narrow_divided(scaled, count.into()))),
                    None => {
                        let scaled = total.checked_mul(power_of_ten(shift));
                        scaled.and_then(|scaled| divided(scaled, i256::from_i128(count.into())))
                    }
                }
            }
            (_, input, result) => return internal_err!("an average of {input} as {result}"),
        };
        value.filter(|value| self.holds(*value)).ok_or_else(|| self.beyond())
    }

    fn holds(&self, value: i256) -> bool {
        let (least, greatest) = match &self.result {
            DataType::Int64 => (i256::from_i128(i64::MIN.into()), i256::from_i128(i64::MAX.into())),
            DataType::UInt64 => (i256::ZERO, i256::from_i128(u64::MAX.into())),
            DataType::Decimal32(digits, _)
            | DataType::Decimal64(digits, _)
            | DataType::Decimal128(digits, _)
            | DataType::Decimal256(digits, _) => {
                let limit = power_of_ten((*digits).into()).wrapping_sub(i256::ONE);
                (limit.wrapping_neg(), limit)
            }
            _ => return false,
        };
        least <= value && value <= greatest
    }

    fn beyond(&self) -> datafusion::common::DataFusionError {
        let wider = match &self.result {
            DataType::Int64 | DataType::UInt64 => "CAST what is added AS DECIMAL(38, 0)",
            _ => "CAST what is added AS DOUBLE, or to fewer digits after the point",
        };
        exec_datafusion_err!("{} is beyond {}: {wider}", self.name, declared_type(&self.result))
    }
}

/// One total as a state, and back.
struct StateColumn {
    data_type: DataType,
}

impl StateColumn {
    fn of(total: &Total) -> Result<Self> {
        match total_type(&total.input) {
            Some(data_type) => Ok(Self { data_type }),
            None => internal_err!("a total of {}", total.input),
        }
    }

    fn array(&self, total: &Total, sums: impl Iterator<Item = Result<Option<i256>>>) -> Result<ArrayRef> {
        match &self.data_type {
            DataType::Decimal128(precision, scale) => {
                let narrow = |sum: i256| sum.to_i128().ok_or_else(|| total.beyond());
                let sums = sums.map(|sum| sum?.map(narrow).transpose()).collect::<Result<PrimitiveArray<Decimal128Type>>>()?;
                Ok(Arc::new(sums.with_precision_and_scale(*precision, *scale)?))
            }
            DataType::Decimal256(precision, scale) => {
                let sums = sums.collect::<Result<PrimitiveArray<Decimal256Type>>>()?;
                Ok(Arc::new(sums.with_precision_and_scale(*precision, *scale)?))
            }
            other => internal_err!("a total of type {other}"),
        }
    }

    /// The totals of a column of states that are there, with their rows.
    fn read(sums: &ArrayRef) -> Result<Box<dyn Iterator<Item = (usize, i256)> + '_>> {
        if let Some(sums) = sums.as_primitive_opt::<Decimal128Type>() {
            return Ok(Box::new(sums.iter().enumerate().filter_map(|(row, sum)| sum.map(|sum| (row, i256::from_i128(sum))))));
        }
        let sums = column(sums, |sums| sums.as_primitive_opt::<Decimal256Type>())?;
        Ok(Box::new(sums.iter().enumerate().filter_map(|(row, sum)| sum.map(|sum| (row, sum)))))
    }
}

/// A state's columns: the averages' counts, and the totals.
fn state_columns(states: &[ArrayRef]) -> Result<(Option<&UInt64Array>, &ArrayRef)> {
    match states {
        [sums] => Ok((None, sums)),
        [counts, sums] => Ok((Some(column(counts, |counts| counts.as_primitive_opt::<UInt64Type>())?), sums)),
        _ => internal_err!("a state of {} columns for an exact total", states.len()),
    }
}

fn values_of<T: ArrowPrimitiveType>(values: &[ArrayRef]) -> Result<&PrimitiveArray<T>> {
    match values {
        [values] => column(values, |values| values.as_primitive_opt::<T>()),
        _ => internal_err!("{} arguments for an exact total", values.len()),
    }
}

#[derive(Debug, Clone)]
struct ExactTotal<T: Carrying> {
    of: Total,
    low: T::Native,
    carry: i64,
    /// Values that were added; after a merge of sums, parts that had any.
    count: u64,
}

impl<T: Carrying> ExactTotal<T> {
    fn new(of: Total) -> Self {
        Self { of, low: T::Native::default(), carry: 0, count: 0 }
    }
}

impl<T: Carrying + std::fmt::Debug> Accumulator for ExactTotal<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values_of::<T>(values)?;
        match values.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => T::add_all(&mut self.low, &mut self.carry, values.values()),
            Some(nulls) => {
                nulls.valid_slices().for_each(|(start, end)| T::add_all(&mut self.low, &mut self.carry, &values.values()[start..end]))
            }
        }
        self.count += (values.len() - values.null_count()) as u64;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values_of::<T>(values)?;
        values.iter().flatten().for_each(|value| self.carry += T::take(&mut self.low, value));
        self.count = self.count.saturating_sub((values.len() - values.null_count()) as u64);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_from(&self.of.result);
        }
        let answer = self.of.answer(T::total(self.low, self.carry), self.count)?;
        let narrow = || answer.to_i128().ok_or_else(|| self.of.beyond());
        Ok(match self.of.result {
            DataType::Int64 => ScalarValue::Int64(Some(narrow()? as i64)),
            DataType::UInt64 => ScalarValue::UInt64(Some(narrow()? as u64)),
            DataType::Decimal32(precision, scale) => ScalarValue::Decimal32(Some(narrow()? as i32), precision, scale),
            DataType::Decimal64(precision, scale) => ScalarValue::Decimal64(Some(narrow()? as i64), precision, scale),
            DataType::Decimal128(precision, scale) => ScalarValue::Decimal128(Some(narrow()?), precision, scale),
            DataType::Decimal256(precision, scale) => ScalarValue::Decimal256(Some(answer), precision, scale),
            ref other => return internal_err!("a total as {other}"),
        })
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let total = T::total(self.low, self.carry).ok_or_else(|| self.of.beyond());
        let sum = if self.count == 0 { Ok(None) } else { total.map(Some) };
        let sum = StateColumn::of(&self.of)?.array(&self.of, std::iter::once(sum))?;
        let sum = ScalarValue::try_from_array(&sum, 0)?;
        Ok(match self.of.answer {
            Answer::Sum => vec![sum],
            Answer::Average => vec![ScalarValue::UInt64(Some(self.count)), sum],
        })
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (counts, sums) = state_columns(states)?;
        for (row, total) in StateColumn::read(sums)? {
            let (low, carry) = T::parts(total);
            self.carry += carry + T::add(&mut self.low, low);
            self.count += counts.map_or(1, |counts| counts.value(row));
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.of.name.capacity()
    }
}

struct ExactTotals<T: Carrying> {
    of: Total,
    lows: Vec<T::Native>,
    /// How often each ran over; empty as long as none did.
    carries: Vec<i64>,
    /// Values in each, for averages alone.
    counts: Vec<u64>,
    /// Which have any value.
    known: NullState,
    column: PhantomData<T>,
}

impl<T: Carrying> ExactTotals<T> {
    fn new(of: Total) -> Self {
        Self { of, lows: vec![], carries: vec![], counts: vec![], known: NullState::new(), column: PhantomData }
    }

    fn grow(&mut self, groups: usize) {
        self.lows.resize(groups, T::Native::default());
        if self.of.answer == Answer::Average {
            self.counts.resize(groups, 0);
        }
    }

    /// Takes groups out: their totals, counts, and which of them are there.
    fn take(&mut self, emit_to: EmitTo) -> Taken<T> {
        let nulls = self.known.build(emit_to);
        if !self.carries.is_empty() {
            self.carries.resize(self.lows.len(), 0);
        }
        let carries = if self.carries.is_empty() { vec![] } else { emit_to.take_needed(&mut self.carries) };
        let counts = if self.of.answer == Answer::Average { emit_to.take_needed(&mut self.counts) } else { vec![] };
        Taken { lows: emit_to.take_needed(&mut self.lows), carries, counts, nulls }
    }
}

struct Taken<T: Carrying> {
    lows: Vec<T::Native>,
    carries: Vec<i64>,
    counts: Vec<u64>,
    nulls: Option<arrow::buffer::NullBuffer>,
}

impl<T: Carrying> Taken<T> {
    /// The total of each group that has any value.
    fn totals(&self) -> impl Iterator<Item = Option<Option<i256>>> + '_ {
        self.lows.iter().enumerate().map(|(group, low)| {
            let known = self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(group));
            known.then(|| T::total(*low, self.carries.get(group).copied().unwrap_or(0)))
        })
    }
}

/// Counts a carry of a group.
fn carry(carries: &mut Vec<i64>, group: usize, by: i64) {
    if by != 0 {
        if carries.len() <= group {
            carries.resize(group + 1, 0);
        }
        carries[group] += by;
    }
}

impl<T: Carrying> GroupsAccumulator for ExactTotals<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = values_of::<T>(values)?;
        self.grow(total_num_groups);
        let (lows, carries) = (&mut self.lows, &mut self.carries);
        self.known.accumulate(group_indices, values, filter, total_num_groups, |group, value| {
            carry(carries, group, T::add(&mut lows[group], value));
        });
        if self.of.answer == Answer::Average {
            let counts = &mut self.counts;
            accumulate(group_indices, values, filter, |group, _| counts[group] += 1);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let (counts, sums) = state_columns(states)?;
        self.grow(total_num_groups);
        if let Some(counts) = counts {
            accumulate(group_indices, counts, None, |group, count| self.counts[group] += count);
        }
        let (lows, carries) = (&mut self.lows, &mut self.carries);
        let mut add = |group: usize, (low, over): (T::Native, i64)| carry(carries, group, over + T::add(&mut lows[group], low));
        if let Some(sums) = sums.as_primitive_opt::<Decimal128Type>() {
            self.known.accumulate(group_indices, sums, None, total_num_groups, |group, sum| add(group, T::narrow_parts(sum)));
        } else {
            let sums = column(sums, |sums| sums.as_primitive_opt::<Decimal256Type>())?;
            self.known.accumulate(group_indices, sums, None, total_num_groups, |group, sum| add(group, T::parts(sum)));
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut taken = self.take(emit_to);
        let of = &self.of;
        // A total that never ran over is its low bits, and any integer's is an answer.
        if taken.carries.is_empty() && of.answer == Answer::Sum {
            if of.input == of.result && of.input.is_integer() {
                return Ok(Arc::new(PrimitiveArray::<T>::new(taken.lows.into(), taken.nulls)));
            }
            if let DataType::Decimal128(precision, scale) = of.result
                && let Some(limit) = 10i128.checked_pow(precision.into())
            {
                let within = |total: &i128| -limit < *total && *total < limit;
                match T::widened(std::mem::take(&mut taken.lows)) {
                    Some(totals) if totals.iter().all(within) => {
                        let totals = PrimitiveArray::<Decimal128Type>::new(totals.into(), taken.nulls);
                        return Ok(Arc::new(totals.with_precision_and_scale(precision, scale)?));
                    }
                    _ => return Err(of.beyond()),
                }
            }
        }
        let answers = taken.totals().enumerate().map(|(group, total)| {
            let count = taken.counts.get(group).copied().unwrap_or(0);
            total.map(|total| of.answer(total, count)).transpose()
        });
        let narrow = |answer: Result<Option<i256>>| answer?.map(|answer| answer.to_i128().ok_or_else(|| of.beyond())).transpose();
        Ok(match of.result {
            DataType::Int64 => Arc::new(answers.map(|a| Ok(narrow(a)?.map(|a| a as i64))).collect::<Result<PrimitiveArray<Int64Type>>>()?),
            DataType::UInt64 => {
                Arc::new(answers.map(|a| Ok(narrow(a)?.map(|a| a as u64))).collect::<Result<PrimitiveArray<UInt64Type>>>()?)
            }
            DataType::Decimal32(precision, scale) => {
                let answers = answers.map(|a| Ok(narrow(a)?.map(|a| a as i32))).collect::<Result<PrimitiveArray<Decimal32Type>>>()?;
                Arc::new(answers.with_precision_and_scale(precision, scale)?)
            }
            DataType::Decimal64(precision, scale) => {
                let answers = answers.map(|a| Ok(narrow(a)?.map(|a| a as i64))).collect::<Result<PrimitiveArray<Decimal64Type>>>()?;
                Arc::new(answers.with_precision_and_scale(precision, scale)?)
            }
            DataType::Decimal128(precision, scale) => {
                let answers = answers.map(narrow).collect::<Result<PrimitiveArray<Decimal128Type>>>()?;
                Arc::new(answers.with_precision_and_scale(precision, scale)?)
            }
            DataType::Decimal256(precision, scale) => {
                let answers = answers.collect::<Result<PrimitiveArray<Decimal256Type>>>()?;
                Arc::new(answers.with_precision_and_scale(precision, scale)?)
            }
            ref other => return internal_err!("a total as {other}"),
        })
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut taken = self.take(emit_to);
        let of = &self.of;
        if let (true, Some(DataType::Decimal128(precision, scale))) = (taken.carries.is_empty(), total_type(&of.input))
            && let Some(totals) = T::widened(std::mem::take(&mut taken.lows))
        {
            let totals = PrimitiveArray::<Decimal128Type>::new(totals.into(), taken.nulls);
            let sums: ArrayRef = Arc::new(totals.with_precision_and_scale(precision, scale)?);
            return Ok(match of.answer {
                Answer::Sum => vec![sums],
                Answer::Average => vec![Arc::new(UInt64Array::from(taken.counts)), sums],
            });
        }
        let totals = taken.totals().map(|total| total.map(|total| total.ok_or_else(|| of.beyond())).transpose());
        let sums = StateColumn::of(of)?.array(of, totals)?;
        Ok(match of.answer {
            Answer::Sum => vec![sums],
            Answer::Average => vec![Arc::new(UInt64Array::from(taken.counts)), sums],
        })
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut rows = Self::new(self.of.clone());
        let count = values_of::<T>(values)?.len();
        rows.update_batch(values, &(0..count).collect::<Vec<_>>(), filter, count)?;
        rows.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.of.name.capacity()
            + self.lows.capacity() * size_of::<T::Native>()
            + (self.carries.capacity() + self.counts.capacity()) * size_of::<u64>()
            + self.known.size()
    }
}
