//! What stands before the calls of clients: who is connected, how large a message may be, and for whom.

use crate::connection::ClientPeer;
use crate::flight_sql::FlightSql;
use crate::limits;
use bowshot_engine::ClientMemory;
use bowshot_engine::port::calls::{Check, Gate};
use bowshot_engine::port::door::Visit;
use std::sync::Arc;
use tonic::codegen::http;
use tonic::metadata::MetadataMap;

/// The call that sends rows.
const PUTS_ROWS: &str = "/DoPut";

/// Before the server's Flight SQL.
#[derive(Clone)]
pub struct ServerGate(pub Arc<FlightSql>);

/// Before what a worker has for clients: tickets, which are small.
#[derive(Clone)]
pub struct WorkerGate;

fn visit(extensions: &http::Extensions) -> Option<Arc<Visit>> {
    extensions.get::<ClientPeer>()?.visit.clone()
}

impl Gate for ServerGate {
    fn visit(&self, extensions: &http::Extensions) -> Option<Arc<Visit>> {
        visit(extensions)
    }

    fn message_bytes_max(&self, path: &str) -> usize {
        if path.ends_with(PUTS_ROWS) { limits::ROWS_MESSAGE_BYTES_MAX } else { limits::MESSAGE_BYTES_MAX }
    }

    fn check(&self, headers: http::HeaderMap, extensions: &http::Extensions) -> Check {
        let (service, peer) = (Arc::clone(&self.0), extensions.get::<ClientPeer>().cloned());
        Box::new(move || Box::pin(async move { service.check_caller(&MetadataMap::from_headers(headers), peer.as_ref()).await }))
    }

    fn memory(&self) -> Option<ClientMemory> {
        Some(self.0.message_memory())
    }
}

impl Gate for WorkerGate {
    fn visit(&self, extensions: &http::Extensions) -> Option<Arc<Visit>> {
        visit(extensions)
    }

    fn message_bytes_max(&self, _: &str) -> usize {
        limits::WORKER_REQUEST_BYTES_MAX
    }

    /// A worker knows no users, and takes nothing that is large.
    fn check(&self, _: http::HeaderMap, _: &http::Extensions) -> Check {
        Box::new(|| Box::pin(std::future::ready(Ok(()))))
    }

    fn memory(&self) -> Option<ClientMemory> {
        None
    }
}
