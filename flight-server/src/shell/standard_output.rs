//! Standard output that ends the process when its reader has left, as `head` does after its lines.
//!
//! Every writer of a format wraps that error in one of its own, so it is caught here, where it arises.

use std::io::{self, Write};

/// Standard output; a closed pipe is no error but the end.
pub struct StandardOutput(io::Stdout);

impl StandardOutput {
    /// The standard output of this process.
    pub fn new() -> Self {
        Self(io::stdout())
    }
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        end_with_reader(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        end_with_reader(self.0.flush())
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever read the output is gone: there is nobody left to report to")]
/// The connection closes with the process, which cancels a query that still runs.
fn end_with_reader<T>(outcome: io::Result<T>) -> io::Result<T> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other,
    }
}
