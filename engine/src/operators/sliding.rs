//! Aggregates over window frames that DataFusion has not, or has with wrapping sums: DISTINCT, `bool_and` and `bool_or`.

use arrow::array::{Array, ArrayRef, AsArray};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::Accumulator;
use std::collections::HashMap;

/// Each value once, of those that are in the frame.
pub(super) struct SlidingDistinct {
    whole: Box<dyn Accumulator>,
    times: HashMap<ScalarValue, u64>,
    heap_bytes: usize,
}

impl SlidingDistinct {
    /// Of no values: `whole` adds each value once, and takes it away again.
    pub fn new(whole: Box<dyn Accumulator>) -> Self {
        Self { whole, times: HashMap::new(), heap_bytes: 0 }
    }
}

impl std::fmt::Debug for SlidingDistinct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlidingDistinct").field("values", &self.times.len()).finish_non_exhaustive()
    }
}

impl Accumulator for SlidingDistinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for row in (0..values[0].len()).filter(|row| values[0].is_valid(*row)) {
            let value = ScalarValue::try_from_array(&values[0], row)?;
            let times = self.times.entry(value.clone()).or_default();
            *times += 1;
            if *times == 1 {
                self.heap_bytes += value.size();
                self.whole.update_batch(&[value.to_array()?])?;
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for row in (0..values[0].len()).filter(|row| values[0].is_valid(*row)) {
            let value = ScalarValue::try_from_array(&values[0], row)?;
            let Some(times) = self.times.get_mut(&value) else { return internal_err!("a frame loses a value that it has not") };
            *times -= 1;
            if *times == 0 {
                self.times.remove(&value);
                self.heap_bytes = self.heap_bytes.saturating_sub(value.size());
                self.whole.retract_batch(&[value.to_array()?])?;
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.whole.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.whole.evaluate()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        internal_err!("a window frame has no state")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        internal_err!("window frames are not merged")
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.heap_bytes + self.times.capacity() * size_of::<(ScalarValue, u64)>() + self.whole.size()
    }
}

/// How often false and true are in the frame.
#[derive(Debug)]
pub(super) struct InFrame {
    all: bool,
    times: [u64; 2],
}

impl InFrame {
    /// Of no rows: whether `all` are to be true, or one.
    pub fn new(all: bool) -> Self {
        Self { all, times: [0, 0] }
    }

    fn count(values: &[ArrayRef]) -> [u64; 2] {
        let values = values[0].as_boolean();
        let known = (values.len() - values.null_count()) as u64;
        let yes = values.true_count() as u64;
        [known - yes, yes]
    }
}

impl Accumulator for InFrame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [no, yes] = Self::count(values);
        self.times = [self.times[0] + no, self.times[1] + yes];
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [no, yes] = Self::count(values);
        self.times = [self.times[0].saturating_sub(no), self.times[1].saturating_sub(yes)];
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Boolean(match self.times {
            [0, 0] => None,
            [no, _] if self.all => Some(no == 0),
            [_, yes] => Some(yes > 0),
        }))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        internal_err!("a window frame has no state")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        internal_err!("window frames are not merged")
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
