//! Exact variances of doubles: from the count, the exact sum and the exact sum of squares, rounded once.
//!
//! `(n * Σx² - (Σx)²) / (n * (n - 1))` cancels nothing away where no term was rounded: what makes this formula the worst one for doubles
//! does not exist here.

use std::cmp::Ordering;

use arrow::buffer::BooleanBuffer;
use num_bigint::BigUint;

use crate::error::KernelError;
use crate::exact_float::{ExactFloatSum, nearest};
use crate::exact_square::ExactSquareSum;

/// Place of the bit of weight 1 on the number line of doubles, whose lowest bit weighs 2^-1074.
const UNIT_BIT: i64 = 1_074;

/// Place of the lowest bit of a square, which weighs 2^-2148, on the same line.
const SQUARE_BIT: i64 = UNIT_BIT - 2_148;

/// Bits of a limb of a sum of squares; two limbs of a sum.
const LIMB_BITS: u64 = 64;

/// Bits of a quotient before it is rounded: more than twice what a double keeps, so that its root has enough too.
const QUOTIENT_BITS: i64 = 126;

/// What the squared deviations from the mean are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Divisor {
    /// The count: the variance of a whole population.
    Population,
    /// The count less one: the variance of a population that is known by a sample.
    Sample,
}

/// Count, sum and sum of squares of doubles without rounding. The default is that of none.
#[derive(Debug, Clone, Default)]
pub struct ExactVariance {
    count: u64,
    /// Knows of NaN and infinities.
    sum: ExactFloatSum,
    squares: ExactSquareSum,
}

impl ExactVariance {
    /// Of integers with this count, sum and sum of squares.
    pub fn of_integers(count: u64, sum: i128, squares: u128) -> Self {
        let mut variance = Self { count, ..Self::default() };
        variance.sum.add_integer(sum);
        variance.squares.add_integer(squares);
        variance
    }

    /// Doubles that were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds a double.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum.add(value);
        self.squares.add(value);
    }

    /// Adds many doubles, several times faster than one by one.
    pub fn add_all(&mut self, values: &[f64]) {
        self.count += values.len() as u64;
        self.sum.add_all(values);
        self.squares.add_all(values);
    }

    /// Takes back many doubles that were added.
    pub fn remove_all(&mut self, values: &[f64]) {
        self.count = self.count.saturating_sub(values.len() as u64);
        self.sum.remove_all(values);
        self.squares.remove_all(values);
    }

    /// Adds each of `values` to the variance of its group, where `keep` says so. Gives the bytes by which variances outgrew their places.
    ///
    /// # Panics
    /// Where `groups` or `keep` is shorter than `values`, or a group is beyond `variances`.
    pub fn add_by_group(values: &[f64], groups: &[usize], keep: Option<&BooleanBuffer>, variances: &mut [Self]) -> usize {
        let mut grown = 0;
        for (row, value) in values.iter().enumerate() {
            if keep.is_none_or(|keep| keep.value(row)) {
                let variance = &mut variances[groups[row]];
                let before = variance.heap_bytes();
                variance.add(*value);
                grown += variance.heap_bytes() - before;
            }
        }
        grown
    }

    /// Adds another.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
    }

    /// The double nearest to the variance, ties to even; infinite beyond the greatest double. `None` of fewer doubles than the divisor
    /// wants: 1, or 2 of a sample. NaN where one was NaN or infinite.
    pub fn variance(&self, divisor: Divisor) -> Option<f64> {
        self.rounded(divisor, |quotient, lowest, rest| nearest(quotient, lowest, rest))
    }

    /// The double nearest to the standard deviation, which is the root of the exact variance; else as [`Self::variance`].
    pub fn standard_deviation(&self, divisor: Divisor) -> Option<f64> {
        self.rounded(divisor, |quotient, lowest, rest| {
            let root = quotient.isqrt();
            // Half as far from the bit of weight 1.
            let lowest = (lowest - UNIT_BIT) / 2 + UNIT_BIT;
            nearest(root, lowest, rest || root * root != quotient)
        })
    }

    /// The variance as leading bits, the place of the lowest of them on the number line of doubles, and whether anything is below. That
    /// place is an even number of bits from the bit of weight 1, for roots.
    fn rounded(&self, divisor: Divisor, round: impl Fn(u128, i64, bool) -> f64) -> Option<f64> {
        let count = u128::from(self.count);
        let divisor = match divisor {
            Divisor::Population => count * count,
            Divisor::Sample => count * count.saturating_sub(1),
        };
        if divisor == 0 {
            return None;
        }
        let Some((deviations, position)) = self.deviations() else { return Some(f64::NAN) };
        if deviations == BigUint::ZERO {
            return Some(0.0);
        }
        // Scaled by an even power of 2 for a quotient of 126 to 128 bits.
        let divisor = BigUint::from(divisor);
        let shift = QUOTIENT_BITS + 1 - (deviations.bits() as i64 - divisor.bits() as i64);
        let shift = shift - (position - shift - UNIT_BIT).rem_euclid(2);
        let (scaled, lost) = match shift.cmp(&0) {
            Ordering::Less => (&deviations >> shift.unsigned_abs(), deviations.trailing_zeros() < Some(shift.unsigned_abs())),
            _ => (&deviations << shift.unsigned_abs(), false),
        };
        let quotient = &scaled / &divisor;
        let rest = lost || &quotient * &divisor != scaled;
        let (head, _) = quotient.iter_u64_digits().fold((0u128, 0), |(head, at), digit| (head | u128::from(digit) << at, at + LIMB_BITS));
        Some(round(head, position - shift, rest))
    }

    /// `n * Σx² - (Σx)²` and the place of its lowest bit on the number line of doubles. `None` where a double was NaN or infinite.
    fn deviations(&self) -> Option<(BigUint, i64)> {
        let (sum, sum_from) = self.sum.digits()?;
        let (squares, squares_from) = self.squares.digits();
        let squares = squares.iter().flat_map(|digit| [*digit as u32, (digit >> u32::BITS) as u32]).collect();
        let from = sum_from.min(squares_from);
        let aligned = |number: BigUint, number_from: usize| number << (LIMB_BITS * (number_from - from) as u64);
        // Squaring a sum doubles its place: digits of 32 bits become digits of 64.
        let sum = BigUint::new(sum);
        let squared_sum = aligned(&sum * &sum, sum_from);
        let sum_of_squares = aligned(BigUint::new(squares) * self.count, squares_from);
        // Cauchy and Schwarz hold for what was added; taking back what never was is the caller's mistake.
        let deviations = if sum_of_squares < squared_sum { BigUint::ZERO } else { sum_of_squares - squared_sum };
        Some((deviations, (LIMB_BITS as usize * from) as i64 + SQUARE_BIT))
    }

    /// As bytes that [`Self::from_bytes`] reads: what a partial aggregate sends.
    ///
    /// The count, 64 bits little-endian; the sum of squares; and the sum as [`ExactFloatSum::to_bytes`] writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.count.to_le_bytes().to_vec();
        self.squares.append_to(&mut bytes);
        bytes.extend(self.sum.to_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`KernelError::Internal`] for bytes that it did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KernelError> {
        let broken = || KernelError::internal(format!("{} bytes are not an exact variance", bytes.len()));
        let (count, rest) = bytes.split_first_chunk().ok_or_else(broken)?;
        let (squares, rest) = ExactSquareSum::from_bytes(rest)?;
        Ok(Self { count: u64::from_le_bytes(*count), sum: ExactFloatSum::from_bytes(rest)?, squares })
    }

    /// Bytes held beyond the value itself.
    pub fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes() + self.squares.heap_bytes()
    }
}
