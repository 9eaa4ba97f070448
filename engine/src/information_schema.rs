//! `information_schema`, as the standard has it and BI tools read it: names of types are SQL's, ordinals begin at 1, keys are told of.
//!
//! Functions and their parameters are DataFusion's own tables.

use crate::catalog::provider::OverlaySchemas;
use crate::catalog::{CATALOG_NAME, Snapshot};
use crate::session::TableInfo;
use crate::sql_types::type_name;
use crate::system::SystemTable;
use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::memory::MemoryCatalogProviderList;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::logical_expr::Expr;
use datafusion::sql::unparser::expr_to_sql;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tables that DataFusion fills.
const OF_DATAFUSION: [&str; 2] = ["parameters", "routines"];

/// The schema's tables over a statement's catalog.
pub async fn tables(snapshot: &Snapshot, overlay: &OverlaySchemas) -> BTreeMap<String, Arc<dyn TableProvider>> {
    let listed: Arc<[TableInfo]> = TableInfo::all(snapshot, overlay).into();
    let mut names: Vec<String> = snapshot.schemas.keys().chain(overlay.keys()).cloned().collect();
    names.push(crate::catalog::INFORMATION_SCHEMA.into());
    names.sort();
    names.dedup();
    let mut tables: BTreeMap<String, Arc<dyn TableProvider>> = BTreeMap::new();
    let mut add = |name: &str, columns: &[Column], rows: fn(&[TableInfo]) -> Vec<Row>| {
        let (of, kinds) = (listed.clone(), columns.iter().map(|column| column.1).collect::<Vec<_>>());
        let fields = columns.iter().map(|(name, kind)| Field::new(*name, kind.data_type(), true)).collect();
        tables.insert(name.into(), Arc::new(SystemTable::new(fields, Arc::new(move || columns_of(&kinds, rows(&of))))));
    };
    add("tables", TABLES, table_rows);
    add("columns", COLUMNS, column_rows);
    add("views", VIEWS, view_rows);
    add("table_constraints", TABLE_CONSTRAINTS, constraint_rows);
    add("key_column_usage", KEY_COLUMN_USAGE, key_column_rows);
    add("referential_constraints", REFERENTIAL_CONSTRAINTS, reference_rows);
    let fields = ["catalog_name", "schema_name", "schema_owner"].map(|name| Field::new(name, DataType::Utf8, true)).to_vec();
    let schemata = move || -> Vec<ArrayRef> {
        let of_all = |value: Option<&str>| Arc::new(names.iter().map(|_| value).collect::<StringArray>()) as ArrayRef;
        vec![of_all(Some(CATALOG_NAME)), Arc::new(StringArray::from_iter_values(&names)), of_all(None)]
    };
    tables.insert("schemata".into(), Arc::new(SystemTable::new(fields, Arc::new(schemata))));
    let functions = InformationSchemaProvider::new(Arc::new(MemoryCatalogProviderList::new()));
    for name in OF_DATAFUSION {
        if let Ok(Some(table)) = functions.table(name).await {
            tables.insert(name.into(), table);
        }
    }
    tables
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
}
use Kind::{Number, Text};

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Text => DataType::Utf8,
            Number => DataType::Int64,
        }
    }
}

type Column = (&'static str, Kind);

/// One value of a row.
enum Cell {
    Text(String),
    Number(i64),
    Null,
}

type Row = Vec<Cell>;

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}
impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}
impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}
impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

fn columns_of(kinds: &[Kind], rows: Vec<Row>) -> Vec<ArrayRef> {
    let column = |(at, kind): (usize, &Kind)| -> ArrayRef {
        match kind {
            Text => {
                Arc::new(rows.iter().map(|row| if let Cell::Text(text) = &row[at] { Some(text) } else { None }).collect::<StringArray>())
            }
            Number => Arc::new(
                rows.iter().map(|row| if let Cell::Number(number) = row[at] { Some(number) } else { None }).collect::<Int64Array>(),
            ),
        }
    };
    kinds.iter().enumerate().map(column).collect()
}

macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$(Cell::from($value)),*] };
}

/// `table_rows` is an estimate: what the footers of the files say.
const TABLES: &[Column] = &[
    ("table_catalog", Text),
    ("table_schema", Text),
    ("table_name", Text),
    ("table_type", Text),
    ("table_rows", Number),
    ("data_length", Number),
    ("table_comment", Text),
];

fn table_rows(tables: &[TableInfo]) -> Vec<Row> {
    let row = |table: &TableInfo| {
        let kind = if table.stored.is_some() { "BASE TABLE" } else { "VIEW" };
        let sum = |of: fn(&crate::catalog::CatalogFile) -> u64| {
            table.stored.as_ref().map(|stored| stored.files.iter().map(|file| of(file)).sum::<u64>() as i64)
        };
        let (rows, bytes) = (sum(|file| file.row_count), sum(|file| file.size_bytes));
        row![&table.catalog, &table.schema, &table.name, kind, rows, bytes, table.details.comment.as_ref()]
    };
    tables.iter().map(row).collect()
}

const COLUMNS: &[Column] = &[
    ("table_catalog", Text),
    ("table_schema", Text),
    ("table_name", Text),
    ("column_name", Text),
    ("ordinal_position", Number),
    ("column_default", Text),
    ("is_nullable", Text),
    ("data_type", Text),
    ("character_maximum_length", Number),
    ("character_octet_length", Number),
    ("numeric_precision", Number),
    ("numeric_precision_radix", Number),
    ("numeric_scale", Number),
    ("datetime_precision", Number),
    ("interval_type", Text),
    ("column_comment", Text),
];

fn column_rows(tables: &[TableInfo]) -> Vec<Row> {
    let mut rows = vec![];
    for table in tables {
        for (field, ordinal) in table.columns.fields().iter().zip(1_i64..) {
            let default = table.stored.as_ref().and_then(|stored| stored.defaults.get(field.name())).map(sql_of);
            let (precision, radix, scale) = numeric(field.data_type());
            let nullable = if field.is_nullable() { "YES" } else { "NO" };
            let length = table.details.text_lengths.get(field.name());
            let characters = length.map(|length| length.characters as i64);
            rows.push(row![
                &table.catalog,
                &table.schema,
                &table.name,
                field.name(),
                ordinal,
                default,
                nullable,
                length.map_or_else(|| type_name(field.data_type()), |length| length.name().to_string()),
                characters,
                // A character has up to four bytes.
                characters.map(|characters| characters * 4),
                precision,
                radix,
                scale,
                datetime_precision(field.data_type()),
                Option::<String>::None,
                table.details.column_comments.get(field.name()),
            ]);
        }
    }
    rows
}

/// An expression as SQL.
pub(crate) fn sql_of(expr: &Expr) -> String {
    expr_to_sql(expr).map_or_else(|_| expr.to_string(), |sql| sql.to_string())
}

/// Precision, its radix, and scale.
fn numeric(data_type: &DataType) -> (Option<i64>, Option<i64>, Option<i64>) {
    let (precision, radix, scale) = match data_type {
        DataType::Int8 | DataType::UInt8 => (8, 2, 0),
        DataType::Int16 | DataType::UInt16 => (16, 2, 0),
        DataType::Int32 | DataType::UInt32 => (32, 2, 0),
        DataType::Int64 | DataType::UInt64 => (64, 2, 0),
        DataType::Float16 | DataType::Float32 => return (Some(24), Some(2), None),
        DataType::Float64 => return (Some(53), Some(2), None),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => ((*precision).into(), 10, (*scale).into()),
        _ => return (None, None, None),
    };
    (Some(precision), Some(radix), Some(scale))
}

/// Digits of a second's fraction.
fn datetime_precision(data_type: &DataType) -> Option<i64> {
    match data_type {
        DataType::Date32 | DataType::Date64 => Some(0),
        DataType::Time32(unit) | DataType::Time64(unit) | DataType::Timestamp(unit, _) => Some(match unit {
            TimeUnit::Second => 0,
            TimeUnit::Millisecond => 3,
            TimeUnit::Microsecond => 6,
            TimeUnit::Nanosecond => 9,
        }),
        _ => None,
    }
}

const VIEWS: &[Column] = &[("table_catalog", Text), ("table_schema", Text), ("table_name", Text), ("view_definition", Text)];

fn view_rows(tables: &[TableInfo]) -> Vec<Row> {
    let views = tables.iter().filter(|table| table.table_type == "VIEW");
    views.map(|view| row![&view.catalog, &view.schema, &view.name, view.definition.as_ref()]).collect()
}

const TABLE_CONSTRAINTS: &[Column] = &[
    ("constraint_catalog", Text),
    ("constraint_schema", Text),
    ("constraint_name", Text),
    ("table_catalog", Text),
    ("table_schema", Text),
    ("table_name", Text),
    ("constraint_type", Text),
    ("is_deferrable", Text),
    ("initially_deferred", Text),
    ("enforced", Text),
];

fn constraint_rows(tables: &[TableInfo]) -> Vec<Row> {
    let mut rows = vec![];
    for table in tables {
        let mut add = |name: String, kind: &str| {
            rows.push(row![CATALOG_NAME, &table.schema, name, &table.catalog, &table.schema, &table.name, kind, "NO", "NO", "NO"]);
        };
        if !table.details.primary_key.is_empty() {
            add(table.details.primary_key_name(&table.name), "PRIMARY KEY");
        }
        table.details.foreign_keys.iter().for_each(|key| add(key.name.clone(), "FOREIGN KEY"));
    }
    rows
}

const KEY_COLUMN_USAGE: &[Column] = &[
    ("constraint_catalog", Text),
    ("constraint_schema", Text),
    ("constraint_name", Text),
    ("table_catalog", Text),
    ("table_schema", Text),
    ("table_name", Text),
    ("column_name", Text),
    ("ordinal_position", Number),
    ("position_in_unique_constraint", Number),
    ("referenced_table_schema", Text),
    ("referenced_table_name", Text),
    ("referenced_column_name", Text),
];

fn key_column_rows(tables: &[TableInfo]) -> Vec<Row> {
    let mut rows = vec![];
    for table in tables {
        let mut add = |name: &str, column: &str, ordinal: i64, other: Option<(&str, &str, &str)>| {
            let position = other.map(|(schema, name, column)| position_in_key(tables, schema, name, column).unwrap_or(ordinal));
            let (other_schema, other_name, other_column) =
                other.map_or((None, None, None), |(schema, name, column)| (Some(schema), Some(name), Some(column)));
            let of = &table.schema;
            rows.push(row![
                CATALOG_NAME,
                of,
                name,
                &table.catalog,
                of,
                &table.name,
                column,
                ordinal,
                position,
                other_schema,
                other_name,
                other_column
            ]);
        };
        let name = table.details.primary_key_name(&table.name);
        for (column, ordinal) in table.details.primary_key.iter().zip(1_i64..) {
            add(&name, column, ordinal, None);
        }
        for key in &table.details.foreign_keys {
            for ((column, other), ordinal) in key.columns.iter().zip(&key.referenced).zip(1_i64..) {
                add(&key.name, column, ordinal, Some((&key.schema, &key.table, other)));
            }
        }
    }
    rows
}

fn position_in_key(tables: &[TableInfo], schema: &str, name: &str, column: &str) -> Option<i64> {
    let table = tables.iter().find(|table| (table.schema.as_str(), table.name.as_str()) == (schema, name))?;
    Some(table.details.primary_key.iter().position(|known| known == column)? as i64 + 1)
}

const REFERENTIAL_CONSTRAINTS: &[Column] = &[
    ("constraint_catalog", Text),
    ("constraint_schema", Text),
    ("constraint_name", Text),
    ("unique_constraint_catalog", Text),
    ("unique_constraint_schema", Text),
    ("unique_constraint_name", Text),
    ("match_option", Text),
    ("update_rule", Text),
    ("delete_rule", Text),
];

fn reference_rows(tables: &[TableInfo]) -> Vec<Row> {
    let mut rows = vec![];
    for table in tables {
        for key in &table.details.foreign_keys {
            let other = tables.iter().find(|other| (&other.schema, &other.name) == (&key.schema, &key.table));
            let unique =
                other.filter(|other| !other.details.primary_key.is_empty()).map(|other| other.details.primary_key_name(&other.name));
            let rule = "NO ACTION";
            rows.push(row![CATALOG_NAME, &table.schema, &key.name, CATALOG_NAME, &key.schema, unique, "NONE", rule, rule]);
        }
    }
    rows
}
