//! An inventory as it travels and is kept: what placement compares as it is, the rest of the footers' facts packed.
//!
//! ```text
//!   a file     volume, path, size, version, checksum     some 100 bytes, looked at by every query
//!   a node     [ facts of all its files ]                packed; unpacked when a table is created or refreshed
//! ```
//!
//! A footer has the bounds of every column. Sent and kept as they are, those of a thousand nodes with a thousand files each would be
//! gigabytes, all at once when the coordinator starts again.

use super::VolumeFile;
use crate::error::{Error, Result};
use crate::limits;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};

/// Facts of the files of a node are much alike: the fastest level takes nine tenths of them away.
const PACKING_LEVEL: i32 = 1;

/// All files of a node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PackedInventory {
    /// What identifies each file.
    pub files: Vec<ListedFile>,
    /// The same files in the same order as [`VolumeFile`]s: a line of JSON each, compressed, base64.
    pub facts: String,
}

/// What identifies a file and its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// Volume name.
    pub volume: String,
    /// Path below the volume, `/`-separated.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Modification time in nanoseconds.
    pub version: i64,
    /// SHA-256 of the content, when it was asked for.
    pub checksum: Option<String>,
}

impl PackedInventory {
    /// Packs the files of a node.
    pub fn pack(files: &[VolumeFile]) -> Result<Self> {
        let listed = |file: &VolumeFile| ListedFile {
            volume: file.volume.clone(),
            path: file.path.clone(),
            size_bytes: file.facts.size_bytes,
            version: file.facts.version,
            checksum: file.facts.checksum.clone(),
        };
        let mut packing = zstd::Encoder::new(vec![], PACKING_LEVEL).map_err(|error| damaged(&error))?;
        for file in files {
            serde_json::to_writer(&mut packing, file).map_err(|error| damaged(&error))?;
            packing.write_all(b"\n").map_err(|error| damaged(&error))?;
        }
        let facts = packing.finish().map_err(|error| damaged(&error))?;
        Ok(Self { files: files.iter().map(listed).collect(), facts: BASE64.encode(facts) })
    }

    /// The facts, still compressed.
    pub fn facts(&self) -> Result<Vec<u8>> {
        BASE64.decode(&self.facts).map_err(|error| damaged(&error))
    }
}

/// Those files of [`PackedInventory::facts`] whose place in the list is asked for.
pub fn unpack(facts: &[u8], asked: impl Fn(usize) -> bool) -> Result<Vec<VolumeFile>> {
    let unpacking = zstd::Decoder::with_buffer(facts).map_err(|error| damaged(&error))?;
    let mut files = vec![];
    let (mut unpacking, mut line) = (BufReader::new(unpacking), vec![]);
    for at in 0.. {
        line.clear();
        // A few kilobytes of a damaged or hostile inventory may unpack to any size.
        let read = (&mut unpacking).take(limits::FILE_FACTS_BYTES_MAX + 1).read_until(b'\n', &mut line).map_err(|error| damaged(&error))?;
        if read == 0 || at >= limits::NODE_FILES_MAX {
            break;
        }
        if read as u64 > limits::FILE_FACTS_BYTES_MAX {
            return Err(damaged(&format!("those of file {at} take more than {} bytes", limits::FILE_FACTS_BYTES_MAX)));
        }
        if asked(at) {
            files.push(serde_json::from_slice(&line).map_err(|error| damaged(&error))?);
        }
    }
    Ok(files)
}

fn damaged(error: &dyn Display) -> Error {
    Error::bug(format!("packed facts of files: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_unpacks_without_end_is_refused() {
        let mut packing = zstd::Encoder::new(vec![], PACKING_LEVEL).unwrap();
        let block = vec![b' '; 1 << 20];
        for _ in 0..=limits::FILE_FACTS_BYTES_MAX >> 20 {
            packing.write_all(&block).unwrap();
        }
        let error = unpack(&packing.finish().unwrap(), |_| true).unwrap_err();
        assert!(error.message().contains("take more than"), "{error}");
    }
}
