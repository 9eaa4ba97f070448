//! Statements that a client asks about until their result can be fetched: PollFlightInfo.
//!
//! ```text
//! first poll: begin -> a task waits for the first rows (of a command: for its end) -> the result is offered like any other
//! later polls: pending, with progress  |  the FlightInfo, with endpoints  |  the error
//! ```
//!
//! A statement whose client stops asking is ended; so is one whose FlightInfo is cancelled.

use super::results::BatchStream;
use super::service::{Caller, FlightSql};
use super::statements::{self, Started};
use super::ticket::Fetch;
use crate::limits;
use arrow::datatypes::SchemaRef;
use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo};
use bowshot_engine::{ParameterRow, Prepared};
use futures::StreamExt;
use parking_lot::Mutex;
use prost_types::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tonic::Status;
use uuid::Uuid;

/// How a statement stands: nothing while it is pending.
type Outcome = Option<Result<FlightInfo, Status>>;

struct Poll {
    user: String,
    schema: SchemaRef,
    asked: Mutex<Instant>,
    /// The engine's query, as soon as there is one.
    query_id: Arc<OnceLock<Uuid>>,
    outcome: watch::Receiver<Outcome>,
    task: AbortHandle,
}

impl Drop for Poll {
    fn drop(&mut self) {
        // A task that has ended does not mind; one that runs ends its query when it is dropped.
        self.task.abort();
    }
}

/// The statements that are polled, by their id.
#[derive(Default)]
pub struct Polls {
    known: Mutex<HashMap<Uuid, Arc<Poll>>>,
}

impl Polls {
    fn find(&self, id: Uuid, user: &str) -> Option<Arc<Poll>> {
        self.known.lock().get(&id).filter(|poll| poll.user == user).cloned()
    }

    /// Ends a statement of `user` that is pending; false when there is none.
    pub fn cancel(&self, id: Uuid, user: &str) -> bool {
        let mut known = self.known.lock();
        let pending = known.get(&id).is_some_and(|poll| poll.user == user && poll.outcome.borrow().is_none());
        let cancelled = if pending { known.remove(&id) } else { None };
        drop(known);
        cancelled.is_some()
    }

    /// Ends what nobody has asked about for long.
    pub fn sweep(&self) {
        let mut known = self.known.lock();
        let left: Vec<Uuid> =
            known.iter().filter(|(_, poll)| poll.asked.lock().elapsed() > limits::RESULT_UNCLAIMED).map(|(id, _)| *id).collect();
        let left: Vec<_> = left.iter().filter_map(|id| known.remove(id)).collect();
        // Dropping a query may take a moment; nobody should wait for the lock meanwhile.
        drop(known);
        drop(left);
    }
}

impl FlightSql {
    /// Starts a statement whose client will ask again, and answers how it stands.
    pub(super) async fn start_polled(
        self: &Arc<Self>,
        caller: Caller,
        prepared: Arc<Prepared>,
        rows: Vec<ParameterRow>,
        descriptor: FlightDescriptor,
    ) -> Result<PollInfo, Status> {
        if self.polls.known.lock().len() >= limits::RESULTS_MAX {
            let most = limits::RESULTS_MAX;
            return Err(Status::resource_exhausted(format!("{most} statements are polled already; fetch or cancel some first")));
        }
        let id = Uuid::now_v7();
        let (sender, outcome) = watch::channel(None);
        let query_id = Arc::new(OnceLock::new());
        let (user, schema) = (caller.principal.user.clone(), prepared.schema());
        let (service, known_id) = (Arc::clone(self), Arc::clone(&query_id));
        let task = tokio::spawn(async move {
            let result = service.run_polled(&caller, prepared, rows, descriptor, &known_id).await;
            sender.send_replace(Some(result));
        });
        let poll = Poll { user, schema, asked: Mutex::new(Instant::now()), query_id, outcome, task: task.abort_handle() };
        let poll = Arc::new(poll);
        self.polls.known.lock().insert(id, Arc::clone(&poll));
        self.answer_poll(id, &poll).await
    }

    async fn run_polled(
        &self,
        caller: &Caller,
        prepared: Arc<Prepared>,
        rows: Vec<ParameterRow>,
        descriptor: FlightDescriptor,
        query_id: &OnceLock<Uuid>,
    ) -> Result<FlightInfo, Status> {
        let mut started = statements::begin(&caller.session, prepared, rows, self.delivery(caller)).await?;
        let _ = query_id.set(started.query_id);
        if !started.parts.is_empty() {
            return self.offer(caller, started, descriptor);
        }
        let first = started.batches.next().await.transpose().map_err(super::status::from_engine)?;
        let batches: BatchStream = Box::pin(futures::stream::iter(first.map(Ok)).chain(started.batches));
        self.offer(caller, Started { batches, ..started }, descriptor)
    }

    /// How a statement stands that was started by an earlier poll.
    pub(super) async fn poll_again(&self, caller: &Caller, ticket: &[u8]) -> Result<PollInfo, Status> {
        let user = &caller.principal.user;
        let id = self.ticket_of(ticket, user)?.query_id;
        let poll = self.polls.find(id, user).ok_or_else(|| {
            Status::not_found(format!("statement {id} is not polled here: it was cancelled, or nobody had asked about it for long"))
        })?;
        *poll.asked.lock() = Instant::now();
        self.answer_poll(id, &poll).await
    }

    async fn answer_poll(&self, id: Uuid, poll: &Poll) -> Result<PollInfo, Status> {
        let mut outcome = poll.outcome.clone();
        // Whoever asks waits for the change it asks for, and not much longer than that is worth a connection.
        let _ = tokio::time::timeout(limits::POLL_WAIT, outcome.wait_for(Option::is_some)).await;
        let known = outcome.borrow().clone();
        match known {
            Some(Ok(info)) => Ok(PollInfo { progress: Some(1.0), ..PollInfo::new().with_info(info) }),
            Some(Err(status)) => Err(status),
            None if outcome.has_changed().is_err() => Err(Status::cancelled(format!("the statement was cancelled (statement {id})"))),
            None => self.pending(id, poll),
        }
    }

    fn pending(&self, id: Uuid, poll: &Poll) -> Result<PollInfo, Status> {
        let again = FlightDescriptor::new_cmd(self.ticket(Fetch::whole(id), &poll.user));
        // No endpoint yet: there is nothing to fetch. The id is for cancelling.
        let info = FlightInfo::new().try_with_schema(&poll.schema).map_err(super::status::from_encoding)?;
        let info = info.with_descriptor(again.clone()).with_total_records(-1).with_total_bytes(-1).with_app_metadata(id.to_string());
        let progress = poll.query_id.get().and_then(|query_id| self.coordinator.summary(*query_id)).and_then(|summary| {
            let ended = summary.tasks.checked_sub(summary.running_tasks)?;
            (summary.tasks > 0).then(|| f64::from(ended) / f64::from(summary.tasks))
        });
        Ok(PollInfo {
            info: Some(info),
            flight_descriptor: Some(again),
            progress,
            expiration_time: Some(Timestamp::from(SystemTime::now() + limits::RESULT_UNCLAIMED)),
        })
    }
}
