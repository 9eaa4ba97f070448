//! Rows a second of the host kernel on the shapes of TPC-H Q1 and Q6, over synthetic rows, checked against a plain loop.
//!
//! `cargo run --release -p bowshot-kernels --example throughput [rows [runs]]`; many runs are for a profiler.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, Date32Array, Decimal128Array, Int64Array, StringArray};
use bowshot_kernels::*;

const MONEY: ColumnType = ColumnType::Decimal128 { precision: 15, scale: 2 };
const WIDE: ColumnType = ColumnType::Decimal128 { precision: 38, scale: 6 };
const ROW_GROUP_ROWS: usize = 1 << 20;

/// One row: ship date, discount, quantity, tax, price, flag, status.
type Row = (i32, i128, i128, i128, i128, &'static str, &'static str);

fn main() -> Result<(), Box<dyn Error>> {
    let rows: usize = std::env::args().nth(1).map_or(Ok(16 << 20), |rows| rows.parse())?;
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut below = move |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        ((random >> 32) * bound) >> 32
    };
    let flags = [("A", "F"), ("N", "F"), ("N", "O"), ("R", "F")];
    let (mut groups, mut expected_q6, mut expected_q1) = (Vec::new(), 0i128, BTreeMap::new());
    let mut encode_seconds = 0.0;
    for start in (0..rows).step_by(ROW_GROUP_ROWS) {
        let data: Vec<Row> = (0..ROW_GROUP_ROWS.min(rows - start))
            .map(|_| {
                let (flag, status) = flags[below(4) as usize];
                let quantity = 100 * (1 + i128::from(below(50)));
                let price = 90_000 + i128::from(below(10_404_951));
                (8_036 + below(2_526) as i32, i128::from(below(11)), quantity, i128::from(below(9)), price, flag, status)
            })
            .collect();
        reference(&data, &mut expected_q6, &mut expected_q1);
        let clock = Instant::now();
        groups.push(encode(&data)?);
        encode_seconds += clock.elapsed().as_secs_f64();
    }
    println!("encode, 7 columns: {:.1} M values/s (with building Arrow arrays)", rows as f64 * 7.0 / encode_seconds / 1e6);
    encode_rates()?;

    let kernels = Kernels::open(KernelsConfig { device: DevicePolicy::Off, ..KernelsConfig::default() });
    let result = measure("Q6", &kernels.plan(q6())?, &groups, rows)?;
    assert_eq!(result.aggregates[0], AggregateColumn::Value { values: vec![expected_q6], counts: counts(&result.aggregates[0]) });
    let result = measure("Q1", &kernels.plan(q1())?, &groups, rows)?;
    check_q1(&result, &expected_q1);
    for (name, plan) in narrow() {
        measure(name, &kernels.plan(plan)?, &groups, rows)?;
    }
    println!("answers match the plain loop");
    Ok(())
}

fn measure(name: &str, kernel: &Kernel, groups: &[RowGroup], rows: usize) -> Result<GroupedResult, KernelError> {
    let mut best = f64::MAX;
    let mut result = None;
    let runs = std::env::args().nth(2).and_then(|runs| runs.parse().ok()).unwrap_or(7);
    for _ in 0..runs {
        let clock = Instant::now();
        let mut state = kernel.new_state();
        for group in groups {
            kernel.accumulate(Executor::Host, group, &mut state)?;
        }
        result = Some(state.finish()?);
        best = best.min(clock.elapsed().as_secs_f64());
    }
    println!("{name}: {:.0} M rows/s on one thread, best of {runs} over {rows} rows", rows as f64 / best / 1e6);
    result.ok_or(KernelError::Internal { reason: "no run".into() })
}

fn counts(column: &AggregateColumn) -> Vec<u64> {
    match column {
        AggregateColumn::Count(counts) | AggregateColumn::Value { counts, .. } | AggregateColumn::FloatSum { counts, .. } => counts.clone(),
        AggregateColumn::Text(_) => Vec::new(),
    }
}

fn column_types() -> Vec<ColumnType> {
    vec![ColumnType::Date32, MONEY, MONEY, MONEY, MONEY, ColumnType::Utf8, ColumnType::Utf8]
}

fn encode(data: &[Row]) -> Result<RowGroup, KernelError> {
    let money = |pick: fn(&Row) -> i128| -> ArrayRef {
        Arc::new(Decimal128Array::from_iter_values(data.iter().map(pick)).with_data_type(arrow::datatypes::DataType::Decimal128(15, 2)))
    };
    let text = |pick: fn(&Row) -> &'static str| -> ArrayRef { Arc::new(StringArray::from_iter_values(data.iter().map(pick))) };
    let dates: ArrayRef = Arc::new(Date32Array::from_iter_values(data.iter().map(|row| row.0)));
    let arrays =
        [dates, money(|row| row.1), money(|row| row.2), money(|row| row.3), money(|row| row.4), text(|row| row.5), text(|row| row.6)];
    let mut chunks = Vec::new();
    for (column_type, array) in column_types().into_iter().zip(arrays) {
        let mut encoder = ChunkEncoder::new(column_type);
        encoder.push(&array)?;
        chunks.push(Arc::new(encoder.finish()?));
    }
    Ok(RowGroup { row_count: data.len(), chunks })
}

/// Encoding alone, of arrays that are there.
fn encode_rates() -> Result<(), KernelError> {
    let rows = 1 << 20;
    let spread: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row * 7_919 % 1_000_003)));
    let even: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row * 7_919 % 1_003 * 1_000_000)));
    let decimals = Decimal128Array::from_iter_values((0..rows).map(|row| i128::from(row * 7_919 % 1_000_003)));
    let decimals: ArrayRef = Arc::new(decimals.with_data_type(arrow::datatypes::DataType::Decimal128(15, 2)));
    let int = ColumnType::Int { bits: 64, signed: true };
    for (name, column_type, array) in [("Int64", int, spread), ("Int64 with a divisor", int, even), ("Decimal128", MONEY, decimals)] {
        let mut best = f64::MAX;
        for _ in 0..7 {
            let clock = Instant::now();
            let mut encoder = ChunkEncoder::new(column_type);
            encoder.push(&array)?;
            encoder.finish()?;
            best = best.min(clock.elapsed().as_secs_f64());
        }
        println!("encode {name}: {:.0} M values/s", rows as f64 / best / 1e6);
    }
    Ok(())
}

fn compare(op: CompareOp, column: usize, value: i128) -> Expr {
    Expr::Compare { op, left: Box::new(Expr::Column(column)), right: Box::new(Expr::Literal(Literal::Int(value))) }
}

fn arithmetic(op: ArithmeticOp, left: Expr, right: Expr) -> Expr {
    Expr::Arithmetic { op, left: Box::new(left), right: Box::new(right), result: WIDE }
}

fn aggregate(function: AggregateFunction, argument: Option<Expr>) -> Aggregate {
    Aggregate { function, argument, filter: None }
}

/// Shapes of next to no work a row, where reading and bookkeeping are all there is.
fn narrow() -> [(&'static str, AggregatePlan); 4] {
    let plan = |filter, keys, aggregates| AggregatePlan { columns: column_types(), filter, keys, aggregates };
    let count = || aggregate(AggregateFunction::CountStar, None);
    let sum = |column| aggregate(AggregateFunction::Sum, Some(Expr::Column(column)));
    let filter = Expr::And(vec![compare(CompareOp::Gt, 2, 4_000), compare(CompareOp::Lt, 3, 3)]);
    [
        ("sum of bytes", plan(None, vec![], vec![sum(2)])),
        ("sum of words", plan(None, vec![], vec![sum(4)])),
        ("count by two filters", plan(Some(filter), vec![], vec![count()])),
        ("sum by two keys", plan(None, vec![5, 6], vec![sum(2), count()])),
    ]
}

fn q6() -> AggregatePlan {
    let filter = Expr::And(vec![
        compare(CompareOp::GtEq, 0, 8_766),
        compare(CompareOp::Lt, 0, 9_131),
        compare(CompareOp::GtEq, 1, 5),
        compare(CompareOp::LtEq, 1, 7),
        compare(CompareOp::Lt, 2, 2_400),
    ]);
    let revenue = arithmetic(ArithmeticOp::Mul, Expr::Column(4), Expr::Column(1));
    let aggregates = vec![aggregate(AggregateFunction::Sum, Some(revenue))];
    AggregatePlan { columns: column_types(), filter: Some(filter), keys: vec![], aggregates }
}

fn q1() -> AggregatePlan {
    let hundred = || Expr::Literal(Literal::Int(100));
    let discounted = || arithmetic(ArithmeticOp::Mul, Expr::Column(4), arithmetic(ArithmeticOp::Sub, hundred(), Expr::Column(1)));
    let charge = arithmetic(ArithmeticOp::Mul, discounted(), arithmetic(ArithmeticOp::Add, hundred(), Expr::Column(3)));
    let sums = [Expr::Column(2), Expr::Column(4), discounted(), charge, Expr::Column(1)];
    let mut aggregates: Vec<Aggregate> = sums.into_iter().map(|argument| aggregate(AggregateFunction::Sum, Some(argument))).collect();
    aggregates.push(aggregate(AggregateFunction::CountStar, None));
    AggregatePlan { columns: column_types(), filter: Some(compare(CompareOp::LtEq, 0, 10_471)), keys: vec![5, 6], aggregates }
}

/// The same answers by the plainest means.
fn reference(data: &[Row], q6: &mut i128, q1: &mut BTreeMap<(&'static str, &'static str), [i128; 6]>) {
    for (ship, discount, quantity, tax, price, flag, status) in data {
        if (8_766..9_131).contains(ship) && (5..=7).contains(discount) && *quantity < 2_400 {
            *q6 += price * discount;
        }
        if *ship <= 10_471 {
            let sums = q1.entry((flag, status)).or_default();
            let discounted = price * (100 - discount);
            for (sum, value) in sums.iter_mut().zip([*quantity, *price, discounted, discounted * (100 + tax), *discount, 1]) {
                *sum += value;
            }
        }
    }
}

fn check_q1(result: &GroupedResult, expected: &BTreeMap<(&'static str, &'static str), [i128; 6]>) {
    assert_eq!(result.group_count, expected.len());
    for group in 0..result.group_count {
        let key = (result.keys[0].as_string::<i32>().value(group), result.keys[1].as_string::<i32>().value(group));
        for (aggregate, value) in result.aggregates.iter().zip(expected[&key]) {
            match aggregate {
                AggregateColumn::Count(counts) => assert_eq!(i128::from(counts[group]), value),
                AggregateColumn::Value { values, .. } => assert_eq!(values[group], value),
                other => panic!("{other:?} is neither count nor value"),
            }
        }
    }
}
