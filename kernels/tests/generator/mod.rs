//! Random columns, values and plans.

use bowshot_kernels::*;

use crate::reference::{FLOAT_UNITS, Value};

/// xorshift64*: small, seeded, the same on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

pub fn column_type(random: &mut Random) -> ColumnType {
    match random.below(11) {
        0 => ColumnType::Boolean,
        9 | 10 => ColumnType::Float64,
        1 | 2 => ColumnType::Int { bits: *random.pick(&[8, 16, 32, 64]), signed: random.chance(70) },
        3 | 4 => ColumnType::Decimal128 { precision: *random.pick(&[9, 15, 38]), scale: 2 },
        5 => ColumnType::Date32,
        6 => ColumnType::Timestamp,
        _ => ColumnType::Utf8,
    }
}

const TEXTS: [&str; 9] = ["", "a", "abc", "Abc", "ÄÖ", "東京", "ab%", "a long string of more than twelve bytes", "zz"];

pub fn value(random: &mut Random, column: ColumnType, mode: usize) -> Value {
    let (low, high) = match column {
        ColumnType::Boolean => return Value::Boolean(random.chance(40)),
        ColumnType::Float64 => return Value::Float(TotalOrder::of(float(random, mode))),
        ColumnType::Utf8 if mode < 4 => return Value::Text((*random.pick(&TEXTS)).to_string()),
        ColumnType::Utf8 => {
            return Value::Text(format!("{}{}", random.pick(&TEXTS), random.below(700)));
        }
        ColumnType::Int { bits, signed: true } => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
        ColumnType::Int { bits, signed: false } => (0, (1i128 << bits) - 1),
        ColumnType::Date32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
        ColumnType::Timestamp => (i128::from(i64::MIN), i128::from(i64::MAX)),
        ColumnType::Decimal128 { precision, .. } => (1 - 10i128.pow(u32::from(precision)), 10i128.pow(u32::from(precision)) - 1),
    };
    let any = i128::from(random.next()) << 40 | i128::from(random.next());
    Value::Int(match mode {
        // Few values; around zero; steps; a narrow band far out; everything; the extremes.
        0 => (any % 5).clamp(low, high),
        1 => (any % 2_001 - 1_000).clamp(low, high),
        2 => (any % 3_000 * 100 - 7).clamp(low, high),
        3 => (high - any % 70_000).clamp(low, high),
        4 => {
            let span = (high as u128).wrapping_sub(low as u128).min(u128::from(u64::MAX));
            low + (any as u128 % (span + 1)) as i128
        }
        _ if matches!(column, ColumnType::Decimal128 { precision: 38, .. }) => (any % 3 - 1) * 10i128.pow(30),
        _ => *random.pick(&[low, high, 0, 1]),
    })
}

/// A whole multiple of a unit, in every mode.
fn float(random: &mut Random, mode: usize) -> f64 {
    let any = |random: &mut Random, bound: i64| (random.next() as i64 % bound) as f64;
    match mode {
        0 => any(random, 4),
        1 => any(random, 100_000) / FLOAT_UNITS,
        2 => any(random, 1 << 45) / FLOAT_UNITS,
        3 => 1e9 + any(random, 1_000).abs(),
        4 => any(random, 1 << 53),
        // Too far apart for one fixed point.
        _ => *random.pick(&[0.0, -0.0, 1.0 / FLOAT_UNITS, -3.0 / FLOAT_UNITS, 2f64.powi(97), -(2f64.powi(97))]),
    }
}

fn literal(random: &mut Random, column: ColumnType) -> Literal {
    if random.chance(6) {
        return Literal::Null;
    }
    let mode = random.below(6);
    match value(random, column, mode) {
        Value::Boolean(answer) => Literal::Boolean(answer),
        Value::Int(value) => Literal::Int(value),
        Value::Float(value) => Literal::Float64(value),
        Value::Text(text) => Literal::Utf8(text),
        Value::Null => Literal::Null,
    }
}

fn compare_op(random: &mut Random) -> CompareOp {
    *random.pick(&[CompareOp::Eq, CompareOp::NotEq, CompareOp::Lt, CompareOp::LtEq, CompareOp::Gt, CompareOp::GtEq])
}

const DECIMAL: ColumnType = ColumnType::Decimal128 { precision: 38, scale: 2 };

fn integer(random: &mut Random, columns: &[ColumnType], depth: usize) -> Expr {
    let integers: Vec<usize> = (0..columns.len()).filter(|column| columns[*column].is_integer()).collect();
    let leaf = depth == 0 || random.chance(40);
    if leaf && !integers.is_empty() && random.chance(80) {
        return Expr::Column(*random.pick(&integers));
    }
    if leaf {
        return Expr::Literal(if random.chance(5) { Literal::Null } else { Literal::Int(random.below(300) as i128 - 100) });
    }
    if random.chance(20) {
        let branches = (0..1 + random.below(3)).map(|_| (predicate(random, columns, 1), integer(random, columns, depth - 1))).collect();
        let otherwise = random.chance(70).then(|| Box::new(integer(random, columns, depth - 1)));
        return Expr::Case { branches, otherwise };
    }
    let left = Box::new(integer(random, columns, depth - 1));
    match random.below(8) {
        0 => Expr::Rescale { input: left, power: random.below(4) as u8 },
        1 => Expr::Negate { input: left, result: DECIMAL },
        choice => {
            let op = *random.pick(&[ArithmeticOp::Add, ArithmeticOp::Sub, ArithmeticOp::Mul]);
            let result = if choice == 2 { ColumnType::Int { bits: 64, signed: true } } else { DECIMAL };
            Expr::Arithmetic { op, left, right: Box::new(integer(random, columns, depth - 1)), result }
        }
    }
}

pub fn predicate(random: &mut Random, columns: &[ColumnType], depth: usize) -> Expr {
    if depth > 0 && random.chance(45) {
        let inputs = |random: &mut Random| (0..1 + random.below(3)).map(|_| predicate(random, columns, depth - 1)).collect();
        return match random.below(7) {
            6 => {
                let branches =
                    (0..1 + random.below(2)).map(|_| (predicate(random, columns, depth - 1), predicate(random, columns, depth - 1)));
                let branches = branches.collect();
                Expr::Case { branches, otherwise: random.chance(60).then(|| Box::new(predicate(random, columns, depth - 1))) }
            }
            0 | 1 => Expr::And(inputs(random)),
            2 | 3 => Expr::Or(inputs(random)),
            4 => Expr::Not(Box::new(predicate(random, columns, depth - 1))),
            _ => {
                let op = compare_op(random);
                let left = Box::new(predicate(random, columns, depth - 1));
                Expr::Compare { op, left, right: Box::new(predicate(random, columns, depth - 1)) }
            }
        };
    }
    let column = random.below(columns.len());
    let input = Box::new(Expr::Column(column));
    let column_type = columns[column];
    match random.below(10) {
        0 => Expr::IsNull(input),
        1 => Expr::IsNotNull(input),
        2 if column_type != ColumnType::Float64 => {
            let items = *random.pick(&[1, 2, 3, 5, 9, 40]);
            let mut list: Vec<Literal> = (0..items).map(|_| literal(random, column_type)).collect();
            if random.chance(70) {
                list.retain(|item| *item != Literal::Null);
            }
            if list.is_empty() {
                list.push(Literal::Null);
            }
            Expr::InList { input, list, negated: random.chance(40) }
        }
        3 => {
            let op = compare_op(random);
            Expr::Compare { op, left: Box::new(integer(random, columns, 2)), right: Box::new(integer(random, columns, 1)) }
        }
        4 | 5 if column_type == ColumnType::Utf8 => {
            let pattern = random.pick(&["%", "a%", "%b%", "_bc", "%京", "ab", "", "a_%", "%1", "zz"]).to_string();
            Expr::Like { input, pattern, negated: random.chance(30), case_insensitive: random.chance(30) }
        }
        6 if column_type == ColumnType::Boolean => *input,
        7 => Expr::Literal(random.pick(&[Literal::Null, Literal::Boolean(true), Literal::Boolean(false)]).clone()),
        _ => {
            let (op, literal) = (compare_op(random), Box::new(Expr::Literal(literal(random, column_type))));
            if random.chance(30) {
                Expr::Compare { op, left: literal, right: input }
            } else {
                Expr::Compare { op, left: input, right: literal }
            }
        }
    }
}

/// A predicate as 1, 0 or NULL: what is made of `bool_and` and `bool_or`.
fn truth(predicate: Expr) -> Expr {
    let integer = |value| Expr::Literal(Literal::Int(value));
    let is_false = Expr::Not(Box::new(predicate.clone()));
    Expr::Case { branches: vec![(predicate, integer(1)), (is_false, integer(0))], otherwise: None }
}

/// What is summed or searched for extremes.
fn argument(random: &mut Random, columns: &[ColumnType]) -> Expr {
    if random.chance(10) {
        return truth(predicate(random, columns, 2));
    }
    let floats: Vec<usize> = (0..columns.len()).filter(|column| columns[*column] == ColumnType::Float64).collect();
    if floats.is_empty() || random.chance(40) {
        return integer(random, columns, 2);
    }
    let column = Expr::Column(*random.pick(&floats));
    if random.chance(75) {
        return column;
    }
    let other = literal(random, ColumnType::Float64);
    Expr::Case {
        branches: vec![(predicate(random, columns, 1), column)],
        otherwise: random.chance(60).then(|| Box::new(Expr::Literal(other))),
    }
}

pub fn plan(random: &mut Random, columns: &[ColumnType]) -> AggregatePlan {
    let mut keys: Vec<usize> = (0..random.below(4).min(2)).map(|_| random.below(columns.len())).collect();
    keys.retain(|key| columns[*key] != ColumnType::Float64);
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
                AggregateFunction::Count if random.chance(50) => Some(Expr::Column(random.below(columns.len()))),
                AggregateFunction::Count if random.chance(50) => Some(predicate(random, columns, 1)),
                AggregateFunction::Min | AggregateFunction::Max if columns.contains(&ColumnType::Utf8) && random.chance(40) => {
                    columns.iter().position(|column| *column == ColumnType::Utf8).map(Expr::Column)
                }
                _ => Some(argument(random, columns)),
            };
            let filter = random.chance(25).then(|| predicate(random, columns, 1));
            Aggregate { function, argument, filter }
        })
        .collect();
    let filter = random.chance(70).then(|| predicate(random, columns, 3));
    AggregatePlan { columns: columns.to_vec(), filter, keys, aggregates }
}
