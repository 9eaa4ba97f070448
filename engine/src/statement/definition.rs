//! The statement that would make a table anew.

use crate::catalog::Table;
use crate::information_schema::sql_of;
use crate::sql_types::declared_type;

/// `CREATE TABLE …` or `CREATE EXTERNAL TABLE …` of a table.
pub fn of(table: &Table) -> String {
    let name = format!("{}.{}", quoted(&table.schema_name), quoted(&table.name));
    if table.managed {
        let mut parts: Vec<String> = vec![];
        for field in table.stored_schema.fields() {
            let default = table.defaults.get(field.name()).map(|default| format!(" DEFAULT {}", sql_of(default)));
            let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
            let length = table.details.text_lengths.get(field.name());
            let data_type = length.map_or_else(|| declared_type(field.data_type()), |length| length.declared());
            parts.push(format!("{} {data_type}{not_null}{}", quoted(field.name()), default.unwrap_or_default()));
        }
        let details = &table.details;
        if !details.primary_key.is_empty() {
            let named = details.primary_key_name.as_ref().map(|name| format!("CONSTRAINT {} ", quoted(name)));
            parts.push(format!("{}PRIMARY KEY ({})", named.unwrap_or_default(), list(&details.primary_key)));
        }
        for key in &details.foreign_keys {
            let other = format!("{}.{}", quoted(&key.schema), quoted(&key.table));
            let columns = list(&key.columns);
            parts.push(format!("CONSTRAINT {} FOREIGN KEY ({columns}) REFERENCES {other} ({})", quoted(&key.name), list(&key.referenced)));
        }
        let mut with = vec![];
        if table.replicas != 1 {
            with.push(format!("replicas = {}", table.replicas));
        }
        if !table.regions.is_empty() {
            with.push(format!("regions = '{}'", table.regions.join(", ")));
        }
        let with = if with.is_empty() { String::new() } else { format!(" WITH ({})", with.join(", ")) };
        return format!("CREATE TABLE {name} (\n  {}\n){with}", parts.join(",\n  "));
    }
    let mut options = vec![];
    if table.replicas != 1 {
        options.push(format!("'replicas' '{}'", table.replicas));
    }
    if !table.regions.is_empty() {
        options.push(format!("'regions' '{}'", table.regions.join(", ")));
    }
    if table.details.skip_bad_files {
        options.push("'on_bad_file' 'skip'".to_string());
    }
    let options = if options.is_empty() { String::new() } else { format!(" OPTIONS ({})", options.join(", ")) };
    let columns = if table.details.columns_declared { format!(" ({})", declared_columns(table).join(", ")) } else { String::new() };
    format!("CREATE EXTERNAL TABLE {name}{columns} STORED AS PARQUET LOCATION '{}'{options}", table.location_text.replace('\'', "''"))
}

/// The column list of an external table.
fn declared_columns(table: &Table) -> Vec<String> {
    let columns = table.stored_schema.fields().iter().map(|field| {
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        format!("{} {}{not_null}", quoted(field.name()), declared_type(field.data_type()))
    });
    columns.collect()
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// A name as it has to be written: in quotes unless it is of lower-case letters, digits and `_`.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
    if plain { name.into() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
