//! Random schemas, rows and plans: host kernel == plain interpreter == device kernel.
//!
//! `BOWSHOT_SEED=<seed> BOWSHOT_CASES=1 cargo test --release -p bowshot-kernels --test random_plans` replays one case.

mod reference;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use bowshot_kernels::*;
use reference::{Answer, Value};

/// xorshift64*: small, seeded, the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

#[test]
fn host_device_and_interpreter_agree() {
    let seed = environment("BOWSHOT_SEED", 20_260_101);
    let cases = environment("BOWSHOT_CASES", 400);
    println!("BOWSHOT_SEED={seed} BOWSHOT_CASES={cases}");
    let kernels = Kernels::open(KernelsConfig {
        device: DevicePolicy::AllowSoftware,
        ..KernelsConfig::default()
    });
    let report = kernels.device_report();
    println!("{report:?}");
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    for case in 0..cases {
        let outcome = run_case(seed + case, &kernels, report.available);
        for event in outcome {
            *tally.entry(event).or_default() += 1;
        }
    }
    println!("{tally:#?}\n{:?}", kernels.counters());
    if cases >= 100 {
        let host = tally.get("host answered").copied().unwrap_or(0);
        assert!(
            host * 2 > cases as usize,
            "too few cases ran: {host} of {cases}"
        );
        if report.available {
            let device = tally.get("device answered").copied().unwrap_or(0);
            assert!(
                device * 4 > cases as usize,
                "too few cases ran on the device: {device} of {cases}"
            );
        }
    }
}

fn run_case(seed: u64, kernels: &Kernels, device: bool) -> Vec<String> {
    let random = &mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let columns: Vec<ColumnType> = (0..1 + random.below(5))
        .map(|_| column_type(random))
        .collect();
    let modes: Vec<usize> = columns.iter().map(|_| random.below(6)).collect();
    let null_percent: Vec<usize> = columns
        .iter()
        .map(|_| *random.pick(&[0, 0, 0, 10, 60, 100]))
        .collect();
    let sizes = [0, 1, 2, 7, 100, 2_047, 2_048, 2_049, 5_000];
    let groups: Vec<Vec<Vec<Value>>> = (0..1 + random.below(3))
        .map(|_| {
            let rows = *random.pick(&sizes);
            let row = |random: &mut Random| {
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
    let mut events = Vec::new();
    let kernel = match kernels.plan(plan.clone()) {
        Ok(kernel) => kernel,
        Err(decline) => return vec![format!("plan declined: {}", decline.reason)],
    };
    let mut chunked = Vec::new();
    for rows in &groups {
        match encode(random, &columns, rows) {
            Ok(group) => chunked.push(group),
            Err(KernelError::Declined(decline)) => {
                return vec![format!("encode declined: {}", decline.reason)];
            }
            Err(error) => panic!("BOWSHOT_SEED={seed}: {error}"),
        }
    }
    let mut expected = None;
    for executor in [Executor::Host, Executor::Device] {
        if executor == Executor::Device && !device {
            continue;
        }
        let name = if executor == Executor::Host {
            "host"
        } else {
            "device"
        };
        match accumulate(&kernel, executor, &chunked, random.chance(50)) {
            Ok(result) => {
                events.push(format!("{name} answered"));
                let expected =
                    expected.get_or_insert_with(|| reference::run(&plan, &groups.concat()));
                let found = answers(&plan, &result);
                assert_eq!(
                    &found, expected,
                    "{name} differs; BOWSHOT_SEED={seed} BOWSHOT_CASES=1\n{plan:#?}"
                );
            }
            Err(KernelError::Declined(decline)) => {
                events.push(format!("{name} declined: {}", decline.reason))
            }
            Err(error) => panic!("{name}: {error}; BOWSHOT_SEED={seed} BOWSHOT_CASES=1\n{plan:#?}"),
        }
    }
    events
}

/// All row groups in one state, or each in its own and merged.
fn accumulate(
    kernel: &Kernel,
    executor: Executor,
    groups: &[RowGroup],
    merged: bool,
) -> Result<GroupedResult, KernelError> {
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
    state.finish()
}

fn column_type(random: &mut Random) -> ColumnType {
    match random.below(9) {
        0 => ColumnType::Boolean,
        1 | 2 => ColumnType::Int {
            bits: *random.pick(&[8, 16, 32, 64]),
            signed: random.chance(70),
        },
        3 | 4 => ColumnType::Decimal128 {
            precision: *random.pick(&[9, 15, 38]),
            scale: 2,
        },
        5 => ColumnType::Date32,
        6 => ColumnType::Timestamp,
        _ => ColumnType::Utf8,
    }
}

const TEXTS: [&str; 9] = [
    "",
    "a",
    "abc",
    "Abc",
    "ÄÖ",
    "東京",
    "ab%",
    "a long string of more than twelve bytes",
    "zz",
];

fn value(random: &mut Random, column: ColumnType, mode: usize) -> Value {
    let (low, high) = match column {
        ColumnType::Boolean => return Value::Boolean(random.chance(40)),
        ColumnType::Utf8 if mode < 4 => return Value::Text((*random.pick(&TEXTS)).to_string()),
        ColumnType::Utf8 => {
            return Value::Text(format!("{}{}", random.pick(&TEXTS), random.below(700)));
        }
        ColumnType::Int { bits, signed: true } => {
            (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
        }
        ColumnType::Int {
            bits,
            signed: false,
        } => (0, (1i128 << bits) - 1),
        ColumnType::Date32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
        ColumnType::Timestamp => (i128::from(i64::MIN), i128::from(i64::MAX)),
        ColumnType::Decimal128 { precision, .. } => (
            1 - 10i128.pow(u32::from(precision)),
            10i128.pow(u32::from(precision)) - 1,
        ),
    };
    let any = i128::from(random.next()) << 40 | i128::from(random.next());
    Value::Int(match mode {
        // Few values; around zero; steps; a narrow band far out; everything; the extremes.
        0 => (any % 5).clamp(low, high),
        1 => (any % 2_001 - 1_000).clamp(low, high),
        2 => (any % 3_000 * 100 - 7).clamp(low, high),
        3 => (high - any % 70_000).clamp(low, high),
        4 => {
            let span = (high as u128)
                .wrapping_sub(low as u128)
                .min(u128::from(u64::MAX));
            low + (any as u128 % (span + 1)) as i128
        }
        _ if matches!(column, ColumnType::Decimal128 { precision: 38, .. }) => {
            (any % 3 - 1) * 10i128.pow(30)
        }
        _ => *random.pick(&[low, high, 0, 1]),
    })
}

fn literal(random: &mut Random, column: ColumnType) -> Literal {
    if random.chance(6) {
        return Literal::Null;
    }
    let mode = random.below(6);
    match value(random, column, mode) {
        Value::Boolean(answer) => Literal::Boolean(answer),
        Value::Int(value) => Literal::Int(value),
        Value::Text(text) => Literal::Utf8(text),
        Value::Null => Literal::Null,
    }
}

fn compare_op(random: &mut Random) -> CompareOp {
    *random.pick(&[
        CompareOp::Eq,
        CompareOp::NotEq,
        CompareOp::Lt,
        CompareOp::LtEq,
        CompareOp::Gt,
        CompareOp::GtEq,
    ])
}

const DECIMAL: ColumnType = ColumnType::Decimal128 {
    precision: 38,
    scale: 2,
};

fn integer(random: &mut Random, columns: &[ColumnType], depth: usize) -> Expr {
    let integers: Vec<usize> = (0..columns.len())
        .filter(|column| columns[*column].is_integer())
        .collect();
    let leaf = depth == 0 || random.chance(40);
    if leaf && !integers.is_empty() && random.chance(80) {
        return Expr::Column(*random.pick(&integers));
    }
    if leaf {
        return Expr::Literal(if random.chance(5) {
            Literal::Null
        } else {
            Literal::Int(random.below(300) as i128 - 100)
        });
    }
    let left = Box::new(integer(random, columns, depth - 1));
    match random.below(8) {
        0 => Expr::Rescale {
            input: left,
            power: random.below(4) as u8,
        },
        1 => Expr::Negate {
            input: left,
            result: DECIMAL,
        },
        choice => {
            let op = *random.pick(&[ArithmeticOp::Add, ArithmeticOp::Sub, ArithmeticOp::Mul]);
            let result = if choice == 2 {
                ColumnType::Int {
                    bits: 64,
                    signed: true,
                }
            } else {
                DECIMAL
            };
            Expr::Arithmetic {
                op,
                left,
                right: Box::new(integer(random, columns, depth - 1)),
                result,
            }
        }
    }
}

fn predicate(random: &mut Random, columns: &[ColumnType], depth: usize) -> Expr {
    if depth > 0 && random.chance(45) {
        let inputs = |random: &mut Random| {
            (0..1 + random.below(3))
                .map(|_| predicate(random, columns, depth - 1))
                .collect()
        };
        return match random.below(6) {
            0 | 1 => Expr::And(inputs(random)),
            2 | 3 => Expr::Or(inputs(random)),
            4 => Expr::Not(Box::new(predicate(random, columns, depth - 1))),
            _ => {
                let op = compare_op(random);
                let left = Box::new(predicate(random, columns, depth - 1));
                Expr::Compare {
                    op,
                    left,
                    right: Box::new(predicate(random, columns, depth - 1)),
                }
            }
        };
    }
    let column = random.below(columns.len());
    let input = Box::new(Expr::Column(column));
    let column_type = columns[column];
    match random.below(10) {
        0 => Expr::IsNull(input),
        1 => Expr::IsNotNull(input),
        2 => {
            let items = *random.pick(&[1, 2, 3, 5, 9, 40]);
            let mut list: Vec<Literal> = (0..items).map(|_| literal(random, column_type)).collect();
            if random.chance(70) {
                list.retain(|item| *item != Literal::Null);
            }
            if list.is_empty() {
                list.push(Literal::Null);
            }
            Expr::InList {
                input,
                list,
                negated: random.chance(40),
            }
        }
        3 => {
            let op = compare_op(random);
            Expr::Compare {
                op,
                left: Box::new(integer(random, columns, 2)),
                right: Box::new(integer(random, columns, 1)),
            }
        }
        4 | 5 if column_type == ColumnType::Utf8 => {
            let pattern = random
                .pick(&["%", "a%", "%b%", "_bc", "%京", "ab", "", "a_%", "%1", "zz"])
                .to_string();
            Expr::Like {
                input,
                pattern,
                negated: random.chance(30),
                case_insensitive: random.chance(30),
            }
        }
        6 if column_type == ColumnType::Boolean => *input,
        7 => Expr::Literal(
            random
                .pick(&[
                    Literal::Null,
                    Literal::Boolean(true),
                    Literal::Boolean(false),
                ])
                .clone(),
        ),
        _ => {
            let (op, literal) = (
                compare_op(random),
                Box::new(Expr::Literal(literal(random, column_type))),
            );
            if random.chance(30) {
                Expr::Compare {
                    op,
                    left: literal,
                    right: input,
                }
            } else {
                Expr::Compare {
                    op,
                    left: input,
                    right: literal,
                }
            }
        }
    }
}

fn plan(random: &mut Random, columns: &[ColumnType]) -> AggregatePlan {
    let keys = (0..random.below(4).min(2))
        .map(|_| random.below(columns.len()))
        .collect();
    let aggregates = (0..1 + random.below(4))
        .map(|_| {
            let function = *random.pick(&[
                AggregateFunction::CountStar,
                AggregateFunction::Count,
                AggregateFunction::Sum,
                AggregateFunction::Sum,
                AggregateFunction::Min,
                AggregateFunction::Max,
            ]);
            let argument = match function {
                AggregateFunction::CountStar => None,
                AggregateFunction::Count if random.chance(50) => {
                    Some(Expr::Column(random.below(columns.len())))
                }
                AggregateFunction::Count if random.chance(50) => {
                    Some(predicate(random, columns, 1))
                }
                _ => Some(integer(random, columns, 2)),
            };
            let filter = random.chance(25).then(|| predicate(random, columns, 1));
            Aggregate {
                function,
                argument,
                filter,
            }
        })
        .collect();
    let filter = random.chance(70).then(|| predicate(random, columns, 3));
    AggregatePlan {
        columns: columns.to_vec(),
        filter,
        keys,
        aggregates,
    }
}

fn encode(
    random: &mut Random,
    columns: &[ColumnType],
    rows: &[Vec<Value>],
) -> Result<RowGroup, KernelError> {
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
                    Value::Boolean(answer) => Some(i128::from(*answer)),
                    _ => None,
                };
                assert_eq!(chunk.value(row), expected, "round trip of {column:?}");
            }
        }
        chunks.push(Arc::new(chunk));
    }
    Ok(RowGroup {
        row_count: rows.len(),
        chunks,
    })
}

fn array(random: &mut Random, column: ColumnType, values: &[Value]) -> ArrayRef {
    let integers = || {
        values.iter().map(|value| {
            if let Value::Int(value) = value {
                Some(*value)
            } else {
                None
            }
        })
    };
    let texts = || {
        values.iter().map(|value| {
            if let Value::Text(text) = value {
                Some(text.as_str())
            } else {
                None
            }
        })
    };
    macro_rules! primitive {
        ($array:ty, $native:ty) => {
            Arc::new(<$array>::from_iter(integers().map(|value| {
                value.map(|value| <$native>::try_from(value).unwrap())
            }))) as ArrayRef
        };
    }
    match column {
        ColumnType::Boolean => Arc::new(BooleanArray::from_iter(values.iter().map(|value| {
            if let Value::Boolean(answer) = value {
                Some(*answer)
            } else {
                None
            }
        }))),
        ColumnType::Int {
            bits: 8,
            signed: true,
        } => primitive!(Int8Array, i8),
        ColumnType::Int {
            bits: 16,
            signed: true,
        } => primitive!(Int16Array, i16),
        ColumnType::Int {
            bits: 32,
            signed: true,
        } => primitive!(Int32Array, i32),
        ColumnType::Int { signed: true, .. } => primitive!(Int64Array, i64),
        ColumnType::Int { bits: 8, .. } => primitive!(UInt8Array, u8),
        ColumnType::Int { bits: 16, .. } => primitive!(UInt16Array, u16),
        ColumnType::Int { bits: 32, .. } => primitive!(UInt32Array, u32),
        ColumnType::Int { .. } => primitive!(UInt64Array, u64),
        ColumnType::Date32 => primitive!(Date32Array, i32),
        ColumnType::Timestamp => primitive!(TimestampMicrosecondArray, i64),
        ColumnType::Decimal128 {
            precision: 9,
            scale,
        } if random.chance(30) => {
            let array =
                Decimal32Array::from_iter(integers().map(|value| value.map(|value| value as i32)));
            Arc::new(array.with_precision_and_scale(9, scale).unwrap())
        }
        ColumnType::Decimal128 { precision, scale } => Arc::new(
            Decimal128Array::from_iter(integers())
                .with_precision_and_scale(precision, scale)
                .unwrap(),
        ),
        ColumnType::Utf8 => match random.below(4) {
            0 => Arc::new(StringArray::from_iter(texts())),
            1 => Arc::new(LargeStringArray::from_iter(texts())),
            2 => Arc::new(StringViewArray::from_iter(texts())),
            _ => Arc::new(texts().collect::<DictionaryArray<Int32Type>>()),
        },
    }
}

fn answers(plan: &AggregatePlan, result: &GroupedResult) -> BTreeMap<Vec<Value>, Vec<Answer>> {
    let mut groups = BTreeMap::new();
    for group in 0..result.group_count {
        let key = result
            .keys
            .iter()
            .map(|key| cell(key, group))
            .collect::<Vec<_>>();
        let answers = result.aggregates.iter().map(|aggregate| match aggregate {
            AggregateColumn::Count(counts) => Answer::Count(counts[group]),
            AggregateColumn::Value { values, counts } => {
                Answer::Value((counts[group] > 0).then_some(values[group]), counts[group])
            }
        });
        assert!(
            groups.insert(key, answers.collect()).is_none(),
            "a group came twice"
        );
    }
    assert_eq!(result.keys.len(), plan.keys.len());
    groups
}

fn cell(array: &ArrayRef, row: usize) -> Value {
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
