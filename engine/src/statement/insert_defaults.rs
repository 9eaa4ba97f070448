//! `DEFAULT` among the values of an INSERT: the planner knows it only as what columns get that are not named.

use super::syntax::folded;
use datafusion::common::{Result, plan_err};
use datafusion::execution::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{self, Expr, Insert, SetExpr, TableObject, Value};
use datafusion::sql::unparser::expr_to_sql;

/// Writes out what DEFAULT stands for.
pub async fn with_defaults(state: &SessionState, statement: &mut Statement) -> Result<()> {
    let Some(insert) = insert_of(statement) else { return Ok(()) };
    let Some(SetExpr::Values(values)) = insert.source.as_mut().map(|source| source.body.as_mut()) else { return Ok(()) };
    if !values.rows.iter().any(|row| row.iter().any(is_default)) {
        return Ok(());
    }
    let TableObject::TableName(name) = &insert.table else { return Ok(()) };
    let table = object_name_to_table_reference(name.clone(), true)?;
    // Of a table that is not there the planner says so.
    let Ok(schema) = state.schema_for_ref(table.clone()) else { return Ok(()) };
    let Some(provider) = schema.table(table.table()).await? else { return Ok(()) };
    let columns: Vec<String> = match insert.columns.is_empty() {
        true => provider.schema().fields().iter().map(|field| field.name().clone()).collect(),
        false => insert.columns.iter().filter_map(|name| name.0.last()?.as_ident().map(folded)).collect(),
    };
    for row in &mut values.rows {
        for (at, value) in row.iter_mut().enumerate().filter(|(_, value)| is_default(value)) {
            let Some(column) = columns.get(at) else {
                return plan_err!("INSERT has a value for column {} of {}, which is given {}", at + 1, table, columns.len());
            };
            *value = match provider.get_column_default(column) {
                Some(default) => expr_to_sql(default)?,
                None => Expr::Value(Value::Null.with_empty_span()),
            };
        }
    }
    Ok(())
}

fn insert_of(statement: &mut Statement) -> Option<&mut Insert> {
    match statement {
        Statement::Statement(statement) => match statement.as_mut() {
            ast::Statement::Insert(insert) => Some(insert),
            _ => None,
        },
        Statement::Explain(explain) => insert_of(&mut explain.statement),
        _ => None,
    }
}

fn is_default(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"))
}
