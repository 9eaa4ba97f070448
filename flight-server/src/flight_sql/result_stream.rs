//! Batches to Arrow messages: bounded in size, ended by an error when the query is cancelled.

use super::results::{BatchStream, Fetched, Results, Waiting};
use super::status;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::error::FlightError;
use bowshot_engine::{Error, ErrorClass, ResultCompression, result_messages};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::Status;
use uuid::Uuid;

/// Messages of one result.
pub type FlightDataStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// A whole result that is at hand: a metadata answer.
pub fn of_batch(batch: RecordBatch) -> FlightDataStream {
    let schema = batch.schema();
    encode(schema, ResultCompression::None, futures::stream::once(async move { Ok(batch) }))
}

/// The messages of a query's result. The query ends when the stream is dropped or the query is cancelled.
pub fn of_query(query_id: Uuid, fetched: Fetched, results: Arc<Results>) -> FlightDataStream {
    let Waiting { schema, batches, compression, .. } = fetched.result;
    let state = Streaming { batches, cancelled: fetched.cancelled, query_id, results };
    let batches = futures::stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        match state.next().await? {
            Ok(batch) => Some((Ok(batch), Some(state))),
            // Nothing may follow an error: dropping the state ends the query.
            Err(error) => Some((Err(FlightError::Tonic(Box::new(error))), None)),
        }
    });
    encode(schema, compression, batches)
}

struct Streaming {
    batches: BatchStream,
    cancelled: watch::Receiver<bool>,
    query_id: Uuid,
    results: Arc<Results>,
}

impl Streaming {
    async fn next(&mut self) -> Option<Result<RecordBatch, Status>> {
        tokio::select! {
            biased;
            () = is_true(&mut self.cancelled) => {
                Some(Err(Status::cancelled(format!("the query was cancelled (query {})", self.query_id))))
            }
            batch = self.batches.next() => batch.map(|batch| batch.map_err(status::from_engine)),
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.results.finish(self.query_id);
    }
}

/// Waits until the value is true; for ever when its sender is gone, since nobody can cancel then.
async fn is_true(value: &mut watch::Receiver<bool>) {
    if value.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The messages of a part of a result, passed on from its worker. They end when the query is cancelled.
pub fn of_part(
    query_id: Uuid,
    messages: impl Stream<Item = Result<FlightData, Error>> + Send + 'static,
    cancelled: watch::Receiver<bool>,
    results: Arc<Results>,
) -> FlightDataStream {
    let state = PassingOn { messages: messages.boxed(), cancelled, query_id, results };
    Box::pin(futures::stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        let message = state.next().await?;
        let more = message.is_ok().then_some(state);
        Some((message, more))
    }))
}

struct PassingOn {
    messages: BoxStream<'static, Result<FlightData, Error>>,
    cancelled: watch::Receiver<bool>,
    query_id: Uuid,
    results: Arc<Results>,
}

impl PassingOn {
    async fn next(&mut self) -> Option<Result<FlightData, Status>> {
        let message = tokio::select! {
            biased;
            () = is_true(&mut self.cancelled) => {
                return Some(Err(Status::cancelled(format!("the query was cancelled (query {})", self.query_id))));
            }
            message = self.messages.next() => message?,
        };
        match message {
            Ok(message) => Some(Ok(message)),
            Err(error) => {
                let error = match error.class() {
                    ErrorClass::Retry => self.results.why_ended(self.query_id).await.unwrap_or(error),
                    _ => error,
                };
                Some(Err(status::from_engine(error.with_query(self.query_id))))
            }
        }
    }
}

fn encode(
    schema: SchemaRef,
    compression: ResultCompression,
    batches: impl Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static,
) -> FlightDataStream {
    match result_messages::encode(schema, compression, batches) {
        Ok(messages) => Box::pin(messages.map_err(Status::from)),
        Err(error) => Box::pin(futures::stream::once(std::future::ready(Err(status::from_encoding(error))))),
    }
}
