//! Route handler: task i of a fragment over stored files runs on node i. It always answers: the library's own fallback is a random
//! round-robin, which would break locality without a word.

use super::placement::Placement;
use crate::error::{Error, ErrorClass};
use crate::files::by_name::stored_scan;
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_distributed::{DistributedLeafExec, NetworkBoundaryExt, RouteTasksEvent, RouteTasksEventResponse};

/// URLs of a fragment's tasks, in task order.
pub fn route(placement: &Placement, event: &RouteTasksEvent) -> Result<RouteTasksEventResponse> {
    if placement.nodes.is_empty() {
        return Err(no_workers().into());
    }
    let mut local = false;
    let mut allowed: Option<Vec<usize>> = None;
    event.plan.apply(|node| {
        if node.downcast_ref::<DistributedLeafExec>().is_some_and(|leaf| stored_scan(leaf.original()).is_some()) {
            local = true;
        }
        if let Some(boundary) = node.as_network_boundary()
            && let Some(slots) = placement.borders.get().and_then(|borders| borders.slots(boundary.input_stage().num()))
        {
            // What comes in over several boundaries was checked together: the slots are the same.
            allowed = Some(slots.to_vec());
        }
        // What lies beyond a boundary is another fragment.
        Ok(if node.is_network_boundary() { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
    })?;
    if local && event.task_count != placement.nodes.len() {
        return Err(
            Error::bug(format!("a fragment over stored files has {} tasks for {} nodes", event.task_count, placement.nodes.len())).into()
        );
    }
    let slots = match allowed {
        // A fragment over files runs where they are; that its nodes may have what comes in was checked.
        Some(slots) if !local && !slots.is_empty() => slots,
        _ => (0..placement.nodes.len()).collect(),
    };
    let urls = (0..event.task_count).map(|task| placement.nodes[slots[task % slots.len()]].url.clone()).collect();
    Ok(RouteTasksEventResponse::new(urls))
}

/// The error of a cluster without workers.
pub fn no_workers() -> Error {
    Error::new(ErrorClass::Retry, "no worker is live: start one with `bowshot worker`, or look at system.nodes for why none is")
}
