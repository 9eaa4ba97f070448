//! Which column a footer says that each chunk of values is of.
//!
//! A footer says it twice: by a chunk's place in its row group, and by the type and path in the chunk's own entry. The parquet crate goes by the
//! place and passes over the rest, so a footer whose entries are in another order than its schema would put values under the wrong name. This
//! reads those two fields, and passes over everything else.
//!
//! The bytes are Thrift's compact protocol: <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.

use crate::limits;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

/// Types of fields in the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

/// Checks the entries of a footer against its schema.
///
/// # Errors
/// With the first entry that disagrees, or when columns are encrypted.
pub fn check(footer: &[u8], schema: &SchemaDescriptor) -> Result<(), String> {
    let mut footer = Compact { bytes: footer };
    let mut group = 0;
    footer.fields(&mut |field, kind, footer| match (field, kind) {
        (4, LIST) => footer.items(&mut |footer| {
            let group_at = group;
            group += 1;
            check_group(footer, schema).map_err(|why| format!("row group {group_at}: {why}"))
        }),
        (8, STRUCT) => Err("its columns are encrypted, and no key is known".to_string()),
        _ => footer.skip(kind, 0),
    })
}

fn check_group(footer: &mut Compact, schema: &SchemaDescriptor) -> Result<(), String> {
    let mut leaves = schema.columns().iter();
    footer.fields(&mut |field, kind, footer| match (field, kind) {
        (1, LIST) => footer.items(&mut |footer| match leaves.next() {
            Some(leaf) => check_chunk(footer, leaf),
            None => Err("it has more columns than the schema".to_string()),
        }),
        _ => footer.skip(kind, 0),
    })
}

fn check_chunk(footer: &mut Compact, leaf: &ColumnDescriptor) -> Result<(), String> {
    footer.fields(&mut |field, kind, footer| match (field, kind) {
        (3, STRUCT) => footer.fields(&mut |field, kind, footer| match (field, kind) {
            (1, I32) => {
                let said = footer.signed()?;
                let known = leaf.physical_type();
                match said == known as i64 {
                    true => Ok(()),
                    false => Err(format!("column {} is {known} in the schema, and its values are of type {said}", leaf.path().string())),
                }
            }
            (3, LIST) => {
                let mut said = vec![];
                footer.items(&mut |footer| {
                    said.push(String::from_utf8_lossy(footer.binary()?).into_owned());
                    Ok(())
                })?;
                match said == leaf.path().parts() {
                    true => Ok(()),
                    false => Err(format!("the values of {} stand where the schema has {}", said.join("."), leaf.path().string())),
                }
            }
            _ => footer.skip(kind, 0),
        }),
        _ => footer.skip(kind, 0),
    })
}

/// What is left of the bytes.
struct Compact<'a> {
    bytes: &'a [u8],
}

/// What a visitor makes of a field: its number, its type, and the bytes from its value on.
type Visit<'v, 'a> = dyn FnMut(i64, u8, &mut Compact<'a>) -> Result<(), String> + 'v;

impl<'a> Compact<'a> {
    /// The fields of a struct.
    fn fields(&mut self, visit: &mut Visit<'_, 'a>) -> Result<(), String> {
        let mut id = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            id = match head >> 4 {
                0 => self.signed()?,
                step => id + i64::from(step),
            };
            visit(id, head & 0x0f, self)?;
        }
    }

    /// The items of a list.
    fn items(&mut self, visit: &mut dyn FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        let (_, count) = self.list()?;
        (0..count).try_for_each(|_| visit(self))
    }

    /// The type of a list's items, and how many they are.
    fn list(&mut self) -> Result<(u8, u64), String> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.unsigned()?,
            short => u64::from(short),
        };
        Ok((head & 0x0f, count))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        if depth > limits::FOOTER_DEPTH_MAX {
            return Err(format!("the footer is nested more than {} levels deep", limits::FOOTER_DEPTH_MAX));
        }
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.byte().map(drop),
            I16 | I32 | I64 => self.unsigned().map(drop),
            DOUBLE => self.take(8).map(drop),
            BINARY => self.binary().map(drop),
            LIST | SET => {
                let (of, count) = self.list()?;
                (0..count).try_for_each(|_| self.skip_item(of, depth + 1))
            }
            MAP => {
                let count = self.unsigned()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                (0..count).try_for_each(|_| self.skip_item(kinds >> 4, depth + 1).and_then(|()| self.skip_item(kinds & 0x0f, depth + 1)))
            }
            STRUCT => self.fields(&mut |_, kind, rest| rest.skip(kind, depth + 1)),
            other => Err(format!("the footer has a field of the unknown type {other}")),
        }
    }

    /// A truth value takes a byte here, and none as a field: what takes none could be there without end.
    fn skip_item(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        self.skip(if kind <= FALSE { BYTE } else { kind }, depth)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let count = usize::try_from(count).ok().filter(|count| *count <= self.bytes.len());
        let Some(count) = count else { return Err("the footer ends early".to_string()) };
        let (taken, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take(1).map(|taken| taken[0])
    }

    fn binary(&mut self) -> Result<&'a [u8], String> {
        let length = self.unsigned()?;
        self.take(length)
    }

    fn unsigned(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("the footer has a number of more than 64 bits".to_string())
    }

    fn signed(&mut self) -> Result<i64, String> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(kind: u8, bytes: &[u8]) -> Result<usize, String> {
        let mut compact = Compact { bytes };
        compact.skip(kind, 0).map(|()| compact.bytes.len())
    }

    #[test]
    fn what_is_passed_over_ends() {
        assert_eq!(skipped(LIST, &[0x21, 1, 2, 9]), Ok(1), "two truth values");
        assert_eq!(skipped(STRUCT, &[0x15, 2, 0x28, 1, b'x', 0, 7]), Ok(1));
        assert_eq!(skipped(MAP, &[1, 0x58, 3, 1, b'y', 7]), Ok(1));
        let endless = [0xf1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(skipped(LIST, &endless), Err("the footer ends early".to_string()));
        assert!(skipped(LIST, &[0x19; 200]).unwrap_err().contains("levels deep"));
        assert!(skipped(I64, &[0xff; 20]).unwrap_err().contains("64 bits"));
    }
}
