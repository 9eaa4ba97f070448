//! The plan of one hot aggregation, and the checks that need no data.

use crate::error::Decline;
use crate::expr::{ColumnType, Expr, Literal};
use crate::limits::{EXPRESSION_DEPTH_MAX, EXPRESSION_NODES_MAX};

/// What an aggregate computes. AVG is SUM divided by the caller: counts come with sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// COUNT(*): rows. No argument.
    CountStar,
    /// COUNT(x): rows where x is not NULL.
    Count,
    /// SUM(x): exact in `i128` over integers, as an [`crate::ExactFloatSum`] over doubles.
    Sum,
    /// MIN(x) over integers, doubles without NaN, or a string column.
    Min,
    /// MAX(x) over integers, doubles without NaN, or a string column.
    Max,
}

/// One aggregate of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate {
    /// What is computed.
    pub function: AggregateFunction,
    /// The argument; absent for COUNT(*) only.
    pub argument: Option<Expr>,
    /// FILTER (WHERE ...): rows that are not true here do not count.
    pub filter: Option<Expr>,
}

/// Filter, keys and aggregates over the columns of a row group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregatePlan {
    /// Types of the columns, in the order in which chunks arrive.
    pub columns: Vec<ColumnType>,
    /// WHERE: only rows that are true here take part.
    pub filter: Option<Expr>,
    /// GROUP BY: positions in `columns`. Empty means one group over everything.
    pub keys: Vec<usize>,
    /// The aggregates, in output order.
    pub aggregates: Vec<Aggregate>,
}

impl AggregatePlan {
    /// Whether the answer is one group without aggregates, whatever the rows.
    pub(crate) fn asks_nothing(&self) -> bool {
        self.keys.is_empty() && self.aggregates.is_empty()
    }
}

/// What an expression yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer,
    Float,
    Boolean,
    Text,
    /// The NULL literal, which fits anywhere.
    Null,
}

impl Kind {
    fn of(column: ColumnType) -> Self {
        match column {
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Utf8 => Self::Text,
            ColumnType::Float64 => Self::Float,
            _ => Self::Integer,
        }
    }

    fn fits(self, wanted: Kind) -> bool {
        self == wanted || self == Self::Null
    }
}

/// The kind of a well-formed expression, without checking it.
pub(crate) fn kind_of(columns: &[ColumnType], expr: &Expr) -> Kind {
    match expr {
        Expr::Column(column) => columns.get(*column).map_or(Kind::Null, |column| Kind::of(*column)),
        Expr::Literal(Literal::Null) => Kind::Null,
        Expr::Literal(Literal::Boolean(_)) => Kind::Boolean,
        Expr::Literal(Literal::Int(_)) => Kind::Integer,
        Expr::Literal(Literal::Float64(_)) => Kind::Float,
        Expr::Literal(Literal::Utf8(_)) => Kind::Text,
        Expr::Rescale { .. } | Expr::Arithmetic { .. } | Expr::Negate { .. } => Kind::Integer,
        Expr::Case { branches, otherwise } => {
            let values = branches.iter().map(|(_, value)| value).chain(otherwise.as_deref());
            values.map(|value| kind_of(columns, value)).find(|kind| *kind != Kind::Null).unwrap_or(Kind::Null)
        }
        _ => Kind::Boolean,
    }
}

/// Checks types and shapes of a whole plan.
pub(crate) fn check(plan: &AggregatePlan) -> Result<(), Decline> {
    let mut checker = Checker { columns: &plan.columns, nodes: 0 };
    for column in &plan.columns {
        match column {
            ColumnType::Int { bits, .. } if !matches!(bits, 8 | 16 | 32 | 64) => {
                return Err(Decline::new(format!("integers of {bits} bits")));
            }
            ColumnType::Decimal128 { precision, scale } if !(1..=38).contains(precision) || *scale > *precision as i8 => {
                return Err(Decline::new(format!("Decimal128({precision}, {scale})")));
            }
            _ => {}
        }
    }
    for key in &plan.keys {
        if *key >= plan.columns.len() {
            return Err(Decline::new(format!("key column {key} of {}", plan.columns.len())));
        }
        if plan.columns[*key] == ColumnType::Float64 {
            return Err(Decline::new("GROUP BY doubles"));
        }
    }
    if let Some(filter) = &plan.filter {
        checker.expect(filter, Kind::Boolean, "filter")?;
    }
    for aggregate in &plan.aggregates {
        if let Some(filter) = &aggregate.filter {
            checker.expect(filter, Kind::Boolean, "aggregate filter")?;
        }
        match (aggregate.function, &aggregate.argument) {
            (AggregateFunction::CountStar, None) => {}
            (AggregateFunction::CountStar, Some(_)) => {
                return Err(Decline::new("COUNT(*) with an argument"));
            }
            (function, None) => {
                return Err(Decline::new(format!("{} without an argument", name_of(function))));
            }
            (AggregateFunction::Count, Some(argument)) => {
                if matches!(checker.check(argument, 0)?, Kind::Text) && !matches!(argument, Expr::Column(_)) {
                    return Err(Decline::new("COUNT over a string expression"));
                }
            }
            (function, Some(argument)) => {
                let kind = checker.check(argument, 0)?;
                if kind == Kind::Text && function != AggregateFunction::Sum && matches!(argument, Expr::Column(_)) {
                    continue;
                }
                if !kind.fits(Kind::Integer) && kind != Kind::Float {
                    let kind = if kind == Kind::Text { "Utf8" } else { "Boolean" };
                    return Err(Decline::new(format!("{} over {kind}", name_of(function))));
                }
            }
        }
    }
    Ok(())
}

fn name_of(function: AggregateFunction) -> &'static str {
    match function {
        AggregateFunction::CountStar => "COUNT(*)",
        AggregateFunction::Count => "COUNT",
        AggregateFunction::Sum => "SUM",
        AggregateFunction::Min => "MIN",
        AggregateFunction::Max => "MAX",
    }
}

struct Checker<'a> {
    columns: &'a [ColumnType],
    nodes: usize,
}

impl Checker<'_> {
    fn expect(&mut self, expr: &Expr, wanted: Kind, role: &str) -> Result<(), Decline> {
        let kind = self.check(expr, 0)?;
        if kind.fits(wanted) { Ok(()) } else { Err(Decline::new(format!("{role} of the wrong type ({kind:?})"))) }
    }

    fn operand(&mut self, expr: &Expr, depth: usize, wanted: Kind, role: &str) -> Result<(), Decline> {
        let kind = self.check(expr, depth)?;
        if kind.fits(wanted) { Ok(()) } else { Err(Decline::new(format!("{role} over {kind:?}"))) }
    }

    fn check(&mut self, expr: &Expr, depth: usize) -> Result<Kind, Decline> {
        self.nodes += 1;
        if depth >= EXPRESSION_DEPTH_MAX || self.nodes > EXPRESSION_NODES_MAX {
            return Err(Decline::new("expression too large"));
        }
        let below = depth + 1;
        match expr {
            Expr::Column(column) if *column >= self.columns.len() => {
                return Err(Decline::new(format!("column {column} of {}", self.columns.len())));
            }
            Expr::Column(_) | Expr::Literal(_) => {}
            Expr::Rescale { input, power } => {
                self.operand(input, below, Kind::Integer, "rescale")?;
                if *power > 38 {
                    return Err(Decline::new(format!("rescale by 10^{power}")));
                }
            }
            Expr::Arithmetic { left, right, result, .. } => {
                self.operand(left, below, Kind::Integer, "arithmetic")?;
                self.operand(right, below, Kind::Integer, "arithmetic")?;
                result.arithmetic_range().ok_or_else(|| Decline::new(format!("arithmetic in {result:?}")))?;
            }
            Expr::Negate { input, result } => {
                self.operand(input, below, Kind::Integer, "negation")?;
                result.arithmetic_range().ok_or_else(|| Decline::new(format!("negation in {result:?}")))?;
            }
            Expr::Compare { left, right, .. } => self.compare(left, right, below)?,
            Expr::InList { input, list, .. } => self.in_list(input, list, below)?,
            Expr::Like { input, .. } => {
                if self.check(input, below)? != Kind::Text || !matches!(**input, Expr::Column(_)) {
                    return Err(Decline::new("LIKE over anything but a string column"));
                }
            }
            Expr::IsNull(input) | Expr::IsNotNull(input) => {
                if self.check(input, below)? == Kind::Text && !matches!(**input, Expr::Column(_)) {
                    return Err(Decline::new("IS NULL over a string expression"));
                }
            }
            Expr::And(inputs) | Expr::Or(inputs) => {
                for input in inputs {
                    self.operand(input, below, Kind::Boolean, "AND/OR")?;
                }
            }
            Expr::Not(input) => self.operand(input, below, Kind::Boolean, "NOT")?,
            Expr::Case { branches, otherwise } => {
                let kind = kind_of(self.columns, expr);
                if kind == Kind::Text {
                    return Err(Decline::new("CASE over strings"));
                }
                for (condition, value) in branches {
                    self.operand(condition, below, Kind::Boolean, "WHEN")?;
                    self.operand(value, below, kind, "CASE")?;
                }
                if let Some(value) = otherwise {
                    self.operand(value, below, kind, "CASE")?;
                }
            }
        }
        Ok(kind_of(self.columns, expr))
    }

    fn compare(&mut self, left: &Expr, right: &Expr, depth: usize) -> Result<(), Decline> {
        let (left_kind, right_kind) = (self.check(left, depth)?, self.check(right, depth)?);
        if !left_kind.fits(right_kind) && !right_kind.fits(left_kind) {
            return Err(Decline::new(format!("comparison of {left_kind:?} and {right_kind:?}")));
        }
        let is_literal = |side: &Expr| matches!(side, Expr::Literal(_));
        if left_kind == Kind::Float && right_kind == Kind::Float && !is_literal(left) && !is_literal(right) {
            return Err(Decline::new("comparison of two doubles, neither of which is a literal"));
        }
        if left_kind == Kind::Text && right_kind == Kind::Text {
            let shapes = (matches!(left, Expr::Column(_)), matches!(right, Expr::Column(_)));
            if !matches!(shapes, (true, false) | (false, true)) {
                return Err(Decline::new("comparison of two string columns or two string literals"));
            }
        }
        Ok(())
    }

    fn in_list(&mut self, input: &Expr, list: &[Literal], depth: usize) -> Result<(), Decline> {
        let kind = self.check(input, depth)?;
        self.nodes = self.nodes.saturating_add(list.len() / 64);
        if list.is_empty() {
            return Err(Decline::new("IN over an empty list"));
        }
        if kind == Kind::Text && !matches!(input, Expr::Column(_)) {
            return Err(Decline::new("IN over a string expression"));
        }
        if kind == Kind::Float {
            return Err(Decline::new("IN over doubles"));
        }
        for item in list {
            let item_kind = kind_of(&[], &Expr::Literal(item.clone()));
            if !item_kind.fits(kind) && kind != Kind::Null {
                return Err(Decline::new(format!("IN over {kind:?} with {item_kind:?}")));
            }
        }
        Ok(())
    }
}
