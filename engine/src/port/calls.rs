//! The calls of a port before they are read: each is counted for its connection, and of a caller whose credentials nobody has seen yet no more is
//! taken than a small message.
//!
//! ```text
//!   bytes of a call ──length of the next message──► small? ──► the service
//!                                                  │ no
//!                                                  └──► credentials good? ──► memory for it? ──► the service
//! ```

use super::door::{OpenCall, Visit};
use crate::coordinator::client_memory::ClientMemory;
use crate::limits;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::Status;

type Request = http::Request<tonic::body::Body>;
type Response = http::Response<tonic::body::Body>;
/// Looks at a caller's credentials, once it is needed.
pub type Check = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), Status>> + Send>;

/// What a port does about calls before its service has them.
pub trait Gate: Clone + Send + Sync + 'static {
    /// The connection that a call came over.
    fn visit(&self, extensions: &http::Extensions) -> Option<Arc<Visit>>;
    /// Most bytes of a message of a call to this path.
    fn message_bytes_max(&self, path: &str) -> usize;
    /// Whether a caller may call.
    fn check(&self, headers: http::HeaderMap, extensions: &http::Extensions) -> Check;
    /// Memory for what a call sends.
    fn memory(&self) -> Option<ClientMemory>;
}

/// Memory that is held for the message that a call is sending, among the extensions of its request.
#[derive(Clone, Debug)]
pub struct MessageMemory(pub Arc<ClientMemory>);

impl MessageMemory {
    /// Gives it back: whoever has the message has memory of its own for it.
    pub fn give_back(&self) {
        // Less is always to be had.
        let _ = self.0.hold(0);
    }
}

/// The service behind a gate.
#[derive(Clone)]
pub struct Gated<S, G> {
    inner: S,
    gate: G,
}

impl<S, G> Gated<S, G> {
    /// Puts a service behind a gate.
    pub fn new(inner: S, gate: G) -> Self {
        Self { inner, gate }
    }
}

impl<S, G> tower::Service<Request> for Gated<S, G>
where
    S: tower::Service<Request, Response = Response>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    G: Gate,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let call = self.gate.visit(&head.extensions).map(|visit| visit.call());
        let memory = self.gate.memory().map(|memory| MessageMemory(Arc::new(memory)));
        let check = self.gate.check(head.headers.clone(), &head.extensions);
        let messages = Messages { bytes_max: self.gate.message_bytes_max(head.uri.path()), header: [0; PREFIX_BYTES], known: 0, left: 0 };
        if let Some(memory) = &memory {
            head.extensions.insert(memory.clone());
        }
        let body = GatedBody { inner: body, messages, memory, check: Some(check), checking: None, held: None };
        let answer = self.inner.call(http::Request::from_parts(head, tonic::body::Body::new(body)));
        Box::pin(async move { Ok(answer.await?.map(|body| tonic::body::Body::new(CountedBody { inner: body, _call: call }))) })
    }
}

/// Bytes before each message: a flag, and its length.
const PREFIX_BYTES: usize = 5;

/// Follows the lengths of the messages of a call.
struct Messages {
    bytes_max: usize,
    header: [u8; PREFIX_BYTES],
    /// Bytes of the header that are known.
    known: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Messages {
    /// The length of the last message that begins in these bytes, if one does.
    fn look(&mut self, mut bytes: &[u8]) -> Result<Option<usize>, Status> {
        let mut last = None;
        while !bytes.is_empty() {
            let passed = self.left.min(bytes.len());
            self.left -= passed;
            bytes = &bytes[passed..];
            while self.left == 0 && self.known < PREFIX_BYTES && !bytes.is_empty() {
                self.header[self.known] = bytes[0];
                self.known += 1;
                bytes = &bytes[1..];
            }
            if self.known == PREFIX_BYTES {
                let [_, length @ ..] = self.header;
                let length = u32::from_be_bytes(length) as usize;
                if length > self.bytes_max {
                    return Err(Status::resource_exhausted(format!(
                        "a message of {length} bytes is more than the {} that this call takes in one: send smaller batches",
                        self.bytes_max
                    )));
                }
                (self.known, self.left) = (0, length);
                last = Some(length);
            }
        }
        Ok(last)
    }
}

/// A call's bytes on their way to the service.
struct GatedBody {
    inner: tonic::body::Body,
    messages: Messages,
    memory: Option<MessageMemory>,
    /// Not yet asked for.
    check: Option<Check>,
    checking: Option<BoxFuture<'static, Result<(), Status>>>,
    /// What waits for the check, and the length of the message in it.
    held: Option<(Bytes, usize)>,
}

impl GatedBody {
    fn hold(&self, length: usize) -> Result<(), Status> {
        let Some(MessageMemory(memory)) = &self.memory else { return Ok(()) };
        let bytes = if length > limits::MESSAGE_FREE_BYTES { length as u64 } else { 0 };
        memory.hold(bytes).map_err(|error| Status::new(error.class().code(), error.message()))
    }
}

impl Body for GatedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        loop {
            if let Some(checking) = &mut this.checking {
                let checked = ready!(checking.as_mut().poll(context));
                this.checking = None;
                let held = this.held.take();
                let passed = checked.and_then(|()| match held {
                    Some((bytes, length)) => this.hold(length).map(|()| Frame::data(bytes)),
                    None => Err(Status::internal("a message was lost while its caller was checked")),
                });
                return Poll::Ready(Some(passed));
            }
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            let Some(bytes) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
            let begun = match this.messages.look(bytes) {
                Ok(begun) => begun,
                Err(status) => return Poll::Ready(Some(Err(status))),
            };
            let Some(length) = begun else { return Poll::Ready(Some(Ok(frame))) };
            if length > limits::STRANGERS_MESSAGE_BYTES_MAX
                && let Some(check) = this.check.take()
            {
                this.held = Some((bytes.clone(), length));
                this.checking = Some(check());
                continue;
            }
            return Poll::Ready(Some(this.hold(length).map(|()| frame)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.checking.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's bytes. The call goes on until they are taken, or given up.
struct CountedBody {
    inner: tonic::body::Body,
    _call: Option<OpenCall>,
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Messages {
        Messages { bytes_max: 1000, header: [0; PREFIX_BYTES], known: 0, left: 0 }
    }

    #[test]
    fn lengths_are_found_wherever_bytes_are_cut() {
        let lengths = [3usize, 0, 700, 1];
        let mut call = vec![];
        for length in lengths {
            call.push(0);
            call.extend((length as u32).to_be_bytes());
            call.extend(vec![7; length]);
        }
        for cut in 1..call.len() {
            let mut messages = messages();
            let found: Vec<_> = call.chunks(cut).filter_map(|bytes| messages.look(bytes).unwrap()).collect();
            assert!(found.iter().all(|length| lengths.contains(length)), "{found:?}");
            assert_eq!((found.last(), messages.known, messages.left), (Some(&1), 0, 0), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_length_alone() {
        let refused = messages().look(&[0, 0, 0, 4, 0]).unwrap_err();
        assert!(refused.message().contains("a message of 1024 bytes is more than the 1000"), "{refused}");
    }
}
