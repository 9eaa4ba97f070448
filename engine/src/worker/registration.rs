//! Keeps a worker known to its coordinator: registers, waits where there is none yet, sends heartbeats with inventory changes.

use super::WorkerNode;
use super::fault;
use super::inventory::Inventory;
use super::table_files;
use crate::control::client::ControlClient;
use crate::control::packed::PackedInventory;
use crate::control::{Heartbeat, Orders, PROTOCOL_VERSION, PROTOCOL_VERSION_PACKED, Register, now_ms};
use crate::error::{Error, ErrorClass, Result};
use crate::limits;
use crate::residency::policy::Policy;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// Runs until `stopped` turns true, or the coordinator refuses this worker for good.
pub async fn keep_registered(node: Arc<WorkerNode>, local: SocketAddr, mut stopped: watch::Receiver<bool>) -> Result<()> {
    tokio::select! {
        result = register_and_beat(node, local) => result,
        _ = stopped.wait_for(|stop| *stop) => Ok(()),
    }
}

async fn register_and_beat(node: Arc<WorkerNode>, local: SocketAddr) -> Result<()> {
    let config = &node.config;
    let mut client = ControlClient::new(&config.coordinator, &config.cluster_token, node.channels.tls())?;
    let authority = config.advertise.clone().unwrap_or_else(|| local.to_string());
    let incarnation = Uuid::new_v4().to_string();
    let mut inventory = Inventory::new(config.volumes.clone());
    let mut wanted: HashSet<String> = HashSet::new();
    let mut wait = limits::REGISTER_RETRY_FIRST;
    let mut told = false;
    loop {
        let looking = node.clone();
        let found_volumes = tokio::task::spawn_blocking(move || looking.volumes.found()).await;
        let found_volumes = found_volumes.map_err(|error| Error::bug(format!("looking at volumes failed: {error}")))?;
        let register = Register {
            protocol_version: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            node_id: config.node_id.clone(),
            region: config.region.clone(),
            address: format!("{}://{authority}/{}", node.channels.scheme(), config.node_id),
            pid: std::process::id(),
            cpu_threads: if config.cpu_threads > 0 { config.cpu_threads } else { super::service::default_threads() },
            device: node.device_text(),
            incarnation: incarnation.clone(),
            volumes: config.volumes.keys().cloned().collect(),
            volume_regions: config.volume_regions.clone(),
            keeps_parts: true,
            client_url: node.client_url.get().cloned(),
            found_volumes,
        };
        match client.register(&register).await {
            Ok(registered) => {
                tracing::info!(node = config.node_id, coordinator = config.coordinator, "registered");
                node.add_storage(&registered.storage);
                node.ledger.learn(registered.policy);
                let (marking, expected) = (node.clone(), registered.volumes);
                let marked = tokio::task::spawn_blocking(move || marking.volumes.note_expected(&expected)).await;
                marked.map_err(|error| Error::bug(format!("marking volumes failed: {error}")))?;
                wait = limits::REGISTER_RETRY_FIRST;
                told = false;
                let packs = registered.protocol_version >= PROTOCOL_VERSION_PACKED;
                inventory = beat(&node, &mut client, &incarnation, inventory, &mut wanted, packs).await?;
                tokio::time::sleep(rand::random_range(Duration::ZERO..limits::REGISTER_AGAIN_SPREAD)).await;
            }
            // Waiting cures a coordinator that is not up yet, not a wrong token, release or name.
            Err(error) if error.class() != ErrorClass::Retry => return Err(error),
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "waiting for the coordinator");
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(limits::REGISTER_RETRY_MAX);
            }
        }
    }
}

/// What the last listing found, as a heartbeat tells it.
#[derive(Clone, Default)]
struct Said {
    inventory_epoch: u64,
    listed_at_ms: u64,
    listed_after_ms: Option<u64>,
    free_bytes: BTreeMap<String, u64>,
    missing_volumes: BTreeMap<String, String>,
}

/// A sign of life over what was `said` before: nothing new of files and columns.
fn sign_of_life(node: &WorkerNode, incarnation: &str, said: &Said) -> Heartbeat {
    Heartbeat {
        node_id: node.config.node_id.clone(),
        incarnation: incarnation.to_string(),
        inventory_epoch: said.inventory_epoch,
        packed_inventory: None,
        inventory: None,
        cached_bytes: node.kernels.kernels.cache().bytes(),
        cached_columns: None,
        device: node.device_text(),
        listed_at_ms: said.listed_at_ms,
        listed_after_ms: said.listed_after_ms,
        unreadable: vec![],
        replicas: vec![],
        failed_copies: vec![],
        hashed: vec![],
        damaged: vec![],
        free_bytes: said.free_bytes.clone(),
        missing_volumes: said.missing_volumes.clone(),
        running_tasks: node.load.running_tasks(),
        max_tasks: node.config.tasks_at_once(),
        memory_reserved_bytes: node.memory.operator_bytes(),
        spilled_bytes: node.runtime.disk_manager.used_disk_space(),
        budgets: node.budgets(),
        leaving: node.load.is_leaving(),
        sent_at_ms: Some(now_ms()),
        policy_version: node.ledger.policy_version(),
    }
}

/// Sends heartbeats, with packed inventories if the coordinator `packs`, until it is lost or asks for a new registration. Returns the inventory for the next round.
async fn beat(
    node: &Arc<WorkerNode>,
    client: &mut ControlClient,
    incarnation: &str,
    mut inventory: Inventory,
    wanted: &mut HashSet<String>,
    packs: bool,
) -> Result<Inventory> {
    let mut acknowledged = 0;
    let mut told_columns = None;
    let mut said = Said::default();
    let mut missing_before = BTreeMap::new();
    // The coordinator's clock as it was said last, and when that was.
    let mut clock: Option<(u64, Instant)> = None;
    loop {
        let listed_after_ms = clock.map(|(said, since)| said + since.elapsed().as_millis() as u64);
        let asked = wanted.clone();
        let (kernels, replicas, volumes) = (node.kernels.clone(), node.replicas.clone(), node.config.volumes.clone());
        let (checked, scrubber, faults) = (node.volumes.clone(), node.scrubber.clone(), node.config.faults.clone());
        let mut listing = tokio::task::spawn_blocking(move || {
            fault::hold_up_listing(&faults);
            // One that vanished or came back beside the listing is taken for missing: its files are listed the next time.
            let mut missing = checked.missing();
            inventory.refresh(&asked, replicas.list());
            missing.extend(checked.missing());
            let changed = acknowledged != inventory.epoch();
            let damaged = if changed { scrubber.damaged() } else { vec![] };
            let packed = (changed && packs).then(|| PackedInventory::pack(inventory.files())).transpose();
            (inventory, packed, kernels.cached_columns(), free_bytes(&volumes), missing, checked.have_changed(), damaged)
        });
        // A disk that keeps a listing waiting must not make the node look dead.
        let mut lost = false;
        let listed = loop {
            tokio::select! {
                listed = &mut listing => break listed,
                () = tokio::time::sleep(limits::HEARTBEAT_INTERVAL), if !lost => {
                    match client.heartbeat(&sign_of_life(node, incarnation, &said)).await {
                        Ok(answer) if !answer.register_again => follow(node, answer.orders, answer.policy),
                        _ => lost = true,
                    }
                }
            }
        };
        let (listed, packed_inventory, cached_columns, free_bytes, missing_volumes, volumes_changed, damaged) =
            listed.map_err(|error| Error::bug(format!("listing volumes and cache failed: {error}")))?;
        inventory = listed;
        tell_of_volumes(&mut missing_before, &missing_volumes);
        if volumes_changed || lost {
            // A folder that nobody knows yet: the coordinator says whether it can be the volume.
            return Ok(inventory);
        }
        let changed = acknowledged != inventory.epoch();
        said = Said {
            inventory_epoch: inventory.epoch(),
            listed_at_ms: inventory.listed_at_ms(),
            listed_after_ms,
            free_bytes,
            missing_volumes,
        };
        let heartbeat = Heartbeat {
            packed_inventory: packed_inventory?,
            inventory: (changed && !packs).then(|| inventory.files().to_vec()),
            cached_columns: (told_columns.as_ref() != Some(&cached_columns)).then(|| cached_columns.clone()),
            unreadable: if changed { inventory.unreadable().to_vec() } else { vec![] },
            replicas: if changed { inventory.replicas().to_vec() } else { vec![] },
            failed_copies: node.replicas.failures(),
            hashed: node.scrubber.hashed(),
            damaged,
            ..sign_of_life(node, incarnation, &said)
        };
        let leaving = heartbeat.leaving;
        match client.heartbeat(&heartbeat).await {
            Ok(answer) if answer.register_again => {
                node.scrubber.not_told(heartbeat.hashed);
                return Ok(inventory);
            }
            Ok(answer) => {
                acknowledged = answer.acknowledged_epoch;
                clock = answer.clock_ms.map(|said| (said, Instant::now()));
                told_columns = Some(cached_columns);
                *wanted = answer.wanted_checksums.into_iter().collect();
                follow(node, answer.orders, answer.policy);
                if leaving {
                    node.load.told_coordinator();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the coordinator does not answer; registering again");
                node.scrubber.not_told(heartbeat.hashed);
                return Ok(inventory);
            }
        }
        let wait = tokio::time::sleep(limits::HEARTBEAT_INTERVAL);
        tokio::select! {
            () = wait => {}
            // That is news which does not wait.
            () = node.load.asked_to_leave(), if !leaving => {}
        }
    }
}

/// Does what the coordinator orders, beside the heartbeats.
fn follow(node: &Arc<WorkerNode>, orders: Orders, policy: Option<Policy>) {
    if !orders.delete.is_empty() {
        let (node, orders) = (node.clone(), orders.clone());
        tokio::task::spawn_blocking(move || table_files::delete(&node, &orders));
    }
    node.scrubber.ask(orders.scrub);
    if !orders.set_aside.is_empty() {
        let (node, orders) = (node.clone(), orders.set_aside.clone());
        tokio::task::spawn_blocking(move || node.scrubber.set_aside(&orders));
    }
    node.replicas.follow(orders);
    if let Some(policy) = policy {
        node.ledger.learn(policy);
    }
}

/// Says once that a volume has vanished, and that it is back.
fn tell_of_volumes(before: &mut BTreeMap<String, String>, now: &BTreeMap<String, String>) {
    for (volume, reason) in now.iter().filter(|(volume, reason)| before.get(*volume) != Some(*reason)) {
        tracing::error!(volume, reason, "a volume is not there; nothing is written to it");
    }
    for volume in before.keys().filter(|volume| !now.contains_key(*volume)) {
        tracing::info!(volume, "a volume is there again");
    }
    before.clone_from(now);
}

/// Free bytes on the disk of each volume; a disk that does not say is left out.
fn free_bytes(volumes: &BTreeMap<String, PathBuf>) -> BTreeMap<String, u64> {
    let free = |root: &PathBuf| rustix::fs::statvfs(root).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    volumes.iter().filter_map(|(volume, root)| Some((volume.clone(), free(root)?))).collect()
}
