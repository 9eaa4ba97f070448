//! What statistics settle without a look at the rows.

use super::{Combine, Mask, MaskId, Program, ValueOp};
use crate::state::Partial;

impl Program<'_> {
    /// The answer, where it is counts and extremes of whole columns.
    pub(crate) fn settled(&self) -> Option<Partial> {
        let is_whole = self.keys.columns.is_empty() && self.float_sums.is_empty() && self.masks[self.filter.0] == Mask::Constant(true);
        if !is_whole || self.forced.looks_at_rows {
            return None;
        }
        let counts: Option<Vec<_>> = self.counts.iter().map(|mask| Some(vec![self.rows_of(*mask)?])).collect();
        let extreme = |measure: &super::Measure| {
            let ValueOp::Affine { column, base: 0, factor: 1 } = self.values[measure.value.0].op else { return None };
            let of_all = match &self.masks[measure.mask.0] {
                Mask::Constant(true) => true,
                Mask::Valid { column: known } => *known == column,
                _ => false,
            };
            let chunk = &self.chunks[column];
            match measure.combine {
                Combine::Min if of_all && chunk.is_tight() => Some(vec![0]),
                Combine::Max if of_all && chunk.is_tight() => Some(vec![i128::from(chunk.lane_max())]),
                _ => None,
            }
        };
        let measures: Option<Vec<_>> = self.measures.iter().map(extreme).collect();
        Some(Partial { combined: None, counts: counts?, measures: measures?, float_sums: vec![] })
    }

    /// Rows where the mask is true, if that is known.
    fn rows_of(&self, mask: MaskId) -> Option<u64> {
        match &self.masks[mask.0] {
            Mask::Constant(true) => Some(self.row_count as u64),
            Mask::Constant(false) => Some(0),
            Mask::Valid { column } => Some((self.row_count - self.chunks[*column].null_count()) as u64),
            _ => None,
        }
    }
}
