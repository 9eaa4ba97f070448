//! Facts of a Parquet file from its footer, in the form that travels and is stored.

use crate::control::{ColumnFacts, FileFacts, RowGroupFacts};
use crate::error::decoded;
use crate::files::announced::{announced_schema, read_schema};
use crate::files::exact::exactly;
use crate::files::readable::readable;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow_flight::{IpcMessage, SchemaAsIpc};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion_proto::protobuf;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Byte offset of a row group's first page: the value that range-limited readers compare with their range.
pub fn row_group_offset(row_group: &RowGroupMetaData) -> u64 {
    row_group.columns().first().map_or(0, |column| column.dictionary_page_offset().unwrap_or(column.data_page_offset()).max(0) as u64)
}

/// Reads the facts out of a footer that has been [checked](crate::files::footer_bytes).
///
/// # Errors
/// When it has a column that cannot be read.
pub fn file_facts(metadata: &ParquetMetaData, size_bytes: u64, version: i64) -> Result<FileFacts, String> {
    let file = metadata.file_metadata();
    let schema = announced_schema(metadata)?;
    let columns = column_bounds(metadata, &schema)?;
    let row_groups: Vec<_> = metadata
        .row_groups()
        .iter()
        .map(|group| RowGroupFacts {
            offset: row_group_offset(group),
            rows: group.num_rows().max(0) as u64,
            bytes: group.compressed_size().max(0) as u64,
        })
        .collect();
    Ok(FileFacts {
        size_bytes,
        version,
        row_count: file.num_rows().max(0) as u64,
        row_groups,
        schema_ipc: encode_schema(&schema)?,
        footer_hash: footer_hash(metadata),
        checksum: None,
        columns,
    })
}

/// Bounds of the columns, in the types of `schema`. They come from what readers have, where every bound means something.
fn column_bounds(metadata: &ParquetMetaData, schema: &Schema) -> Result<Vec<ColumnFacts>, String> {
    let readable = readable(Arc::new(metadata.clone()), "").map_err(|error| error.to_string())?;
    let read: SchemaRef = Arc::new(read_schema(metadata)?);
    let statistics = DFParquetMetadata::statistics_from_parquet_metadata(&readable, &read).map_err(|error| error.to_string())?;
    let facts = schema.fields().iter().enumerate().map(|(index, field)| {
        let facts = statistics.column_statistics.get(index).map(column_facts).unwrap_or_default();
        facts_in_type(facts, read.field(index).data_type(), field.data_type())
    });
    Ok(facts.collect())
}

/// Facts of a column in another type. A bound that has no equal there is none.
fn facts_in_type(facts: ColumnFacts, from: &DataType, to: &DataType) -> ColumnFacts {
    if from == to {
        return facts;
    }
    let cast = |bound: Option<String>| {
        let bound = decode_scalar(bound.as_deref()?)?;
        let exact = exactly(&bound.to_array().ok()?, to).ok()?;
        encode_scalar(&ScalarValue::try_from_array(&exact, 0).ok()?)
    };
    ColumnFacts { min: cast(facts.min), max: cast(facts.max), null_count: facts.null_count }
}

/// The facts of a file in the columns of its table: by name, and NULL in every row where the file has none of that name.
pub fn facts_of_table(facts: &mut FileFacts, file: &Schema, table: &Schema) {
    let mut known: Vec<Option<ColumnFacts>> = std::mem::take(&mut facts.columns).into_iter().map(Some).collect();
    let rows = facts.row_count;
    let of_table = table.fields().iter().map(|field| match file.column_with_name(field.name()) {
        Some((index, stored)) => {
            let facts = known.get_mut(index).and_then(Option::take).unwrap_or_default();
            facts_in_type(facts, stored.data_type(), field.data_type())
        }
        None => ColumnFacts { null_count: Some(rows), ..ColumnFacts::default() },
    });
    facts.columns = of_table.collect();
}

/// A fingerprint of everything the footer says of the content. Two files with different fingerprints differ; equal ones may not.
fn footer_hash(metadata: &ParquetMetaData) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    format!("{:?}", metadata.row_groups()).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn column_facts(statistics: &ColumnStatistics) -> ColumnFacts {
    let bound = |value: &Precision<ScalarValue>| value.get_value().filter(|value| !value.is_null()).and_then(encode_scalar);
    ColumnFacts {
        min: bound(&statistics.min_value),
        max: bound(&statistics.max_value),
        null_count: statistics.null_count.get_value().map(|&count| count as u64),
    }
}

fn encode_scalar(value: &ScalarValue) -> Option<String> {
    let proto = protobuf::ScalarValue::try_from(value).ok()?;
    Some(BASE64.encode(proto.encode_to_vec()))
}

fn decode_scalar(text: &str) -> Option<ScalarValue> {
    let proto = protobuf::ScalarValue::decode(BASE64.decode(text).ok()?.as_slice()).ok()?;
    ScalarValue::try_from(&proto).ok()
}

/// An Arrow schema as base64 text.
pub fn encode_schema(schema: &Schema) -> Result<String, String> {
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &Default::default())).map_err(|error| error.to_string())?;
    Ok(BASE64.encode(&message.0))
}

/// The schema back from text.
pub fn decode_schema(text: &str) -> Result<Schema, String> {
    let bytes = BASE64.decode(text).map_err(|error| error.to_string())?;
    // Arrow panics over types that it does not know.
    decoded(|| Schema::try_from(IpcMessage(bytes.into())).map_err(|error| error.to_string()))
}

/// Least value, greatest value and nulls of a column over several files; unknown as soon as one file does not say.
type Bounds = (Option<ScalarValue>, Option<ScalarValue>, Option<u64>);

/// Table statistics as the sum of its files', all marked inexact: a bound that a writer truncated must never answer a query.
#[derive(Default)]
pub struct StatisticsSum {
    rows: u64,
    bytes: u64,
    columns: Vec<Option<Bounds>>,
}

/// [`StatisticsSum`] as it is stored.
#[derive(Serialize, Deserialize)]
struct EncodedSum {
    rows: u64,
    bytes: u64,
    columns: Vec<Option<ColumnFacts>>,
}

impl StatisticsSum {
    /// Adds a file.
    pub fn add(&mut self, file: &FileFacts) {
        self.rows += file.row_count;
        self.bytes += file.size_bytes;
        if file.row_count == 0 {
            return;
        }
        if self.columns.len() < file.columns.len() {
            self.columns.resize(file.columns.len(), None);
        }
        for (index, slot) in self.columns.iter_mut().enumerate() {
            let facts = file.columns.get(index);
            let min = facts.and_then(|facts| decode_scalar(facts.min.as_deref()?));
            let max = facts.and_then(|facts| decode_scalar(facts.max.as_deref()?));
            let nulls = facts.and_then(|facts| facts.null_count);
            *slot = Some(match slot.take() {
                None => (min, max, nulls),
                Some((low, high, sum)) => (
                    low.zip(min).map(|(a, b)| if b < a { b } else { a }),
                    high.zip(max).map(|(a, b)| if b > a { b } else { a }),
                    sum.zip(nulls).map(|(a, b)| a + b),
                ),
            });
        }
    }

    /// The sum as text, to be kept with the table.
    pub fn encode(&self) -> Result<String, String> {
        let facts = |(min, max, null_count): &Bounds| ColumnFacts {
            min: min.as_ref().and_then(encode_scalar),
            max: max.as_ref().and_then(encode_scalar),
            null_count: *null_count,
        };
        let columns = self.columns.iter().map(|slot| slot.as_ref().map(facts)).collect();
        serde_json::to_string(&EncodedSum { rows: self.rows, bytes: self.bytes, columns }).map_err(|error| error.to_string())
    }

    /// The sum of [`Self::encode`].
    pub fn decode(text: &str) -> Result<Self, String> {
        let sum: EncodedSum = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let bound = |text: Option<String>| text.as_deref().and_then(decode_scalar);
        let slot = |facts: ColumnFacts| (bound(facts.min), bound(facts.max), facts.null_count);
        Ok(Self { rows: sum.rows, bytes: sum.bytes, columns: sum.columns.into_iter().map(|facts| facts.map(slot)).collect() })
    }

    /// The sum, in the types of `schema`.
    pub fn finish(mut self, schema: &Schema) -> Statistics {
        self.columns.resize(schema.fields().len(), None);
        let inexact = |value: Option<ScalarValue>, field: &arrow::datatypes::Field| match value
            .and_then(|value| value.cast_to(field.data_type()).ok())
        {
            Some(value) => Precision::Inexact(value),
            None => Precision::Absent,
        };
        let mut statistics = Statistics::new_unknown(schema);
        statistics.num_rows = Precision::Inexact(self.rows as usize);
        // Parquet is about three times smaller than Arrow.
        statistics.total_byte_size = Precision::Inexact((self.bytes as usize).saturating_mul(3));
        for (index, slot) in self.columns.into_iter().enumerate() {
            let Some((min, max, nulls)) = slot else { continue };
            let field = schema.field(index);
            let column = &mut statistics.column_statistics[index];
            column.min_value = inexact(min, field);
            column.max_value = inexact(max, field);
            column.null_count = nulls.map_or(Precision::Absent, |count| Precision::Inexact(count as usize));
        }
        statistics
    }
}
