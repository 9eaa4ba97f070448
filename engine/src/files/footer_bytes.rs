//! The end of a Parquet file: its footer, and the indexes of pages before it.
//!
//! ```text
//!   PAR1  pages …  indexes of pages  footer  its length  PAR1
//!                  └──────────── the end ────────────────────┘
//! ```

use super::footer_check::TAIL_BYTES;
use super::{chunk_names, footer_check, page_index_check};
use crate::limits;
use bytes::Bytes;
use parquet::file::metadata::{ColumnChunkMetaData, FooterTail, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// What the end of a file gives.
pub enum End {
    /// What the footer says, in which nothing disagrees. Indexes of pages are not kept.
    Whole(Box<ParquetMetaData>),
    /// That many bytes of the file's end are wanted.
    Wants(u64),
}

/// Reads what the last bytes of a file of `size_bytes` say, and checks it against itself.
///
/// # Errors
/// When they are no end of a Parquet file that can be read, or contradict themselves; with what disagrees.
pub fn understood(end: &Bytes, size_bytes: u64) -> Result<End, String> {
    let length = length(end, size_bytes)?;
    let has = end.len() as u64;
    if length + TAIL_BYTES > has {
        return Ok(End::Wants(length + TAIL_BYTES));
    }
    let footer = end.slice((has - TAIL_BYTES - length) as usize..(has - TAIL_BYTES) as usize);
    let metadata = ParquetMetaDataReader::decode_metadata(&footer).map_err(|error| error.to_string())?;
    chunk_names::check(&footer, metadata.file_metadata().schema_descr())?;
    footer_check::check(&metadata, size_bytes)?;
    let Some(first) = first_index(&metadata) else { return Ok(End::Whole(Box::new(metadata))) };
    let wanted = size_bytes.saturating_sub(first);
    if wanted > limits::FOOTER_BYTES_MAX {
        let most = limits::FOOTER_BYTES_MAX;
        return Err(format!("its footer and indexes of pages begin {wanted} bytes before its end, more than the {most} that are read"));
    }
    if wanted > has {
        return Ok(End::Wants(wanted));
    }
    let mut reader = ParquetMetaDataReader::new_with_metadata(metadata).with_page_index_policy(PageIndexPolicy::Optional);
    reader.read_page_indexes_sized(end, size_bytes).map_err(|error| format!("the indexes of its pages: {error}"))?;
    let metadata = reader.finish().map_err(|error| error.to_string())?;
    page_index_check::check(&metadata)?;
    Ok(End::Whole(Box::new(metadata.into_builder().set_column_index(None).set_offset_index(None).build())))
}

/// The first byte of the indexes of pages, if there are any.
fn first_index(metadata: &ParquetMetaData) -> Option<u64> {
    let of = |column: &ColumnChunkMetaData| column.column_index_offset().into_iter().chain(column.offset_index_offset()).min();
    let offsets = metadata.row_groups().iter().flat_map(|group| group.columns()).filter_map(of);
    offsets.min().and_then(|offset| u64::try_from(offset).ok())
}

/// How many bytes the footer has.
fn length(end: &[u8], size_bytes: u64) -> Result<u64, String> {
    let tail = end.len().checked_sub(TAIL_BYTES as usize).map(|at| &end[at..]);
    let Some(tail) = tail else { return Err(format!("a file of {size_bytes} bytes is no Parquet file")) };
    let tail = FooterTail::try_from(tail).map_err(|error| error.to_string())?;
    if tail.is_encrypted_footer() {
        return Err("it is encrypted, and no key is known".to_string());
    }
    let length = tail.metadata_length() as u64;
    if length + TAIL_BYTES > size_bytes {
        return Err(format!("it ends with a footer of {length} bytes, and has {size_bytes} bytes in all"));
    }
    if length > limits::FOOTER_BYTES_MAX {
        return Err(format!("its footer has {length} bytes, more than the {} that are read", limits::FOOTER_BYTES_MAX));
    }
    Ok(length)
}

/// What the footer of a file on this machine says.
///
/// # Errors
/// As for [`understood`], and what the operating system says.
pub fn of_file(file: &mut File, size_bytes: u64) -> Result<ParquetMetaData, String> {
    let mut wanted = limits::FOOTER_FIRST_BYTES;
    loop {
        let has = wanted.min(size_bytes);
        match understood(&last_bytes(file, size_bytes, has)?, size_bytes)? {
            End::Whole(metadata) => return Ok(*metadata),
            End::Wants(more) if more > has && more <= size_bytes => wanted = more,
            End::Wants(more) => return Err(format!("its last {more} bytes are wanted, and it has {size_bytes}")),
        }
    }
}

fn last_bytes(file: &mut File, size_bytes: u64, count: u64) -> Result<Bytes, String> {
    let mut bytes = vec![];
    let read = file.seek(SeekFrom::Start(size_bytes - count)).and_then(|_| file.take(count).read_to_end(&mut bytes));
    match read.map_err(|error| error.to_string())? {
        read if read as u64 == count => Ok(bytes.into()),
        _ => Err("it became shorter while it was read".to_string()),
    }
}
