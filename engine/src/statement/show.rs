//! `SHOW …` and `DESCRIBE …` as the queries that they stand for, over `information_schema` and `system`.
//!
//! SHOW FUNCTIONS is left to DataFusion.

use super::keys;
use crate::error::{Error, Result};
use datafusion::common::TableReference;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    DescribeAlias, Ident, ObjectName, ShowCreateObject, ShowStatementFilter, ShowStatementFilterPosition, ShowStatementOptions, Statement,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// The query that a statement stands for; nothing where it is another kind of statement.
///
/// # Errors
/// When it names a table that is not there, a setting that is none, or asks for what is not supported.
pub fn as_query(sql: &str, state: &SessionState, is_setting: impl Fn(&str) -> bool) -> Result<Option<String>> {
    let verb = sql.split_whitespace().next().unwrap_or_default();
    if !["SHOW", "DESCRIBE", "DESC"].iter().any(|word| verb.eq_ignore_ascii_case(word)) {
        return Ok(None);
    }
    // DataFusion's own parser has statements that this one has not, and says what is wrong with a text.
    let Ok(parsed) = Parser::parse_sql(&GenericDialect {}, sql) else { return Ok(None) };
    let [statement] = parsed.as_slice() else { return Ok(None) };
    Ok(Some(match statement {
        Statement::ShowTables { show_options, .. } => {
            let selected = "SELECT table_catalog, table_schema, table_name, table_type FROM information_schema.tables";
            listing(selected, "table_name", Some("table_schema"), show_options, "table_schema, table_name")?
        }
        Statement::ShowViews { show_options, .. } => {
            let selected = "SELECT table_catalog, table_schema, table_name, view_definition FROM information_schema.views";
            listing(selected, "table_name", Some("table_schema"), show_options, "table_schema, table_name")?
        }
        Statement::ShowSchemas { show_options, .. } | Statement::ShowDatabases { show_options, .. } => {
            let selected = "SELECT schema_name, catalog_name FROM information_schema.schemata";
            listing(selected, "schema_name", Some("catalog_name"), show_options, "schema_name")?
        }
        Statement::ShowCatalogs { show_options, .. } => {
            let selected = "SELECT DISTINCT catalog_name FROM information_schema.schemata";
            listing(selected, "catalog_name", None, show_options, "catalog_name")?
        }
        Statement::ShowColumns { show_options, .. } => {
            let table = show_options.show_in.as_ref().and_then(|within| within.parent_name.as_ref());
            let table = table.ok_or_else(|| Error::user("SHOW COLUMNS needs a table: SHOW COLUMNS FROM <schema>.<table>"))?;
            let (schema, name) = known(table, state)?;
            let columns = "table_catalog, table_schema, table_name, column_name, data_type, is_nullable, column_default, column_comment";
            let like = like(show_options, "column_name")?;
            let of = of_table(&schema, &name);
            format!("SELECT {columns} FROM information_schema.columns WHERE {of}{like} ORDER BY ordinal_position")
        }
        Statement::ExplainTable { describe_alias: DescribeAlias::Describe | DescribeAlias::Desc, table_name, .. } => {
            let (schema, name) = known(table_name, state)?;
            let columns = "column_name, data_type, is_nullable, column_default, column_comment";
            format!("SELECT {columns} FROM information_schema.columns WHERE {} ORDER BY ordinal_position", of_table(&schema, &name))
        }
        Statement::ShowCreate { obj_type, obj_name } => {
            let (schema, name) = known(obj_name, state)?;
            let of = of_table(&schema, &name);
            match obj_type {
                ShowCreateObject::Table => format!("SELECT table_schema, table_name, definition FROM system.tables WHERE {of}"),
                ShowCreateObject::View => {
                    format!("SELECT table_schema, table_name, view_definition AS definition FROM information_schema.views WHERE {of}")
                }
                other => return Err(Error::user(format!("SHOW CREATE {other} is not supported: TABLE and VIEW are"))),
            }
        }
        Statement::ShowVariable { variable } => setting(variable, is_setting)?,
        Statement::ShowVariables { filter: None, .. } => "SELECT name, value FROM system.settings ORDER BY name".into(),
        _ => return Ok(None),
    }))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn of_table(schema: &str, name: &str) -> String {
    format!("table_schema = {} AND table_name = {}", quoted(schema), quoted(name))
}

/// A list with the filters that SHOW knows: IN a schema, LIKE a pattern.
fn listing(selected: &str, name: &str, within: Option<&str>, options: &ShowStatementOptions, order: &str) -> Result<String> {
    let mut filter = String::new();
    if let Some(parent) = options.show_in.as_ref().and_then(|within| within.parent_name.as_ref()) {
        let column = within.ok_or_else(|| Error::user(format!("IN {parent} has no meaning here")))?;
        let last = parent.0.last().and_then(|part| part.as_ident()).ok_or_else(|| Error::user(format!("{parent} is no name")))?;
        let last = if last.quote_style.is_some() { last.value.clone() } else { last.value.to_ascii_lowercase() };
        filter = format!(" AND {column} = {}", quoted(&last));
    }
    if options.starts_with.is_some() || options.limit.is_some() || options.limit_from.is_some() {
        return Err(Error::user("SHOW takes IN and LIKE here; information_schema can be asked for the rest"));
    }
    Ok(format!("{selected} WHERE true{filter}{} ORDER BY {order}", like(options, name)?))
}

fn like(options: &ShowStatementOptions, column: &str) -> Result<String> {
    let Some(ShowStatementFilterPosition::Infix(filter) | ShowStatementFilterPosition::Suffix(filter)) = &options.filter_position else {
        return Ok(String::new());
    };
    match filter {
        ShowStatementFilter::Like(pattern) => Ok(format!(" AND {column} LIKE {}", quoted(pattern))),
        ShowStatementFilter::ILike(pattern) => Ok(format!(" AND {column} ILIKE {}", quoted(pattern))),
        ShowStatementFilter::Where(condition) => Ok(format!(" AND ({condition})")),
        ShowStatementFilter::NoKeyword(other) => Err(Error::user(format!("{other:?} is not understood: write LIKE {}", quoted(other)))),
    }
}

/// Schema and name of a table or view that is there.
fn known(table: &ObjectName, state: &SessionState) -> Result<(String, String)> {
    let reference: TableReference = keys::reference(table).map_err(|error| Error::user(error.to_string()))?;
    let defaults = &state.config_options().catalog;
    let resolved = reference.resolve(&defaults.default_catalog, &defaults.default_schema);
    let there = state.catalog_list().catalog(&resolved.catalog).and_then(|catalog| catalog.schema(&resolved.schema));
    if !there.is_some_and(|schema| schema.table_exist(&resolved.table)) {
        return Err(Error::not_found(format!(
            "there is no table {}.{}; SHOW TABLES lists those there are",
            resolved.schema, resolved.table
        )));
    }
    Ok((resolved.schema.to_string(), resolved.table.to_string()))
}

fn setting(variable: &[Ident], is_setting: impl Fn(&str) -> bool) -> Result<String> {
    let words: Vec<String> = variable.iter().map(|word| word.value.to_ascii_lowercase()).collect();
    let all = "SELECT name, value FROM system.settings";
    let name = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["all"] => return Ok(format!("{all} ORDER BY name")),
        ["time", "zone"] | ["timezone"] => "datafusion.execution.time_zone".to_string(),
        ["search_path"] => "schema".to_string(),
        words => words.join("."),
    };
    if !is_setting(&name) {
        return Err(Error::not_found(format!("'{name}' is not a setting: SHOW ALL lists those there are")));
    }
    Ok(format!("{all} WHERE name = {}", quoted(&name)))
}
