//! The 22 queries with the parameters that the specification gives for validation.

/// The queries in order: `QUERIES[0]` is Q1. Each is one statement of standard SQL.
pub const QUERIES: [&str; 22] = [
    include_str!("../../queries/tpch/q01.sql"),
    include_str!("../../queries/tpch/q02.sql"),
    include_str!("../../queries/tpch/q03.sql"),
    include_str!("../../queries/tpch/q04.sql"),
    include_str!("../../queries/tpch/q05.sql"),
    include_str!("../../queries/tpch/q06.sql"),
    include_str!("../../queries/tpch/q07.sql"),
    include_str!("../../queries/tpch/q08.sql"),
    include_str!("../../queries/tpch/q09.sql"),
    include_str!("../../queries/tpch/q10.sql"),
    include_str!("../../queries/tpch/q11.sql"),
    include_str!("../../queries/tpch/q12.sql"),
    include_str!("../../queries/tpch/q13.sql"),
    include_str!("../../queries/tpch/q14.sql"),
    include_str!("../../queries/tpch/q15.sql"),
    include_str!("../../queries/tpch/q16.sql"),
    include_str!("../../queries/tpch/q17.sql"),
    include_str!("../../queries/tpch/q18.sql"),
    include_str!("../../queries/tpch/q19.sql"),
    include_str!("../../queries/tpch/q20.sql"),
    include_str!("../../queries/tpch/q21.sql"),
    include_str!("../../queries/tpch/q22.sql"),
];

/// Q15 as the specification writes it: three statements, a view created, read and dropped.
pub const Q15_WITH_VIEW: &str = include_str!("../../queries/tpch/q15_view.sql");
