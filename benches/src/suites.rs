//! The suites: named queries, and the data set that they read.

use crate::Outcome;
use crate::data_set::DataSet;
use crate::steps::Steps;
use bowshot_datasets::{hits, sweep, tpch};

/// Names of the suites.
pub const SUITES: [&str; 4] = ["tpch", "hot", "hits", "sweep"];

/// A tenth of ClickBench's: enough for millions of groups. Bowshot, DuckDB and Hyper together were seen to hold about 6 GB.
const HITS_ROWS: usize = 10_000_000;
/// The largest key has as many groups as there are rows. With two million, three runs of all engines take about three minutes on two
/// cores; more rows show more groups.
const SWEEP_ROWS: usize = 1 << 21;

/// What a run asks.
pub struct Suite {
    pub data: DataSet,
    /// Names and SQL texts, in the order in which they run.
    pub queries: Vec<(String, String)>,
    /// The tables that they read.
    pub tables: Vec<&'static str>,
    /// Whether first runs count.
    pub cold: bool,
    /// The engine whose answers are the reference.
    pub reference: &'static str,
    /// Queries whose times are compared with each other.
    pub steps: Option<Steps>,
}

/// The suite of a name over TPC-H at `scale`, or over a table of `rows` rows.
pub fn suite(name: &str, scale: f64, rows: Option<usize>) -> Outcome<Suite> {
    match name {
        "tpch" => {
            let queries = tpch::QUERIES.iter().enumerate();
            let queries = queries.map(|(number, sql)| (format!("q{}", number + 1), sql.to_string())).collect();
            let tables = tpch::TABLES.to_vec();
            Ok(Suite { data: DataSet::Tpch { scale }, queries, tables, cold: true, reference: "duckdb", steps: None })
        }
        "hot" => {
            let queries = HOT.iter().map(|(name, sql)| (name.to_string(), sql.to_string())).collect();
            Ok(hot(DataSet::Tpch { scale }, queries, vec!["lineitem", "orders"]))
        }
        "hits" => {
            let queries = hits::QUERIES.iter().enumerate();
            let queries = queries.map(|(number, sql)| (format!("q{number}"), sql.to_string())).collect();
            Ok(hot(DataSet::Hits { rows: rows.unwrap_or(HITS_ROWS) }, queries, vec![hits::TABLE]))
        }
        "sweep" => {
            let rows = rows.unwrap_or(SWEEP_ROWS);
            let keys = sweep::keys(rows);
            let queries = keys.iter().map(|key| (key.column(), grouped_by(&key.column()))).collect();
            let dense = keys.iter().filter(|key| key.form == sweep::Form::Dense);
            let steps = Steps { queries: dense.map(sweep::Key::column).collect(), rows };
            Ok(Suite { steps: Some(steps), ..hot(DataSet::Sweep { rows }, queries, vec![sweep::TABLE]) })
        }
        other => Err(format!("no suite '{other}': use {}", SUITES.join(", ")).into()),
    }
}

/// A suite in which only hot runs count, beside peers with their tables in memory.
fn hot(data: DataSet, queries: Vec<(String, String)>, tables: Vec<&'static str>) -> Suite {
    Suite { data, queries, tables, cold: false, reference: "duckdb-memory", steps: None }
}

/// Ten of the groups, so that the answer costs nothing beside the groups.
fn grouped_by(key: &str) -> String {
    format!(
        "SELECT {key}, count(*) AS hits, sum(quantity) AS total, sum(amount) AS money FROM sweep GROUP BY {key} \
         ORDER BY total DESC, {key} LIMIT 10"
    )
}

/// Aggregations of one table, in SQL that every peer reads: TPC-H's Q1 and Q6, the single-table parts of others, and what they leave
/// out (many groups, functions as keys, doubles, strings, NULLs). Answers have few rows: what is measured is the aggregation.
const HOT: [(&str, &str); 18] = [
    (
        "q1",
        "SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price, \
         sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price, sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge, \
         avg(l_quantity) AS avg_qty, avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc, count(*) AS count_order \
         FROM lineitem WHERE l_shipdate <= DATE '1998-09-02' GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus",
    ),
    (
        "q6",
        "SELECT sum(l_extendedprice * l_discount) AS revenue FROM lineitem WHERE l_shipdate >= DATE '1994-01-01' \
         AND l_shipdate < DATE '1995-01-01' AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24",
    ),
    (
        "q12_part",
        "SELECT l_shipmode, count(*) AS lines FROM lineitem WHERE l_shipmode IN ('MAIL', 'SHIP') AND l_commitdate < l_receiptdate \
         AND l_shipdate < l_commitdate AND l_receiptdate >= DATE '1994-01-01' AND l_receiptdate < DATE '1995-01-01' \
         GROUP BY l_shipmode ORDER BY l_shipmode",
    ),
    (
        "q15_part",
        "SELECT l_suppkey, sum(l_extendedprice * (1 - l_discount)) AS revenue FROM lineitem WHERE l_shipdate >= DATE '1996-01-01' \
         AND l_shipdate < DATE '1996-04-01' GROUP BY l_suppkey ORDER BY revenue DESC, l_suppkey LIMIT 10",
    ),
    (
        "q18_part",
        "SELECT l_orderkey, sum(l_quantity) AS quantity FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > 300 \
         ORDER BY quantity DESC, l_orderkey LIMIT 100",
    ),
    (
        "q19_part",
        "SELECT sum(l_extendedprice * (1 - l_discount)) AS revenue FROM lineitem WHERE (l_quantity BETWEEN 1 AND 11 \
         AND l_shipmode = 'AIR' OR l_quantity BETWEEN 20 AND 30 AND l_shipmode = 'REG AIR') AND l_shipinstruct = 'DELIVER IN PERSON'",
    ),
    ("count_all", "SELECT count(*) AS lines, min(l_shipdate) AS first, max(l_shipdate) AS last FROM lineitem"),
    ("filter_count", "SELECT count(*) AS lines FROM lineitem WHERE l_quantity > 40 AND l_returnflag <> 'N' AND l_tax < 0.03"),
    (
        "case_sums",
        "SELECT l_shipmode, sum(CASE WHEN l_returnflag = 'R' THEN l_extendedprice ELSE 0 END) AS returned, \
         sum(CASE WHEN l_discount > 0.05 THEN 1 ELSE 0 END) AS discounted FROM lineitem GROUP BY l_shipmode ORDER BY l_shipmode",
    ),
    (
        "by_mode_year",
        "SELECT l_shipmode, extract(year FROM l_shipdate) AS y, sum(l_extendedprice) AS price, avg(l_quantity) AS quantity FROM lineitem \
         GROUP BY l_shipmode, extract(year FROM l_shipdate) ORDER BY l_shipmode, y",
    ),
    (
        "groups_50",
        "SELECT l_quantity, count(*) AS lines, sum(l_extendedprice) AS price FROM lineitem GROUP BY l_quantity ORDER BY l_quantity",
    ),
    (
        "groups_2500",
        "SELECT l_shipdate, count(*) AS lines, sum(l_quantity) AS quantity FROM lineitem GROUP BY l_shipdate \
         ORDER BY quantity DESC, l_shipdate LIMIT 10",
    ),
    (
        "groups_100k",
        "SELECT l_suppkey, count(*) AS lines, sum(l_quantity) AS quantity FROM lineitem GROUP BY l_suppkey \
         ORDER BY quantity DESC, l_suppkey LIMIT 10",
    ),
    (
        "groups_2m",
        "SELECT l_partkey, count(*) AS lines, sum(l_quantity) AS quantity FROM lineitem GROUP BY l_partkey \
         ORDER BY quantity DESC, l_partkey LIMIT 10",
    ),
    (
        "doubles",
        "SELECT l_linestatus, sum(CAST(l_extendedprice AS DOUBLE PRECISION)) AS price, avg(CAST(l_discount AS DOUBLE PRECISION)) AS discount \
         FROM lineitem GROUP BY l_linestatus ORDER BY l_linestatus",
    ),
    (
        "nulls",
        "SELECT count(*) AS lines, count(x) AS known, sum(x) AS total, min(x) AS least FROM (SELECT CASE WHEN l_linenumber > 3 \
         THEN l_partkey END AS x FROM lineitem) AS some_null",
    ),
    (
        "strings",
        "SELECT l_shipinstruct, max(l_shipmode) AS last_mode, count(*) AS lines FROM lineitem WHERE l_shipmode LIKE '%AI%' \
         GROUP BY l_shipinstruct ORDER BY l_shipinstruct",
    ),
    (
        "order_priorities",
        "SELECT o_orderpriority, o_orderstatus, count(*) AS orders, sum(o_totalprice) AS price FROM orders \
         WHERE o_orderdate >= DATE '1995-01-01' GROUP BY o_orderpriority, o_orderstatus ORDER BY o_orderpriority, o_orderstatus",
    ),
];
