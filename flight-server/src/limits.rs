//! Every bound of the service in one place, each with its reason.

use std::time::Duration;

/// Largest message taken from a client for anything but rows.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Largest message of rows, within the memory that the coordinator has for it: what Protobuf allows. Drivers send a data frame as one.
pub const ROWS_MESSAGE_BYTES_MAX: usize = i32::MAX as usize;
/// Fewest connections of clients that a server takes, however few files it may open.
pub const CONNECTIONS_MIN: usize = 64;
/// Most of them, however many files: each takes some ten kilobytes.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Those whose calls had no good credentials yet; one more ends the oldest.
pub const STRANGERS_MAX: usize = 256;
/// Connections of clients that a server should have files for; a server with fewer takes fewer.
pub const CONNECTIONS_ADVISED: usize = 1_024;
/// Files that a process opens for everything else: catalog, log, libraries, connections between nodes.
pub const OPEN_FILES_BESIDE: usize = 512;
/// Files that a task may have open: what it scans, what it spills, where its rows go.
pub const OPEN_FILES_A_TASK: usize = 16;
/// Settings of wrong names or types that are told at once.
pub const WRONG_SETTINGS_MAX: usize = 50;
/// Time until a connection's first call.
pub const FIRST_CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time of a call without good credentials: refusals are held back for some seconds.
/// As many wrong passwords as may wait for their turn take two minutes.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_secs(180);
/// A connection without a call for this long ends, as its session does.
pub const CONNECTION_IDLE: Duration = SESSION_IDLE;
/// Connections for health and metrics at once; one more ends the oldest.
pub const HTTP_CONNECTIONS_MAX: usize = 32;
/// How long one of them may last.
pub const HTTP_CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Largest message that a worker takes from a client: a ticket.
pub const WORKER_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Largest header of an Arrow message of a client: the places of a hundred thousand columns' buffers.
pub const ARROW_HEADER_BYTES_MAX: usize = 16 << 20;
/// Columns of the rows that a client sends, those inside of others included; each costs some hundred bytes and a look a batch.
pub const ARROW_COLUMNS_MAX: usize = 20_000;
/// Deepest nesting of them: types are walked recursively.
pub const ARROW_DEPTH_MAX: usize = 32;
/// Bytes of their names and metadata together.
pub const ARROW_NAMES_BYTES_MAX: usize = 8 << 20;
/// Values of a column that take no bytes in a message, as NULLs without a type do: they are made when they are stored.
pub const ARROW_WEIGHTLESS_ROWS_MAX: u64 = 1 << 20;
/// Bytes of an Arrow message from which on its decoding may not hold up other calls of its thread.
pub const ARROW_DECODED_ASIDE_BYTES: u64 = 4 << 20;
/// Bytes that rows of a client may take, with each value spelt out, before they are cut into pieces: what a message to a worker holds.
pub const INGEST_PIECE_BYTES: u64 = 8 << 20;
/// Bytes that all values bound to one prepared statement may take, each spelt out.
pub const BOUND_VALUES_BYTES_MAX: u64 = 256 << 20;
/// Longest statement text, as it is announced to drivers: what the planner takes.
pub const STATEMENT_BYTES_MAX: usize = bowshot_engine::limits::SQL_BYTES_MAX;
/// A result that nobody fetches is dropped, and its query cancelled, after this time.
pub const RESULT_UNCLAIMED: Duration = Duration::from_secs(120);
/// How often it is asked what failed of a query when a part of its result was cut off, and the time between.
pub const PART_FAILURE_LOOKS: usize = 20;
pub const PART_FAILURE_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A client that came to the server for what a worker had for it is not sent to workers for this long.
pub const WORKERS_UNREACHABLE: Duration = Duration::from_secs(600);
/// Addresses of such clients that are remembered.
pub const WORKERS_UNREACHABLE_MAX: usize = 10_000;
/// A poll is answered when the statement's result can be fetched, or after this time with its progress.
pub const POLL_WAIT: Duration = Duration::from_secs(1);
/// Figures of a finished query stay readable this long, for the shell's footer.
pub const RESULT_SUMMARY_KEPT: Duration = Duration::from_secs(300);
/// Finished queries whose figures are kept at once, of some hundred bytes each; the oldest are forgotten for new ones.
pub const RESULT_SUMMARIES_MAX: usize = 10_000;
/// Results that wait or run at once; each holds at least a plan in memory.
pub const RESULTS_MAX: usize = 10_000;
/// Those of one user: nobody takes all places.
pub const RESULTS_PER_USER_MAX: usize = 2_500;
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
/// Passwords are checked two at a time: each check takes 19 MiB and a core for some milliseconds.
pub const PASSWORD_CHECKS_MAX: usize = 2;
/// Delay of the first refusal of a user name or address; each further one of either takes twice the last.
pub const REFUSAL_DELAY_FIRST: Duration = Duration::from_millis(250);
/// Longest delay of a refusal: most drivers wait longer than that for an answer.
pub const REFUSAL_DELAY_MAX: Duration = Duration::from_secs(4);
/// In this time a refusal counts half of what it did: who mistyped often is as new again after a break.
pub const REFUSAL_HALF_LIFE: Duration = Duration::from_secs(300);
/// User names and addresses, of each, whose refusals are counted; some hundred bytes each.
pub const REFUSALS_COUNTED_MAX: u64 = 50_000;
/// An address with as many refusals (three, of which a little has faded) has its passwords checked in turns: guessing beside each other
/// gains nothing.
pub const TURNS_AFTER_REFUSALS: f64 = 2.5;
/// Passwords of such an address that are checked, or refused and waiting for their answer, at once.
pub const TURNS_PER_ADDRESS: usize = 2;
/// Logins of such an address that wait for their turn; one more is sent away without a look at its password.
pub const TURNS_WAITING_MAX: usize = 64;
/// Refusals that are held back at once, over all callers; what is more is answered without a delay rather than kept in memory.
pub const REFUSALS_DELAYED_MAX: usize = 10_000;
/// Letters of a user name that a caller gave, in a line of the log.
pub const LOGGED_NAME_LETTERS_MAX: usize = 80;
/// Longest user name that a token or certificate may give.
pub const USER_NAME_BYTES_MAX: usize = 256;
/// Longest bearer token that is looked at; what HTTP/2 servers take for headers by default.
pub const BEARER_BYTES_MAX: usize = 16 << 10;
/// Longest life of a login's token: closed logins are remembered for as long.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Closed logins that are remembered, some hundred bytes each: at the default life of a token, four closed a second.
pub const LOGINS_CLOSED_MAX: usize = 200_000;
/// Fewest bytes of a configured key for tokens: what SHA-256 makes of it has as many.
pub const TOKEN_KEY_BYTES_MIN: u64 = 32;
/// Most bytes of it.
pub const TOKEN_KEY_BYTES_MAX: u64 = 4096;
/// Largest difference between clocks that may be set for JWTs.
pub const JWT_LEEWAY_MAX: Duration = Duration::from_secs(300);
/// Public keys taken from one set.
pub const JWT_KEYS_MAX: usize = 100;
/// Keys that are tried for a token that does not name its own; each costs a core some ten microseconds.
pub const JWT_KEYS_TRIED_MAX: usize = 8;
/// Largest answer of an identity provider, and largest file of keys.
pub const JWT_KEYS_BYTES_MAX: u64 = 1 << 20;
/// Each of the two answers of an identity provider must be there within this time.
pub const JWT_PROVIDER_TIMEOUT: Duration = Duration::from_secs(5);
/// Tokens that name an unknown key make the keys be read again, at most this often: anyone can write such tokens.
pub const JWT_KEYS_UNKNOWN_INTERVAL: Duration = Duration::from_secs(5);
/// Keys are read again this often in any case: a key that its issuer has withdrawn is taken no longer than that.
pub const JWT_KEYS_REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// TLS handshake of a client: some round trips and signatures, however slow the way.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
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

const _: () = assert!(REFUSAL_DELAY_FIRST.as_millis() < REFUSAL_DELAY_MAX.as_millis());
const _: () = assert!(STATEMENT_BYTES_MAX < MESSAGE_BYTES_MAX && MESSAGE_BYTES_MAX < ROWS_MESSAGE_BYTES_MAX);
const _: () = assert!(FIRST_CALL_TIMEOUT.as_secs() < ADMISSION_TIMEOUT.as_secs());
