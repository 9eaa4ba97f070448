//! Errors of the engine as gRPC status. The text is the engine's own, so that every client shows the same.

use bowshot_engine::{Error, ErrorClass};
use tonic::Status;

/// The status for an error of the engine.
pub fn from_engine(error: Error) -> Status {
    if error.class() == ErrorClass::Bug {
        tracing::error!(%error, "a query failed through a defect of ours");
    }
    Status::new(error.class().code(), error.message())
}

/// The status for an error while a result is put into Arrow messages: a defect of ours.
pub fn from_encoding(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("the answer cannot be encoded: {error}"))
}

/// The status for a request that does not decode: the client's mistake.
pub fn malformed(what: &str, error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("the {what} cannot be read: {error}"))
}
