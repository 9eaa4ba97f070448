//! Tests of the whole: real processes and real clients. The tests are in `tests/` (SQL scripts, plans of strangers, rules of the house)
//! and in `clients/` (Python drivers against the same processes); this library starts clusters for the former.

#![forbid(unsafe_code)]

pub mod cluster;
