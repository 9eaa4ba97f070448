//! Distinct values within groups: the groups of a finer state, `(keys…, value)`, told apart by the groups of a coarser one, `(keys…)`.
//!
//! ```text
//!   finer state's groups                 coarser state's groups     lists, in the order of those
//!   (a, 7) (b, 7) (a, 9) (NULL, 7)       (a) (NULL) (b) (c)    ──►  [7, 9] [7] [7] []
//! ```
//! Both states are of the same rows, so COUNT(DISTINCT value) is the length of a list. The finer kernel may leave out rows, never add any.

use std::sync::Arc;

use arrow::array::ListArray;
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::Field;

use crate::error::KernelError;
use crate::expr::{ColumnType, Expr};
use crate::group_index::{KeyValues, NULL_KEY};
use crate::limits::DICTIONARY_BYTES_MAX;
use crate::plan::AggregatePlan;
use crate::state::{PartialState, key_array};

impl AggregatePlan {
    /// The plan whose groups are the distinct values of `column` within each group of this one: over the rows that pass `filter` too, and
    /// without NULL, which is no value. It has the columns of this plan.
    pub fn distinct_values(&self, column: usize, filter: Option<&Expr>) -> Self {
        let is_value = Expr::IsNotNull(Box::new(Expr::Column(column)));
        let filters = self.filter.iter().chain(filter).cloned().chain([is_value]);
        let parts = filters.flat_map(|filter| if let Expr::And(parts) = filter { parts } else { vec![filter] });
        Self {
            columns: self.columns.clone(),
            filter: Some(Expr::And(parts.collect())),
            keys: self.keys.iter().copied().chain([column]).collect(),
            aggregates: vec![],
        }
    }
}

impl PartialState {
    /// For every group, in the order of [`PartialState::finish`], the values of the last key of `finer`, a state over the same rows by the
    /// plan that [`AggregatePlan::distinct_values`] gave. Linear in both states. Elements have the Arrow type of their column; timestamps
    /// come as `Int64Array`.
    ///
    /// # Errors
    /// Declines strings of more than 2 GiB in all. A state whose groups are none of this one's is a bug.
    pub fn distinct_values(&mut self, finer: &PartialState) -> Result<ListArray, KernelError> {
        let Some((column, keys)) = finer.plan().keys.split_last() else {
            return Err(KernelError::internal("distinct values of a state without keys"));
        };
        let types = |plan: &AggregatePlan, keys: &[usize]| keys.iter().map(|key| plan.columns[*key]).collect::<Vec<ColumnType>>();
        if types(self.plan(), &self.plan().keys) != types(finer.plan(), keys) {
            return Err(KernelError::internal("distinct values of a state with other keys"));
        }
        self.index.index();
        let owners = self.owners(finer)?;
        let (offsets, order) = by_owner(&owners, self.group_count());
        let values = order.iter().map(|group| finer.index.key(*group as usize)[keys.len()]);
        let values = values.map(|value| (value != NULL_KEY).then_some(value));
        let table = &finer.key_values[keys.len()];
        if text_bytes(table, values.clone()) > DICTIONARY_BYTES_MAX {
            return Err(KernelError::declined("distinct strings over 2 GiB"));
        }
        let values = key_array(finer.plan().columns[*column], values, table)?;
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        ListArray::try_new(field, offsets, values, None).map_err(|error| KernelError::internal(error.to_string()))
    }

    /// The group of this state that each group of `finer` is within.
    fn owners(&self, finer: &PartialState) -> Result<Vec<u32>, KernelError> {
        let translations: Vec<Option<Vec<i128>>> =
            self.key_values.iter().zip(&finer.key_values).map(|(ours, theirs)| translation(ours, theirs)).collect();
        let width = self.plan().keys.len();
        let mut key = vec![0; width];
        let groups = (0..finer.group_count()).map(|group| {
            key.copy_from_slice(&finer.index.key(group)[..width]);
            for (value, translation) in key.iter_mut().zip(&translations) {
                if let Some(codes) = translation
                    && *value != NULL_KEY
                {
                    *value = codes[*value as usize];
                }
            }
            self.index.find(&key).ok_or_else(|| KernelError::internal("a distinct value within no group"))
        });
        groups.collect()
    }
}

/// Our code of every string that they have; `None` of keys that are not strings. A string that we lack gets a code that no key has.
fn translation(ours: &KeyValues, theirs: &KeyValues) -> Option<Vec<i128>> {
    let (KeyValues::Strings(ours), KeyValues::Strings(theirs)) = (ours, theirs) else { return None };
    Some((0..theirs.len() as u32).map(|code| ours.find(theirs.get(code)).map_or(-1, i128::from)).collect())
}

/// Bytes of all these strings, those that come again counted again; 0 of integers.
fn text_bytes(table: &KeyValues, codes: impl Iterator<Item = Option<i128>>) -> usize {
    let KeyValues::Strings(table) = table else { return 0 };
    codes.flatten().map(|code| table.get(code as u32).len()).sum()
}

/// Positions in `owners` sorted by owner, and where those of each owner begin: a counting sort.
fn by_owner(owners: &[u32], owner_count: usize) -> (Vec<i32>, Vec<u32>) {
    // Offsets stay inside `i32`: a state has at most `GROUPS_MAX` groups.
    let mut offsets = vec![0i32; owner_count + 1];
    owners.iter().for_each(|owner| offsets[*owner as usize + 1] += 1);
    let mut total = 0;
    for offset in &mut offsets {
        total += *offset;
        *offset = total;
    }
    let mut next = offsets.clone();
    let mut order = vec![0; owners.len()];
    for (position, owner) in owners.iter().enumerate() {
        let place = &mut next[*owner as usize];
        order[*place as usize] = position as u32;
        *place += 1;
    }
    (offsets, order)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::chunk::ChunkEncoder;
    use crate::device::DevicePolicy;
    use crate::kernels::{Executor, Kernels, KernelsConfig, RowGroup};

    const COLUMNS: [ColumnType; 2] = [ColumnType::Utf8, ColumnType::Int { bits: 64, signed: true }];

    fn row_group(names: &[Option<&str>], numbers: &[Option<i64>]) -> RowGroup {
        let arrays: [ArrayRef; 2] = [Arc::new(StringArray::from(names.to_vec())), Arc::new(Int64Array::from(numbers.to_vec()))];
        let chunks = COLUMNS.iter().zip(&arrays).map(|(column, array)| {
            let mut encoder = ChunkEncoder::new(*column);
            encoder.push(array).unwrap();
            Arc::new(encoder.finish().unwrap())
        });
        RowGroup { row_count: names.len(), chunks: chunks.collect() }
    }

    /// Keys and values as text, group by group.
    fn run(keys: Vec<usize>, value: usize, filter: Option<&Expr>, groups: &[RowGroup]) -> Vec<(String, Vec<String>)> {
        let kernels = Kernels::open(KernelsConfig { device: DevicePolicy::Off, ..KernelsConfig::default() });
        let coarse = AggregatePlan { columns: COLUMNS.to_vec(), filter: None, keys, aggregates: vec![] };
        let state = |plan| {
            let kernel = kernels.plan(plan).unwrap();
            let mut state = kernel.new_state();
            for group in groups {
                kernel.accumulate(Executor::Host, group, &mut state).unwrap();
            }
            state
        };
        let finer = state(coarse.distinct_values(value, filter));
        let mut coarse = state(coarse);
        let lists = coarse.distinct_values(&finer).unwrap();
        let result = coarse.finish().unwrap();
        assert_eq!(lists.len(), result.group_count);
        let text = |array: &ArrayRef, row: usize| match array.as_string_opt::<i32>() {
            _ if array.is_null(row) => "NULL".to_string(),
            Some(texts) => texts.value(row).to_string(),
            None => array.as_primitive::<Int64Type>().value(row).to_string(),
        };
        let rows = (0..result.group_count).map(|group| {
            let list = lists.value(group);
            let mut values: Vec<String> = (0..list.len()).map(|row| text(&list, row)).collect();
            values.sort();
            (result.keys.iter().map(|key| text(key, group)).collect::<Vec<_>>().join(" "), values)
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        rows
    }

    fn expected(rows: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        rows.iter().map(|(key, values)| (key.to_string(), values.iter().map(|value| value.to_string()).collect())).collect()
    }

    fn two_row_groups() -> Vec<RowGroup> {
        vec![
            row_group(&[Some("a"), Some("b"), Some("a"), None, Some("c")], &[Some(7), Some(7), Some(9), Some(7), None]),
            row_group(&[Some("d"), Some("a"), None, Some("b")], &[Some(1), Some(7), Some(1 << 60), None]),
        ]
    }

    #[test]
    fn every_group_has_its_values_once() {
        let found = run(vec![0], 1, None, &two_row_groups());
        let huge = (1i64 << 60).to_string();
        assert_eq!(found, expected(&[("NULL", &[&huge, "7"]), ("a", &["7", "9"]), ("b", &["7"]), ("c", &[]), ("d", &["1"])]));
        let found = run(vec![1], 0, None, &two_row_groups());
        assert_eq!(found, expected(&[("1", &["d"]), (&huge, &[]), ("7", &["a", "b"]), ("9", &["a"]), ("NULL", &["b", "c"])]));
    }

    #[test]
    fn a_filter_leaves_groups_without_values() {
        let is_a = Expr::Compare {
            op: crate::expr::CompareOp::Eq,
            left: Box::new(Expr::Column(0)),
            right: Box::new(Expr::Literal(crate::expr::Literal::Utf8("a".into()))),
        };
        let found = run(vec![0], 1, Some(&is_a), &two_row_groups());
        assert_eq!(found, expected(&[("NULL", &[]), ("a", &["7", "9"]), ("b", &[]), ("c", &[]), ("d", &[])]));
    }

    #[test]
    fn without_keys_there_is_one_list() {
        assert_eq!(run(vec![], 0, None, &two_row_groups()), expected(&[("", &["a", "b", "c", "d"])]));
        assert_eq!(run(vec![], 0, None, &[]), expected(&[("", &[])]));
        assert_eq!(run(vec![1], 0, None, &[]), expected(&[]));
    }

    #[test]
    fn a_key_can_be_counted_too() {
        let found = run(vec![0], 0, None, &two_row_groups());
        assert_eq!(found, expected(&[("NULL", &[]), ("a", &["a"]), ("b", &["b"]), ("c", &["c"]), ("d", &["d"])]));
    }

    #[test]
    fn states_that_do_not_belong_together_are_refused() {
        let kernels = Kernels::open(KernelsConfig { device: DevicePolicy::Off, ..KernelsConfig::default() });
        let plan = AggregatePlan { columns: COLUMNS.to_vec(), filter: None, keys: vec![0], aggregates: vec![] };
        let state = |plan: &AggregatePlan| kernels.plan(plan.clone()).unwrap().new_state();
        let of_numbers = AggregatePlan { keys: vec![1], ..plan.clone() }.distinct_values(0, None);
        assert!(state(&plan).distinct_values(&state(&of_numbers)).is_err());
        let finer = kernels.plan(plan.distinct_values(1, None)).unwrap();
        let mut values = finer.new_state();
        finer.accumulate(Executor::Host, &two_row_groups()[0], &mut values).unwrap();
        assert!(state(&plan).distinct_values(&values).is_err(), "no row made these groups");
    }
}
