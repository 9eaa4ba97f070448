//! Coordinator side of the control channel.

use super::gate::NodeGate;
use super::{
    CLIENT_LOGIN, CLIENT_QUERY, CLIENT_TICKET, ClientCall, ClientDesk, ClientTicket, ExpectedVolume, HEARTBEAT, Heartbeat, LOOK, Looked,
    PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, REGISTER, Register, Registered, TOKEN_HEADER, now_ms, secrets_equal,
};
use crate::cluster_tls::Peer;
use crate::config::StorageConfig;
use crate::coordinator::membership::Heartbeats;
use crate::coordinator::refused_nodes::{RefusedFor, RefusedNodes};
use crate::coordinator::volume_ids::VolumeIds;
use crate::limits;
use crate::port::flight::{Answer, FlightCalls, FlightPort, Messages};
use crate::residency::policy::Policy;
use arrow_flight::Action;
use arrow_flight::flight_service_server::FlightServiceServer;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use tonic::{Request, Response, Status};

/// Answers `register`, `heartbeat` and what workers ask about clients; every other Flight call is refused.
pub struct ControlService {
    membership: Arc<Heartbeats>,
    token: String,
    storage: Vec<StorageConfig>,
    policy: SharedPolicy,
    desk: SharedDesk,
    volumes: Option<VolumeIds>,
    refused: RefusedNodes,
}

/// The rules of residency as they are now.
pub type SharedPolicy = Arc<RwLock<Arc<Policy>>>;

/// Who knows the clients, once there is somebody.
pub type SharedDesk = Arc<OnceLock<Arc<dyn ClientDesk>>>;

impl ControlService {
    /// A service over `membership` for callers that know `token`.
    pub fn new(membership: Arc<Heartbeats>, token: String, storage: Vec<StorageConfig>, policy: SharedPolicy, desk: SharedDesk) -> Self {
        Self { membership, token, storage, policy, desk, volumes: None, refused: RefusedNodes::default() }
    }

    /// Tells workers which volumes are theirs.
    pub fn with_volumes(self, volumes: VolumeIds) -> Self {
        Self { volumes: Some(volumes), ..self }
    }

    async fn expected_volumes(&self, register: &Register) -> Result<BTreeMap<String, ExpectedVolume>, Status> {
        let Some(volumes) = self.volumes.clone() else { return Ok(BTreeMap::new()) };
        let (node, found) = (register.node_id.clone(), register.found_volumes.clone());
        let expected = crate::coordinator::blocking(move || volumes.expected(&node, &found)).await;
        expected.map_err(|error| Status::unavailable(error.message()))
    }

    fn desk(&self) -> Result<Arc<dyn ClientDesk>, Status> {
        self.desk.get().cloned().ok_or_else(|| Status::unavailable("the server does not serve clients yet: try again"))
    }

    /// The gRPC server, with its message limit.
    pub fn into_server(self: Arc<Self>) -> FlightServiceServer<FlightPort> {
        FlightPort::server(self, limits::CONTROL_MESSAGE_BYTES_MAX)
    }

    /// What stands before it.
    pub fn gate(self: &Arc<Self>) -> NodeGate {
        let service = self.clone();
        // Nobody has read what the caller calls itself.
        let refusal = Arc::new(move |peer: Option<&Peer>| service.wrong_token(peer, None));
        NodeGate::new(&self.token, limits::CONTROL_MESSAGE_BYTES_MAX, refusal)
    }

    fn wrong_token(&self, peer: Option<&Peer>, said_name: Option<&str>) -> Status {
        let status = Status::unauthenticated("the cluster token is missing or wrong: give every node the coordinator's cluster_token");
        if let Some(peer) = peer {
            self.refused.note(RefusedFor::Token, peer.address, said_name, status.message());
        }
        status
    }

    fn authenticate(&self, request: &Request<Action>) -> Result<(), Status> {
        let given = request.metadata().get(TOKEN_HEADER).map(|value| value.as_bytes()).unwrap_or_default();
        if secrets_equal(given, self.token.as_bytes()) {
            return Ok(());
        }
        Err(self.wrong_token(Peer::of(request.extensions()).ok(), said_name(&request.get_ref().body).as_deref()))
    }

    /// Whether a node may join as what it says.
    fn admit(&self, register: &Register, peer: &Peer) -> Result<(), Status> {
        let checked = check_version(register)
            .map_err(|status| (RefusedFor::Version, status))
            .and_then(|()| peer.check_register(register).map_err(|status| (RefusedFor::Certificate, status)))
            .and_then(|()| {
                let named = self.membership.may_register(register);
                named.map_err(|error| (RefusedFor::Name, Status::already_exists(error.message())))
            });
        checked.map_err(|(why, status)| {
            self.refused.note(why, peer.address, Some(&register.node_id), status.message());
            status
        })
    }
}

fn check_version(register: &Register) -> Result<(), Status> {
    if (PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&register.protocol_version) {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "worker {} (release {}) speaks control protocol {}, this coordinator (release {}) {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION}: upgrade the coordinator first, then the workers one by one, a release at a time",
        register.node_id,
        register.version,
        register.protocol_version,
        env!("CARGO_PKG_VERSION")
    )))
}

/// What a caller without the token calls itself, if it says so: for people who look for a node that is missing.
fn said_name(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Said {
        node_id: String,
    }
    let body = Some(body).filter(|body| body.len() <= limits::REFUSED_NODE_BODY_BYTES)?;
    serde_json::from_slice::<Said>(body).ok().map(|said| said.node_id)
}

fn body<'a, T: serde::Deserialize<'a>>(action: &'a Action) -> Result<T, Status> {
    serde_json::from_slice(&action.body).map_err(|error| {
        Status::invalid_argument(format!(
            "{} has a malformed body: {error}; do worker and coordinator run the same release?",
            action.r#type
        ))
    })
}

fn answer<T: serde::Serialize>(value: &T) -> Result<Response<Messages<arrow_flight::Result>>, Status> {
    let body = serde_json::to_vec(value).map_err(|error| Status::internal(error.to_string()))?;
    let said = arrow_flight::Result { body: body.into() };
    Ok(Response::new(Box::pin(futures::stream::once(std::future::ready(Ok(said))))))
}

impl ControlService {
    async fn act(self: Arc<Self>, request: Request<Action>) -> Result<Response<Messages<arrow_flight::Result>>, Status> {
        self.authenticate(&request)?;
        let peer = Peer::of(request.extensions())?.clone();
        let action = request.into_inner();
        match action.r#type.as_str() {
            REGISTER => {
                let register: Register = body(&action)?;
                self.admit(&register, &peer)?;
                let volumes = self.expected_volumes(&register).await?;
                self.membership.register(register, Some(peer.address)).map_err(|error| Status::already_exists(error.message()))?;
                answer(&Registered {
                    protocol_version: PROTOCOL_VERSION,
                    storage: self.storage.clone(),
                    policy: self.policy.read().as_ref().clone(),
                    volumes,
                })
            }
            LOOK => {
                self.admit(&body(&action)?, &peer)?;
                answer(&Looked { version: env!("CARGO_PKG_VERSION").into(), protocol_version: PROTOCOL_VERSION, clock_ms: now_ms() })
            }
            HEARTBEAT => {
                let heartbeat: Heartbeat = body(&action)?;
                peer.check_node(&heartbeat.node_id)?;
                let (policy, known) = (self.policy.read().clone(), heartbeat.policy_version);
                let mut answered = self.membership.heartbeat(heartbeat);
                answered.policy = (known != Some(policy.version)).then(|| policy.as_ref().clone());
                answer(&answered)
            }
            CLIENT_LOGIN => {
                let call: ClientCall = body(&action)?;
                peer.check_node(&call.node_id)?;
                answer(&self.desk()?.log_in(call).await?)
            }
            CLIENT_TICKET => {
                let asked: ClientTicket = body(&action)?;
                peer.check_node(&asked.call.node_id)?;
                answer(&self.desk()?.redeem(asked).await?)
            }
            CLIENT_QUERY => answer(&self.desk()?.why_ended(body(&action)?).await),
            other => Err(Status::unimplemented(format!("no control action '{other}'"))),
        }
    }
}

impl FlightCalls for ControlService {
    fn refusal(&self) -> Status {
        Status::unimplemented("this is Bowshot's control port: only workers call it")
    }
    fn do_action(self: Arc<Self>, request: Request<Action>) -> Answer<Messages<arrow_flight::Result>> {
        Box::pin(self.act(request))
    }
}
