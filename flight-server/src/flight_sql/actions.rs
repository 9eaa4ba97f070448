//! The actions: prepared statements, cancelling, session options, and our own three about a query by its id.

use super::service::{Caller, FlightSql};
use super::session_options::{
    CloseSessionResult, CloseStatus, GetSessionOptionsResult, OptionErrorValue, SessionOptionValue, SetSessionOptionError,
    SetSessionOptionsRequest, SetSessionOptionsResult,
};
use super::{statements, status};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedSubstraitPlanRequest, Any, Command, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightEndpoint, FlightInfo,
    RenewFlightEndpointRequest, Ticket,
};
use bowshot_engine::ErrorClass;
use prost::Message;
use prost::bytes::Bytes;
use tonic::Status;
use uuid::Uuid;

/// Our action: the figures of a query that ended. The body is the query id as text, the answer JSON.
pub const QUERY_SUMMARY: &str = "bowshot.query_summary";
/// Our action: the figures of a query so far. Body and answer as for [`QUERY_SUMMARY`].
pub const QUERY_PROGRESS: &str = "bowshot.query_progress";
/// Our action: ends a query of the caller, or says why not. The body is the query id as text; no answer.
pub const CANCEL_OWN_QUERY: &str = "bowshot.cancel_query";

const CREATE_PREPARED_STATEMENT: &str = "CreatePreparedStatement";
const CREATE_PREPARED_SUBSTRAIT_PLAN: &str = "CreatePreparedSubstraitPlan";
const CLOSE_PREPARED_STATEMENT: &str = "ClosePreparedStatement";
const CANCEL_QUERY: &str = "CancelQuery";
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const RENEW_FLIGHT_ENDPOINT: &str = "RenewFlightEndpoint";
const SET_SESSION_OPTIONS: &str = "SetSessionOptions";
const GET_SESSION_OPTIONS: &str = "GetSessionOptions";
const CLOSE_SESSION: &str = "CloseSession";

/// `CANCELLED` and `NOT_CANCELLABLE` of the CancelQuery action.
const CANCEL_RESULT: [i32; 2] = [1, 3];

/// What the server offers, for ListActions.
pub fn offered() -> Vec<ActionType> {
    [
        (CREATE_PREPARED_STATEMENT, "Plans a statement and answers a handle for it."),
        (CREATE_PREPARED_SUBSTRAIT_PLAN, "Plans a Substrait plan and answers a handle for it."),
        (CLOSE_PREPARED_STATEMENT, "Forgets a prepared statement."),
        (CANCEL_QUERY, "Cancels a query by its FlightInfo (Flight SQL)."),
        (CANCEL_FLIGHT_INFO, "Cancels a query by its FlightInfo."),
        (RENEW_FLIGHT_ENDPOINT, "Lets a result wait longer to be fetched, and answers a new ticket for it."),
        (SET_SESSION_OPTIONS, "Changes settings of the session."),
        (GET_SESSION_OPTIONS, "Answers the settings of the session."),
        (CLOSE_SESSION, "Ends the session and its token."),
        (QUERY_SUMMARY, "Answers the figures of a query, as JSON; the body is the query id."),
        (CANCEL_OWN_QUERY, "Cancels a query of the caller, or says why not; the body is the query id."),
        (QUERY_PROGRESS, "Answers the figures of a running query, as JSON; the body is the query id."),
    ]
    .into_iter()
    .map(|(name, description)| ActionType { r#type: name.to_string(), description: description.to_string() })
    .collect()
}

impl FlightSql {
    /// Does an action and answers its result, if it has one.
    pub(super) async fn act(&self, caller: &Caller, action: Action) -> Result<Option<Bytes>, Status> {
        match action.r#type.as_str() {
            CREATE_PREPARED_STATEMENT => {
                let request: ActionCreatePreparedStatementRequest = unpack(&action)?;
                refuse_transaction(request.transaction_id.as_ref())?;
                let prepared = statements::prepare(&caller.session, &request.query).await?;
                let created = self.keep_prepared(caller, prepared)?;
                Ok(Some(created.as_any().encode_to_vec().into()))
            }
            CREATE_PREPARED_SUBSTRAIT_PLAN => {
                let request: ActionCreatePreparedSubstraitPlanRequest = unpack(&action)?;
                refuse_transaction(request.transaction_id.as_ref())?;
                let prepared = statements::prepare_substrait(&caller.session, request.plan.as_ref()).await?;
                let created = self.keep_prepared(caller, prepared)?;
                Ok(Some(created.as_any().encode_to_vec().into()))
            }
            CLOSE_PREPARED_STATEMENT => {
                let request: ActionClosePreparedStatementRequest = unpack(&action)?;
                self.close_prepared(caller, &request.prepared_statement_handle);
                Ok(None)
            }
            CANCEL_QUERY => {
                let request: ActionCancelQueryRequest = unpack(&action)?;
                let info = FlightInfo::decode(request.info).map_err(|error| status::malformed("FlightInfo", error))?;
                let [cancelled, not_cancellable] = CANCEL_RESULT;
                let result = if self.cancel(caller, &info) { cancelled } else { not_cancellable };
                let answer = ActionCancelQueryResult { result };
                Ok(Some(answer.as_any().encode_to_vec().into()))
            }
            CANCEL_FLIGHT_INFO => {
                let request: CancelFlightInfoRequest = decode(&action)?;
                let info = request.info.unwrap_or_default();
                let status = match self.cancel(caller, &info) {
                    true => CancelStatus::Cancelled,
                    false => CancelStatus::NotCancellable,
                };
                Ok(Some(CancelFlightInfoResult::new(status).encode_to_vec().into()))
            }
            RENEW_FLIGHT_ENDPOINT => {
                let request: RenewFlightEndpointRequest = decode(&action)?;
                let endpoint = self.renew(caller, request.endpoint.unwrap_or_default())?;
                Ok(Some(endpoint.encode_to_vec().into()))
            }
            SET_SESSION_OPTIONS => Ok(Some(set_options(caller, decode(&action)?).encode_to_vec().into())),
            GET_SESSION_OPTIONS => Ok(Some(get_options(caller).encode_to_vec().into())),
            CLOSE_SESSION => {
                self.sessions.close(&caller.principal, caller.connection);
                self.authenticator.log_out(&caller.principal);
                let answer = CloseSessionResult { status: CloseStatus::Closed as i32 };
                Ok(Some(answer.encode_to_vec().into()))
            }
            CANCEL_OWN_QUERY => self.cancel_by_id(caller, &action.body).map(|()| None),
            QUERY_SUMMARY | QUERY_PROGRESS => self.figures(caller, &action.body).map(Some),
            other => Err(Status::unimplemented(format!("there is no action '{other}'"))),
        }
    }

    /// The endpoint with a ticket that is valid from now on. A time of expiry is not told: it would promise that the result can be fetched again.
    fn renew(&self, caller: &Caller, endpoint: FlightEndpoint) -> Result<FlightEndpoint, Status> {
        let user = &caller.principal.user;
        let Some(Command::TicketStatementQuery(ticket)) = endpoint.ticket.as_ref().and_then(|ticket| {
            let any = Any::decode(&*ticket.ticket).ok()?;
            Command::try_from(any).ok()
        }) else {
            return Err(Status::invalid_argument("the endpoint has no ticket of a query"));
        };
        let fetch = self.ticket_of(&ticket.statement_handle, user)?;
        if !self.results.renew(fetch.query_id, user) {
            return Err(Status::not_found(format!("this result does not wait to be fetched any more (query {})", fetch.query_id)));
        }
        Ok(endpoint.with_ticket(Ticket::new(self.ticket(fetch, user))))
    }

    fn cancel(&self, caller: &Caller, info: &FlightInfo) -> bool {
        query_id(info, self).is_some_and(|query_id| {
            let user = &caller.principal.user;
            let here = self.polls.cancel(query_id, user) || self.results.cancel(query_id, user);
            // The engine may still have the query when its stream is gone, and the other way round.
            self.coordinator.cancel(query_id, user).is_ok() || here
        })
    }

    fn cancel_by_id(&self, caller: &Caller, body: &Bytes) -> Result<(), Status> {
        let (query_id, user) = (id_in(body)?, &caller.principal.user);
        // Rows may still be on their way to the client of a query that has ended in the engine.
        let here = self.results.cancel(query_id, user);
        match self.coordinator.cancel(query_id, user) {
            Err(error) if !here => Err(status::from_engine(error)),
            _ => Ok(()),
        }
    }

    fn figures(&self, caller: &Caller, body: &Bytes) -> Result<Bytes, Status> {
        let query_id = id_in(body)?;
        let summary = Some(query_id)
            .filter(|query_id| self.results.is_of(*query_id, &caller.principal.user))
            .and_then(|query_id| self.coordinator.summary(query_id))
            .ok_or_else(|| Status::not_found(format!("no figures are kept of query {query_id}")))?;
        serde_json::to_vec(&summary).map(Bytes::from).map_err(status::from_encoding)
    }
}

fn id_in(body: &Bytes) -> Result<Uuid, Status> {
    let id = std::str::from_utf8(body).ok().and_then(|text| Uuid::parse_str(text.trim()).ok());
    id.ok_or_else(|| Status::invalid_argument("the body must be a query id"))
}

/// Transactions are not offered, so a statement that names one was meant for another server.
pub fn refuse_transaction(transaction: Option<&Bytes>) -> Result<(), Status> {
    match transaction {
        Some(id) if !id.is_empty() => Err(Status::invalid_argument("transactions are not supported")),
        _ => Ok(()),
    }
}

/// The query a FlightInfo of ours is about: noted in its metadata, else in its ticket.
fn query_id(info: &FlightInfo, service: &FlightSql) -> Option<Uuid> {
    let noted = std::str::from_utf8(&info.app_metadata).ok().and_then(|text| Uuid::parse_str(text).ok());
    noted.or_else(|| {
        let ticket = info.endpoint.first()?.ticket.as_ref()?;
        let command = Command::try_from(Any::decode(&*ticket.ticket).ok()?).ok()?;
        match command {
            Command::TicketStatementQuery(ticket) => service.ticket_query(&ticket.statement_handle),
            _ => None,
        }
    })
}

fn set_options(caller: &Caller, request: SetSessionOptionsRequest) -> SetSessionOptionsResult {
    let mut result = SetSessionOptionsResult::default();
    for (name, value) in request.session_options {
        let problem = match value.as_setting() {
            None => Some(OptionErrorValue::InvalidValue),
            Some(setting) => match caller.session.set_option(&name, &setting) {
                Ok(()) => None,
                Err(_) if !caller.session.get_options().contains_key(&name) => Some(OptionErrorValue::InvalidName),
                Err(error) if matches!(error.class(), ErrorClass::NotFound | ErrorClass::User) => Some(OptionErrorValue::InvalidValue),
                Err(_) => Some(OptionErrorValue::Error),
            },
        };
        if let Some(problem) = problem {
            let error = SetSessionOptionError { value: problem as i32 };
            result.errors.insert(name, error);
        }
    }
    result
}

fn get_options(caller: &Caller) -> GetSessionOptionsResult {
    let session_options = caller.session.get_options().into_iter().map(|(name, value)| (name, SessionOptionValue::text(value))).collect();
    GetSessionOptionsResult { session_options }
}

/// The actions of Flight SQL wrap their request once more.
fn unpack<M: ProstMessageExt>(action: &Action) -> Result<M, Status> {
    let malformed = |error: String| status::malformed("body of the action", error);
    Any::decode(&*action.body)
        .map_err(|error| malformed(error.to_string()))?
        .unpack()
        .map_err(|error| malformed(error.to_string()))?
        .ok_or_else(|| malformed(format!("it is not a request of {}", action.r#type)))
}

/// The actions of Flight itself do not.
fn decode<M: Message + Default>(action: &Action) -> Result<M, Status> {
    M::decode(&*action.body).map_err(|error| status::malformed("body of the action", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight_sql::session_options::OptionValue;

    #[test]
    fn session_options_have_the_wire_form_of_the_specification() {
        let mut request = SetSessionOptionsRequest::default();
        let value = SessionOptionValue { option_value: Some(OptionValue::Integer(7)) };
        request.session_options.insert("a".to_string(), value);
        // Map entry (field 1), key "a" (field 1), value (field 2) with sfixed64 (field 3).
        let expected = [0x0a, 14, 0x0a, 1, b'a', 0x12, 9, 0x19, 7, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(request.encode_to_vec(), expected);
    }
}
