//! The columns of TPC-H's `lineitem` that Q1 and Q6 read, generated row group by row group in memory.
//!
//! Values follow the specification's clause 4.2.3: same types, ranges, dependencies and distributions. They come from a generator of
//! numbers of our own, some ten times faster than the reference generator's rows; sums therefore are not those of a reference file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bowshot_kernels::{Chunk, ChunkEncoder, ColumnType, KernelError};

use crate::Outcome;

/// Columns in the order of [`COLUMNS`].
pub const SHIPDATE: usize = 0;
pub const DISCOUNT: usize = 1;
pub const QUANTITY: usize = 2;
pub const TAX: usize = 3;
pub const EXTENDEDPRICE: usize = 4;
pub const RETURNFLAG: usize = 5;
pub const LINESTATUS: usize = 6;

const MONEY: ColumnType = ColumnType::Decimal128 { precision: 15, scale: 2 };

/// Name and type of every column.
pub const COLUMNS: [(&str, ColumnType); 7] = [
    ("l_shipdate", ColumnType::Date32),
    ("l_discount", MONEY),
    ("l_quantity", MONEY),
    ("l_tax", MONEY),
    ("l_extendedprice", MONEY),
    ("l_returnflag", ColumnType::Utf8),
    ("l_linestatus", ColumnType::Utf8),
];

/// 1992-01-01, the first order, as days since 1970-01-01.
const FIRST_ORDER: i32 = 8_035;
/// Days on which orders come: the last is 151 days before 1998-12-31.
const ORDER_DAYS: u64 = 2_406;
/// 1995-06-17: what was received or shipped by then is returned or finished.
const CURRENT_DATE: i32 = 9_298;
/// Part keys at scale factor 100; retail prices repeat from 200,000 on.
const PARTS: u64 = 20_000_000;

/// A xorshift generator: fast, and even enough for ranges of some thousands.
struct Random(u64);

impl Random {
    /// Seeds of neighbouring row groups are spread over all bits (SplitMix64).
    fn new(seed: u64) -> Self {
        let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((state ^ (state >> 31)).max(1))
    }

    /// A number from 0 to `bound` - 1; `bound` is under 2^32.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) * bound) >> 32
    }
}

/// Cuts `rows` rows into row groups: the rows of each.
pub fn group_sizes(rows: usize, row_group_rows: usize) -> Vec<usize> {
    (0..rows).step_by(row_group_rows).map(|start| row_group_rows.min(rows - start)).collect()
}

/// The schema of [`arrays`].
pub fn schema() -> SchemaRef {
    let data_type = |column: ColumnType| match column {
        ColumnType::Date32 => DataType::Date32,
        ColumnType::Utf8 => DataType::Utf8,
        _ => DataType::Decimal128(15, 2),
    };
    Arc::new(Schema::new(COLUMNS.map(|(name, column)| Field::new(name, data_type(column), false)).to_vec()))
}

/// The columns of row group `group`: always the same ones.
fn arrays(group: usize, rows: usize) -> Result<Vec<ArrayRef>, arrow::error::ArrowError> {
    let mut random = Random::new(group as u64);
    let mut dates = Vec::with_capacity(rows);
    let mut money: [Vec<i128>; 4] = std::array::from_fn(|_| Vec::with_capacity(rows));
    let mut texts: [Vec<&'static str>; 2] = std::array::from_fn(|_| Vec::with_capacity(rows));
    for _ in 0..rows {
        let part = 1 + random.below(PARTS);
        let retail_price = 90_000 + (part / 10) % 20_001 + 100 * (part % 1_000);
        let quantity = 1 + random.below(50);
        let shipped = FIRST_ORDER + random.below(ORDER_DAYS) as i32 + 1 + random.below(121) as i32;
        let received = shipped + 1 + random.below(30) as i32;
        dates.push(shipped);
        let values = [random.below(11), 100 * quantity, random.below(9), quantity * retail_price];
        for (column, value) in money.iter_mut().zip(values) {
            column.push(i128::from(value));
        }
        let returned = if received > CURRENT_DATE { "N" } else { ["R", "A"][random.below(2) as usize] };
        let [flags, statuses] = &mut texts;
        flags.push(returned);
        statuses.push(if shipped > CURRENT_DATE { "O" } else { "F" });
    }
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Date32Array::from(dates))];
    for values in money {
        columns.push(Arc::new(Decimal128Array::from(values).with_precision_and_scale(15, 2)?));
    }
    for values in texts {
        columns.push(Arc::new(StringArray::from(values)));
    }
    Ok(columns)
}

/// The rows of row group `group` as peers get them.
pub fn batch(group: usize, rows: usize) -> Result<RecordBatch, arrow::error::ArrowError> {
    RecordBatch::try_new(schema(), arrays(group, rows)?)
}

fn encode(column: ColumnType, array: &ArrayRef) -> Result<Arc<Chunk>, KernelError> {
    let mut encoder = ChunkEncoder::new(column);
    encoder.push(array)?;
    Ok(Arc::new(encoder.finish()?))
}

/// The chunks of row group `group`, in the order of [`COLUMNS`].
fn chunks(group: usize, rows: usize) -> Outcome<Vec<Arc<Chunk>>> {
    let arrays = arrays(group, rows)?;
    Ok(COLUMNS.iter().zip(&arrays).map(|((_, column), array)| encode(*column, array)).collect::<Result<_, _>>()?)
}

/// The chunks of `groups` row groups, of `rows_of` rows each, made by `threads` threads.
pub fn generate(groups: usize, rows_of: impl Fn(usize) -> usize + Sync, threads: usize) -> Outcome<Vec<Vec<Arc<Chunk>>>> {
    in_parallel(groups, threads, |group| chunks(group, rows_of(group)))
}

/// The type of [`keys`].
pub const KEY: ColumnType = ColumnType::Int { bits: 32, signed: true };

/// A key of `cardinality` values for every row group, evenly spread, in no order.
pub fn keys(sizes: &[usize], cardinality: u64, threads: usize) -> Outcome<Vec<Arc<Chunk>>> {
    in_parallel(sizes.len(), threads, |group| {
        let mut random = Random::new((group as u64) << 32 | cardinality);
        let array: ArrayRef = Arc::new(Int32Array::from_iter_values((0..sizes[group]).map(|_| random.below(cardinality) as i32)));
        Ok(encode(KEY, &array)?)
    })
}

/// `make` of every number under `items`, in order, over `threads` threads.
fn in_parallel<T: Send>(items: usize, threads: usize, make: impl Fn(usize) -> Outcome<T> + Sync) -> Outcome<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || -> Outcome<Vec<(usize, T)>> {
        let mut made = vec![];
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= items {
                return Ok(made);
            }
            made.push((item, make(item)?));
        }
    };
    let outcomes: Vec<Outcome<Vec<(usize, T)>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a generating thread panicked".into()))).collect()
    });
    let mut made: Vec<(usize, T)> = outcomes.into_iter().collect::<Outcome<Vec<_>>>()?.into_iter().flatten().collect();
    made.sort_by_key(|(item, _)| *item);
    Ok(made.into_iter().map(|(_, made)| made).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(columns: &[Arc<Chunk>], column: usize) -> impl Iterator<Item = i128> {
        let chunk = &columns[column];
        (0..chunk.row_count()).filter_map(|row| chunk.value(row))
    }

    #[test]
    fn rows_are_cut_into_even_groups() {
        assert_eq!(group_sizes(10, 4), [4, 4, 2]);
        assert_eq!(group_sizes(8, 4), [4, 4]);
    }

    #[test]
    fn values_and_widths_are_those_of_tpch() {
        let columns = chunks(0, 100_000).unwrap();
        let widths: Vec<usize> = columns.iter().map(|chunk| chunk.lane_width().bytes()).collect();
        assert_eq!(widths, [2, 1, 1, 1, 4, 1, 1]);
        let range = |column: usize| (columns[column].min().unwrap(), columns[column].max().unwrap());
        assert_eq!((range(DISCOUNT), range(QUANTITY), range(TAX)), ((0, 10), (100, 5_000), (0, 8)));
        let (cheapest, dearest) = range(EXTENDEDPRICE);
        assert!((90_000..=110_000).contains(&cheapest) && (9_500_000..=10_494_950).contains(&dearest), "{cheapest} {dearest}");
        // Q6 keeps 1.9 of 100 rows, Q1 98.
        let kept = column(&columns, SHIPDATE)
            .zip(column(&columns, DISCOUNT))
            .zip(column(&columns, QUANTITY))
            .filter(|((date, discount), quantity)| (8_766..9_131).contains(date) && (5..=7).contains(discount) && *quantity < 2_400)
            .count();
        assert!((1_800..2_000).contains(&kept), "{kept}");
        let kept = column(&columns, SHIPDATE).filter(|date| *date <= 10_471).count();
        assert!((98_000..99_000).contains(&kept), "{kept}");
        assert_eq!((columns[RETURNFLAG].distinct_count(), columns[LINESTATUS].distinct_count()), (Some(3), Some(2)));
    }

    #[test]
    fn groups_differ_and_come_in_order() {
        let made = generate(5, |group| 10 + group, 3).unwrap();
        let rows: Vec<usize> = made.iter().map(|columns| columns[0].row_count()).collect();
        assert_eq!(rows, [10, 11, 12, 13, 14]);
        let prices = |group: usize| column(&made[group], EXTENDEDPRICE).take(10).collect::<Vec<_>>();
        assert_ne!(prices(0), prices(1));
    }

    #[test]
    fn keys_have_the_cardinality_asked_for() {
        let keys = keys(&[10_000, 10_000], 16, 2).unwrap();
        assert!(keys.iter().all(|chunk| (chunk.min(), chunk.max()) == (Some(0), Some(15))));
    }
}
