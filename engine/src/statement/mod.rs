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
pub mod own;
mod references;
pub mod repeated_names;
pub mod rewrite;
pub mod show;
pub mod standard_syntax;
pub mod subqueries;
pub mod substrait;
pub mod times;
pub mod type_names;
