//! The meaning of a plan, row by row in `i128`: slow, plain, and shared by nothing in the crate.

use std::collections::BTreeMap;

use bowshot_kernels::*;

/// One value of one row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Null,
    Boolean(bool),
    Int(i128),
    Float(TotalOrder),
    Text(String),
}

/// One aggregate's answer: a count, or a value with the count behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Count(u64),
    Value(Option<i128>, u64),
    /// An extreme among strings.
    Text(Option<String>),
    /// The bits of a rounded sum of doubles.
    FloatSum(Option<u64>, u64),
}

/// Doubles of the random tests are whole multiples of `1 / FLOAT_UNITS`, and their sums in these units fit 127 bits.
pub const FLOAT_UNITS: f64 = 1_024.0;

pub fn evaluate(expr: &Expr, row: &[Value]) -> Value {
    match expr {
        Expr::Column(column) => row[*column].clone(),
        Expr::Literal(literal) => of_literal(literal),
        Expr::Rescale { input, power } => integer(evaluate(input, row), |value| value * 10i128.pow(u32::from(*power))),
        Expr::Negate { input, .. } => integer(evaluate(input, row), |value| -value),
        Expr::Arithmetic { op, left, right, .. } => match (evaluate(left, row), evaluate(right, row)) {
            (Value::Int(left), Value::Int(right)) => Value::Int(match op {
                ArithmeticOp::Add => left + right,
                ArithmeticOp::Sub => left - right,
                ArithmeticOp::Mul => left * right,
            }),
            _ => Value::Null,
        },
        Expr::Compare { op, left, right } => compare(*op, &evaluate(left, row), &evaluate(right, row)),
        Expr::InList { input, list, negated } => {
            let input = evaluate(input, row);
            let answers: Vec<Value> = list.iter().map(|item| compare(CompareOp::Eq, &input, &of_literal(item))).collect();
            negate_if(*negated, any(&answers))
        }
        Expr::Like { input, pattern, negated, case_insensitive } => match evaluate(input, row) {
            Value::Text(text) => {
                let fold = |text: &str| {
                    if *case_insensitive { text.to_lowercase() } else { text.to_string() }
                };
                let (text, pattern): (Vec<char>, Vec<char>) = (fold(&text).chars().collect(), fold(pattern).chars().collect());
                Value::Boolean(like(&text, &pattern) != *negated)
            }
            _ => Value::Null,
        },
        Expr::IsNull(input) => Value::Boolean(evaluate(input, row) == Value::Null),
        Expr::IsNotNull(input) => Value::Boolean(evaluate(input, row) != Value::Null),
        Expr::Case { branches, otherwise } => {
            let taken = branches.iter().find(|(condition, _)| evaluate(condition, row) == Value::Boolean(true)).map(|(_, value)| value);
            taken.or(otherwise.as_deref()).map_or(Value::Null, |value| evaluate(value, row))
        }
        Expr::Or(inputs) => any(&inputs.iter().map(|input| evaluate(input, row)).collect::<Vec<_>>()),
        Expr::And(inputs) => {
            let inverted: Vec<_> = inputs.iter().map(|input| negate_if(true, evaluate(input, row))).collect();
            negate_if(true, any(&inverted))
        }
        Expr::Not(input) => negate_if(true, evaluate(input, row)),
    }
}

fn of_literal(literal: &Literal) -> Value {
    match literal {
        Literal::Null => Value::Null,
        Literal::Boolean(answer) => Value::Boolean(*answer),
        Literal::Int(value) => Value::Int(*value),
        Literal::Float64(value) => Value::Float(*value),
        Literal::Utf8(text) => Value::Text(text.clone()),
    }
}

fn integer(value: Value, map: impl Fn(i128) -> i128) -> Value {
    if let Value::Int(value) = value { Value::Int(map(value)) } else { Value::Null }
}

fn negate_if(negated: bool, value: Value) -> Value {
    if let Value::Boolean(answer) = value { Value::Boolean(answer != negated) } else { Value::Null }
}

fn any(values: &[Value]) -> Value {
    if values.contains(&Value::Boolean(true)) {
        Value::Boolean(true)
    } else if values.contains(&Value::Null) {
        Value::Null
    } else {
        Value::Boolean(false)
    }
}

fn compare(op: CompareOp, left: &Value, right: &Value) -> Value {
    if *left == Value::Null || *right == Value::Null {
        return Value::Null;
    }
    let unsigned_zero =
        |side: &Value| if *side == Value::Float(TotalOrder::of(-0.0)) { Value::Float(TotalOrder::of(0.0)) } else { side.clone() };
    let (left, right) = (&unsigned_zero(left), &unsigned_zero(right));
    Value::Boolean(match op {
        CompareOp::Eq => left == right,
        CompareOp::NotEq => left != right,
        CompareOp::Lt => left < right,
        CompareOp::LtEq => left <= right,
        CompareOp::Gt => left > right,
        CompareOp::GtEq => left >= right,
    })
}

fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('%', rest)) => (0..=text.len()).any(|skipped| like(&text[skipped..], rest)),
        Some(('_', rest)) => text.split_first().is_some_and(|(_, text)| like(text, rest)),
        Some((wanted, rest)) => text.split_first().is_some_and(|(found, text)| found == wanted && like(text, rest)),
    }
}

/// All groups of a plan over rows, by key.
pub fn run(plan: &AggregatePlan, rows: &[Vec<Value>]) -> BTreeMap<Vec<Value>, Vec<Answer>> {
    let empty = || -> Vec<Answer> {
        let answers = plan.aggregates.iter().map(|aggregate| match aggregate.function {
            AggregateFunction::CountStar | AggregateFunction::Count => Answer::Count(0),
            _ => Answer::Value(None, 0),
        });
        answers.collect()
    };
    // Sums of doubles run in units until the end.
    let mut groups = run_in_units(plan, rows, empty);
    for answers in groups.values_mut() {
        for (answer, aggregate) in answers.iter_mut().zip(&plan.aggregates) {
            let is_float = aggregate.argument.as_ref().is_some_and(|argument| holds_floats(plan, argument));
            if matches!(&aggregate.argument, Some(Expr::Column(column)) if plan.columns[*column] == ColumnType::Utf8)
                && *answer == Answer::Value(None, 0)
            {
                *answer = Answer::Text(None);
            }
            if let (Answer::Value(units, count), true, AggregateFunction::Sum) = (&answer, is_float, aggregate.function) {
                *answer = Answer::FloatSum(units.map(|units| (units as f64 / FLOAT_UNITS).to_bits()), *count);
            }
        }
    }
    groups
}

fn holds_floats(plan: &AggregatePlan, expr: &Expr) -> bool {
    match expr {
        Expr::Column(column) => plan.columns[*column] == ColumnType::Float64,
        Expr::Literal(literal) => matches!(literal, Literal::Float64(_)),
        Expr::Case { branches, otherwise } => {
            branches.iter().map(|(_, value)| value).chain(otherwise.as_deref()).any(|value| holds_floats(plan, value))
        }
        _ => false,
    }
}

fn run_in_units(plan: &AggregatePlan, rows: &[Vec<Value>], empty: impl Fn() -> Vec<Answer>) -> BTreeMap<Vec<Value>, Vec<Answer>> {
    let is_true = |filter: &Option<Expr>, row: &[Value]| filter.as_ref().is_none_or(|filter| evaluate(filter, row) == Value::Boolean(true));
    let mut groups = BTreeMap::new();
    if plan.keys.is_empty() {
        groups.insert(Vec::new(), empty());
    }
    for row in rows.iter().filter(|row| is_true(&plan.filter, row)) {
        let key: Vec<Value> = plan.keys.iter().map(|key| row[*key].clone()).collect();
        let answers = groups.entry(key).or_insert_with(&empty);
        for (aggregate, answer) in plan.aggregates.iter().zip(answers) {
            if !is_true(&aggregate.filter, row) {
                continue;
            }
            let argument = aggregate.argument.as_ref().map(|argument| evaluate(argument, row));
            match (answer, argument) {
                (_, Some(Value::Null)) => {}
                (Answer::Count(count), _) => *count += 1,
                (answer @ Answer::Value(None, 0), Some(Value::Text(text))) => *answer = Answer::Text(Some(text)),
                (Answer::Text(Some(known)), Some(Value::Text(text))) => {
                    if (text < *known) == (aggregate.function == AggregateFunction::Min) {
                        *known = text;
                    }
                }
                (Answer::Value(known, count), Some(value)) => {
                    let value = match (aggregate.function, value) {
                        (_, Value::Int(value)) => value,
                        (AggregateFunction::Sum, Value::Float(value)) => (value.value() * FLOAT_UNITS) as i128,
                        (_, Value::Float(value)) => i128::from(value.place()),
                        (_, other) => panic!("{other:?} in an aggregate"),
                    };
                    *count += 1;
                    *known = Some(match (aggregate.function, *known) {
                        (_, None) => value,
                        (AggregateFunction::Min, Some(known)) => known.min(value),
                        (AggregateFunction::Max, Some(known)) => known.max(value),
                        (_, Some(known)) => known + value,
                    });
                }
                (answer, argument) => panic!("{answer:?} of {argument:?}"),
            }
        }
    }
    groups
}
