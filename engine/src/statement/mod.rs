//! Statements of our own: the catalog's and the session's. Everything else is DataFusion's SQL.

pub mod cache_table;
pub mod change_table;
pub mod coercion;
pub mod columns_of_files;
pub mod definition;
pub mod diagnosis;
pub mod external_table;
pub mod guard;
pub mod insert_defaults;
pub mod keys;
mod named_windows;
pub mod own;
mod patterns;
mod references;
pub mod repeated_names;
pub mod rewrite;
mod rows;
pub mod show;
pub mod standard_syntax;
pub mod subqueries;
pub mod substrait;
pub mod syntax;
pub mod table_properties;
pub mod time_units;
pub mod times;
pub mod type_names;
mod using;
