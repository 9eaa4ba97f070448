//! Tells in the log what becomes of nodes: one that was lost is not there to say so itself.

use super::membership::{NodeInfo, NodeState};
use std::collections::HashMap;

/// Remembers what the log has said of each node.
#[derive(Default)]
pub struct NodeLog {
    told: HashMap<String, NodeState>,
}

impl NodeLog {
    /// Says what has changed.
    pub fn tell(&mut self, nodes: &[NodeInfo]) {
        for node in nodes {
            let before = self.told.get(&node.node_id).copied();
            // One that said it would end is silent after that, and nobody wonders.
            let ends = before == Some(NodeState::Leaving) && node.state == NodeState::Suspect;
            if before == Some(node.state) || ends {
                continue;
            }
            self.told.insert(node.node_id.clone(), node.state);
            let (id, silent_s) = (&node.node_id, node.heartbeat_age_ms / 1000);
            match node.state {
                NodeState::Live => {
                    tracing::info!(node = id, files = node.file_count, cores = node.cpu_threads, "a node is live: it takes tasks");
                }
                NodeState::Suspect => tracing::warn!(node = id, silent_s, "a node is suspect: it gets no new tasks"),
                NodeState::Leaving => tracing::info!(node = id, tasks = node.running_tasks, "a node ends: it gets no new tasks"),
                NodeState::Dead if before == Some(NodeState::Leaving) => tracing::info!(node = id, "a node has ended"),
                NodeState::Dead => {
                    tracing::warn!(node = id, silent_s, "a node is lost: nothing was heard of it, and what it holds is missing")
                }
                NodeState::Joining => {}
            }
        }
    }
}
