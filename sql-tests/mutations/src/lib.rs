//! Bytes that are nearly right, for parsers of what comes from outside: they may refuse, but not panic, hang or take memory without end.
//!
//! A case is one of the seeds, changed in a few places: single bits, numbers at their ends, parts left out, said twice or taken from another seed.
//! `BOWSHOT_SEED` and `BOWSHOT_CASES` choose others and more than the short form that `./check` runs; a case that fails says how to run it alone.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Cases of a parser in the short form.
const CASES: u64 = 2_000;
/// Longest text or bytes of a case: parsers are asked many times.
const BYTES_MAX: usize = 1 << 16;
/// Places that a case is changed in, at most.
const CHANGES_MAX: usize = 6;

/// Numbers at which counts and lengths go wrong, little-endian.
const EXTREMES: [u64; 14] =
    [0, 1, 127, 128, 255, (1 << 15) - 1, (1 << 16) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX];

/// Gives `parse` bytes near each of the seeds.
///
/// # Panics
/// Where `parse` does, after it has printed the seed of that case and its bytes.
pub fn near_bytes(seeds: &[Vec<u8>], parse: impl Fn(&[u8])) {
    let (first, cases) = (environment("BOWSHOT_SEED", 1), environment("BOWSHOT_CASES", CASES));
    for seed in first..first.saturating_add(cases) {
        let case = mutated(seeds, &mut fastrand::Rng::with_seed(seed));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| parse(&case))) {
            println!("BOWSHOT_SEED={seed} BOWSHOT_CASES=1\n{}", case.escape_ascii());
            resume_unwind(panic);
        }
    }
}

/// Gives `parse` texts near each of the seeds: UTF-8 whose parts are changed at the bounds of words, too.
///
/// # Panics
/// Where `parse` does, after it has printed the seed of that case and its text.
pub fn near_texts(seeds: &[&str], parse: impl Fn(&str)) {
    let bytes: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    near_bytes(&bytes, |case| parse(&String::from_utf8_lossy(case)));
}

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn mutated(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let pick = |random: &mut fastrand::Rng| random.choice(seeds).cloned().unwrap_or_default();
    let mut case = pick(random);
    for _ in 0..random.usize(1..=CHANGES_MAX) {
        let part = part_of(&case, random);
        match random.u8(0..8) {
            0 => flip(&mut case, random),
            1 => {
                if let Some(byte) = case.get_mut(part.start) {
                    *byte = random.u8(..);
                }
            }
            2 => extreme(&mut case, part.start, random),
            3 => drop(case.drain(part)),
            4 => case.truncate(part.start),
            // Said twice, or many times over: depth and lengths.
            5 => {
                let copy = case[part.clone()].repeat(if random.u8(0..10) == 0 { random.usize(1..500) } else { 1 });
                insert(&mut case, part.start, &copy);
            }
            6 => {
                let other = pick(random);
                let taken = part_of(&other, random);
                insert(&mut case, part.start, &other[taken]);
            }
            _ => {
                let other = pick(random);
                let taken = part_of(&other, random);
                case.splice(part, other[taken].iter().copied());
            }
        }
        case.truncate(BYTES_MAX);
    }
    case
}

/// A short part mostly: what matters lies in a few bytes.
fn part_of(of: &[u8], random: &mut fastrand::Rng) -> Range<usize> {
    let start = random.usize(0..=of.len());
    let rest = of.len() - start;
    let length = if random.bool() { rest.min(8) } else { rest };
    start..start + random.usize(0..=length)
}

fn flip(case: &mut [u8], random: &mut fastrand::Rng) {
    if !case.is_empty() {
        let at = random.usize(0..case.len());
        case[at] ^= 1 << random.u8(0..8);
    }
}

fn extreme(case: &mut [u8], at: usize, random: &mut fastrand::Rng) {
    let number = random.choice(EXTREMES).unwrap_or_default().to_le_bytes();
    let width = [1, 2, 4, 8][random.usize(0..4)];
    for (byte, new) in case.iter_mut().skip(at).zip(&number[..width]) {
        *byte = *new;
    }
}

fn insert(case: &mut Vec<u8>, at: usize, part: &[u8]) {
    case.splice(at..at, part.iter().copied());
}
