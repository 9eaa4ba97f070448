//! Lengths of text in statements: `VARCHAR(3)` and `CHAR(3)`, in CREATE TABLE and in casts. The planner passes over them.

use crate::catalog::text_lengths::{TextLength, TextLengths};
use crate::error::{Error, Result};
use datafusion::common::{DataFusionError, plan_datafusion_err};
use datafusion::sql::sqlparser::ast::{
    CastKind, CharLengthUnits, CharacterLength, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, SelectItem, Statement, Value,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// Longest text that can be declared, in characters; Postgres has the same limit.
const CHARACTERS_MAX: u64 = 10_485_760;

/// Lengths of the columns of a CREATE TABLE.
pub fn declared(sql: &str) -> Result<TextLengths> {
    let parsed = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| Error::user(error.to_string()))?;
    let Some(Statement::CreateTable(create)) = parsed.into_iter().next() else { return Ok(TextLengths::new()) };
    let lengths = create.columns.iter().filter_map(|column| match length_of(&column.data_type) {
        Ok(length) => length.map(|length| Ok((name(&column.name), length))),
        Err(error) => Some(Err(Error::user(format!("column {}: {}", column.name, error.message())))),
    });
    lengths.collect()
}

/// A name as DataFusion resolves it: lower case unless it is quoted.
fn name(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() }
}

/// The length that a type has, if it has one.
pub fn length_of(data_type: &DataType) -> std::result::Result<Option<TextLength>, DataFusionError> {
    let (length, is_char) = match data_type {
        DataType::Varchar(length) | DataType::CharVarying(length) | DataType::CharacterVarying(length) | DataType::Nvarchar(length) => {
            (length, false)
        }
        DataType::Char(length) | DataType::Character(length) => (length, true),
        _ => return Ok(None),
    };
    match length {
        // VARCHAR(MAX) is a text of any length, as VARCHAR is.
        None | Some(CharacterLength::Max) => Ok(None),
        Some(CharacterLength::IntegerLength { unit: Some(CharLengthUnits::Octets), .. }) => {
            Err(plan_datafusion_err!("a length in OCTETS is not supported: lengths of text are in characters"))
        }
        Some(CharacterLength::IntegerLength { length, .. }) if !(1..=CHARACTERS_MAX).contains(length) => {
            Err(plan_datafusion_err!("a text of {length} characters cannot be declared: write a length from 1 to {CHARACTERS_MAX}"))
        }
        Some(CharacterLength::IntegerLength { length, .. }) => Ok(Some(TextLength { characters: *length, is_char })),
    }
}

/// A cast to a text of a length as what it means: the first characters, and for a CHAR without spaces at their end.
pub fn cut_cast(expr: &mut Expr) -> std::result::Result<(), DataFusionError> {
    let Expr::Cast { data_type, kind, .. } = expr else { return Ok(()) };
    let Some(length) = length_of(data_type)? else { return Ok(()) };
    if matches!(kind, CastKind::Cast | CastKind::DoubleColon | CastKind::TryCast | CastKind::SafeCast) {
        *data_type = DataType::Varchar(None);
        let whole = std::mem::replace(expr, Expr::value(Value::Null));
        let characters = Expr::value(Value::Number(length.characters.to_string(), false));
        let cut = call("left", vec![whole, characters]);
        *expr = if length.is_char { call("rtrim", vec![cut]) } else { cut };
    }
    Ok(())
}

/// A column that a SELECT list cuts keeps its name, as in Postgres.
pub fn keep_name(item: &mut SelectItem) {
    let SelectItem::UnnamedExpr(Expr::Cast { expr, data_type, .. }) = item else { return };
    let column = match expr.as_ref() {
        Expr::Identifier(column) => Some(column.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().cloned(),
        _ => None,
    };
    if let (Some(alias), Ok(Some(_))) = (column, length_of(data_type))
        && let SelectItem::UnnamedExpr(expr) = item
    {
        *item = SelectItem::ExprWithAlias { expr: std::mem::replace(expr, Expr::value(Value::Null)), alias };
    }
}

fn call(function: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read() {
        let read = declared("CREATE TABLE t (a VARCHAR(3), \"B\" CHARACTER(2), c VARCHAR, d INT, e CHARACTER VARYING(4))").unwrap();
        let of = |characters, is_char| TextLength { characters, is_char };
        let expected = [("B", of(2, true)), ("a", of(3, false)), ("e", of(4, false))];
        assert_eq!(read, expected.into_iter().map(|(name, length)| (name.to_string(), length)).collect());
        assert!(declared("CREATE TABLE t (a VARCHAR(0))").unwrap_err().message().contains("from 1 to"));
    }
}
