//! Exact variances of doubles: from the count, the exact sum and the exact sum of squares, rounded once.
//!
//! `(n * Σx² - (Σx)²) / (n * (n - 1))` cancels nothing away where no term was rounded: what makes this formula the worst one for doubles
//! does not exist here.

use arrow::buffer::BooleanBuffer;
use smallvec::SmallVec;

use crate::error::KernelError;
use crate::exact_float::{ExactFloatSum, nearest};
use crate::exact_square::ExactSquareSum;
use crate::simd::prefetch_far;

/// Place of the bit of weight 1 on the number line of doubles, whose lowest bit weighs 2^-1074.
const UNIT_BIT: i64 = 1_074;

/// Place of the lowest bit of a square, which weighs 2^-2148, on the same line.
const SQUARE_BIT: i64 = UNIT_BIT - 2_148;

/// Bits of a word.
const WORD_BITS: u32 = u64::BITS;

/// Words of a dividend: two divisors of a word each leave more bits of the quotient than [`QUOTIENT_BITS`].
const DIVIDEND_WORDS: usize = 5;

/// Bits of a quotient before it is rounded: more than twice what a double keeps, so that its root has enough too.
const QUOTIENT_BITS: u32 = 126;

/// Bytes of a state of doubles that are alike.
const BYTES_EXPECTED: usize = 72;

/// A whole number of many words, the least significant first.
type Words = SmallVec<[u64; 12]>;

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
            prefetch_far(variances, groups, row);
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
        self.rounded(divisor, nearest)
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

    /// Rounds the variance, given as its leading bits, the place of the lowest of them on the number line of doubles, and whether anything
    /// is below. That place is an even number of bits from the bit of weight 1, for roots.
    fn rounded(&self, divisor: Divisor, round: impl Fn(u128, i64, bool) -> f64) -> Option<f64> {
        let divisors = match divisor {
            Divisor::Population => [self.count, self.count],
            Divisor::Sample => [self.count, self.count.saturating_sub(1)],
        };
        if divisors.contains(&0) {
            return None;
        }
        let Some((deviations, place)) = self.deviations() else { return Some(f64::NAN) };
        let Some(top) = deviations.iter().rposition(|word| *word != 0) else { return Some(0.0) };
        // The words from the top, with zeros below where there are fewer.
        let (lower, upper) = deviations[..=top].split_at((top + 1).saturating_sub(DIVIDEND_WORDS));
        let mut quotient = [0; DIVIDEND_WORDS];
        quotient[DIVIDEND_WORDS - upper.len()..].copy_from_slice(upper);
        let place = place + i64::from(WORD_BITS) * (top as i64 + 1 - DIVIDEND_WORDS as i64);
        // The whole part of a whole part's quotient is that of the quotient by both.
        let mut rest = lower.iter().any(|word| *word != 0);
        divisors.into_iter().for_each(|divisor| rest |= divide(&mut quotient, divisor) != 0);
        let dropped = length(&quotient) - QUOTIENT_BITS;
        let dropped = dropped - (place + i64::from(dropped) - UNIT_BIT).rem_euclid(2) as u32;
        let (head, tail) = split(&quotient, dropped);
        Some(round(head, place + i64::from(dropped), rest || tail))
    }

    /// `n * Σx² - (Σx)²` and the place of its lowest bit on the number line of doubles. `None` where a double was NaN or infinite.
    fn deviations(&self) -> Option<(Words, i64)> {
        let (sum, sum_from) = self.sum.words()?;
        let (squares, squares_from) = self.squares.words();
        // Squaring a sum doubles its place: counted in halves of a word before, in words after.
        let from = sum_from.min(squares_from);
        let mut deviations = times(squares, self.count, squares_from - from);
        subtract(&mut deviations, &square(&sum), sum_from - from);
        Some((deviations, i64::from(WORD_BITS) * from as i64 + SQUARE_BIT))
    }

    /// As bytes that [`Self::from_bytes`] reads: what a partial aggregate sends.
    ///
    /// The count, 64 bits little-endian; the sum of squares; and the sum as [`ExactFloatSum::to_bytes`] writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES_EXPECTED);
        bytes.extend_from_slice(&self.count.to_le_bytes());
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

/// `words * factor`, moved up by words of 0.
fn times(words: &[u64], factor: u64, zeros: usize) -> Words {
    let mut product = Words::from_elem(0, zeros);
    let mut carry = 0;
    for word in words {
        let sum = u128::from(*word) * u128::from(factor) + u128::from(carry);
        product.push(sum as u64);
        carry = (sum >> WORD_BITS) as u64;
    }
    product.push(carry);
    product
}

/// `words * words`.
fn square(words: &[u64]) -> Words {
    let mut product = Words::from_elem(0, 2 * words.len());
    for (at, left) in words.iter().enumerate() {
        let mut carry = 0;
        for (right, place) in words.iter().zip(&mut product[at..]) {
            let sum = u128::from(*left) * u128::from(*right) + u128::from(*place) + u128::from(carry);
            *place = sum as u64;
            carry = (sum >> WORD_BITS) as u64;
        }
        product[at + words.len()] = carry;
    }
    product
}

/// Takes off a number that is not greater, moved up by words of 0. (Cauchy and Schwarz hold for doubles that were added; for what was
/// taken back and never there, the answer is the caller's mistake.)
fn subtract(words: &mut Words, other: &[u64], zeros: usize) {
    if words.len() < zeros + other.len() {
        words.resize(zeros + other.len(), 0);
    }
    let mut borrow = false;
    for (at, word) in words[zeros..].iter_mut().enumerate() {
        let (difference, under) = word.overflowing_sub(other.get(at).copied().unwrap_or(0));
        let (difference, under_again) = difference.overflowing_sub(u64::from(borrow));
        (*word, borrow) = (difference, under || under_again);
    }
}

/// Divides in place, and gives the rest.
fn divide(words: &mut [u64], divisor: u64) -> u64 {
    let mut rest = 0;
    for word in words.iter_mut().rev() {
        let part = u128::from(rest) << WORD_BITS | u128::from(*word);
        *word = (part / u128::from(divisor)) as u64;
        rest = (part % u128::from(divisor)) as u64;
    }
    rest
}

/// Bits from the lowest to the highest that is set.
fn length(words: &[u64]) -> u32 {
    words.iter().zip(0..).fold(0, |length, (word, at)| if *word == 0 { length } else { (at + 1) * WORD_BITS - word.leading_zeros() })
}

/// The lowest 128 bits after the first `dropped`, and whether any of these is set.
fn split(words: &[u64], dropped: u32) -> (u128, bool) {
    let (from, shift) = ((dropped / WORD_BITS) as usize, dropped % WORD_BITS);
    let word = |at: usize| words.get(from + at).copied().unwrap_or(0);
    let both = u128::from(word(1)) << WORD_BITS | u128::from(word(0));
    let head = both >> shift | (u128::from(word(2)) << 1) << (2 * WORD_BITS - 1 - shift);
    (head, words[..from].iter().any(|word| *word != 0) || word(0) & ((1 << shift) - 1) != 0)
}
