//! The coordinator's check: no row of a pinned table crosses its border anywhere in a plan, the way to the client included.

use super::Reach;
use super::flow::{Follow, follow};
use crate::catalog::provider::scanned_table;
use crate::error::{Error, ErrorClass};
use crate::files::by_name::stored_scan;
use crate::fragment::placement::Placement;
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{DistributedLeafExec, NetworkBoundary, NetworkBoundaryExt};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What was found out about a plan's fragments.
#[derive(Debug, Default)]
pub struct Borders {
    /// Slots that the consumer of a fragment may run on, by the number of that fragment; absent for any.
    slots: HashMap<usize, Vec<usize>>,
    /// Where a fragment's rows may go, by its number.
    reach: HashMap<usize, Reach>,
    /// Where the texts of its errors may go.
    errors: HashMap<usize, Reach>,
}

impl Borders {
    /// Slots for a fragment that reads from these fragments; `None` for any.
    pub fn slots(&self, reads_from: usize) -> Option<&[usize]> {
        self.slots.get(&reads_from).map(Vec::as_slice)
    }

    /// Where the texts of a fragment's errors may go.
    pub fn errors(&self, fragment: usize) -> Reach {
        self.errors.get(&fragment).cloned().unwrap_or_default()
    }

    /// Where the rows of a fragment may go.
    pub fn reach(&self, fragment: usize) -> Reach {
        self.reach.get(&fragment).cloned().unwrap_or_default()
    }
}

/// Tables whose rows are rows still, with where they may go.
type Label = BTreeMap<String, Reach>;

/// Where a fragment runs.
#[derive(Clone, Copy)]
enum Place {
    /// On the coordinator, whose rows go to the client.
    Coordinator,
    /// On workers.
    Workers,
}

/// Follows the rows of pinned tables through `plan`, finds nodes for the fragments that receive them, and refuses plans that would let them out.
///
/// # Errors
/// [`ErrorClass::Denied`] that names table, border and fragment.
pub fn check(plan: &Arc<dyn ExecutionPlan>, placement: &Placement, coordinator_region: &str) -> Result<Borders> {
    let mut check = Check { placement, coordinator_region, borders: Borders::default(), inside: vec![], errors: Reach::anywhere() };
    if placement.reads_pinned() {
        check.fragment(plan, Place::Coordinator)?;
    }
    Ok(check.borders)
}

struct Check<'a> {
    placement: &'a Placement,
    coordinator_region: &'a str,
    borders: Borders,
    /// The fragment that is looked at: what comes in, as (fragment, boundary, label).
    inside: Vec<(usize, String, Label)>,
    /// Where errors about what was read so far may go.
    errors: Reach,
}

impl Check<'_> {
    /// The label of a fragment's rows, after its own receipts were checked.
    fn fragment(&mut self, plan: &Arc<dyn ExecutionPlan>, place: Place) -> Result<Label> {
        let outside = std::mem::take(&mut self.inside);
        let label = follow(plan, self)?;
        let incoming = std::mem::replace(&mut self.inside, outside);
        let rows = incoming.iter().flat_map(|(_, _, label)| label.values()).fold(Reach::anywhere(), |all, one| all.and(one));
        let mut slots: Vec<usize> = (0..self.placement.nodes.len()).collect();
        if rows.is_limited() && !reads_files(plan)? {
            slots.retain(|slot| rows.allows(Some(&self.placement.nodes[*slot].region)));
            for (fragment, _, _) in &incoming {
                self.borders.slots.insert(*fragment, slots.clone());
            }
        }
        for (fragment, boundary, label) in &incoming {
            for (table, reach) in label {
                self.check_receivers(place, &slots, (*fragment, boundary), table, reach)?;
            }
        }
        Ok(label)
    }

    fn check_receivers(&self, place: Place, slots: &[usize], from: (usize, &str), table: &str, reach: &Reach) -> Result<()> {
        let (fragment, boundary) = from;
        let refuse = |to: String| {
            Err(Error::new(
                ErrorClass::Denied,
                format!(
                    "rows of table {table} must stay in {reach}, but this query would send them from fragment {fragment} ({boundary}) to {to}: aggregate them there first (count, sum, avg, min, max), or ask where the rows are"
                ),
            )
            .into())
        };
        match place {
            Place::Coordinator if !reach.allows(Some(self.coordinator_region)) => {
                refuse(format!("the coordinator and its client in {}", self.coordinator_region))
            }
            Place::Workers if slots.is_empty() => {
                refuse("workers elsewhere: none of the tables that meet here may go where the others are".into())
            }
            Place::Workers => {
                let beyond = slots.iter().map(|slot| &self.placement.nodes[*slot]).find(|node| !reach.allows(Some(&node.region)));
                match beyond {
                    Some(node) => refuse(format!("node {} in {}", node.node_id, node.region)),
                    None => Ok(()),
                }
            }
            Place::Coordinator => Ok(()),
        }
    }
}

impl Follow for Check<'_> {
    type Label = Label;

    fn leaf(&mut self, leaf: &Arc<dyn ExecutionPlan>) -> Result<Label> {
        let original = leaf.downcast_ref::<DistributedLeafExec>().map_or(leaf, |leaf| leaf.original());
        let Some(scan) = stored_scan(original) else { return Ok(Label::new()) };
        let Some(table_id) = scanned_table(scan) else { return Err(Error::bug("a scan of stored files names no table").into()) };
        let table = &self.placement.table(table_id)?.table;
        let reach = Reach::within(&table.regions);
        self.errors = self.errors.and(&reach);
        Ok(if reach.is_limited() { Label::from([(table.qualified_name(), reach)]) } else { Label::new() })
    }

    fn boundary(&mut self, boundary: &dyn NetworkBoundary, name: &str) -> Result<Label> {
        let stage = boundary.input_stage();
        let Some(plan) = stage.local_plan() else { return Err(Error::bug("a fragment was sent before it was checked").into()) };
        let outside = std::mem::take(&mut self.errors);
        let label = self.fragment(plan, Place::Workers)?;
        self.borders.errors.insert(stage.num(), self.errors.clone());
        self.errors = self.errors.and(&outside);
        let reach = label.values().fold(Reach::anywhere(), |all, one| all.and(one));
        self.borders.reach.insert(stage.num(), reach);
        self.inside.push((stage.num(), name.to_string(), label.clone()));
        Ok(label)
    }

    fn both(mut left: Label, right: Label) -> Label {
        for (table, reach) in right {
            let both = left.remove(&table).map_or(reach.clone(), |known| known.and(&reach));
            left.insert(table, both);
        }
        left
    }
}

/// Whether a fragment reads files itself: it runs on all nodes then.
fn reads_files(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= node.downcast_ref::<DistributedLeafExec>().is_some_and(|leaf| stored_scan(leaf.original()).is_some());
        Ok(if node.is_network_boundary() { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
