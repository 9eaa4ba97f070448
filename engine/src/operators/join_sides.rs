//! Hash joins whose small side goes to all nodes.
//!
//! DataFusion collects a side of a join where that is small in itself: what it saves in one process is little. Between nodes it is the
//! other, large side that counts. Dealt anew by its keys every row of it is hashed, encoded, sent and decoded, and what the small side holds
//! filters nothing where the large one is read. So the small side is weighed against the large one:
//!
//! ```text
//!   small × nodes ≤ large   small goes to all nodes      large stays where it is read; keys of small filter its scan
//!   otherwise               both sides dealt by key      every row of both sides is sent once
//! ```
//!
//! Sizes are estimates. A side that turns out too large for the memory of a node makes the query run again with both sides dealt.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use std::sync::Arc;

/// Where only rows are known: what one is taken for.
const ROW_BYTES: usize = 32;

/// The rule; it stands before `join_selection`, which keeps to the sides chosen here.
#[derive(Debug)]
pub struct SendSmallSides {
    /// Nodes that a side would be sent to.
    pub nodes: usize,
    /// Largest side that is sent, in bytes.
    pub bytes_max: usize,
}

impl PhysicalOptimizerRule for SendSmallSides {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let chosen = plan.transform_up(|node| {
            let Some(join) = node.downcast_ref::<HashJoinExec>().filter(|join| *join.partition_mode() == PartitionMode::Auto) else {
                return Ok(Transformed::no(node));
            };
            Ok(match self.side(join, config.optimizer.join_reordering) {
                Some(Side::Left) => Transformed::yes(Arc::new(join.builder().with_partition_mode(PartitionMode::CollectLeft).build()?)),
                Some(Side::Right) => Transformed::yes(join.swap_inputs(PartitionMode::CollectLeft)?),
                None => Transformed::no(node),
            })
        })?;
        Ok(chosen.data)
    }

    fn name(&self) -> &str {
        "send_small_sides"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

enum Side {
    Left,
    Right,
}

impl SendSmallSides {
    /// The side that goes to all nodes, if that is cheaper than dealing both.
    fn side(&self, join: &HashJoinExec, may_swap: bool) -> Option<Side> {
        let (left, right) = sizes(join.left().as_ref(), join.right().as_ref())?;
        let sent = |small: usize, large: usize| small <= self.bytes_max && small.saturating_mul(self.nodes) <= large;
        let kind = *join.join_type();
        if sent(left, right) && gives_no_row_of_its_left_side(kind) {
            return Some(Side::Left);
        }
        let swaps = may_swap && kind.supports_swap() && !join.null_aware && gives_no_row_of_its_left_side(kind.swap());
        (swaps && sent(right, left)).then_some(Side::Right)
    }
}

/// Whether each node can join the same left side with its own part of the right one: rows of the left side that are given for themselves,
/// matched or not, would come once from every node.
fn gives_no_row_of_its_left_side(kind: JoinType) -> bool {
    matches!(kind, JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark)
}

/// Estimated bytes of both sides, by the same measure for both.
fn sizes(left: &dyn ExecutionPlan, right: &dyn ExecutionPlan) -> Option<(usize, usize)> {
    let known = |side| StatisticsContext::new().compute(side, &StatisticsArgs::new()).ok();
    let (left, right) = (known(left)?, known(right)?);
    if let (Some(left), Some(right)) = (left.total_byte_size.get_value(), right.total_byte_size.get_value()) {
        return Some((*left, *right));
    }
    let bytes = |rows: Option<&usize>| Some(rows?.saturating_mul(ROW_BYTES));
    Some((bytes(left.num_rows.get_value())?, bytes(right.num_rows.get_value())?))
}

/// Whether a plan has a hash join whose one side goes to all nodes.
pub fn sends_a_side(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut found = false;
    let looked = plan.apply(|node| {
        found |= node.downcast_ref::<HashJoinExec>().is_some_and(|join| *join.partition_mode() == PartitionMode::CollectLeft);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    looked.is_ok() && found
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use datafusion::common::NullEquality;
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_expr::expressions::col;

    fn rows(count: i64) -> Arc<dyn ExecutionPlan> {
        let batch = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(0..count)) as _)]).unwrap();
        let schema = batch.schema();
        MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None).unwrap()
    }

    /// How a join of sides with so many rows comes out: mode, kind, rows of its left side.
    fn chosen(kind: JoinType, left: i64, right: i64, nodes: usize) -> (PartitionMode, JoinType, usize) {
        let (left, right) = (rows(left), rows(right));
        let on = vec![(col("id", &left.schema()).unwrap(), col("id", &right.schema()).unwrap())];
        let null = NullEquality::NullEqualsNothing;
        let join = HashJoinExec::try_new(left, right, on, None, &kind, None, PartitionMode::Auto, null, false).unwrap();
        let rule = SendSmallSides { nodes, bytes_max: 1 << 20 };
        let plan = rule.optimize(Arc::new(join), &ConfigOptions::new()).unwrap();
        let mut found = None;
        plan.apply(|node| {
            if let Some(join) = node.downcast_ref::<HashJoinExec>() {
                let left = StatisticsContext::new().compute(join.left().as_ref(), &StatisticsArgs::new())?;
                found = Some((*join.partition_mode(), *join.join_type(), *left.num_rows.get_value().unwrap()));
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .unwrap();
        found.unwrap()
    }

    #[test]
    fn the_small_side_is_sent_where_all_its_copies_are_less_than_the_large_side() {
        use JoinType::{Full, Inner, LeftSemi, RightSemi};
        use PartitionMode::{Auto, CollectLeft};
        assert_eq!(chosen(Inner, 100, 10_000, 3), (CollectLeft, Inner, 100));
        assert_eq!(chosen(Inner, 10_000, 100, 3), (CollectLeft, Inner, 100));
        assert_eq!(chosen(Inner, 4_000, 10_000, 2), (CollectLeft, Inner, 4_000));
        assert_eq!(chosen(Inner, 4_000, 10_000, 3), (Auto, Inner, 4_000));
        assert_eq!(chosen(Inner, 200_000, 900_000, 3), (Auto, Inner, 200_000), "more than may be sent");
        assert_eq!(chosen(LeftSemi, 10_000, 100, 3), (CollectLeft, RightSemi, 100));
        // Rows of a side that are given for themselves would come from every node.
        assert_eq!(chosen(LeftSemi, 100, 10_000, 3), (Auto, LeftSemi, 100));
        assert_eq!(chosen(Full, 100, 10_000, 3), (Auto, Full, 100));
    }
}
