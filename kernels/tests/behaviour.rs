//! Behaviour that callers lean on: NULL logic, encoding, declines, devices.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use bowshot_kernels::*;

const INT: ColumnType = ColumnType::Int { bits: 64, signed: true };

fn kernels() -> Kernels {
    Kernels::open(KernelsConfig { device: DevicePolicy::Off, ..KernelsConfig::default() })
}

fn chunk(column_type: ColumnType, array: impl Array + 'static) -> Arc<Chunk> {
    let mut encoder = ChunkEncoder::new(column_type);
    encoder.push(&array).unwrap();
    Arc::new(encoder.finish().unwrap())
}

fn aggregate(function: AggregateFunction, argument: Option<Expr>) -> Aggregate {
    Aggregate { function, argument, filter: None }
}

fn run(plan: AggregatePlan, chunks: Vec<Arc<Chunk>>) -> Result<GroupedResult, KernelError> {
    let kernel = kernels().plan(plan)?;
    let mut state = kernel.new_state();
    let row_count = chunks.first().map_or(0, |chunk| chunk.row_count());
    kernel.accumulate(Executor::Host, &RowGroup { row_count, chunks }, &mut state)?;
    state.finish()
}

fn boolean(answer: Option<bool>) -> Expr {
    Expr::Literal(answer.map_or(Literal::Null, Literal::Boolean))
}

#[test]
fn three_valued_logic_follows_the_truth_tables() {
    // Two boolean columns with every pair of TRUE, FALSE and NULL.
    let answers = [Some(true), Some(false), None];
    let pairs: Vec<_> = answers.iter().flat_map(|left| answers.iter().map(move |right| (*left, *right))).collect();
    let chunks = vec![
        chunk(ColumnType::Boolean, BooleanArray::from_iter(pairs.iter().map(|pair| pair.0))),
        chunk(ColumnType::Boolean, BooleanArray::from_iter(pairs.iter().map(|pair| pair.1))),
    ];
    let and = |left: Option<bool>, right: Option<bool>| match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    };
    let not = |input: Option<bool>| input.map(|answer| !answer);
    let (left, right) = (|| Expr::Column(0), || Expr::Column(1));
    type Truth<'a> = Box<dyn Fn(Option<bool>, Option<bool>) -> Option<bool> + 'a>;
    let cases: Vec<(Expr, Truth<'_>)> = vec![
        (Expr::And(vec![left(), right()]), Box::new(and)),
        (Expr::Or(vec![left(), right()]), Box::new(|left, right| not(and(not(left), not(right))))),
        (Expr::Not(Box::new(left())), Box::new(|left, _| not(left))),
        (Expr::IsNull(Box::new(Expr::And(vec![left(), right()]))), Box::new(|left, right| Some(and(left, right).is_none()))),
        (Expr::And(vec![left(), boolean(None)]), Box::new(|left, _| and(left, None))),
        (
            Expr::Compare { op: CompareOp::NotEq, left: Box::new(left()), right: Box::new(right()) },
            Box::new(|left, right| Some(left? != right?)),
        ),
        (
            Expr::InList { input: Box::new(left()), list: vec![Literal::Boolean(true), Literal::Null], negated: true },
            Box::new(|left, _| if left == Some(true) { Some(false) } else { None }),
        ),
    ];
    for (expr, truth) in cases {
        for (wrapped, wanted) in
            [(expr.clone(), Some(true)), (Expr::Not(Box::new(expr.clone())), Some(false)), (Expr::IsNull(Box::new(expr)), None)]
        {
            let expected = pairs.iter().filter(|(left, right)| truth(*left, *right) == wanted).count() as u64;
            let plan = AggregatePlan {
                columns: vec![ColumnType::Boolean, ColumnType::Boolean],
                filter: Some(wrapped.clone()),
                keys: vec![],
                aggregates: vec![aggregate(AggregateFunction::CountStar, None)],
            };
            let result = run(plan, chunks.clone()).unwrap();
            assert_eq!(result.aggregates, vec![AggregateColumn::Count(vec![expected])], "{wrapped:?}");
        }
    }
}

#[test]
fn chunks_are_as_narrow_as_their_values() {
    let narrow = chunk(INT, Int64Array::from(vec![1_000_000_000_007, 1_000_000_000_262]));
    assert_eq!((narrow.lane_width(), narrow.min(), narrow.max()), (LaneWidth::U8, Some(1_000_000_000_007), Some(1_000_000_000_262)));
    let stepped = chunk(INT, Int64Array::from_iter_values((0..256).map(|step| step * 86_400_000_000)));
    assert_eq!((stepped.lane_width(), stepped.value(255)), (LaneWidth::U8, Some(255 * 86_400_000_000)));
    // The divisor that a sample suggests does not hold to the end.
    let broken = chunk(INT, Int64Array::from_iter_values((0..5_000).map(|step| step * 1_000 + i64::from(step == 4_999))));
    assert_eq!((broken.lane_width(), broken.value(4_999), broken.value(7)), (LaneWidth::U32, Some(4_999_001), Some(7_000)));
    let extremes = chunk(INT, Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX), Some(0)]));
    assert_eq!(extremes.lane_width(), LaneWidth::U64);
    assert_eq!((0..3).map(|row| extremes.value(row)).collect::<Vec<_>>(), [Some(i64::MIN.into()), None, Some(i64::MAX.into())]);
    let empty = chunk(INT, Int64Array::from(Vec::<i64>::new()));
    assert_eq!((empty.row_count(), empty.min()), (0, None));
    let nulls = chunk(INT, Int64Array::from(vec![None, None]));
    assert_eq!((nulls.null_count(), nulls.max(), nulls.value(1)), (2, None, None));
    let texts = chunk(ColumnType::Utf8, StringArray::from(vec![Some("ä"), None, Some(""), Some("ä")]));
    assert_eq!((texts.distinct_count(), texts.value(0), texts.value(1), texts.value(3)), (Some(2), Some(1), None, Some(1)));
}

#[test]
fn dictionaries_without_values_and_sliced_arrays_encode() {
    let keys = Int32Array::from(vec![None, None]);
    let values: ArrayRef = Arc::new(StringArray::from(Vec::<&str>::new()));
    let all_null = chunk(ColumnType::Utf8, DictionaryArray::<Int32Type>::try_new(keys, values).unwrap());
    assert_eq!((all_null.null_count(), all_null.distinct_count()), (2, Some(0)));
    let sliced = Int64Array::from(vec![Some(9), None, Some(5), Some(6)]).slice(1, 2);
    let sliced = chunk(INT, sliced);
    assert_eq!((sliced.value(0), sliced.value(1), sliced.row_count()), (None, Some(5), 2));
}

#[test]
fn values_that_do_not_fit_are_declined_with_a_reason() {
    let wide = ColumnType::Decimal128 { precision: 38, scale: 0 };
    let mut encoder = ChunkEncoder::new(wide);
    let spread = Decimal128Array::from(vec![0, 1, 10i128.pow(30)]).with_precision_and_scale(38, 0).unwrap();
    encoder.push(&spread).unwrap();
    assert_eq!(encoder.finish().unwrap_err().to_string(), "declined: values spread over more than 64 bits");
    let floats = ChunkEncoder::new(INT).push(&Float64Array::from(vec![1.0]));
    assert!(matches!(floats, Err(KernelError::Declined(_))));

    let plan = |function, columns: Vec<ColumnType>, argument| AggregatePlan {
        columns,
        filter: None,
        keys: vec![],
        aggregates: vec![aggregate(function, Some(argument))],
    };
    let reason = |plan: AggregatePlan| kernels().plan(plan).err().map(|decline| decline.reason);
    assert_eq!(reason(plan(AggregateFunction::Sum, vec![ColumnType::Utf8], Expr::Column(0))).as_deref(), Some("SUM over Utf8"));
    assert_eq!(reason(plan(AggregateFunction::Min, vec![ColumnType::Boolean], Expr::Column(0))).as_deref(), Some("MIN over Boolean"));
    assert_eq!(reason(plan(AggregateFunction::Sum, vec![INT], Expr::Column(3))).as_deref(), Some("column 3 of 1"));

    let doubled =
        Expr::Arithmetic { op: ArithmeticOp::Add, left: Box::new(Expr::Column(0)), right: Box::new(Expr::Column(0)), result: INT };
    let overflow = run(plan(AggregateFunction::Sum, vec![INT], doubled), vec![chunk(INT, Int64Array::from(vec![i64::MAX]))]);
    assert!(matches!(overflow, Err(KernelError::Declined(decline)) if decline.reason.starts_with("arithmetic may leave the range")));

    let mut deep = Expr::Column(0);
    for _ in 0..500 {
        deep = Expr::Negate { input: Box::new(deep), result: INT };
    }
    assert_eq!(reason(plan(AggregateFunction::Sum, vec![INT], deep)).as_deref(), Some("expression too large"));
}

#[test]
fn sums_leave_64_bits_and_stop_before_127() {
    let plan = |column| AggregatePlan {
        columns: vec![column],
        filter: None,
        keys: vec![],
        aggregates: vec![aggregate(AggregateFunction::Sum, Some(Expr::Column(0)))],
    };
    let result = run(plan(INT), vec![chunk(INT, Int64Array::from(vec![i64::MAX; 5_000]))]).unwrap();
    let expected = AggregateColumn::Value { values: vec![i128::from(i64::MAX) * 5_000], counts: vec![5_000] };
    assert_eq!(result.aggregates[0], expected);
    let wide = ColumnType::Decimal128 { precision: 38, scale: 0 };
    let large = Decimal128Array::from(vec![10i128.pow(38) - 1; 2]).with_precision_and_scale(38, 0).unwrap();
    let declined = run(plan(wide), vec![chunk(wide, large)]);
    assert!(matches!(declined, Err(KernelError::Declined(decline)) if decline.reason == "SUM may exceed 127 bits"));
}

/// Sums lie packed in words that are emptied now and then: many rows, widths up to what a word holds, negative numbers and NULLs, few slots
/// and many, filters that most rows pass and that few do.
#[test]
fn grouped_sums_are_exact_at_every_width_and_group_count() {
    const ROWS: usize = 150_000;
    let mut random = 0x2545_F491_4F6C_DD1Du64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for groups in [1, 3, 200, 5_000, 90_000] {
        let keys: Vec<i64> = (0..ROWS).map(|_| (next() % groups) as i64).collect();
        // The top 1, 8, 20, 33, 50, 63 and 64 bits of a random word, with its sign.
        let values: Vec<Vec<Option<i64>>> = [63, 56, 44, 31, 14, 1, 0]
            .map(|shift| (0..ROWS).map(|_| (next() % 13 > 0).then(|| next() as i64 >> shift)).collect())
            .into_iter()
            .collect();
        for least in [i64::MIN, 0, i64::MAX - (i64::MAX >> 4)] {
            let filter = Expr::Compare {
                op: CompareOp::GtEq,
                left: Box::new(Expr::Column(7)),
                right: Box::new(Expr::Literal(Literal::Int(least.into()))),
            };
            let sums = (0..7).map(|column| aggregate(AggregateFunction::Sum, Some(Expr::Column(column))));
            let plan = AggregatePlan { columns: vec![INT; 9], filter: Some(filter), keys: vec![8], aggregates: sums.collect() };
            let mut chunks: Vec<_> = values.iter().map(|column| chunk(INT, Int64Array::from(column.clone()))).collect();
            let filtered: Vec<i64> = values[6].iter().map(|value| value.unwrap_or(0)).collect();
            chunks.push(chunk(INT, Int64Array::from(filtered.clone())));
            chunks.push(chunk(INT, Int64Array::from(keys.clone())));
            let result = run(plan, chunks).unwrap();
            let mut expected = std::collections::HashMap::<i64, [(i128, u64); 7]>::new();
            for row in (0..ROWS).filter(|row| filtered[*row] >= least) {
                let sums = expected.entry(keys[row]).or_default();
                for (sum, column) in sums.iter_mut().zip(&values) {
                    if let Some(value) = column[row] {
                        *sum = (sum.0 + i128::from(value), sum.1 + 1);
                    }
                }
            }
            assert_eq!(result.group_count, expected.len());
            for group in 0..result.group_count {
                let key = result.keys[0].as_primitive::<Int64Type>().value(group);
                for (aggregate, (sum, count)) in result.aggregates.iter().zip(expected[&key]) {
                    let AggregateColumn::Value { values, counts } = aggregate else { panic!("a sum is a value") };
                    assert_eq!((values[group], counts[group]), (sum, count), "group {key} of {groups}, rows from {least}");
                }
            }
        }
    }
}

#[test]
fn no_rows_give_one_group_without_keys_and_none_with() {
    let plan = |keys| AggregatePlan {
        columns: vec![INT],
        filter: None,
        keys,
        aggregates: vec![aggregate(AggregateFunction::CountStar, None), aggregate(AggregateFunction::Max, Some(Expr::Column(0)))],
    };
    let empty = || vec![chunk(INT, Int64Array::from(Vec::<i64>::new()))];
    let result = run(plan(vec![]), empty()).unwrap();
    assert_eq!(result.group_count, 1);
    assert_eq!(result.aggregates[1], AggregateColumn::Value { values: vec![0], counts: vec![0] });
    assert_eq!(run(plan(vec![0]), empty()).unwrap().group_count, 0);
}

#[test]
fn many_groups_are_hashed_up_to_the_limit() {
    let plan =
        AggregatePlan { columns: vec![INT], filter: None, keys: vec![0], aggregates: vec![aggregate(AggregateFunction::CountStar, None)] };
    let spread = |rows: i64| chunk(INT, Int64Array::from_iter_values((0..rows).map(|row| row * 1_000_003 % 4_000_000_007)));
    let rows = limits::GROUPS_MAX as i64;
    assert_eq!(run(plan.clone(), vec![spread(rows)]).unwrap().group_count, limits::GROUPS_MAX);
    let declined = run(plan, vec![spread(rows + 1)]);
    assert!(
        matches!(declined, Err(KernelError::Declined(decline)) if decline.reason == format!("more than {} groups", limits::GROUPS_MAX))
    );
}

#[test]
fn software_adapters_are_refused_unless_allowed() {
    let report = Kernels::open(KernelsConfig { device: DevicePolicy::Off, ..KernelsConfig::default() }).device_report();
    assert_eq!((report.available, report.reason.as_deref()), (false, Some("devices are switched off")));
    let report = Kernels::open(KernelsConfig { device: DevicePolicy::Hardware, ..KernelsConfig::default() }).device_report();
    println!("{report:?}");
    assert!(report.available != report.reason.is_some());
    assert!(!(report.available && report.software));
    if report.software {
        assert!(report.reason.unwrap().starts_with("only a software adapter ("));
    }
}

#[test]
fn a_state_belongs_to_its_plan_and_a_row_group_to_its_columns() {
    let plan = |function| AggregatePlan {
        columns: vec![INT],
        filter: None,
        keys: vec![],
        aggregates: vec![aggregate(function, Some(Expr::Column(0)))],
    };
    let (sum, min) = (kernels().plan(plan(AggregateFunction::Sum)).unwrap(), kernels().plan(plan(AggregateFunction::Min)).unwrap());
    assert!(matches!(sum.new_state().merge(min.new_state()), Err(KernelError::Internal { .. })));
    let chunks = vec![chunk(ColumnType::Date32, Date32Array::from(vec![1]))];
    let mismatch = sum.accumulate(Executor::Host, &RowGroup { row_count: 1, chunks }, &mut sum.new_state());
    assert!(matches!(mismatch, Err(KernelError::Internal { .. })));
    let chunks = vec![chunk(INT, Int64Array::from(vec![1, 2]))];
    sum.accumulate(Executor::Host, &RowGroup { row_count: 2, chunks }, &mut sum.new_state()).unwrap();
    assert_eq!((sum.clone().plan().aggregates.len(), sum.new_state().group_count()), (1, 1));
}

#[test]
fn a_condition_that_statistics_settle_takes_no_double() {
    // In the first row group no row has flag 1, in the second every row has.
    let flag = Expr::Compare { op: CompareOp::Eq, left: Box::new(Expr::Column(0)), right: Box::new(Expr::Literal(Literal::Int(1))) };
    let taken = Expr::Case { branches: vec![(flag.clone(), Expr::Column(1))], otherwise: None };
    let sums = [
        aggregate(AggregateFunction::Sum, Some(taken)),
        Aggregate { function: AggregateFunction::Sum, argument: Some(Expr::Column(1)), filter: Some(flag) },
    ];
    for keys in [vec![], vec![2]] {
        let plan = AggregatePlan { columns: vec![INT, ColumnType::Float64, INT], filter: None, keys, aggregates: sums.to_vec() };
        let kernel = kernels().plan(plan).unwrap();
        let mut state = kernel.new_state();
        for (flag, double) in [(5, 0.1), (1, 0.25), (7, 0.3)] {
            let chunks = vec![
                chunk(INT, Int64Array::from(vec![flag; 3])),
                chunk(ColumnType::Float64, Float64Array::from(vec![double; 3])),
                chunk(INT, Int64Array::from(vec![4; 3])),
            ];
            kernel.accumulate(Executor::Host, &RowGroup { row_count: 3, chunks }, &mut state).unwrap();
        }
        for answer in state.finish().unwrap().aggregates {
            let AggregateColumn::FloatSum { sums, counts } = answer else { panic!("sums of doubles") };
            assert_eq!((sums[0].value(), counts[0]), (0.75, 3));
        }
    }
}

#[test]
fn grouped_sums_of_a_narrow_band_beyond_64_bits_are_exact() {
    // -3 * x + key lies near -2^64 - 2^63: far out, but in a band that needs few bits.
    let wide = ColumnType::Decimal128 { precision: 38, scale: 0 };
    let arithmetic = |op, left, right| Expr::Arithmetic { op, left: Box::new(left), right: Box::new(right), result: wide };
    let product = arithmetic(ArithmeticOp::Mul, Expr::Column(0), Expr::Literal(Literal::Int(-3)));
    let sum = aggregate(AggregateFunction::Sum, Some(arithmetic(ArithmeticOp::Add, product, Expr::Column(1))));
    let plan = AggregatePlan { columns: vec![INT, INT], filter: None, keys: vec![1], aggregates: vec![sum] };
    let rows = 5_000;
    let chunks = vec![
        chunk(INT, Int64Array::from_iter_values((0..rows).map(|row| i64::MAX - row))),
        chunk(INT, Int64Array::from_iter_values((0..rows).map(|row| row % 3))),
    ];
    let result = run(plan, chunks).unwrap();
    let AggregateColumn::Value { values, .. } = &result.aggregates[0] else { panic!("a sum is a value") };
    for (key, value) in result.keys[0].as_primitive::<Int64Type>().values().iter().zip(values) {
        let of_group = (0..rows).filter(|row| row % 3 == *key);
        assert_eq!(*value, of_group.map(|row| -3 * i128::from(i64::MAX - row) + i128::from(*key)).sum::<i128>(), "group {key}");
    }
}
