//! The program `bowshot` as a library. Server, worker, shell and demo are commands of it ([`cli`]).
//!
//! The program itself is a crate of its own (`flight-server/program`), which adds the allocator and what a build may leave out. A library is
//! compiled as soon as the crates below it have said their types; a program waits for their machine code.

mod auth;
mod checks;
mod cli;
mod config;
mod connection;
mod error;
mod figures;
mod flight_sql;
mod freed_memory;
mod gate;
mod limits;
mod listen;
mod shell;
mod sql_text;
mod status;
mod tls;

use bowshot_engine::statement::substrait::SubstraitReader;
use clap::Parser;
use std::process::ExitCode;
use std::sync::Arc;

/// Parts that a program has built in beside this library.
#[derive(Clone, Default)]
pub struct Extensions {
    /// Reads Substrait plans; a server without it refuses them.
    pub substrait: Option<Arc<dyn SubstraitReader>>,
}

/// The whole program: reads its arguments, runs the command that they name, and says how that ended. The global allocator should be mimalloc, whose
/// freed memory is kept for the next query.
pub fn run(extensions: Extensions) -> ExitCode {
    freed_memory::keep();
    freed_memory::watch();
    cli::run(cli::Arguments::parse(), extensions)
}
