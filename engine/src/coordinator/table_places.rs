//! Whether the cluster has the regions and the nodes that a table asks for.

use super::CoordinatorInner;
use crate::catalog::location::Location;
use crate::config::residency_of;
use crate::error::{Error, Result};
use crate::residency::Reach;
use std::collections::BTreeSet;

/// Refuses regions that nothing of the cluster is in, and more copies than there are nodes for them.
///
/// # Errors
/// With what there is.
pub(crate) fn check(inner: &CoordinatorInner, regions: &[String], replicas: u32, location: &Location) -> Result<()> {
    let known = known_regions(inner);
    if let Some(unknown) = regions.iter().find(|region| !known.contains(*region)) {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        return Err(Error::user(format!(
            "nothing of the cluster is in region '{unknown}': its nodes and buckets are in {}",
            known.join(", ")
        )));
    }
    let Location::Node { volume, .. } = location else { return Ok(()) };
    let reach = Reach::within(regions);
    let inventories = inner.membership.inventories();
    let able = inventories
        .values()
        .filter(|held| held.volumes.contains(volume) && reach.allows(Some(&held.region)) && reach.allows(Some(held.region_of(volume))));
    let able = able.count();
    if replicas > 1 && replicas as usize > able {
        return Err(Error::user(format!(
            "replicas = {replicas} wants as many nodes, and {able} in {reach} serve a volume '{volume}' now: ask for fewer, or start the others first"
        )));
    }
    Ok(())
}

fn known_regions(inner: &CoordinatorInner) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for node in inner.membership.nodes() {
        known.extend(node.volume_regions.into_values());
        known.insert(node.region);
    }
    known.extend(inner.config.storage.iter().filter_map(|storage| residency_of(&inner.config.storage, &storage.url)));
    known
}
