//! Asks a coordinator whether it would take a worker with these settings in. Nothing is opened here and nothing changes there.

use super::service::default_threads;
use crate::cluster_tls::ClusterTls;
use crate::config::WorkerConfig;
use crate::control::client::ControlClient;
use crate::control::{Looked, PROTOCOL_VERSION, Register, now_ms};
use crate::error::Result;
use std::collections::BTreeMap;
use std::time::Instant;

/// What a coordinator said.
#[derive(Debug, Clone)]
pub struct Sight {
    /// Its answer.
    pub looked: Looked,
    /// How far this machine's clock is ahead of its clock, in milliseconds; behind when negative. As exact as half of the call's time.
    pub clock_ahead_ms: i64,
}

/// Asks with the token, the certificates and the name of the settings. Needs a runtime.
///
/// # Errors
/// As a registration: the coordinator's own words where it refuses, [`crate::ErrorClass::Retry`] where nobody answers in time.
pub async fn look(config: &WorkerConfig) -> Result<Sight> {
    let tls = ClusterTls::of_worker(config)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let authority = config.advertise.clone().unwrap_or_else(|| config.listen.to_string());
    let mut client = ControlClient::new(&config.coordinator, &config.cluster_token, tls)?;
    let register = Register {
        protocol_version: PROTOCOL_VERSION,
        version: env!("CARGO_PKG_VERSION").into(),
        node_id: config.node_id.clone(),
        region: config.region.clone(),
        address: format!("{scheme}://{authority}/{}", config.node_id),
        pid: std::process::id(),
        cpu_threads: default_threads(),
        device: String::new(),
        // No life of a node: it differs from each.
        incarnation: String::new(),
        volumes: vec![],
        volume_regions: BTreeMap::new(),
        keeps_parts: false,
        client_url: None,
        found_volumes: BTreeMap::new(),
    };
    let asked = Instant::now();
    let looked = client.look(&register).await?;
    let half_way_ms = asked.elapsed().as_millis() as i64 / 2;
    let clock_ahead_ms = now_ms() as i64 - half_way_ms - looked.clock_ms as i64;
    Ok(Sight { looked, clock_ahead_ms })
}
