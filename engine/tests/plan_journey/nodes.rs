//! Nodes made by hand, with every option.

use super::Route;
use bowshot_engine::fragment::journey::{ROWS_MAX, fit_fragment};
use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::arrow::compute::{CastOptions, SortOptions};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::common::{JoinSide, JoinType, NullEquality, ScalarValue};
use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Operator;
use datafusion::logical_expr::physical_planning_context::{ScalarSubqueryResults, SubqueryIndex};
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr, RangePartitioning};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExecBuilder, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec, StreamJoinPartitionMode,
    SymmetricHashJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::{ScalarSubqueryExec, ScalarSubqueryLink};
use datafusion::physical_plan::sorts::partitioned_topk::{PartitionedTopKExec, WindowFnKind};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::{ExecutionPlan, Partitioning, PhysicalExpr};
use datafusion_distributed::{BroadcastExec, NetworkBroadcastExec, NetworkCoalesceExec, NetworkShuffleExec};
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;

const JOIN_TYPES: [JoinType; 10] = [
    JoinType::Inner,
    JoinType::Left,
    JoinType::Right,
    JoinType::Full,
    JoinType::LeftSemi,
    JoinType::RightSemi,
    JoinType::LeftAnti,
    JoinType::RightAnti,
    JoinType::LeftMark,
    JoinType::RightMark,
];
const BOTH: [NullEquality; 2] = [NullEquality::NullEqualsNothing, NullEquality::NullEqualsNull];

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]))
}

/// Literal rows in so many partitions.
fn rows(partitions: usize) -> Plan {
    let column = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let batch = RecordBatch::try_new(schema(), vec![column.clone(), column]).expect("both columns are numbers");
    DataSourceExec::from_data_source(
        MemorySourceConfig::try_new(&vec![vec![batch]; partitions], schema(), None).expect("the schema is theirs"),
    )
}

fn column(name: &str, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(name, index))
}

fn ordering() -> LexOrdering {
    let by =
        |name: &str, index, descending, nulls_first| PhysicalSortExpr::new(column(name, index), SortOptions { descending, nulls_first });
    LexOrdering::new([by("k", 0, true, false), by("v", 1, false, true)]).expect("two keys are an ordering")
}

fn greater() -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(column("k", 0), Operator::Gt, Arc::new(Literal::new(ScalarValue::Int64(Some(1))))))
}

/// left.v > right.k
fn join_filter() -> JoinFilter {
    let expr = Arc::new(BinaryExpr::new(column("v", 0), Operator::Gt, column("k", 1)));
    let sides = vec![ColumnIndex { index: 1, side: JoinSide::Left }, ColumnIndex { index: 0, side: JoinSide::Right }];
    JoinFilter::new(expr, sides, schema())
}

/// Sends all of them.
pub fn send_all(route: &mut Route) {
    for (what, plan) in simple().into_iter().chain(joins()).chain(network()).chain(scans()) {
        route.send(&what, plan);
    }
    subqueries(route);
    limits(route);
    refused(route);
}

fn simple() -> Vec<(String, Plan)> {
    let one = rows(1);
    let filter = || FilterExecBuilder::new(greater(), rows(2));
    let mut plans: Vec<(String, Plan)> = vec![
        ("no row in three partitions".into(), Arc::new(EmptyExec::new(schema()).with_partitions(3))),
        ("a row without columns".into(), Arc::new(PlaceholderRowExec::new(Arc::new(Schema::empty())).with_partitions(2))),
        ("filter with projection".into(), plan(filter().apply_projection(Some(vec![1, 0])).and_then(|filter| filter.build()))),
        ("filter of no column".into(), plan(filter().apply_projection(Some(vec![])).and_then(|filter| filter.build()))),
        ("filter with fetch and batches".into(), plan(filter().with_fetch(Some(7)).with_batch_size(99).build())),
        ("filter with selectivity".into(), plan(filter().build().and_then(|filter| filter.with_default_selectivity(77)))),
        ("coalesce with fetch".into(), Arc::new(CoalescePartitionsExec::new(rows(3)).with_fetch(Some(4)))),
        ("cooperative".into(), Arc::new(CooperativeExec::new(one.clone()))),
        ("local limit".into(), Arc::new(LocalLimitExec::new(rows(2), 5))),
        ("global limit with skip".into(), Arc::new(GlobalLimitExec::new(one.clone(), 3, Some(5)))),
        ("skip alone".into(), Arc::new(GlobalLimitExec::new(one.clone(), ROWS_MAX, None))),
        ("sort".into(), Arc::new(SortExec::new(ordering(), one.clone()))),
        ("top k".into(), Arc::new(SortExec::new(ordering(), rows(2)).with_fetch(Some(9)).with_preserve_partitioning(true))),
        ("merge with fetch".into(), Arc::new(SortPreservingMergeExec::new(ordering(), rows(2)).with_fetch(Some(2)))),
        ("union".into(), UnionExec::try_new(vec![rows(1), rows(2)]).expect("the schemas are the same")),
    ];
    let no_column = ProjectionExec::try_new(Vec::<ProjectionExpr>::new(), one.clone());
    plans.push(("projection of no column".into(), plan(no_column)));
    for partitioning in partitionings() {
        plans.push((format!("dealt by {partitioning}"), plan(RepartitionExec::try_new(rows(3), partitioning.clone()))));
        let sorted = Arc::new(SortExec::new(ordering(), rows(3)).with_preserve_partitioning(true));
        let in_order = RepartitionExec::try_new(sorted, partitioning.clone()).map(RepartitionExec::with_preserve_order);
        plans.push((format!("dealt in order by {partitioning}"), plan(in_order)));
    }
    let dealt = || plan(RepartitionExec::try_new(rows(3), Partitioning::Hash(vec![column("k", 0)], 4)));
    plans.push(("interleave".into(), plan(InterleaveExec::try_new(vec![dealt(), dealt()]))));
    plans
}

fn plan<P: ExecutionPlan + 'static>(made: datafusion::common::Result<P>) -> Plan {
    Arc::new(made.expect("the node can be made"))
}

fn partitionings() -> Vec<Partitioning> {
    let split = |value| datafusion::physical_expr::SplitPoint::new(vec![ScalarValue::Int64(value), ScalarValue::Int64(Some(2))]);
    vec![
        Partitioning::RoundRobinBatch(5),
        Partitioning::UnknownPartitioning(2),
        Partitioning::Hash(vec![column("k", 0), column("v", 1)], 3),
        Partitioning::Range(RangePartitioning::new(ordering(), vec![split(Some(9)), split(None)])),
    ]
}

fn joins() -> Vec<(String, Plan)> {
    let keys = || vec![(column("k", 0), column("v", 1))];
    let mut plans: Vec<(String, Plan)> = vec![("cross join".into(), Arc::new(CrossJoinExec::new(rows(1), rows(2))))];
    for join_type in JOIN_TYPES {
        for nulls in BOTH {
            for mode in [PartitionMode::CollectLeft, PartitionMode::Partitioned, PartitionMode::Auto] {
                for filter in [None, Some(join_filter())] {
                    let join = HashJoinExecBuilder::new(rows(1), rows(1), keys(), join_type).with_partition_mode(mode);
                    let join = join.with_null_equality(nulls).with_filter(filter).with_fetch(Some(5_000_000_000));
                    plans.push((format!("hash join {join_type} {mode:?} {nulls:?}"), plan(join.build())));
                }
            }
            let options = vec![SortOptions { descending: true, nulls_first: false }];
            let filter = matches!(join_type, JoinType::Inner | JoinType::Left | JoinType::Full).then(join_filter);
            let join = SortMergeJoinExec::try_new(rows(1), rows(1), keys(), filter, join_type, options, nulls);
            plans.push((format!("sort merge join {join_type} {nulls:?}"), plan(join)));
            for mode in [StreamJoinPartitionMode::SinglePartition, StreamJoinPartitionMode::Partitioned] {
                let (left, right) = (Some(ordering()), Some(ordering()));
                let join =
                    SymmetricHashJoinExec::try_new(rows(1), rows(1), keys(), Some(join_filter()), &join_type, nulls, left, right, mode);
                plans.push((format!("symmetric hash join {join_type}"), plan(join)));
            }
        }
        for filter in [None, Some(join_filter())] {
            let join = NestedLoopJoinExec::try_new(rows(1), rows(2), filter, &join_type, None);
            plans.push((format!("nested loop join {join_type}"), plan(join)));
        }
    }
    for projection in [vec![], vec![3, 0], vec![0, 1, 2, 3]] {
        let join = HashJoinExecBuilder::new(rows(1), rows(1), keys(), JoinType::Inner).with_projection(Some(projection.clone()));
        plans.push((format!("hash join of {projection:?}"), plan(join.build())));
        let join = NestedLoopJoinExec::try_new(rows(1), rows(1), Some(join_filter()), &JoinType::Inner, Some(projection.clone()));
        plans.push((format!("nested loop join of {projection:?}"), plan(join)));
    }
    let aware = HashJoinExecBuilder::new(rows(1), rows(1), keys(), JoinType::LeftAnti).with_null_aware(true);
    plans.push(("null-aware anti join".into(), plan(aware.with_partition_mode(PartitionMode::CollectLeft).build())));
    plans
}

fn network() -> Vec<(String, Plan)> {
    let dealt = plan(RepartitionExec::try_new(rows(3), Partitioning::Hash(vec![column("k", 0)], 4)));
    vec![
        ("shuffle".into(), plan(NetworkShuffleExec::try_new(dealt, 3))),
        ("gather".into(), plan(NetworkCoalesceExec::try_new(rows(2), 3, 2))),
        ("broadcast".into(), plan(NetworkBroadcastExec::try_new(Arc::new(BroadcastExec::new(rows(1), 3)), 2))),
    ]
}

fn scans() -> Vec<(String, Plan)> {
    let file = |name: &str, range| {
        let mut file = PartitionedFile::new(name, 1000);
        file.object_meta.last_modified = chrono::DateTime::from_timestamp_nanos(1_700_000_000_123_456_789);
        file.range = range;
        file
    };
    let mut options = datafusion::common::config::TableParquetOptions::default();
    options.global.pushdown_filters = true;
    options.global.reorder_filters = true;
    let scan = |source: ParquetSource| {
        let url = ObjectStoreUrl::parse("node://data").expect("the URL is one");
        FileScanConfigBuilder::new(url, Arc::new(source)).with_file_groups(vec![
            FileGroup::new(vec![file("a b%.parquet", Some(FileRange { start: 4, end: 900 })), file("ü/c.parquet", None)]),
            FileGroup::new(vec![]),
        ])
    };
    let source = || ParquetSource::new(schema());
    let leaf = |scan: FileScanConfigBuilder| DataSourceExec::from_data_source(scan.build()) as Plan;
    let filtered = source().with_table_parquet_options(options).with_predicate(greater());
    vec![
        ("scan".into(), leaf(scan(source()))),
        ("scan with limit and batches".into(), leaf(scan(source()).with_limit(Some(17)).with_batch_size(Some(99)))),
        ("scan with filter and options".into(), leaf(scan(filtered))),
        ("scan of one column".into(), leaf(scan(source()).with_projection_indices(Some(vec![1])).expect("there is such a column"))),
        ("scan of no column".into(), leaf(scan(source()).with_projection_indices(Some(vec![])).expect("none is a choice"))),
        ("sorted scan".into(), leaf(scan(source()).with_output_ordering(vec![ordering()]))),
    ]
}

fn of_subquery(results: &ScalarSubqueryResults) -> Plan {
    let value = ScalarSubqueryExpr::new(DataType::Int64, true, SubqueryIndex::new(0), results.clone());
    let expr = ProjectionExpr { expr: Arc::new(value), alias: "value".into() };
    plan(ProjectionExec::try_new(vec![expr], rows(1)))
}

fn subqueries(route: &mut Route) {
    let results = ScalarSubqueryResults::new(1);
    let link = || ScalarSubqueryLink { plan: rows(1), index: SubqueryIndex::new(0) };
    route.send("scalar subquery", Arc::new(ScalarSubqueryExec::new(of_subquery(&results), vec![link()], results.clone())));
    // Its value is where the node above is, in another fragment.
    let apart = plan(NetworkCoalesceExec::try_new(of_subquery(&results), 2, 1));
    let error = fit_fragment(Arc::new(ScalarSubqueryExec::new(apart, vec![link()], results))).map_err(|error| error.to_string());
    assert!(
        error.as_ref().is_err_and(|error| error.contains("a scalar subquery whose value is computed in another fragment")),
        "{error:?}"
    );
}

/// Limits beyond 32 bits arrive in another form, or are spared where another one stands above.
fn limits(route: &mut Route) {
    let wide = ROWS_MAX + 1;
    let one: [(&str, Plan); 4] = [
        ("local", Arc::new(LocalLimitExec::new(rows(1), wide))),
        ("filter", plan(FilterExecBuilder::new(greater(), rows(1)).with_fetch(Some(wide)).build())),
        ("coalesce", Arc::new(CoalescePartitionsExec::new(rows(3)).with_fetch(Some(wide)))),
        ("rows", rows(1).with_fetch(Some(wide)).expect("literal rows can be limited")),
    ];
    for (what, limited) in one {
        let fitted = fit_fragment(limited).expect("it fits in another form");
        let limit = fitted.downcast_ref::<GlobalLimitExec>().unwrap_or_else(|| panic!("{what}: {fitted:?}"));
        assert_eq!((limit.skip(), limit.fetch(), limit.input().fetch()), (0, Some(wide), None), "{what}");
        route.send(&format!("wide limit of {what}"), fitted);
    }
    let several: [(&str, Plan); 2] = [
        ("local", Arc::new(LocalLimitExec::new(rows(2), wide))),
        ("filter", plan(FilterExecBuilder::new(greater(), rows(2)).with_fetch(Some(wide)).build())),
    ];
    for (what, limited) in several {
        let fitted = fit_fragment(limited).expect("it fits without");
        assert!(fitted.fetch().is_none() && !fitted.is::<LocalLimitExec>(), "{what}: {fitted:?}");
        route.send(&format!("wide limit of each {what}"), fitted);
    }
    // Those that are written in 64 bits stay as they are.
    let kept = SortExec::new(ordering(), rows(1)).with_fetch(Some(wide));
    assert_eq!(fit_fragment(Arc::new(kept)).expect("it fits").fetch(), Some(wide));
}

/// What has no encoding, or one that says less, is named.
fn refused(route: &mut Route) {
    let safe = CastOptions { safe: true, ..CastOptions::default() };
    let cast = Arc::new(CastExpr::new(column("k", 0), DataType::Int32, Some(safe)));
    let project = |expr: Arc<dyn PhysicalExpr>| plan(ProjectionExec::try_new(vec![ProjectionExpr { expr, alias: "x".into() }], rows(1)));
    let top = plan(PartitionedTopKExec::try_new(rows(1), ordering(), 1, 3, WindowFnKind::RowNumber));
    let gathered = plan(NetworkCoalesceExec::try_new(Arc::new(SortExec::new(ordering(), rows(1))), 3, 1));
    let in_order = RepartitionExec::try_new(gathered, Partitioning::RoundRobinBatch(2)).map(RepartitionExec::with_preserve_order);
    let cases: [(&str, Plan); 5] = [
        ("rows that are dealt in the order in which they come", plan(in_order)),
        ("the operator PartitionedTopKExec cannot be sent to workers: RESET datafusion.optimizer.enable_window_topn", top.clone()),
        ("the options of CAST", project(cast)),
        ("an OFFSET of 4294967296 rows", Arc::new(GlobalLimitExec::new(rows(1), ROWS_MAX + 1, None))),
        ("the operator PartitionedTopKExec", plan(FilterExec::try_new(greater(), plan(NetworkCoalesceExec::try_new(top, 2, 1))))),
    ];
    for (expected, plan) in cases {
        let error = fit_fragment(plan).map_err(|error| error.to_string());
        if !error.as_ref().is_err_and(|error| error.contains(expected)) {
            route.problems.push(format!("not refused with '{expected}': {error:?}"));
        }
    }
}
