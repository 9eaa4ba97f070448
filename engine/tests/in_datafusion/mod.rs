//! A random case in DataFusion.
//!
//! Columns have their own types where they are keys, compared with literals, counted, summed or searched for extremes. Kernels compute with
//! whole numbers whatever the column, so arithmetic reads a second copy of each column: its lanes' integers as DECIMAL(38, 0).

use std::collections::BTreeMap;
use std::ops::{Add, Mul, Neg, Sub};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimeUnit};
use bowshot_engine::operators::exact_aggregates::exact_aggregates;
use bowshot_kernels::{AggregateFunction, AggregatePlan, ArithmeticOp, ColumnType, CompareOp, Expr, Literal, TotalOrder};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::MemTable;
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::expr::Like;
use datafusion::logical_expr::{Expr as Logical, ExprFunctionExt, Operator, binary_expr, col, lit, not, when};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::case::{Case, array, cell};
use crate::generator::Random;
use crate::reference::{Answer, Value};

/// Digits of the integers that arithmetic is done in.
const WIDE: (u8, i8) = (38, 0);

/// Groups and answers.
pub type Groups = BTreeMap<Vec<Value>, Vec<Answer>>;

/// COUNT(DISTINCT column) FILTER (WHERE …).
#[derive(Debug)]
pub struct Distinct {
    pub column: usize,
    pub filter: Option<Expr>,
}

/// The case's answers, and behind them one count for each of `distincts`.
pub async fn run(random: &mut Random, case: &Case, distincts: &[Distinct]) -> Result<Groups> {
    let config = SessionConfig::new().with_target_partitions(*random.pick(&[1, 3])).with_batch_size(*random.pick(&[100, 8_192]));
    let context = SessionContext::new_with_config(config);
    let plan = Plan { columns: &case.columns };
    let fields = case.columns.iter().enumerate().flat_map(|(position, column)| {
        let wide = DataType::Decimal128(WIDE.0, WIDE.1);
        [Field::new(format!("c{position}"), arrow_type(*column), true), Field::new(format!("wide{position}"), wide, true)]
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batches = case.groups.iter().map(|rows| Ok(vec![batch(random, case, rows, schema.clone())?])).collect::<Result<Vec<_>>>()?;
    let mut table = context.read_table(Arc::new(MemTable::try_new(schema, batches)?))?;
    if let Some(filter) = &case.plan.filter {
        table = table.filter(plan.predicate(filter))?;
    }
    let keys = case.plan.keys.iter().enumerate().map(|(position, column)| plan.column(*column).alias(format!("key{position}")));
    let aggregates = (0..case.plan.aggregates.len()).map(|position| plan.aggregate(&case.plan, position)).collect::<Result<Vec<_>>>()?;
    let distincts = distincts.iter().map(|distinct| plan.distinct(distinct)).collect::<Result<Vec<_>>>()?;
    let aggregates = aggregates
        .into_iter()
        .flatten()
        .chain(distincts)
        .enumerate()
        .map(|(position, aggregate)| aggregate.alias(format!("answer{position}")));
    let batches = table.aggregate(keys.collect(), aggregates.collect())?.collect().await?;
    let mut groups = Groups::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let (keys, answers) = batch.columns().split_at(case.plan.keys.len());
            let (answers, counts) = answers.split_at(2 * case.plan.aggregates.len());
            let answers = answers.chunks(2).zip(&case.plan.aggregates);
            let answers = answers.map(|(columns, aggregate)| answer(aggregate.function, columns, row));
            let counts = counts.iter().map(|counts| Answer::Count(counts.as_primitive::<Int64Type>().value(row) as u64));
            let answers = answers.chain(counts).collect();
            assert!(groups.insert(keys.iter().map(|key| cell(key, row)).collect(), answers).is_none(), "a group came twice");
        }
    }
    Ok(groups)
}

/// A kernel's groups as DataFusion could give them: sums of 64-bit integers wrap, and an extreme among zeros has the sign of any of them.
pub fn in_its_types(plan: &AggregatePlan, mut groups: Groups) -> Groups {
    for (answer, aggregate) in groups.values_mut().flat_map(|answers| answers.iter_mut().zip(&plan.aggregates)) {
        let (Answer::Value(Some(value), _), Some(argument)) = (answer, &aggregate.argument) else { continue };
        let is_float = Plan { columns: &plan.columns }.kind(argument) == Some(Kind::Float);
        match (aggregate.function, argument) {
            (AggregateFunction::Sum, Expr::Column(column)) => match plan.columns[*column] {
                ColumnType::Int { signed: true, .. } => *value = i128::from(*value as i64),
                ColumnType::Int { signed: false, .. } => *value = i128::from(*value as u64),
                _ => {}
            },
            (AggregateFunction::Min | AggregateFunction::Max, _) if is_float => *value = unsigned_zero(*value),
            _ => {}
        }
    }
    groups
}

/// The place of a double, or of 0 for -0: which of them DataFusion's extremes keep depends on the order of rows.
fn unsigned_zero(place: i128) -> i128 {
    if place == i128::from(TotalOrder::of(-0.0).place()) { i128::from(TotalOrder::of(0.0).place()) } else { place }
}

fn batch(random: &mut Random, case: &Case, rows: &[Vec<Value>], schema: Arc<Schema>) -> Result<RecordBatch> {
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (position, column) in case.columns.iter().enumerate() {
        let values: Vec<Value> = rows.iter().map(|row| row[position].clone()).collect();
        arrays.push(arrow::compute::cast(&array(random, *column, &values), &arrow_type(*column))?);
        let integers = values.iter().map(|value| if let Value::Int(value) = value { Some(*value) } else { None });
        arrays.push(Arc::new(integers.collect::<Decimal128Array>().with_precision_and_scale(WIDE.0, WIDE.1)?));
    }
    Ok(RecordBatch::try_new(schema, arrays)?)
}

fn arrow_type(column: ColumnType) -> DataType {
    match column {
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Int { bits: 8, signed: true } => DataType::Int8,
        ColumnType::Int { bits: 16, signed: true } => DataType::Int16,
        ColumnType::Int { bits: 32, signed: true } => DataType::Int32,
        ColumnType::Int { signed: true, .. } => DataType::Int64,
        ColumnType::Int { bits: 8, .. } => DataType::UInt8,
        ColumnType::Int { bits: 16, .. } => DataType::UInt16,
        ColumnType::Int { bits: 32, .. } => DataType::UInt32,
        ColumnType::Int { .. } => DataType::UInt64,
        ColumnType::Decimal128 { precision, scale } => DataType::Decimal128(precision, scale),
        ColumnType::Date32 => DataType::Date32,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        ColumnType::Float64 => DataType::Float64,
        ColumnType::Utf8 => DataType::Utf8,
    }
}

/// One answer of a row: what the aggregate gave, and beside all but counts how many inputs it had.
fn answer(function: AggregateFunction, columns: &[ArrayRef], row: usize) -> Answer {
    let [answer, inputs] = columns else { panic!("{} columns for an answer", columns.len()) };
    let inputs = inputs.as_primitive::<Int64Type>().value(row) as u64;
    match answer.data_type() {
        _ if matches!(function, AggregateFunction::Count | AggregateFunction::CountStar) => Answer::Count(inputs),
        DataType::Utf8 => Answer::Text(answer.is_valid(row).then(|| answer.as_string::<i32>().value(row).to_string())),
        DataType::Float64 => {
            let value = answer.is_valid(row).then(|| answer.as_primitive::<Float64Type>().value(row));
            match function {
                AggregateFunction::Sum => Answer::FloatSum(value.map(f64::to_bits), inputs),
                _ => Answer::Value(value.map(|value| unsigned_zero(TotalOrder::of(value).place().into())), inputs),
            }
        }
        _ => match cell(answer, row) {
            Value::Int(value) => Answer::Value(Some(value), inputs),
            Value::Null => Answer::Value(None, inputs),
            other => panic!("{other:?} as an answer"),
        },
    }
}

/// What an expression yields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    Integer,
    Float,
}

struct Plan<'a> {
    columns: &'a [ColumnType],
}

impl Plan<'_> {
    fn column(&self, position: usize) -> Logical {
        col(format!("c{position}"))
    }

    /// The aggregate, and the count of its inputs.
    fn aggregate(&self, plan: &AggregatePlan, position: usize) -> Result<[Logical; 2]> {
        let aggregate = &plan.aggregates[position];
        let argument = aggregate.argument.as_ref().map_or(lit(1i64), |argument| self.argument(aggregate.function, argument));
        let answer = match aggregate.function {
            AggregateFunction::Min => min(argument.clone()),
            AggregateFunction::Max => max(argument.clone()),
            AggregateFunction::Sum => {
                let exact = exact_aggregates().into_iter().find(|aggregate| aggregate.name() == "sum");
                exact.map_or_else(|| panic!("no exact sum"), |sum| sum.call(vec![argument.clone()]))
            }
            AggregateFunction::Count | AggregateFunction::CountStar => count(argument.clone()),
        };
        Ok([self.filtered(answer, aggregate.filter.as_ref())?, self.filtered(count(argument), aggregate.filter.as_ref())?])
    }

    fn distinct(&self, distinct: &Distinct) -> Result<Logical> {
        // The builder of a filter forgets what was distinct before it.
        let values = count(self.column(distinct.column)).distinct();
        match &distinct.filter {
            Some(filter) => values.filter(self.predicate(filter)).build(),
            None => values.build(),
        }
    }

    fn filtered(&self, function: Logical, filter: Option<&Expr>) -> Result<Logical> {
        match filter {
            Some(filter) => function.filter(self.predicate(filter)).build(),
            None => Ok(function),
        }
    }

    /// Whether a literal is one of the column's type: arithmetic has any.
    fn holds(&self, column: usize, literal: &Literal) -> bool {
        match (self.columns[column], literal) {
            (ColumnType::Int { bits, signed: true }, Literal::Int(value)) => value >> (bits - 1) == value >> 127,
            (ColumnType::Int { bits, signed: false }, Literal::Int(value)) => value >> bits == 0,
            _ => true,
        }
    }

    fn argument(&self, function: AggregateFunction, expr: &Expr) -> Logical {
        match expr {
            Expr::Column(column) => match self.columns[*column] {
                ColumnType::Date32 | ColumnType::Timestamp if function == AggregateFunction::Sum => self.integer(expr),
                _ => self.column(*column),
            },
            _ => self.value(expr, self.kind(expr).unwrap_or(Kind::Integer)),
        }
    }

    /// `None` of NULL.
    fn kind(&self, expr: &Expr) -> Option<Kind> {
        match expr {
            Expr::Column(column) => Some(match self.columns[*column] {
                ColumnType::Boolean => Kind::Boolean,
                ColumnType::Float64 => Kind::Float,
                _ => Kind::Integer,
            }),
            Expr::Literal(Literal::Null) => None,
            Expr::Literal(Literal::Boolean(_)) => Some(Kind::Boolean),
            Expr::Literal(Literal::Float64(_)) => Some(Kind::Float),
            Expr::Literal(_) | Expr::Rescale { .. } | Expr::Negate { .. } | Expr::Arithmetic { .. } => Some(Kind::Integer),
            Expr::Case { branches, otherwise } => {
                branches.iter().map(|(_, value)| value).chain(otherwise.as_deref()).find_map(|value| self.kind(value))
            }
            _ => Some(Kind::Boolean),
        }
    }

    fn value(&self, expr: &Expr, kind: Kind) -> Logical {
        match kind {
            Kind::Boolean => self.predicate(expr),
            Kind::Integer => self.integer(expr),
            Kind::Float => self.float(expr),
        }
    }

    fn case(&self, branches: &[(Expr, Expr)], otherwise: Option<&Expr>, kind: Kind) -> Logical {
        let Some(((condition, value), rest)) = branches.split_first() else { panic!("CASE without a branch") };
        let mut whole = when(self.predicate(condition), self.value(value, kind));
        for (condition, value) in rest {
            whole = whole.when(self.predicate(condition), self.value(value, kind));
        }
        match otherwise {
            Some(value) => whole.otherwise(self.value(value, kind)),
            None => whole.end(),
        }
        .expect("CASE of one type")
    }

    fn integer(&self, expr: &Expr) -> Logical {
        let wide = |value| lit(ScalarValue::Decimal128(value, WIDE.0, WIDE.1));
        match expr {
            Expr::Column(column) => col(format!("wide{column}")),
            Expr::Literal(Literal::Null) => wide(None),
            Expr::Literal(Literal::Int(value)) => wide(Some(*value)),
            Expr::Rescale { input, power } => self.integer(input).mul(wide(Some(10i128.pow(u32::from(*power))))),
            Expr::Negate { input, .. } => self.integer(input).neg(),
            Expr::Arithmetic { op, left, right, .. } => {
                let (left, right) = (self.integer(left), self.integer(right));
                match op {
                    ArithmeticOp::Add => left.add(right),
                    ArithmeticOp::Sub => left.sub(right),
                    ArithmeticOp::Mul => left.mul(right),
                }
            }
            Expr::Case { branches, otherwise } => self.case(branches, otherwise.as_deref(), Kind::Integer),
            other => panic!("{other:?} as an integer"),
        }
    }

    fn float(&self, expr: &Expr) -> Logical {
        match expr {
            Expr::Column(column) => self.column(*column),
            Expr::Literal(literal) => lit(scalar(ColumnType::Float64, literal)),
            Expr::Case { branches, otherwise } => self.case(branches, otherwise.as_deref(), Kind::Float),
            other => panic!("{other:?} as a double"),
        }
    }

    fn predicate(&self, expr: &Expr) -> Logical {
        match expr {
            Expr::Column(column) => self.column(*column),
            Expr::Literal(literal) => lit(scalar(ColumnType::Boolean, literal)),
            Expr::Compare { op, left, right } => {
                let (left, right) = match (left.as_ref(), right.as_ref()) {
                    (Expr::Column(column), Expr::Literal(literal)) if self.holds(*column, literal) => {
                        (self.column(*column), lit(scalar(self.columns[*column], literal)))
                    }
                    (Expr::Literal(literal), Expr::Column(column)) if self.holds(*column, literal) => {
                        (lit(scalar(self.columns[*column], literal)), self.column(*column))
                    }
                    (left, right) => {
                        let kind = self.kind(left).or(self.kind(right)).unwrap_or(Kind::Integer);
                        (self.value(left, kind), self.value(right, kind))
                    }
                };
                binary_expr(left, operator(*op), right)
            }
            Expr::InList { input, list, negated } => {
                let Expr::Column(column) = input.as_ref() else { panic!("IN over {input:?}") };
                let (nulls, values): (Vec<_>, Vec<_>) =
                    list.iter().map(|item| scalar(self.columns[*column], item)).partition(datafusion::common::ScalarValue::is_null);
                let values = self.column(*column).in_list(values.into_iter().map(lit).collect(), *negated);
                // DataFusion makes one list of two, and takes a NULL for no member: it gets none.
                let unknown = lit(datafusion::common::ScalarValue::Boolean(None));
                match (nulls.is_empty(), *negated) {
                    (true, _) => values,
                    (false, true) => values.and(unknown),
                    (false, false) => values.or(unknown),
                }
            }
            Expr::Like { input, pattern, negated, case_insensitive } => {
                let input = Box::new(self.predicate(input));
                Logical::Like(Like::new(*negated, input, Box::new(lit(pattern.as_str())), None, *case_insensitive))
            }
            Expr::IsNull(input) => self.predicate(input).is_null(),
            Expr::IsNotNull(input) => self.predicate(input).is_not_null(),
            Expr::And(inputs) => inputs.iter().map(|input| self.predicate(input)).reduce(Logical::and).unwrap_or(lit(true)),
            Expr::Or(inputs) => inputs.iter().map(|input| self.predicate(input)).reduce(Logical::or).unwrap_or(lit(false)),
            Expr::Not(input) => not(self.predicate(input)),
            Expr::Case { branches, otherwise } => self.case(branches, otherwise.as_deref(), Kind::Boolean),
            other => panic!("{other:?} as a predicate"),
        }
    }
}

fn operator(op: CompareOp) -> Operator {
    match op {
        CompareOp::Eq => Operator::Eq,
        CompareOp::NotEq => Operator::NotEq,
        CompareOp::Lt => Operator::Lt,
        CompareOp::LtEq => Operator::LtEq,
        CompareOp::Gt => Operator::Gt,
        CompareOp::GtEq => Operator::GtEq,
    }
}

/// A literal in a column's own type.
fn scalar(column: ColumnType, literal: &Literal) -> ScalarValue {
    let data_type = arrow_type(column);
    match literal {
        Literal::Null => ScalarValue::try_from(&data_type).expect("a type that has a NULL"),
        Literal::Boolean(value) => ScalarValue::Boolean(Some(*value)),
        Literal::Float64(value) => ScalarValue::Float64(Some(value.value())),
        Literal::Utf8(text) => ScalarValue::Utf8(Some(text.clone())),
        Literal::Int(value) => match data_type {
            DataType::Decimal128(precision, scale) => ScalarValue::Decimal128(Some(*value), precision, scale),
            DataType::UInt64 => ScalarValue::UInt64(Some(*value as u64)),
            DataType::Date32 => ScalarValue::Date32(Some(*value as i32)),
            DataType::Timestamp(..) => ScalarValue::TimestampMicrosecond(Some(*value as i64), None),
            _ => ScalarValue::Int64(Some(*value as i64)).cast_to(&data_type).expect("a literal in its column's range"),
        },
    }
}
