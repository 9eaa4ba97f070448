//! Accumulators that collect values: those take twice their size, since they are copied to grow and to be given away. DataFusion counts of texts in
//! views the views alone.

use super::function_sizes::content_bytes;
use arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// An accumulator that counts what it was given twice.
#[derive(Debug)]
pub struct Twofold {
    inner: Box<dyn Accumulator>,
    given: usize,
}

impl Twofold {
    /// Over DataFusion's.
    pub fn new(inner: Box<dyn Accumulator>) -> Self {
        Self { inner, given: 0 }
    }
}

fn bytes(values: &[ArrayRef]) -> usize {
    values.iter().map(|values| content_bytes(values, 0, values.len())).sum()
}

impl Accumulator for Twofold {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.given = self.given.saturating_add(bytes(values));
        self.inner.update_batch(values)
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.inner.evaluate()
    }
    fn size(&self) -> usize {
        self.inner.size().max(self.given).saturating_mul(2)
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.given = self.given.saturating_add(bytes(states));
        self.inner.merge_batch(states)
    }
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.given = self.given.saturating_sub(bytes(values));
        self.inner.retract_batch(values)
    }
    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

/// The same of groups.
pub struct TwofoldGroups {
    inner: Box<dyn GroupsAccumulator>,
    given: usize,
}

impl TwofoldGroups {
    /// Over DataFusion's.
    pub fn new(inner: Box<dyn GroupsAccumulator>) -> Self {
        Self { inner, given: 0 }
    }
}

impl GroupsAccumulator for TwofoldGroups {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<()> {
        self.given = self.given.saturating_add(bytes(values));
        self.inner.update_batch(values, groups, filter, total)
    }
    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.given = 0;
        self.inner.evaluate(emit_to)
    }
    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.given = 0;
        self.inner.state(emit_to)
    }
    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.given = self.given.saturating_add(bytes(values));
        self.inner.merge_batch(values, groups, total)
    }
    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, filter)
    }
    fn size(&self) -> usize {
        self.inner.size().max(self.given).saturating_mul(2)
    }
}
