//! Whether a fragment arrives at a worker as it left the coordinator.
//!
//! Plans travel in DataFusion's encoding. It has no place for some nodes and options, and 32 bits for some numbers of rows: the limit of
//! `LIMIT 4294967296` would arrive as 0. What can travel in another form is put into it here; the rest is refused while it is planned, since a
//! worker that cannot read its plan looks like one that is lost. `tests/plan_journey` sends every node and option there and back.

use crate::error::{Error, ErrorClass};
use arrow::compute::CastOptions;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, CastExpr};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary};
use datafusion_distributed::{DistributedExec, NetworkBoundaryExt};
use std::sync::Arc;

/// The nodes that travel, by name.
pub const TRAVELLING: [&str; 31] = [
    "AggregateExec",
    "BoundedWindowAggExec",
    "BroadcastExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "CrossJoinExec",
    "DataSourceExec",
    "DistributedLeafExec",
    "EmptyExec",
    "FilterExec",
    "GlobalLimitExec",
    "HashJoinExec",
    "InterleaveExec",
    "LazyMemoryExec",
    "LocalLimitExec",
    "NestedLoopJoinExec",
    "NetworkBroadcastExec",
    "NetworkCoalesceExec",
    "NetworkShuffleExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "RepartitionExec",
    "SamplerExec",
    "ScalarSubqueryExec",
    "SortExec",
    "SortMergeJoinExec",
    "SortPreservingMergeExec",
    "SymmetricHashJoinExec",
    "UnionExec",
    "UnnestExec",
    "WindowAggExec",
];

/// Nodes that stay where the query's head runs.
pub const STAYING: [&str; 4] = ["DistributedExec", "RecursiveQueryExec", "ReplayExec", "WorkTableExec"];

/// Settings that bring nodes into a plan that cannot travel, by node.
const BROUGHT_BY: [(&str, &str); 2] = [
    ("PartitionedTopKExec", "datafusion.optimizer.enable_window_topn"),
    ("PiecewiseMergeJoinExec", "datafusion.optimizer.enable_piecewise_merge_join"),
];

/// Most rows that the encoding of some nodes can name.
pub const ROWS_MAX: usize = u32::MAX as usize;

/// The plan with fragments that arrive as they are. Of a plan that is cut while it runs (`adapts`), any node may travel.
///
/// # Errors
/// When a fragment has what cannot travel.
pub fn fit(plan: Arc<dyn ExecutionPlan>, adapts: bool) -> Result<Arc<dyn ExecutionPlan>> {
    if !plan.is::<DistributedExec>() {
        return Ok(plan);
    }
    if adapts {
        check(&plan, true, false)?;
        check_levels(&plan, 1)?;
        return Ok(plan);
    }
    let fitted = plan.transform_down(|node| {
        if !node.is_network_boundary() {
            return Ok(Transformed::no(node));
        }
        let fragments: Vec<_> = node.children().into_iter().cloned().collect();
        let fitted = fragments.iter().map(|plan| fit_fragment(plan.clone())).collect::<Result<Vec<_>>>()?;
        let changed = fragments.iter().zip(&fitted).any(|(was, is)| !Arc::ptr_eq(was, is));
        let node = if changed { replace_children_if_necessary(node, fitted)? } else { node };
        Ok(Transformed::new(node, changed, TreeNodeRecursion::Jump))
    })?;
    Ok(fitted.data)
}

/// One fragment and those below it, in a form that travels.
///
/// # Errors
/// When there is none.
pub fn fit_fragment(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let wide = plan.exists(|node| Ok(wide_limit(node).is_some()))?;
    let plan = if wide { plan.transform_up(without_wide_limit)?.data } else { plan };
    check(&plan, false, false)?;
    check_levels(&plan, 1)?;
    Ok(plan)
}

/// Levels of messages within messages that a plan may have: its decoder follows a hundred. A few are left to what wraps a plan.
const LEVELS_MAX: usize = 92;

/// Refuses a plan that is nested deeper than it can be decoded.
fn check_levels(node: &Arc<dyn ExecutionPlan>, level: usize) -> Result<()> {
    if level > LEVELS_MAX {
        return Err(too_deep(format!("a fragment of more than {} operators, each over the one before,", LEVELS_MAX / 2)));
    }
    node.apply_expressions(&mut |expr| match level + 3 + levels_of(expr) {
        levels if levels > LEVELS_MAX => Err(too_deep("an expression that is nested so deep".into())),
        _ => Ok(TreeNodeRecursion::Continue),
    })?;
    // What is below a boundary is a message of its own.
    let below = if node.is_network_boundary() { 1 } else { level + 2 };
    node.children().into_iter().try_for_each(|child| check_levels(child, below))
}

/// Levels of an expression's message. A chain of one operator, as `a OR b OR c`, is one of them.
fn levels_of(expr: &Arc<dyn PhysicalExpr>) -> usize {
    let mut deepest = 0;
    let mut at = expr;
    while let Some(binary) = at.downcast_ref::<BinaryExpr>() {
        deepest = deepest.max(levels_of(binary.right()));
        at = binary.left();
        if at.downcast_ref::<BinaryExpr>().is_none_or(|left| left.op() != binary.op()) {
            return 2 + deepest.max(levels_of(at));
        }
    }
    let own = if at.is::<CaseExpr>() { 3 } else { 2 };
    own + at.children().into_iter().map(levels_of).max().unwrap_or(deepest)
}

fn too_deep(what: String) -> datafusion::common::DataFusionError {
    let way_out = "put parentheses around parts of a long chain, or compute a part of it in a subquery with DISTINCT or LIMIT";
    Error::new(ErrorClass::User, format!("{what} cannot be sent to workers: {way_out}")).into()
}

/// A node whose limit is beyond the encoding, without it. A limit of several partitions only spares rows that another one above leaves out; that of
/// one partition is kept by a node with room for it.
fn without_wide_limit(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let narrow =
        node.is::<FilterExec>() || node.is::<CoalescePartitionsExec>() || node.is::<DataSourceExec>() || node.is::<LocalLimitExec>();
    let Some(rows) = wide_limit(&node).filter(|_| narrow) else { return Ok(Transformed::no(node)) };
    let all = match node.downcast_ref::<LocalLimitExec>() {
        Some(limit) => limit.input().clone(),
        None => node.with_fetch(None).ok_or_else(|| cannot_travel(format!("a limit of {rows} rows in {}", node.name()), None))?,
    };
    Ok(Transformed::yes(match all.output_partitioning().partition_count() {
        1 => Arc::new(GlobalLimitExec::new(all, 0, Some(rows))),
        _ => all,
    }))
}

/// The limit of a node, if 32 bits are not enough for it.
fn wide_limit(node: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    let rows = node.downcast_ref::<LocalLimitExec>().map_or_else(|| node.fetch(), |limit| Some(limit.fetch()));
    rows.filter(|rows| *rows > ROWS_MAX)
}

/// The name of a node without what it says of its options: a sort of the first rows is a `SortExec(TopK)`.
pub fn kind(node: &Arc<dyn ExecutionPlan>) -> &str {
    node.name().split('(').next().unwrap_or_default()
}

/// Refuses what cannot travel in a fragment, and in those below it. `of_subqueries` is whether a node above gives scalar subqueries their values.
fn check(node: &Arc<dyn ExecutionPlan>, adapts: bool, of_subqueries: bool) -> Result<()> {
    let name = kind(node);
    let may_stay = adapts && STAYING.contains(&name);
    if !may_stay && !TRAVELLING.contains(&name) {
        let setting = BROUGHT_BY.iter().find(|(node, _)| *node == name).map(|(_, setting)| *setting);
        return Err(cannot_travel(format!("the operator {name}"), setting));
    }
    if let Some(rows) = wide_limit(node).filter(|_| adapts) {
        return Err(cannot_travel(format!("a limit of {rows} rows beside bowshot.adaptive_tasks"), Some("bowshot.adaptive_tasks")));
    }
    if let Some(limit) = node.downcast_ref::<GlobalLimitExec>().filter(|limit| limit.skip() > ROWS_MAX) {
        return Err(cannot_travel(format!("an OFFSET of {} rows, beyond {ROWS_MAX},", limit.skip()), None));
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let groups = aggregate.group_expr();
        if groups.is_empty() && groups.has_grouping_set() {
            return Err(cannot_travel("GROUPING SETS of empty sets alone".into(), None));
        }
    }
    if node.downcast_ref::<RepartitionExec>().is_some_and(|dealt| dealt.preserve_order() && forgets_order(dealt.input())) {
        return Err(cannot_travel(
            "rows that are dealt in the order in which they come".into(),
            Some("datafusion.optimizer.prefer_existing_sort"),
        ));
    }
    let of_subqueries = of_subqueries || node.is::<ScalarSubqueryExec>();
    node.apply_expressions(&mut |expr| {
        expr.apply(|part| {
            check_expression(part, of_subqueries)?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    let below = of_subqueries && !node.is_network_boundary();
    node.children().into_iter().try_for_each(|child| check(child, adapts, below))
}

/// Whether rows come in an order that is not known any more where the node arrives: a boundary and a series do not say theirs.
fn forgets_order(node: &Arc<dyn ExecutionPlan>) -> bool {
    let sorts = node.is::<SortExec>() || node.is::<SortPreservingMergeExec>();
    node.is_network_boundary() || node.is::<LazyMemoryExec>() || (!sorts && node.children().into_iter().any(forgets_order))
}

fn check_expression(expr: &Arc<dyn PhysicalExpr>, of_subqueries: bool) -> Result<()> {
    if expr.is::<ScalarSubqueryExpr>() && !of_subqueries {
        return Err(cannot_travel("a scalar subquery whose value is computed in another fragment".into(), None));
    }
    let usual = |options: &CastOptions| *options == datafusion::common::format::DEFAULT_CAST_OPTIONS;
    match expr.downcast_ref::<CastExpr>() {
        Some(cast) if !usual(cast.cast_options()) => Err(cannot_travel(format!("the options of {cast}"), None)),
        _ => Ok(()),
    }
}

fn cannot_travel(what: String, setting: Option<&str>) -> datafusion::common::DataFusionError {
    let way_out =
        setting.map_or("write the query another way, or RESET the settings of datafusion.optimizer".into(), |name| format!("RESET {name}"));
    Error::new(ErrorClass::User, format!("{what} cannot be sent to workers: {way_out}")).into()
}
