//! Primary and foreign keys: declared for people and BI tools, not enforced, but that CREATE TABLE makes the columns of a primary key NOT NULL.
//!
//! DataFusion's planner refuses foreign keys: they are taken out of a CREATE TABLE before it plans, and read from the text here.

use crate::catalog::{ForeignKey, Snapshot, TableDetails};
use crate::error::{Error, Result};
use arrow::datatypes::Schema;
use datafusion::common::TableReference;
use datafusion::sql::sqlparser::ast::{ColumnOption, CreateTable, ForeignKeyConstraint, Ident, ObjectName, Statement, TableConstraint};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// A key as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclaredKey {
    /// `[CONSTRAINT name] PRIMARY KEY (a, b)`.
    Primary {
        /// Its name, if it has one.
        name: Option<String>,
        /// Columns in the key's order.
        columns: Vec<String>,
    },
    /// `[CONSTRAINT name] FOREIGN KEY (a, b) REFERENCES t (c, d)`.
    Foreign {
        /// Its name, if it has one.
        name: Option<String>,
        /// Columns of the table that declares it.
        columns: Vec<String>,
        /// The table it points to.
        table: TableReference,
        /// Columns there; its primary key where none is named.
        referenced: Vec<String>,
    },
}

/// Takes the foreign keys out of a CREATE TABLE.
pub fn take_foreign_keys(create: &mut CreateTable) -> Vec<ForeignKeyConstraint> {
    let mut taken = vec![];
    for column in &mut create.columns {
        column.options.retain(|option| match &option.option {
            ColumnOption::ForeignKey(key) => {
                let name = option.name.clone().or_else(|| key.name.clone());
                taken.push(ForeignKeyConstraint { name, columns: vec![column.name.clone()], ..key.clone() });
                false
            }
            _ => true,
        });
    }
    create.constraints.retain(|constraint| match constraint {
        TableConstraint::ForeignKey(key) => {
            taken.push(key.clone());
            false
        }
        _ => true,
    });
    taken
}

/// The keys of a CREATE TABLE; a primary key only if it has a name, its columns are in the plan.
pub fn declared(sql: &str) -> Result<Vec<DeclaredKey>> {
    let parsed = Parser::parse_sql(&GenericDialect {}, sql).map_err(|error| Error::user(error.to_string()))?;
    let Some(Statement::CreateTable(mut create)) = parsed.into_iter().next() else { return Ok(vec![]) };
    let foreign = take_foreign_keys(&mut create).into_iter().map(|key| from_constraint(TableConstraint::ForeignKey(key)));
    let named =
        create.constraints.into_iter().filter(|constraint| matches!(constraint, TableConstraint::PrimaryKey(key) if key.name.is_some()));
    let keys = foreign.chain(named.map(from_constraint)).collect::<Result<_, _>>();
    keys.map_err(|error: ParserError| Error::user(error.to_string()))
}

/// A key as the parser reads it.
///
/// # Errors
/// Of constraints that are neither a primary nor a foreign key.
pub fn from_constraint(constraint: TableConstraint) -> Result<DeclaredKey, ParserError> {
    match constraint {
        TableConstraint::PrimaryKey(key) => {
            let column = |text: String| {
                text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).map_or_else(|| text.to_ascii_lowercase(), Into::into)
            };
            let columns = key.columns.into_iter().map(|part| column(part.column.expr.to_string())).collect();
            Ok(DeclaredKey::Primary { name: key.name.map(name), columns })
        }
        TableConstraint::ForeignKey(key) => Ok(DeclaredKey::Foreign {
            name: key.name.map(name),
            columns: key.columns.into_iter().map(name).collect(),
            table: reference(&key.foreign_table)?,
            referenced: key.referred_columns.into_iter().map(name).collect(),
        }),
        other => Err(ParserError::ParserError(format!("{other} is not supported: primary and foreign keys are"))),
    }
}

/// A name as DataFusion resolves it: lower case unless it is quoted.
fn name(ident: Ident) -> String {
    if ident.quote_style.is_some() { ident.value } else { ident.value.to_ascii_lowercase() }
}

/// The table that a name of up to three parts means.
///
/// # Errors
/// Of other names.
pub fn reference(object: &ObjectName) -> Result<TableReference, ParserError> {
    let parts: Option<Vec<String>> = object.0.iter().map(|part| part.as_ident().cloned().map(name)).collect();
    match parts.as_deref() {
        Some([table]) => Ok(TableReference::bare(table.as_str())),
        Some([schema, table]) => Ok(TableReference::partial(schema.as_str(), table.as_str())),
        Some([catalog, schema, table]) => Ok(TableReference::full(catalog.as_str(), schema.as_str(), table.as_str())),
        _ => Err(ParserError::ParserError(format!("{object} is no table's name"))),
    }
}

/// A table of which a key is declared.
pub struct Declaring<'a> {
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its columns.
    pub columns: &'a Schema,
}

impl Declaring<'_> {
    /// Adds a key to what is declared of the table. `resolve` says which table a name means.
    ///
    /// # Errors
    /// When a column or the other table is not there, or a key of that name or kind is already.
    pub fn add(
        &self,
        details: &mut TableDetails,
        key: DeclaredKey,
        snapshot: &Snapshot,
        resolve: impl Fn(&TableReference) -> Result<(String, String)>,
    ) -> Result<()> {
        let table = format!("{}.{}", self.schema, self.name);
        match key {
            DeclaredKey::Primary { name, columns } => {
                has_columns(self.columns, &table, &columns)?;
                if !details.primary_key.is_empty() && details.primary_key != columns {
                    return Err(Error::user(format!("table {table} has a primary key already, {}", details.primary_key_name(self.name))));
                }
                details.primary_key = columns;
                details.primary_key_name = name;
            }
            DeclaredKey::Foreign { name, columns, table: other, referenced } => {
                has_columns(self.columns, &table, &columns)?;
                let (other_schema, other_name) = resolve(&other)?;
                let itself = (other_schema.as_str(), other_name.as_str()) == (self.schema, self.name);
                let known = snapshot.table(&other_schema, &other_name);
                let (other_columns, other_key) = match known {
                    _ if itself => (self.columns, &details.primary_key),
                    Some(known) => (known.stored_schema.as_ref(), &known.details.primary_key),
                    None => {
                        return Err(Error::not_found(format!(
                            "there is no table {other_schema}.{other_name} for a foreign key to reference"
                        )));
                    }
                };
                let other_table = format!("{other_schema}.{other_name}");
                let referenced = if referenced.is_empty() { other_key.clone() } else { referenced };
                if referenced.is_empty() {
                    return Err(Error::user(format!(
                        "table {other_table} has no primary key: name the columns after REFERENCES {other_table}"
                    )));
                }
                has_columns(other_columns, &other_table, &referenced)?;
                if referenced.len() != columns.len() {
                    return Err(Error::user(format!(
                        "the foreign key has {} column(s) and references {}",
                        columns.len(),
                        referenced.len()
                    )));
                }
                let name = name.unwrap_or_else(|| format!("{}_{}_fkey", self.name, columns.join("_")));
                if details.foreign_keys.iter().any(|known| known.name == name) {
                    return Err(Error::user(format!("table {table} has a foreign key {name} already: name this one with CONSTRAINT")));
                }
                details.foreign_keys.push(ForeignKey { name, columns, schema: other_schema, table: other_name, referenced });
            }
        }
        Ok(())
    }
}

fn has_columns(columns: &Schema, table: &str, named: &[String]) -> Result<()> {
    match named.iter().find(|column| columns.index_of(column).is_err()) {
        Some(missing) => Err(Error::not_found(format!("table {table} has no column {missing}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_columns_and_constraints() {
        let sql = "CREATE TABLE t (a INT REFERENCES s.u (x), \"B\" INT, c INT, CONSTRAINT pk PRIMARY KEY (a, \"B\"), FOREIGN KEY (a, \"B\") REFERENCES v)";
        let foreign = |columns: &[&str], table, referenced: &[&str]| DeclaredKey::Foreign {
            name: None,
            columns: columns.iter().map(ToString::to_string).collect(),
            table,
            referenced: referenced.iter().map(ToString::to_string).collect(),
        };
        let expected = [
            foreign(&["a"], TableReference::partial("s", "u"), &["x"]),
            foreign(&["a", "B"], TableReference::bare("v"), &[]),
            DeclaredKey::Primary { name: Some("pk".into()), columns: vec!["a".into(), "B".into()] },
        ];
        assert_eq!(declared(sql).unwrap(), expected);
        assert_eq!(declared("CREATE TABLE t AS SELECT 1 AS a").unwrap(), []);
    }
}
