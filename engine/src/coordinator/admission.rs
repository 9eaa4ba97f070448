//! Admission: a bounded number of queries runs, a bounded number waits, one more is refused. Who is next says [`FairQueue`].
//!
//! Two lanes. Queries over stored tables share `coordinator.query.max_concurrent` places. Statements without any (`SELECT 1`, system tables)
//! have a small lane of their own: whoever asks why the cluster is busy must not wait for it.

use super::fair_queue::{FairQueue, Ticket, TooMany};
use crate::config::{Priority, QueryConfig};
use crate::error::{Error, ErrorClass, Result};
use crate::limits;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Which places a query wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// It reads stored tables.
    Stored,
    /// It does not.
    Small,
}

/// The queues in front of a coordinator.
pub struct Admission {
    stored: Arc<Gate>,
    small: Arc<Gate>,
}

struct Gate {
    lane: Lane,
    running_max: usize,
    waiting_max: usize,
    clock: Instant,
    line: Mutex<WaitingLine>,
}

struct WaitingLine {
    queue: FairQueue,
    wakes: HashMap<Ticket, oneshot::Sender<()>>,
}

/// A place, or one in the queue; given back when it is dropped.
pub struct Place {
    gate: Arc<Gate>,
    ticket: Ticket,
}

impl Admission {
    /// Queues for these limits.
    pub fn new(config: &QueryConfig) -> Self {
        let gate = |lane, running_max: usize, per_user, waiting_max| {
            let queue = FairQueue::new(running_max, per_user, waiting_max);
            let line = Mutex::new(WaitingLine { queue, wakes: HashMap::new() });
            Arc::new(Gate { lane, running_max, waiting_max, clock: Instant::now(), line })
        };
        let small = (limits::SMALL_QUERIES_RUNNING_MAX, limits::SMALL_QUERIES_RUNNING_MAX / 2);
        Self {
            stored: gate(Lane::Stored, config.max_concurrent.max(1), config.max_concurrent_per_user, config.max_waiting),
            small: gate(Lane::Small, small.0, small.1, limits::QUERIES_WAITING_MAX),
        }
    }

    /// Whether a query over stored tables waits for a place.
    pub fn are_wanted(&self) -> bool {
        self.stored.line.lock().queue.waiting() > 0
    }

    /// Waits for a place until `deadline`, not longer than the future is polled.
    pub async fn admit(&self, lane: Lane, user: &str, priority: Priority, deadline: tokio::time::Instant) -> Result<Place> {
        let gate = match lane {
            Lane::Stored => &self.stored,
            Lane::Small => &self.small,
        };
        let (place, admitted) = gate.arrive(user, priority)?;
        match tokio::time::timeout_at(deadline, admitted).await {
            Ok(Ok(())) => Ok(place),
            Ok(Err(_)) => Err(Error::bug("a query's place in the queue was lost")),
            Err(_) => Err(gate.refused("the query was not let in before its deadline (bowshot.query_timeout_ms)")),
        }
    }
}

impl Gate {
    fn now_ms(&self) -> u64 {
        self.clock.elapsed().as_millis() as u64
    }

    fn arrive(self: &Arc<Self>, user: &str, priority: Priority) -> Result<(Place, oneshot::Receiver<()>)> {
        let (wake, admitted) = oneshot::channel();
        let mut line = self.line.lock();
        let ticket = line.queue.arrive(user, priority, self.now_ms());
        line.wakes.insert(ticket, wake);
        self.let_in(&mut line);
        let too_many = line.queue.too_many(ticket);
        drop(line);
        // From here on dropping it gives the ticket back.
        let place = Place { gate: self.clone(), ticket };
        match too_many {
            None => Ok((place, admitted)),
            Some(TooMany::InAll) => {
                Err(self.refused(&format!("the queue is full: {} queries wait already{}", self.waiting_max, self.setting())))
            }
            Some(TooMany::OfOneUser(own)) => Err(self.refused(&format!(
                "the queue is full for user {user}: {own} of their queries wait already, and its last quarter is for others{}",
                self.setting()
            ))),
        }
    }

    fn setting(&self) -> &'static str {
        match self.lane {
            Lane::Stored => " (coordinator.query.max_waiting)",
            Lane::Small => "",
        }
    }

    fn refused(&self, why: &str) -> Error {
        let places = match self.lane {
            Lane::Stored => format!("{} queries may run at once (coordinator.query.max_concurrent)", self.running_max),
            Lane::Small => format!("{} statements without stored tables may run at once", self.running_max),
        };
        Error::new(
            ErrorClass::Resource,
            format!("{why}; {places}: try again later, cancel some ('bowshot queries ls'), or raise the limit"),
        )
    }

    fn let_in(&self, line: &mut WaitingLine) {
        while let Some(ticket) = line.queue.next(self.now_ms()) {
            if let Some(wake) = line.wakes.remove(&ticket) {
                // Whoever does not wait any more gives the place back by dropping it.
                let _ = wake.send(());
            }
        }
        if self.lane == Lane::Stored {
            metrics::gauge!("bowshot_queries_running").set(line.queue.running() as f64);
            metrics::gauge!("bowshot_queries_waiting").set(line.queue.waiting() as f64);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.gate.line.lock();
        line.queue.leave(self.ticket, self.gate.now_ms());
        line.wakes.remove(&self.ticket);
        self.gate.let_in(&mut line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn admission(max_concurrent: usize, max_waiting: usize) -> Admission {
        Admission::new(&QueryConfig { max_concurrent, max_waiting, ..Default::default() })
    }

    fn soon() -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn a_place_that_is_given_back_goes_to_the_next_and_a_full_queue_refuses() {
        let admission = Arc::new(admission(1, 1));
        let first = admission.admit(Lane::Stored, "ana", Priority::Normal, soon()).await.unwrap();
        let waits = admission.clone();
        let second = tokio::spawn(async move { waits.admit(Lane::Stored, "bob", Priority::Normal, soon()).await.map(drop) });
        while admission.stored.line.lock().queue.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let refused = admission.admit(Lane::Stored, "eve", Priority::High, soon()).await.map(drop).unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Resource);
        assert!(refused.message().contains("coordinator.query.max_waiting"), "{refused}");
        // The other lane has places.
        admission.admit(Lane::Small, "eve", Priority::Low, soon()).await.unwrap();
        drop(first);
        second.await.unwrap().unwrap();
        assert_eq!(admission.stored.line.lock().queue.running(), 0);
    }

    #[tokio::test]
    async fn whoever_stops_waiting_is_gone_from_the_queue() {
        let admission = admission(1, 8);
        let first = admission.admit(Lane::Stored, "ana", Priority::Normal, soon()).await.unwrap();
        let late = admission.admit(Lane::Stored, "ana", Priority::Normal, tokio::time::Instant::now() + Duration::from_millis(20)).await;
        assert!(late.map(drop).unwrap_err().message().contains("deadline"));
        let dropped = tokio::time::timeout(Duration::from_millis(20), admission.admit(Lane::Stored, "ana", Priority::Normal, soon())).await;
        assert!(dropped.is_err());
        {
            let line = admission.stored.line.lock();
            assert_eq!((line.queue.running(), line.queue.waiting(), line.wakes.len()), (1, 0, 0));
        }
        drop(first);
        admission.admit(Lane::Stored, "bob", Priority::Normal, soon()).await.unwrap();
    }
}
