//! Answers in an order of their own, so that those of any executor and any number of threads can be compared.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{SortColumn, lexsort_to_indices, take};
use bowshot_kernels::{AggregateColumn, GroupedResult, KernelError};

/// Groups, sorted by their keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub keys: Vec<ArrayRef>,
    pub aggregates: Vec<AggregateColumn>,
}

impl Answer {
    /// Sorts groups by their keys.
    ///
    /// # Errors
    /// A key whose type has no order.
    pub fn sorted(result: GroupedResult) -> Result<Self, KernelError> {
        let GroupedResult { keys, aggregates, .. } = result;
        if keys.is_empty() {
            return Ok(Self { keys, aggregates });
        }
        let failed = |error: arrow::error::ArrowError| KernelError::Internal { reason: error.to_string() };
        let columns: Vec<SortColumn> = keys.iter().map(|key| SortColumn { values: ArrayRef::clone(key), options: None }).collect();
        let order = lexsort_to_indices(&columns, None).map_err(failed)?;
        let keys = keys.iter().map(|key| take(key, &order, None)).collect::<Result<_, _>>().map_err(failed)?;
        let aggregates = aggregates.into_iter().map(|aggregate| in_order(aggregate, order.values())).collect();
        Ok(Self { keys, aggregates })
    }

    /// Keys and integer answers as text, a line a group: the form in which peers hand in theirs.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let groups = self.aggregates.first().map_or(0, |aggregate| match aggregate {
            AggregateColumn::Count(counts) | AggregateColumn::Value { counts, .. } | AggregateColumn::FloatSum { counts, .. } => {
                counts.len()
            }
            AggregateColumn::Text(texts) => texts.len(),
        });
        (0..groups)
            .map(|group| {
                let keys = self.keys.iter().filter_map(|key| Some(key.as_string_opt::<i32>()?.value(group).to_string()));
                let aggregates = self.aggregates.iter().filter_map(|aggregate| match aggregate {
                    AggregateColumn::Count(counts) => Some(counts[group].to_string()),
                    AggregateColumn::Value { values, .. } => Some(values[group].to_string()),
                    _ => None,
                });
                keys.chain(aggregates).collect()
            })
            .collect()
    }
}

fn in_order(aggregate: AggregateColumn, order: &[u32]) -> AggregateColumn {
    fn pick<T: Clone>(values: &[T], order: &[u32]) -> Vec<T> {
        order.iter().map(|group| values[*group as usize].clone()).collect()
    }
    match aggregate {
        AggregateColumn::Count(counts) => AggregateColumn::Count(pick(&counts, order)),
        AggregateColumn::Value { values, counts } => AggregateColumn::Value { values: pick(&values, order), counts: pick(&counts, order) },
        // No query here has these with keys.
        other => other,
    }
}
