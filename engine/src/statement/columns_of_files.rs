//! The columns of an external table: by name, in the type that holds the values of all files, or as a column list declares them.

use crate::catalog::footer::{decode_schema, facts_of_table};
use crate::catalog::store::NewFile;
use crate::error::{Error, Result};
use crate::files::common_type::{common_type, may_become};
use crate::result_types::plain_type;
use crate::sql_types::declared_type;
use arrow::datatypes::{Field, Schema};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Columns that a message lists.
const NAMED_MAX: usize = 20;

/// Columns of some of the files, which say them in the same words.
struct Shape {
    schema: Schema,
    /// One of these files, for people.
    file: String,
}

/// The columns of a table over these files. The files' statistics become those of the table's columns.
///
/// # Errors
/// When a column has no type for all files, by the names of two of them and what they have.
pub(crate) fn columns_of_files(mut files: Vec<NewFile>, declared: Option<Schema>) -> Result<(Vec<NewFile>, Schema)> {
    let mut shapes: Vec<Shape> = vec![];
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut shape_of = Vec::with_capacity(files.len());
    for file in &files {
        let at = match known.get(&file.facts.schema_ipc) {
            Some(at) => *at,
            None => {
                let shape = Shape { schema: decode_schema(&file.facts.schema_ipc).map_err(Error::bug)?, file: place(file) };
                check_names(&shape)?;
                shapes.push(shape);
                known.insert(file.facts.schema_ipc.clone(), shapes.len() - 1);
                shapes.len() - 1
            }
        };
        shape_of.push(at);
    }
    let table = match declared {
        Some(list) => listed(&list, &shapes)?,
        None => common(&shapes)?,
    };
    for (file, at) in files.iter_mut().zip(shape_of) {
        if shapes[at].schema != table {
            facts_of_table(&mut file.facts, &shapes[at].schema, &table);
        }
    }
    Ok((files, table))
}

fn place(file: &NewFile) -> String {
    match file.homes.first() {
        Some((node, _)) => format!("{} on node {node}", file.path),
        None => file.path.clone(),
    }
}

fn check_names(shape: &Shape) -> Result<()> {
    let mut names = HashSet::new();
    if shape.schema.fields().is_empty() {
        return Err(Error::user(format!("file {} has no column, and a table needs one: move it elsewhere", shape.file)));
    }
    match shape.schema.fields().iter().find(|field| !names.insert(field.name())) {
        Some(twice) => Err(Error::user(format!(
            "file {} has two columns of the name \"{}\", and a table's columns are told apart by their names: write the file anew",
            shape.file,
            twice.name()
        ))),
        None => Ok(()),
    }
}

/// A column of the table, and the shape that its type comes from.
struct Column {
    field: Field,
    from: usize,
    /// Shapes that have it.
    seen: usize,
}

/// By name, in the order in which files name them first; NULL in files that lack one.
fn common(shapes: &[Shape]) -> Result<Schema> {
    let mut columns: Vec<Column> = vec![];
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for (at, shape) in shapes.iter().enumerate() {
        for field in shape.schema.fields() {
            let Some(known) = by_name.get(field.name()) else {
                by_name.insert(field.name().clone(), columns.len());
                columns.push(Column { field: field.as_ref().clone(), from: at, seen: 1 });
                continue;
            };
            let column = &mut columns[*known];
            let (before, here) = (column.field.data_type(), field.data_type());
            let Some(common) = common_type(before, here) else {
                return Err(no_common_type(field, shape, &column.field, &shapes[column.from]));
            };
            if common != *before {
                column.from = at;
            }
            let nullable = column.field.is_nullable() || field.is_nullable();
            column.field = Field::new(field.name(), common, nullable);
            column.seen += 1;
        }
    }
    check_case(&columns, shapes)?;
    let fields = columns.into_iter().map(|column| {
        // What no file has a value of is text to clients.
        let data_type = plain_type(column.field.data_type());
        Field::new(column.field.name(), data_type, column.field.is_nullable() || column.seen < shapes.len())
    });
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

fn no_common_type(here: &Field, shape: &Shape, before: &Field, other: &Shape) -> Error {
    let (name, types) = (here.name(), (before.data_type(), here.data_type()));
    let declared = match types {
        (before, here) if may_become(here, before) => Some(before),
        (before, here) if may_become(before, here) => Some(here),
        _ => None,
    };
    let hint = declared.map_or_else(String::new, |declared| {
        format!("declare it in a column list, CREATE EXTERNAL TABLE … ({name} {}, …), or ", declared_type(declared))
    });
    Error::user(format!(
        "the files at this location do not make one table: column {name} is {} in {} and {} in {}, and no type holds the values of both; {hint}move one of the files into a folder of its own",
        declared_type(types.0),
        other.file,
        declared_type(types.1),
        shape.file,
    ))
}

/// Two spellings of one name are most likely one column, and most likely not meant.
fn check_case(columns: &[Column], shapes: &[Shape]) -> Result<()> {
    let mut spelled: HashMap<String, Vec<&str>> = HashMap::new();
    for column in columns {
        spelled.entry(column.field.name().to_lowercase()).or_default().push(column.field.name());
    }
    let file_of =
        |name: &str| shapes.iter().find(|shape| shape.schema.field_with_name(name).is_ok()).map_or("", |shape| shape.file.as_str());
    for names in spelled.values().filter(|names| names.len() > 1) {
        let in_one = shapes.iter().any(|shape| names.iter().all(|name| shape.schema.field_with_name(name).is_ok()));
        if !in_one {
            return Err(Error::user(format!(
                "the files at this location do not make one table: column \"{}\" in {} and \"{}\" in {} differ in upper and lower case alone; write one of the files anew, or move it into a folder of its own",
                names[0],
                file_of(names[0]),
                names[1],
                file_of(names[1])
            )));
        }
    }
    Ok(())
}

/// The columns of the list, as far as files have them in a type that may become the declared one.
fn listed(list: &Schema, shapes: &[Shape]) -> Result<Schema> {
    let mut names = HashSet::new();
    let fields = list.fields().iter().map(|field| {
        let (name, wanted) = (field.name(), plain_type(field.data_type()));
        if !names.insert(name) {
            return Err(Error::user(format!("the column list names {name} twice")));
        }
        let having = shapes.iter().filter_map(|shape| Some((shape, shape.schema.field_with_name(name).ok()?)));
        let mut having = having.peekable();
        if having.peek().is_none() {
            return Err(nowhere(name, shapes));
        }
        for (shape, stored) in having {
            if !may_become(stored.data_type(), &wanted) {
                return Err(Error::user(format!(
                    "column {name} is declared as {}, and it is {} in {}, whose values do not become that without loss: declare another type, or move the file into a folder of its own",
                    declared_type(&wanted),
                    declared_type(stored.data_type()),
                    shape.file
                )));
            }
        }
        let open = |shape: &Shape| shape.schema.field_with_name(name).is_ok_and(|stored| !stored.is_nullable());
        if !field.is_nullable()
            && let Some(shape) = shapes.iter().find(|shape| !open(shape))
        {
            return Err(Error::user(format!(
                "column {name} is declared NOT NULL, and {} may have rows without a value for it: leave NOT NULL out",
                shape.file
            )));
        }
        Ok(Field::new(name, wanted, field.is_nullable()))
    });
    Ok(Schema::new(fields.collect::<Result<Vec<_>>>()?))
}

fn nowhere(name: &str, shapes: &[Shape]) -> Error {
    let all: BTreeSet<&str> = shapes.iter().flat_map(|shape| shape.schema.fields().iter().map(|field| field.name().as_str())).collect();
    let close = all.iter().find(|other| other.to_lowercase() == name.to_lowercase());
    let hint = match close {
        Some(close) => format!("they have \"{close}\""),
        None => {
            let named: Vec<&str> = all.iter().copied().take(NAMED_MAX).collect();
            format!("they have {}{}", named.join(", "), if all.len() > NAMED_MAX { ", …" } else { "" })
        }
    };
    Error::not_found(format!("no file at this location has a column {name}: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;

    fn shape(file: &str, columns: &[(&str, DataType)]) -> Shape {
        let fields: Vec<Field> = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), false)).collect();
        Shape { schema: Schema::new(fields), file: file.into() }
    }

    #[test]
    fn files_meet_by_name() {
        let files = [
            shape("one", &[("a", DataType::Int32), ("b", DataType::Utf8), ("n", DataType::Null)]),
            shape("two", &[("b", DataType::Utf8), ("a", DataType::Int64), ("c", DataType::Date32)]),
        ];
        let table = common(&files).unwrap();
        let said: Vec<String> =
            table.fields().iter().map(|field| format!("{} {} {}", field.name(), field.data_type(), field.is_nullable())).collect();
        assert_eq!(said, ["a Int64 false", "b Utf8 false", "n Utf8 true", "c Date32 true"]);
    }

    #[test]
    fn what_does_not_meet_is_named() {
        let apart = [shape("one", &[("a", DataType::Int32)]), shape("two", &[("a", DataType::Utf8)])];
        let why = common(&apart).unwrap_err().to_string();
        assert!(why.contains("column a is INTEGER in one and VARCHAR in two"), "{why}");
        let cased = [shape("one", &[("Id", DataType::Int32)]), shape("two", &[("id", DataType::Int32)])];
        let why = common(&cased).unwrap_err().to_string();
        assert!(why.contains("\"Id\" in one and \"id\" in two"), "{why}");
        let both = [shape("one", &[("Id", DataType::Int32), ("id", DataType::Int32)]), shape("two", &[("id", DataType::Int32)])];
        assert!(common(&both).is_ok());
    }
}
