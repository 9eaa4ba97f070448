//! Arrow Flight at a port: the one implementation of tonic's service, in front of whoever answers the calls ([`FlightCalls`]).
//!
//! rustc proves for each method of an `#[async_trait]` anew that its future may change threads, and walks through every type that the method
//! captures: up to eight seconds a method where that is a worker or a session. Behind a trait object the proof ends. Answers therefore own what
//! they need (`Arc<Self>`), and calls that are not offered are refused here, once for all ports. So is a panic made an error, of whichever call.

use super::panics;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo,
    PutResult, SchemaResult, Ticket,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// The outcome of a call.
pub type Answer<T> = BoxFuture<'static, Result<Response<T>, Status>>;
/// The messages of an answer that is a stream.
pub type Messages<T> = BoxStream<'static, Result<T, Status>>;

/// Answers Flight calls at a port. Those that it does not offer are refused with [`refusal`](Self::refusal).
pub trait FlightCalls: Send + Sync + 'static {
    /// Why other calls are refused, and where they belong.
    fn refusal(&self) -> Status;

    /// Exchanges credentials for a token.
    fn handshake(self: Arc<Self>, _: Request<Streaming<HandshakeRequest>>) -> Answer<Messages<HandshakeResponse>> {
        refused(self.refusal())
    }
    /// Lists what can be fetched.
    fn list_flights(self: Arc<Self>, _: Request<Criteria>) -> Answer<Messages<FlightInfo>> {
        refused(self.refusal())
    }
    /// Starts what a descriptor names, and says where its rows are.
    fn get_flight_info(self: Arc<Self>, _: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        refused(self.refusal())
    }
    /// The same, with progress.
    fn poll_flight_info(self: Arc<Self>, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        refused(self.refusal())
    }
    /// The schema of what a descriptor names.
    fn get_schema(self: Arc<Self>, _: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        refused(self.refusal())
    }
    /// The rows that a ticket is for.
    fn do_get(self: Arc<Self>, _: Request<Ticket>) -> Answer<Messages<FlightData>> {
        refused(self.refusal())
    }
    /// Takes rows.
    fn do_put(self: Arc<Self>, _: Request<Streaming<FlightData>>) -> Answer<Messages<PutResult>> {
        refused(self.refusal())
    }
    /// Takes and gives rows.
    fn do_exchange(self: Arc<Self>, _: Request<Streaming<FlightData>>) -> Answer<Messages<FlightData>> {
        refused(self.refusal())
    }
    /// Does what has no call of its own.
    fn do_action(self: Arc<Self>, _: Request<Action>) -> Answer<Messages<arrow_flight::Result>> {
        refused(self.refusal())
    }
    /// Lists the actions.
    fn list_actions(self: Arc<Self>, _: Request<Empty>) -> Answer<Messages<ActionType>> {
        refused(self.refusal())
    }
}

fn refused<T: Send + 'static>(status: Status) -> Answer<T> {
    Box::pin(std::future::ready(Err(status)))
}

/// The service that tonic serves at a port.
pub struct FlightPort(Arc<dyn FlightCalls>);

impl FlightPort {
    /// The gRPC service over `calls`, with a limit on the bytes of a message that arrives.
    pub fn server(calls: Arc<dyn FlightCalls>, decoded_bytes_max: usize) -> FlightServiceServer<Self> {
        FlightServiceServer::new(Self(calls)).max_decoding_message_size(decoded_bytes_max)
    }

    fn calls(&self) -> Arc<dyn FlightCalls> {
        self.0.clone()
    }
}

#[tonic::async_trait]
impl FlightService for FlightPort {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = Messages<FlightData>;
    type DoPutStream = Messages<PutResult>;
    type DoExchangeStream = Messages<FlightData>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        Ok(panics::answer("handshake", || self.calls().handshake(request)).await?.map(|sent| panics::messages("handshake", sent)))
    }
    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Ok(panics::answer("list_flights", || self.calls().list_flights(request)).await?.map(|sent| panics::messages("list_flights", sent)))
    }
    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        panics::answer("get_flight_info", || self.calls().get_flight_info(request)).await
    }
    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        panics::answer("poll_flight_info", || self.calls().poll_flight_info(request)).await
    }
    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        panics::answer("get_schema", || self.calls().get_schema(request)).await
    }
    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        Ok(panics::answer("do_get", || self.calls().do_get(request)).await?.map(|sent| panics::messages("do_get", sent)))
    }
    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        Ok(panics::answer("do_put", || self.calls().do_put(request)).await?.map(|sent| panics::messages("do_put", sent)))
    }
    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Ok(panics::answer("do_exchange", || self.calls().do_exchange(request)).await?.map(|sent| panics::messages("do_exchange", sent)))
    }
    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        Ok(panics::answer("do_action", || self.calls().do_action(request)).await?.map(|sent| panics::messages("do_action", sent)))
    }
    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        Ok(panics::answer("list_actions", || self.calls().list_actions(request)).await?.map(|sent| panics::messages("list_actions", sent)))
    }
}
