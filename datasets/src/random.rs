//! Random numbers that any row, user or page can draw by itself, so that every part of a table can be generated alone.
//!
//! SplitMix64 (Steele, Lea and Flood, 2014): one addition and one mixing step a number, and any 64-bit number is a good seed.

/// The increment of SplitMix64: 2^64 divided by the golden ratio, odd.
const INCREMENT: u64 = 0x9E37_79B9_7F4A_7C15;

/// Mixes all bits of a number into all bits; a bijection.
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// A sequence of random numbers.
pub(crate) struct Random(u64);

impl Random {
    /// The sequence that belongs to `number` among those of `seed`.
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        Self(mix(seed ^ mix(number.wrapping_add(INCREMENT))))
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(INCREMENT);
        mix(self.0)
    }

    /// A number from 0 to below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number from 0 to below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// True in `percent` of a hundred draws.
    pub(crate) fn percent(&mut self, percent: f64) -> bool {
        self.unit() * 100.0 < percent
    }

    /// One of `choices`, all as likely.
    pub(crate) fn choose<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// One of `choices`, as likely as the weight beside it.
    pub(crate) fn weighted<T: Copy>(&mut self, choices: &[(T, u64)]) -> T {
        let mut left = self.below(choices.iter().map(|(_, weight)| weight).sum());
        for (choice, weight) in choices {
            if left < *weight {
                return *choice;
            }
            left -= weight;
        }
        choices[0].0
    }

    /// A rank from 0 to below `ranks` by Zipf's law: the likelihood of rank r falls as 1 / (r + 1). With a `steepness` above 1 low ranks
    /// are likelier than that, below 1 less likely.
    pub(crate) fn zipf(&mut self, ranks: usize, steepness: f64) -> u64 {
        let exponent = self.unit().powf(steepness) * ((ranks + 1) as f64).ln();
        ((exponent.exp() - 1.0) as u64).min(ranks as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_seed_and_number() {
        let draw = |seed, number| Random::of(seed, number).bits();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(2, 1));
        assert_ne!(draw(1, 2), draw(1, 3));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut random = Random::of(7, 0);
        let mut seen = [0; 3];
        for _ in 0..3_000 {
            assert!(random.unit() < 1.0);
            assert!(random.zipf(10, 1.5) < 10);
            seen[random.below(3) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (900..1_100).contains(count)), "{seen:?}");
        assert_eq!(random.weighted(&[('a', 0), ('b', 5)]), 'b');
    }

    #[test]
    fn ranks_follow_zipfs_law() {
        let mut random = Random::of(7, 0);
        let mut seen = [0; 1_000];
        for _ in 0..100_000 {
            seen[random.zipf(1_000, 1.0) as usize] += 1;
        }
        // ln 2 / ln 1001 and ln 1.5 / ln 1001 of the draws.
        assert!((9_800..10_300).contains(&seen[0]), "{}", seen[0]);
        assert!((5_600..6_100).contains(&seen[1]), "{}", seen[1]);
    }
}
