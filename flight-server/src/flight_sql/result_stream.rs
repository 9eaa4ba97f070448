//! Batches to Arrow messages: bounded in size, ended by an error when the query is cancelled.

use super::results::{BatchStream, Fetched, Results, Waiting};
use super::status;
use crate::limits;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use bowshot_engine::ResultCompression;
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
    let Waiting { schema, batches, compression } = fetched.result;
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

fn encode(
    schema: SchemaRef,
    compression: ResultCompression,
    batches: impl Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static,
) -> FlightDataStream {
    // Off unless the session asks for it: one of the drivers cannot read it.
    let compression = match compression {
        ResultCompression::None => None,
        ResultCompression::Lz4 => Some(CompressionType::LZ4_FRAME),
        ResultCompression::Zstd => Some(CompressionType::ZSTD),
    };
    let options = match IpcWriteOptions::default().try_with_compression(compression) {
        Ok(options) => options,
        Err(error) => return Box::pin(futures::stream::once(std::future::ready(Err(status::from_encoding(error))))),
    };
    let messages = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .with_options(options)
        .with_max_flight_data_size(limits::FLIGHT_DATA_BYTES_MAX)
        .build(batches)
        .map_err(Status::from);
    Box::pin(messages)
}
