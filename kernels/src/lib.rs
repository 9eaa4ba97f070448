//! Hot aggregations on narrowed columns. The life of a chunk:
//!
//! 1. A reader pushes the Arrow arrays of one column of one row group into a [`ChunkEncoder`], which narrows them:
//!    `value = base + factor * lane`, lanes of 1 to 8 bytes, strings as dictionary codes.
//! 2. The [`Chunk`] goes into the [`ChunkCache`] under its [`ChunkKey`] (file and version, row group, column), within a
//!    byte budget. A function of columns may become a chunk of its own ([`Chunk::to_array`], [`Chunk::mapped`]).
//! 3. A planner describes filter, keys and aggregates as an [`AggregatePlan`]. [`Kernels::plan`] checks it and gives a
//!    [`Kernel`], or a [`Decline`] that says why not.
//! 4. [`Kernel::accumulate`] binds the plan to the chunks of one [`RowGroup`]: literals move onto raw lanes, string
//!    predicates become tables over codes, and intervals from each chunk's minimum and maximum prove every width.
//!    What cannot be proven exact is declined.
//! 5. An [`Executor`] runs it: the host kernel in vectorised blocks, or the device kernel as one fused WGSL shader.
//! 6. The row group's groups join a [`PartialState`] under their real key values. States merge in any order to the same bits.
//! 7. Where distinct values are counted, the states of two kernels meet: [`PartialState::distinct_values`] lists the groups of the finer one
//!    by those of the other.
//! 8. [`PartialState::finish`] gives Arrow keys and exact answers as a [`GroupedResult`].
//!
//! This crate knows Arrow and wgpu. It must not know SQL text, DataFusion, files or the network.

mod bind;
mod cache;
mod chunk;
mod cost;
mod device;
mod distinct;
mod error;
mod exact_float;
mod exact_square;
mod exact_variance;
mod expr;
mod forced;
mod group_index;
mod host;
mod kernels;
pub mod limits;
pub mod machine;
mod plan;
mod simd;
mod state;
mod total_order;

pub use cache::{CachedChunk, ChunkCache, ChunkColumn, ChunkKey, Lent, MemoryAccount, Unaccounted};
pub use chunk::{Chunk, ChunkEncoder, LaneWidth};
pub use cost::{CostModel, Estimate, Rates, Work};
pub use device::{AdapterReport, DeviceFaults, DevicePolicy, DeviceReport, adapters};
pub use error::{Decline, KernelError};
pub use exact_float::ExactFloatSum;
pub use exact_variance::{Divisor, ExactVariance};
pub use expr::{ArithmeticOp, ColumnType, CompareOp, Expr, Literal};
pub use forced::{Forced, ForcedGroups};
pub use kernels::{Counters, Executor, Kernel, Kernels, KernelsConfig, RowGroup};
pub use plan::{Aggregate, AggregateFunction, AggregatePlan};
pub use state::{AggregateColumn, GroupedResult, PartialState};
pub use total_order::TotalOrder;
