//! One column of one row group in narrowed form: `value = base + factor * lane`, lanes of 1, 2, 4 or 8 bytes.

mod encode;
mod integers;
mod map;
mod strings;

use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, StringArray};

pub use encode::ChunkEncoder;
pub(crate) use strings::{StringTable, fold};

use crate::expr::ColumnType;
use crate::limits::SORTED_DICTIONARY_VALUES_MAX;

/// Memory in 16-byte words, so that lanes of every width are aligned and padded with zeros to 16 bytes.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    words: Vec<u128>,
}

impl Words {
    /// Zeroed memory for `bytes` bytes.
    pub(crate) fn zeroed(bytes: usize) -> Self {
        Self { words: vec![0; bytes.div_ceil(16)] }
    }

    /// A copy of some bytes.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        let mut words = Self::zeroed(bytes.len());
        words.as_mut_slice::<u8>()[..bytes.len()].copy_from_slice(bytes);
        words
    }

    pub(crate) fn as_slice<T: bytemuck::AnyBitPattern>(&self) -> &[T] {
        bytemuck::cast_slice(&self.words)
    }

    pub(crate) fn as_mut_slice<T: bytemuck::Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.words)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.words.len() * 16
    }
}

/// Bytes of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneWidth {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// Eight bytes.
    U64,
}

impl LaneWidth {
    /// The narrowest width that holds `lane_max`.
    pub(crate) fn fitting(lane_max: u64) -> Self {
        if lane_max <= u64::from(u8::MAX) {
            Self::U8
        } else if lane_max <= u64::from(u16::MAX) {
            Self::U16
        } else if lane_max <= u64::from(u32::MAX) {
            Self::U32
        } else {
            Self::U64
        }
    }

    /// 1, 2, 4 or 8.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
            Self::U64 => 8,
        }
    }
}

/// The lanes of a chunk, one a row (padding left out).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lanes<'a> {
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
}

/// Runs `$body` with `$lanes` as a slice of the lane type.
macro_rules! with_lanes {
    ($source:expr, $lanes:ident => $body:expr) => {
        match $source {
            Lanes::U8($lanes) => $body,
            Lanes::U16($lanes) => $body,
            Lanes::U32($lanes) => $body,
            Lanes::U64($lanes) => $body,
        }
    };
}
pub(crate) use with_lanes;

/// One column of one row group, narrowed. NULL rows hold lane 0.
#[derive(Debug)]
pub struct Chunk {
    id: u64,
    column_type: ColumnType,
    row_count: usize,
    base: i128,
    factor: i128,
    lane_max: u64,
    lane_width: LaneWidth,
    lanes: Words,
    validity: Option<Words>,
    null_count: usize,
    dictionary: Option<StringArray>,
    exponents: Option<(u64, u64)>,
    is_tight: bool,
}

/// What an encoder hands over to make a chunk.
pub(crate) struct ChunkParts {
    pub column_type: ColumnType,
    pub row_count: usize,
    /// The value of lane 0.
    pub base: i128,
    /// The distance between neighbouring lanes, at least 1.
    pub factor: i128,
    /// The greatest lane of any row that is not NULL.
    pub lane_max: u64,
    pub lane_width: LaneWidth,
    pub lanes: Words,
    /// One bit a row, least significant first; absent where no row is NULL.
    pub validity: Option<Words>,
    pub null_count: usize,
    /// The string of every code; strings only.
    pub dictionary: Option<StringArray>,
    /// Exponents from the least of a double that is not 0 to the greatest; doubles only, and not where one is NaN or infinite.
    pub exponents: Option<(u64, u64)>,
    /// Whether rows that are not NULL have lane 0 and lane `lane_max`, if there are such rows.
    pub is_tight: bool,
}

impl Chunk {
    pub(crate) fn new(parts: ChunkParts) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            column_type: parts.column_type,
            row_count: parts.row_count,
            base: parts.base,
            factor: parts.factor,
            lane_max: parts.lane_max,
            lane_width: parts.lane_width,
            lanes: parts.lanes,
            validity: parts.validity,
            null_count: parts.null_count,
            dictionary: parts.dictionary,
            exponents: parts.exponents,
            is_tight: parts.is_tight,
        }
    }

    /// Identity of these bytes in this process: a device copy is kept under it.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The type the chunk was encoded as.
    pub fn column_type(&self) -> ColumnType {
        self.column_type
    }

    /// Rows, NULLs included.
    pub fn row_count(&self) -> usize {
        self.row_count
    }

    /// Rows that are NULL.
    pub fn null_count(&self) -> usize {
        self.null_count
    }

    /// Bytes of one lane.
    pub fn lane_width(&self) -> LaneWidth {
        self.lane_width
    }

    /// The least integer value; `None` for strings and doubles and where every row is NULL.
    pub fn min(&self) -> Option<i128> {
        self.has_integers().then_some(self.base)
    }

    /// The greatest integer value; `None` for strings and doubles and where every row is NULL.
    pub fn max(&self) -> Option<i128> {
        self.has_integers().then(|| self.base + self.factor * i128::from(self.lane_max))
    }

    /// Distinct strings; `None` for integers, whose distinct values are not counted.
    pub fn distinct_count(&self) -> Option<usize> {
        self.dictionary.as_ref().map(Array::len)
    }

    /// Whether codes are in the order of their strings.
    pub(crate) fn has_sorted_dictionary(&self) -> bool {
        self.dictionary.as_ref().is_some_and(|strings| strings.len() <= SORTED_DICTIONARY_VALUES_MAX)
    }

    /// The distinct strings by code; `None` for integers.
    pub fn dictionary(&self) -> Option<&StringArray> {
        self.dictionary.as_ref()
    }

    /// Bytes held: lanes, validity and dictionary.
    pub fn bytes(&self) -> usize {
        let validity = self.validity.as_ref().map_or(0, Words::bytes);
        let dictionary = self.dictionary.as_ref().map_or(0, |strings| strings.get_buffer_memory_size());
        size_of::<Self>() + self.lanes.bytes() + validity + dictionary
    }

    /// The value at `row`; `None` for NULL. Strings give their code. For tests and tools, not for loops.
    pub fn value(&self, row: usize) -> Option<i128> {
        if row >= self.row_count || !self.is_valid(row) {
            return None;
        }
        let lane = match self.lanes() {
            Lanes::U8(lanes) => u64::from(lanes[row]),
            Lanes::U16(lanes) => u64::from(lanes[row]),
            Lanes::U32(lanes) => u64::from(lanes[row]),
            Lanes::U64(lanes) => lanes[row],
        };
        Some(self.value_of(lane))
    }

    fn has_integers(&self) -> bool {
        self.column_type != ColumnType::Utf8 && self.column_type != ColumnType::Float64 && self.null_count < self.row_count
    }

    fn is_valid(&self, row: usize) -> bool {
        self.validity.as_ref().is_none_or(|bits| bits.as_slice::<u8>()[row / 8] >> (row % 8) & 1 == 1)
    }

    pub(crate) fn base(&self) -> i128 {
        self.base
    }

    pub(crate) fn factor(&self) -> i128 {
        self.factor
    }

    /// See [`ChunkParts::is_tight`].
    pub(crate) fn is_tight(&self) -> bool {
        self.is_tight
    }

    /// See [`ChunkParts::exponents`].
    pub(crate) fn exponents(&self) -> Option<(u64, u64)> {
        self.exponents
    }

    pub(crate) fn lane_max(&self) -> u64 {
        self.lane_max
    }

    pub(crate) fn lanes(&self) -> Lanes<'_> {
        let rows = self.row_count;
        match self.lane_width {
            LaneWidth::U8 => Lanes::U8(&self.lanes.as_slice()[..rows]),
            LaneWidth::U16 => Lanes::U16(&self.lanes.as_slice()[..rows]),
            LaneWidth::U32 => Lanes::U32(&self.lanes.as_slice()[..rows]),
            LaneWidth::U64 => Lanes::U64(&self.lanes.as_slice()[..rows]),
        }
    }

    /// Lanes with their padding, for uploads.
    pub(crate) fn lane_words(&self) -> &[u32] {
        self.lanes.as_slice()
    }

    /// Validity bits with their padding; absent where no row is NULL.
    pub(crate) fn validity_words(&self) -> Option<&[u32]> {
        self.validity.as_ref().map(Words::as_slice)
    }

    /// Validity bits as bytes.
    pub(crate) fn validity_bytes(&self) -> Option<&[u8]> {
        self.validity.as_ref().map(Words::as_slice)
    }
}
