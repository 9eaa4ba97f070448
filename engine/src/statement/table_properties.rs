//! What a table is beside its columns and rows: copies, regions, and what becomes of files that cannot be read. Written as
//! `CREATE TABLE … WITH (regions = 'eu', replicas = 2)` and `CREATE EXTERNAL TABLE … OPTIONS ('replicas' '2', 'on_bad_file' 'skip')`.

use super::own::{parse_regions, parse_replicas};
use crate::error::{Error, Result};
use datafusion::sql::sqlparser::ast::{CreateTable, CreateTableOptions, Expr, SqlOption, Statement, Value};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use std::collections::HashMap;

/// What a statement says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableProperties {
    /// Copies of each file.
    pub replicas: u32,
    /// Regions that the rows never leave; empty for none.
    pub regions: Vec<String>,
    /// Whether files that cannot be read are left out.
    pub skip_bad_files: bool,
}

impl Default for TableProperties {
    /// One copy anywhere, and no file left out.
    fn default() -> Self {
        Self { replicas: 1, regions: vec![], skip_bad_files: false }
    }
}

/// The OPTIONS of CREATE EXTERNAL TABLE.
pub fn of_external(options: &HashMap<String, String>) -> Result<TableProperties> {
    let mut read = TableProperties::default();
    let wrong = |error: ParserError| Error::user(format!("OPTIONS: {error}"));
    for (name, value) in options {
        // DataFusion's parser puts its own prefix before names without one.
        match name.trim_start_matches("format.") {
            "replicas" => read.replicas = parse_replicas(value).map_err(wrong)?,
            "regions" => read.regions = parse_regions(value).map_err(wrong)?,
            "on_bad_file" => {
                read.skip_bad_files = match value.to_ascii_lowercase().as_str() {
                    "fail" => false,
                    "skip" => true,
                    _ => {
                        return Err(Error::user(format!(
                            "OPTIONS: on_bad_file cannot be '{value}': 'fail' refuses the table for a file that cannot be read, 'skip' leaves the file out"
                        )));
                    }
                }
            }
            other => {
                return Err(Error::user(format!(
                    "CREATE EXTERNAL TABLE has no option '{other}': there are replicas, regions and on_bad_file"
                )));
            }
        }
    }
    Ok(read)
}

/// Takes WITH out of a CREATE TABLE, which the planner would refuse.
pub fn take_with(create: &mut CreateTable) -> Vec<SqlOption> {
    match &mut create.table_options {
        CreateTableOptions::With(options) => {
            let taken = std::mem::take(options);
            create.table_options = CreateTableOptions::None;
            taken
        }
        _ => vec![],
    }
}

/// What the WITH of a CREATE TABLE says.
pub fn declared(sql: &str) -> Result<TableProperties> {
    let parsed = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| Error::user(error.to_string()))?;
    let mut read = TableProperties::default();
    let Some(Statement::CreateTable(mut create)) = parsed.into_iter().next() else { return Ok(read) };
    let wrong = |error: ParserError| match error {
        ParserError::ParserError(text) => Error::user(format!("WITH: {text}")),
        other => Error::user(format!("WITH: {other}")),
    };
    for option in take_with(&mut create) {
        let SqlOption::KeyValue { key, value: Expr::Value(value) } = &option else { return Err(unknown(&option.to_string())) };
        let text = match &value.value {
            Value::Number(text, _) | Value::SingleQuotedString(text) => text,
            _ => return Err(unknown(&option.to_string())),
        };
        match key.value.to_ascii_lowercase().as_str() {
            "replicas" => read.replicas = parse_replicas(text).map_err(wrong)?,
            "regions" => read.regions = parse_regions(text).map_err(wrong)?,
            _ => return Err(unknown(&option.to_string())),
        }
    }
    Ok(read)
}

fn unknown(option: &str) -> Error {
    Error::user(format!("CREATE TABLE does not know WITH ({option}): write WITH (replicas = <n>, regions = '<region>, …')"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_where_its_rows_stay() {
        let read = declared("CREATE TABLE t WITH (regions = 'us, eu', REPLICAS = 2) AS SELECT 1 AS a").unwrap();
        assert_eq!(read, TableProperties { replicas: 2, regions: vec!["eu".into(), "us".into()], skip_bad_files: false });
        assert_eq!(declared("CREATE TABLE t (a INT)").unwrap(), TableProperties::default());
        for (sql, said) in [
            ("CREATE TABLE t (a INT) WITH (replicas = 0)", "replicas cannot be '0'"),
            ("CREATE TABLE t (a INT) WITH (colour = 'red')", "does not know WITH (colour = 'red')"),
            ("CREATE TABLE t (a INT) WITH (regions = 'E U')", "'E U' is no region"),
        ] {
            let error = declared(sql).unwrap_err().message();
            assert!(error.contains(said), "{sql}: {error}");
        }
    }
}
