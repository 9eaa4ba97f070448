//! Exact sums of squares of doubles. A square has up to 106 bits, far outside the exponents of doubles: none is rounded, lost or infinite.
//!
//! As in [`crate::ExactFloatSum`] only the part of the number line that was touched is kept. Squares have no sign, so limbs are full words
//! that carry at once.

use smallvec::SmallVec;

use crate::error::KernelError;
use crate::exact_float::{Exponents, exponent_range};

/// Bits of one limb.
const LIMB_BITS: usize = 64;

/// Position of the bit of weight 1: the lowest bit of a square weighs 2^-2148.
const UNIT_BIT: usize = 2_148;

/// Limbs that hold the squares of 2^64 doubles of the greatest magnitude: 4,196 + 64 bits.
const LIMBS_MAX: usize = 67;

/// Bits of a double's fraction.
const FRACTION_BITS: u32 = 52;

/// Doubles that are squared before their exponents' sums go to the number line. 2^20 squares of 106 bits would fit 128.
const BLOCK_ROWS: usize = 1_024;

/// Doubles from which on a block is added up by exponent first.
const DENSE_FROM: usize = 32;

/// Exponents between which all doubles of a block may lie to be added up by exponent.
const EXPONENTS_MAX: usize = 64;

/// The square of `value` over the weight of its lowest bit, and its exponent; subnormals have exponent 1. Of NaN and infinities anything.
#[inline(always)]
fn square(value: f64) -> (u128, usize) {
    let bits = value.to_bits();
    let exponent = (bits >> FRACTION_BITS) as usize & 0x7FF;
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    let mantissa = u128::from(if exponent == 0 { fraction } else { fraction | 1 << FRACTION_BITS });
    (mantissa * mantissa, exponent.max(1))
}

/// Where on the number line squares of doubles of this exponent begin.
#[inline(always)]
fn position(exponent: usize) -> usize {
    2 * (exponent - 1)
}

/// A sum of squares of doubles without rounding. NaN and infinities are left out. The default is the sum of none.
#[derive(Debug, Clone, Default)]
pub struct ExactSquareSum {
    /// Limb 0 of `limbs` on the number line.
    first: u8,
    /// Least significant first.
    limbs: SmallVec<[u64; 4]>,
}

impl ExactSquareSum {
    /// Adds the square of a double.
    #[inline]
    pub fn add(&mut self, value: f64) {
        if value.is_finite() {
            let (square, exponent) = square(value);
            self.add_bits(square, position(exponent));
        }
    }

    /// Takes back the square of a double that was added.
    #[inline]
    pub fn remove(&mut self, value: f64) {
        if value.is_finite() {
            let (square, exponent) = square(value);
            self.remove_bits(square, position(exponent));
        }
    }

    /// Adds the squares of many doubles, several times faster than one by one.
    pub fn add_all(&mut self, values: &[f64]) {
        self.all(values, Self::add, Self::add_bits);
    }

    /// Takes back the squares of many doubles that were added.
    pub fn remove_all(&mut self, values: &[f64]) {
        self.all(values, Self::remove, Self::remove_bits);
    }

    #[inline(always)]
    fn all(&mut self, values: &[f64], each: fn(&mut Self, f64), sum_at: fn(&mut Self, u128, usize)) {
        for block in values.chunks(BLOCK_ROWS) {
            let (least, greatest) = match exponent_range(block) {
                Exponents::Zero => continue,
                Exponents::Within(least, greatest) if block.len() >= DENSE_FROM && ((greatest - least) as usize) < EXPONENTS_MAX => {
                    (least as usize, greatest as usize)
                }
                _ => {
                    block.iter().for_each(|value| each(self, *value));
                    continue;
                }
            };
            // Twice: neighbours that are alike would wait for each other's sums.
            let mut sums = [[0u128; EXPONENTS_MAX]; 2];
            for (row, value) in block.iter().enumerate() {
                let (square, exponent) = square(*value);
                // A 0 may be outside: it adds 0 anywhere.
                sums[row % 2][exponent.wrapping_sub(least) % EXPONENTS_MAX] += square;
            }
            for exponent in least..=greatest {
                sum_at(self, sums[0][exponent - least] + sums[1][exponent - least], position(exponent));
            }
        }
    }

    /// Adds an integer, exactly: a square or a sum of squares.
    pub fn add_integer(&mut self, value: u128) {
        self.add_bits(value & u128::from(u64::MAX), UNIT_BIT);
        self.add_bits(value >> LIMB_BITS, UNIT_BIT + LIMB_BITS);
    }

    /// Adds `bits * 2^position` units of the lowest bit; `bits` is below 2^127.
    #[inline]
    fn add_bits(&mut self, bits: u128, position: usize) {
        if bits == 0 {
            return;
        }
        let (low, high, at) = self.place(bits, position);
        let [first, second, third, ..] = &mut self.limbs[at..] else { return };
        let (sum, carry) = (u128::from(*second) << LIMB_BITS | u128::from(*first)).overflowing_add(low);
        (*first, *second) = (sum as u64, (sum >> LIMB_BITS) as u64);
        // `high` has bits to spare.
        let (sum, carry) = third.overflowing_add(high + u64::from(carry));
        *third = sum;
        if carry {
            self.carry(at + 3);
        }
    }

    /// The opposite of [`Self::add_bits`].
    #[inline]
    fn remove_bits(&mut self, bits: u128, position: usize) {
        if bits == 0 {
            return;
        }
        let (low, high, at) = self.place(bits, position);
        let [first, second, third, above @ ..] = &mut self.limbs[at..] else { return };
        let (sum, borrow) = (u128::from(*second) << LIMB_BITS | u128::from(*first)).overflowing_sub(low);
        (*first, *second) = (sum as u64, (sum >> LIMB_BITS) as u64);
        let (sum, mut borrow) = third.overflowing_sub(high + u64::from(borrow));
        *third = sum;
        for limb in above {
            (*limb, borrow) = limb.overflowing_sub(u64::from(borrow));
        }
    }

    /// Bits as three limbs, the lower two of which are one word here, and where these begin in the window.
    #[inline(always)]
    fn place(&mut self, bits: u128, position: usize) -> (u128, u64, usize) {
        let (limb, shift) = (position / LIMB_BITS, (position % LIMB_BITS) as u32);
        (bits << shift, (bits >> 1 >> (u128::BITS - 1 - shift)) as u64, self.reach(limb, 3))
    }

    /// Adds 1 to a limb of the window, or to the one above it.
    #[cold]
    fn carry(&mut self, from: usize) {
        for limb in &mut self.limbs[from..] {
            *limb = limb.wrapping_add(1);
            if *limb != 0 {
                return;
            }
        }
        self.limbs.push(1);
    }

    /// Makes `count` limbs from `limb` on part of the window, and says where they begin in it.
    #[inline]
    fn reach(&mut self, limb: usize, count: usize) -> usize {
        let first = usize::from(self.first);
        if limb < first || limb + count > first + self.limbs.len() {
            self.widen(limb, count);
        }
        limb - usize::from(self.first)
    }

    #[cold]
    fn widen(&mut self, limb: usize, count: usize) {
        if self.limbs.is_empty() {
            self.first = limb as u8;
        }
        let first = usize::from(self.first);
        if limb < first {
            self.limbs.insert_many(0, std::iter::repeat_n(0, first - limb));
            self.first = limb as u8;
        }
        let end = limb + count - usize::from(self.first);
        if end > self.limbs.len() {
            self.limbs.resize(end, 0);
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        if other.limbs.is_empty() {
            return;
        }
        let at = self.reach(usize::from(other.first), other.limbs.len());
        let mut carry = false;
        for (limb, theirs) in self.limbs[at..].iter_mut().zip(&other.limbs) {
            let (sum, over) = limb.overflowing_add(*theirs);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over || over_again);
        }
        if carry {
            self.carry(at + other.limbs.len());
        }
    }

    /// The sum as a whole number of words, the least first, and its place in words from the bit that weighs 2^-2148.
    pub(crate) fn words(&self) -> (&[u64], usize) {
        (&self.limbs, usize::from(self.first))
    }

    /// Appends the sum as bytes that [`Self::from_bytes`] reads: the first limb's position and the count of limbs, a byte each; the limbs,
    /// 64 bits little-endian.
    pub(crate) fn append_to(&self, bytes: &mut Vec<u8>) {
        let end = self.limbs.iter().rposition(|limb| *limb != 0).map_or(0, |last| last + 1);
        let zeros = self.limbs.iter().take_while(|limb| **limb == 0).count().min(end);
        bytes.push(if end == 0 { 0 } else { self.first + zeros as u8 });
        bytes.push((end - zeros) as u8);
        self.limbs[zeros..end].iter().for_each(|limb| bytes.extend_from_slice(&limb.to_le_bytes()));
    }

    /// Reads what [`Self::append_to`] wrote, and gives the bytes behind it.
    ///
    /// # Errors
    /// [`KernelError::Internal`] for bytes that it did not write.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), KernelError> {
        let broken = || KernelError::internal(format!("{} bytes are not an exact sum of squares", bytes.len()));
        let [first, count, rest @ ..] = bytes else { return Err(broken()) };
        let (limbs, rest) = rest.split_at_checked(usize::from(*count) * size_of::<u64>()).ok_or_else(broken)?;
        if usize::from(*first) + usize::from(*count) > LIMBS_MAX {
            return Err(broken());
        }
        let (words, _) = limbs.as_chunks::<8>();
        Ok((Self { first: *first, limbs: words.iter().map(|word| u64::from_le_bytes(*word)).collect() }, rest))
    }

    /// Bytes held beyond the value itself.
    pub fn heap_bytes(&self) -> usize {
        if self.limbs.spilled() { self.limbs.capacity() * size_of::<u64>() } else { 0 }
    }
}
