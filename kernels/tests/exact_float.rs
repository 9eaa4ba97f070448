//! Exact sums of doubles against what IEEE 754 and integers prove, over random bit patterns.

use bowshot_kernels::ExactFloatSum;

/// A repeatable stream of numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Any finite double: all exponents are as likely.
    fn double(&mut self) -> f64 {
        loop {
            let value = f64::from_bits(self.next());
            if value.is_finite() {
                return value;
            }
        }
    }

    /// Doubles of like magnitude, as data has them.
    fn tame(&mut self) -> f64 {
        (self.next() >> 11) as f64 / 1e9 - 4e6
    }
}

fn sum(values: &[f64]) -> ExactFloatSum {
    let mut sum = ExactFloatSum::default();
    values.iter().for_each(|value| sum.add(*value));
    sum
}

/// The sum of no double is 0, not -0, and so is that of zeros of both signs.
fn plain(value: f64) -> u64 {
    (value + 0.0).to_bits()
}

#[test]
fn two_doubles_add_up_as_ieee_adds_them() {
    let mut random = Random(7);
    for case in 0..200_000 {
        let (left, right) = (random.double(), random.double());
        // Near exponents, where rounding and cancellation happen.
        let right = if case % 2 == 0 { left * (random.tame() / 1e6) } else { right };
        if !right.is_finite() {
            continue;
        }
        assert_eq!(plain(sum(&[left, right]).value()), plain(left + right), "{left:e} + {right:e}");
    }
}

#[test]
fn integers_round_once() {
    let mut random = Random(11);
    for _ in 0..200_000 {
        let value = ((u128::from(random.next()) << 64 | u128::from(random.next())) as i128) >> (random.next() % 127);
        let mut sum = ExactFloatSum::default();
        sum.add_integer(value);
        assert_eq!(plain(sum.value()), plain(value as f64), "{value}");
    }
}

#[test]
fn order_parts_and_bytes_change_nothing() {
    let mut random = Random(13);
    for case in 0..500 {
        let count = 1 + (random.next() % 3_000) as usize;
        let mut values: Vec<f64> = (0..count).map(|_| if case % 2 == 0 { random.tame() } else { random.double() }).collect();
        let whole = sum(&values).value();
        for at in (1..count).rev() {
            values.swap(at, (random.next() % (at as u64 + 1)) as usize);
        }
        let mut merged = ExactFloatSum::default();
        for part in values.chunks(1 + (random.next() % 700) as usize) {
            let bytes = sum(part).to_bytes();
            merged.merge(&ExactFloatSum::from_bytes(&bytes).expect("bytes that were written"));
        }
        assert_eq!(merged.value().to_bits(), whole.to_bits(), "case {case}");
        let mut at_once = ExactFloatSum::default();
        at_once.add_all(&values);
        assert_eq!(at_once.value().to_bits(), whole.to_bits(), "case {case}: all at once");
        at_once.remove_all(&values[1..]);
        assert_eq!(plain(at_once.value()), plain(values[0]), "case {case}: all taken back at once but one");
        for value in &values[1..] {
            merged.remove(*value);
        }
        assert_eq!(plain(merged.value()), plain(values[0]), "case {case}: all taken back but one");
    }
}

#[test]
fn what_naive_addition_loses_is_kept() {
    assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]).value(), 2.0);
    assert_eq!(sum(&[1e308, 1e308, -1e308]).value(), 1e308);
    assert_eq!(sum(&[f64::MAX, f64::MAX]).value(), f64::INFINITY);
    assert_eq!(sum(&[5e-324; 3]).value(), 1.5e-323);
    // A tie goes to even, unless the least bit there is breaks it.
    let tie = 9_007_199_254_740_992.0;
    assert_eq!(sum(&[tie, 1.0]).value(), tie);
    assert_eq!(sum(&[tie, 1.0, 5e-324]).value(), tie + 2.0);
    assert_eq!(sum(&[-tie, -1.0, -5e-324]).value(), -tie - 2.0);
    assert_eq!(sum(&[-0.0]).value().to_bits(), 0);
    // Many of the greatest, taken down again.
    let mut many = sum(&vec![f64::MAX; 10_000]);
    (0..9_999).for_each(|_| many.remove(f64::MAX));
    assert_eq!(many.value(), f64::MAX);
}

#[test]
fn specials_follow_ieee_and_can_be_taken_back() {
    assert!(sum(&[1.0, f64::NAN]).value().is_nan());
    assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).value().is_nan());
    assert_eq!(sum(&[f64::INFINITY, 1.0]).value(), f64::INFINITY);
    let mut left = sum(&[f64::NEG_INFINITY, 2.5]);
    let copy = ExactFloatSum::from_bytes(&left.to_bytes()).expect("bytes that were written");
    assert_eq!(copy.value(), f64::NEG_INFINITY);
    left.remove(f64::NEG_INFINITY);
    assert_eq!(left.value(), 2.5);
}

#[test]
fn foreign_bytes_are_refused() {
    for bytes in [&[][..], &[1], &[0, 2, 0, 0, 0, 0], &[60, 60], &[0, 0, 1, 2, 3], &[200; 1_000]] {
        assert!(ExactFloatSum::from_bytes(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn blocks_add_up_like_their_values_one_by_one() {
    let mut random = Random(99);
    for case in 0..20_000 {
        let rows = [31, 32, 100, 256, 257, 512][case % 6];
        // Exponents of a block span up to 60 bits: on both sides of what its fast path holds. Most values may be zeros.
        let span = (case / 6 % 61) as i32;
        let zeros_in_ten = case / 366 % 11;
        let values: Vec<f64> = (0..rows)
            .map(|_| {
                let mantissa = (random.next() >> 11) as f64 / 9_007_199_254_740_992.0 + 1.0;
                let signed = if random.next().is_multiple_of(2) { mantissa } else { -mantissa };
                let scaled = signed * 2f64.powi((random.next() % (span as u64 + 1)) as i32 - 20);
                if random.next() % 10 < zeros_in_ten as u64 { 0.0f64.copysign(signed) } else { scaled }
            })
            .collect();
        let (mut block, mut each) = (ExactFloatSum::default(), ExactFloatSum::default());
        block.add_all(&values);
        values.iter().for_each(|value| each.add(*value));
        assert_eq!(block, each, "case {case}: {} beside {}", block.value(), each.value());
        block.remove_all(&values);
        assert_eq!(block, ExactFloatSum::default(), "case {case}");
    }
}
