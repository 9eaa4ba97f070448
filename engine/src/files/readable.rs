//! A Parquet file's metadata as readers of ours have it.
//!
//! Arrow's reader cuts values of two types: INT96 timestamps beyond 1677 to 2262 wrap, and of an INTERVAL it takes days and forgets months.
//! Here these columns are fixed bytes to it, which they are in the file as well, and [`exact`](super::exact) makes values of the bytes.
//! Bounds that writers give for such bytes mean nothing; those of doubles leave out NaN, ([`float_bounds`](crate::operators::float_bounds)), and those of old writers are in
//! another order ([`old_bounds`](super::old_bounds)).

use super::categories::correct_hint;
use super::footer_check;
use super::old_bounds::without_old_bounds;
use crate::operators::float_bounds::{doubtless, has_floats};
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder, RowGroupMetaData};
use parquet::schema::types::{ColumnDescPtr, SchemaDescPtr, SchemaDescriptor, Type, TypePtr};
use std::sync::Arc;

/// Key of the file's name in the metadata of its schema: errors about values name it.
pub const FILE_NAME_KEY: &str = "bowshot.file";

/// Bytes of an INT96 and of an INTERVAL.
pub const RAW_BYTES: i32 = 12;

/// The metadata as files are read by it.
///
/// # Errors
/// When it contradicts itself: bytes on a disk change without a word, after CREATE and REFRESH have looked at them.
pub fn readable(metadata: Arc<ParquetMetaData>, name: &str) -> Result<Arc<ParquetMetaData>> {
    footer_check::check(&metadata, u64::MAX).map_err(|why| ParquetError::General(format!("{name}: {why}")))?;
    let metadata = without_old_bounds(metadata)?;
    let file = metadata.file_metadata();
    let raw = with_raw_leaves(file.schema_descr())?;
    let mut notes = file.key_value_metadata().cloned().unwrap_or_default();
    notes.retain(|note| note.key != FILE_NAME_KEY);
    correct_hint(raw.as_deref().unwrap_or(file.schema_descr()), &mut notes);
    notes.push(KeyValue::new(FILE_NAME_KEY.to_string(), name.to_string()));
    let (version, rows, writer) = (file.version(), file.num_rows(), file.created_by().map(str::to_string));
    let schema = raw.clone().unwrap_or_else(|| file.schema_descr_ptr());
    let file = FileMetaData::new(version, rows, writer, Some(notes), schema, file.column_orders().cloned());
    let mut old = Arc::unwrap_or_clone(metadata).into_builder();
    let (groups, columns, offsets) = (old.take_row_groups(), old.take_column_index(), old.take_offset_index());
    let groups = match &raw {
        Some(schema) => groups.into_iter().map(|group| raw_group(group, schema)).collect::<Result<Vec<_>>>()?,
        None => groups,
    };
    let columns = if raw.is_some() { None } else { columns };
    let builder = ParquetMetaDataBuilder::new(file).set_row_groups(groups).set_column_index(columns).set_offset_index(offsets);
    let metadata = Arc::new(builder.build());
    if has_floats(metadata.file_metadata().schema_descr()) { doubtless(metadata) } else { Ok(metadata) }
}

/// The schema with leaves that Arrow's reader would cut as bytes, and those that it takes for bytes as strings; `None` where there are none.
pub fn with_raw_leaves(schema: &SchemaDescriptor) -> Result<Option<SchemaDescPtr>> {
    if !schema.columns().iter().any(|leaf| is_raw(leaf.self_type()) || is_enum(leaf.self_type())) {
        return Ok(None);
    }
    Ok(Some(Arc::new(SchemaDescriptor::new(raw_type(&schema.root_schema_ptr())?))))
}

fn is_raw(leaf: &Type) -> bool {
    leaf.get_physical_type() == PhysicalType::INT96 || leaf.get_basic_info().converted_type() == ConvertedType::INTERVAL
}

fn is_enum(leaf: &Type) -> bool {
    let info = leaf.get_basic_info();
    leaf.get_physical_type() == PhysicalType::BYTE_ARRAY
        && (info.converted_type() == ConvertedType::ENUM || matches!(info.logical_type_ref(), Some(LogicalType::Enum)))
}

fn raw_type(stored: &TypePtr) -> Result<TypePtr> {
    let info = stored.get_basic_info();
    if let Type::GroupType { fields, .. } = stored.as_ref() {
        let fields = fields.iter().map(raw_type).collect::<Result<Vec<_>>>()?;
        return Ok(Arc::new(Type::GroupType { basic_info: info.clone(), fields }));
    }
    let builder = if is_raw(stored) {
        Type::primitive_type_builder(stored.name(), PhysicalType::FIXED_LEN_BYTE_ARRAY).with_length(RAW_BYTES)
    } else if is_enum(stored) {
        let builder = Type::primitive_type_builder(stored.name(), PhysicalType::BYTE_ARRAY);
        builder.with_logical_type(Some(LogicalType::String)).with_converted_type(ConvertedType::UTF8)
    } else {
        return Ok(stored.clone());
    };
    let id = info.has_id().then(|| info.id());
    Ok(Arc::new(builder.with_repetition(info.repetition()).with_id(id).build()?))
}

/// A row group in the raw schema.
fn raw_group(group: RowGroupMetaData, schema: &SchemaDescPtr) -> Result<RowGroupMetaData> {
    let columns = group.columns().iter().zip(schema.columns()).map(|(column, leaf)| raw_column(column, leaf));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let mut builder = RowGroupMetaData::builder(schema.clone())
        .set_num_rows(group.num_rows())
        .set_total_byte_size(group.total_byte_size())
        .set_sorting_columns(group.sorting_columns().cloned())
        .set_column_metadata(columns);
    if let Some(ordinal) = group.ordinal() {
        builder = builder.set_ordinal(ordinal);
    }
    if let Some(offset) = group.file_offset() {
        builder = builder.set_file_offset(offset);
    }
    builder.build()
}

/// A column chunk as one of another leaf type: the same pages, without bounds, indexes and filters that speak of the old one.
fn raw_column(column: &ColumnChunkMetaData, leaf: &ColumnDescPtr) -> Result<ColumnChunkMetaData> {
    if column.column_descr().self_type() == leaf.self_type() {
        return Ok(column.clone());
    }
    ColumnChunkMetaData::builder(leaf.clone())
        .set_encodings_mask(*column.encodings_mask())
        .set_num_values(column.num_values())
        .set_compression_codec(column.compression_codec())
        .set_total_compressed_size(column.compressed_size())
        .set_total_uncompressed_size(column.uncompressed_size())
        .set_data_page_offset(column.data_page_offset())
        .set_index_page_offset(column.index_page_offset())
        .set_dictionary_page_offset(column.dictionary_page_offset())
        .set_offset_index_offset(column.offset_index_offset())
        .set_offset_index_length(column.offset_index_length())
        .build()
}
