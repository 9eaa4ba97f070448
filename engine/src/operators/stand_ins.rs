//! What stands in for nodes where they run: joins, unnests and what works on large constants take their rows [in parts](super::in_parts), totals are
//! there even of no rows, and what functions made counts once.
//!
//! A join that expands its input can feed an aggregate above it from one poll to the next without ever waiting for anything. Such a task
//! cannot be ended: its runtime never gets control back to drop it.

use super::function_memory::HandsOver;
use super::in_parts::InParts;
use super::in_place::InPlaceExec;
use super::{panic_guard, total_of_none};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};
use datafusion_distributed::NetworkBoundaryExt;
use std::sync::Arc;

/// Puts the stand-ins into a fragment.
pub fn in_fragment(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(plan.transform_up(stood_in)?.data)
}

/// Puts them into what runs on the coordinator; the fragments below travel as they are.
pub fn in_head(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let wrapped = plan.transform_down_up(
        |node| match node.as_network_boundary().is_some() {
            true => Ok(Transformed::new(node, false, TreeNodeRecursion::Jump)),
            false => Ok(Transformed::no(node)),
        },
        |node| if node.as_network_boundary().is_some() { Ok(Transformed::no(node)) } else { stood_in(node) },
    )?;
    panic_guard::guard_head(wrapped.data)
}

/// The node, in parts if it may make many batches out of one or long ones.
fn stood_in(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let node = over_handed_rows(node)?;
    if let Some(parts) = InParts::of(&node)? {
        return Ok(Transformed::yes(InPlaceExec::over(node, Arc::new(parts))));
    }
    Ok(match total_of_none::over(&node)? {
        Some(total) => Transformed::yes(total),
        None => Transformed::no(node),
    })
}

/// Nodes that keep the batches which they get, and account for them.
const KEEPING: [&str; 6] = ["AggregateExec", "JoinExec", "RepartitionExec", "SortExec", "WindowAggExec", "TopK"];

/// The node over children that leave their batches to it. What comes from another node was made there.
fn over_handed_rows(node: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let children = node.children();
    let makes = |child: &&Arc<dyn ExecutionPlan>| child.name() == "ProjectionExec";
    if !KEEPING.iter().any(|name| node.name().ends_with(name)) || !children.iter().any(makes) {
        return Ok(node);
    }
    let children = children.into_iter().map(|child| if makes(&child) { HandsOver::from(child.clone()) } else { child.clone() }).collect();
    node.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}
