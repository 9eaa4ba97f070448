//! `bowshot`: the one binary of the project. Server, worker, shell and demo are commands of it ([`cli`]).

mod auth;
mod cli;
mod config;
mod connection;
mod error;
mod flight_sql;
mod limits;
mod shell;
mod sql_text;
mod status;
mod tls;

use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;

// Batches are allocated on one thread and freed on another all day long; the system's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's option of how many milliseconds freed memory is kept; 15 in all versions of its header.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Groups by the million take gigabytes a query: given back at once, the system clears them anew for the next one, which costs up to half as
/// much as the query. What is kept is reused first, so the process grows no larger for it. `MIMALLOC_PURGE_DELAY` overrides it.
const KEEP_FREED_MS: std::ffi::c_long = 15_000;

fn keep_freed_memory() {
    // SAFETY: sets a number; nothing else runs yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEEP_FREED_MS) };
}

/// How often memory that was kept long enough is looked for.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(5);

/// mimalloc looks for what it kept long enough when somebody allocates; a process without work would keep it for ever.
fn give_freed_memory_back() {
    let thread = std::thread::Builder::new().name("freed-memory".into());
    let give_back = || loop {
        std::thread::sleep(GIVE_BACK_EVERY);
        // SAFETY: may be called at any time by any thread; not forced, it gives back what is free and whose time is over.
        unsafe { libmimalloc_sys::mi_collect(false) };
    };
    if let Err(error) = thread.spawn(give_back) {
        eprintln!("freed memory stays with the process, no thread could be started: {error}");
    }
}

fn main() -> ExitCode {
    keep_freed_memory();
    give_freed_memory_back();
    cli::run(cli::Arguments::parse())
}
