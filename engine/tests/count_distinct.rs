//! COUNT(DISTINCT …) beside other aggregates, through the operator that takes the place of a partial aggregate: the answers must be those
//! of the operator that it replaced, and kernels must have run.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use bowshot_engine::KernelChoice;
use bowshot_engine::operators::hot_aggregate::{DECLINED_METRIC, HotAggregateExec, KERNEL_ROWS_METRIC};
use bowshot_engine::operators::row_group_reader::KernelRuntime;
use bowshot_kernels::{DevicePolicy, Kernels, KernelsConfig};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

const FILES: i64 = 3;
const FILE_ROWS: i64 = 2_500;
const ROW_GROUP_ROWS: usize = 1_000;

/// A column of every type that can be counted, and how many values it has.
fn columns() -> Vec<(&'static str, DataType, i64)> {
    let text = DataType::Utf8;
    vec![
        ("name", text.clone(), 23),
        ("bucket", DataType::Int32, 900),
        ("tiny", DataType::Int8, 100),
        ("small", DataType::UInt16, 700),
        ("number", DataType::Int64, 1_500),
        ("unsigned", DataType::UInt64, 40),
        ("flag", DataType::Boolean, 2),
        ("day", DataType::Date32, 365),
        ("moment", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), 1_000),
        ("price", DataType::Decimal128(20, 2), 333),
        ("word", text, 400),
        ("coded", DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), 17),
        ("ratio", DataType::Float64, 50),
    ]
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(columns().into_iter().map(|(name, data_type, _)| Field::new(name, data_type, true)).collect::<Vec<_>>()))
}

/// Rows from `first` on; every column has NULLs, each in other rows.
fn rows(first: i64) -> RecordBatch {
    let arrays = (1..).zip(columns()).map(|(position, (_, data_type, values))| {
        let mix = |row: i64| (row.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(position) as u64 >> 33) as i64;
        let of_row = |row: i64| (mix(row * 31 + position) % 9 != 0).then(|| mix(row + position * 1_000_003) % values);
        let numbers: ArrayRef = Arc::new((first..first + FILE_ROWS).map(of_row).collect::<Int64Array>());
        // Numbers have no direct way to dates and dictionaries.
        let between = match &data_type {
            DataType::Date32 => DataType::Int32,
            DataType::Dictionary(_, _) => DataType::Utf8,
            other => other.clone(),
        };
        arrow::compute::cast(&arrow::compute::cast(&numbers, &between).unwrap(), &data_type).unwrap()
    });
    RecordBatch::try_new(schema(), arrays.collect()).unwrap()
}

async fn context() -> SessionContext {
    let store = InMemory::new();
    for file in 0..FILES {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(ROW_GROUP_ROWS)).build();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, schema(), Some(properties)).unwrap();
        writer.write(&rows(file * FILE_ROWS)).unwrap();
        writer.close().unwrap();
        store.put(&Path::from(format!("rows/{file}.parquet")), PutPayload::from(bytes)).await.unwrap();
    }
    // Small batches: states are cut into many.
    let config = SessionConfig::new().with_target_partitions(2).with_batch_size(64);
    let context = SessionContext::new_with_config(config);
    context.register_object_store(&"memory://".parse().unwrap(), Arc::new(store));
    context.register_parquet("rows", "memory:///rows/", ParquetReadOptions::default()).await.unwrap();
    context
}

/// The plan with kernels in the place of partial aggregates.
fn with_kernels(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let runtime = KernelRuntime::new(Kernels::open(KernelsConfig { device: DevicePolicy::Off, ..KernelsConfig::default() }));
    let replaced = plan.transform_up(|node| match node.downcast_ref::<AggregateExec>() {
        Some(aggregate) if *aggregate.mode() == AggregateMode::Partial => {
            Ok(Transformed::yes(Arc::new(HotAggregateExec::new(aggregate.clone(), runtime.clone(), KernelChoice::Host)) as Arc<_>))
        }
        _ => Ok(Transformed::no(node)),
    });
    replaced.unwrap().data
}

/// Sums up a metric of the plan.
fn metric(plan: &Arc<dyn ExecutionPlan>, name: &str) -> usize {
    let mut total = 0;
    plan.apply(|node| {
        let metrics = node.metrics().unwrap_or_default();
        total += metrics.iter().filter(|metric| metric.value().name() == name).map(|metric| metric.value().as_usize()).sum::<usize>();
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    total
}

async fn sorted_lines(context: &SessionContext, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<String>> {
    let batches = collect(plan, context.task_ctx()).await?;
    let mut lines: Vec<String> = pretty_format_batches(&batches)?.to_string().lines().map(str::to_string).collect();
    lines.sort();
    Ok(lines)
}

/// Runs a query in both ways. Returns how many rows kernels went over, and how often they declined.
async fn compare(context: &SessionContext, sql: &str) -> (usize, usize) {
    // Plans cannot run twice: scans hand out their files once.
    let plan = async || context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    let hot = with_kernels(plan().await);
    let expected = sorted_lines(context, plan().await).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let found = sorted_lines(context, hot.clone()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(found, expected, "{sql}");
    (metric(&hot, KERNEL_ROWS_METRIC), metric(&hot, DECLINED_METRIC))
}

async fn assert_kernels_run(context: &SessionContext, sql: &str) {
    assert_eq!(compare(context, sql).await, ((FILES * FILE_ROWS) as usize, 0), "{sql}");
}

#[tokio::test]
async fn every_type_can_be_counted() {
    let context = context().await;
    for (column, data_type, _) in columns().into_iter().filter(|(_, data_type, _)| !data_type.is_floating()) {
        println!("{column}: {data_type}");
        for keys in ["", "name, ", "bucket, ", "coded, flag, "] {
            let group_by = if keys.is_empty() { String::new() } else { format!("GROUP BY {}", keys.trim_end_matches(", ")) };
            let sql = format!("SELECT {keys}count(*), count(DISTINCT {column}), count({column}), max(number) FROM rows {group_by}");
            assert_kernels_run(&context, &sql).await;
        }
    }
}

#[tokio::test]
async fn distinct_values_have_filters_of_their_own() {
    let context = context().await;
    for sql in [
        "SELECT name, count(DISTINCT word) FILTER (WHERE number > 700), count(DISTINCT word), avg(price) FROM rows GROUP BY name",
        "SELECT name, count(DISTINCT day) FILTER (WHERE flag), sum(tiny) FILTER (WHERE NOT flag) FROM rows WHERE small > 100 GROUP BY name",
        "SELECT bucket, count(DISTINCT number) FILTER (WHERE number < 0), count(*) FROM rows GROUP BY bucket",
        "SELECT count(DISTINCT number) FILTER (WHERE number IS NULL), count(DISTINCT coded), min(word) FROM rows WHERE flag OR flag IS NULL",
    ] {
        assert_kernels_run(&context, sql).await;
    }
}

#[tokio::test]
async fn distinct_values_may_be_all_there_is() {
    let context = context().await;
    for sql in [
        "SELECT count(DISTINCT number), count(DISTINCT word) FROM rows",
        "SELECT count(DISTINCT number), count(DISTINCT word) FROM rows WHERE number > 1000000",
        "SELECT count(DISTINCT number), count(DISTINCT word) FROM rows WHERE tiny = 3",
        "SELECT name, count(DISTINCT number), count(DISTINCT word), count(DISTINCT name) FROM rows GROUP BY name",
    ] {
        let (_, declined) = compare(&context, sql).await;
        assert_eq!(declined, 0, "{sql}");
    }
}

#[tokio::test]
async fn expressions_are_counted_as_computed_columns() {
    let context = context().await;
    for sql in [
        "SELECT name, count(DISTINCT number % 10), count(*) FROM rows GROUP BY name",
        "SELECT date_part('month', day) AS month, count(DISTINCT substr(word, 1, 1)), count(*) FROM rows GROUP BY month",
        "SELECT name, count(DISTINCT CASE WHEN flag THEN bucket END), count(DISTINCT number > 700), sum(number) FROM rows GROUP BY name",
    ] {
        assert_kernels_run(&context, sql).await;
    }
}

#[tokio::test]
async fn what_is_not_exact_is_left_to_the_replaced_operator() {
    let context = context().await;
    for sql in [
        "SELECT name, count(DISTINCT ratio), count(*) FROM rows GROUP BY name",
        "SELECT name, sum(DISTINCT number), count(*), count(DISTINCT word) FROM rows GROUP BY name",
    ] {
        let (kernel_rows, declined) = compare(&context, sql).await;
        assert_eq!(kernel_rows, 0, "{sql}");
        assert!(declined > 0, "{sql}");
    }
}
