//! `bowshot`: the one binary of the project. Server, worker, shell and demo are commands of it ([`cli`]).

mod auth;
mod cli;
mod config;
mod connection;
mod error;
mod flight_sql;
mod freed_memory;
mod limits;
mod shell;
mod sql_text;
mod status;
mod tls;

use clap::Parser;
use std::process::ExitCode;

// Batches are allocated on one thread and freed on another all day long; the system's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    freed_memory::keep();
    freed_memory::watch();
    cli::run(cli::Arguments::parse())
}
