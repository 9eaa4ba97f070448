//! Admission: a bounded number of queries runs, a bounded number waits, one more is refused.

use crate::error::{Error, ErrorClass, Result};
use crate::limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The queue in front of a coordinator.
pub struct Admission {
    running: Arc<Semaphore>,
    running_max: usize,
    waiting: AtomicUsize,
}

impl Admission {
    /// A queue that lets `running_max` queries run at once.
    pub fn new(running_max: usize) -> Self {
        Self { running: Arc::new(Semaphore::new(running_max)), running_max, waiting: AtomicUsize::new(0) }
    }

    /// Waits for a place, at most `wait`. The place is free again when the permit is dropped.
    pub async fn admit(&self, wait: Duration) -> Result<OwnedSemaphorePermit> {
        if let Ok(permit) = self.running.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let refused = |why: String| {
            Err(Error::new(
                ErrorClass::Resource,
                format!(
                    "{why}: {} queries run already (coordinator.query.max_concurrent); try again later, or raise the limit",
                    self.running_max
                ),
            ))
        };
        let _place = Place::take(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > limits::QUERIES_WAITING_MAX {
            return refused("the queue is full".into());
        }
        match tokio::time::timeout(wait, self.running.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Error::retry("the coordinator is shutting down")),
            Err(_) => refused(format!("the query was not admitted within {} s", wait.as_secs())),
        }
    }
}

/// A place in the waiting line, given back on every way out.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
