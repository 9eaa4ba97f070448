//! Rows that a client sends: looked at before they are decoded, decoded within the coordinator's memory, and never a panic.
//!
//! ```text
//!   message ──check──► lengths known ──take memory──► decode (a panic is an error) ──cut──► pieces of bounded size
//! ```

mod lz4_size;
mod message_check;
mod plain_size;

pub(super) use plain_size::plain_bytes_of;

use crate::limits;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use bowshot_engine::cpu_runtime::step_aside;
use bowshot_engine::error::panic_text;
use bowshot_engine::{ClientMemory, Error, ErrorClass};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use message_check::Checked;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use tonic::{Code, Status};

/// Rows on their way in.
pub(super) struct ClientRows {
    what: &'static str,
    /// Whether a schema without a batch is an error.
    rows_wanted: bool,
    messages: BoxStream<'static, Result<FlightData, Status>>,
    /// Takes the message that lies in the slot.
    decoder: FlightDataDecoder,
    slot: Arc<Mutex<Option<FlightData>>>,
    memory: ClientMemory,
    /// Bytes of each dictionary so far.
    dictionaries: HashMap<i64, u64>,
    /// Bytes of the last batch, of which pieces may still be on their way to a worker when the next one is decoded.
    last_bytes: u64,
    pieces: VecDeque<RecordBatch>,
    /// Whether they lie in one batch.
    shared: bool,
    /// Whether a batch came, be it one without rows.
    any: bool,
    ended: bool,
}

impl ClientRows {
    /// `what` is sent, for people. A message without a header carries no Arrow data: the first one may hold only the command.
    pub fn new(
        what: &'static str,
        rows_wanted: bool,
        data: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
        memory: ClientMemory,
    ) -> Self {
        let slot: Arc<Mutex<Option<FlightData>>> = Arc::default();
        let taken = Arc::clone(&slot);
        let decoder = FlightDataDecoder::new(stream::poll_fn(move |_| match taken.lock().take() {
            Some(message) => Poll::Ready(Some(Ok(message))),
            None => Poll::Pending,
        }));
        let messages =
            data.filter(|message| std::future::ready(message.as_ref().map_or(true, |message| !message.data_header.is_empty()))).boxed();
        Self {
            what,
            messages,
            decoder,
            slot,
            memory,
            dictionaries: HashMap::new(),
            last_bytes: 0,
            pieces: VecDeque::new(),
            shared: false,
            any: false,
            rows_wanted,
            ended: false,
        }
    }

    /// The schema before the rows; nothing when not even that was sent.
    ///
    /// # Errors
    /// When something else comes first, or it cannot be read.
    pub async fn schema(&mut self) -> Result<Option<SchemaRef>, Error> {
        match self.decoded().await? {
            Some(DecodedPayload::Schema(schema)) => Ok(Some(schema)),
            Some(_) => Err(self.invalid("they have no schema before them")),
            None => Ok(None),
        }
    }

    /// The next rows, after the schema. Nothing follows an error.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, Error>> {
        loop {
            if let Some(piece) = self.next_piece() {
                return Some(piece);
            }
            let cut = match self.decoded().await {
                Ok(Some(DecodedPayload::RecordBatch(batch))) => {
                    self.any = true;
                    self.cut(batch)
                }
                Ok(Some(DecodedPayload::None)) => continue,
                Ok(Some(DecodedPayload::Schema(_))) => Err(self.invalid("the schema changes among them")),
                // Drivers end the call so when a batch was too large for them to send.
                Ok(None) if !self.any && !self.ended && self.rows_wanted => {
                    Err(self.invalid("a schema was sent, but no batch of rows: send one without rows, or CREATE TABLE, for an empty table"))
                }
                Ok(None) => return None,
                Err(error) => Err(error),
            };
            match cut {
                Ok(pieces) => self.pieces = pieces,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }

    fn cut(&mut self, batch: RecordBatch) -> Result<VecDeque<RecordBatch>, Error> {
        let cut = || VecDeque::from(plain_size::pieces(batch, limits::INGEST_PIECE_BYTES));
        let cut = std::panic::catch_unwind(AssertUnwindSafe(cut)).map_err(|panic| self.invalid(panic_text(&*panic)))?;
        self.shared = cut.len() > 1;
        Ok(cut)
    }

    /// The next piece of the last batch. Copied only now, so that a large batch is not there twice.
    fn next_piece(&mut self) -> Option<Result<RecordBatch, Error>> {
        let piece = self.pieces.pop_front()?;
        if !self.shared {
            return Some(Ok(piece));
        }
        let copied = std::panic::catch_unwind(AssertUnwindSafe(|| plain_size::alone(piece)));
        Some(match copied {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(self.invalid(error)),
            Err(panic) => Err(self.invalid(panic_text(&*panic))),
        })
    }

    /// What the next message holds that is more than a part of a dictionary.
    async fn decoded(&mut self) -> Result<Option<DecodedPayload>, Error> {
        while !self.ended {
            let Some(message) = self.messages.next().await else { break };
            let message = message.map_err(|status| self.broken_off(&status))?;
            let checked = message_check::check(&message).map_err(|problem| self.invalid(problem))?;
            let bytes = self.take_memory(&checked, message.data_body.len() as u64)?;
            let decoded =
                if bytes > limits::ARROW_DECODED_ASIDE_BYTES { step_aside(|| self.decode(message)) } else { self.decode(message) };
            if let Some(payload) = decoded? {
                return Ok(Some(payload));
            }
        }
        Ok(None)
    }

    /// Takes memory for a message, for what becomes of it, and for what is still needed of those before. Returns the bytes of this one.
    fn take_memory(&mut self, checked: &Checked, body: u64) -> Result<u64, Error> {
        let bytes = match checked {
            Checked::Schema | Checked::Nothing => 0,
            Checked::Rows { bytes } => *bytes,
            // What is added to a dictionary is copied together with it.
            Checked::Dictionary { id, adds, bytes } => {
                let known = self.dictionaries.entry(*id).or_default();
                *known = if *adds { known.saturating_add(*bytes) } else { *bytes };
                *known
            }
        };
        let dictionaries = self.dictionaries.values().copied().fold(0, u64::saturating_add);
        let needed = [body, bytes, self.last_bytes, dictionaries].into_iter().fold(0, u64::saturating_add);
        self.memory.hold(needed)?;
        if matches!(checked, Checked::Rows { .. }) {
            self.last_bytes = bytes;
        }
        Ok(bytes.saturating_add(body))
    }

    fn decode(&mut self, message: FlightData) -> Result<Option<DecodedPayload>, Error> {
        *self.slot.lock() = Some(message);
        let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| self.decoder.next().now_or_never()));
        match decoded {
            // The decoder waits for another message: this one was a dictionary.
            Ok(None | Some(None)) => Ok(None),
            Ok(Some(Some(Ok(decoded)))) => Ok(Some(decoded.payload)),
            Ok(Some(Some(Err(error)))) => Err(self.invalid(said(error))),
            Err(panic) => Err(self.invalid(panic_text(&*panic))),
        }
    }

    fn invalid(&mut self, problem: impl std::fmt::Display) -> Error {
        self.ended = true;
        self.pieces.clear();
        Error::user(format!("the {} cannot be read: {problem}", self.what))
    }

    fn broken_off(&mut self, status: &Status) -> Error {
        self.ended = true;
        let class = match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => ErrorClass::Resource,
            Code::InvalidArgument => ErrorClass::User,
            _ => ErrorClass::Cancelled,
        };
        Error::new(class, format!("the {} ended early: {}", self.what, status.message()))
    }
}

/// What arrow says, without what it wraps around it.
fn said(error: FlightError) -> String {
    match error {
        FlightError::DecodeError(text) | FlightError::ProtocolError(text) => text,
        other => other.to_string(),
    }
}
