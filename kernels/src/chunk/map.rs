//! Chunks of computed columns: a function of a column is evaluated once for each distinct lane where lanes are few, and its answers
//! are looked up row by row.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBufferBuilder, DictionaryArray, Int32Array, StringArray};
use arrow::datatypes::Int32Type;

use super::{Chunk, ChunkParts, Lanes, Words, with_lanes};
use crate::error::KernelError;
use crate::limits::DOMAIN_LANES_MAX;
use crate::state::array_of;

impl Chunk {
    /// The values of some rows: strings as a dictionary, timestamps as `Int64Array`, others in the Arrow type of the column.
    ///
    /// # Errors
    /// [`KernelError::Internal`] where rows are out of bounds or a value does not fit the column's own type, which encoding rules out.
    pub fn to_array(&self, rows: Range<usize>) -> Result<ArrayRef, KernelError> {
        if rows.start > rows.end || rows.end > self.row_count {
            return Err(KernelError::internal(format!("rows {rows:?} of a chunk of {}", self.row_count)));
        }
        let start = rows.start;
        if let Some(dictionary) = &self.dictionary {
            let keys: Int32Array = with_lanes!(self.lanes(), lanes => {
                let keys = lanes[rows].iter().enumerate();
                keys.map(|(row, lane)| self.is_valid(start + row).then_some(*lane as i32)).collect()
            });
            let array = DictionaryArray::<Int32Type>::try_new(keys, Arc::new(dictionary.clone()));
            return Ok(Arc::new(array.map_err(|error| KernelError::internal(error.to_string()))?));
        }
        with_lanes!(self.lanes(), lanes => {
            let values = lanes[rows].iter().enumerate();
            array_of(self.column_type, values.map(|(row, lane)| self.is_valid(start + row).then(|| self.value_of(*lane))))
        })
    }

    /// The value of every lane from 0 on, and NULL after them if some row is NULL, where that is little beside the rows.
    ///
    /// # Errors
    /// As [`Self::to_array`].
    pub fn domain(&self) -> Result<Option<ArrayRef>, KernelError> {
        let nulls = usize::from(self.null_count > 0);
        if let Some(dictionary) = &self.dictionary {
            // Where there is no string at all, lane 0 stands for NULL alone.
            let strings = dictionary.iter().chain(dictionary.is_empty().then_some(None)).chain(std::iter::repeat_n(None, nulls));
            return Ok((dictionary.len() <= self.row_count).then(|| Arc::new(strings.collect::<StringArray>()) as ArrayRef));
        }
        if self.lane_max >= DOMAIN_LANES_MAX.min(self.row_count as u64) {
            return Ok(None);
        }
        let lanes = (0..=self.lane_max).map(|lane| Some(self.value_of(lane)));
        array_of(self.column_type, lanes.chain(std::iter::repeat_n(None, nulls))).map(Some)
    }

    /// The chunk of a function of this column, whose answers for [`Self::domain`] are in `image`.
    ///
    /// # Errors
    /// [`KernelError::Internal`] where `image` has not one row for each value of the domain.
    pub fn mapped(&self, image: &Chunk) -> Result<Chunk, KernelError> {
        let domain = self.lane_max as usize + 1;
        if image.row_count != domain + usize::from(self.null_count > 0) {
            return Err(KernelError::internal(format!("{} answers for {domain} lanes", image.row_count)));
        }
        let mut lanes = Words::zeroed(self.row_count * image.lane_width.bytes());
        macro_rules! look_up {
            ($table:expr) => {
                with_lanes!(self.lanes(), own => for (row, (answer, lane)) in lanes.as_mut_slice().iter_mut().zip(own).enumerate() {
                    *answer = $table[if self.is_valid(row) { *lane as usize } else { domain }];
                })
            };
        }
        match image.lanes() {
            Lanes::U8(table) => look_up!(table),
            Lanes::U16(table) => look_up!(table),
            Lanes::U32(table) => look_up!(table),
            Lanes::U64(table) => look_up!(table),
        }
        let (mut validity, mut null_count) = (None, 0);
        if image.null_count > 0 {
            let known: Vec<bool> = (0..image.row_count).map(|lane| image.is_valid(lane)).collect();
            let mut bits = BooleanBufferBuilder::new(self.row_count);
            with_lanes!(self.lanes(), own => for (row, lane) in own.iter().enumerate() {
                bits.append(known[if self.is_valid(row) { *lane as usize } else { domain }]);
            });
            let bits = bits.finish();
            null_count = self.row_count - bits.count_set_bits();
            validity = (null_count > 0).then(|| Words::of_bytes(bits.values()));
        }
        Ok(Chunk::new(ChunkParts {
            column_type: image.column_type,
            row_count: self.row_count,
            base: image.base,
            factor: image.factor,
            lane_max: image.lane_max,
            lane_width: image.lane_width,
            lanes,
            validity,
            null_count,
            dictionary: image.dictionary.clone(),
            exponents: image.exponents,
            is_tight: false,
        }))
    }

    pub(super) fn value_of(&self, lane: impl Into<i128>) -> i128 {
        self.base.wrapping_add(self.factor.wrapping_mul(lane.into()))
    }
}

const _: () = assert!(DOMAIN_LANES_MAX <= u32::MAX as u64);
