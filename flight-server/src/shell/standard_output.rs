//! Standard output that ends the process when its reader has left, as `head` does after its lines.
//!
//! Every writer of a format wraps that error in one of its own, so it is caught here, where it arises.

use crate::error::{Error, Result};
use std::io::{self, Write};

/// Standard output; a closed pipe is no error but the end.
pub struct StandardOutput(io::Stdout);

impl StandardOutput {
    /// The standard output of this process.
    pub fn new() -> Self {
        Self(io::stdout())
    }
}

/// Prints a line; a reader that has left ends the process, a full disk is an error.
///
/// # Errors
/// When standard output cannot be written.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    writeln!(StandardOutput::new(), "{text}").map_err(|source| Error::Output { source })
}

/// The same for a command that has more to do than to print: it does that without a reader too.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn line_and_go_on(text: impl std::fmt::Display) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|source| Error::Output { source }),
    }
}

/// Prints a line for people on standard error. Nobody reads it where that is closed.
pub fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
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
