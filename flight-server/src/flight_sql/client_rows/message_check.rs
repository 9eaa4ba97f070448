//! A look at an Arrow message of a client before anything of it is decoded.
//!
//! The decoder believes what a message says of itself: it allocates the length that a packed buffer announces, and panics where a buffer lies
//! beyond the body. What is checked here says how many bytes decoding takes, and that they are there; the decoder's own checks, of types, offsets
//! and text, come after.

use super::lz4_size;
use crate::limits;
use arrow::ipc::{self, CompressionType, MessageHeader};
use arrow_flight::FlightData;

/// Stands for the length of a buffer that is not packed although others of its message are.
const NOT_PACKED: i64 = -1;
/// Bytes of that length before a buffer.
const LENGTH_BYTES: usize = size_of::<i64>();

/// What a message is, as far as it was looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked {
    Schema,
    /// Values of a dictionary, and the bytes that they take when they are decoded.
    Dictionary {
        id: i64,
        adds: bool,
        bytes: u64,
    },
    /// Rows, and the bytes that they take when they are decoded.
    Rows {
        bytes: u64,
    },
    Nothing,
}

/// Checks a message.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(data: &FlightData) -> Result<Checked, String> {
    let header = &data.data_header;
    if header.len() > limits::ARROW_HEADER_BYTES_MAX {
        return Err(format!("a message has a header of {} bytes, more than {}", header.len(), limits::ARROW_HEADER_BYTES_MAX));
    }
    let message = ipc::root_as_message(header).map_err(|error| format!("a message has no valid header: {error}"))?;
    match message.header_type() {
        MessageHeader::NONE => Ok(Checked::Nothing),
        MessageHeader::Schema => {
            let schema = message.header_as_schema().ok_or("a schema has no header")?;
            check_schema(schema).map(|()| Checked::Schema)
        }
        MessageHeader::DictionaryBatch => {
            let batch = message.header_as_dictionary_batch().ok_or("a dictionary has no header")?;
            let values = batch.data().ok_or("a dictionary has no values")?;
            Ok(Checked::Dictionary { id: batch.id(), adds: batch.isDelta(), bytes: check_batch(values, &data.data_body)? })
        }
        MessageHeader::RecordBatch => {
            let batch = message.header_as_record_batch().ok_or("a batch of rows has no header")?;
            Ok(Checked::Rows { bytes: check_batch(batch, &data.data_body)? })
        }
        other => Err(format!("a message is of a kind that does not belong here ({})", other.0)),
    }
}

/// Bounds what a schema makes of itself: its tables may refer to one another, so that a small one is read as a large tree.
fn check_schema(schema: ipc::Schema) -> Result<(), String> {
    let mut seen = Seen::default();
    seen.metadata(schema.custom_metadata())?;
    for field in schema.fields().ok_or("a schema has no list of columns")? {
        seen.field(field, 1)?;
    }
    Ok(())
}

#[derive(Default)]
struct Seen {
    columns: usize,
    name_bytes: usize,
}

impl Seen {
    fn field(&mut self, field: ipc::Field, depth: usize) -> Result<(), String> {
        self.columns += 1;
        if self.columns > limits::ARROW_COLUMNS_MAX {
            return Err(format!("there are more than {} columns, those inside of others included", limits::ARROW_COLUMNS_MAX));
        }
        if depth > limits::ARROW_DEPTH_MAX {
            return Err(format!("types are nested more than {} deep", limits::ARROW_DEPTH_MAX));
        }
        self.text(field.name())?;
        self.metadata(field.custom_metadata())?;
        field.children().into_iter().flatten().try_for_each(|child| self.field(child, depth + 1))
    }

    fn metadata<'a>(&mut self, entries: Option<impl IntoIterator<Item = ipc::KeyValue<'a>>>) -> Result<(), String> {
        entries.into_iter().flatten().try_for_each(|entry| self.text(entry.key()).and_then(|()| self.text(entry.value())))
    }

    fn text(&mut self, text: Option<&str>) -> Result<(), String> {
        self.name_bytes += text.map_or(0, str::len);
        match self.name_bytes > limits::ARROW_NAMES_BYTES_MAX {
            true => Err(format!("names and metadata of columns take more than {} bytes", limits::ARROW_NAMES_BYTES_MAX)),
            false => Ok(()),
        }
    }
}

/// Checks the places of a batch's buffers and the lengths of its columns. Returns the bytes that it takes when it is decoded.
fn check_batch(batch: ipc::RecordBatch, body: &[u8]) -> Result<u64, String> {
    let codec = batch.compression().map(|compression| compression.codec());
    let mut bytes = 0u64;
    for (number, buffer) in batch.buffers().ok_or("a batch has no list of buffers")?.iter().enumerate() {
        let content = place(buffer, body).ok_or_else(|| {
            format!("buffer {number} is said to take {} bytes from {} on, in a body of {}", buffer.length(), buffer.offset(), body.len())
        })?;
        let decoded = match codec {
            Some(codec) if !content.is_empty() => unpacked(codec, content).map_err(|why| format!("buffer {number} {why}"))?,
            _ => content.len() as u64,
        };
        // Buffers may share their place: each counts, since each is unpacked, or copied to where it is aligned.
        bytes = bytes.saturating_add(decoded);
    }
    let values_max = bytes.saturating_mul(8).saturating_add(limits::ARROW_WEIGHTLESS_ROWS_MAX);
    let fits = |length: i64| u64::try_from(length).is_ok_and(|length| length <= values_max);
    if !fits(batch.length()) {
        return Err(format!(
            "a batch is said to have {} rows, of {bytes} bytes; without values at most {} are taken at once",
            batch.length(),
            limits::ARROW_WEIGHTLESS_ROWS_MAX
        ));
    }
    for (number, node) in batch.nodes().ok_or("a batch has no list of columns")?.iter().enumerate() {
        if !fits(node.length()) || node.null_count() < 0 || node.null_count() > node.length() {
            return Err(format!(
                "column {number} is said to have {} values, {} of them NULL, in a batch of {bytes} bytes; without bytes at most {} are taken at once",
                node.length(),
                node.null_count(),
                limits::ARROW_WEIGHTLESS_ROWS_MAX
            ));
        }
    }
    Ok(bytes)
}

fn place<'a>(buffer: &ipc::Buffer, body: &'a [u8]) -> Option<&'a [u8]> {
    let (offset, length) = (usize::try_from(buffer.offset()).ok()?, usize::try_from(buffer.length()).ok()?);
    body.get(offset..offset.checked_add(length)?)
}

/// The bytes that come out of a packed buffer. Zstandard's decoder stops at the length that is announced, LZ4's does not.
fn unpacked(codec: CompressionType, content: &[u8]) -> Result<u64, String> {
    let (length, packed) = content.split_at_checked(LENGTH_BYTES).ok_or("is too short for the length before it")?;
    let announced = i64::from_le_bytes(length.try_into().map_err(|_| "is too short for the length before it")?);
    if announced == NOT_PACKED {
        return Ok(packed.len() as u64);
    }
    let bytes = u64::try_from(announced).map_err(|_| format!("is said to hold {announced} bytes"))?;
    if codec == CompressionType::LZ4_FRAME && bytes > 0 && lz4_size::unpacked(packed) != Some(bytes) {
        return Err(format!("is said to hold {bytes} bytes, which its LZ4 frame does not"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, DictionaryArray, Int64Array, ListArray, RecordBatch, StringArray, StringViewArray};
    use arrow::datatypes::{Int32Type, Int64Type};
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use arrow_flight::error::FlightError;
    use futures::{StreamExt, stream};
    use std::sync::Arc;

    fn batch() -> RecordBatch {
        let words = ["a", "b", "a"].into_iter().collect::<DictionaryArray<Int32Type>>();
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
        let columns: [(&str, ArrayRef); 5] = [
            ("i", Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MIN)]))),
            ("s", Arc::new(StringArray::from(vec![Some("x"), None, Some("é")]))),
            ("v", Arc::new(StringViewArray::from(vec![Some("longer than twelve bytes"), None, Some("")]))),
            ("d", Arc::new(words)),
            ("l", Arc::new(lists)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    /// The messages of a batch: schema, dictionary, rows.
    fn messages(codec: Option<CompressionType>) -> Vec<FlightData> {
        let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
        let batches = stream::iter([Ok::<_, FlightError>(batch())]);
        let encoded = FlightDataEncoderBuilder::new().with_options(options).build(batches).collect::<Vec<_>>();
        futures::executor::block_on(encoded).into_iter().map(Result::unwrap).collect()
    }

    /// Messages whose header or body is nearly right are refused, or say how many bytes they take. What the decoder makes of them is caught.
    #[test]
    fn whatever_a_client_sends_is_measured_or_refused() {
        for codec in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
            for message in messages(codec) {
                let (header, body) = (message.data_header.to_vec(), message.data_body.to_vec());
                bowshot_mutations::near_bytes(std::slice::from_ref(&header), |case| {
                    drop(check(&FlightData { data_header: case.to_vec().into(), ..message.clone() }));
                });
                bowshot_mutations::near_bytes(&[body], |case| {
                    drop(check(&FlightData { data_body: case.to_vec().into(), ..message.clone() }));
                });
            }
        }
    }

    #[test]
    fn an_lz4_frame_that_is_nearly_right_is_measured_or_refused() {
        // One letter, repeated: a literal, a match of nineteen bytes, and last literals.
        let frame =
            vec![4, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82, 11, 0, 0, 0, 0x1f, b'a', 1, 0, 0, 0x50, b'a', b'a', b'a', b'a', b'a', 0, 0, 0, 0];
        assert_eq!(lz4_size::unpacked(&frame), Some(25));
        bowshot_mutations::near_bytes(&[frame], |case| {
            let _ = lz4_size::unpacked(case);
        });
    }
}
