//! One random case: columns, rows in row groups, a plan; and its way through a kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use bowshot_kernels::*;

use crate::generator::{Random, column_type, plan, value};
use crate::reference::{Answer, Value};

/// What is aggregated, and how.
pub struct Case {
    pub columns: Vec<ColumnType>,
    /// Rows of row groups.
    pub groups: Vec<Vec<Vec<Value>>>,
    pub plan: AggregatePlan,
}

impl Case {
    pub fn new(random: &mut Random) -> Self {
        let columns: Vec<ColumnType> = (0..1 + random.below(5)).map(|_| column_type(random)).collect();
        let modes: Vec<usize> = columns.iter().map(|_| random.below(6)).collect();
        let null_percent: Vec<usize> = columns.iter().map(|_| *random.pick(&[0, 0, 0, 10, 60, 100])).collect();
        let (part, block) = (limits::MEASURE_ROWS, limits::BLOCK_ROWS);
        let sizes = [0, 1, 2, 7, 100, part - 1, part, part + 1, block - 1, block, block + 1, 2 * block + 900];
        let groups: Vec<Vec<Vec<Value>>> = (0..1 + random.below(3))
            .map(|_| {
                let rows = *random.pick(&sizes);
                let row =
                    |random: &mut Random| {
                        (0..columns.len())
                            .map(|column| {
                                if random.chance(null_percent[column]) {
                                    Value::Null
                                } else {
                                    value(random, columns[column], modes[column])
                                }
                            })
                            .collect()
                    };
                (0..rows).map(|_| row(random)).collect()
            })
            .collect();
        let plan = plan(random, &columns);
        Self { columns, groups, plan }
    }
}

/// The value of an environment variable, for replays.
pub fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Counts events; reasons that differ in their numbers alone count as one.
pub fn count_event(tally: &mut BTreeMap<String, usize>, event: &str) {
    let event: String = event.chars().map(|letter| if letter.is_ascii_digit() { '#' } else { letter }).collect();
    *tally.entry(event).or_default() += 1;
}

/// The answers over all row groups.
pub fn accumulate(kernel: &Kernel, executor: Executor, groups: &[RowGroup], merged: bool) -> Result<GroupedResult, KernelError> {
    state(kernel, executor, groups, merged)?.finish()
}

/// All row groups in one state, or each in its own and merged.
pub fn state(kernel: &Kernel, executor: Executor, groups: &[RowGroup], merged: bool) -> Result<PartialState, KernelError> {
    let mut state = kernel.new_state();
    for group in groups {
        if merged {
            let mut other = kernel.new_state();
            kernel.accumulate(executor, group, &mut other)?;
            state.merge(other)?;
        } else {
            kernel.accumulate(executor, group, &mut state)?;
        }
    }
    Ok(state)
}

pub fn encode(random: &mut Random, columns: &[ColumnType], rows: &[Vec<Value>]) -> Result<RowGroup, KernelError> {
    let mut chunks = Vec::new();
    for (position, column) in columns.iter().enumerate() {
        let mut encoder = ChunkEncoder::new(*column);
        let split = random.below(rows.len() + 1);
        for part in [&rows[..split], &rows[split..]] {
            let values: Vec<Value> = part.iter().map(|row| row[position].clone()).collect();
            encoder.push(&array(random, *column, &values))?;
        }
        let chunk = encoder.finish()?;
        if *column != ColumnType::Utf8 {
            for (row, cells) in rows.iter().enumerate() {
                let expected = match &cells[position] {
                    Value::Int(value) => Some(*value),
                    Value::Float(value) => Some(i128::from(value.place())),
                    Value::Boolean(answer) => Some(i128::from(*answer)),
                    _ => None,
                };
                assert_eq!(chunk.value(row), expected, "round trip of {column:?}");
            }
        }
        chunks.push(Arc::new(chunk));
    }
    Ok(RowGroup { row_count: rows.len(), chunks })
}

pub fn array(random: &mut Random, column: ColumnType, values: &[Value]) -> ArrayRef {
    let integers = || values.iter().map(|value| if let Value::Int(value) = value { Some(*value) } else { None });
    let texts = || values.iter().map(|value| if let Value::Text(text) = value { Some(text.as_str()) } else { None });
    macro_rules! primitive {
        ($array:ty, $native:ty) => {
            Arc::new(<$array>::from_iter(integers().map(|value| value.map(|value| <$native>::try_from(value).unwrap())))) as ArrayRef
        };
    }
    match column {
        ColumnType::Boolean => Arc::new(BooleanArray::from_iter(
            values.iter().map(|value| if let Value::Boolean(answer) = value { Some(*answer) } else { None }),
        )),
        ColumnType::Int { bits: 8, signed: true } => primitive!(Int8Array, i8),
        ColumnType::Int { bits: 16, signed: true } => primitive!(Int16Array, i16),
        ColumnType::Int { bits: 32, signed: true } => primitive!(Int32Array, i32),
        ColumnType::Int { signed: true, .. } => primitive!(Int64Array, i64),
        ColumnType::Int { bits: 8, .. } => primitive!(UInt8Array, u8),
        ColumnType::Int { bits: 16, .. } => primitive!(UInt16Array, u16),
        ColumnType::Int { bits: 32, .. } => primitive!(UInt32Array, u32),
        ColumnType::Int { .. } => primitive!(UInt64Array, u64),
        ColumnType::Date32 => primitive!(Date32Array, i32),
        ColumnType::Timestamp => primitive!(TimestampMicrosecondArray, i64),
        ColumnType::Decimal128 { precision: 9, scale } if random.chance(30) => {
            let array = Decimal32Array::from_iter(integers().map(|value| value.map(|value| value as i32)));
            Arc::new(array.with_precision_and_scale(9, scale).unwrap())
        }
        ColumnType::Decimal128 { precision, scale } => {
            Arc::new(Decimal128Array::from_iter(integers()).with_precision_and_scale(precision, scale).unwrap())
        }
        ColumnType::Float64 => Arc::new(Float64Array::from_iter(
            values.iter().map(|value| if let Value::Float(value) = value { Some(value.value()) } else { None }),
        )),
        ColumnType::Utf8 => match random.below(4) {
            0 => Arc::new(StringArray::from_iter(texts())),
            1 => Arc::new(LargeStringArray::from_iter(texts())),
            2 => Arc::new(StringViewArray::from_iter(texts())),
            _ => Arc::new(texts().collect::<DictionaryArray<Int32Type>>()),
        },
    }
}

pub fn answers(plan: &AggregatePlan, result: &GroupedResult) -> BTreeMap<Vec<Value>, Vec<Answer>> {
    let mut groups = BTreeMap::new();
    for group in 0..result.group_count {
        let key = result.keys.iter().map(|key| cell(key, group)).collect::<Vec<_>>();
        let answers = result.aggregates.iter().map(|aggregate| match aggregate {
            AggregateColumn::Count(counts) => Answer::Count(counts[group]),
            AggregateColumn::Value { values, counts } => Answer::Value((counts[group] > 0).then_some(values[group]), counts[group]),
            AggregateColumn::Text(texts) => Answer::Text(texts.is_valid(group).then(|| texts.value(group).to_string())),
            AggregateColumn::FloatSum { sums, counts } => {
                Answer::FloatSum((counts[group] > 0).then(|| sums[group].value().to_bits()), counts[group])
            }
        });
        assert!(groups.insert(key, answers.collect()).is_none(), "a group came twice");
    }
    assert_eq!(result.keys.len(), plan.keys.len());
    groups
}

pub fn cell(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => Value::Boolean(array.as_boolean().value(row)),
        DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row).to_string()),
        DataType::Decimal128(..) => Value::Int(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Date32 => Value::Int(i128::from(array.as_primitive::<Date32Type>().value(row))),
        DataType::UInt64 => Value::Int(i128::from(array.as_primitive::<UInt64Type>().value(row))),
        _ => {
            let wide = arrow::compute::cast(array, &DataType::Int64).unwrap();
            Value::Int(i128::from(wide.as_primitive::<Int64Type>().value(row)))
        }
    }
}
