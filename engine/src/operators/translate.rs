//! From DataFusion's physical expressions to the kernels' language, or the reason why not.
//!
//! Decimals become scaled integers: where arrow aligns the scales of two operands, a rescale is spelled out here. Types that kernels
//! do not compute with (floats, intervals, nested types) decline.

use arrow::datatypes::{DataType, Schema};
use bowshot_kernels::{ArithmeticOp, ColumnType, CompareOp, Decline, Expr, Literal};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal as PhysicalLiteral, NegativeExpr, NotExpr,
};
use std::sync::Arc;

/// A kernel expression with its Arrow type.
#[derive(Debug, Clone)]
pub struct Translated {
    /// The expression.
    pub expr: Expr,
    /// Its Arrow type; strings count as `Utf8` in all their layouts.
    pub data_type: DataType,
}

/// Columns of an operator's input, each as a kernel expression over scan columns or the reason why it has none.
pub type Bindings = Vec<Result<Translated, Decline>>;

/// The kernels' type for an Arrow type.
pub fn column_type(data_type: &DataType) -> Result<ColumnType, Decline> {
    let int = |bits, signed| Ok(ColumnType::Int { bits, signed });
    match data_type {
        DataType::Boolean => Ok(ColumnType::Boolean),
        DataType::Int8 => int(8, true),
        DataType::Int16 => int(16, true),
        DataType::Int32 => int(32, true),
        DataType::Int64 => int(64, true),
        DataType::UInt8 => int(8, false),
        DataType::UInt16 => int(16, false),
        DataType::UInt32 => int(32, false),
        DataType::UInt64 => int(64, false),
        DataType::Decimal128(precision, scale) if *scale >= 0 => Ok(ColumnType::Decimal128 { precision: *precision, scale: *scale }),
        DataType::Date32 => Ok(ColumnType::Date32),
        DataType::Timestamp(..) => Ok(ColumnType::Timestamp),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(ColumnType::Utf8),
        DataType::Dictionary(_, value) if is_string(value) => Ok(ColumnType::Utf8),
        other => Err(Decline::new(format!("a column of type {other}"))),
    }
}

fn is_string(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_string(value),
        _ => false,
    }
}

/// Whether two Arrow types are one to the kernels: equal, or both strings.
fn same_type(left: &DataType, right: &DataType) -> bool {
    left == right || (is_string(left) && is_string(right))
}

/// Translates `expr`, whose columns are `bindings`. `schema` is the input's, for result types.
pub fn translate(expr: &Arc<dyn PhysicalExpr>, bindings: &Bindings, schema: &Schema) -> Result<Translated, Decline> {
    let go = |expr: &Arc<dyn PhysicalExpr>| translate(expr, bindings, schema);
    let boolean = |expr: Expr| Ok(Translated { expr, data_type: DataType::Boolean });
    if let Some(column) = expr.downcast_ref::<Column>() {
        return bindings
            .get(column.index())
            .cloned()
            .unwrap_or_else(|| Err(Decline::new(format!("column {} is not in the scan", column.name()))));
    }
    if let Some(literal) = expr.downcast_ref::<PhysicalLiteral>() {
        return literal_value(literal.value())
            .map(|value| Translated { expr: Expr::Literal(value), data_type: literal.value().data_type() });
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        let (left, right) = (go(binary.left())?, go(binary.right())?);
        return binary_expr(*binary.op(), left, right, expr, schema);
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return cast_expr(go(cast.expr())?, cast.cast_type());
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return boolean(Expr::Not(Box::new(go(not.arg())?.expr)));
    }
    if let Some(test) = expr.downcast_ref::<IsNullExpr>() {
        return boolean(Expr::IsNull(Box::new(go(test.arg())?.expr)));
    }
    if let Some(test) = expr.downcast_ref::<IsNotNullExpr>() {
        return boolean(Expr::IsNotNull(Box::new(go(test.arg())?.expr)));
    }
    if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
        let input = go(negative.arg())?;
        let result = column_type(&input.data_type)?;
        return Ok(Translated { expr: Expr::Negate { input: Box::new(input.expr), result }, data_type: input.data_type });
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        let input = go(list.expr())?;
        let mut literals = Vec::with_capacity(list.list().len());
        for item in list.list() {
            let item = go(item)?;
            match item.expr {
                Expr::Literal(literal) if literal == Literal::Null || same_type(&item.data_type, &input.data_type) => {
                    literals.push(literal)
                }
                Expr::Literal(_) => return Err(Decline::new(format!("IN list of {} over {}", item.data_type, input.data_type))),
                _ => return Err(Decline::new("IN list with an expression")),
            }
        }
        return boolean(Expr::InList { input: Box::new(input.expr), list: literals, negated: list.negated() });
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        let input = go(like.expr())?;
        return match go(like.pattern())?.expr {
            Expr::Literal(Literal::Utf8(pattern)) => boolean(Expr::Like {
                input: Box::new(input.expr),
                pattern,
                negated: like.negated(),
                case_insensitive: like.case_insensitive(),
            }),
            _ => Err(Decline::new("LIKE with a computed pattern")),
        };
    }
    Err(Decline::new(format!("expression {expr}")))
}

fn literal_value(value: &ScalarValue) -> Result<Literal, Decline> {
    use ScalarValue as S;
    if value.is_null() {
        return Ok(Literal::Null);
    }
    Ok(match value {
        S::Boolean(Some(value)) => Literal::Boolean(*value),
        S::Int8(Some(value)) => Literal::Int((*value).into()),
        S::Int16(Some(value)) => Literal::Int((*value).into()),
        S::Int32(Some(value)) | S::Date32(Some(value)) => Literal::Int((*value).into()),
        S::Int64(Some(value)) => Literal::Int((*value).into()),
        S::UInt8(Some(value)) => Literal::Int((*value).into()),
        S::UInt16(Some(value)) => Literal::Int((*value).into()),
        S::UInt32(Some(value)) => Literal::Int((*value).into()),
        S::UInt64(Some(value)) => Literal::Int((*value).into()),
        S::Decimal128(Some(value), _, _) => Literal::Int(*value),
        S::TimestampSecond(Some(value), _)
        | S::TimestampMillisecond(Some(value), _)
        | S::TimestampMicrosecond(Some(value), _)
        | S::TimestampNanosecond(Some(value), _) => Literal::Int((*value).into()),
        S::Utf8(Some(text)) | S::LargeUtf8(Some(text)) | S::Utf8View(Some(text)) => Literal::Utf8(text.clone()),
        S::Dictionary(_, inner) => literal_value(inner)?,
        other => return Err(Decline::new(format!("a literal of type {}", other.data_type()))),
    })
}

fn binary_expr(
    op: Operator,
    left: Translated,
    right: Translated,
    whole: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Result<Translated, Decline> {
    let compare = match op {
        Operator::And => return Ok(Translated { expr: Expr::And(flatten(left.expr, right.expr, true)), data_type: DataType::Boolean }),
        Operator::Or => return Ok(Translated { expr: Expr::Or(flatten(left.expr, right.expr, false)), data_type: DataType::Boolean }),
        Operator::Plus => return arithmetic(ArithmeticOp::Add, left, right, whole, schema),
        Operator::Minus => return arithmetic(ArithmeticOp::Sub, left, right, whole, schema),
        Operator::Multiply => return arithmetic(ArithmeticOp::Mul, left, right, whole, schema),
        Operator::Eq => CompareOp::Eq,
        Operator::NotEq => CompareOp::NotEq,
        Operator::Lt => CompareOp::Lt,
        Operator::LtEq => CompareOp::LtEq,
        Operator::Gt => CompareOp::Gt,
        Operator::GtEq => CompareOp::GtEq,
        other => return Err(Decline::new(format!("operator {other}"))),
    };
    let (left, right) = align_scales(left, right)?;
    Ok(Translated { expr: Expr::Compare { op: compare, left: Box::new(left), right: Box::new(right) }, data_type: DataType::Boolean })
}

/// `a AND (b AND c)` as one list: the host kernel orders a conjunction by cost.
fn flatten(left: Expr, right: Expr, conjunction: bool) -> Vec<Expr> {
    let mut parts = vec![];
    for side in [left, right] {
        match side {
            Expr::And(inner) if conjunction => parts.extend(inner),
            Expr::Or(inner) if !conjunction => parts.extend(inner),
            other => parts.push(other),
        }
    }
    parts
}

fn rescaled(expr: Expr, power: u8) -> Expr {
    if power == 0 { expr } else { Expr::Rescale { input: Box::new(expr), power } }
}

/// Brings two decimals to the larger scale; other types must be equal.
fn align_scales(left: Translated, right: Translated) -> Result<(Expr, Expr), Decline> {
    if matches!(left.expr, Expr::Literal(Literal::Null))
        || matches!(right.expr, Expr::Literal(Literal::Null))
        || same_type(&left.data_type, &right.data_type)
    {
        return Ok((left.expr, right.expr));
    }
    match (&left.data_type, &right.data_type) {
        (DataType::Decimal128(_, a), DataType::Decimal128(_, b)) if *a >= 0 && *b >= 0 => {
            let scale = (*a).max(*b);
            Ok((rescaled(left.expr, (scale - a) as u8), rescaled(right.expr, (scale - b) as u8)))
        }
        (a, b) => Err(Decline::new(format!("{a} with {b}"))),
    }
}

fn arithmetic(
    op: ArithmeticOp,
    left: Translated,
    right: Translated,
    whole: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Result<Translated, Decline> {
    let data_type = whole.data_type(schema).map_err(|error| Decline::new(format!("expression {whole}: {error}")))?;
    let result = column_type(&data_type)?;
    let (left, right) = match (&left.data_type, &right.data_type, &data_type) {
        // A product's scale is the sum of its factors': nothing to align, and nothing may be rounded away.
        (DataType::Decimal128(_, a), DataType::Decimal128(_, b), DataType::Decimal128(_, c)) if op == ArithmeticOp::Mul => {
            if a + b != *c {
                return Err(Decline::new(format!("a product of scale {c} from factors of scale {a} and {b}")));
            }
            (left.expr, right.expr)
        }
        (DataType::Decimal128(_, a), DataType::Decimal128(_, b), DataType::Decimal128(_, c)) => {
            if (*a).max(*b) != *c {
                return Err(Decline::new(format!("a sum of scale {c} from terms of scale {a} and {b}")));
            }
            align_scales(left, right)?
        }
        (a, b, c) if a == b && b == c && matches!(result, ColumnType::Int { .. }) => (left.expr, right.expr),
        (a, b, _) => return Err(Decline::new(format!("arithmetic over {a} and {b}"))),
    };
    Ok(Translated { expr: Expr::Arithmetic { op, left: Box::new(left), right: Box::new(right), result }, data_type })
}

/// Casts that keep every value: integers to wider ones, decimals to more digits, strings among their layouts.
fn cast_expr(input: Translated, to: &DataType) -> Result<Translated, Decline> {
    let refuse = || Err(Decline::new(format!("a cast from {} to {to}", input.data_type)));
    if same_type(&input.data_type, to) {
        return Ok(Translated { expr: input.expr, data_type: to.clone() });
    }
    let expr = match (column_type(&input.data_type)?, column_type(to)?) {
        (ColumnType::Int { bits: from, signed: from_signed }, ColumnType::Int { bits, signed }) => {
            let keeps = if from_signed == signed { bits >= from } else { signed && bits > from };
            if !keeps {
                return refuse();
            }
            input.expr
        }
        (ColumnType::Int { bits, .. }, ColumnType::Decimal128 { precision, scale }) => {
            // Digits that any integer of this width may have.
            let digits = match bits {
                8 => 3,
                16 => 5,
                32 => 10,
                _ => 20,
            };
            if (precision as i16) - (scale as i16) < digits {
                return refuse();
            }
            rescaled(input.expr, scale as u8)
        }
        (ColumnType::Decimal128 { precision: p1, scale: s1 }, ColumnType::Decimal128 { precision: p2, scale: s2 }) => {
            if s2 < s1 || (p2 as i16 - s2 as i16) < (p1 as i16 - s1 as i16) {
                return refuse();
            }
            rescaled(input.expr, (s2 - s1) as u8)
        }
        _ => return refuse(),
    };
    Ok(Translated { expr, data_type: to.clone() })
}
