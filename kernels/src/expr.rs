//! The typed language of kernels: integer values, strings that are compared, and three-valued booleans.

use crate::total_order::TotalOrder;

/// The type of a column. Everything but strings is an integer inside a kernel, doubles by their place in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// SQL BOOLEAN; lanes are 0 and 1.
    Boolean,
    /// An integer of 8, 16, 32 or 64 bits.
    Int {
        /// 8, 16, 32 or 64.
        bits: u8,
        /// Whether negative values exist.
        signed: bool,
    },
    /// A decimal as its unscaled integer: 12.34 at scale 2 is 1234.
    Decimal128 {
        /// Digits, 1 to 38.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// Days since 1970-01-01.
    Date32,
    /// Units since 1970-01-01 as `i64`; the unit is the caller's.
    Timestamp,
    /// A double; lanes hold its place in the total order ([`TotalOrder`]).
    Float64,
    /// A string; lanes are dictionary codes.
    Utf8,
}

impl ColumnType {
    /// Whether kernels do arithmetic on this type.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::Boolean | Self::Float64 | Self::Utf8)
    }

    /// The least and greatest value a result of this type may take; `None` where arithmetic has no such result.
    pub(crate) fn arithmetic_range(self) -> Option<(i128, i128)> {
        match self {
            Self::Int { bits, signed: true } if matches!(bits, 8 | 16 | 32 | 64) => {
                let half = 1i128 << (bits - 1);
                Some((-half, half - 1))
            }
            Self::Int { bits, signed: false } if matches!(bits, 8 | 16 | 32 | 64) => Some((0, (1i128 << bits) - 1)),
            Self::Decimal128 { precision, .. } => {
                let greatest = 10i128.checked_pow(precision.into())? - 1;
                Some((-greatest, greatest))
            }
            Self::Date32 => Some((i128::from(i32::MIN), i128::from(i32::MAX))),
            Self::Timestamp => Some((i128::from(i64::MIN), i128::from(i64::MAX))),
            _ => None,
        }
    }
}

/// A constant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Literal {
    /// SQL NULL of any type.
    Null,
    /// TRUE or FALSE.
    Boolean(bool),
    /// An integer; decimals as unscaled integers, dates as days, timestamps in the column's unit.
    Int(i128),
    /// A double.
    Float64(TotalOrder),
    /// A string.
    Utf8(String),
}

/// Integer arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArithmeticOp {
    /// left + right
    Add,
    /// left - right
    Sub,
    /// left * right
    Mul,
}

/// Comparison of two operands of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompareOp {
    /// =
    Eq,
    /// <>
    NotEq,
    /// <
    Lt,
    /// <=
    LtEq,
    /// >
    Gt,
    /// >=
    GtEq,
}

impl CompareOp {
    /// The operator with its operands swapped: `a < b` is `b > a`.
    pub(crate) fn swapped(self) -> Self {
        match self {
            Self::Eq => Self::Eq,
            Self::NotEq => Self::NotEq,
            Self::Lt => Self::Gt,
            Self::LtEq => Self::GtEq,
            Self::Gt => Self::Lt,
            Self::GtEq => Self::LtEq,
        }
    }

    /// The operator that is true exactly where this one is false (both operands known).
    pub(crate) fn inverted(self) -> Self {
        match self {
            Self::Eq => Self::NotEq,
            Self::NotEq => Self::Eq,
            Self::Lt => Self::GtEq,
            Self::LtEq => Self::Gt,
            Self::Gt => Self::LtEq,
            Self::GtEq => Self::Lt,
        }
    }

    /// The answer for two ordered operands.
    pub(crate) fn holds<T: Ord>(self, left: T, right: T) -> bool {
        match self {
            Self::Eq => left == right,
            Self::NotEq => left != right,
            Self::Lt => left < right,
            Self::LtEq => left <= right,
            Self::Gt => left > right,
            Self::GtEq => left >= right,
        }
    }
}

/// An expression over the columns of a plan. Values are exact integers, predicates are true, false or NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// The column at this position of [`crate::AggregatePlan::columns`].
    Column(usize),
    /// A constant.
    Literal(Literal),
    /// `input * 10^power`, exact: how a decimal gains scale.
    Rescale {
        /// An integer.
        input: Box<Expr>,
        /// 0 to 38.
        power: u8,
    },
    /// Arithmetic that must provably stay in the range of `result`, else the kernel declines.
    Arithmetic {
        /// The operation.
        op: ArithmeticOp,
        /// An integer.
        left: Box<Expr>,
        /// An integer.
        right: Box<Expr>,
        /// The type whose range bounds the outcome (`Int`: its width; `Decimal128`: `i128`).
        result: ColumnType,
    },
    /// `-input`, under the same bound as [`Expr::Arithmetic`].
    Negate {
        /// An integer.
        input: Box<Expr>,
        /// The type whose range bounds the outcome.
        result: ColumnType,
    },
    /// A comparison of integers of equal scale, of a double and a literal (in the total order, but 0 equals -0), of booleans (false < true), or of a string column and a string literal.
    Compare {
        /// The operator.
        op: CompareOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
    /// `input [NOT] IN (list)` with SQL's NULL rules.
    InList {
        /// An integer, a boolean, or a string column.
        input: Box<Expr>,
        /// At least one constant; NULLs allowed.
        list: Vec<Literal>,
        /// NOT IN.
        negated: bool,
    },
    /// `input [NOT] [I]LIKE pattern`.
    Like {
        /// A string column.
        input: Box<Expr>,
        /// `%` any run, `_` one character, `\` escapes.
        pattern: String,
        /// NOT LIKE.
        negated: bool,
        /// ILIKE.
        case_insensitive: bool,
    },
    /// True where the input is NULL, never NULL itself.
    IsNull(Box<Expr>),
    /// True where the input is not NULL.
    IsNotNull(Box<Expr>),
    /// The value of the first branch whose condition is true; NULL where none is and there is no `otherwise`.
    Case {
        /// Conditions, and values of one kind: integers, doubles or booleans.
        branches: Vec<(Expr, Expr)>,
        /// ELSE.
        otherwise: Option<Box<Expr>>,
    },
    /// Conjunction; empty is true.
    And(Vec<Expr>),
    /// Disjunction; empty is false.
    Or(Vec<Expr>),
    /// Negation of a predicate.
    Not(Box<Expr>),
}

impl Expr {
    /// The expressions that this one is made of.
    pub(crate) fn children(&self) -> Vec<&Expr> {
        match self {
            Self::Column(_) | Self::Literal(_) => Vec::new(),
            Self::Rescale { input, .. }
            | Self::Negate { input, .. }
            | Self::InList { input, .. }
            | Self::Like { input, .. }
            | Self::IsNull(input)
            | Self::IsNotNull(input)
            | Self::Not(input) => vec![input],
            Self::Arithmetic { left, right, .. } | Self::Compare { left, right, .. } => vec![left, right],
            Self::Case { branches, otherwise } => {
                branches.iter().flat_map(|(condition, value)| [condition, value]).chain(otherwise.as_deref()).collect()
            }
            Self::And(inputs) | Self::Or(inputs) => inputs.iter().collect(),
        }
    }
}
