//! Group keys: the lanes of the key columns as one mixed-radix number.

use std::sync::Arc;

use crate::chunk::Chunk;
use crate::error::Decline;

/// One key column's share of the combined code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyColumn {
    pub column: usize,
    /// Codes of this column: its lanes, and one more for NULL where there are NULLs.
    pub radix: u128,
    /// The code of NULL, where there are NULLs: the last one.
    pub null_code: Option<u64>,
    /// Product of the radices before this column.
    pub stride: u128,
}

/// The combined group code: `sum(code * stride)`, below `slots`.
#[derive(Debug, Clone)]
pub(crate) struct GroupKeys {
    pub columns: Vec<KeyColumn>,
    /// Possible combined codes; 1 without keys.
    pub slots: u128,
}

impl GroupKeys {
    pub(crate) fn new(keys: &[usize], chunks: &[Arc<Chunk>]) -> Result<Self, Decline> {
        let mut columns = Vec::with_capacity(keys.len());
        let mut slots = 1u128;
        for column in keys {
            let chunk = &chunks[*column];
            let lanes = u128::from(chunk.lane_max()) + 1;
            let null_code = if chunk.null_count() > 0 { Some(chunk.lane_max().saturating_add(1)) } else { None };
            if null_code == Some(u64::MAX) {
                return Err(Decline::new("a nullable group key over the whole range of 64 bits"));
            }
            let radix = lanes + u128::from(null_code.is_some());
            columns.push(KeyColumn { column: *column, radix, null_code, stride: slots });
            slots = slots.checked_mul(radix).ok_or_else(|| Decline::new("group keys wider than 128 bits"))?;
        }
        Ok(Self { columns, slots })
    }
}

impl KeyColumn {
    /// This column's code within a combined code.
    pub(crate) fn code_of(&self, combined: u128) -> u64 {
        // Divisions of 128 bits cost more than all else that is done for a group.
        match (u64::try_from(combined), u64::try_from(self.stride), u64::try_from(self.radix)) {
            (Ok(combined), Ok(1), Ok(radix)) if combined < radix => combined,
            (Ok(combined), Ok(stride), Ok(radix)) => combined / stride % radix,
            _ => (combined / self.stride % self.radix) as u64,
        }
    }
}
