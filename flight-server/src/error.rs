//! What a command of the binary can fail with. Each text names the thing, the place and the way out.

use arrow_flight::error::FlightError;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The result type of the commands.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command ended without doing its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is unknown, of the wrong type, or makes no sense beside another.
    #[error("{message}")]
    Config { message: String },
    /// Several settings cannot be used; each problem stands on a line of its own.
    #[error("{}", problems.join("\nerror: "))]
    Settings { problems: Vec<String> },
    /// Another process listens where we want to.
    #[error(
        "port {} is taken by {holder}: {purpose} cannot listen on {address}. Stop that process, or choose another port with {flag} or the setting {setting}",
        address.port()
    )]
    PortTaken { address: SocketAddr, holder: String, purpose: &'static str, flag: &'static str, setting: &'static str },
    /// An address cannot be listened on for another reason.
    #[error("{purpose} cannot listen on {address}: {source}. Choose another address with {flag} or the setting {setting}")]
    Listen { address: SocketAddr, purpose: &'static str, flag: &'static str, setting: &'static str, source: std::io::Error },
    /// The engine refused or failed.
    #[error("{0}")]
    Engine(#[from] bowshot_engine::Error),
    /// The server answered a call of the shell with an error; the text is the server's own.
    #[error("{message}")]
    Server { code: tonic::Code, message: String },
    /// No server answers at the address.
    #[error("no server answers at {url}: {reason}. Start one with 'bowshot server', or name another with --url")]
    Unreachable { url: String, reason: String },
    /// The file system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    /// Standard output or the terminal failed.
    #[error("cannot write the result: {source}")]
    Output { source: std::io::Error },
    /// A result could not be brought into the wanted format.
    #[error("cannot write the result as {format}: {reason}")]
    Format { format: &'static str, reason: String },
    /// The transport of the server failed.
    #[error("the Flight SQL service stopped: {source}")]
    Transport { source: tonic::transport::Error },
    /// A data set could not be written.
    #[error("{0}")]
    Dataset(#[from] bowshot_datasets::Error),
    /// A process that this one started did not do its part.
    #[error("{name} {problem}{last_lines}")]
    Child {
        name: String,
        problem: String,
        /// The end of its log, on lines of their own.
        last_lines: String,
    },
    /// The user ended it.
    #[error("cancelled")]
    Interrupted,
}

impl Error {
    /// A setting that is wrong.
    pub fn config(message: impl Into<String>) -> Self {
        Self::Config { message: message.into() }
    }

    /// A failed file operation; `action` completes "cannot … PATH".
    pub fn file(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::File { action, path: path.to_path_buf(), source }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Server { code: status.code(), message: status.message().to_string() }
    }
}

impl From<FlightError> for Error {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => (*status).into(),
            other => Self::Server { code: tonic::Code::Internal, message: format!("the server's answer cannot be read: {other}") },
        }
    }
}
