//! How many tasks run on this node, and its way out: no new tasks, the running ones to their end, then the process.

use crate::limits;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;

/// Tasks in flight, and whether the node is leaving. Clones share it.
#[derive(Clone)]
pub struct Load {
    tasks: Arc<watch::Sender<u64>>,
    leaving: Arc<watch::Sender<Leaving>>,
}

/// How far the node's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// It stays.
    No,
    /// It wants to end.
    Asked,
    /// The coordinator has heard it.
    Told,
}

impl Default for Load {
    fn default() -> Self {
        Self { tasks: Arc::new(watch::Sender::new(0)), leaving: Arc::new(watch::Sender::new(Leaving::No)) }
    }
}

impl Load {
    /// A task begins; it ends with what this returns, and `ended` is called then.
    pub fn task(&self, ended: impl FnOnce() + Send + 'static) -> RunningTask {
        self.tasks.send_modify(|tasks| *tasks += 1);
        RunningTask { load: self.clone(), ended: Some(Box::new(ended)) }
    }

    /// Tasks in flight.
    pub fn running_tasks(&self) -> u64 {
        *self.tasks.borrow()
    }

    /// Whether the node is to end.
    pub fn is_leaving(&self) -> bool {
        *self.leaving.borrow() != Leaving::No
    }

    /// Resolves when the node is to end.
    pub async fn asked_to_leave(&self) {
        // The sender lives in `self`.
        let _ = self.leaving.subscribe().wait_for(|leaving| *leaving != Leaving::No).await;
    }

    /// The coordinator knows that the node is to end.
    pub fn told_coordinator(&self) {
        self.leaving.send_if_modified(|leaving| std::mem::replace(leaving, Leaving::Told) != Leaving::Told);
    }

    /// Asks to leave, and waits until the coordinator knows and no task runs, at most [`limits::LEAVE_GRACE`].
    pub async fn leave(&self) {
        self.leaving.send_if_modified(|leaving| {
            let first = *leaving == Leaving::No;
            if first {
                *leaving = Leaving::Asked;
            }
            first
        });
        let told = async {
            let _ = self.leaving.subscribe().wait_for(|leaving| *leaving == Leaving::Told).await;
        };
        // A coordinator that is not there places no queries either.
        if tokio::time::timeout(limits::LEAVE_TELL_WAIT, told).await.is_err() {
            tracing::warn!("the coordinator was not there to be told that this node ends");
        }
        // Plans that were placed before the coordinator knew are on their way.
        tokio::time::sleep(limits::LEAVE_SETTLE).await;
        let idle = async {
            let _ = self.tasks.subscribe().wait_for(|tasks| *tasks == 0).await;
        };
        if tokio::time::timeout(limits::LEAVE_GRACE, idle).await.is_err() {
            tracing::warn!(tasks = self.running_tasks(), "tasks still run and end with this node");
        }
    }
}

/// A task in flight.
pub struct RunningTask {
    load: Load,
    ended: Option<Box<dyn FnOnce() + Send>>,
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.load.tasks.send_modify(|tasks| *tasks -= 1);
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }
}

/// A response that counts as a running task until its last byte was sent, or it was given up.
pub struct TaskBody {
    body: tonic::body::Body,
    _task: RunningTask,
}

impl TaskBody {
    /// `body`, as the end of `task`.
    pub fn over(body: tonic::body::Body, task: RunningTask) -> tonic::body::Body {
        tonic::body::Body::new(Self { body, _task: task })
    }
}

impl http_body::Body for TaskBody {
    type Data = <tonic::body::Body as http_body::Body>::Data;
    type Error = <tonic::body::Body as http_body::Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
