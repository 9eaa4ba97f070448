//! What a worker offers to clients: the parts of results that it keeps for them, each to who has its ticket. Everything else is the server's.

use super::{login, status};
use crate::connection::ClientPeer;
use crate::limits;
use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::{FlightData, HandshakeRequest, HandshakeResponse, Ticket};
use bowshot_engine::control::{ClientCall, ClientTicket};
use bowshot_engine::port::flight::{Answer, FlightCalls, FlightPort, Messages};
use bowshot_engine::worker::clients::{PartsForClients, Refused};
use futures::TryStreamExt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use tonic::{Request, Response, Status, Streaming};

/// The service of a worker for clients.
pub struct WorkerEndpoint {
    parts: Arc<PartsForClients>,
}

impl WorkerEndpoint {
    /// Serves the parts of one worker.
    pub fn new(parts: PartsForClients) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// The service for tonic, with our limits on messages.
    pub fn into_server(self) -> FlightServiceServer<FlightPort> {
        FlightPort::server(Arc::new(self), limits::WORKER_REQUEST_BYTES_MAX).max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
    }

    fn call<T>(&self, request: &Request<T>) -> Result<ClientCall, Status> {
        let peer = ClientPeer::of(request.extensions()).ok_or_else(|| Status::internal("a call arrived without its connection"))?;
        let authorization = request.metadata().get("authorization").map(|header| header.to_str().map(str::to_string)).transpose();
        let certificate = peer.certificate.as_deref().map(|holder| {
            let until = holder.valid_until.duration_since(UNIX_EPOCH).unwrap_or_default();
            (holder.user.clone(), u64::try_from(until.as_millis()).unwrap_or(u64::MAX))
        });
        Ok(ClientCall {
            node_id: self.parts.node_id().to_string(),
            address: peer.address,
            authorization: authorization.map_err(|error| status::malformed("authorization header", error))?,
            certificate,
        })
    }

    async fn log_in(
        self: Arc<Self>,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Messages<HandshakeResponse>>, Status> {
        // Some drivers log in at each address of an endpoint: the token is the server's, and good at both.
        let token = self.parts.log_in(self.call(&request)?).await?;
        ClientPeer::of(request.extensions()).inspect(|peer| peer.admit());
        login::answer(token)
    }

    async fn fetch(self: Arc<Self>, request: Request<Ticket>) -> Result<Response<Messages<FlightData>>, Status> {
        let asked = ClientTicket { call: self.call(&request)?, ticket: request.get_ref().ticket.to_vec() };
        // A ticket that was redeemed is used even if the client leaves meanwhile: dropping the part then ends its query, which would wait otherwise.
        let parts = Arc::clone(&self.parts);
        let fetching = tokio::spawn(async move { parts.fetch(asked).await });
        let messages =
            fetching.await.map_err(|_| Status::unavailable("this worker is about to end"))?.map_err(|refused| match refused {
                Refused::ByCoordinator(status) => status,
                Refused::Here(error) => status::from_engine(error),
            })?;
        ClientPeer::of(request.extensions()).inspect(|peer| peer.admit());
        Ok(Response::new(Box::pin(messages.map_err(status::from_engine))))
    }
}

impl FlightCalls for WorkerEndpoint {
    fn refusal(&self) -> Status {
        let node = self.parts.node_id();
        Status::unimplemented(format!("node {node} is a Bowshot worker, which has parts of results: everything else is the server's"))
    }

    fn handshake(self: Arc<Self>, request: Request<Streaming<HandshakeRequest>>) -> Answer<Messages<HandshakeResponse>> {
        Box::pin(self.log_in(request))
    }

    fn do_get(self: Arc<Self>, request: Request<Ticket>) -> Answer<Messages<FlightData>> {
        Box::pin(self.fetch(request))
    }
}
