//! From DataFusion's physical expressions to the kernels' language, or the reason why not.
//!
//! Decimals become scaled integers: where arrow aligns the scales of two operands, a rescale is spelled out here. Expressions that have no
//! word in that language (arithmetic on doubles, functions of dates and strings) become columns of their own, which DataFusion computes
//! once for each row group. Types that kernels do not know (intervals, nested types) decline.

use super::exact_arithmetic::{ExactOp, exact_op};
use super::float_values::is_one_nan;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use bowshot_kernels::limits::EXPRESSION_NODES_MAX;
use bowshot_kernels::{ArithmeticOp, ColumnType, CompareOp, Decline, Expr, Literal, TotalOrder};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal as PhysicalLiteral, NegativeExpr,
    NotExpr, TryCastExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use std::sync::Arc;

/// A kernel expression with its Arrow type.
#[derive(Debug, Clone)]
pub struct Translated {
    /// The expression.
    pub expr: Expr,
    /// Its Arrow type; strings count as `Utf8` in all their layouts.
    pub data_type: DataType,
}

/// A column of an operator's input.
#[derive(Debug, Clone)]
pub struct Binding {
    /// As a kernel expression over scan columns, or the reason why it has none.
    pub translated: Result<Translated, Decline>,
    /// As DataFusion's expression over the scan's file schema.
    pub source: Arc<dyn PhysicalExpr>,
}

/// Where a column of a kernel's plan comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnSource {
    /// The column at this position of the scan's file schema.
    Stored(usize),
    /// An expression over the scan's file schema, which DataFusion evaluates into a column of its own.
    Computed(Arc<dyn PhysicalExpr>),
}

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
        DataType::Float64 => Ok(ColumnType::Float64),
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
pub(super) fn same_type(left: &DataType, right: &DataType) -> bool {
    left == right || (is_string(left) && is_string(right))
}

/// Translates expressions over one scan and collects the columns that they need.
#[derive(Debug)]
pub struct Translator {
    file_schema: SchemaRef,
    /// Where each column comes from, and what it is to kernels.
    pub columns: Vec<(ColumnSource, ColumnType)>,
}

impl Translator {
    /// For a scan of files of this schema, and its columns.
    pub fn new(file_schema: SchemaRef) -> (Self, Vec<Binding>) {
        let mut translator = Self { file_schema: file_schema.clone(), columns: vec![] };
        let mut bindings = vec![];
        for (index, field) in file_schema.fields().iter().enumerate() {
            let translated =
                column_type(field.data_type()).map(|kind| translator.column(ColumnSource::Stored(index), kind, field.data_type()));
            bindings.push(Binding { translated, source: Arc::new(Column::new(field.name(), index)) });
        }
        (translator, bindings)
    }

    /// An expression of an operator whose input has these columns and this schema.
    pub fn bind(&mut self, expr: &Arc<dyn PhysicalExpr>, bindings: &[Binding], schema: &Schema) -> Result<Binding, Decline> {
        Ok(Binding { translated: self.translate(expr, bindings, schema), source: over_files(expr, bindings)? })
    }

    /// Translates `expr`. What kernels have no word for becomes a column of its own, if DataFusion can compute it from the scan's columns.
    pub fn translate(&mut self, expr: &Arc<dyn PhysicalExpr>, bindings: &[Binding], schema: &Schema) -> Result<Translated, Decline> {
        match self.native(expr, bindings, schema) {
            // Views over views can double an expression at every step.
            Ok(translated) if nodes(&translated.expr) > EXPRESSION_NODES_MAX => Err(Decline::new("expression too large")),
            Ok(translated) => Ok(translated),
            Err(decline) => self.computed(expr, bindings).map_err(|_| decline),
        }
    }

    /// `expr` as a column.
    pub fn key(&mut self, expr: &Arc<dyn PhysicalExpr>, bindings: &[Binding], schema: &Schema) -> Result<usize, Decline> {
        let mut translated = self.translate(expr, bindings, schema)?;
        if !matches!(translated.expr, Expr::Column(_)) {
            translated = self.computed(expr, bindings)?;
        }
        match translated.expr {
            Expr::Column(column) if self.columns[column].1 != ColumnType::Float64 => Ok(column),
            Expr::Column(_) => Err(Decline::new(format!("grouping by the double {expr}"))),
            _ => Err(Decline::new(format!("grouping by the expression {expr}"))),
        }
    }

    fn column(&mut self, source: ColumnSource, kind: ColumnType, data_type: &DataType) -> Translated {
        let position = self.columns.iter().position(|known| *known == (source.clone(), kind)).unwrap_or_else(|| {
            self.columns.push((source, kind));
            self.columns.len() - 1
        });
        Translated { expr: Expr::Column(position), data_type: data_type.clone() }
    }

    fn computed(&mut self, expr: &Arc<dyn PhysicalExpr>, bindings: &[Binding]) -> Result<Translated, Decline> {
        let source = over_files(expr, bindings)?;
        let (mut columns, mut visited) = (0, 0);
        let mut refused = None;
        // Visits cannot fail.
        let _ = source.apply(|node| {
            columns += usize::from(node.is::<Column>());
            visited += 1;
            if visited > EXPRESSION_NODES_MAX {
                refused = Some("too large".to_string());
                return Ok(TreeNodeRecursion::Stop);
            }
            let own_type = node.downcast_ref::<Column>().map(|column| self.file_schema.field(column.index()).data_type());
            if !is_function_of_row(node) || own_type.is_some_and(|own_type| column_type(own_type).is_err()) {
                refused = Some(node.to_string());
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        if let Some(node) = refused {
            return Err(Decline::new(format!("expression {node}")));
        }
        if columns == 0 || source.is::<Column>() {
            return Err(Decline::new(format!("expression {expr}")));
        }
        let data_type = source.data_type(&self.file_schema).map_err(|error| Decline::new(error.to_string()))?;
        let kind = column_type(&data_type)?;
        Ok(self.column(ColumnSource::Computed(source), kind, &data_type))
    }

    fn native(&mut self, expr: &Arc<dyn PhysicalExpr>, bindings: &[Binding], schema: &Schema) -> Result<Translated, Decline> {
        let mut go = |expr: &Arc<dyn PhysicalExpr>| self.translate(expr, bindings, schema);
        let boolean = |expr: Expr| Ok(Translated { expr, data_type: DataType::Boolean });
        if let Some(column) = expr.downcast_ref::<Column>() {
            let missing = || Err(Decline::new(format!("column {} is not in the scan", column.name())));
            return bindings.get(column.index()).map_or_else(missing, |binding| binding.translated.clone());
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
            let result = arithmetic_type(&input.data_type)?;
            return Ok(Translated { expr: Expr::Negate { input: Box::new(input.expr), result }, data_type: input.data_type });
        }
        if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>()
            && let Some(op) = exact_op(call.fun())
        {
            return match (op, call.args()) {
                (ExactOp::Add, [left, right]) => arithmetic(ArithmeticOp::Add, go(left)?, go(right)?, expr, schema),
                (ExactOp::Subtract, [left, right]) => arithmetic(ArithmeticOp::Sub, go(left)?, go(right)?, expr, schema),
                (ExactOp::Multiply, [left, right]) => arithmetic(ArithmeticOp::Mul, go(left)?, go(right)?, expr, schema),
                (ExactOp::Negate, [of]) => {
                    let input = go(of)?;
                    let result = arithmetic_type(&input.data_type)?;
                    Ok(Translated { expr: Expr::Negate { input: Box::new(input.expr), result }, data_type: input.data_type })
                }
                _ => Err(Decline::new(format!("expression {expr}"))),
            };
        }
        // Kernels know one NaN.
        if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>()
            && is_one_nan(call.fun())
            && let [of] = call.args()
        {
            return go(of);
        }
        if let Some(list) = expr.downcast_ref::<InListExpr>() {
            let input = go(list.expr())?;
            if input.data_type == DataType::Float64 {
                return Err(Decline::new("IN over doubles"));
            }
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
        if let Some(case) = expr.downcast_ref::<CaseExpr>() {
            let data_type = case.data_type(schema).map_err(|error| Decline::new(error.to_string()))?;
            let compared = case.expr().map(&mut go).transpose()?;
            // WHEN tells 0 from -0, where = does not.
            if compared.as_ref().is_some_and(|compared| compared.data_type == DataType::Float64) {
                return Err(Decline::new("CASE of a double with values"));
            }
            let mut branches = Vec::with_capacity(case.when_then_expr().len());
            for (when, then) in case.when_then_expr() {
                let when = go(when)?;
                let condition = match &compared {
                    Some(compared) => compare(CompareOp::Eq, compared.clone(), when)?.expr,
                    None => when.expr,
                };
                branches.push((condition, branch(go(then)?, &data_type)?));
            }
            let otherwise = case.else_expr().map(&mut go).transpose()?;
            let otherwise = otherwise.map(|otherwise| branch(otherwise, &data_type).map(Box::new)).transpose()?;
            return Ok(Translated { expr: Expr::Case { branches, otherwise }, data_type });
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
}

fn nodes(expr: &Expr) -> usize {
    let all = |inputs: &[Expr]| inputs.iter().map(nodes).sum::<usize>();
    1 + match expr {
        Expr::Column(_) | Expr::Literal(_) => 0,
        Expr::Rescale { input, .. } | Expr::Negate { input, .. } | Expr::InList { input, .. } | Expr::Like { input, .. } => nodes(input),
        Expr::IsNull(input) | Expr::IsNotNull(input) | Expr::Not(input) => nodes(input),
        Expr::Arithmetic { left, right, .. } | Expr::Compare { left, right, .. } => nodes(left) + nodes(right),
        Expr::Case { branches, otherwise } => {
            branches.iter().map(|(condition, value)| nodes(condition) + nodes(value)).sum::<usize>() + otherwise.as_deref().map_or(0, nodes)
        }
        Expr::And(inputs) | Expr::Or(inputs) => all(inputs),
    }
}

/// `expr` over the scan's file schema instead of its operator's input.
pub(super) fn over_files(expr: &Arc<dyn PhysicalExpr>, bindings: &[Binding]) -> Result<Arc<dyn PhysicalExpr>, Decline> {
    let replaced = expr.clone().transform_down(|node| {
        let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
        match bindings.get(column.index()) {
            // What takes the column's place is over the file schema already.
            Some(binding) => Ok(Transformed::new(binding.source.clone(), true, TreeNodeRecursion::Jump)),
            None => internal_err!("column {column} is not in the input"),
        }
    });
    replaced.map(|replaced| replaced.data).map_err(|error| Decline::new(error.to_string()))
}

/// Whether the node gives the same answer for the same row, whenever and wherever it is asked.
fn is_function_of_row(node: &Arc<dyn PhysicalExpr>) -> bool {
    let is_known = node.is::<Column>()
        || node.is::<PhysicalLiteral>()
        || node.is::<BinaryExpr>()
        || node.is::<CastExpr>()
        || node.is::<TryCastExpr>()
        || node.is::<CaseExpr>()
        || node.is::<ScalarFunctionExpr>()
        || node.is::<LikeExpr>()
        || node.is::<InListExpr>()
        || node.is::<IsNullExpr>()
        || node.is::<IsNotNullExpr>()
        || node.is::<NotExpr>()
        || node.is::<NegativeExpr>();
    is_known && !node.is_volatile_node()
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
        S::Float64(Some(value)) => Literal::Float64(TotalOrder::of(*value)),
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
    let op = match op {
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
    compare(op, left, right)
}

fn compare(op: CompareOp, left: Translated, right: Translated) -> Result<Translated, Decline> {
    let is_literal = |side: &Translated| matches!(side.expr, Expr::Literal(_));
    if is_string(&left.data_type) && is_literal(&left) == is_literal(&right) {
        return Err(Decline::new("comparison of two string columns"));
    }
    if left.data_type == DataType::Float64 && !is_literal(&left) && !is_literal(&right) {
        return Err(Decline::new("comparison of two columns of doubles"));
    }
    let (left, right) = align_scales(left, right)?;
    Ok(Translated { expr: Expr::Compare { op, left: Box::new(left), right: Box::new(right) }, data_type: DataType::Boolean })
}

/// One value of a CASE of this type.
fn branch(value: Translated, data_type: &DataType) -> Result<Expr, Decline> {
    if is_string(data_type) {
        return Err(Decline::new("CASE over strings"));
    }
    if value.expr != Expr::Literal(Literal::Null) && value.data_type != *data_type {
        return Err(Decline::new(format!("CASE of {} and {data_type}", value.data_type)));
    }
    Ok(value.expr)
}

/// The type of arithmetic over `data_type`.
fn arithmetic_type(data_type: &DataType) -> Result<ColumnType, Decline> {
    let kind = column_type(data_type)?;
    if kind.is_integer() { Ok(kind) } else { Err(Decline::new(format!("arithmetic over {data_type}"))) }
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
    let result = arithmetic_type(&data_type)?;
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
