//! Narrowing of native integer buffers: one pass for the range, one that packs lanes.

use arrow::buffer::NullBuffer;
use bytemuck::Pod;

use super::{LaneWidth, Words};
use crate::error::Decline;
use crate::simd::vectorised;

/// Native integers of an Arrow buffer.
pub(crate) trait Native: Pod + Ord {
    fn wide(self) -> i128;
    /// The low 64 bits: differences inside a 64-bit range are exact in them.
    fn low(self) -> u64;
}

macro_rules! native {
    ($($type:ty),*) => { $(impl Native for $type {
        #[inline(always)]
        fn wide(self) -> i128 { self as i128 }
        #[inline(always)]
        fn low(self) -> u64 { self as u64 }
    })* };
}
native!(i8, i16, i32, i64, u8, u16, u32, u64, i128);

/// Lane integers.
pub(crate) trait Lane: Pod {
    fn narrow(value: u64) -> Self;
}

macro_rules! lane {
    ($($type:ty),*) => { $(impl Lane for $type {
        #[inline(always)]
        fn narrow(value: u64) -> Self { value as Self }
    })* };
}
lane!(u8, u16, u32, u64);

vectorised! {
    /// Least and greatest of a slice that is not empty.
    fn range_of_slice [T: Native](values: &[T]) -> (T, T) {
        let (mut low, mut high) = (values[0], values[0]);
        for value in values {
            low = low.min(*value);
            high = high.max(*value);
        }
        (low, high)
    }

    /// Least and greatest of 128-bit values as 64-bit ones, with bits set where one does not fit.
    fn range_of_wide_slice [](values: &[i128]) -> (i64, i64, u64) {
        let (mut low, mut high, mut lost) = (i64::MAX, i64::MIN, 0u64);
        for value in values {
            let narrow = *value as i64;
            low = low.min(narrow);
            high = high.max(narrow);
            lost |= (narrow >> 63) as u64 ^ (*value >> 64) as u64;
        }
        (low, high, lost)
    }

    /// `lane = low64(value) - base`.
    fn pack [T: Native, L: Lane](values: &[T], base: u64, lanes: &mut [L]) {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = L::narrow(value.low().wrapping_sub(base));
        }
    }

    /// `lane = (low64(value) - base) / divisor` where that leaves no rest.
    fn pack_divided [T: Native, L: Lane](values: &[T], base: u64, division: Division, lanes: &mut [L]) {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = L::narrow(division.quotient(value.low().wrapping_sub(base)));
        }
    }

    /// Not 0 where a division leaves a rest: its wrapped quotient is over the greatest, or low bits are left.
    fn rest_of [T: Native](values: &[T], base: u64, division: Division) -> u64 {
        let mut rest = 0u64;
        for value in values {
            let offset = value.low().wrapping_sub(base);
            rest |= (offset & division.low_bits) | u64::from(division.quotient(offset) > division.quotient_max);
        }
        rest
    }
}

/// Exact division of 64-bit offsets by one divisor.
#[derive(Clone, Copy)]
pub(crate) struct Division {
    shift: u32,
    low_bits: u64,
    inverse: u64,
    quotient_max: u64,
}

impl Division {
    /// For offsets of 0 to `offset_max`; `divisor` at least 1.
    pub(crate) fn new(divisor: u64, offset_max: u64) -> Self {
        let shift = divisor.trailing_zeros();
        let odd = divisor >> shift;
        let mut inverse = odd;
        // Newton: each step doubles the correct bits, from 3 to over 64.
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        }
        Self { shift, low_bits: (1u64 << shift) - 1, inverse, quotient_max: offset_max / divisor }
    }

    /// The exact quotient: a shift and a product with the inverse modulo 2^64.
    #[inline(always)]
    fn quotient(self, offset: u64) -> u64 {
        (offset >> self.shift).wrapping_mul(self.inverse)
    }
}

/// Least and greatest value that is not NULL; `None` where there is none.
pub(crate) fn range_of<T: Native>(values: &[T], nulls: Option<&NullBuffer>) -> Option<(i128, i128)> {
    let mut range: Option<(i128, i128)> = None;
    let mut include = |low: i128, high: i128| {
        range = Some(range.map_or((low, high), |(least, greatest)| (least.min(low), greatest.max(high))));
    };
    match nulls {
        None if values.is_empty() => {}
        None => match bytemuck::try_cast_slice::<T, i128>(values) {
            Ok(wide) if size_of::<T>() == 16 => {
                let (low, high, lost) = range_of_wide_slice(wide);
                if lost == 0 {
                    include(i128::from(low), i128::from(high));
                } else {
                    let (low, high) = range_of_slice(values);
                    include(low.wide(), high.wide());
                }
            }
            _ => {
                let (low, high) = range_of_slice(values);
                include(low.wide(), high.wide());
            }
        },
        Some(nulls) => {
            for (start, end) in nulls.valid_slices() {
                let (low, high) = range_of_slice(&values[start..end]);
                include(low.wide(), high.wide());
            }
        }
    }
    range
}

/// How values become lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub base: i128,
    pub factor: i128,
    pub lane_max: u64,
    pub lane_width: LaneWidth,
}

/// Chooses the frame for `range`: the GCD of the offsets is used only where it makes lanes narrower.
/// `fold` feeds every offset from `range.0` that is not NULL, and stops early once told `false`.
pub(crate) fn frame_of(range: (i128, i128), candidate: u128, fold: impl Fn(&mut dyn FnMut(u128) -> bool)) -> Result<Frame, Decline> {
    let (base, high) = range;
    let width = high.wrapping_sub(base) as u128;
    let plain = u64::try_from(width).ok().map(LaneWidth::fitting);
    let divided = |divisor: u128| u64::try_from(width / divisor.max(1)).ok();
    let improves = |divisor: u128| divided(divisor).is_some_and(|max| plain.is_none_or(|plain| LaneWidth::fitting(max) < plain));
    let mut divisor = candidate;
    if improves(divisor) {
        fold(&mut |offset| {
            if offset % divisor != 0 {
                divisor = gcd(divisor, offset % divisor);
            }
            improves(divisor)
        });
    }
    if !improves(divisor) {
        divisor = 1;
    }
    let lane_max = divided(divisor).ok_or_else(|| Decline::new("values spread over more than 64 bits"))?;
    let factor = i128::try_from(divisor).map_err(|_| Decline::new("values spread over more than 127 bits"))?;
    Ok(Frame { base, factor, lane_max, lane_width: LaneWidth::fitting(lane_max) })
}

/// Greatest common divisor; `gcd(0, x)` is x.
pub(crate) fn gcd(mut left: u128, mut right: u128) -> u128 {
    while right != 0 {
        (left, right) = (right, left % right);
    }
    left
}

/// Writes the lanes of `values` from row `start` on. Rows that are NULL get lane 0.
pub(crate) fn pack_values<T: Native>(values: &[T], nulls: Option<&NullBuffer>, frame: &Frame, lanes: &mut Words, start: usize) {
    match frame.lane_width {
        LaneWidth::U8 => pack_into::<T, u8>(values, nulls, frame, lanes, start),
        LaneWidth::U16 => pack_into::<T, u16>(values, nulls, frame, lanes, start),
        LaneWidth::U32 => pack_into::<T, u32>(values, nulls, frame, lanes, start),
        LaneWidth::U64 => pack_into::<T, u64>(values, nulls, frame, lanes, start),
    }
}

fn pack_into<T: Native, L: Lane>(values: &[T], nulls: Option<&NullBuffer>, frame: &Frame, lanes: &mut Words, start: usize) {
    let lanes = &mut lanes.as_mut_slice::<L>()[start..start + values.len()];
    let factor = u64::try_from(frame.factor);
    match factor {
        Ok(1) => pack(values, frame.base as u64, lanes),
        // lane_max * factor is the greatest offset: inside 64 bits wherever the offsets are.
        Ok(factor) if frame.lane_max.checked_mul(factor).is_some() => {
            let division = Division::new(factor, frame.lane_max * factor);
            pack_divided(values, frame.base as u64, division, lanes);
        }
        _ => {
            for (lane, value) in lanes.iter_mut().zip(values) {
                let offset = value.wide().wrapping_sub(frame.base) as u128;
                *lane = L::narrow((offset / frame.factor as u128) as u64);
            }
        }
    }
    if let Some(nulls) = nulls {
        for (lane, valid) in lanes.iter_mut().zip(nulls.iter()) {
            if !valid {
                *lane = L::narrow(0);
            }
        }
    }
}
