//! The service itself: who calls, and which part of it answers.

use super::parts::{Desk, Reach};
use super::polls::Polls;
use super::prepared::PreparedStatements;
use super::result_stream::{self, FlightDataStream};
use super::results::{FetchError, Results};
use super::sessions::Sessions;
use super::statements;
use super::ticket::{Fetch, TicketError, TicketSigner};
use super::{actions, login, metadata, status};
use crate::auth::{Authenticator, Principal};
use crate::connection::{ClientPeer, ConnectionId};
use crate::limits;
use arrow_flight::flight_service_server::FlightServiceServer;
use arrow_flight::sql::{Any, Command, DoPutPreparedStatementResult, DoPutUpdateResult, TicketStatementQuery};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use bowshot_engine::port::calls::MessageMemory;
use bowshot_engine::port::flight::{Answer, FlightCalls, FlightPort, Messages};
use bowshot_engine::{ClientMemory, Coordinator, ParameterRow, Prepared, Session};
use futures::StreamExt;
use prost::Message;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// How often results that nobody wants are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Everything the Flight SQL service knows.
pub struct FlightSql {
    pub(super) coordinator: Coordinator,
    pub(super) authenticator: Authenticator,
    pub(super) sessions: Sessions,
    pub(super) results: Arc<Results>,
    pub(super) prepared: PreparedStatements,
    pub(super) polls: Polls,
    pub(super) tickets: TicketSigner,
    pub(super) reach: Reach,
}

/// The caller of one request.
pub(super) struct Caller {
    pub principal: Principal,
    pub connection: Option<ConnectionId>,
    pub address: Option<IpAddr>,
    pub session: Session,
}

impl FlightSql {
    /// The service of a coordinator.
    ///
    /// # Errors
    /// When the machine has no random numbers for the ticket key.
    pub fn new(coordinator: Coordinator, authenticator: Authenticator) -> std::io::Result<Self> {
        Ok(Self {
            sessions: Sessions::new(coordinator.clone()),
            coordinator,
            authenticator,
            results: Arc::new(Results::default()),
            prepared: PreparedStatements::default(),
            polls: Polls::default(),
            tickets: TicketSigner::new()?,
            reach: Reach::default(),
        })
    }

    /// The service for tonic, with our limits on messages.
    pub fn into_server(self: Arc<Self>) -> FlightServiceServer<FlightPort> {
        FlightPort::server(self, limits::ROWS_MESSAGE_BYTES_MAX).max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
    }

    /// Answers what workers ask about clients that fetch from them.
    pub fn answer_workers(self: &Arc<Self>) {
        self.coordinator.answer_workers(Arc::new(Desk(Arc::downgrade(self))));
    }

    /// Ends what belonged to a connection that is gone.
    pub fn connection_closed(&self, connection: ConnectionId) {
        self.sessions.connection_closed(connection);
    }

    /// Drops results that nobody fetched in time, for as long as it is polled.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.results.sweep(|query_id| self.parts_taken(query_id));
            self.polls.sweep();
        }
    }

    /// The query named in a ticket's bytes, without a check: only for what is checked against the user afterwards.
    pub(super) fn ticket_query(&self, ticket: &[u8]) -> Option<Uuid> {
        Uuid::from_slice(ticket.get(1..17)?).ok()
    }

    /// Whether a caller's credentials are good.
    pub(crate) async fn check_caller(&self, metadata: &MetadataMap, peer: Option<&ClientPeer>) -> Result<(), Status> {
        self.authenticator.authenticate(metadata, peer).await.map(drop)
    }

    /// Memory for messages that a call is sending.
    pub(crate) fn message_memory(&self) -> ClientMemory {
        self.coordinator.client_memory("a message of a client")
    }

    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let peer = ClientPeer::of(request.extensions());
        let principal = self.authenticator.authenticate(request.metadata(), peer).await?;
        peer.inspect(|peer| peer.admit());
        let (connection, address) = (peer.map(|peer| peer.id), peer.map(|peer| peer.address.ip()));
        let session = self.sessions.of(&principal, connection);
        Ok(Caller { principal, connection, address, session })
    }

    async fn flight_info(&self, request: Request<FlightDescriptor>) -> Result<FlightInfo, Status> {
        let caller = self.caller(&request).await?;
        let descriptor = request.into_inner();
        let command = command(&descriptor.cmd)?;
        match self.to_run(&caller, &command).await? {
            Some((prepared, rows)) => self.start_for_fetching(&caller, prepared, rows, descriptor).await,
            None => {
                let schema = metadata::schema(&command).ok_or_else(|| not_offered(&command))?;
                // A metadata answer is small and the same each time: its ticket is the command itself.
                let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(descriptor.cmd.to_vec()));
                statements::flight_info(&schema, vec![endpoint], descriptor)
            }
        }
    }

    /// The statement that a command wants to run, with its rows of parameters; nothing for metadata.
    async fn to_run(&self, caller: &Caller, command: &Command) -> Result<Option<(Arc<Prepared>, Vec<ParameterRow>)>, Status> {
        match command {
            Command::CommandStatementQuery(query) => {
                actions::refuse_transaction(query.transaction_id.as_ref())?;
                let prepared = statements::prepare(&caller.session, &query.query).await?;
                statements::without_parameters(prepared).map(Some)
            }
            Command::CommandStatementSubstraitPlan(query) => {
                actions::refuse_transaction(query.transaction_id.as_ref())?;
                let prepared = statements::prepare_substrait(&caller.session, query.plan.as_ref()).await?;
                statements::without_parameters(prepared).map(Some)
            }
            Command::CommandPreparedStatementQuery(query) => self.bound(caller, &query.prepared_statement_handle).map(Some),
            _ => Ok(None),
        }
    }

    async fn poll(self: &Arc<Self>, request: Request<FlightDescriptor>) -> Result<PollInfo, Status> {
        let caller = self.caller(&request).await?;
        let command = command(&request.get_ref().cmd)?;
        if let Command::TicketStatementQuery(ticket) = &command {
            return self.poll_again(&caller, &ticket.statement_handle).await;
        }
        match self.to_run(&caller, &command).await? {
            Some((prepared, rows)) => self.start_polled(caller, prepared, rows, request.into_inner()).await,
            // What is known at once needs no second question.
            None => Ok(PollInfo { progress: Some(1.0), ..PollInfo::new().with_info(self.flight_info(request).await?) }),
        }
    }

    async fn schema(&self, request: Request<FlightDescriptor>) -> Result<SchemaResult, Status> {
        let caller = self.caller(&request).await?;
        let schema = match command(&request.get_ref().cmd)? {
            Command::CommandStatementQuery(query) => statements::prepare(&caller.session, &query.query).await?.schema(),
            Command::CommandStatementSubstraitPlan(query) => {
                statements::prepare_substrait(&caller.session, query.plan.as_ref()).await?.schema()
            }
            Command::CommandPreparedStatementQuery(query) => self.prepared_plan(&caller, &query.prepared_statement_handle)?.schema(),
            command => metadata::schema(&command).ok_or_else(|| not_offered(&command))?,
        };
        let schema = statements::schema_message(&schema)?.0;
        Ok(SchemaResult { schema })
    }

    async fn fetch(&self, request: Request<Ticket>) -> Result<FlightDataStream, Status> {
        let caller = self.caller(&request).await?;
        match command(&request.get_ref().ticket)? {
            Command::TicketStatementQuery(ticket) => self.fetch_query(&caller, &ticket).await,
            command => {
                let refused = not_offered(&command);
                let batch = self.metadata(&caller, command).await.ok_or(refused)??;
                Ok(result_stream::of_batch(batch))
            }
        }
    }

    async fn fetch_query(&self, caller: &Caller, ticket: &TicketStatementQuery) -> Result<FlightDataStream, Status> {
        let user = &caller.principal.user;
        let fetch = self.ticket_of(&ticket.statement_handle, user)?;
        if fetch.part.is_some() {
            return self.fetch_part(caller, fetch).await;
        }
        let query_id = fetch.query_id;
        let fetched = self.results.fetch(query_id, user).map_err(|error| not_fetched(&error, query_id))?;
        Ok(result_stream::of_query(query_id, fetched, Arc::clone(&self.results)))
    }

    /// What a ticket of `user` is for.
    pub(super) fn ticket_of(&self, ticket: &[u8], user: &str) -> Result<Fetch, Status> {
        self.tickets.check(ticket, user, SystemTime::now()).map_err(|error| match error {
            TicketError::Invalid => Status::permission_denied(error.to_string()),
            TicketError::Expired => Status::not_found(error.to_string()),
        })
    }

    async fn put(&self, request: Request<Streaming<FlightData>>) -> Result<PutResult, Status> {
        let caller = self.caller(&request).await?;
        let received = request.extensions().get::<MessageMemory>().cloned();
        let mut data = request.into_inner();
        // The first message names the command, and may hold the schema of the data after it as well.
        let first = data.message().await?.ok_or_else(|| {
            Status::invalid_argument(
                "no command was sent; some drivers send nothing at all for an ingest without rows: CREATE TABLE makes an empty table",
            )
        })?;
        let descriptor = first.flight_descriptor.clone().ok_or_else(|| Status::invalid_argument("the first message names no command"))?;
        // Whoever takes a message has memory for it of its own: that of its way here goes to the next one.
        let data = futures::stream::once(std::future::ready(Ok(first))).chain(data).inspect(move |_| {
            if let Some(received) = &received {
                received.give_back();
            }
        });
        match command(&descriptor.cmd)? {
            Command::CommandStatementUpdate(update) => {
                actions::refuse_transaction(update.transaction_id.as_ref())?;
                let prepared = statements::prepare(&caller.session, &update.query).await?;
                let count = self.run_update(&caller, &prepared, vec![Vec::new()]).await?;
                Ok(update_result(count))
            }
            Command::CommandPreparedStatementUpdate(update) => {
                let handle = &update.prepared_statement_handle;
                Ok(update_result(self.update_prepared(&caller, handle, data).await?))
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                self.bind_prepared(&caller, &handle, data).await?;
                let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) };
                Ok(PutResult { app_metadata: result.encode_to_vec().into() })
            }
            Command::CommandStatementIngest(ingest) => Ok(update_result(self.ingest(&caller, ingest, data).await?)),
            command => Err(not_offered(&command)),
        }
    }
}

pub(super) fn command(message: &[u8]) -> Result<Command, Status> {
    let any = Any::decode(message).map_err(|error| status::malformed("command", error))?;
    if any.type_url.is_empty() {
        return Err(Status::invalid_argument("the request holds no command of Flight SQL: this server has no other flights"));
    }
    Command::try_from(any).map_err(|error| status::malformed("command", error))
}

/// Why a result cannot be fetched.
pub(super) fn not_fetched(error: &FetchError, query_id: Uuid) -> Status {
    match error {
        FetchError::Failed(error) => status::from_engine(error.clone().with_query(query_id)),
        FetchError::Cancelled => Status::cancelled(format!("{error} (query {query_id})")),
        _ => Status::not_found(format!("{error} (query {query_id})")),
    }
}

fn not_offered(command: &Command) -> Status {
    let name = command.type_url().rsplit('.').next().unwrap_or_default();
    Status::unimplemented(format!("this server does not offer {name}"))
}

fn update_result(record_count: i64) -> PutResult {
    PutResult { app_metadata: DoPutUpdateResult { record_count }.encode_to_vec().into() }
}

fn one<T: Send + 'static>(item: T) -> Messages<T> {
    Box::pin(futures::stream::once(std::future::ready(Ok(item))))
}

impl FlightSql {
    async fn log_in(
        self: Arc<Self>,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Messages<HandshakeResponse>>, Status> {
        let peer = ClientPeer::of(request.extensions());
        let token = self.authenticator.log_in(request.metadata(), peer).await?;
        peer.inspect(|peer| peer.admit());
        login::answer(token)
    }

    async fn action(&self, request: Request<Action>) -> Result<Messages<arrow_flight::Result>, Status> {
        let caller = self.caller(&request).await?;
        let answer = self.act(&caller, request.into_inner()).await?;
        Ok(Box::pin(futures::stream::iter(answer.map(|body| Ok(arrow_flight::Result { body })))))
    }
}

impl FlightCalls for FlightSql {
    /// Of DoExchange: all other calls are answered.
    fn refusal(&self) -> Status {
        Status::unimplemented("this server does not offer DoExchange")
    }

    fn handshake(self: Arc<Self>, request: Request<Streaming<HandshakeRequest>>) -> Answer<Messages<HandshakeResponse>> {
        Box::pin(self.log_in(request))
    }

    fn list_flights(self: Arc<Self>, request: Request<Criteria>) -> Answer<Messages<FlightInfo>> {
        Box::pin(async move {
            self.caller(&request).await?;
            // Statements are the flights here, and nobody can list those in advance.
            Ok(Response::new(futures::stream::empty().boxed()))
        })
    }

    fn get_flight_info(self: Arc<Self>, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        Box::pin(async move { self.flight_info(request).await.map(Response::new) })
    }

    fn poll_flight_info(self: Arc<Self>, request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        Box::pin(async move { self.poll(request).await.map(Response::new) })
    }

    fn get_schema(self: Arc<Self>, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        Box::pin(async move { self.schema(request).await.map(Response::new) })
    }

    fn do_get(self: Arc<Self>, request: Request<Ticket>) -> Answer<Messages<FlightData>> {
        Box::pin(async move { self.fetch(request).await.map(Response::new) })
    }

    fn do_put(self: Arc<Self>, request: Request<Streaming<FlightData>>) -> Answer<Messages<PutResult>> {
        Box::pin(async move { self.put(request).await.map(|result| Response::new(one(result))) })
    }

    fn do_action(self: Arc<Self>, request: Request<Action>) -> Answer<Messages<arrow_flight::Result>> {
        Box::pin(async move { self.action(request).await.map(Response::new) })
    }

    fn list_actions(self: Arc<Self>, request: Request<Empty>) -> Answer<Messages<ActionType>> {
        Box::pin(async move {
            self.caller(&request).await?;
            let offered = actions::offered().into_iter().map(Ok);
            Ok(Response::new(futures::stream::iter(offered).boxed()))
        })
    }
}
