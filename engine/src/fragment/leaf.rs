//! Leaf handlers of the distributed planner: which files each task of a fragment reads.
//!
//! ```text
//!   DataSourceExec(lineitem: 6 files)        slot 0 = node-1   slot 1 = node-2   slot 2 = node-3
//!        │  scale up to 3 slots       ──►    DataSourceExec    DataSourceExec    DataSourceExec
//!        ▼                                   row groups of     row groups of     row groups of
//!   DistributedLeafExec                      node-1's files    node-2's files    node-3's files
//! ```

use super::journey;
use super::placement::{PlacedFile, Placement};
use crate::catalog::location::object_path;
use crate::catalog::provider::scanned_table;
use crate::control::RowGroupFacts;
use crate::files::by_name::stored_scan;
use chrono::{DateTime, Utc};
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Result, plan_err};
use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::work_table::WorkTableExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion_distributed::{
    DesiredTaskCountEvent, DesiredTaskCountEventResponse, DistributedLeafExec, NetworkCoalesceExec, ScaleUpLeafNodeEvent,
    ScaleUpLeafNodeEventResponse,
};
use std::sync::Arc;

/// A leaf whose rows exist once, in the plan itself: it must run in exactly one task.
fn is_literal_leaf(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<PlaceholderRowExec>()
        || plan.is::<EmptyExec>()
        || plan.downcast_ref::<DataSourceExec>().is_some_and(|leaf| leaf.data_source().downcast_ref::<MemorySourceConfig>().is_some())
}

/// Whether an aggregate's last step has a row even of none.
fn answers_for_no_row(aggregate: &AggregateExec) -> bool {
    aggregate.group_expr().is_empty() && !matches!(aggregate.mode(), AggregateMode::Partial | AggregateMode::PartialReduce)
}

/// Stored scans want one task a node; literal leaves want one, but follow their stage. A recursive query and its work table live in one
/// process: everything over them runs on the coordinator, up to where rows of other fragments come in. An aggregate of all rows answers for
/// no row too, and would do so in each task.
pub fn desired_task_count(placement: &Placement, event: DesiredTaskCountEvent) -> Option<Result<DesiredTaskCountEventResponse>> {
    if event.plan.downcast_ref::<AggregateExec>().is_some_and(answers_for_no_row) {
        return Some(Ok(DesiredTaskCountEventResponse::maximum(1)));
    }
    match event.plan.exists(|node| Ok(node.is::<WorkTableExec>())) {
        Ok(true) => return Some(Ok(DesiredTaskCountEventResponse::maximum(1))),
        Ok(false) => {}
        Err(error) => return Some(Err(error)),
    }
    if stored_scan(event.plan).is_some() {
        return Some(Ok(DesiredTaskCountEventResponse::desired(placement.nodes.len())));
    }
    is_literal_leaf(event.plan).then(|| Ok(DesiredTaskCountEventResponse::desired(1)))
}

/// Gives each task its files, or one task the literal rows and the others none. Scans that are to stay `apart` become fragments of their own.
pub fn scale_up(placement: &Placement, event: ScaleUpLeafNodeEvent, apart: bool) -> Option<Result<ScaleUpLeafNodeEventResponse>> {
    if let Some(scan) = stored_scan(event.plan) {
        return Some(scale_up_stored(placement, scan, &event, apart));
    }
    if event.task_count > 1 && is_literal_leaf(event.plan) {
        return Some(scale_up_literal(&event));
    }
    None
}

fn scale_up_stored(
    placement: &Placement,
    scan: &FileScanConfig,
    event: &ScaleUpLeafNodeEvent,
    apart: bool,
) -> Result<ScaleUpLeafNodeEventResponse> {
    let slots = placement.nodes.len();
    let mut files: Vec<Vec<&PlacedFile>> = vec![vec![]; slots];
    let Some(table_id) = scanned_table(scan) else { return plan_err!("a scan of stored files names no table") };
    for placed in &placement.table(table_id)?.files {
        files[placed.slot].push(placed);
    }
    let partitions = event.session_config.target_partitions().max(2);
    let variants = files.into_iter().map(|files| {
        if files.is_empty() {
            // A scan of no file would still ask for its store, and a node need not have every volume.
            return nothing(event.plan, partitions);
        }
        let mut variant = scan.clone();
        variant.file_groups = split_by_row_groups(&files, partitions);
        // A larger one cannot travel, and there is another one above: see `journey`.
        variant.limit = variant.limit.filter(|rows| *rows <= journey::ROWS_MAX);
        DataSourceExec::from_data_source(variant) as Arc<dyn ExecutionPlan>
    });
    let leaf: Arc<dyn ExecutionPlan> = Arc::new(DistributedLeafExec::try_new(Arc::clone(event.plan), variants)?);
    Ok(ScaleUpLeafNodeEventResponse::new(if event.task_count == slots && !apart { leaf } else { gathered(leaf, slots, event)? }))
}

/// The leaf as a fragment of its own, for a stage that does not run on every node (a nested-loop full join, NOT IN over NULLs, a recursive
/// CTE, a union with literal rows): files are still read where they lie, and their rows go to the tasks of that stage.
fn gathered(leaf: Arc<dyn ExecutionPlan>, slots: usize, event: &ScaleUpLeafNodeEvent) -> Result<Arc<dyn ExecutionPlan>> {
    let partitions = event.plan.output_partitioning().partition_count();
    let gathered: Arc<dyn ExecutionPlan> = Arc::new(NetworkCoalesceExec::try_new(leaf, slots, event.task_count)?);
    // The plan above was made for this many partitions: where that is one, it reads no other. In any case a node stands between: the library hands a
    // limit of whatever is right above a boundary on to what is below, of joins, filters and sorts too.
    Ok(if partitions == 1 { Arc::new(CoalescePartitionsExec::new(gathered)) } else { Arc::new(CooperativeExec::new(gathered)) })
}

/// Deals whole row groups to partitions in file order, so that a chunk is read and cached by one partition of one node. Those without rows are
/// left out: they may begin where the next one does, and readers know a row group by its first byte.
fn split_by_row_groups(files: &[&PlacedFile], partitions: usize) -> Vec<FileGroup> {
    let total: u64 = files.iter().flat_map(|placed| placed.file.row_groups.iter()).map(|group| group.rows).sum();
    let mut groups: Vec<Vec<PartitionedFile>> = vec![vec![]; partitions];
    let mut before = 0u64;
    for placed in files {
        let filled: Vec<&RowGroupFacts> = placed.file.row_groups.iter().filter(|group| group.rows > 0).collect();
        // A range of bytes holds nothing else only where row groups lie in their order.
        let in_order = filled.windows(2).all(|pair| pair[0].offset < pair[1].offset);
        let mut run: Option<(usize, u64, u64)> = None;
        for row_group in filled {
            // The row group belongs to the partition in whose share its middle row lies.
            let middle = before + row_group.rows / 2;
            let partition = ((middle as u128 * partitions as u128) / total.max(1) as u128).min(partitions as u128 - 1) as usize;
            before += row_group.rows;
            run = match run {
                Some((open, first, _)) if open == partition && in_order => Some((open, first, row_group.offset)),
                Some((open, first, last)) => {
                    groups[open].push(ranged(placed, first, last));
                    Some((partition, row_group.offset, row_group.offset))
                }
                None => Some((partition, row_group.offset, row_group.offset)),
            };
        }
        if let Some((open, first, last)) = run {
            groups[open].push(ranged(placed, first, last));
        }
    }
    groups.into_iter().map(FileGroup::new).collect()
}

/// The row groups of a file that start in `first..=last`. The time of modification carries the copy's version to the worker.
fn ranged(placed: &PlacedFile, first: u64, last: u64) -> PartitionedFile {
    let path = placed.path.as_ref().unwrap_or(&placed.file.path);
    let mut planned = PartitionedFile::new(path.clone(), placed.file.size_bytes);
    planned.object_meta.location = object_path(path);
    planned.object_meta.last_modified = DateTime::<Utc>::from_timestamp_nanos(placed.version);
    planned.range = Some(FileRange { start: first as i64, end: last as i64 + 1 });
    planned
}

/// A leaf of no rows in the place of `leaf`.
fn nothing(leaf: &Arc<dyn ExecutionPlan>, partitions: usize) -> Arc<dyn ExecutionPlan> {
    Arc::new(EmptyExec::new(leaf.schema()).with_partitions(partitions))
}

fn scale_up_literal(event: &ScaleUpLeafNodeEvent) -> Result<ScaleUpLeafNodeEventResponse> {
    let nothing = nothing(event.plan, event.plan.output_partitioning().partition_count());
    let variants = (0..event.task_count).map(|task| if task == 0 { Arc::clone(event.plan) } else { nothing.clone() });
    Ok(ScaleUpLeafNodeEventResponse::new(Arc::new(DistributedLeafExec::try_new(Arc::clone(event.plan), variants)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::CatalogFile;

    fn file(size_bytes: u64, rows: &[u64]) -> PlacedFile {
        let row_groups = rows.iter().enumerate().map(|(i, &rows)| RowGroupFacts { offset: 4 + 100 * i as u64, rows, bytes: 100 }).collect();
        let file = CatalogFile {
            file_id: 1,
            store_url: "node://data".into(),
            path: "f.parquet".into(),
            size_bytes,
            version: 1,
            row_count: rows.iter().sum(),
            row_groups,
            checksum: None,
            homes: Box::default(),
        };
        PlacedFile { file: Arc::new(file), slot: 0, version: 1, path: None }
    }

    #[test]
    fn every_row_group_lands_in_exactly_one_partition() {
        let (a, b) = (file(1000, &[10, 10, 10]), file(2000, &[5]));
        let groups = split_by_row_groups(&[&a, &b], 2);
        let mut seen = vec![];
        for planned in groups.iter().flat_map(|group| group.files()) {
            let range = planned.range.as_ref().unwrap();
            let of = if planned.object_meta.size == 1000 { &a } else { &b };
            let inside = of.file.row_groups.iter().filter(|group| range.contains(group.offset as i64));
            seen.extend(inside.map(|group| (planned.object_meta.size, group.offset)));
        }
        seen.sort();
        assert_eq!(groups.len(), 2);
        assert_eq!(seen, [(1000, 4), (1000, 104), (1000, 204), (2000, 4)]);
    }

    #[test]
    fn row_groups_without_rows_or_out_of_order_are_read_once() {
        let mut odd = file(1000, &[10, 0, 10, 10]);
        let mut groups = odd.file.row_groups.to_vec();
        // The second begins where the third does, and the last lies before both.
        (groups[1].offset, groups[2].offset, groups[3].offset) = (500, 500, 100);
        let mut changed = Arc::into_inner(odd.file).unwrap();
        changed.row_groups = groups.into();
        odd.file = Arc::new(changed);
        for partitions in 1..5 {
            let planned = split_by_row_groups(&[&odd], partitions);
            let ranges: Vec<FileRange> = planned.iter().flat_map(|group| group.files()).filter_map(|file| file.range.clone()).collect();
            for offset in [4, 500, 100] {
                assert_eq!(ranges.iter().filter(|range| range.contains(offset)).count(), 1, "{offset} in {ranges:?}");
            }
        }
    }

    #[test]
    fn no_files_make_empty_partitions() {
        assert!(split_by_row_groups(&[], 3).iter().all(|group| group.files().is_empty()));
    }
}
