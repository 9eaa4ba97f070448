//! What a worker has for clients: parts of results, for those who may have them. Who may is the coordinator's to say, which knows clients and
//! tickets; a worker knows neither.

use super::WorkerNode;
use super::published::Published;
use crate::control::client::ControlClient;
use crate::control::{CLIENT_LOGIN, CLIENT_QUERY, CLIENT_TICKET, ClientCall, ClientQuery, ClientTicket, Redeemed, WhyEnded};
use crate::error::{Error, ErrorClass, Result};
use crate::limits;
use arrow_flight::FlightData;
use futures::{Stream, TryStreamExt};
use std::sync::Arc;
use tonic::Status;
use uuid::Uuid;

/// The parts of results on one node.
pub struct PartsForClients {
    node_id: String,
    published: Arc<Published>,
    coordinator: ControlClient,
}

/// Why a client gets no part.
pub enum Refused {
    /// The coordinator's word.
    ByCoordinator(Status),
    /// The part is not here any more.
    Here(Error),
}

impl PartsForClients {
    pub(super) fn new(node: &WorkerNode) -> Result<Self> {
        let coordinator = ControlClient::new(&node.config.coordinator, &node.config.cluster_token, node.channels.tls())?;
        Ok(Self { node_id: node.config.node_id.clone(), published: node.published.clone(), coordinator })
    }

    /// Name of the node.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// The token of a login for a client's credentials.
    ///
    /// # Errors
    /// The coordinator's refusal.
    pub async fn log_in(&self, call: ClientCall) -> Result<String, Status> {
        self.coordinator.ask(CLIENT_LOGIN, &call).await
    }

    /// The messages of the part that a ticket is for.
    ///
    /// # Errors
    /// When the coordinator refuses, or the part is not here.
    pub async fn fetch(&self, asked: ClientTicket) -> Result<impl Stream<Item = Result<FlightData>> + Send + use<>, Refused> {
        let Redeemed { part, query_id } = self.coordinator.ask(CLIENT_TICKET, &asked).await.map_err(Refused::ByCoordinator)?;
        let messages = self.published.fetch(part, limits::PART_PATIENCE).await;
        let messages = messages.map_err(|error| Refused::Here(error.with_query(query_id)))?;
        let coordinator = self.coordinator.clone();
        Ok(messages.or_else(move |error| {
            let coordinator = coordinator.clone();
            async move { Err(why(&coordinator, query_id, error.with_query(query_id)).await) }
        }))
    }
}

/// What ended a part: where it was cut off with its query the coordinator knows why.
async fn why(coordinator: &ControlClient, query_id: Uuid, error: Error) -> Error {
    if error.class() != ErrorClass::Retry {
        return error;
    }
    match coordinator.ask::<_, WhyEnded>(CLIENT_QUERY, &ClientQuery { query_id }).await {
        // The text names the query already.
        Ok(Some((code, text))) => Error::new(ErrorClass::of_code(code.into()), text),
        Ok(None) | Err(_) => error,
    }
}
