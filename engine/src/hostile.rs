//! Every parser here of what comes from outside, over bytes that are nearly right: see `bowshot_mutations`.

use crate::catalog::footer::{StatisticsSum, decode_schema, encode_schema, file_facts};
use crate::catalog::location::Location;
use crate::config::CoordinatorConfig;
use crate::control::packed::unpack;
use crate::control::{ColumnFacts, FileFacts, RowGroupFacts, VolumeFile};
use crate::coordinator::planner::{BaseState, session_config};
use crate::files::footer_bytes::{self, End};
use crate::files::old_bounds;
use crate::limits;
use crate::residency::Reach;
use crate::statement::rewrite::plan_statement;
use crate::statement::{guard, own};
use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bowshot_mutations::{near_bytes, near_texts};
use bytes::Bytes;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::{SessionState, SessionStateBuilder};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use std::sync::Arc;

fn rows() -> RecordBatch {
    let fields = [("a", DataType::Int64), ("b", DataType::Utf8), ("c", DataType::Float64)];
    let schema = Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec());
    let columns: [Arc<dyn arrow::array::Array>; 3] = [
        Arc::new(Int64Array::from(vec![Some(1), None, Some(-7), Some(i64::MAX)])),
        Arc::new(StringArray::from(vec![Some("x"), Some(""), None, Some("é")])),
        Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN), Some(-0.0), None])),
    ];
    RecordBatch::try_new(Arc::new(schema), columns.to_vec()).unwrap()
}

fn parquet_file(statistics: EnabledStatistics, groups: usize) -> Vec<u8> {
    let properties = WriterProperties::builder().set_statistics_enabled(statistics).set_max_row_group_row_count(Some(2)).build();
    let mut writer = ArrowWriter::try_new(vec![], rows().schema(), Some(properties)).unwrap();
    for _ in 0..groups {
        writer.write(&rows()).unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn ends_of_parquet_files() {
    let seeds = [
        parquet_file(EnabledStatistics::Page, 1),
        parquet_file(EnabledStatistics::Chunk, 2),
        parquet_file(EnabledStatistics::None, 1),
        parquet_file(EnabledStatistics::Page, 0),
    ];
    near_bytes(&seeds, |case| {
        let end = Bytes::copy_from_slice(case);
        if let Ok(End::Whole(metadata)) = footer_bytes::understood(&end, end.len() as u64)
            && let Ok(metadata) = old_bounds::without_old_bounds(Arc::new(*metadata))
        {
            drop(file_facts(&metadata, end.len() as u64, 1));
        }
    });
}

/// Schemas that a file's own writer put into its footer.
#[test]
fn schemas_in_footers() {
    let schema = BASE64.decode(encode_schema(&rows().schema()).unwrap()).unwrap();
    near_bytes(&[schema], |case| {
        let text = BASE64.encode(case);
        let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![KeyValue::new("ARROW:schema".into(), text)])).build();
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(vec![], rows().schema(), options).unwrap();
        let file = Bytes::from(writer.into_inner().unwrap());
        if let Ok(End::Whole(metadata)) = footer_bytes::understood(&file, file.len() as u64) {
            drop(file_facts(&metadata, file.len() as u64, 1));
        }
    });
}

#[test]
fn facts_of_files() {
    let columns = vec![ColumnFacts { min: Some("OAE=".into()), max: None, null_count: Some(1) }];
    let facts = FileFacts {
        size_bytes: 120,
        version: -1,
        row_count: 4,
        row_groups: vec![RowGroupFacts { offset: 4, rows: 4, bytes: 100 }],
        schema_ipc: encode_schema(&rows().schema()).unwrap(),
        footer_hash: "00ff".into(),
        checksum: None,
        columns,
    };
    let file = serde_json::to_vec(&VolumeFile { volume: "data".into(), path: "t/a.parquet".into(), facts }).unwrap();
    near_bytes(&[file.clone(), [&file[..], b"\n", &file[..]].concat()], |case| {
        let packed = zstd::encode_all(case, 1).unwrap();
        let _ = unpack(&packed, |_| true);
    });
    let packed = zstd::encode_all(&file[..], 1).unwrap();
    near_bytes(&[packed], |case| drop(unpack(case, |_| true)));
}

#[test]
fn what_the_catalog_keeps() {
    let schema = rows().schema();
    let text = encode_schema(&schema).unwrap();
    // The schema's own bytes are changed before they become text, too.
    near_texts(&[&text], |case| drop(decode_schema(case)));
    let bytes = BASE64.decode(&text).unwrap();
    near_bytes(&[bytes], |case| drop(decode_schema(&BASE64.encode(case))));
    let sum = r#"{"rows":4,"bytes":100,"columns":[{"min":"OAE=","max":"OAc=","null_count":1},null]}"#;
    near_texts(&[sum], |case| drop(StatisticsSum::decode(case).map(|sum| sum.finish(&schema))));
}

#[test]
fn locations_regions_and_own_statements() {
    let locations = ["node://*/data/lineitem/", "node://n-1/data/a.parquet", "s3://bucket/a/b/", "s3://é"];
    near_texts(&locations, |case| drop(Location::parse(case)));
    near_texts(&["eu, us", "eu"], |case| drop(Reach::parse(case)));
    let statements = [
        "ALTER TABLE tpch.orders SET (replicas = 2, regions = 'eu, us', on_bad_file = 'skip')",
        "ALTER TABLE t ADD CONSTRAINT pk PRIMARY KEY (a, \"b\")",
        "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES s.u (b)",
        "ALTER NODE \"n-1\" DRAIN",
        "CACHE TABLE s.t COLUMNS (a, b)",
        "COMMENT ON COLUMN s.t.c IS 'it''s'",
        "COMMENT ON TABLE t IS NULL",
        "USE CATALOG bowshot",
        "REFRESH TABLE s.t",
    ];
    near_texts(&statements, |case| drop(own::parse(case)));
}

/// A state with two tables, as a statement is planned in it.
fn state() -> SessionState {
    let base = BaseState::new(&CoordinatorConfig::default()).unwrap();
    let schema = MemorySchemaProvider::new();
    for name in ["t", "u"] {
        schema.register_table(name.into(), Arc::new(EmptyTable::new(rows().schema()))).unwrap();
    }
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema("main", Arc::new(schema)).unwrap();
    let state = SessionStateBuilder::new_from_existing(base.state().clone()).with_config(session_config("main")).build();
    state.catalog_list().register_catalog(crate::catalog::CATALOG_NAME.into(), Arc::new(catalog));
    state
}

const STATEMENTS: [&str; 20] = [
    "SELECT a, b, c FROM t WHERE a > 1 AND b LIKE 'x%' OR c IS NULL ORDER BY a DESC NULLS LAST LIMIT 3 OFFSET 1",
    "SELECT DISTINCT ON (a) a, count(*) FILTER (WHERE c > 0.5) OVER (PARTITION BY b ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
    "WITH r(n) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t WHERE a < 5), s AS (SELECT n FROM r) SELECT * FROM r JOIN s USING (n)",
    "SELECT b, sum(a), avg(c), string_agg(b, ',' ORDER BY a) FROM t GROUP BY ROLLUP (b, c) HAVING count(DISTINCT a) > 1",
    "SELECT o.a, x.v FROM t o LEFT JOIN LATERAL (SELECT max(u.a) AS v FROM u WHERE u.b = o.b AND u.a < o.a) x ON true",
    "SELECT CASE WHEN a IN (1, NULL) THEN 0.25 ELSE 1e3 END, CAST(b AS DECIMAL(38, 10)) / 3.0, -a % 7 FROM t",
    "SELECT a FROM t WHERE (a, b) IN (SELECT a, b FROM u) AND NOT EXISTS (SELECT 1 FROM u WHERE u.c = t.c) AND a > ALL (SELECT a FROM u)",
    "SELECT a FROM t UNION (SELECT a FROM u EXCEPT ALL SELECT 1) INTERSECT SELECT 1.5",
    "SELECT TIMESTAMP '2024-02-29 12:00:00.5' + INTERVAL '1' MONTH, DATE '9999-12-31', TIME '12:00', CAST('2024-01-01' AS TIMESTAMPTZ)",
    "SELECT extract(century FROM DATE '2024-01-01'), date_trunc('week', now()), date_bin(INTERVAL '15' MINUTE, now(), TIMESTAMP '2001-01-01')",
    "SELECT t.*, u.b FROM t FULL JOIN u USING (a) WHERE t.c IS DISTINCT FROM u.c",
    "SELECT unnest(ARRAY[a, 2, NULL]) AS x, [1, 2][1], struct(a, b), {k: a} FROM t",
    "EXPLAIN ANALYZE SELECT substring(b FROM 2 FOR 1), position('x' IN b), trim(BOTH ' ' FROM b), overlay(b PLACING 'y' FROM 1) FROM t",
    "SELECT lag(a, 1, 0) IGNORE NULLS OVER w, first_value(b) OVER (w RANGE BETWEEN 1 PRECEDING AND 2 FOLLOWING) FROM t WINDOW w AS (ORDER BY a)",
    "SELECT * FROM (VALUES (1, 'a'), (2.5, NULL)) v(x, y) CROSS JOIN t WHERE x BETWEEN a AND c",
    "SELECT E'a\\'b', X'0041', $$it's$$, 'x' || 1 || NULL, \"a\" FROM t -- end",
    "SELECT grouping(a), a, b FROM t GROUP BY GROUPING SETS ((a, b), (a), ())",
    "SELECT (SELECT count(*) FROM u WHERE u.a <> t.a), a = ANY (SELECT a FROM u), b ~ '^x', b SIMILAR TO 'x|y' FROM t",
    "PREPARE p AS SELECT $1 + a FROM t",
    "INSERT INTO t (a, b) SELECT a * 2, upper(b) FROM u WHERE a = ?",
];

/// Parsed, planned and made faster: whatever the text is, that gives a plan or an error. On a stack as all threads of a process have it.
#[test]
fn statements() {
    let planner = std::thread::Builder::new().stack_size(limits::THREAD_STACK_BYTES).spawn(plan_hostile_statements).unwrap();
    planner.join().unwrap();
}

fn plan_hostile_statements() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let state = state();
    near_texts(&STATEMENTS, |case| {
        if guard::check(case).is_err() {
            return;
        }
        let planned = runtime.block_on(plan_statement(&state, case));
        if let Ok(plan) = planned {
            drop(state.optimize(&plan));
        }
    });
}

#[test]
fn all_of_the_statements_are_planned() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let state = state();
    for sql in STATEMENTS {
        let planned = runtime.block_on(plan_statement(&state, sql));
        assert!(planned.is_ok(), "{sql}: {planned:?}");
    }
}
