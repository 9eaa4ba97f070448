//! Bowshot's engine: plans SQL on a coordinator, runs its fragments on the workers that hold the data.
//!
//! # Life of a query
//! 1. [`Session::prepare`] bounds the text ([`statement::guard`]), parses it, and plans it over one catalog
//!    [`Snapshot`](catalog::Snapshot). Statements about catalog and session end in [`session`]; the rest is a logical plan.
//! 2. [`Session::execute`] starts a driver ([`coordinator::query`]): admission, then up to three tries.
//! 3. Each try freezes a [`Placement`](fragment::placement::Placement): the live nodes, and which of them holds which file now.
//! 4. DataFusion plans physically; datafusion-distributed cuts fragments. Our leaf handler ([`fragment::leaf`]) gives every task the row
//!    groups of its node's files, our route handler ([`fragment::route`]) pins task i to node i.
//! 5. Fragments travel over channels ([`fragment::transport`]) that know timeouts, carry the cluster token, name lost nodes and count
//!    bytes; between machines both ends show a certificate ([`cluster_tls`]).
//! 6. A worker ([`worker::service`]) checks the token and the plan ([`worker::plan_check`]), replaces partial aggregates by
//!    [`HotAggregateExec`](operators::hot_aggregate::HotAggregateExec) and guards the head against panics.
//! 7. The hot aggregate runs a kernel over cached chunks, or the replaced operator, and records which and why.
//! 8. Partial states come back as Arrow messages; the driver merges them, turns types plain and releases batches to the
//!    [`QueryStream`]. From the first released batch on nothing is repeated.
//! 9. The [`observer`](coordinator::observer) holds what each task did: EXPLAIN ANALYZE, `system.tasks`, footer and metrics read it there.
//!
//! What this crate must not know: client protocols, users' passwords, terminals.

#![forbid(unsafe_code)]

pub mod catalog;
pub mod cluster_tls;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod cpu_runtime;
pub mod error;
pub mod fair_pool;
pub mod files;
pub mod folder_lock;
pub mod fragment;
#[cfg(test)]
mod hostile;
pub mod information_schema;
pub mod limits;
pub mod operators;
pub mod planning_scope;
pub mod port;
pub mod query_memory;
mod range_texts;
pub mod residency;
pub mod result_messages;
pub mod result_types;
pub mod session;
mod settings_check;
pub mod sql_types;
pub mod statement;
pub mod system;
mod uuid_text;
pub mod worker;

pub use bowshot_kernels::{AdapterReport, adapters, machine};
pub use config::{
    BowshotOptions, ClusterTlsConfig, CoordinatorConfig, KernelChoice, Priority, QueryConfig, ResultCompression, StorageConfig,
    WorkerConfig,
};
pub use coordinator::Coordinator;
pub use coordinator::client_memory::ClientMemory;
pub use coordinator::membership::{NodeInfo, NodeState};
pub use coordinator::observer::{QuerySummary, TaskRecord};
pub use coordinator::parts::{Delivery, ResultPart};
pub use coordinator::query::QueryStream;
pub use datafusion::common::ScalarValue;
pub use error::{Error, ErrorClass};
pub use session::{Prepared, Session, StatementKind, TableInfo};
pub use statement::change_table::{IngestMode, ParameterRow};
pub use worker::{Worker, run_worker};
