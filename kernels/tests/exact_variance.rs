//! Exact variances against integers of any size: the answer must be the double nearest to the true one, whatever the doubles.

use std::cmp::Ordering;

use bowshot_kernels::{Divisor, ExactVariance};
use num_bigint::BigInt;

/// A repeatable stream of numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A double whose exponent is one of `exponents`, counted from that of the subnormals.
    fn double(&mut self, exponents: std::ops::Range<u64>) -> f64 {
        let exponent = exponents.start + self.below(exponents.end - exponents.start);
        f64::from_bits((self.next() & ((1 << 63) | ((1 << 52) - 1))) | (exponent << 52))
    }
}

/// A double in units of 2^-1074; infinity as what would come after the greatest double.
fn units(value: f64) -> BigInt {
    let bits = value.abs().to_bits();
    let (exponent, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
    let magnitude = if exponent == 0 { BigInt::from(fraction) } else { BigInt::from(fraction | 1 << 52) << (exponent - 1) };
    if value < 0.0 { -magnitude } else { magnitude }
}

/// The true variance as a fraction, in units of 2^-2148.
fn truth(values: &[f64], divisor: Divisor) -> (BigInt, BigInt) {
    let count = BigInt::from(values.len());
    let sum: BigInt = values.iter().map(|value| units(*value)).sum();
    let squares: BigInt = values.iter().map(|value| units(*value).pow(2)).sum();
    let divided = if divisor == Divisor::Sample { &count - 1 } else { count.clone() };
    (&count * squares - sum.pow(2), count * divided)
}

/// Asserts that no other double is nearer than `found`, where `compare` places the truth beside a double in units of 2^-1075.
fn assert_nearest(found: f64, compare: impl Fn(&BigInt) -> Ordering, what: &str) {
    assert!(found.to_bits() <= f64::INFINITY.to_bits(), "{what}: {found:e}");
    let is_even = found.to_bits().is_multiple_of(2);
    if found > 0.0 {
        let middle = units(found.next_down()) + units(found);
        let beside = compare(&middle);
        assert!(beside.is_gt() || (beside.is_eq() && is_even), "{what}: {found:e} is too high");
    }
    if found < f64::INFINITY {
        let middle = units(found) + units(found.next_up());
        let beside = compare(&middle);
        assert!(beside.is_lt() || (beside.is_eq() && is_even), "{what}: {found:e} is too low");
    }
}

fn assert_exact(found: &ExactVariance, values: &[f64], what: &str) {
    assert_eq!(found.count(), values.len() as u64, "{what}");
    for divisor in [Divisor::Population, Divisor::Sample] {
        let what = format!("{what}, {divisor:?} of {} doubles from {:e}", values.len(), values.first().copied().unwrap_or_default());
        let (variance, deviation) = (found.variance(divisor), found.standard_deviation(divisor));
        if values.len() <= usize::from(divisor == Divisor::Sample) {
            assert_eq!((variance, deviation), (None, None), "{what}");
            continue;
        }
        let (above, below) = truth(values, divisor);
        let (variance, deviation) = (variance.expect(&what), deviation.expect(&what));
        assert_nearest(variance, |middle| above.cmp(&((&below * middle) << 1_073)), &format!("{what}, variance"));
        assert_nearest(deviation, |middle| (&above << 2u32).cmp(&(&below * middle.pow(2))), &format!("{what}, deviation"));
    }
}

fn of(values: &[f64]) -> ExactVariance {
    let mut variance = ExactVariance::default();
    variance.add_all(values);
    variance
}

/// Doubles of one of several kinds.
fn doubles(random: &mut Random, kind: usize, count: usize) -> Vec<f64> {
    let anchor = random.double(900..1_200);
    let narrow = random.below(1_900);
    (0..count)
        .map(|_| match kind {
            // As data has them; all there are; near the least; near the greatest; of a band.
            0 => random.below(10_000_000) as f64 / 100.0,
            1 => random.double(0..0x7FF),
            2 => random.double(0..4),
            3 => random.double(0x7FB..0x7FF),
            4 => random.double(narrow..narrow + 63),
            // Far from 0 and near each other: the textbook's formula has no digit right in doubles.
            5 => anchor * (1.0 + random.below(100) as f64 * f64::EPSILON),
            6 => [0.0, -0.0, 1.0, 5e-324, -5e-324, f64::MAX, -f64::MAX][random.below(7) as usize],
            _ => anchor,
        })
        .collect()
}

#[test]
fn answers_are_the_nearest_doubles() {
    let mut random = Random(17);
    for case in 0..6_000 {
        let count = [0, 1, 2, 3, 5, 31, 33, 100][case / 8 % 8];
        let values = doubles(&mut random, case % 8, count);
        assert_exact(&of(&values), &values, &format!("case {case}"));
        let mut one_by_one = ExactVariance::default();
        values.iter().for_each(|value| one_by_one.add(*value));
        assert_eq!(one_by_one.to_bytes(), of(&values).to_bytes(), "case {case}");
    }
}

#[test]
fn order_parts_bytes_and_rows_taken_back_change_nothing() {
    let mut random = Random(19);
    for case in 0..400 {
        let kind = case % 8;
        let count = 1 + random.below(4_000) as usize;
        let mut values = doubles(&mut random, kind, count);
        let whole = of(&values);
        if case < 40 {
            assert_exact(&whole, &values, &format!("case {case}"));
        }
        for at in (1..count).rev() {
            values.swap(at, random.below(at as u64 + 1) as usize);
        }
        let mut merged = ExactVariance::default();
        for part in values.chunks(1 + random.below(900) as usize) {
            merged.merge(&ExactVariance::from_bytes(&of(part).to_bytes()).expect("bytes that were written"));
        }
        assert_eq!(merged.to_bytes(), whole.to_bytes(), "case {case}");
        let kept = random.below(4).min(count as u64) as usize;
        for part in values[kept..].chunks(1 + random.below(90) as usize) {
            merged.remove_all(part);
        }
        assert_exact(&merged, &values[..kept], &format!("case {case}, rows taken back"));
        assert_eq!(merged.to_bytes(), of(&values[..kept]).to_bytes(), "case {case}");
    }
}

#[test]
fn groups_hold_what_was_kept_for_them() {
    let mut random = Random(23);
    let values = doubles(&mut random, 1, 5_000);
    let groups: Vec<usize> = values.iter().map(|_| random.below(7) as usize).collect();
    let keep = arrow::buffer::BooleanBuffer::from_iter(values.iter().map(|_| random.below(3) > 0));
    let mut variances = vec![ExactVariance::default(); 7];
    let grown = ExactVariance::add_by_group(&values, &groups, Some(&keep), &mut variances);
    assert_eq!(grown, variances.iter().map(ExactVariance::heap_bytes).sum::<usize>());
    for (group, variance) in variances.iter().enumerate() {
        let kept: Vec<f64> = (0..values.len()).filter(|row| groups[*row] == group && keep.value(*row)).map(|row| values[row]).collect();
        assert_exact(variance, &kept, &format!("group {group}"));
    }
}

#[test]
fn integers_are_doubles() {
    let mut random = Random(29);
    for shift in [12, 20, 33, 50] {
        let integers: Vec<i64> = (0..1_000).map(|_| random.next() as i64 >> shift).collect();
        let doubles: Vec<f64> = integers.iter().map(|value| *value as f64).collect();
        let squares = integers.iter().map(|value| u128::from(value.unsigned_abs()).pow(2)).sum();
        let variance = ExactVariance::of_integers(1_000, integers.iter().map(|value| i128::from(*value)).sum(), squares);
        assert_eq!(variance.to_bytes(), of(&doubles).to_bytes());
    }
}

#[test]
fn what_doubles_cannot_hold_on_the_way_is_held() {
    // The deviation is a double where the variance is none, at both ends.
    assert_eq!(of(&[1e200, -1e200]).variance(Divisor::Population), Some(f64::INFINITY));
    assert_eq!(of(&[1e200, -1e200]).standard_deviation(Divisor::Population), Some(1e200));
    assert_eq!(of(&[f64::MAX, -f64::MAX]).standard_deviation(Divisor::Population), Some(f64::MAX));
    assert_eq!(of(&[f64::MAX, -f64::MAX]).standard_deviation(Divisor::Sample), Some(f64::INFINITY));
    assert_eq!(of(&[5e-324, -5e-324]).variance(Divisor::Population), Some(0.0));
    assert_eq!(of(&[5e-324, -5e-324]).standard_deviation(Divisor::Population), Some(5e-324));
    // 2^53 and its neighbour: squares differ far below a double's last bit.
    assert_eq!(of(&[9_007_199_254_740_992.0, 9_007_199_254_740_993.0, 9_007_199_254_740_994.0]).variance(Divisor::Sample), Some(4.0 / 3.0));
    assert_eq!(of(&[3.25; 1_000]).variance(Divisor::Sample), Some(0.0));
}

#[test]
fn nothing_is_known_beside_nan_or_an_infinity() {
    for special in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut variance = of(&[1.0, special, 3.0]);
        assert!(variance.variance(Divisor::Sample).is_some_and(f64::is_nan));
        assert!(variance.standard_deviation(Divisor::Population).is_some_and(f64::is_nan));
        let copy = ExactVariance::from_bytes(&variance.to_bytes()).expect("bytes that were written");
        assert!(copy.variance(Divisor::Population).is_some_and(f64::is_nan));
        variance.remove_all(&[special]);
        assert_eq!(variance.variance(Divisor::Sample), Some(2.0));
        assert_eq!(of(&[special]).variance(Divisor::Sample), None);
        assert!(of(&[special]).variance(Divisor::Population).is_some_and(f64::is_nan));
    }
}

#[test]
fn foreign_bytes_are_refused() {
    let written = of(&[1.5, 2.5]).to_bytes();
    for bytes in [&[][..], &[0; 8], &[0; 9], &[200; 1_000], &written[..written.len() - 1]] {
        assert!(ExactVariance::from_bytes(bytes).is_err(), "{bytes:?}");
    }
}
