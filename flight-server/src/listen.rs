//! Listening on an address, with an error that tells the way out when it is taken.

mod port_holder;

pub use port_holder::port_holder;

use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// What an address is for, and how to choose another.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    pub name: &'static str,
    pub flag: &'static str,
    pub setting: &'static str,
}

pub const FLIGHT_SQL: Purpose = Purpose { name: "Flight SQL", flag: "--listen", setting: "server.listen" };
pub const HTTP: Purpose = Purpose { name: "health and metrics (HTTP)", flag: "--http-listen", setting: "server.http_listen" };
pub const CONTROL: Purpose = Purpose { name: "the control service for workers", flag: "--control-listen", setting: "coordinator.listen" };
pub const WORKER: Purpose =
    Purpose { name: "the worker", flag: "--listen (with an in-process worker: --worker-listen)", setting: "worker.listen" };
pub const WORKER_CLIENTS: Purpose =
    Purpose { name: "the worker's service for clients", flag: "--flight-listen", setting: "worker.flight_listen" };
pub const DEMO: Purpose = Purpose { name: "the demo", flag: "--port-base", setting: "of ports (the demo takes --port-base only)" };

/// Listens on an address.
///
/// # Errors
/// [`Error::PortTaken`] or [`Error::Listen`].
pub async fn bind(address: SocketAddr, purpose: Purpose) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|source| refused(address, purpose, source))
}

/// Why an address cannot be listened on, and the way out.
pub fn refused(address: SocketAddr, purpose: Purpose, source: std::io::Error) -> Error {
    let Purpose { name: purpose, flag, setting } = purpose;
    match source.kind() {
        ErrorKind::AddrInUse => {
            let holder = port_holder(address.port()).unwrap_or_else(|| "another process".to_string());
            Error::PortTaken { address, holder, purpose, flag, setting }
        }
        _ => Error::Listen { address, purpose, flag, setting, source },
    }
}

/// Checks that an address which somebody else will listen on is free. Between the check and the use another process may
/// take it; then that one's own error speaks, less well.
///
/// # Errors
/// As [`bind`].
pub async fn check_free(address: SocketAddr, purpose: Purpose) -> Result<()> {
    bind(address, purpose).await.map(drop)
}
