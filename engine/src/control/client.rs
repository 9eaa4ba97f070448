//! Worker side of the control channel.

use super::{HEARTBEAT, Heartbeat, HeartbeatAnswer, LOOK, Looked, REGISTER, Register, Registered, TOKEN_HEADER};
use crate::cluster_tls::{self, COORDINATOR_NAME, ClusterTls};
use crate::error::{Error, ErrorClass, Result};
use crate::limits;
use arrow_flight::Action;
use arrow_flight::flight_service_client::FlightServiceClient;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request};

/// For a client of a worker that cannot ask about it.
const NO_ANSWER: &str = "this node cannot ask the coordinator about you: try again, or fetch from the server";

/// What tonic says of a call that took too long.
const TIMEOUT_TEXT: &str = "Timeout expired";

/// A refusal for the client of a worker; what the transport says is about a connection that the client knows nothing of.
fn of_client(status: tonic::Status) -> tonic::Status {
    // What came over the wire has no cause; a call that took too long has none either.
    let of_transport = std::error::Error::source(&status).is_some() || matches!(status.code(), Code::Unknown | Code::DeadlineExceeded);
    if of_transport || status.message() == TIMEOUT_TEXT {
        return tonic::Status::unavailable(NO_ANSWER);
    }
    tonic::Status::new(status.code(), status.message())
}

/// A connection to the coordinator's control port that re-connects by itself.
#[derive(Clone)]
pub struct ControlClient {
    client: FlightServiceClient<Channel>,
    token: MetadataValue<Ascii>,
    coordinator: String,
    /// Whether the coordinator ever answered: certificates were right then, and may be again.
    answered: bool,
}

impl ControlClient {
    /// Prepares a connection, with `tls` to whoever can prove to be the coordinator; nothing is sent yet.
    pub fn new(coordinator: &str, token: &str, tls: Option<Arc<ClusterTls>>) -> Result<Self> {
        let endpoint = cluster_tls::connect::endpoint(coordinator)
            .map_err(|error| Error::user(format!("coordinator address '{coordinator}' is not a URL like http://host:47472: {error}")))?
            .connect_timeout(limits::CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let token = token
            .parse()
            .map_err(|_| Error::user("cluster_token has characters that cannot travel in a header: use letters and digits"))?;
        let channel = cluster_tls::connect_lazy(endpoint, tls, COORDINATOR_NAME);
        let client = FlightServiceClient::new(channel).max_encoding_message_size(limits::CONTROL_MESSAGE_BYTES_MAX);
        Ok(Self { client, token, coordinator: coordinator.to_string(), answered: false })
    }

    /// Introduces this worker.
    pub async fn register(&mut self, register: &Register) -> Result<Registered> {
        self.call(REGISTER, register, limits::CONTROL_CALL_TIMEOUT).await
    }

    /// Asks whether this worker would be taken in; changes nothing.
    pub async fn look(&mut self, register: &Register) -> Result<Looked> {
        match tokio::time::timeout(limits::LOOK_TIMEOUT, self.call(LOOK, register, limits::LOOK_TIMEOUT)).await {
            Ok(answered) => answered,
            Err(_) => {
                Err(Error::retry(format!("coordinator {} did not answer within {} s", self.coordinator, limits::LOOK_TIMEOUT.as_secs())))
            }
        }
    }

    /// Reports that this worker lives.
    pub async fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer> {
        let whole = heartbeat.packed_inventory.is_some() || heartbeat.inventory.is_some();
        // A thousand nodes send their inventories at once when the coordinator starts again.
        self.call(HEARTBEAT, heartbeat, if whole { limits::INVENTORY_CALL_TIMEOUT } else { limits::CONTROL_CALL_TIMEOUT }).await
    }

    /// Asks about a client, whom the answer is for: refusals come as the coordinator words them.
    pub(crate) async fn ask<T: Serialize, R: DeserializeOwned>(&self, action: &str, question: &T) -> Result<R, tonic::Status> {
        let body = serde_json::to_vec(question).map_err(|error| tonic::Status::internal(error.to_string()))?;
        let mut request = Request::new(Action { r#type: action.to_string(), body: body.into() });
        request.metadata_mut().insert(TOKEN_HEADER, self.token.clone());
        request.set_timeout(limits::CLIENT_QUESTION_TIMEOUT);
        let mut client = self.client.clone();
        let mut answers = client.do_action(request).await.map_err(of_client)?.into_inner();
        let answer = answers.message().await.map_err(of_client)?.ok_or_else(|| tonic::Status::unavailable(NO_ANSWER))?;
        serde_json::from_slice(&answer.body).map_err(|_| tonic::Status::unavailable(NO_ANSWER))
    }

    async fn call<T: Serialize, R: DeserializeOwned>(&mut self, action: &str, message: &T, timeout: Duration) -> Result<R> {
        let body = serde_json::to_vec(message).map_err(|error| Error::bug(format!("{action} cannot be encoded: {error}")))?;
        let mut request = Request::new(Action { r#type: action.to_string(), body: body.into() });
        request.metadata_mut().insert(TOKEN_HEADER, self.token.clone());
        request.set_timeout(timeout);
        let answered = self.answered;
        let failed = |status: tonic::Status| {
            if let Some(refusal) = cluster_tls::refusal(&status) {
                // Certificates are replaced while nodes run, so a refusal passes; a node that was never accepted has the wrong ones.
                let class = if answered { ErrorClass::Retry } else { ErrorClass::Unauthenticated };
                return Error::new(class, format!("coordinator {}: {refusal}", self.coordinator));
            }
            let class = match status.code() {
                Code::Unauthenticated => ErrorClass::Unauthenticated,
                Code::FailedPrecondition | Code::AlreadyExists | Code::InvalidArgument | Code::Unimplemented => ErrorClass::User,
                _ => ErrorClass::Retry,
            };
            Error::new(class, format!("coordinator {}: {}", self.coordinator, status.message()))
        };
        let mut answers = self.client.do_action(request).await.map_err(failed)?.into_inner();
        let answer = answers
            .message()
            .await
            .map_err(failed)?
            .ok_or_else(|| Error::retry(format!("coordinator {} gave an empty answer to {action}", self.coordinator)))?;
        self.answered = true;
        serde_json::from_slice(&answer.body)
            .map_err(|error| Error::retry(format!("coordinator {} gave a malformed answer to {action}: {error}", self.coordinator)))
    }
}
