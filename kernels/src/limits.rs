//! Every bound of this crate in one place, each with its reason. Going over one is a decline, never a panic.

/// Rows a host kernel filters at a time: long enough for the processor's prefetchers, short enough for masks to stay near.
/// Row positions inside a block are `u16`, and blocks start on whole validity bytes.
pub const BLOCK_ROWS: usize = 4_096;

/// Rows a host kernel computes values of and adds up at a time: a dozen buffers of 64-bit values stay in the nearest cache.
pub const MEASURE_ROWS: usize = 512;

/// Rows of one chunk. Keeps row numbers, counts and device dispatches inside `u32`.
pub const CHUNK_ROWS_MAX: usize = 1 << 30;

/// Distinct strings of one chunk. Above it a dictionary saves little, and predicates on it cost more than on rows.
pub const DICTIONARY_VALUES_MAX: usize = 1_000_000;

/// Distinct strings of one chunk up to which codes are numbered in the strings' order, which makes a range of strings a range of codes.
pub const SORTED_DICTIONARY_VALUES_MAX: usize = 65_536;

/// Least memory that is taken at once for a chunk that is being made: asking locks the node's account.
pub const LENT_STEP_BYTES: u64 = 1 << 20;

/// Bytes of all distinct strings of one chunk or one state: Arrow's `StringArray` has 31-bit offsets.
pub const DICTIONARY_BYTES_MAX: usize = i32::MAX as usize;

/// Group slots that are addressed directly by the mixed-radix code of the key lanes, where a row group has a quarter as many rows; above
/// it groups are hashed.
pub const DENSE_SLOTS_MAX: usize = 1 << 22;

/// Groups one state may hold; the caller bounds their memory before that.
pub const GROUPS_MAX: usize = 1 << 25;

/// Group slots of a device kernel; above it the host kernel answers.
pub const DEVICE_SLOTS_MAX: usize = 1 << 20;

/// Group slots of a device kernel that cost next to nothing, however few the rows.
pub const DEVICE_SLOTS_FREE: usize = 1_024;

/// Group slots a row that a device kernel may have beyond those.
pub const DEVICE_SLOTS_A_ROW: u128 = 4;

/// Bytes of a device kernel's totals: they are cleared, read back and looked at once a row group.
pub const DEVICE_TOTALS_BYTES_MAX: u64 = 128 << 20;

/// Levels of one expression: lowering is recursive and must not exhaust a thread's stack.
pub const EXPRESSION_DEPTH_MAX: usize = 128;

/// Nodes of all expressions of one plan together.
pub const EXPRESSION_NODES_MAX: usize = 4_096;

/// Lanes of an integer column up to which a membership test becomes a lookup table.
pub const MEMBER_TABLE_LANES_MAX: u64 = 65_536;

/// Lanes of an integer column up to which a function of it is evaluated lane by lane instead of row by row.
pub const DOMAIN_LANES_MAX: u64 = 65_536;

/// The part of the cached bytes that chunks take which were not used again yet: one of this many parts.
pub const SMALL_SHARE: u64 = 10;

/// Uses of a cached chunk that are counted: each lets it pass eviction once.
pub const USES_MAX: u8 = 3;

/// The part of the cache that pinned chunks may take, as a fraction: the rest serves what nobody pinned.
pub const PINNED_SHARE: (u64, u64) = (3, 4);

/// Queries that are expected to share an upload to a device: columns that were asked for twice are asked for again.
pub const UPLOAD_USES: f64 = 8.0;

/// Compiled device pipelines kept; the least recently used goes first.
pub const PIPELINES_MAX: usize = 64;

/// Kernels that may wait to be compiled beside queries, those that do not compile counted in.
pub const COMPILING_MAX: usize = 64;

/// Bytes of compiled kernels that are kept in a file for the next start.
pub const PIPELINE_FILE_BYTES_MAX: u64 = 64 << 20;

/// Bytes of one buffer through which uploads go.
pub const STAGING_BUFFER_BYTES: usize = 4 << 20;

/// Such buffers of one device: while some are copied, others are filled.
pub const STAGING_BUFFERS_MAX: usize = 8;

/// Cards of one machine that are used.
pub const CARDS_MAX: usize = 16;

/// Invocations of one device workgroup: the portable maximum.
pub const WORKGROUP_SIZE: u32 = 256;

/// Workgroups of one dispatch. Invocations loop over rows, so more would only add merge work; far below 65,535.
pub const WORKGROUPS_MAX: u32 = 1_024;

/// Bytes of workgroup memory a device kernel may use for accumulators: the portable limit is 16 KiB.
pub const WORKGROUP_ACCUMULATOR_BYTES_MAX: u64 = 12 * 1_024;

/// Milliseconds that one device dispatch with its readback may take before the device counts as lost.
pub const DEVICE_WAIT_MS: u64 = 30_000;

const _: () = assert!(BLOCK_ROWS <= u16::MAX as usize + 1 && BLOCK_ROWS.is_multiple_of(MEASURE_ROWS) && MEASURE_ROWS.is_multiple_of(64));
const _: () = assert!(DEVICE_SLOTS_MAX <= DENSE_SLOTS_MAX);
const _: () = assert!(WORKGROUPS_MAX < 65_536);
