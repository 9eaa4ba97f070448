//! Results as the Arrow messages that clients read, made by the coordinator or by the worker that holds the rows: the same either way.

use crate::config::ResultCompression;
use crate::limits;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, SchemaAsIpc};
use futures::{Stream, StreamExt};

/// The schema, then the batches in messages of bounded size.
///
/// # Errors
/// When the compression cannot be had; afterwards those of the batches, and of what cannot be encoded.
pub fn encode<S>(
    schema: SchemaRef,
    compression: ResultCompression,
    batches: S,
) -> Result<impl Stream<Item = Result<FlightData, FlightError>> + Send + use<S>, ArrowError>
where
    S: Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static,
{
    // Off unless the session asks for it: one of the drivers cannot read it.
    let compression = match compression {
        ResultCompression::None => None,
        ResultCompression::Lz4 => Some(CompressionType::LZ4_FRAME),
        ResultCompression::Zstd => Some(CompressionType::ZSTD),
    };
    let options = IpcWriteOptions::default().try_with_compression(compression)?;
    Ok(FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .with_options(options)
        .with_max_flight_data_size(limits::RESULT_MESSAGE_BYTES_MAX)
        .build(batches)
        .map(|message| message.and_then(as_large_as_a_message)))
}

/// Rows are not divided: one may be larger than what can be sent.
fn as_large_as_a_message(message: FlightData) -> Result<FlightData, FlightError> {
    let (bytes, bytes_max) = (message.data_body.len(), limits::RESULT_ROW_BYTES_MAX);
    if bytes <= bytes_max {
        return Ok(message);
    }
    let text = format!(
        "a row of the result takes {bytes} bytes, and a message carries {bytes_max}: ask for parts of its values, with substr or slices of lists"
    );
    Err(FlightError::Tonic(Box::new(tonic::Status::resource_exhausted(text))))
}

/// The first message alone: the schema.
pub fn schema_message(schema: &SchemaRef) -> FlightData {
    SchemaAsIpc::new(schema, &IpcWriteOptions::default()).into()
}
