//! Errors, classified by what the caller must do about them.

use crate::limits;
use crate::range_texts::in_sql;
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tonic::Code;
use uuid::Uuid;

/// What the caller must do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// Mend the statement or its input.
    User,
    /// Say who you are.
    Unauthenticated,
    /// Ask for the right.
    Denied,
    /// Name something that exists.
    NotFound,
    /// Choose another name, or say what shall become of what has this one.
    Exists,
    /// Try again: the cause was passing.
    Retry,
    /// Ask for less, or give the node more.
    Resource,
    /// Mend a disk or folder: it is not there, or the operating system refuses.
    Storage,
    /// Nothing: somebody ended it.
    Cancelled,
    /// Raise the deadline or ask for less.
    Deadline,
    /// Report it.
    Bug,
}

impl ErrorClass {
    const ALL: [Self; 11] = [
        Self::User,
        Self::Unauthenticated,
        Self::Denied,
        Self::NotFound,
        Self::Exists,
        Self::Retry,
        Self::Resource,
        Self::Storage,
        Self::Cancelled,
        Self::Deadline,
        Self::Bug,
    ];

    /// Its gRPC code.
    pub fn code(self) -> Code {
        match self {
            Self::User => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Denied => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::Exists => Code::AlreadyExists,
            Self::Retry => Code::Unavailable,
            Self::Resource => Code::ResourceExhausted,
            Self::Storage => Code::FailedPrecondition,
            Self::Cancelled => Code::Cancelled,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Bug => Code::Internal,
        }
    }

    /// The class with this code; a defect for codes that no class has.
    pub fn of_code(code: Code) -> Self {
        Self::ALL.into_iter().find(|class| class.code() == code).unwrap_or(Self::Bug)
    }
}

/// The one error of the engine: a class, a text for people, and the query it belongs to.
#[derive(Debug, Clone)]
pub struct Error {
    class: ErrorClass,
    message: String,
    query_id: Option<Uuid>,
}

/// A text that fits into the header in which gRPC carries it: its beginning and its end.
fn bounded(text: String) -> String {
    let (most, end) = (limits::ERROR_BYTES_MAX, limits::ERROR_BYTES_MAX / 8);
    if text.len() <= most {
        return text;
    }
    let (first, last) = (text.floor_char_boundary(most - end), text.ceil_char_boundary(text.len() - end));
    format!("{} … {} bytes more … {}", &text[..first], last - first, &text[last..])
}

impl Error {
    /// An error of `class` with a text that names the thing, the place and the way out.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: bounded(message.into()), query_id: None }
    }
    /// The statement or its input is wrong.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::User, message)
    }
    /// Something named does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::NotFound, message)
    }
    /// Something of that name exists.
    pub fn exists(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Exists, message)
    }
    /// A passing cause.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Retry, message)
    }
    /// Our own defect.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Bug, message)
    }
    /// What the caller must do.
    pub fn class(&self) -> ErrorClass {
        self.class
    }
    /// The text for people; ends with the query id when there is one.
    pub fn message(&self) -> String {
        self.to_string()
    }
    /// Ties the error to a query, once.
    pub fn with_query(mut self, query_id: Uuid) -> Self {
        self.query_id.get_or_insert(query_id);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(id) = self.query_id {
            write!(f, " (query {id})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseCorrupt, DiskFull, FileLockingProtocolFailed, NotADatabase, PermissionDenied, ReadOnly, SystemIoFailure,
        };
        let (class, way_out) = match error.sqlite_error_code() {
            Some(DiskFull) => (ErrorClass::Resource, "; make room on the disk of coordinator.data_dir"),
            Some(ReadOnly | SystemIoFailure | CannotOpen | PermissionDenied | FileLockingProtocolFailed) => {
                (ErrorClass::Storage, "; look at the disk and the rights of coordinator.data_dir")
            }
            Some(DatabaseCorrupt | NotADatabase) => (ErrorClass::Storage, "; stop the server and put a backup of the catalog in its place"),
            _ => (ErrorClass::Bug, ""),
        };
        Error::new(class, format!("the catalog database failed: {error}{way_out}"))
    }
}

/// What the operating system says of a file or folder; `what` is what cannot be done to it.
pub fn of_io(name: &str, what: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::new(ErrorClass::Resource, format!("{name} {what}: {error}; make room on that disk"))
        }
        _ => Error::new(ErrorClass::Storage, format!("{name} {what}: {error}")),
    }
}

/// A worker was lost or could not be reached: the one kind of failure that a replan may cure.
#[derive(Debug, Clone)]
pub struct NodeLost {
    /// Node id, or its address when the id is unknown.
    pub node: String,
    /// Fragment number, when a task was running.
    pub fragment: Option<usize>,
    /// What the transport said.
    pub reason: String,
}

/// Starts every [`NodeLost`] text, so that a loss reported by another worker (whose error crossed the wire as text) is recognised.
pub const NODE_LOST_PREFIX: &str = "lost node ";

/// Follows the node where it was lost with a task.
const AT_WORK_TEXT: &str = " while it ran fragment ";

impl fmt::Display for NodeLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NODE_LOST_PREFIX}{}", self.node)?;
        if let Some(fragment) = self.fragment {
            write!(f, "{AT_WORK_TEXT}{fragment}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for NodeLost {}

/// The node named by a lost-node error anywhere in the chain, if that is what failed.
pub fn lost_node(error: &DataFusionError) -> Option<String> {
    let text = cause(error);
    let rest = text.strip_prefix(NODE_LOST_PREFIX)?;
    let end = rest.find([' ', ':', ',', ')']).unwrap_or(rest.len());
    (end > 0).then(|| rest[..end].to_string())
}

/// Whether a lost-node error is about a node that ran a task of the query.
pub fn lost_at_work(error: &DataFusionError) -> bool {
    let node = lost_node(error).unwrap_or_default();
    cause(error)
        .strip_prefix(NODE_LOST_PREFIX)
        .and_then(|text| text.strip_prefix(node.as_str()))
        .is_some_and(|rest| rest.starts_with(AT_WORK_TEXT))
}

/// The node whose copy of a file is not the one that was placed, if that is what failed: `file node://<node>/<volume>/<path> is …`.
pub fn stale_copy(error: &DataFusionError) -> Option<String> {
    let text = cause(error);
    let name = text.strip_prefix(STORED_FILE_PREFIX)?;
    let at = [crate::worker::GONE_TEXT, crate::worker::VERSION_TEXT].iter().find_map(|part| name.find(part))?;
    let node = name[..at].split('/').next()?;
    (!node.is_empty()).then(|| node.to_string())
}

/// Begins what the protocol between nodes says of a broken connection.
pub const H2_TEXT: &str = "h2 protocol error";

/// Starts every text about a file that is not as it was placed.
const STORED_FILE_PREFIX: &str = "file node://";

/// What the innermost error says, without library prefixes. Texts of rows may stand in errors: only what an error begins with is ours.
pub fn cause(error: &DataFusionError) -> String {
    let of_source = |source: &(dyn std::error::Error + Send + Sync + 'static)| match source.downcast_ref::<DataFusionError>() {
        Some(inner) => cause(inner),
        None => strip_all(&source.to_string()).to_string(),
    };
    match error {
        DataFusionError::External(source) => of_source(source.as_ref()),
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::ExternalError(source) => of_source(source.as_ref()),
            other => other.to_string(),
        },
        DataFusionError::Shared(inner) => cause(inner),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => cause(inner),
        DataFusionError::Collection(all) => all.first().map(cause).unwrap_or_default(),
        other => strip_all(&other.strip_backtrace()).to_string(),
    }
}

fn strip_all(mut text: &str) -> &str {
    while strip(text).len() < text.len() {
        text = strip(text);
    }
    text
}

/// Whether the text of a task's error may quote values of rows. Those of this engine, of lost nodes and of missing memory do not.
pub fn may_quote_rows(error: &DataFusionError) -> bool {
    match error {
        DataFusionError::ResourcesExhausted(_) => false,
        DataFusionError::Shared(inner) => may_quote_rows(inner),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => may_quote_rows(inner),
        DataFusionError::External(source) if source.is::<Error>() || source.is::<NodeLost>() => false,
        DataFusionError::External(source) if source.is::<DataFusionError>() => {
            source.downcast_ref::<DataFusionError>().is_none_or(may_quote_rows)
        }
        other => lost_node(other).is_none() && stale_copy(other).is_none(),
    }
}

/// Turns an error of planning or execution into ours: class from the innermost cause, text without library prefixes.
pub fn from_datafusion(error: &DataFusionError) -> Error {
    let mut ours = convert(error);
    // Users know strings, not the layout that plans read them in.
    ours.message = ours.message.replace("Utf8View", "Utf8").replace("BinaryView", "Binary");
    ours
}

fn convert(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::External(source) => {
            if let Some(own) = source.downcast_ref::<Error>() {
                return own.clone();
            }
            if let Some(inner) = source.downcast_ref::<DataFusionError>() {
                return convert(inner);
            }
            if let Some(status) = source.downcast_ref::<tonic::Status>().filter(|status| status.message().starts_with(H2_TEXT)) {
                return external(status.message());
            }
            external(&source.to_string())
        }
        DataFusionError::Shared(inner) => convert(inner),
        DataFusionError::Context(_, inner) => convert(inner),
        DataFusionError::Diagnostic(_, inner) => convert(inner),
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => convert(first),
            None => Error::bug("an empty list of errors was reported"),
        },
        DataFusionError::SchemaError(schema, _) => Error::new(
            match schema.as_ref() {
                SchemaError::FieldNotFound { .. } => ErrorClass::NotFound,
                _ => ErrorClass::User,
            },
            schema.to_string(),
        ),
        DataFusionError::SQL(parser, _) => Error::user(format!("the statement does not parse: {}", strip(&parser.to_string()))),
        DataFusionError::Plan(text) => plan(text),
        DataFusionError::Configuration(text) | DataFusionError::NotImplemented(text) => Error::user(text.clone()),
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::IoError(_, io) if is_refusal_of_disk(io) => of_io("a file of the query", SPILLED_TEXT, io),
            other => external(&other.to_string()),
        },
        DataFusionError::Execution(text) => external(text),
        DataFusionError::ExecutionJoin(join) => Error::bug(format!("an operator panicked: {join}")),
        DataFusionError::ResourcesExhausted(text) => Error::new(ErrorClass::Resource, text.clone()),
        DataFusionError::ParquetError(parquet) => external(&format!("a Parquet file could not be read: {parquet}")),
        DataFusionError::ObjectStore(store) => external(&store.to_string()),
        DataFusionError::IoError(io) if is_refusal_of_disk(io) => of_io("a file of the query", SPILLED_TEXT, io),
        DataFusionError::IoError(io) => external(&io.to_string()),
        DataFusionError::Internal(text) => internal(text),
        other => internal(&other.strip_backtrace()),
    }
}

/// Library prefixes that tell a user nothing.
fn strip(text: &str) -> &str {
    let mut text = text;
    for prefix in [
        "sql parser error: ",
        "ParserError(\"",
        "Execution error: ",
        "External error: ",
        "Arrow error: ",
        "Cast error: ",
        "Error during planning: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    text
}

fn plan(text: &str) -> Error {
    // Behind pages of attempted signatures stands the one sentence that says what is wrong.
    if let Some(at) = text.find("No function matches") {
        return Error::user(text[at..].lines().next().unwrap_or_default());
    }
    let missing = (text.starts_with("table '") && text.contains("not found")) || text.starts_with("Invalid function");
    let class = if missing { ErrorClass::NotFound } else { ErrorClass::User };
    Error::new(class, text)
}

/// Errors that lost their type on the way: class by the texts that arrow and our own guards use.
fn external(text: &str) -> Error {
    let text = strip(text);
    let class = if text.contains(NODE_LOST_PREFIX) || text.starts_with(H2_TEXT) {
        ErrorClass::Retry
    } else if text.starts_with(crate::worker::published::CLIENT_GONE_PREFIX) {
        ErrorClass::Cancelled
    } else if text.contains(crate::worker::PANIC_TEXT) || text.contains(crate::operators::panic_guard::COORDINATOR_PANIC_TEXT) {
        ErrorClass::Bug
    } else if text.contains(SPILL_TEXT) {
        return Error::new(ErrorClass::Resource, spill_full(text));
    } else if text.contains("Resources exhausted") || text.contains("Failed to allocate") {
        ErrorClass::Resource
    } else if text.contains(crate::worker::VERSION_TEXT) || text.contains(crate::worker::GONE_TEXT) {
        ErrorClass::Retry
    } else {
        ErrorClass::User
    };
    if let Some(at) = text.find(NODE_LOST_PREFIX) {
        return Error::new(class, text[at..].to_string());
    }
    let text = match text {
        // The decoder's, through one or two layers of its callers.
        damaged if damaged.starts_with(PARQUET_PREFIX) => {
            let what = damaged.trim_start_matches(PARQUET_PREFIX).trim_start_matches("Parquet error: ");
            format!("a Parquet file could not be read: {what}")
        }
        "Divide by zero error" => "division by zero".to_string(),
        other => in_sql(other).unwrap_or_else(|| other.to_string()),
    };
    Error::new(class, text)
}

/// How arrow begins what the decoder of Parquet says.
const PARQUET_PREFIX: &str = "Parquet argument error: ";

/// Whether the operating system refused a file, and not a reader what is in it.
fn is_refusal_of_disk(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied | NotFound)
}

/// Queries write files for spilled data alone.
const SPILLED_TEXT: &str = "below spill_dir cannot be written or read";

/// What DataFusion says when spilled data would exceed its bound.
const SPILL_TEXT: &str = "The used disk space during the spilling process has exceeded the allowable limit of ";

/// Says it in our settings instead of DataFusion's.
fn spill_full(text: &str) -> String {
    let rest = text.split_once(SPILL_TEXT).map_or("", |(_, rest)| rest);
    let limit = rest.split_once(". ").map_or(rest, |(limit, _)| limit);
    format!(
        "spilled data would exceed the {limit} of disk that a node gives it: raise worker.spill_bytes_max, or coordinator.spill_bytes_max if the coordinator spilled, give the query more memory, or ask for less"
    )
}

fn internal(text: &str) -> Error {
    if text.contains(NODE_LOST_PREFIX) || text.contains(SPILL_TEXT) {
        return external(text);
    }
    // What the planner says of types that do not go together.
    if text.starts_with("Failed to coerce types") {
        return Error::user(text);
    }
    Error::bug(text)
}

/// Shorthand for results of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| text.to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

/// What a decoder of others makes of bytes that it may not be up to: its panic is an error.
pub fn decoded<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| Err(panic_text(&*panic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_nodes_are_named_through_text_and_type() {
        let lost = NodeLost { node: "node-2".into(), fragment: Some(1), reason: "connection reset".into() };
        let typed = DataFusionError::External(Box::new(lost.clone()));
        assert_eq!(lost_node(&typed).as_deref(), Some("node-2"));
        let text = DataFusionError::Execution(format!("External error: {lost}"));
        assert_eq!(lost_node(&text).as_deref(), Some("node-2"));
        assert_eq!(from_datafusion(&text).class(), ErrorClass::Retry);
        let unnamed = DataFusionError::External(Box::new(tonic::Status::resource_exhausted("h2 protocol error: http2 error")));
        assert_eq!(from_datafusion(&unnamed).class(), ErrorClass::Retry, "{}", from_datafusion(&unnamed));
    }

    #[test]
    fn rows_cannot_name_lost_nodes() {
        for text in ["Cannot cast string 'lost node node-1: gone' to value of Int32 type", "x\ncaused by\nlost node node-1"] {
            let cast = DataFusionError::ArrowError(Box::new(ArrowError::CastError(text.into())), None);
            assert_eq!((lost_node(&cast), stale_copy(&cast)), (None, None));
            assert!(may_quote_rows(&cast) && may_quote_rows(&DataFusionError::Execution(text.into())));
        }
        let lost = NodeLost { node: "node-2".into(), fragment: None, reason: "reset".into() };
        let shared = DataFusionError::Shared(std::sync::Arc::new(DataFusionError::External(Box::new(lost)).context("a join")));
        assert_eq!(lost_node(&shared).as_deref(), Some("node-2"));
        assert!(!may_quote_rows(&shared));
    }

    #[test]
    fn a_full_spill_disk_names_our_settings() {
        let text = "External error: The used disk space during the spilling process has exceeded the allowable limit of 10.0 MB. Please try increasing the config: `datafusion.runtime.max_temp_directory_size`.";
        let ours = from_datafusion(&DataFusionError::Execution(text.into()));
        assert_eq!(ours.class(), ErrorClass::Resource);
        assert!(ours.message().contains("10.0 MB") && ours.message().contains("worker.spill_bytes_max"), "{ours}");
        assert!(!ours.message().contains("datafusion"), "{ours}");
    }

    #[test]
    fn arithmetic_errors_belong_to_the_user() {
        let error = DataFusionError::ArrowError(Box::new(arrow::error::ArrowError::DivideByZero), None);
        let ours = from_datafusion(&error);
        assert_eq!((ours.class(), ours.message().as_str()), (ErrorClass::User, "division by zero"));
    }
}
