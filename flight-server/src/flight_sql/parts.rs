//! Results in parts that wait on the workers: their endpoints, the way through the server for clients that cannot reach a worker, and what workers
//! ask about clients that can.
//!
//! Whether a client reaches the workers is found out by its doing: each endpoint names the worker, then the connection in use. Who comes here for
//! what a worker has for it gets it, and gets later results from here as a whole for a while.

use super::result_stream::{self, FlightDataStream};
use super::service::{Caller, FlightSql, not_fetched};
use super::status;
use super::ticket::Fetch;
use crate::connection::{ClientCertificate, ClientPeer, ConnectionId};
use crate::limits;
use arrow_flight::sql::Command;
use arrow_flight::{FlightEndpoint, Ticket};
use bowshot_engine::control::{ClientCall, ClientDesk, ClientQuery, ClientTicket, Redeemed, WhyEnded};
use bowshot_engine::{Delivery, ResultPart};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tonic::Status;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

/// Means "the connection in use" as the address of an endpoint, after others.
const REUSE_CONNECTION: &str = "arrow-flight-reuse-connection://?";

/// The clients that do not reach the workers, by address.
#[derive(Default)]
pub struct Reach {
    unreachable: Mutex<HashMap<IpAddr, Instant>>,
}

impl Reach {
    fn reaches_workers(&self, client: IpAddr) -> bool {
        self.unreachable.lock().get(&client).is_none_or(|since| since.elapsed() > limits::WORKERS_UNREACHABLE)
    }

    fn came_here(&self, client: IpAddr) {
        let mut unreachable = self.unreachable.lock();
        if unreachable.len() >= limits::WORKERS_UNREACHABLE_MAX {
            unreachable.retain(|_, since| since.elapsed() <= limits::WORKERS_UNREACHABLE);
        }
        if unreachable.len() < limits::WORKERS_UNREACHABLE_MAX && unreachable.insert(client, Instant::now()).is_none() {
            tracing::info!(
                %client,
                seconds = limits::WORKERS_UNREACHABLE.as_secs(),
                "a client came here for what a worker had for it: for a while it gets results from here, unless its session asks for workers"
            );
        }
    }

    fn went_there(&self, client: IpAddr) {
        self.unreachable.lock().remove(&client);
    }
}

impl FlightSql {
    /// How a caller could take a result.
    pub(super) fn delivery(&self, caller: &Caller) -> Delivery {
        Delivery::Parts { reaches_workers: caller.address.is_some_and(|address| self.reach.reaches_workers(address)) }
    }

    /// How `user` fetches the parts of a result.
    pub(super) fn endpoints(&self, query_id: Uuid, user: &str, parts: &[ResultPart]) -> Vec<FlightEndpoint> {
        let endpoint = |(number, part): (u32, &ResultPart)| {
            let ticket = self.ticket(Fetch { query_id, part: Some(number) }, user);
            let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
            match &part.client_url {
                Some(url) => endpoint.with_location(url.to_string()).with_location(REUSE_CONNECTION),
                None => endpoint,
            }
        };
        (0..).zip(parts).map(endpoint).collect()
    }

    /// Passes a part of a result on from its worker.
    pub(super) async fn fetch_part(&self, caller: &Caller, fetch: Fetch) -> Result<FlightDataStream, Status> {
        let (query_id, user) = (fetch.query_id, &caller.principal.user);
        let claimed = self.results.claim(query_id, user, fetch.part.unwrap_or_default(), None);
        let (part, cancelled) = claimed.map_err(|error| not_fetched(&error, query_id))?;
        if let (Some(client), Some(_)) = (caller.address, &part.client_url) {
            self.reach.came_here(client);
        }
        // A part that was given away is fetched even if the caller leaves meanwhile: dropping it then ends the query, which would wait otherwise.
        let coordinator = self.coordinator.clone();
        let fetching = tokio::spawn(async move { coordinator.fetch_part(&part).await });
        let messages = fetching.await.map_err(|_| Status::unavailable("the server is about to end"))?;
        let messages = messages.map_err(|error| status::from_engine(error.with_query(query_id)))?;
        Ok(result_stream::of_part(query_id, messages, cancelled, Arc::clone(&self.results)))
    }

    /// How many parts of a query's result were taken to their end.
    pub(super) fn parts_taken(&self, query_id: Uuid) -> usize {
        self.coordinator.summary(query_id).map_or(0, |summary| summary.tasks.saturating_sub(summary.running_tasks) as usize)
    }
}

/// What workers ask the server about clients. The service has the coordinator, which has this.
pub struct Desk(pub Weak<FlightSql>);

impl Desk {
    fn service(&self) -> Result<Arc<FlightSql>, Status> {
        self.0.upgrade().ok_or_else(|| Status::unavailable("the server is about to end"))
    }
}

/// Credentials of a client as if it had called here.
fn credentials(call: &ClientCall) -> Result<(MetadataMap, ClientPeer), Status> {
    let mut metadata = MetadataMap::new();
    if let Some(authorization) = &call.authorization {
        metadata.insert("authorization", authorization.parse().map_err(|error| status::malformed("authorization header", error))?);
    }
    let certificate = call
        .certificate
        .as_ref()
        .map(|(user, until)| Arc::new(ClientCertificate { user: user.clone(), valid_until: UNIX_EPOCH + Duration::from_millis(*until) }));
    Ok((metadata, ClientPeer { id: ConnectionId::ELSEWHERE, address: call.address, certificate, visit: None }))
}

impl Desk {
    async fn token(self: Arc<Self>, call: ClientCall) -> Result<String, Status> {
        // A worker's word about a certificate is enough for a ticket of that certificate's user, and no more.
        let (metadata, peer) = credentials(&ClientCall { certificate: None, ..call })?;
        self.service()?.authenticator.log_in(&metadata, Some(&peer)).await
    }

    async fn part(self: Arc<Self>, asked: ClientTicket) -> Result<Redeemed, Status> {
        let (metadata, peer) = credentials(&asked.call)?;
        let service = self.service()?;
        let principal = service.authenticator.authenticate(&metadata, Some(&peer)).await?;
        let Command::TicketStatementQuery(ticket) = super::service::command(&asked.ticket)? else {
            return Err(Status::invalid_argument("workers have parts of results alone: this ticket is for the server"));
        };
        let Fetch { query_id, part: Some(part) } = service.ticket_of(&ticket.statement_handle, &principal.user)? else {
            return Err(Status::invalid_argument("workers have parts of results alone: this ticket is for the server"));
        };
        let claimed = service.results.claim(query_id, &principal.user, part, Some(&asked.call.node_id));
        let (part, _) = claimed.map_err(|error| not_fetched(&error, query_id))?;
        service.reach.went_there(asked.call.address.ip());
        Ok(Redeemed { part: part.id, query_id })
    }

    async fn end_of(self: Arc<Self>, query: ClientQuery) -> WhyEnded {
        let error = self.service().ok()?.results.why_ended(query.query_id).await?;
        Some((error.class().code().into(), error.with_query(query.query_id).message()))
    }
}

impl ClientDesk for Desk {
    fn log_in(self: Arc<Self>, call: ClientCall) -> BoxFuture<'static, Result<String, Status>> {
        Box::pin(self.token(call))
    }

    fn redeem(self: Arc<Self>, asked: ClientTicket) -> BoxFuture<'static, Result<Redeemed, Status>> {
        Box::pin(self.part(asked))
    }

    fn why_ended(self: Arc<Self>, query: ClientQuery) -> BoxFuture<'static, WhyEnded> {
        Box::pin(self.end_of(query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_here_is_not_sent_to_workers_until_it_goes_there() {
        let (reach, client, other) = (Reach::default(), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!(reach.reaches_workers(client));
        reach.came_here(client);
        assert!(!reach.reaches_workers(client) && reach.reaches_workers(other));
        reach.went_there(client);
        assert!(reach.reaches_workers(client));
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let reach = Reach::default();
        for number in 0..u32::try_from(limits::WORKERS_UNREACHABLE_MAX).unwrap() + 10 {
            reach.came_here(IpAddr::from(number.to_be_bytes()));
        }
        assert_eq!(reach.unreachable.lock().len(), limits::WORKERS_UNREACHABLE_MAX);
    }
}
