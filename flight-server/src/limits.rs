//! Every bound of the service in one place, each with its reason.

use std::time::Duration;

/// Largest message taken from a client: bound parameters, not data loads; ADBC sends batches of up to 16 MiB.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Largest body sent in one message: below the 4 MiB that many gRPC clients accept by default.
pub const FLIGHT_DATA_BYTES_MAX: usize = 2 << 20;
/// Longest statement text; the parser's memory grows with it.
pub const STATEMENT_BYTES_MAX: usize = 4 << 20;
/// A result that nobody fetches is dropped, and its query cancelled, after this time.
pub const RESULT_UNCLAIMED: Duration = Duration::from_secs(120);
/// A poll is answered when the statement's result can be fetched, or after this time with its progress.
pub const POLL_WAIT: Duration = Duration::from_secs(1);
/// Figures of a finished query stay readable this long, for the shell's footer.
pub const RESULT_SUMMARY_KEPT: Duration = Duration::from_secs(300);
/// Results known at once, waiting, running or finished; each holds at least a plan in memory.
pub const RESULTS_MAX: usize = 10_000;
/// Prepared statements known at once, over all sessions.
pub const PREPARED_STATEMENTS_MAX: u64 = 20_000;
/// A prepared statement that is not touched for this long is forgotten.
pub const PREPARED_STATEMENT_IDLE: Duration = Duration::from_secs(4 * 3600);
/// Rows bound to one prepared statement; each runs the statement once.
pub const BOUND_ROWS_MAX: usize = 100_000;
/// Sessions known at once.
pub const SESSIONS_MAX: u64 = 10_000;
/// A session without a call for this long ends.
pub const SESSION_IDLE: Duration = Duration::from_secs(4 * 3600);
/// Bearer tokens handed out and still valid, at once.
pub const TOKENS_MAX: u64 = 100_000;
/// Every refused login takes at least this long, which makes guessing slow and hides which part was wrong.
pub const LOGIN_FAILURE_DELAY: Duration = Duration::from_millis(500);
/// Passwords are checked two at a time: each check takes 19 MiB and a core for some milliseconds.
pub const PASSWORD_CHECKS_MAX: usize = 2;
/// Time that running calls get to finish after a signal to stop.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// Rows that the interactive shell prints of one result.
pub const SHELL_ROWS_MAX: usize = 1_000;
/// A query that answers within this time shows no progress line.
pub const PROGRESS_AFTER: Duration = Duration::from_millis(500);
/// How often the progress line is drawn anew.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// Lines of history the shell keeps.
pub const HISTORY_LINES_MAX: usize = 10_000;

const _: () = assert!(FLIGHT_DATA_BYTES_MAX < 4 << 20);
const _: () = assert!(STATEMENT_BYTES_MAX < MESSAGE_BYTES_MAX);
