//! Panics at the entrances of a process: a defect of ours is an error of the call that met it, with an id that the log has too, and of nothing else.
//!
//! Without it a call would be cut off without a word, or end early as if all had been said.

use crate::error::Error;
use crate::error::panic_text;
use crate::limits;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tonic::Status;
use uuid::Uuid;

/// What the caller hears of a panic; the log has it with the same id.
pub fn told(what: &str, id: Uuid, panic: &(dyn Any + Send)) -> Error {
    let text = panic_text(panic);
    tracing::error!(query = %id, what, text, "a panic was caught");
    Error::bug(format!("{what} met a defect of this program: {text}")).with_query(id)
}

/// The future, whose panic is an error of `what` with this id.
pub async fn caught<T>(what: &str, id: Uuid, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(told(what, id, &*panic)),
    }
}

/// The status of a call that panicked.
pub fn status(what: &str, panic: &(dyn Any + Send)) -> Status {
    let error = told(what, Uuid::now_v7(), panic);
    Status::new(error.class().code(), error.message())
}

/// An answer, in which a panic is a status: of the call's first step, and of all that follow.
pub fn answer<T: Send + 'static>(
    what: &'static str,
    call: impl FnOnce() -> BoxFuture<'static, Result<T, Status>>,
) -> BoxFuture<'static, Result<T, Status>> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => {
            AssertUnwindSafe(answer).catch_unwind().map(move |result| result.unwrap_or_else(|panic| Err(status(what, &*panic)))).boxed()
        }
        Err(panic) => {
            let status = status(what, &*panic);
            std::future::ready(Err(status)).boxed()
        }
    }
}

/// Messages, which end with a status where one of them panics: what is behind is in an unknown state.
pub fn messages<T: Send + 'static>(
    what: &'static str,
    messages: BoxStream<'static, Result<T, Status>>,
) -> BoxStream<'static, Result<T, Status>> {
    let mut ended = false;
    let caught = AssertUnwindSafe(messages).catch_unwind().map(move |item| item.unwrap_or_else(|panic| Err(status(what, &*panic))));
    let caught = caught.take_while(move |item| {
        let goes_on = !ended;
        ended = item.is_err();
        std::future::ready(goes_on)
    });
    caught.boxed()
}

/// Runs what has to go on for as long as the process does: after a panic it begins anew.
pub async fn again_after_panics<F: Future>(what: &'static str, begin: impl Fn() -> F) -> F::Output {
    loop {
        match AssertUnwindSafe(begin()).catch_unwind().await {
            Ok(ended) => return ended,
            Err(panic) => drop(told(what, Uuid::now_v7(), &*panic)),
        }
        tokio::time::sleep(limits::PANIC_WAIT).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_panic_is_a_status_of_its_call() {
        let early: Result<(), _> = answer("a call", || panic!("before it began")).await;
        let late: Result<(), _> = answer("a call", || async { panic!("under way") }.boxed()).await;
        for (answer, text) in [(early, "before it began"), (late, "under way")] {
            let status = answer.unwrap_err();
            assert_eq!(status.code(), tonic::Code::Internal);
            assert!(status.message().contains(text) && status.message().contains("(query "), "{status}");
        }
        let stream = futures::stream::iter(0..4).map(|number| if number == 2 { panic!("in a message") } else { Ok(number) }).boxed();
        let items: Vec<_> = messages("a stream", stream).collect().await;
        assert_eq!(items.len(), 3);
        assert!(items[2].as_ref().unwrap_err().message().contains("in a message"));
    }

    #[tokio::test]
    async fn what_has_to_go_on_does() {
        let runs = AtomicUsize::new(0);
        let last = again_after_panics("a task", || async {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            assert!(run >= 2, "not yet");
            run
        });
        assert_eq!(last.await, 2);
    }
}
