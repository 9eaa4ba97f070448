//! `bowshot`: the one program of the project.

#![forbid(unsafe_code)]

use bowshot::Extensions;
use std::process::ExitCode;

// Batches are allocated on one thread and freed on another all day long; the system's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bowshot::run(extensions())
}

#[cfg(feature = "substrait")]
fn extensions() -> Extensions {
    Extensions { substrait: Some(std::sync::Arc::new(bowshot_substrait::Reader)) }
}

#[cfg(not(feature = "substrait"))]
fn extensions() -> Extensions {
    Extensions::default()
}
