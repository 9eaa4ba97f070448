//! Doubles as integers of the same order, so that everything kernels know of integers holds for them: ranges, extremes, narrowing.

/// A double by its place in IEEE 754's total order, in which DataFusion compares doubles too, but for 0 and -0:
/// -infinity < ... < -0 < 0 < ... < infinity < NaN. There is one NaN, as in SQL, whatever its sign and payload were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TotalOrder(i64);

impl TotalOrder {
    /// The least place that is no NaN.
    pub(crate) const LEAST: Self = Self::of(f64::NEG_INFINITY);
    /// The greatest place that is no NaN.
    pub(crate) const GREATEST: Self = Self::of(f64::INFINITY);

    /// The place of a double. Every one that is no NaN has its own, bit by bit.
    #[inline(always)]
    pub const fn of(value: f64) -> Self {
        let bits = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
        Self(mirror_negatives(bits as i64))
    }

    /// The double at a place that [`Self::place`] gave.
    #[inline(always)]
    pub const fn at(place: i64) -> Self {
        Self(place)
    }

    /// The place as an integer, which fits kernels' values.
    #[inline(always)]
    pub const fn place(self) -> i64 {
        self.0
    }

    /// The double.
    #[inline(always)]
    pub const fn value(self) -> f64 {
        f64::from_bits(mirror_negatives(self.0) as u64)
    }
}

/// Negative doubles grow in magnitude with their bits: all bits but the sign are flipped. Its own inverse.
#[inline(always)]
const fn mirror_negatives(bits: i64) -> i64 {
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}
