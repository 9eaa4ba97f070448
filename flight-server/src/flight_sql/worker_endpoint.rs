//! What a worker offers to clients: the parts of results that it keeps for them, each to who has its ticket. Everything else is the server's.

use super::result_stream::FlightDataStream;
use super::status;
use crate::connection::ClientPeer;
use crate::limits;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo,
    PutResult, SchemaResult, Ticket,
};
use bowshot_engine::control::{ClientCall, ClientTicket};
use bowshot_engine::worker::clients::{PartsForClients, Refused};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use prost::bytes::Bytes;
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
    pub fn into_server(self) -> FlightServiceServer<Self> {
        FlightServiceServer::new(self)
            .max_decoding_message_size(limits::WORKER_REQUEST_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
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

    fn refused<T>(&self) -> Result<Response<T>, Status> {
        let node = self.parts.node_id();
        Err(Status::unimplemented(format!("node {node} is a Bowshot worker, which has parts of results: everything else is the server's")))
    }
}

#[tonic::async_trait]
impl FlightService for WorkerEndpoint {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = FlightDataStream;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        // Some drivers log in at each address of an endpoint: the token is the server's, and good at both.
        let token = self.parts.log_in(self.call(&request)?).await?;
        let bearer = format!("Bearer {token}").parse().map_err(|error| status::malformed("token", error))?;
        let answer = HandshakeResponse { protocol_version: 0, payload: Bytes::from(token.into_bytes()) };
        let mut response = Response::new(futures::stream::once(std::future::ready(Ok(answer))).boxed());
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let asked = ClientTicket { call: self.call(&request)?, ticket: request.get_ref().ticket.to_vec() };
        // A ticket that was redeemed is used even if the client leaves meanwhile: dropping the part then ends its query, which would wait otherwise.
        let parts = Arc::clone(&self.parts);
        let fetching = tokio::spawn(async move { parts.fetch(asked).await });
        let messages =
            fetching.await.map_err(|_| Status::unavailable("this worker is about to end"))?.map_err(|refused| match refused {
                Refused::ByCoordinator(status) => status,
                Refused::Here(error) => status::from_engine(error),
            })?;
        Ok(Response::new(Box::pin(messages.map_err(status::from_engine))))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.refused()
    }
    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        self.refused()
    }
    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        self.refused()
    }
    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        self.refused()
    }
    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        self.refused()
    }
    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        self.refused()
    }
    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.refused()
    }
    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.refused()
    }
}
