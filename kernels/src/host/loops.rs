//! The tight loops of the host kernel, each over slices of one block.

use crate::bind::Order;
use crate::simd::vectorised;

/// A lane or value type that loops read.
pub(crate) trait Number: bytemuck::Pod + Ord {
    const LEAST: Self;
    const GREATEST: Self;
    /// Modulo 2^32, 2^64, 2^128: callers prove that nothing is lost.
    fn as_u32(self) -> u32;
    fn as_i64(self) -> i64;
    fn as_i128(self) -> i128;
    fn as_usize(self) -> usize;
    fn of_lane(lane: u64) -> Self;
}

macro_rules! number {
    ($($type:ty),*) => { $(impl Number for $type {
        const LEAST: Self = <$type>::MIN;
        const GREATEST: Self = <$type>::MAX;
        #[inline(always)]
        fn as_u32(self) -> u32 { self as u32 }
        #[inline(always)]
        fn as_i64(self) -> i64 { self as i64 }
        #[inline(always)]
        fn as_i128(self) -> i128 { self as i128 }
        #[inline(always)]
        fn as_usize(self) -> usize { self as usize }
        #[inline(always)]
        fn of_lane(lane: u64) -> Self { lane as Self }
    })* };
}
number!(u8, u16, u32, u64, i64, i128);

/// Unsigned wrapping subtraction in the lane's own width, which makes a range test one comparison.
pub(crate) trait LaneNumber: Number {
    fn minus(self, other: Self) -> Self;
}

macro_rules! lane_number {
    ($($type:ty),*) => { $(impl LaneNumber for $type {
        #[inline(always)]
        fn minus(self, other: Self) -> Self { self.wrapping_sub(other) }
    })* };
}
lane_number!(u8, u16, u32, u64);

/// A running answer in 64 or 128 bits.
pub(crate) trait Accumulator: Copy + Ord {
    fn of<N: Number>(value: N) -> Self;
    fn plus(self, other: Self) -> Self;
}

impl Accumulator for i64 {
    #[inline(always)]
    fn of<N: Number>(value: N) -> Self {
        value.as_i64()
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

impl Accumulator for i128 {
    #[inline(always)]
    fn of<N: Number>(value: N) -> Self {
        value.as_i128()
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

vectorised! {
    /// `out = low <= lane <= low + span`
    fn write_range [L: LaneNumber](lanes: &[L], low: L, span: L, out: &mut [u8]) {
        for (answer, lane) in out.iter_mut().zip(lanes) {
            *answer = u8::from(lane.minus(low) <= span);
        }
    }

    /// `out &= low <= lane <= low + span`
    fn and_range [L: LaneNumber](lanes: &[L], low: L, span: L, out: &mut [u8]) {
        for (answer, lane) in out.iter_mut().zip(lanes) {
            *answer &= u8::from(lane.minus(low) <= span);
        }
    }

    fn write_table [L: Number](lanes: &[L], table: &[u8], out: &mut [u8]) {
        for (answer, lane) in out.iter_mut().zip(lanes) {
            *answer = table.get(lane.as_usize()).copied().unwrap_or(0);
        }
    }

    fn and_bytes [](input: &[u8], out: &mut [u8]) {
        for (answer, input) in out.iter_mut().zip(input) {
            *answer &= *input;
        }
    }

    fn or_bytes [](input: &[u8], out: &mut [u8]) {
        for (answer, input) in out.iter_mut().zip(input) {
            *answer |= *input;
        }
    }

    fn not_bytes [](input: &[u8], out: &mut [u8]) {
        for (answer, input) in out.iter_mut().zip(input) {
            *answer = *input ^ 1;
        }
    }

    /// Bits, least significant first, to one byte each.
    fn unpack_bits [](bits: &[u8], out: &mut [u8]) {
        let (whole, rest) = out.as_chunks_mut::<8>();
        for (answers, byte) in whole.iter_mut().zip(bits) {
            *answers = std::array::from_fn(|bit| byte >> bit & 1);
        }
        let last = bits.get(whole.len()).copied().unwrap_or(0);
        for (bit, answer) in rest.iter_mut().enumerate() {
            *answer = last >> bit & 1;
        }
    }

    /// How many bytes of 0 or 1 are 1. Eight bytes add up in one word, which holds up to 255 in each.
    fn count_bytes [](input: &[u8]) -> u64 {
        let mut total = 0u64;
        for part in input.chunks(8 * 128) {
            let (words, rest) = part.as_chunks::<8>();
            let mut sums = 0u64;
            for word in words {
                sums += u64::from_le_bytes(*word);
            }
            let pairs = (sums & 0x00FF_00FF_00FF_00FF) + (sums >> 8 & 0x00FF_00FF_00FF_00FF);
            total += pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48;
            total += rest.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        total
    }

    /// `code` where the row passes, `left_out` where it does not
    fn leave_out [C: Number](pass: &[u8], left_out: C, codes: &mut [C]) {
        for (code, pass) in codes.iter_mut().zip(pass) {
            *code = if *pass == 1 { *code } else { left_out };
        }
    }

    /// `words = or += (number - bias) << shift`, and 0 where `keep` is 0; callers prove that the difference fits the field.
    fn pack [N: Number](numbers: &[N], bias: i64, shift: u32, keep: Option<&[u8]>, fresh: bool, words: &mut [u64]) {
        match (keep, fresh) {
            (None, true) => {
                for (word, number) in words.iter_mut().zip(numbers) {
                    *word = field(*number, bias, shift);
                }
            }
            (None, false) => {
                for (word, number) in words.iter_mut().zip(numbers) {
                    *word = word.wrapping_add(field(*number, bias, shift));
                }
            }
            (Some(keep), true) => {
                for ((word, number), keep) in words.iter_mut().zip(numbers).zip(keep) {
                    *word = field(*number, bias, shift) & u64::from(*keep).wrapping_neg();
                }
            }
            (Some(keep), false) => {
                for ((word, number), keep) in words.iter_mut().zip(numbers).zip(keep) {
                    *word = word.wrapping_add(field(*number, bias, shift) & u64::from(*keep).wrapping_neg());
                }
            }
        }
    }

    /// Whether every pick is below `rows`.
    fn picks_below [](picks: &[u16], rows: usize) -> bool {
        let mut greatest = 0;
        for pick in picks {
            greatest = greatest.max(*pick);
        }
        picks.is_empty() || usize::from(greatest) < rows
    }

    fn write_compare [N: Number](order: Order, left: &[N], right: &[N], out: &mut [u8]) {
        match order {
            Order::Equal => {
                for ((answer, left), right) in out.iter_mut().zip(left).zip(right) {
                    *answer = u8::from(left == right);
                }
            }
            Order::Less => {
                for ((answer, left), right) in out.iter_mut().zip(left).zip(right) {
                    *answer = u8::from(left < right);
                }
            }
        }
    }

    /// `base + factor * lane` modulo 2^32
    fn decode_u32 [L: Number](lanes: &[L], base: u32, factor: u32, out: &mut [u32]) {
        if factor == 1 {
            for (value, lane) in out.iter_mut().zip(lanes) {
                *value = lane.as_u32().wrapping_add(base);
            }
        } else {
            for (value, lane) in out.iter_mut().zip(lanes) {
                *value = lane.as_u32().wrapping_mul(factor).wrapping_add(base);
            }
        }
    }

    /// `base + factor * lane` modulo 2^64
    fn decode_i64 [L: Number](lanes: &[L], base: i64, factor: i64, out: &mut [i64]) {
        if factor == 1 {
            for (value, lane) in out.iter_mut().zip(lanes) {
                *value = lane.as_i64().wrapping_add(base);
            }
        } else if size_of::<L>() <= 4 && factor.unsigned_abs() <= u64::from(u32::MAX) {
            // Two 32-bit factors: one multiply instruction where a 64-bit product would take several.
            let magnitude = factor.unsigned_abs() & 0xFFFF_FFFF;
            let sign = factor >> 63;
            for (value, lane) in out.iter_mut().zip(lanes) {
                let product = (u64::from(lane.as_u32()) * magnitude) as i64;
                *value = base.wrapping_add((product ^ sign).wrapping_sub(sign));
            }
        } else {
            for (value, lane) in out.iter_mut().zip(lanes) {
                *value = base.wrapping_add(factor.wrapping_mul(lane.as_i64()));
            }
        }
    }

    /// `base + factor * lane` modulo 2^128
    fn decode_i128 [L: Number](lanes: &[L], base: i128, factor: i128, out: &mut [i128]) {
        for (value, lane) in out.iter_mut().zip(lanes) {
            *value = base.wrapping_add(factor.wrapping_mul(lane.as_i128()));
        }
    }

    fn multiply_wide [](left: &[u32], right: &[u32], out: &mut [i64]) {
        for ((value, left), right) in out.iter_mut().zip(left).zip(right) {
            *value = (u64::from(*left) * u64::from(*right)) as i64;
        }
    }

    /// `yes` where `taken` is 1, else `no`
    fn select [N: Number](taken: &[u8], yes: &[N], no: &[N], out: &mut [N]) {
        for (((value, taken), yes), no) in out.iter_mut().zip(taken).zip(yes).zip(no) {
            *value = if *taken == 1 { *yes } else { *no };
        }
    }

    fn widen_i64 [N: Number](input: &[N], out: &mut [i64]) {
        for (value, input) in out.iter_mut().zip(input) {
            *value = input.as_i64();
        }
    }

    fn widen_i128 [N: Number](input: &[N], out: &mut [i128]) {
        for (value, input) in out.iter_mut().zip(input) {
            *value = input.as_i128();
        }
    }

    /// Sum modulo 2^64: callers prove that a block's sum fits.
    fn sum_i64 [N: Number](values: &[N]) -> i64 {
        let mut total = 0i64;
        for value in values {
            total = total.wrapping_add(value.as_i64());
        }
        total
    }

    /// Sum modulo 2^64 of the rows with mask 1.
    fn sum_i64_masked [N: Number](values: &[N], mask: &[u8]) -> i64 {
        let mut total = 0i64;
        for (value, keep) in values.iter().zip(mask) {
            total = total.wrapping_add(value.as_i64() & -i64::from(*keep));
        }
        total
    }

    fn sum_i128 [N: Number](values: &[N]) -> i128 {
        let mut total = 0i128;
        for value in values {
            total = total.wrapping_add(value.as_i128());
        }
        total
    }

    fn sum_i128_masked [N: Number](values: &[N], mask: &[u8]) -> i128 {
        let mut total = 0i128;
        for (value, keep) in values.iter().zip(mask) {
            total = total.wrapping_add(value.as_i128() & -i128::from(*keep));
        }
        total
    }

    fn least [N: Number](values: &[N]) -> N {
        let mut found = N::GREATEST;
        for value in values {
            found = found.min(*value);
        }
        found
    }

    fn greatest [N: Number](values: &[N]) -> N {
        let mut found = N::LEAST;
        for value in values {
            found = found.max(*value);
        }
        found
    }

    fn least_masked [N: Number](values: &[N], mask: &[u8]) -> N {
        let mut found = N::GREATEST;
        for (value, keep) in values.iter().zip(mask) {
            found = found.min(if *keep == 1 { *value } else { N::GREATEST });
        }
        found
    }

    fn greatest_masked [N: Number](values: &[N], mask: &[u8]) -> N {
        let mut found = N::LEAST;
        for (value, keep) in values.iter().zip(mask) {
            found = found.max(if *keep == 1 { *value } else { N::LEAST });
        }
        found
    }

    /// `codes += lane * stride`
    fn add_codes [L: Number](lanes: &[L], stride: u32, codes: &mut [u32]) {
        for (code, lane) in codes.iter_mut().zip(lanes) {
            *code = code.wrapping_add(lane.as_u32().wrapping_mul(stride));
        }
    }

    /// The same where all codes are bytes.
    fn add_few_codes [L: Number](lanes: &[L], stride: u8, codes: &mut [u8]) {
        for (code, lane) in codes.iter_mut().zip(lanes) {
            *code = code.wrapping_add((lane.as_u32() as u8).wrapping_mul(stride));
        }
    }

    /// `codes += (valid ? lane : null_code) * stride`
    fn add_few_nullable_codes [L: Number](lanes: &[L], valid: &[u8], null_code: u8, stride: u8, codes: &mut [u8]) {
        for ((code, lane), valid) in codes.iter_mut().zip(lanes).zip(valid) {
            let lane = if *valid == 1 { lane.as_u32() as u8 } else { null_code };
            *code = code.wrapping_add(lane.wrapping_mul(stride));
        }
    }

    /// `codes += (valid ? lane : null_code) * stride`
    fn add_nullable_codes [L: Number](lanes: &[L], valid: &[u8], null_code: u32, stride: u32, codes: &mut [u32]) {
        for ((code, lane), valid) in codes.iter_mut().zip(lanes).zip(valid) {
            let lane = if *valid == 1 { lane.as_u32() } else { null_code };
            *code = code.wrapping_add(lane.wrapping_mul(stride));
        }
    }
}

/// Binary operation element by element.
#[inline(always)]
pub(crate) fn zip_with<N: Copy, M>(left: &[N], right: &[N], out: &mut [M], combine: impl Fn(N, N) -> M) {
    for ((value, left), right) in out.iter_mut().zip(left).zip(right) {
        *value = combine(*left, *right);
    }
}

macro_rules! arithmetic {
    ($add:ident, $sub:ident, $mul:ident, $type:ty) => {
        vectorised! {
            fn $add [](left: &[$type], right: &[$type], out: &mut [$type]) {
                zip_with(left, right, out, |left: $type, right: $type| left.wrapping_add(right));
            }
            fn $sub [](left: &[$type], right: &[$type], out: &mut [$type]) {
                zip_with(left, right, out, |left: $type, right: $type| left.wrapping_sub(right));
            }
            fn $mul [](left: &[$type], right: &[$type], out: &mut [$type]) {
                zip_with(left, right, out, |left: $type, right: $type| left.wrapping_mul(right));
            }
        }
    };
}
arithmetic!(add_u32, sub_u32, mul_u32, u32);
arithmetic!(add_i64, sub_i64, mul_i64, i64);
arithmetic!(add_i128, sub_i128, mul_i128, i128);

/// A number's place in a packed word. A function, not a closure: closures are not inlined into code for another instruction set.
#[inline(always)]
fn field<N: Number>(number: N, bias: i64, shift: u32) -> u64 {
    (number.as_i64().wrapping_sub(bias) as u64) << shift
}

/// What fills a row that is wider than its words.
static NO_WORDS: [u64; INTERLEAVED_ROWS] = [0; INTERLEAVED_ROWS];

/// Words of a cache line.
pub(crate) const LINE_WORDS: usize = 8;

/// One cache line: a vector of words that crossed two would be stored and read again in twice the time.
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u64; LINE_WORDS]);

/// Room for rows whose words are laid side by side.
pub(crate) type Scratch = [Line; INTERLEAVED_ROWS * 4 / LINE_WORDS];

/// Rows whose words are laid side by side at a time: they stay in the nearest cache.
const INTERLEAVED_ROWS: usize = 256;

vectorised! {
    /// Adds each row's word to the sum of its code; neighbouring rows take the copies in turn, `stride` slots apart.
    fn add_words_1 [](codes: &[u32], words: [&[u64]; 1], scratch: &mut Scratch, sums: &mut [Line], stride: usize) {
        add_words::<1, 1>(codes, words, scratch, sums, stride);
    }

    /// The same for two words a row.
    fn add_words_2 [](codes: &[u32], words: [&[u64]; 2], scratch: &mut Scratch, sums: &mut [Line], stride: usize) {
        add_words::<2, 2>(codes, words, scratch, sums, stride);
    }

    /// The same for three words a row, which are added as four.
    fn add_words_3 [](codes: &[u32], words: [&[u64]; 3], scratch: &mut Scratch, sums: &mut [Line], stride: usize) {
        add_words::<3, 4>(codes, words, scratch, sums, stride);
    }

    /// The same for four words a row, which are one vector.
    fn add_words_4 [](codes: &[u32], words: [&[u64]; 4], scratch: &mut Scratch, sums: &mut [Line], stride: usize) {
        add_words::<4, 4>(codes, words, scratch, sums, stride);
    }
}

/// `WORDS` words a row lie in rows of `WIDTH`.
#[inline(always)]
fn add_words<const WORDS: usize, const WIDTH: usize>(
    codes: &[u32],
    words: [&[u64]; WORDS],
    scratch: &mut Scratch,
    sums: &mut [Line],
    stride: usize,
) {
    let (sums, _) = bytemuck::cast_slice_mut::<Line, u64>(sums).as_chunks_mut::<WIDTH>();
    let (rows, _) = bytemuck::cast_slice_mut::<Line, u64>(scratch).as_chunks_mut::<WIDTH>();
    for (part, codes) in codes.chunks(INTERLEAVED_ROWS).enumerate() {
        let rows = &mut rows[..codes.len()];
        let mut parts = [&NO_WORDS[..rows.len()]; WIDTH];
        for word in 0..WORDS {
            parts[word] = &words[word][part * INTERLEAVED_ROWS..][..rows.len()];
        }
        // Whole rows, for whole vectors to be stored.
        for row in 0..rows.len() {
            for word in 0..WIDTH {
                rows[row][word] = parts[word][row];
            }
        }
        let (code_quads, code_rest) = codes.as_chunks::<4>();
        let (row_quads, row_rest) = rows.as_chunks::<4>();
        for (codes, rows) in code_quads.iter().zip(row_quads) {
            for copy in 0..4 {
                add_row(codes[copy] as usize + copy * stride, &rows[copy], sums);
            }
        }
        for (code, row) in code_rest.iter().zip(row_rest) {
            add_row(*code as usize, row, sums);
        }
    }
}

#[inline(always)]
fn add_row<const WORDS: usize>(slot: usize, row: &[u64; WORDS], sums: &mut [[u64; WORDS]]) {
    if let Some(sums) = sums.get_mut(slot) {
        for word in 0..WORDS {
            sums[word] = sums[word].wrapping_add(row[word]);
        }
    }
}

/// Writes the positions of the bytes that are 1 to `picks`, which has room for them all, and returns how many.
pub(crate) fn pick(mask: &[u8], picks: &mut [u16]) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        /// Compilers do not find the one instruction that makes a mask of bytes.
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,popcnt")]
        fn avx512(mask: &[u8], picks: &mut [u16]) -> usize {
            use std::arch::x86_64::{_mm512_loadu_epi8, _mm512_test_epi8_mask};
            pick_by(mask, picks, |bytes| {
                // SAFETY: 64 bytes are read, and as many are there.
                let bytes = unsafe { _mm512_loadu_epi8(bytes.as_ptr().cast()) };
                _mm512_test_epi8_mask(bytes, bytes)
            })
        }
        if crate::simd::level() == crate::simd::Level::Avx512 {
            // SAFETY: `level` returns a level only where the processor has all its features.
            return unsafe { avx512(mask, picks) };
        }
    }
    pick_by(mask, picks, bits_of)
}

/// See [`pick_by`].
const PICKS_AT_A_TIME: usize = 4;

#[inline(always)]
fn pick_by(mask: &[u8], picks: &mut [u16], bits_of: impl Fn(&[u8; 64]) -> u64) -> usize {
    let mut count = 0;
    let (whole, rest) = mask.as_chunks::<64>();
    for (part, bytes) in whole.iter().enumerate() {
        let mut bits = bits_of(bytes);
        let first = (part * 64) as u16;
        if bits == u64::MAX
            && let Some(run) = picks.get_mut(count..count + 64)
        {
            run.iter_mut().zip(first..).for_each(|(pick, row)| *pick = row);
            count += 64;
            continue;
        }
        let end = count + bits.count_ones() as usize;
        // A few at a time, though there be fewer or none: how often a loop over those there are goes round, no processor foretells.
        while let Some(few) = picks.get_mut(count..count + PICKS_AT_A_TIME) {
            for pick in few {
                *pick = first + bits.trailing_zeros() as u16;
                bits &= bits.wrapping_sub(1);
            }
            count += PICKS_AT_A_TIME;
            if bits == 0 {
                break;
            }
        }
        // What is left where there is no room for a few.
        while bits != 0 {
            if let Some(pick) = picks.get_mut(count) {
                *pick = first + bits.trailing_zeros() as u16;
            }
            count += 1;
            bits &= bits - 1;
        }
        count = end;
    }
    for (row, byte) in rest.iter().enumerate() {
        if *byte == 1 {
            picks[count] = (whole.len() * 64 + row) as u16;
            count += 1;
        }
    }
    count
}

/// One bit for each byte of 0 or 1, the first byte's lowest.
#[inline(always)]
fn bits_of(bytes: &[u8; 64]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    let mut bits = 0;
    for (position, word) in words.iter().enumerate() {
        // Each byte's bit is moved to its place in the top byte; no two meet anywhere else there.
        let packed = u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        bits |= packed << (position * 8);
    }
    bits
}

/// `out = lanes[pick]` for every pick; nothing is written if a pick is out of bounds, which block positions never are.
pub(crate) fn gather<L: Copy>(lanes: &[L], picks: &[u16], out: &mut [L]) {
    if !picks_below(picks, lanes.len()) {
        debug_assert!(false, "a pick outside its block");
        return;
    }
    for (value, pick) in out.iter_mut().zip(picks) {
        // SAFETY: every pick was found to be below `lanes.len()` just above.
        *value = unsafe { *lanes.get_unchecked(usize::from(*pick)) };
    }
}
