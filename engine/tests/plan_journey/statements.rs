//! Plans of statements: what the planner makes of functions, windows, aggregates and expressions, over tables of every type.

use super::Route;
use datafusion::arrow::array::{ArrayRef, Int32Array, RecordBatch, new_null_array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use std::sync::Arc;

fn columns() -> Vec<(&'static str, DataType)> {
    let item = |data_type| Arc::new(Field::new_list_field(data_type, true));
    vec![
        ("k", DataType::Int32),
        ("v", DataType::Int64),
        ("small", DataType::Int16),
        ("u", DataType::UInt64),
        ("p", DataType::Decimal128(9, 2)),
        ("wide", DataType::Decimal128(38, 4)),
        ("f", DataType::Float64),
        ("g", DataType::Float32),
        ("s", DataType::Utf8),
        ("d", DataType::Date32),
        ("ts", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("tz", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ("time", DataType::Time64(TimeUnit::Microsecond)),
        ("iv", DataType::Interval(IntervalUnit::MonthDayNano)),
        ("b", DataType::Boolean),
        ("bytes", DataType::Binary),
        ("l", DataType::List(item(DataType::Int64))),
        ("ll", DataType::List(item(DataType::List(item(DataType::Int64))))),
        ("st", DataType::Struct(vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Utf8, true)].into())),
    ]
}

/// Two partitions of NULLs beside a key: rows are not what this is about.
fn table() -> MemTable {
    let schema =
        Arc::new(Schema::new(columns().into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect::<Vec<_>>()));
    let batch = |first: i32| {
        let keys: ArrayRef = Arc::new(Int32Array::from_iter_values(first..first + 3));
        let arrays = columns().into_iter().map(|(name, data_type)| match name {
            "k" | "v" => cast(&keys, &data_type).expect("keys are numbers"),
            _ => new_null_array(&data_type, 3),
        });
        RecordBatch::try_new(schema.clone(), arrays.collect()).expect("columns have their types")
    };
    MemTable::try_new(schema.clone(), vec![vec![batch(0)], vec![batch(3)]]).expect("partitions have the schema")
}

/// Expressions of one table.
const EXPRESSIONS: [&str; 67] = [
    "CASE WHEN k = 1 THEN v WHEN k = 2 THEN NULL ELSE 0 END",
    "CASE k WHEN 1 THEN 'a' WHEN 2 THEN 'b' END",
    "CASE s WHEN 'a' THEN 1 WHEN 'b' THEN 2 ELSE 3 END",
    "CAST(v AS VARCHAR)",
    "CAST(s AS DECIMAL(12, 3))",
    "CAST(ts AS DATE)",
    "CAST(l AS VARCHAR)",
    "TRY_CAST(s AS INTEGER)",
    "TRY_CAST(f AS BIGINT)",
    "k IN (1, 2, NULL)",
    "k NOT IN (1, v, 3)",
    "s IN ('a', 'b', 'c', 'd', 'e', 'f')",
    "p IN (1.25, 2.50)",
    "s LIKE 'a%'",
    "s NOT LIKE '%b_'",
    "s ILIKE 'A%'",
    "s NOT ILIKE '%B'",
    "s LIKE s || '%'",
    "s SIMILAR TO 'a+'",
    "s ~ 'a' OR s !~ 'b' OR s ~* 'c' OR s !~* 'd'",
    "NOT b",
    "b IS NULL",
    "b IS NOT NULL",
    "b IS TRUE",
    "b IS NOT FALSE",
    "b IS UNKNOWN",
    "k IS DISTINCT FROM v",
    "k IS NOT DISTINCT FROM NULL",
    "-f",
    "-v",
    "-p",
    "v + 1 - k * 2",
    "v % 7",
    "p / 3 + wide",
    "p * p",
    "f / g",
    "k & 3 | 4",
    "v << 2 >> 1",
    "s || 'x' || k",
    "ts + INTERVAL '1 month 2 days 3 seconds'",
    "d - DATE '2024-02-29'",
    "ts - TIMESTAMP '2024-02-29 12:34:56.789012'",
    "tz AT TIME ZONE 'America/Denver'",
    "EXTRACT(hour FROM ts) + EXTRACT(epoch FROM tz)",
    "date_trunc('month', ts)",
    "date_bin(INTERVAL '15 minutes', ts, TIMESTAMP '2020-01-01')",
    "to_char(d, '%Y')",
    "coalesce(s, CAST(k AS VARCHAR), 'none')",
    "nullif(k, 1)",
    "greatest(k, v, 3)",
    "substr(s, 2, 3) || upper(s) || lpad(s, 5, '*')",
    "regexp_replace(s, 'a(b)', '\\1', 'g')",
    "round(f, 2) + power(f, 2) + abs(v)",
    "l[1] + array_length(l)",
    "st['x'] + 1",
    "st['y']",
    "array_sort(make_array(3, k), 'DESC', 'NULLS LAST')",
    "named_struct('a', k, 'b', s)",
    "(k, v) = (1, 2)",
    "sha256(bytes)",
    "to_timestamp(s)",
    "to_timestamp(v)",
    "to_timestamp_millis(s)",
    "to_date(s)",
    "to_unixtime(s)",
    "current_date",
    "now() > tz",
];

/// Literals of every type that SQL writes.
const LITERALS: [&str; 33] = [
    "NULL",
    "true",
    "1",
    "-9223372036854775808",
    "CAST(255 AS TINYINT UNSIGNED)",
    "CAST(1 AS SMALLINT)",
    "CAST(18446744073709551615 AS BIGINT UNSIGNED)",
    "CAST(1.5 AS REAL)",
    "CAST('1e300' AS DOUBLE)",
    "CAST('NaN' AS DOUBLE)",
    "CAST('-inf' AS DOUBLE)",
    "CAST('-0.0' AS DOUBLE)",
    "0.1",
    "CAST(NULL AS DECIMAL(38, 10))",
    "CAST(12345678901234567890123456789012345678 AS DECIMAL(38, 0))",
    "''",
    "'ünï\u{10348}'",
    "X'00ff'",
    "DATE '0001-01-01'",
    "DATE '9999-12-31'",
    "TIME '23:59:59.999999'",
    "TIMESTAMP '2024-02-29 12:34:56.123456'",
    "CAST('2024-02-29' AS TIMESTAMP WITH TIME ZONE)",
    "INTERVAL '1 year 2 months -3 days 4.5 seconds'",
    "INTERVAL '-100' MONTH",
    "[1, 2, NULL]",
    "[[1], [], NULL]",
    "make_array('a', NULL)",
    "named_struct('x', 1, 'y', [1.5])",
    "arrow_cast('a', 'Dictionary(Int32, Utf8)')",
    "arrow_cast('a', 'LargeUtf8')",
    "arrow_cast(1, 'Duration(Millisecond)')",
    "arrow_cast(arrow_cast('abc', 'Binary'), 'FixedSizeBinary(3)')",
];

/// What stands before OVER (…), and whether it may stand over any frame.
const WINDOW_FUNCTIONS: [&str; 24] = [
    "count(*)",
    "count(v) FILTER (WHERE k > 1)",
    "count(DISTINCT v)",
    "sum(v)",
    "sum(p) FILTER (WHERE s LIKE 'a%')",
    "sum(f)",
    "avg(v)",
    "min(s)",
    "max(p)",
    "stddev(f)",
    "array_agg(v)",
    "string_agg(s, ',')",
    "first_value(v)",
    "first_value(v) IGNORE NULLS",
    "last_value(v) RESPECT NULLS",
    "last_value(v) IGNORE NULLS",
    "nth_value(v, 2)",
    "nth_value(v, 2) IGNORE NULLS",
    "bool_and(b)",
    "bit_or(k)",
    "median(f)",
    "approx_distinct(v)",
    "corr(f, g)",
    "var_pop(f) FILTER (WHERE b)",
];

const RANKING_FUNCTIONS: [&str; 12] = [
    "row_number()",
    "rank()",
    "dense_rank()",
    "percent_rank()",
    "cume_dist()",
    "ntile(3)",
    "lag(v)",
    "lag(v, 2) IGNORE NULLS",
    "lag(v, 2, 7)",
    "lead(s, 1, 'none')",
    "lead(v, 2) IGNORE NULLS",
    "lead(p, 1, 0.5)",
];

const WINDOWS: [&str; 14] = [
    "",
    "PARTITION BY s",
    "ORDER BY v",
    "PARTITION BY k ORDER BY v DESC NULLS LAST",
    "PARTITION BY k, s ORDER BY v NULLS FIRST, f DESC",
    "PARTITION BY k ORDER BY v ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
    "PARTITION BY k ORDER BY v ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING",
    "PARTITION BY k ORDER BY v ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
    "ORDER BY v DESC ROWS 3 PRECEDING",
    "ORDER BY v RANGE BETWEEN 10 PRECEDING AND 5 FOLLOWING",
    "ORDER BY f RANGE BETWEEN 1.5 PRECEDING AND CURRENT ROW",
    "ORDER BY ts RANGE BETWEEN INTERVAL '1 day' PRECEDING AND INTERVAL '2 hours' FOLLOWING",
    "PARTITION BY s ORDER BY v GROUPS BETWEEN 1 PRECEDING AND 2 FOLLOWING",
    "PARTITION BY s ORDER BY k GROUPS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
];

const AGGREGATES: [&str; 34] = [
    "count(*)",
    "count(v)",
    "count(DISTINCT v)",
    "count(DISTINCT s), sum(DISTINCT v)",
    "sum(v) FILTER (WHERE k > 1)",
    "sum(p), sum(wide), sum(f), sum(g), sum(u), sum(k)",
    "avg(v), avg(p), avg(wide), avg(f), avg(DISTINCT k)",
    "min(s), max(d), min(ts), max(tz), min(b), max(p)",
    "array_agg(v ORDER BY k DESC NULLS LAST)",
    "array_agg(DISTINCT v ORDER BY v)",
    "array_agg(v) IGNORE NULLS",
    "string_agg(s, ',' ORDER BY k, v DESC)",
    "first_value(v ORDER BY k)",
    "first_value(v ORDER BY k DESC) IGNORE NULLS",
    "last_value(s ORDER BY ts NULLS FIRST)",
    "last_value(s ORDER BY ts) FILTER (WHERE k IN (1, 2))",
    "nth_value(v, 2 ORDER BY k)",
    "bool_and(b), bool_or(b)",
    "bit_and(k), bit_or(k), bit_xor(k)",
    "stddev(f), stddev_pop(f), var_samp(v), var_pop(p)",
    "corr(f, g), covar_pop(f, g), covar_samp(f, g)",
    "regr_slope(f, g), regr_r2(f, g)",
    "median(f), median(v), median(p)",
    "percentile_cont(0.25) WITHIN GROUP (ORDER BY f)",
    "approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY f)",
    "approx_percentile_cont_with_weight(k, 0.5) WITHIN GROUP (ORDER BY f)",
    "approx_distinct(s), approx_median(f)",
    "grouping(k)",
    "sum(CASE WHEN k = 1 THEN p * 0.125 ELSE 0 END)",
    "sum(v) / count(*) * 100.0",
    "max(s) FILTER (WHERE s LIKE 'a%'), min(s) FILTER (WHERE b)",
    "var_samp(f) FILTER (WHERE f > 0)",
    "sum(DISTINCT p) FILTER (WHERE p > 0)",
    "count(DISTINCT (k, s))",
];

const QUERIES: [&str; 46] = [
    "SELECT * FROM t ORDER BY k LIMIT 5 OFFSET 2",
    "SELECT * FROM t LIMIT 3",
    "SELECT * FROM (SELECT * FROM t LIMIT 3 OFFSET 1) a JOIN t ON a.k = t.k",
    "SELECT DISTINCT s, k FROM t",
    "SELECT DISTINCT s FROM t LIMIT 2",
    "SELECT DISTINCT ON (k) k, v FROM t ORDER BY k, v DESC",
    "SELECT k, max(v) FROM t GROUP BY k ORDER BY max(v) DESC LIMIT 3",
    "SELECT k, s, sum(v) FROM t GROUP BY ROLLUP (k, s)",
    "SELECT k, s, grouping(k, s) FROM t GROUP BY CUBE (k, s)",
    "SELECT k, s, count(*) FROM t GROUP BY GROUPING SETS ((k), (s), (k, s), ())",
    "SELECT count(*) FROM t GROUP BY GROUPING SETS ((), (k))",
    "SELECT k FROM t UNION ALL SELECT v FROM t",
    "SELECT k FROM t UNION SELECT v FROM t ORDER BY 1",
    "SELECT k, s FROM t INTERSECT SELECT k, s FROM t WHERE k > 1",
    "SELECT k, s FROM t EXCEPT ALL SELECT k, s FROM t WHERE k > 1",
    "SELECT count(*) FROM t a JOIN t b ON a.k = b.k",
    "SELECT a.k, b.s FROM t a LEFT JOIN t b ON a.k = b.k AND a.v > b.v",
    "SELECT a.k, b.s FROM t a RIGHT JOIN t b ON a.k = b.k AND a.s LIKE b.s",
    "SELECT a.k, b.s FROM t a FULL JOIN t b ON a.k = b.k",
    "SELECT a.k, b.s FROM t a FULL JOIN t b ON a.k < b.k",
    "SELECT a.k FROM t a JOIN t b ON a.k IS NOT DISTINCT FROM b.k",
    "SELECT a.k FROM t a CROSS JOIN t b",
    "SELECT a.k FROM t a JOIN t b ON a.v BETWEEN b.v AND b.k",
    "SELECT a.k FROM t a WHERE EXISTS (SELECT 1 FROM t b WHERE a.k = b.v)",
    "SELECT a.k FROM t a WHERE NOT EXISTS (SELECT 1 FROM t b WHERE a.k = b.v AND a.s <> b.s)",
    "SELECT a.k FROM t a WHERE k NOT IN (SELECT v FROM t b)",
    "SELECT a.k FROM t a WHERE k IN (SELECT v FROM t b) OR k = 1",
    "SELECT a.k, (SELECT max(v) FROM t b WHERE b.k = a.k) FROM t a",
    "SELECT a.k, a.v > (SELECT avg(v) FROM t) FROM t a",
    "SELECT a.k FROM t a WHERE v >= ALL (SELECT v FROM t b WHERE b.s = a.s)",
    "SELECT k, x FROM t CROSS JOIN LATERAL (SELECT t.v + 1 AS x) y",
    "SELECT k, unnest(l) FROM t",
    "SELECT k, unnest(ll) FROM t",
    "SELECT k, unnest(st) FROM t",
    "SELECT unnest(unnest(ll)) FROM t",
    "SELECT k, x FROM (SELECT k, unnest(l) AS x FROM t) WHERE x > k",
    "SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS w(k, s) JOIN t USING (k)",
    "SELECT * FROM t JOIN generate_series(1, 10, 3) g(x) ON t.k = g.x",
    "SELECT count(*) FROM range(10)",
    "SELECT count(*) FROM range(2000) a, t b",
    "SELECT 1 AS one WHERE false",
    "SELECT * FROM t WHERE false",
    "WITH w AS (SELECT k, row_number() OVER (PARTITION BY s ORDER BY v) AS n FROM t) SELECT * FROM w WHERE n <= 2",
    "SELECT a.k FROM t a JOIN (SELECT k FROM t ORDER BY v LIMIT 2) b ON a.k = b.k ORDER BY a.k LIMIT 1",
    "SELECT k, sum(v) FROM t GROUP BY k HAVING count(*) FILTER (WHERE b) > 1 ORDER BY 2 NULLS FIRST",
    "SELECT generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-03', INTERVAL '1 day') FROM t",
];

/// Settings of a session that change what is planned, and statements that show it.
const SETTINGS: [(&str, &str, &str); 8] = [
    ("datafusion.optimizer.prefer_hash_join", "false", "SELECT a.k, b.s FROM t a JOIN t b ON a.k = b.k AND a.v > b.v"),
    ("datafusion.optimizer.prefer_hash_join", "false", "SELECT a.k FROM t a LEFT JOIN t b ON a.k IS NOT DISTINCT FROM b.k"),
    ("datafusion.optimizer.hash_join_single_partition_threshold", "0", "SELECT a.k FROM t a FULL JOIN t b ON a.k = b.k"),
    (
        "datafusion.optimizer.prefer_existing_sort",
        "true",
        "SELECT k, sum(v) OVER (PARTITION BY k ORDER BY v) FROM (SELECT * FROM t ORDER BY k)",
    ),
    ("datafusion.optimizer.prefer_existing_union", "true", "SELECT k FROM t UNION ALL SELECT v FROM t ORDER BY 1"),
    ("datafusion.optimizer.enable_topk_aggregation", "true", "SELECT s, max(v) FROM t GROUP BY s ORDER BY max(v) DESC LIMIT 3"),
    ("datafusion.optimizer.enable_distinct_aggregation_soft_limit", "true", "SELECT DISTINCT s FROM t LIMIT 4"),
    ("datafusion.optimizer.repartition_windows", "false", "SELECT sum(v) OVER (PARTITION BY k) FROM t"),
];

/// Plans all of them and sends them.
pub async fn send_all(route: &mut Route) {
    let state = route.coordinator.clone();
    let tables = state.catalog_list().catalog("bowshot").or_else(|| state.catalog_list().catalog("datafusion"));
    let _ = tables
        .and_then(|catalog| catalog.schema("main").or_else(|| catalog.schema("public")))
        .map(|schema| schema.register_table("t".into(), Arc::new(table())));
    let mut statements: Vec<String> = QUERIES.iter().map(|query| query.to_string()).collect();
    statements.extend(EXPRESSIONS.iter().chain(&LITERALS).map(|expr| format!("SELECT k, {expr} AS x FROM t")));
    statements.extend(EXPRESSIONS.iter().map(|expr| format!("SELECT k FROM t WHERE ({expr}) IS NOT NULL")));
    statements.extend(AGGREGATES.iter().filter(|list| !list.contains("grouping")).map(|list| format!("SELECT {list} FROM t")));
    statements.extend(AGGREGATES.iter().map(|list| format!("SELECT k, {list} FROM t GROUP BY k")));
    for window in WINDOWS {
        statements.extend(WINDOW_FUNCTIONS.iter().map(|function| format!("SELECT k, {function} OVER ({window}) FROM t")));
        if !window.contains("BETWEEN") && !window.contains("PRECEDING") {
            statements.extend(RANKING_FUNCTIONS.iter().map(|function| format!("SELECT k, {function} OVER ({window}) FROM t")));
        }
    }
    for sql in &statements {
        send(route, &state, sql).await;
    }
    for (name, value, sql) in SETTINGS {
        let mut state = state.clone();
        state.config_mut().options_mut().set(name, value).expect("the setting exists");
        send(route, &state, sql).await;
    }
}

async fn send(route: &mut Route, state: &SessionState, sql: &str) {
    match route.plan(state, sql).await {
        Ok(plan) => route.send(sql, plan),
        Err(error) => route.problems.push(format!("{sql}: cannot be planned: {error}")),
    }
}
