//! Exact sums of doubles: every bit that any double can have is kept, so the order of addition does not matter.
//!
//! After R. M. Neal, "Fast exact summation using small and large superaccumulators" (2015), with two changes: only the part of the
//! number line that was touched is kept, so that a sum of like values is a few dozen bytes, and sums can be taken apart again.

use arrow::buffer::BooleanBuffer;
use smallvec::SmallVec;

use crate::error::KernelError;
use crate::simd::{prefetch_far, vectorised};

/// Bits of one limb that count; the others take carries until [`ExactFloatSum::settle`].
const LIMB_BITS: usize = 32;

/// Position of the bit of weight 1: the lowest bit of a double weighs 2^-1074.
const UNIT_BIT: usize = 1_074;

/// Limbs that hold 2^64 doubles of the greatest magnitude: 2,098 + 64 bits, and the sign.
const LIMBS_MAX: usize = 69;

/// Additions between two settlements. One adds less than 2^54 to a limb, and settled limbs are below 2^32.
const PENDING_MAX: u16 = 256;

/// Bits of a double's fraction.
const FRACTION_BITS: u32 = 52;

/// Exponents of a block that a sum of two parts of this many bits can span; 256 such parts add up in 64 bits.
const PART_BITS: u32 = 52;

/// The exponent of NaN and infinities.
const SPECIAL_EXPONENT: u64 = 0x7FF;

vectorised! {
    /// Least exponent of the doubles that are not 0, and greatest of all; subnormals count as exponent 1.
    fn exponents [](values: &[f64]) -> (u64, u64) {
        let (mut least, mut greatest) = (SPECIAL_EXPONENT, 0);
        for value in values {
            let magnitude = value.to_bits() & (u64::MAX >> 1);
            let exponent = (magnitude >> FRACTION_BITS).max(1);
            least = least.min(if magnitude == 0 { SPECIAL_EXPONENT } else { exponent });
            greatest = greatest.max(if magnitude == 0 { 0 } else { exponent });
        }
        (least, greatest)
    }

    /// Sum of `value / 2^position` as `low + high * 2^PART_BITS`, where `unit` is the exponent whose lowest bit weighs `2^position` and no
    /// exponent is more than `PART_BITS - 1` above it. At most 256 values.
    fn sum_of_parts [](values: &[f64], unit: u64) -> (i64, i64) {
        let (mut low, mut high) = (0i64, 0i64);
        for value in values {
            let bits = value.to_bits();
            let magnitude = bits & (u64::MAX >> 1);
            let exponent = magnitude >> FRACTION_BITS;
            let fraction = magnitude & ((1 << FRACTION_BITS) - 1);
            let mantissa = if exponent == 0 { fraction } else { fraction | 1 << FRACTION_BITS };
            // Of 0 any shift will do.
            let shift = exponent.max(1).wrapping_sub(unit) as u32;
            let sign = bits as i64 >> 63;
            let low_part = (mantissa.wrapping_shl(shift) & ((1 << PART_BITS) - 1)) as i64;
            let high_part = mantissa.wrapping_shr(PART_BITS.wrapping_sub(shift)) as i64;
            low += (low_part ^ sign) - sign;
            high += (high_part ^ sign) - sign;
        }
        (low, high)
    }
}

/// Between which exponents some doubles lie.
pub(crate) enum Exponents {
    /// One is NaN or infinite.
    Unbounded,
    /// All are 0.
    Zero,
    /// From the least of one that is not 0 to the greatest.
    Within(u64, u64),
}

impl Exponents {
    /// Of these doubles and others.
    pub(crate) fn and(self, others: Self) -> Self {
        match (self, others) {
            (Self::Unbounded, _) | (_, Self::Unbounded) => Self::Unbounded,
            (Self::Zero, same) | (same, Self::Zero) => same,
            (Self::Within(least, greatest), Self::Within(other_least, other_greatest)) => {
                Self::Within(least.min(other_least), greatest.max(other_greatest))
            }
        }
    }
}

/// The exponents of some doubles.
pub(crate) fn exponent_range(values: &[f64]) -> Exponents {
    match exponents(values) {
        (_, SPECIAL_EXPONENT) => Exponents::Unbounded,
        (least, greatest) if least > greatest => Exponents::Zero,
        (least, greatest) => Exponents::Within(least, greatest),
    }
}

/// Sums of doubles in 128 bits of fixed point: exact where the exponents of all doubles are known and near each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FixedPoint {
    /// The exponent whose lowest bit is the fixed point's.
    unit: u64,
    /// Bits of the greatest sum, with its sign.
    bits: u32,
}

impl FixedPoint {
    /// For up to `rows` doubles of these exponents.
    pub(crate) fn new((least, greatest): (u64, u64), rows: usize) -> Option<Self> {
        let bits = (greatest - least) as u32 + FRACTION_BITS + 1 + (usize::BITS - rows.leading_zeros());
        (bits < i128::BITS).then_some(Self { unit: least, bits: bits + 1 })
    }

    /// Bits of two's complement that every sum fits.
    pub(crate) fn bits(self) -> u32 {
        self.bits
    }

    /// The exponent whose lowest bit is the fixed point's; subnormals count as exponent 1.
    pub(crate) fn unit(self) -> u64 {
        self.unit
    }

    /// A double in fixed point.
    #[inline(always)]
    pub(crate) fn of(self, value: f64) -> i128 {
        let bits = value.to_bits();
        let exponent = bits >> FRACTION_BITS & SPECIAL_EXPONENT;
        let fraction = bits & ((1 << FRACTION_BITS) - 1);
        let mantissa = if exponent == 0 { fraction } else { fraction | 1 << FRACTION_BITS };
        let shifted = i128::from(mantissa).wrapping_shl(exponent.max(1).wrapping_sub(self.unit) as u32);
        let sign = i128::from(bits as i64 >> 63);
        (shifted ^ sign) - sign
    }

    /// A sum as an exact sum of doubles.
    pub(crate) fn sum(self, sum: i128) -> ExactFloatSum {
        let mut exact = ExactFloatSum::default();
        exact.add_scaled(sum, self.unit as usize - 1);
        exact
    }
}

/// The double nearest to a number that is not negative, ties to even; infinite beyond the greatest double.
///
/// The number's leading bits are `head`, at least 55 of them. Their lowest bit is bit `lowest` of the number line, on which doubles begin at
/// bit 0; `rest` says whether lower bits are set.
pub(crate) fn nearest(head: u128, lowest: i64, rest: bool) -> f64 {
    let length = i64::from(u128::BITS - head.leading_zeros());
    // Doubles keep 53 bits, and none below the lowest subnormal's.
    let dropped = (length - i64::from(FRACTION_BITS) - 1).max(-lowest);
    if dropped > length {
        return 0.0;
    }
    let kept = head.checked_shr(dropped as u32).unwrap_or(0) as u64;
    let half = 1u128 << (dropped - 1);
    let tail = head & (half | (half - 1));
    let up = tail > half || (tail == half && (rest || kept & 1 == 1));
    // The exponent that makes the lowest kept bit weigh what it does; a leading bit in `kept` adds the last 1 to it.
    let exponent = (lowest + dropped) as u64;
    if exponent >= SPECIAL_EXPONENT - 1 {
        return f64::INFINITY;
    }
    f64::from_bits((exponent << FRACTION_BITS) + kept + u64::from(up))
}

/// Counts of what has no place on the number line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Specials {
    nan: u64,
    infinity: u64,
    minus_infinity: u64,
}

/// Doubles from which on a block is added up over the whole number line first.
const DENSE_FROM: usize = 32;

/// What a double adds to two neighbouring limbs.
#[derive(Clone, Copy)]
struct Place {
    limb: usize,
    low: i64,
    high: i64,
    negative: bool,
}

impl Place {
    /// `None` for NaN and infinities.
    #[inline(always)]
    fn of(value: f64) -> Option<Self> {
        let bits = value.to_bits();
        let exponent = (bits >> FRACTION_BITS) as usize & 0x7FF;
        let fraction = bits & ((1 << FRACTION_BITS) - 1);
        // Subnormals have the weight of exponent 1 without its leading bit.
        let mantissa = if exponent == 0 { fraction } else { fraction | 1 << FRACTION_BITS };
        (exponent != 0x7FF).then(|| Self::at(mantissa, exponent.max(1) - 1, value.is_sign_negative()))
    }

    /// `mantissa * 2^position` units of the lowest bit; `mantissa` is below 2^53.
    #[inline(always)]
    fn at(mantissa: u64, position: usize, negative: bool) -> Self {
        let (limb, shift) = (position / LIMB_BITS, position % LIMB_BITS);
        let low = (mantissa << shift & 0xFFFF_FFFF) as i64;
        let high = (mantissa >> (LIMB_BITS - shift)) as i64;
        Self { limb, low, high, negative }
    }
}

/// A sum of doubles without rounding. The default is the sum of none.
#[derive(Debug, Clone, Default)]
pub struct ExactFloatSum {
    /// Limb 0 of `limbs` on the number line.
    first: u8,
    pending: u16,
    /// Two's complement, least significant first; the last limb carries the sign.
    limbs: SmallVec<[i64; 4]>,
    specials: Option<Box<Specials>>,
}

impl ExactFloatSum {
    /// Adds a double.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.add_signed(value, true);
    }

    /// Takes back a double that was added.
    #[inline]
    pub fn remove(&mut self, value: f64) {
        self.add_signed(value, false);
    }

    /// Adds many doubles, several times faster than one by one.
    pub fn add_all(&mut self, values: &[f64]) {
        self.all_signed(values, true);
    }

    /// Takes back many doubles that were added.
    pub fn remove_all(&mut self, values: &[f64]) {
        self.all_signed(values, false);
    }

    /// Adds each of `values` to the sum of its group and 1 to its count, where `keep` says so. Gives the bytes by which sums outgrew
    /// their places.
    ///
    /// # Panics
    /// Where `groups` or `keep` is shorter than `values`, or a group is beyond `sums` or `counts`.
    pub fn add_by_group(values: &[f64], groups: &[usize], keep: Option<&BooleanBuffer>, sums: &mut [Self], counts: &mut [u64]) -> usize {
        let mut grown = 0;
        for (row, value) in values.iter().enumerate() {
            prefetch_far(sums, groups, row);
            if keep.is_none_or(|keep| keep.value(row)) {
                let sum = &mut sums[groups[row]];
                let before = sum.heap_bytes();
                sum.add(*value);
                grown += sum.heap_bytes() - before;
                counts[groups[row]] += 1;
            }
        }
        grown
    }

    #[inline]
    fn add_signed(&mut self, value: f64, added: bool) {
        match Place::of(value) {
            Some(place) => self.add_place(place, place.negative == added),
            None => self.add_special(value, added),
        }
    }

    fn all_signed(&mut self, values: &[f64], added: bool) {
        for block in values.chunks(usize::from(PENDING_MAX)) {
            if block.len() < DENSE_FROM {
                block.iter().for_each(|value| self.add_signed(*value, added));
                continue;
            }
            let (least, greatest) = exponents(block);
            if least > greatest {
                continue;
            }
            if greatest < SPECIAL_EXPONENT && greatest - least < u64::from(PART_BITS) {
                let (low, high) = sum_of_parts(block, least);
                let sum = i128::from(low) + (i128::from(high) << PART_BITS);
                self.add_scaled(if added { sum } else { -sum }, least as usize - 1);
                continue;
            }
            // The whole number line, twice: neighbours that are alike would wait for each other's limbs.
            let mut lines = [[0i64; LIMBS_MAX + 1]; 2];
            let (mut lowest, mut highest) = (LIMBS_MAX, 0);
            for (position, value) in block.iter().enumerate() {
                let Some(place) = Place::of(*value) else {
                    self.add_special(*value, added);
                    continue;
                };
                let sign = if place.negative == added { -1 } else { 0 };
                let line = &mut lines[position % 2];
                line[place.limb] += (place.low ^ sign) - sign;
                line[place.limb + 1] += (place.high ^ sign) - sign;
                lowest = lowest.min(place.limb);
                highest = highest.max(place.limb + 1);
            }
            if lowest > highest {
                continue;
            }
            self.settle();
            let at = self.reach(lowest, highest + 1 - lowest);
            for (limb, position) in self.limbs[at..].iter_mut().zip(lowest..=highest) {
                *limb += lines[0][position] + lines[1][position];
            }
            self.settle();
        }
    }

    /// Adds an integer, exactly.
    pub fn add_integer(&mut self, value: i128) {
        self.add_scaled(value, UNIT_BIT);
    }

    /// Adds `value * 2^position` units of the lowest bit.
    fn add_scaled(&mut self, value: i128, position: usize) {
        let magnitude = value.unsigned_abs();
        for part in 0..4 {
            let piece = (magnitude >> (part * LIMB_BITS)) as u32;
            self.add_place(Place::at(u64::from(piece), position + part * LIMB_BITS, false), value < 0);
        }
    }

    #[inline]
    fn add_place(&mut self, place: Place, negative: bool) {
        if place.low == 0 && place.high == 0 {
            return;
        }
        let at = self.reach(place.limb, 2);
        let sign = if negative { -1 } else { 1 };
        if let Some([first, second]) = self.limbs.get_mut(at..at + 2) {
            *first += sign * place.low;
            *second += sign * place.high;
        }
        self.pending += 1;
        if self.pending >= PENDING_MAX {
            self.settle();
        }
    }

    /// Makes `count` limbs from `limb` on part of the window, and says where they begin in it.
    #[inline]
    fn reach(&mut self, limb: usize, count: usize) -> usize {
        let first = usize::from(self.first);
        if limb >= first && limb + count <= first + self.limbs.len() {
            return limb - first;
        }
        self.widen(limb, count);
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

    #[cold]
    fn add_special(&mut self, value: f64, added: bool) {
        let specials = self.specials.get_or_insert_default();
        let count = if value.is_nan() {
            &mut specials.nan
        } else if value > 0.0 {
            &mut specials.infinity
        } else {
            &mut specials.minus_infinity
        };
        *count = if added { *count + 1 } else { count.saturating_sub(1) };
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        other.settle();
        if !other.limbs.is_empty() {
            self.settle();
            let at = self.reach(usize::from(other.first), other.limbs.len());
            for (limb, theirs) in self.limbs[at..].iter_mut().zip(&other.limbs) {
                *limb += *theirs;
            }
            self.pending += 1;
        }
        if let Some(theirs) = other.specials {
            let specials = self.specials.get_or_insert_default();
            specials.nan += theirs.nan;
            specials.infinity += theirs.infinity;
            specials.minus_infinity += theirs.minus_infinity;
        }
    }

    /// Carries, so that every limb but the last is from 0 to 2^32 - 1 and the last fits 32 bits with its sign.
    fn settle(&mut self) {
        self.pending = 0;
        let Some((last, rest)) = self.limbs.split_last_mut() else { return };
        let mut carry = 0;
        for limb in rest {
            let sum = *limb + carry;
            *limb = sum & 0xFFFF_FFFF;
            carry = sum >> LIMB_BITS;
        }
        *last += carry;
        while let Some(last) = self.limbs.last_mut()
            && i32::try_from(*last).is_err()
        {
            let carry = *last >> LIMB_BITS;
            *last &= 0xFFFF_FFFF;
            self.limbs.push(carry);
        }
    }

    /// Drops limbs at both ends that say nothing. Only of settled sums.
    fn trim(&mut self) {
        while let [.., before, last] = self.limbs.as_slice()
            && ((*last == 0 && i32::try_from(*before).is_ok()) || (*last == -1 && *before >> 31 == 1))
        {
            // A sign limb above a limb whose own top bit is that sign.
            let negative = *last == -1;
            self.limbs.pop();
            if let (true, Some(last)) = (negative, self.limbs.last_mut()) {
                *last -= 1 << LIMB_BITS;
            }
        }
        let zeros = self.limbs.iter().take_while(|limb| **limb == 0).count();
        self.limbs.drain(..zeros);
        self.first = if self.limbs.is_empty() { 0 } else { self.first + zeros as u8 };
    }

    /// The double nearest to the sum, ties to even; infinite beyond the greatest double. NaN where one was added, or infinities of
    /// both signs.
    pub fn value(&self) -> f64 {
        if let Some(specials) = &self.specials {
            match (specials.nan, specials.infinity, specials.minus_infinity) {
                (0, 0, 0) => {}
                (0, _, 0) => return f64::INFINITY,
                (0, 0, _) => return f64::NEG_INFINITY,
                _ => return f64::NAN,
            }
        }
        let (negative, magnitude) = self.sign_and_magnitude();
        let nearest = magnitude.nearest();
        if negative { -nearest } else { nearest }
    }

    /// Whether the sum is below 0, and the settled sum without its sign. NaN and infinities left out.
    fn sign_and_magnitude(&self) -> (bool, Self) {
        let mut sum = self.clone();
        sum.settle();
        let negative = sum.limbs.last().is_some_and(|last| *last < 0);
        if negative {
            sum.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            sum.settle();
        }
        (negative, sum)
    }

    /// The sum without its sign as a whole number of words, the least first, and its place in halves of a word from the bit that weighs
    /// 2^-1074. `None` where NaN or an infinity was added.
    pub(crate) fn words(&self) -> Option<(SmallVec<[u64; 4]>, usize)> {
        if self.specials.as_ref().is_some_and(|specials| **specials != Specials::default()) {
            return None;
        }
        let (_, magnitude) = self.sign_and_magnitude();
        let words = magnitude.limbs.chunks(2).map(|pair| pair.iter().rev().fold(0, |word, limb| word << LIMB_BITS | *limb as u64));
        Some((words.collect(), usize::from(self.first)))
    }

    /// The double nearest to a settled sum that is not negative.
    fn nearest(&self) -> f64 {
        let Some(top) = self.limbs.iter().rposition(|limb| *limb != 0) else {
            return 0.0;
        };
        let limb = |position: usize| self.limbs.get(position).map_or(0, |limb| *limb as u128);
        // The three limbs from the top hold at least 65 bits, of which 53 are kept; the limbs below only break ties.
        let below = |count: usize| top.checked_sub(count).map_or(0, limb);
        let head = limb(top) << (2 * LIMB_BITS) | below(1) << LIMB_BITS | below(2);
        let rest = self.limbs[..top.saturating_sub(2)].iter().any(|limb| *limb != 0);
        // Below the number line's low end where the window begins there.
        let lowest = (usize::from(self.first) + top) as i64 * LIMB_BITS as i64 - 2 * LIMB_BITS as i64;
        nearest(head, lowest, rest)
    }

    /// The sum as bytes that [`Self::from_bytes`] reads: what a partial aggregate sends.
    ///
    /// The first limb's position and the count of limbs, a byte each; the limbs, 32 bits little-endian; and three counts of 64 bits, of
    /// NaN, infinity and minus infinity, where there was any.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut sum = self.clone();
        sum.settle();
        sum.trim();
        let mut bytes = Vec::with_capacity(2 + 4 * sum.limbs.len());
        bytes.push(sum.first);
        bytes.push(sum.limbs.len() as u8);
        for limb in &sum.limbs {
            bytes.extend_from_slice(&(*limb as u32).to_le_bytes());
        }
        if let Some(specials) = sum.specials {
            for count in [specials.nan, specials.infinity, specials.minus_infinity] {
                bytes.extend_from_slice(&count.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`KernelError::Internal`] for bytes that it did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KernelError> {
        let broken = || KernelError::internal(format!("{} bytes are not an exact sum of doubles", bytes.len()));
        let [first, count, rest @ ..] = bytes else { return Err(broken()) };
        let (limbs, specials) = rest.split_at_checked(usize::from(*count) * 4).ok_or_else(broken)?;
        if usize::from(*first) + usize::from(*count) > LIMBS_MAX {
            return Err(broken());
        }
        let (words, _) = limbs.as_chunks::<4>();
        let mut limbs: SmallVec<[i64; 4]> = words.iter().map(|word| i64::from(u32::from_le_bytes(*word))).collect();
        if let Some(last) = limbs.last_mut() {
            *last = i64::from(*last as u32 as i32);
        }
        let specials = match specials.as_chunks::<8>() {
            ([], []) => None,
            ([nan, infinity, minus_infinity], []) => Some(Box::new(Specials {
                nan: u64::from_le_bytes(*nan),
                infinity: u64::from_le_bytes(*infinity),
                minus_infinity: u64::from_le_bytes(*minus_infinity),
            })),
            _ => return Err(broken()),
        };
        Ok(Self { first: *first, pending: 0, limbs, specials })
    }

    /// Bytes held beyond the value itself.
    pub fn heap_bytes(&self) -> usize {
        let limbs = if self.limbs.spilled() { self.limbs.capacity() * size_of::<i64>() } else { 0 };
        limbs + self.specials.as_ref().map_or(0, |_| size_of::<Specials>())
    }
}

impl PartialEq for ExactFloatSum {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for ExactFloatSum {}
