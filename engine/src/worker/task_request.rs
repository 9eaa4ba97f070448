//! The request for a task's rows, read before the library reads it: which task it is about decides who may have them.

use crate::limits;
use crate::residency::Reach;
use crate::residency::ledger::{Ledger, TaskId};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full, Limited};
use prost::Message;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::{Code, Status};
use uuid::Uuid;

/// Bytes before a message: whether it is compressed, and its length.
const FRAME_BYTES: usize = 5;

/// The part of the library's `ExecuteTaskRequest` that says which task is meant.
#[derive(Clone, PartialEq, Message)]
struct TaskRequest {
    #[prost(message, optional, tag = "1")]
    task_key: Option<TaskKey>,
}

/// The library's `TaskKey`.
#[derive(Clone, PartialEq, Message)]
struct TaskKey {
    #[prost(bytes = "vec", tag = "1")]
    query_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    stage_id: u64,
    #[prost(uint64, tag = "3")]
    task_number: u64,
}

/// The task that is asked for, and the request as it came.
///
/// # Errors
/// When it is no such request.
pub async fn read(body: Body) -> Result<(TaskId, Body), Status> {
    let read = Limited::new(body, limits::TASK_REQUEST_BYTES_MAX).collect().await;
    let bytes =
        read.map_err(|error| Status::invalid_argument(format!("the request for a task's rows cannot be read: {error}")))?.to_bytes();
    let task = parse(&bytes).ok_or_else(|| Status::invalid_argument("the request for a task's rows names no task"))?;
    Ok((task, Body::new(Full::new(bytes).map_err(|never| match never {}))))
}

fn parse(bytes: &Bytes) -> Option<TaskId> {
    let (frame, message) = bytes.split_at_checked(FRAME_BYTES)?;
    let length = u32::from_be_bytes(frame.get(1..)?.try_into().ok()?) as usize;
    // The library sends requests uncompressed.
    if frame.first() != Some(&0) || length != message.len() {
        return None;
    }
    let key = TaskRequest::decode(message).ok()?.task_key?;
    Some(TaskId::new(Uuid::from_slice(&key.query_id).ok()?, key.stage_id, key.task_number))
}

/// A task's rows on their way out. What it read from tasks of the same node came over no connection, so it is looked at here.
pub struct GuardedBody {
    body: Body,
    task: TaskId,
    caller: Option<String>,
    errors: Reach,
    ledger: Arc<Ledger>,
}

impl GuardedBody {
    /// The rows of `task`, for a caller in this region; texts of its errors may go to `errors`.
    pub fn over(body: Body, task: TaskId, caller: Option<String>, errors: Reach, ledger: Arc<Ledger>) -> Body {
        Body::new(Self { body, task, caller, errors, ledger })
    }
}

/// Puts another error in the place of one that must not leave its region; `head` is what carries the status of a call.
pub fn hide_error(head: &mut HeaderMap, task: &TaskId, caller: Option<&str>, errors: &Reach, ledger: &Ledger) {
    if head.get(Status::GRPC_STATUS).is_none_or(|code| code == "0") {
        return;
    }
    let encoded = head.contains_key(Status::GRPC_STATUS_DETAILS);
    let Some(instead) = ledger.instead_of_error(task, caller, errors, encoded) else { return };
    for name in [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS] {
        head.remove(name);
    }
    if instead.add_header(head).is_err() {
        head.insert(Status::GRPC_STATUS, HeaderValue::from(Code::Internal as i32));
    }
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.as_ref().is_some_and(|frame| frame.as_ref().is_ok_and(http_body::Frame::is_data))
            && let Err(status) = self.ledger.check_own(&self.task)
        {
            return Poll::Ready(Some(Err(status)));
        }
        let frame = frame.map(|frame| {
            frame.map(|mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    hide_error(trailers, &self.task, self.caller.as_deref(), &self.errors, &self.ledger);
                }
                frame
            })
        });
        Poll::Ready(frame)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_the_library_writes_them() {
        let query = Uuid::from_u128(7);
        let key = TaskKey { query_id: query.as_bytes().to_vec(), stage_id: 3, task_number: 2 };
        let message = TaskRequest { task_key: Some(key) }.encode_to_vec();
        let mut framed = vec![0];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(message);
        assert_eq!(parse(&framed.clone().into()), Some(TaskId::new(query, 3, 2)));
        framed[0] = 1;
        assert_eq!(parse(&framed.clone().into()), None);
        assert_eq!(parse(&Bytes::from_static(b"abc")), None);
        assert_eq!(parse(&framed[..8].to_vec().into()), None);
    }
}
