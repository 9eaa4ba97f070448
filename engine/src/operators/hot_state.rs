//! What kernels found in a partition, as the partial state of the operator whose place they take.

use super::hot_plan::StateShape;
use super::read_column::ReadError;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Decimal256Array, ListArray, PrimitiveArray, RecordBatch,
    RecordBatchOptions, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type, i256,
};
use arrow::error::ArrowError;
use bowshot_kernels::{AggregateColumn, Decline, ExactFloatSum, ExactVariance, GroupedResult, TotalOrder};
use datafusion::common::DataFusionError;
use std::sync::Arc;

/// Integers up to this magnitude are exact in a Float64.
const FLOAT_EXACT_MAX: i128 = 1 << 53;

/// What the kernels of an aggregation found.
pub struct Found {
    /// The groups, and what is not distinct.
    pub groups: GroupedResult,
    /// For each [`super::hot_plan::HotPlan::distincts`], the values of every group.
    pub distincts: Vec<ListArray>,
}

/// The partial state in the aggregate's own schema, in batches of at most `rows_max` rows.
pub fn batches(found: &Found, shapes: &[StateShape], schema: &SchemaRef, rows_max: usize) -> Result<Vec<RecordBatch>, ReadError> {
    let batch = to_batch(found, shapes, schema)?;
    let rows_max = rows_max.max(1);
    let starts = (0..batch.num_rows()).step_by(rows_max);
    starts.map(|start| Ok(compact(&batch.slice(start, rows_max.min(batch.num_rows() - start)))?)).collect()
}

/// Lists of string views take the strings of all rows along, wherever a slice of them is sent: here they let go of them.
fn compact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| {
        let Some(list) = column.as_list_opt::<i32>() else { return Ok(column.clone()) };
        let (DataType::List(field), Some(_)) = (list.data_type(), list.values().as_string_view_opt()) else { return Ok(column.clone()) };
        let offsets = list.offsets();
        let (first, end) = (offsets[0] as usize, offsets[list.len()] as usize);
        let values = list.values().slice(first, end - first).as_string_view().gc();
        let offsets = OffsetBuffer::from_lengths(offsets.lengths());
        Ok(Arc::new(ListArray::try_new(field.clone(), offsets, Arc::new(values), list.nulls().cloned())?) as ArrayRef)
    });
    let columns = columns.collect::<Result<_, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

fn to_batch(found: &Found, shapes: &[StateShape], schema: &SchemaRef) -> Result<RecordBatch, ReadError> {
    let groups = &found.groups;
    let fields = schema.fields();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(fields.len());
    for key in &groups.keys {
        let wanted = fields[columns.len()].data_type();
        columns.push(if key.data_type() == wanted { key.clone() } else { arrow::compute::cast(key, wanted)? });
    }
    for shape in shapes {
        let wanted = |offset: usize, columns: &Vec<ArrayRef>| fields[columns.len() + offset].data_type().clone();
        match *shape {
            StateShape::Count(at) => {
                let counts: Vec<i128> = counts(groups, at)?.iter().map(|&count| count.into()).collect();
                let array = integers(&counts, &vec![1; counts.len()], &wanted(0, &columns))?;
                columns.push(array);
            }
            StateShape::Value(at) if matches!(groups.aggregates[at], AggregateColumn::Text(_)) => {
                let AggregateColumn::Text(texts) = &groups.aggregates[at] else { continue };
                columns.push(arrow::compute::cast(texts, &wanted(0, &columns))?);
            }
            StateShape::Value(at) => {
                let (values, counts) = values(groups, at)?;
                let array = integers(values, counts, &wanted(0, &columns))?;
                columns.push(array);
            }
            StateShape::CountAndSum(at) => {
                let (values, counts) = values(groups, at)?;
                let sum = integers(values, counts, &wanted(1, &columns))?;
                // A group without values has no count either: DataFusion takes one that is there for that of an average.
                columns.push(Arc::new(counts.iter().map(|&count| (count > 0).then_some(count)).collect::<UInt64Array>()));
                columns.push(sum);
            }
            StateShape::FloatSum(at) => columns.push(Arc::new(float_sums(groups, at)?.0)),
            StateShape::CountAndFloatSum(at) => {
                let (sums, counts) = float_sums(groups, at)?;
                columns.push(Arc::new(UInt64Array::from(counts.to_vec())));
                columns.push(Arc::new(sums));
            }
            StateShape::CountAndExactSum { sum } => {
                let (totals, counts) = exact_in_doubles(groups, sum, "AVG")?;
                let sums: BinaryArray = totals.iter().zip(counts).map(|(&total, &count)| (count > 0).then(|| exact_state(total))).collect();
                columns.push(Arc::new(UInt64Array::from(counts.to_vec())));
                columns.push(Arc::new(sums));
            }
            StateShape::ExactVariance { sum } => {
                let (sums, counts) = exact_in_doubles(groups, sum, "a variance")?;
                let (squares, _) = values(groups, sum + 3)?;
                let groups = sums.iter().zip(squares).zip(counts);
                let states = groups.map(|((&sum, &squares), &count)| {
                    (count > 0).then(|| ExactVariance::of_integers(count, sum, squares.unsigned_abs()).to_bytes())
                });
                columns.push(Arc::new(states.collect::<BinaryArray>()));
            }
            StateShape::DistinctValues(at) => columns.push(arrow::compute::cast(&found.distincts[at], &wanted(0, &columns))?),
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(groups.group_count));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// An integer sum as the partial state of an exact average.
fn exact_state(total: i128) -> Vec<u8> {
    let mut sum = ExactFloatSum::default();
    sum.add_integer(total);
    sum.to_bytes()
}

fn counts(result: &GroupedResult, at: usize) -> Result<&[u64], ReadError> {
    match &result.aggregates[at] {
        AggregateColumn::Count(counts) => Ok(counts),
        AggregateColumn::Value { counts, .. } | AggregateColumn::FloatSum { counts, .. } => Ok(counts),
        AggregateColumn::Text(_) => Err(DataFusionError::Internal("a kernel returned strings for a count".into()).into()),
    }
}

fn values(result: &GroupedResult, at: usize) -> Result<(&[i128], &[u64]), ReadError> {
    match &result.aggregates[at] {
        AggregateColumn::Value { values, counts } => Ok((values, counts)),
        other => Err(DataFusionError::Internal(format!("a kernel returned {other:?} for a value")).into()),
    }
}

/// Sums of integers and their counts, followed by the least and greatest integer, each of which must be a double.
fn exact_in_doubles<'r>(result: &'r GroupedResult, sum: usize, name: &str) -> Result<(&'r [i128], &'r [u64]), ReadError> {
    let ((least, counts), (greatest, _)) = (values(result, sum + 1)?, values(result, sum + 2)?);
    let mut extremes = least.iter().zip(greatest).zip(counts).filter(|(_, count)| **count > 0);
    if extremes.any(|((least, greatest), _)| *least < -FLOAT_EXACT_MAX || *greatest > FLOAT_EXACT_MAX) {
        return Err(ReadError::Declined(Decline::new(format!("{name} over integers beyond 2^53, each of which a double rounds"))));
    }
    values(result, sum)
}

/// Exact sums as the partial states of `sum` and `avg`.
fn float_sums(result: &GroupedResult, at: usize) -> Result<(BinaryArray, &[u64]), ReadError> {
    match &result.aggregates[at] {
        AggregateColumn::FloatSum { sums, counts } => {
            Ok((sums.iter().zip(counts).map(|(sum, &count)| (count > 0).then(|| sum.to_bytes())).collect(), counts))
        }
        other => Err(DataFusionError::Internal(format!("a kernel returned {other:?} for sums of doubles")).into()),
    }
}

/// Integers in an Arrow type; groups without inputs are NULL.
fn integers(values: &[i128], counts: &[u64], wanted: &DataType) -> Result<ArrayRef, ReadError> {
    fn primitive<T: ArrowPrimitiveType>(values: &[i128], counts: &[u64], convert: fn(i128) -> T::Native) -> ArrayRef {
        let array: PrimitiveArray<T> = values.iter().zip(counts).map(|(&value, &count)| (count > 0).then(|| convert(value))).collect();
        Arc::new(array)
    }
    Ok(match wanted {
        DataType::Boolean => {
            let array: BooleanArray = values.iter().zip(counts).map(|(&value, &count)| (count > 0).then_some(value != 0)).collect();
            Arc::new(array)
        }
        DataType::Int8 => primitive::<Int8Type>(values, counts, |value| value as i8),
        DataType::Int16 => primitive::<Int16Type>(values, counts, |value| value as i16),
        DataType::Int32 => primitive::<Int32Type>(values, counts, |value| value as i32),
        DataType::Int64 => primitive::<Int64Type>(values, counts, |value| value as i64),
        DataType::UInt8 => primitive::<UInt8Type>(values, counts, |value| value as u8),
        DataType::UInt16 => primitive::<UInt16Type>(values, counts, |value| value as u16),
        DataType::UInt32 => primitive::<UInt32Type>(values, counts, |value| value as u32),
        DataType::UInt64 => primitive::<UInt64Type>(values, counts, |value| value as u64),
        DataType::Float64 => primitive::<Float64Type>(values, counts, |value| TotalOrder::at(value as i64).value()),
        DataType::Date32 => primitive::<Date32Type>(values, counts, |value| value as i32),
        DataType::Timestamp(..) => arrow::compute::cast(&primitive::<Int64Type>(values, counts, |value| value as i64), wanted)?,
        DataType::Decimal128(precision, scale) => {
            let array: Decimal128Array = values.iter().zip(counts).map(|(&value, &count)| (count > 0).then_some(value)).collect();
            Arc::new(array.with_precision_and_scale(*precision, *scale)?)
        }
        DataType::Decimal256(precision, scale) => {
            let wide = values.iter().zip(counts).map(|(&value, &count)| (count > 0).then(|| i256::from_i128(value)));
            Arc::new(wide.collect::<Decimal256Array>().with_precision_and_scale(*precision, *scale)?)
        }
        other => return Err(DataFusionError::Internal(format!("a kernel has no state of type {other}")).into()),
    })
}
